//! One rollout in virtual time: the rollout machine and the judge of the engine, over traffic that is drawn.
//!
//! What differs from the engine: nothing is stored, hooks agree at once, and metrics that somebody else has are good.

use std::sync::Arc;

use wingbeat_api::desired_state::{CanaryConfig, Targeting};
use wingbeat_core::analysis::ledger::Delta;
use wingbeat_core::analysis::window::{Arms, Batch, WINDOW};
use wingbeat_core::id::{Arm, NodeId, Rev, Revision};
use wingbeat_core::outcome::Stratum;
use wingbeat_core::rollout::{Answer, Event, HookKind, Phase, QuestionSubject, Routes, Share, State, question, step};
use wingbeat_core::time::{Span, Timestamp};

use crate::engine::canary::{Canary, FleetStatus};
use crate::engine::persisted::PersistedCanary;
use crate::forecast::traffic::{Answers, Draw, whole};

/// The engine hears of a filter this often.
const TICK: Span = Span::from_millis(100);
/// A window that holds fewer requests than this tells nothing by itself: where traffic is low it is longer, …
const MIN_WINDOW_REQUESTS: f64 = 10.0;
/// … but not longer than this: who watches a rollout that takes hours sees no difference.
const MAX_WINDOW: Span = Span::from_secs(20);

/// A rollout that was looked at in so many windows and has not ended is left alone, an hour of the shortest ones: one
/// that waits for evidence that never comes would be followed for a day.
const MAX_WINDOWS: u64 = 20_000;

/// What a rollout is run on.
#[derive(Debug, Clone)]
pub(crate) struct RolloutScenario {
    /// What is managed.
    pub(crate) config: CanaryConfig,
    /// The revision that serves before the rollout. The one that the workload wants is the canary.
    pub(crate) primary: Revision,
    /// Requests a second that the canary's share is of.
    pub(crate) rps: f64,
    /// How the primary answers.
    pub(crate) before: Answers,
    /// How the canary answers.
    pub(crate) after: Answers,
    /// A rollout that has not ended by then is left alone.
    pub(crate) longest: Span,
}

/// How a rollout went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SimulatedRollout {
    /// How it ended.
    pub(crate) end: SimulatedEnd,
    /// When, from its beginning.
    pub(crate) took: Span,
    /// The shares that the canary had, each for so long and with so many of its requests.
    pub(crate) steps: Vec<SimulatedStep>,
    /// Windows that were judged: what it cost to find out.
    pub(crate) windows: u64,
    /// What the judge said last.
    pub(crate) word: String,
}

/// How a rollout ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SimulatedEnd {
    /// The canary serves.
    Promoted,
    /// The primary serves.
    RolledBack,
    /// Neither, yet.
    Undecided,
}

/// A share that the canary had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SimulatedStep {
    /// The share.
    pub(crate) share: Share,
    /// For so long.
    pub(crate) lasted: Span,
    /// Requests of the canary.
    pub(crate) requests: u64,
}

impl RolloutScenario {
    /// Runs a rollout. The same seed gives the same one.
    pub(crate) fn run(&self, seed: u64) -> SimulatedRollout {
        let mut run = SimulationRun::new(self, seed);
        while run.end() == SimulatedEnd::Undecided
            && run.windows < MAX_WINDOWS
            && run.now.since(run.began) < self.longest
        {
            run.pass();
        }
        run.close_step();
        let word = run.canary.assessed.as_ref().map_or_else(String::new, |said| said.verdict.reason().to_owned());
        SimulatedRollout {
            end: run.end(),
            took: run.now.since(run.began),
            steps: run.steps,
            windows: run.windows,
            word,
        }
    }

    /// Returns how often a filter is heard of, and how long a window is.
    fn spans(&self) -> (Span, Span) {
        let wanted = Span::from_nanos(whole(1e9 * MIN_WINDOW_REQUESTS / self.rps)).clamp(WINDOW, MAX_WINDOW);
        let window = WINDOW.times(wanted.as_nanos() / WINDOW.as_nanos());
        (if window == WINDOW { TICK } else { window }, window)
    }

    /// Returns the requests of primary and canary in so much time, on average.
    fn expected(&self, routes: Routes, span: Span) -> (f64, f64) {
        let requests = self.rps * span.as_secs_f64();
        let Routes::Shared { share } = routes else { return (requests, 0.0) };
        let canary = match share {
            Share::Nothing | Share::Mirrored(_) => 0.0,
            Share::Weight(weight) => weight.fraction(),
            Share::Matched => match &self.config.audience {
                Targeting::Rules { holdback, .. } => holdback.complement().fraction(),
                Targeting::Chance | Targeting::Served(_) | Targeting::Users(_) => 1.0,
            },
            Share::Everything => 1.0,
        };
        (requests * (1.0 - canary), requests * canary)
    }
}

struct SimulationRun<'a> {
    world: &'a RolloutScenario,
    canary: Canary,
    draw: Draw,
    node: NodeId,
    /// Time between two reports, and the length of a window.
    spans: (Span, Span),
    began: Timestamp,
    now: Timestamp,
    open: Batch,
    /// The rev of the share that the canary has, what it is, since when it has it, and its requests.
    step: (Rev, Share, Timestamp, u64),
    steps: Vec<SimulatedStep>,
    windows: u64,
}

impl<'a> SimulationRun<'a> {
    fn new(world: &'a RolloutScenario, seed: u64) -> Self {
        // Windows are aligned to this, too.
        let now = Timestamp::from_millis(1_000_000);
        let state = State { phase: Phase::Initialized { primary: world.primary.clone() }, ..State::default() };
        let canary =
            Canary::new(Arc::new(world.config.clone()), PersistedCanary { state, ..PersistedCanary::default() }, now);
        let mut run = Self {
            world,
            canary,
            draw: Draw::new(seed),
            node: NodeId::new("planned"),
            spans: world.spans(),
            began: now,
            now,
            open: Batch::default(),
            step: (Rev::default(), Share::Nothing, now, 0),
            steps: Vec::new(),
            windows: 0,
        };
        run.apply(&Event::Revision(world.config.workload.revision.clone()));
        run.evaluate();
        run
    }

    fn end(&self) -> SimulatedEnd {
        match &self.canary.state.phase {
            Phase::Succeeded { .. } => SimulatedEnd::Promoted,
            Phase::Failed { .. } => SimulatedEnd::RolledBack,
            Phase::Initializing
            | Phase::Initialized { .. }
            | Phase::Waiting(_)
            | Phase::Progressing(_)
            | Phase::Promoting(_)
            | Phase::Finalising { .. } => SimulatedEnd::Undecided,
        }
    }

    /// Lets the time up to the next report pass.
    fn pass(&mut self) {
        let (tick, window) = self.spans;
        self.now = self.now.plus(tick);
        if self.canary.is_judged() {
            self.report(tick);
            if self.now.since(self.began).as_nanos().is_multiple_of(window.as_nanos()) {
                self.close(window);
            }
        }
        self.evaluate();
    }

    /// Draws what has happened since the report before.
    fn report(&mut self, tick: Span) {
        let (primary, canary) = self.world.expected(self.canary.routes(), tick);
        let rev = self.canary.state.rev;
        for (arm, mean, answers) in
            [(Arm::Primary, primary, &self.world.before), (Arm::Canary, canary, &self.world.after)]
        {
            let requests = self.draw.poisson(mean);
            let Some(cluster) = self.canary.cluster(arm).filter(|_| requests > 0) else { continue };
            let counts = answers.draw(&mut self.draw, requests, rev);
            let (epoch, node) = (self.canary.epoch(), self.node.clone());
            let delta = Delta { cluster, stratum: Stratum::Judged, epoch, node, counts };
            // Nothing was served that was not stored.
            self.canary.observe_delta(arm, &delta, &self.node, tick, self.now);
            match arm {
                Arm::Primary => self.open.judged.primary.merge(&delta.counts),
                Arm::Canary => {
                    self.open.judged.canary.merge(&delta.counts);
                    self.step.3 = self.step.3.saturating_add(requests);
                }
            }
        }
    }

    /// Ends a window. One without requests is none.
    fn close(&mut self, window: Span) {
        let judged = std::mem::take(&mut self.open).judged;
        if judged == Arms::default() {
            return;
        }
        let node_group = self.canary.node_group(&self.node, self.now);
        self.canary.observe(Batch { end: self.now, span: window, judged, node_group, ..Batch::default() });
        self.windows = self.windows.saturating_add(1);
    }

    /// Shows the machine how things stand, and answers what it asks.
    fn evaluate(&mut self) {
        let facts = self.canary.facts(self.now, FleetStatus::default());
        self.apply(&Event::Tick(facts));
        while let Some(open) = question(&self.world.config.plan, &self.canary.state) {
            let answer = match open.asked {
                QuestionSubject::Metric(place) => {
                    let answer = self.canary.evaluate(place, self.now).unwrap_or(Answer::Passed);
                    self.canary.with_metric_mode(place, answer).0
                }
                // One that agrees asks for a rollback.
                QuestionSubject::Hook(place) if self.rolls_back(place) => Answer::Failed(String::new()),
                QuestionSubject::Hook(_) => Answer::Passed,
            };
            self.apply(&Event::Answer(open.ticket, answer));
        }
    }

    fn rolls_back(&self, place: usize) -> bool {
        self.world.config.plan.hooks(HookKind::Rollback).any(|(other, _)| other == place)
    }

    fn apply(&mut self, event: &Event) {
        let stepped = step(&self.world.config.plan, &self.canary.state, event, self.now);
        if stepped.state == self.canary.state {
            return;
        }
        self.canary.adopt(stepped.state, self.now);
        if self.canary.state.rev != self.step.0 {
            self.close_step();
        }
    }

    /// Notes the share that the canary had until now.
    fn close_step(&mut self) {
        let (_, share, since, requests) = self.step;
        if share.has_users() || matches!(share, Share::Mirrored(_)) {
            self.steps.push(SimulatedStep { share, lasted: self.now.since(since), requests });
        }
        let share = match self.canary.routes() {
            Routes::Shared { share } if self.canary.is_judged() => share,
            Routes::Shared { .. } | Routes::Nowhere | Routes::Settled(_) => Share::Nothing,
        };
        self.step = (self.canary.state.rev, share, self.now, 0);
    }
}
