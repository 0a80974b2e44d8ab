//! The assessment of the judge, with all evidence behind it.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::config::Comparison;
use super::sequential::ln_sum;
use super::signal::Signal;
use crate::id::NodeId;
use crate::time::{Span, Timestamp};
use crate::verdict::{Doubt, Verdict};

/// Whether the weight of the step is in force at the proxies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Propagation {
    /// All traffic is routed by it.
    Effective,
    /// Not yet; these nodes still route by older revisions. May be empty if none sent anything.
    Pending {
        /// The nodes that lag behind.
        laggards: Vec<NodeId>,
    },
    /// The routes are in force, and filters of these nodes do not know yet how requests find their arm.
    Unassigned {
        /// The nodes that were not told yet.
        nodes: Vec<NodeId>,
    },
    /// The routes are in force, and requests do not divide as they say.
    Skewed {
        /// The nodes that show it. May be empty if only all of them together do.
        nodes: Vec<NodeId>,
    },
    /// Unknown: no node reports any more.
    Unknown {
        /// When the last one did.
        since: Timestamp,
    },
}

/// The state of the judgement at one moment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assessment {
    /// What follows.
    pub verdict: Verdict,
    /// What it rests on.
    pub evidence: Evidence,
    /// Canary requests that are missing until the step may end; nothing if no number is enough.
    pub eta_requests: Option<u64>,
    /// How long they take at the present rate.
    pub eta: Option<Span>,
    /// What was compared.
    pub comparison: Comparison,
    /// Harm beyond the margin is ruled out at this weight, and a step may end early.
    pub safe: bool,
    /// What stands against it that the canary is given more.
    #[serde(default)]
    pub doubt: Option<Doubt>,
    /// What people should know besides.
    pub notices: Vec<Notice>,
}

/// Natural logarithms of e-values. The harm of all signals together, as a sum of e-values, crosses
/// at ln(1/α): their shares of α are in them already.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evidence {
    /// On errors, hard guard and absolute limit included.
    pub errors: HarmSafe,
    /// On latency, absolute limit included.
    pub latency: HarmSafe,
    /// On kinds of answers.
    pub outcomes: Harm,
    /// On attempts.
    pub attempts: Harm,
    /// On clients that left.
    pub disconnects: Harm,
}

impl Evidence {
    /// Returns ln of the sum of all e-values of harm: what is compared with ln(1/α). Signals without a share are zero,
    /// and left out; 0 if all are.
    pub fn harm(&self) -> f64 {
        let all = [self.errors.harm, self.latency.harm, self.outcomes.harm, self.attempts.harm, self.disconnects.harm];
        let sum = ln_sum(all.into_iter().filter(|harm| harm.abs() > 0.0));
        if sum.is_finite() { sum } else { 0.0 }
    }
}

/// Evidence for harm and for safety.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct HarmSafe {
    /// For "worse than tolerated".
    pub harm: f64,
    /// Against it, since the step began.
    pub safe: f64,
}

/// Evidence for harm.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Harm {
    /// For "worse than tolerated".
    pub harm: f64,
}

/// Something that people should know, and that moves nothing by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// What it is about. One of a kind is told once, until it is over.
    pub about: NoticeSubject,
    /// The text.
    pub text: String,
}

/// What a notice is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoticeSubject {
    /// A signal would roll back, and may only warn.
    Signal(Signal),
    /// The primary is degraded: both arms suffer.
    SharedHarm,
    /// Only one node shows harm.
    OneNode,
    /// Only one pod may have caused the harm.
    OnePod,
}
