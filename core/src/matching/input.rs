//! Rules as people write them, and what is wrong with them.

use alloc::collections::BTreeMap;
use alloc::string::String;

use serde::{Deserialize, Serialize};

/// Most entries of a canary.
pub const MAX_ENTRIES: usize = 64;
/// Most bytes of all automata of a list: every proxy carries them.
pub const MAX_AUTOMATA_BYTES: usize = 512 * 1_024;

/// A test of one value, as it is written: exactly one of the four, or none for "is there".
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StringMatch {
    /// The whole value.
    pub exact: Option<String>,
    /// Its beginning.
    pub prefix: Option<String>,
    /// Its end.
    pub suffix: Option<String>,
    /// A regex of the whole value.
    pub regex: Option<String>,
}

/// An entry of `match`, as it is written. All that is there must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EntryInput {
    /// By name; any value of a repeated header may match.
    pub headers: BTreeMap<String, StringMatch>,
    /// By name; no value may match.
    pub without_headers: BTreeMap<String, StringMatch>,
    /// By name, of the query.
    pub query: BTreeMap<String, StringMatch>,
    /// The path, without the query.
    pub uri: Option<StringMatch>,
    /// The method.
    pub method: Option<StringMatch>,
    /// The scheme.
    pub scheme: Option<StringMatch>,
    /// The host.
    pub authority: Option<StringMatch>,
    /// True if the case of the path does not matter.
    pub ignore_uri_case: bool,
}

/// What is wrong with a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {wrong}")]
pub struct RuleError {
    /// Path of the field below the list, like `[1].headers.cookie.regex`.
    pub field: String,
    /// What is wrong, and what would be right.
    pub wrong: String,
}
