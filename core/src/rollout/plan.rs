//! A validated plan: what a Canary's spec asks for.
//!
//! Whatever the strategy, a rollout walks along positions `0, 1, …, last`, and every position has a [`Share`]: what
//! the canary is given there. Position 0 comes before any traffic. A position that passes leads to the next one, the
//! last one to promotion.
//!
//! | strategy | position 0 | then | last |
//! |---|---|---|---|
//! | weighted | nothing | (mirrored,) rising weights | the highest weight |
//! | A/B | nothing | what the rules match, once per iteration | the same |
//! | blue/green | nothing | nothing or mirrored, once per iteration | everything |

use alloc::string::String;
use alloc::vec::Vec;
use core::hash::Hasher as _;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher24;

use crate::id::CanaryName;
use crate::time::Span;
use crate::weight::BasisPoints;

mod input;
mod terms;

pub use input::{DEFAULT_INTERVAL, HookInput, MIN_INTERVAL, MetricInput, PlanError, PlanInput};
pub use terms::{Amendment, PlanTerms};

/// A plan that cannot be wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    name: CanaryName,
    target: String,
    kind: String,
    interval: Span,
    threshold: u32,
    pace: Pace,
    strategy: Strategy,
    /// What the canary is given at every position; at least two, the first without traffic.
    shares: Vec<Share>,
    handover: Handover,
    promotion_step: Option<BasisPoints>,
    deadline: Span,
    skip_analysis: bool,
    suspended: bool,
    hooks: Vec<Hook>,
    metrics: Vec<PlannedMetric>,
    /// Digest of all hooks and metrics: another one means that something else is asked.
    asks: u64,
    /// Nothing said: by the pace.
    no_data: Option<NoData>,
}

/// How a revision that passed becomes the primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Handover {
    /// The revision itself is the primary from then on: in a promotion its share rises to everything.
    #[default]
    Relabel,
    /// The primary's workload takes the revision over, as with Flagger: the canary keeps its share until that is
    /// complete, then it falls to nothing.
    Copy,
}

/// A metric that is looked at in every round.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedMetric {
    /// Its name in events.
    pub name: String,
    /// Who measures it.
    pub source: MetricSource,
    /// Digest of what is asked.
    content: u64,
}

/// Who measures a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum MetricSource {
    /// The filters: where evidence decides, it is the judge's, and no round looks at it.
    Filters,
    /// Somebody outside.
    #[default]
    #[serde(rename = "Elsewhere")]
    External,
}

/// What a look without data comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoData {
    /// The rollout waits.
    Hold,
    /// A failed check.
    Fail,
}

/// What moves a rollout on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Pace {
    /// The judge's evidence; the interval is the shortest length of a step.
    #[default]
    Evidence,
    /// One look per interval, as in Flagger: checks that pass move the rollout on, checks that fail are counted.
    Checks,
}

/// The shape of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Strategy {
    /// The canary's share of all requests rises.
    Weighted,
    /// Requests that match get the canary.
    AbTesting,
    /// The canary gets no requests of users, then all.
    BlueGreen,
}

/// What the canary is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Share {
    /// No request.
    #[default]
    Nothing,
    /// Copies of this share of all requests, whose answers nobody gets.
    Mirrored(BasisPoints),
    /// This share of all requests, by chance.
    Weight(BasisPoints),
    /// The requests that match.
    Matched,
    /// Every request.
    Everything,
}

/// A hook of the spec: something outside that is asked or told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Its name in events.
    pub name: String,
    /// When it is called.
    pub kind: HookKind,
    /// True if waiting for it alerts nobody.
    pub muted: bool,
    /// Digest of where it is and what it is sent.
    content: u64,
}

/// When a hook is called, by Flagger's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HookKind {
    /// Before a rollout begins, until it agrees.
    ConfirmRollout,
    /// Before the first traffic.
    PreRollout,
    /// At every look.
    Rollout,
    /// Before the weight rises, until it agrees.
    ConfirmTrafficIncrease,
    /// Before promotion, until it agrees.
    ConfirmPromotion,
    /// After the end.
    PostRollout,
    /// At every look; agreeing means: roll back.
    Rollback,
    /// On every event.
    Event,
}

impl Share {
    /// Returns the percent of traffic shown for it: an A/B test shows 100.
    pub const fn shown(self) -> BasisPoints {
        match self {
            Self::Nothing | Self::Mirrored(_) => BasisPoints::ZERO,
            Self::Weight(weight) => weight,
            Self::Matched | Self::Everything => BasisPoints::FULL,
        }
    }

    /// Returns true if users' requests reach the canary, which is what the judge judges from. Copies pass no filter
    /// on their way (P8).
    pub const fn has_users(self) -> bool {
        match self {
            Self::Nothing | Self::Mirrored(_) => false,
            Self::Weight(weight) => !weight.is_zero(),
            Self::Matched | Self::Everything => true,
        }
    }
}

impl Handover {
    /// Returns the share after the next step of a promotion; nothing if it was the last one, which takes everything.
    pub const fn next(self, share: Share, step: BasisPoints) -> Option<Share> {
        match (self, share) {
            (Self::Relabel, Share::Nothing | Share::Mirrored(_) | Share::Weight(_)) => {
                let raised = share.shown().plus(step);
                if raised.get() == BasisPoints::FULL.get() { None } else { Some(Share::Weight(raised)) }
            }
            (Self::Copy, Share::Weight(_) | Share::Everything) => {
                let lowered = share.shown().minus(step);
                if lowered.is_zero() { None } else { Some(Share::Weight(lowered)) }
            }
            // Whom rules choose cannot be moved in parts, and what has everything or nothing already does not move.
            (Self::Relabel, Share::Matched | Share::Everything)
            | (Self::Copy, Share::Nothing | Share::Mirrored(_) | Share::Matched) => None,
        }
    }
}

impl HookKind {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::ConfirmRollout,
        Self::PreRollout,
        Self::Rollout,
        Self::ConfirmTrafficIncrease,
        Self::ConfirmPromotion,
        Self::PostRollout,
        Self::Rollback,
        Self::Event,
    ];

    /// Returns the name of the kind in a spec.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConfirmRollout => "confirm-rollout",
            Self::PreRollout => "pre-rollout",
            Self::Rollout => "rollout",
            Self::ConfirmTrafficIncrease => "confirm-traffic-increase",
            Self::ConfirmPromotion => "confirm-promotion",
            Self::PostRollout => "post-rollout",
            Self::Rollback => "rollback",
            Self::Event => "event",
        }
    }

    /// Returns the kind of this name; no name is a rollout hook.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "" => Some(Self::Rollout),
            name => Self::ALL.into_iter().find(|kind| kind.as_str() == name),
        }
    }
}

impl Strategy {
    /// Returns Flagger's name for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Weighted => "canary",
            Self::AbTesting => "ab-testing",
            Self::BlueGreen => "blue-green",
        }
    }
}

impl Plan {
    /// Returns the canary's name.
    pub const fn name(&self) -> &CanaryName {
        &self.name
    }

    /// Returns the name of the workload.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// Returns the kind of the workload.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Returns the shortest length of a step, or the time between two looks.
    pub const fn interval(&self) -> Span {
        self.interval
    }

    /// Returns how many failed checks end a rollout.
    pub const fn threshold(&self) -> u32 {
        self.threshold
    }

    /// Returns what moves a rollout on.
    pub const fn pace(&self) -> Pace {
        self.pace
    }

    /// Returns the shape of a rollout.
    pub const fn strategy(&self) -> Strategy {
        self.strategy
    }

    /// Returns what the canary is given at a position, or none past the last one.
    pub fn share(&self, position: usize) -> Option<Share> {
        self.shares.get(position).copied()
    }

    /// Returns the number of positions, at least two.
    pub fn positions(&self) -> usize {
        self.shares.len()
    }

    /// Returns the number of iterations, of strategies that have them.
    pub fn iterations(&self) -> Option<usize> {
        match self.strategy {
            Strategy::Weighted => None,
            Strategy::AbTesting => Some(self.shares.len().saturating_sub(1)),
            Strategy::BlueGreen => Some(self.shares.len().saturating_sub(2)),
        }
    }

    /// Returns the position after this one and its share, or none if this was the last one. Found by the share where
    /// weights rise: those of a plan that changed in mid-run are at other positions.
    pub fn next(&self, position: usize, share: Share) -> Option<(usize, Share)> {
        let after = position.saturating_add(1);
        let mut all = self.shares.iter().copied().enumerate();
        let by_weight = |now: BasisPoints, share: Share| match share {
            Share::Weight(weight) => weight > now,
            Share::Nothing | Share::Mirrored(_) | Share::Matched | Share::Everything => false,
        };
        match (self.strategy, share) {
            (Strategy::Weighted, Share::Nothing) => all.nth(1),
            (Strategy::Weighted, Share::Mirrored(_) | Share::Weight(_) | Share::Matched | Share::Everything) => {
                all.find(|(_, next)| by_weight(share.shown(), *next))
            }
            (Strategy::AbTesting, _) => all.nth(after),
            (Strategy::BlueGreen, Share::Everything) => None,
            // Fewer iterations than there were already: the switch is not left out.
            (Strategy::BlueGreen, _) => all.nth(after.min(self.positions().saturating_sub(1))),
        }
    }

    /// Returns how a revision that passed becomes the primary.
    pub const fn handover(&self) -> Handover {
        self.handover
    }

    /// Returns by how much the share moves in each interval of a promotion; nothing: all at once.
    pub const fn promotion_step(&self) -> Option<BasisPoints> {
        self.promotion_step
    }

    /// Returns how long a workload may take to become ready.
    pub const fn deadline(&self) -> Span {
        self.deadline
    }

    /// Returns true if a new revision is promoted without analysis.
    pub const fn skips_analysis(&self) -> bool {
        self.skip_analysis
    }

    /// Returns true if nothing is to be started or moved on.
    pub const fn is_suspended(&self) -> bool {
        self.suspended
    }

    /// Returns the hooks of a kind, each with its place in the spec.
    pub fn hooks(&self, kind: HookKind) -> impl Iterator<Item = (usize, &Hook)> {
        self.hooks.iter().enumerate().filter(move |(_, hook)| hook.kind == kind)
    }

    /// Returns what a look without data comes to: Flagger counts it as failed, and where evidence decides it holds.
    pub fn no_data(&self) -> NoData {
        self.no_data.unwrap_or(match self.pace {
            Pace::Evidence => NoData::Hold,
            Pace::Checks => NoData::Fail,
        })
    }

    /// Returns the first position from which on the canary has a share by weight.
    pub fn first_weight(&self) -> Option<(usize, Share)> {
        self.shares.iter().copied().enumerate().find(|(_, share)| matches!(share, Share::Weight(_)))
    }

    /// Returns the metrics that are looked at in every round, each with its place in the spec. Where evidence decides,
    /// these are not those that the judge knows of.
    pub fn metrics(&self) -> impl Iterator<Item = (usize, &PlannedMetric)> {
        self.metrics.iter().enumerate().filter(|(_, metric)| match (self.pace, metric.source) {
            (Pace::Evidence, MetricSource::Filters) => false,
            (Pace::Evidence, MetricSource::External) | (Pace::Checks, _) => true,
        })
    }

    /// Returns the plan with digests of what its hooks and metrics ask, in the order of the spec. A digest that is
    /// missing stays as it was.
    #[must_use]
    pub fn asking(mut self, hooks: impl Iterator<Item = u64>, metrics: impl Iterator<Item = u64>) -> Self {
        self.hooks.iter_mut().zip(hooks).for_each(|(hook, content)| hook.content = content);
        self.metrics.iter_mut().zip(metrics).for_each(|(metric, content)| metric.content = content);
        self.asks = self.digest();
        self
    }

    /// Returns a digest of everything that can be asked: an answer counts only while it is the same.
    pub(super) const fn asks(&self) -> u64 {
        self.asks
    }

    fn digest(&self) -> u64 {
        let mut hasher = SipHasher24::new();
        for Hook { name, kind, muted: _, content } in &self.hooks {
            hasher.write(kind.as_str().as_bytes());
            hasher.write_u8(0);
            hasher.write(name.as_bytes());
            hasher.write_u8(0);
            hasher.write_u64(*content);
        }
        for PlannedMetric { name, source, content } in &self.metrics {
            hasher.write_u8(match source {
                MetricSource::Filters => 1,
                MetricSource::External => 2,
            });
            hasher.write(name.as_bytes());
            hasher.write_u8(0);
            hasher.write_u64(*content);
        }
        hasher.finish()
    }
}
