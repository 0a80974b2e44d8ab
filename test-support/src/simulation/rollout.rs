//! A rollout in a world: the judge sees its windows one after the other, as it does in the engine.

use wingbeat_core::analysis::judge::{Assessment, Judge, JudgeConfig, Propagation};
use wingbeat_core::analysis::window::{Batch, WINDOW};
use wingbeat_core::time::{Span, Timestamp};
use wingbeat_core::verdict::{Doubt, Verdict};
use wingbeat_core::weight::BasisPoints;

use crate::simulation::traffic::Traffic;

/// Documents ask for this warm-up unless they say otherwise.
pub const WARMUP: Span = Span::from_secs(15);

/// The primary is alone for so long before a canary has users.
const ALONE: Span = Span::from_secs(10);

/// Something that draws windows.
pub trait World {
    /// Takes the node groups of its nodes.
    fn meet(&mut self, _judge: &mut Judge) {}

    /// Returns the window that ends then, in which the canary has this share of the requests.
    fn window(&mut self, share: f64, end: Timestamp) -> Batch;
}

impl World for Traffic {
    fn window(&mut self, share: f64, end: Timestamp) -> Batch {
        Self::window(self, share, end)
    }
}

impl<F: FnMut(f64, Timestamp) -> Batch> World for F {
    fn window(&mut self, share: f64, end: Timestamp) -> Batch {
        self(share, end)
    }
}

/// A canary under judgement.
#[derive(Debug)]
pub struct Rollout<W> {
    /// Where the requests come from.
    pub world: W,
    /// The judge.
    pub judge: Judge,
    /// The end of the latest window.
    pub now: Timestamp,
    /// Canary requests since the first one.
    pub canary: u64,
    share: f64,
}

/// What came of a rollout that was watched for so many canary requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Watched {
    /// Canary requests when it was rolled back.
    pub rolled_back: Option<u64>,
    /// It was suspected at some time.
    pub suspected: bool,
}

/// Returns what a document without a word on judging means.
pub fn shipped() -> JudgeConfig {
    JudgeConfig { warmup: WARMUP, ..JudgeConfig::default() }
}

impl<W: World> Rollout<W> {
    /// Returns a rollout of which the primary was seen alone for a while, as in the engine before the first step.
    pub fn new(world: W, config: JudgeConfig) -> Self {
        let now = Timestamp::from_millis(1_000_000);
        let mut rollout = Self { world, judge: Judge::new(config), now, canary: 0, share: 0.0 };
        rollout.world.meet(&mut rollout.judge);
        rollout.last(ALONE);
        rollout
    }

    /// Begins a step with this weight in percent.
    pub fn step(&mut self, percent: u8) {
        self.share = f64::from(percent) / 100.0;
        self.judge.step_started(BasisPoints::from_percent(percent), self.now);
    }

    /// Lets a window pass.
    pub fn window(&mut self) {
        self.now = self.now.plus(WINDOW);
        let batch = self.world.window(self.share, self.now);
        self.canary += batch.judged.canary.started;
        self.judge.observe(&batch);
    }

    /// Lets time pass.
    pub fn last(&mut self, span: Span) {
        let end = self.now.plus(span);
        while self.now < end {
            self.window();
        }
    }

    /// Returns what the judge says.
    pub fn assess(&self) -> Assessment {
        self.judge.assess(self.now, &Propagation::Effective)
    }

    /// Returns true if the canary is rolled back.
    pub fn is_rolled_back(&self) -> bool {
        matches!(self.assess().verdict, Verdict::Rollback(_))
    }

    /// Watches for so many canary requests. Harm that has crossed at any window stays: it is enough to ask now and then.
    pub fn watch(&mut self, requests: u64) -> Watched {
        let mut watched = Watched::default();
        let end = self.canary + requests;
        let mut windows = 0_u32;
        loop {
            self.window();
            windows += 1;
            if !windows.is_multiple_of(50) && self.canary < end {
                continue;
            }
            let assessment = self.assess();
            watched.suspected |= assessment.doubt == Some(Doubt::OnePod);
            if matches!(assessment.verdict, Verdict::Rollback(_)) {
                watched.rolled_back = Some(self.canary);
                return watched;
            }
            if self.canary >= end {
                return watched;
            }
        }
    }

    /// Returns how long it takes from now until the canary is rolled back, and how many of its requests; nothing if it
    /// takes longer than `longest`.
    pub fn until_rolled_back(&mut self, longest: Span) -> Option<(Span, u64)> {
        let (began, before) = (self.now, self.canary);
        while self.now.since(began) < longest {
            self.window();
            if self.is_rolled_back() {
                return Some((self.now.since(began), self.canary - before));
            }
        }
        None
    }
}
