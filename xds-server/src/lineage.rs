//! Which state the versions that proxies hold were made from.
//!
//! Versions are made from content, so that a server that is restarted finds again what it served. But one that has lost
//! its state serves something else under the same names: what a proxy holds of another state shows decisions (a canary at
//! 10 %, a revision that was rolled back) that are not known here, and is not overwritten without being asked.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::version::Version;

/// Names a state, from when it was first made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lineage {
    /// A random number.
    pub id: u64,
    /// Whose versions without a lineage are.
    pub unmarked: Unmarked,
}

/// Whose versions are that name no lineage: those of a state that was written before there were lineages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unmarked {
    /// This state's: it is such a one.
    #[default]
    Own,
    /// Another one's.
    Foreign,
}

/// Whether the routes of a canary may be given to proxies that have such of another state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Adoption {
    /// They may: a rollout has ended in this state, or somebody approved them.
    #[default]
    Adopted,
    /// They may not. No proxy has shown such yet, so that those with none are served.
    Open,
    /// They may not, and some proxy has shown such: those with none are not served either.
    Contested,
}

/// The canaries of each listener that are not adopted, by the names of their hosts.
pub type Unadopted = BTreeMap<String, BTreeMap<String, Adoption>>;

/// What a version that a proxy holds says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeldVersion {
    /// It was made from this state; none if it is damaged.
    Own(Option<Version>),
    /// It was made from another one, or by somebody else.
    Foreign,
}

impl Lineage {
    /// Returns a version as proxies are told it.
    pub fn mark(self, version: Version) -> String {
        format!("{:016x}-{version}", self.id)
    }

    /// Reads a version that a proxy holds.
    pub fn read(self, text: &str) -> HeldVersion {
        match (text.split_once('-'), self.unmarked) {
            (Some((id, version)), _) if id == format!("{:016x}", self.id) => HeldVersion::Own(Version::parse(version)),
            (None, Unmarked::Own) => HeldVersion::Own(Version::parse(text)),
            (Some(_), _) | (None, Unmarked::Foreign) => HeldVersion::Foreign,
        }
    }
}

impl HeldVersion {
    /// Returns the version, if it is of this state.
    pub const fn version(self) -> Option<Version> {
        match self {
            Self::Own(version) => version,
            Self::Foreign => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_shows_its_state() {
        let version = Version::of([&b"content"[..]]);
        let new = Lineage { id: 7, unmarked: Unmarked::Foreign };
        let upgraded = Lineage { id: 7, unmarked: Unmarked::Own };
        let other = Lineage { id: 8, unmarked: Unmarked::Foreign };
        for (lineage, text, held) in [
            (new, new.mark(version), HeldVersion::Own(Some(version))),
            (upgraded, new.mark(version), HeldVersion::Own(Some(version))),
            (new, other.mark(version), HeldVersion::Foreign),
            (upgraded, other.mark(version), HeldVersion::Foreign),
            (new, version.to_string(), HeldVersion::Foreign),
            (upgraded, version.to_string(), HeldVersion::Own(Some(version))),
            (new, "2026-11-28T23:00:00Z/4".to_owned(), HeldVersion::Foreign),
            (new, String::new(), HeldVersion::Foreign),
            (new, "0000000000000007-what".to_owned(), HeldVersion::Own(None)),
        ] {
            assert_eq!(lineage.read(&text), held, "{text:?}");
        }
    }
}
