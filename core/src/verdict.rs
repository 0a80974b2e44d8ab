//! What the judge says of a canary, and the rollout machine hears.

use alloc::string::String;

use serde::{Deserialize, Serialize};

/// The judge's word on a canary at one moment. Every variant says why, in words for a person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verdict", content = "reason", rename_all = "kebab-case")]
pub enum Verdict {
    /// The canary does harm: take it out of traffic.
    Rollback(String),
    /// Enough canary requests were seen that the declared regression would have been caught, and
    /// no harm was.
    Advance(String),
    /// Neither yet; the reason says what is missing and how long it takes at the current rate.
    Continue(String),
    /// There is nothing to judge from; the reason says why. Never a success.
    NoData(String),
}

/// Whether enough requests of the canary were counted in this step for it to end. Where Flagger's checks decide and the
/// plan has none, nothing else would hold a step that nobody has seen anything of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// They were.
    Sufficient,
    /// So many are missing.
    Missing(u64),
    /// They show harm, and not all nodes confirm it: neither is a step to end on.
    Contested,
}

/// What keeps a rollout where it is though nothing is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Doubt {
    /// Most requests fail since a moment ago: a canary that breaks just before a step ends is not decided on yet. Nothing rises.
    Harm,
    /// There is harm that one pod alone may have caused: nothing rises, and the share goes back to the first one.
    OnePod,
}

impl Verdict {
    /// Returns the verdict's name in outputs.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Rollback(_) => "rollback",
            Self::Advance(_) => "advance",
            Self::Continue(_) => "continue",
            Self::NoData(_) => "no-data",
        }
    }

    /// Returns the reason in words.
    pub fn reason(&self) -> &str {
        match self {
            Self::Rollback(reason) | Self::Advance(reason) | Self::Continue(reason) | Self::NoData(reason) => reason,
        }
    }
}
