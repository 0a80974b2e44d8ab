//! The rollout's machine: commands, evidence, answers, restarts and rewritten plans, in any order.

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Unstructured};
use wingbeat_core::id::{CanaryName, Rev, Revision, RolloutId};
use wingbeat_core::rollout::{
    Amendment, Answer, Cause, Command, Event, Facts, Handover, HookInput, HookKind, MetricInput, MetricSource, NoData,
    Pace, Phase, Plan, PlanInput, PlanTerms, Progress, Projection, Readiness, Share, State, Ticket, invariant, project,
    question, step,
};
use wingbeat_core::time::{Span, Timestamp};
use wingbeat_core::verdict::{Counted, Doubt, Verdict};

/// Tickets of questions that were open before, of which a late answer may come.
const LATE: usize = 16;

#[derive(Debug, Arbitrary)]
enum Happening {
    Revision(u8),
    Tick(Sight),
    /// A tick at which all is well: half of all, so that rollouts come to their ends.
    Well(u16),
    WellAndAnswered(u16),
    Command(Order),
    Answer(Reply),
    Late(u8, Reply),
    RevSeen(u8),
    /// The controller is killed and started again.
    Restart,
    /// An abort is served, and the controller is killed before it is stored.
    LostAbort,
    Rewrite(Spec),
}

#[derive(Debug, Arbitrary)]
struct Sight {
    primary: Workload,
    canary: Workload,
    propagation: bool,
    verdict: Word,
    enough: bool,
    safe: bool,
    doubt: Option<Uncertainty>,
    uncounted: bool,
    intact: bool,
    millis: u16,
    primary_gone: bool,
    canary_gone: bool,
}

#[derive(Debug, Arbitrary)]
enum Workload {
    Ready,
    Starting,
    Hopeless,
}

#[derive(Debug, Arbitrary)]
enum Uncertainty {
    Harm,
    OnePod,
}

#[derive(Debug, Arbitrary)]
enum Word {
    Rollback,
    Advance,
    Continue,
    NoData,
}

#[derive(Debug, Arbitrary)]
enum Order {
    Pause,
    Resume,
    Approve,
    Abort,
    Promote,
    Retry,
}

#[derive(Debug, Arbitrary)]
enum Reply {
    Passed,
    Failed,
    Unknown,
    TooFew,
}

#[derive(Debug, Arbitrary)]
struct Spec {
    shape: Shape,
    hooks: u8,
    checks: bool,
    metrics: u8,
    promotion: Option<u8>,
    copies: bool,
    skips: bool,
    suspended: bool,
    mirrored: bool,
    fails_without_data: bool,
    threshold: u8,
}

#[derive(Debug, Arbitrary)]
enum Shape {
    Steps { step: u8, max: u8 },
    Weights([u8; 4]),
    Iterations { count: u8, matches: bool },
    Nothing,
}

impl From<Workload> for Readiness {
    fn from(workload: Workload) -> Self {
        match workload {
            Workload::Ready => Self::Ready,
            Workload::Starting => Self::NotReady { reason: "starting".into(), hopeless: false },
            Workload::Hopeless => Self::NotReady { reason: "crashing".into(), hopeless: true },
        }
    }
}

impl From<Word> for Verdict {
    fn from(word: Word) -> Self {
        match word {
            Word::Rollback => Self::Rollback("it fails".into()),
            Word::Advance => Self::Advance("enough".into()),
            Word::Continue => Self::Continue("more".into()),
            Word::NoData => Self::NoData("nothing".into()),
        }
    }
}

impl From<Order> for Command {
    fn from(order: Order) -> Self {
        match order {
            Order::Pause => Self::Pause,
            Order::Resume => Self::Resume,
            Order::Approve => Self::Approve,
            Order::Abort => Self::Abort,
            Order::Promote => Self::Promote,
            Order::Retry => Self::Retry,
        }
    }
}

impl From<Uncertainty> for Doubt {
    fn from(doubt: Uncertainty) -> Self {
        match doubt {
            Uncertainty::Harm => Self::Harm,
            Uncertainty::OnePod => Self::OnePod,
        }
    }
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        match reply {
            Reply::Passed => Self::Passed,
            Reply::Failed => Self::Failed("no".into()),
            Reply::Unknown => Self::Unknown("away".into()),
            Reply::TooFew => Self::TooFew("few".into()),
        }
    }
}

impl Sight {
    fn facts(self) -> Facts {
        Facts {
            primary: self.primary.into(),
            canary: self.canary.into(),
            propagation: self.propagation,
            verdict: self.verdict.into(),
            counted: if self.enough { Counted::Sufficient } else { Counted::Missing(3) },
            safe: self.safe,
            doubt: self.doubt.map(Doubt::from),
            uncounted: self.uncounted,
            intact: self.intact,
            primary_gone: self.primary_gone,
            canary_gone: self.canary_gone,
        }
    }
}

impl Spec {
    fn input(&self) -> PlanInput {
        let kinds = HookKind::ALL.into_iter().enumerate().filter(|(bit, _)| self.hooks & (1 << bit) != 0);
        let hook = |(_, kind): (usize, HookKind)| HookInput {
            name: "h".into(),
            kind: kind.as_str().into(),
            mute_alert: false,
        };
        let metric = |source| MetricInput { name: "m".into(), source };
        let metrics = [(1, MetricSource::Filters), (2, MetricSource::External)];
        let metrics = metrics.into_iter().filter(|(bit, _)| self.metrics & bit != 0);
        let (mut steps, mut max, mut weights, mut iterations, mut with_rules) = (None, None, Vec::new(), None, false);
        match &self.shape {
            Shape::Steps { step, max: most } => (steps, max) = (Some(i64::from(*step)), Some(i64::from(*most))),
            Shape::Weights(some) => weights = some.iter().copied().filter(|w| *w > 0).map(i64::from).collect(),
            Shape::Iterations { count, matches } => (iterations, with_rules) = (Some(i64::from(*count)), *matches),
            Shape::Nothing => {}
        }
        PlanInput {
            name: Some(CanaryName::new("prod", "backend")),
            target: "backend".into(),
            interval: Some(Span::from_secs(1)),
            progress_deadline: Some(Span::from_secs(5)),
            threshold: Some(i64::from(self.threshold)),
            skip_analysis: self.skips,
            suspend: self.suspended,
            pace: if self.checks { Pace::Checks } else { Pace::Evidence },
            iterations,
            matches: with_rules,
            step_weight: steps,
            step_weights: weights,
            max_weight: max,
            step_weight_promotion: self.promotion.map(i64::from),
            mirror: self.mirrored,
            hooks: kinds.map(hook).collect(),
            no_data: self.fails_without_data.then_some(NoData::Fail),
            metrics: metrics.map(|(_, source)| metric(source)).collect(),
            handover: if self.copies { Handover::Copy } else { Handover::Relabel },
            ..PlanInput::default()
        }
    }

    /// Returns the plan, if it is one; else each error names a field and what would be right.
    fn plan(&self) -> Option<Plan> {
        match Plan::try_new(&self.input()) {
            Ok(plan) => Some(plan),
            Err(errors) => {
                assert!(!errors.is_empty(), "what is refused says why");
                assert!(errors.iter().all(|error| !error.field.is_empty() && !error.mend.is_empty()), "{errors:?}");
                None
            }
        }
    }
}

/// A canary, and what was seen of it so far.
struct World {
    written: Plan,
    plan: Plan,
    terms: PlanTerms,
    state: State,
    now: Timestamp,
    late: Vec<Ticket>,
    /// What was served under a rev: never two things.
    served: BTreeMap<Rev, Projection>,
    /// Whose rollout a number is: never two.
    rollouts: BTreeMap<RolloutId, (Revision, Revision, u32)>,
}

/// Plays a history.
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let Ok(spec) = Spec::arbitrary(&mut input) else { return };
    let Some(plan) = spec.plan() else { return };
    let mut world = World {
        written: plan.clone(),
        terms: plan.terms(),
        plan,
        state: State::default(),
        now: Timestamp::from_millis(1),
        late: Vec::new(),
        served: BTreeMap::new(),
        rollouts: BTreeMap::new(),
    };
    world.feed(&Event::Revision(Revision::new("1")));
    while !input.is_empty() {
        let Ok(happening) = Happening::arbitrary(&mut input) else { return };
        world.happen(happening);
    }
}

impl World {
    fn happen(&mut self, happening: Happening) {
        match happening {
            Happening::Revision(number) => self.feed(&Event::Revision(Revision::new((number % 4).to_string()))),
            Happening::Tick(sight) => {
                self.pass(sight.millis);
                self.feed(&Event::Tick(sight.facts()));
            }
            Happening::Well(millis) => self.well(millis),
            Happening::WellAndAnswered(millis) => {
                self.well(millis);
                // So many questions a round has at most.
                for _ in 0..HookKind::ALL.len().saturating_add(2) {
                    self.answer(Answer::Passed);
                }
            }
            Happening::Command(order) => self.feed(&Event::Command(order.into())),
            Happening::Answer(reply) => self.answer(reply.into()),
            Happening::Late(which, reply) => self.late_answer(usize::from(which), reply.into()),
            Happening::RevSeen(rev) => self.feed(&Event::RevObserved(Rev::new(rev.into()))),
            Happening::Restart => self.restart(),
            Happening::LostAbort => self.lose_abort(),
            Happening::Rewrite(spec) => self.rewrite(&spec),
        }
    }

    fn pass(&mut self, millis: u16) {
        self.now = self.now.plus(Span::from_millis(millis.into()));
    }

    fn well(&mut self, millis: u16) {
        self.pass(millis);
        let verdict = Verdict::Advance("enough".into());
        self.feed(&Event::Tick(Facts {
            propagation: true,
            verdict,
            counted: Counted::Sufficient,
            ..Facts::unmeasured()
        }));
    }

    fn answer(&mut self, answer: Answer) {
        let Some(open) = question(&self.plan, &self.state) else { return };
        if self.late.len() < LATE && !self.late.contains(&open.ticket) {
            self.late.push(open.ticket);
        }
        self.feed(&Event::Answer(open.ticket, answer));
    }

    fn late_answer(&mut self, which: usize, answer: Answer) {
        let Some(ticket) = self.late.get(which % LATE).copied() else { return };
        if question(&self.plan, &self.state).is_some_and(|open| open.ticket == ticket) {
            return;
        }
        let before = self.state.clone();
        self.feed(&Event::Answer(ticket, answer));
        assert_eq!(self.state, before, "what is not asked is not answered");
    }

    fn restart(&mut self) {
        let routes = project(&self.state);
        self.state = self.state.clone().resumed();
        assert_eq!(project(&self.state), routes, "a restart serves what was served");
    }

    /// The abort is served under its rev; what is stored knows nothing of it.
    fn lose_abort(&mut self) {
        if !matches!(self.state.phase, Phase::Progressing(_)) {
            return;
        }
        let aborted = step(&self.plan, &self.state, &Event::Command(Command::Abort), self.now).state;
        self.serve(&aborted);
        self.restart();
        assert_eq!(self.state.unstored_abort(), aborted.rev, "a restarted controller knows the rev of such an abort");
    }

    fn rewrite(&mut self, spec: &Spec) {
        let Some(written) = spec.plan() else { return };
        self.written = written;
        self.plan = self.written.clone();
        if self.state.has_rollout() {
            self.plan = self.written.clone().under(&self.terms, &mut Amendment::default());
            self.terms = self.plan.terms();
        }
    }

    fn serve(&mut self, state: &State) {
        let served = project(state);
        let before = self.served.entry(served.rev).or_insert_with(|| served.clone());
        assert_eq!(*before, served, "a rev names one set of routes, served before a crash or after it");
    }

    fn feed(&mut self, event: &Event) {
        let stepped = step(&self.plan, &self.state, event, self.now);
        let (before, after) = (&self.state, &stepped.state);
        let broken = invariant::broken(&self.plan, before, event, after);
        assert_eq!(broken, None, "{event:?} from {before:?} to {after:?}");
        holds_across(&self.plan, before, event, after);
        holds_in(after);
        // The same word once more says nothing new.
        if !matches!(event, Event::Tick(_) | Event::Command(_)) {
            let again = step(&self.plan, after, event, self.now);
            assert_eq!(again.state, *after, "{event:?} twice");
            assert!(again.effects.is_empty(), "{event:?} twice: {:?}", again.effects);
        }
        let stored = serde_json::to_string(after).unwrap_or_default();
        let restored: Option<State> = serde_json::from_str(&stored).ok();
        assert_eq!(restored.as_ref(), Some(after), "what is stored comes back as it was");
        let after = stepped.state;
        self.serve(&after);
        if let Phase::Progressing(Progress { primary, canary, attempt, .. }) = &after.phase {
            let whose = (primary.clone(), canary.clone(), *attempt);
            let known = self.rollouts.entry(after.rollout).or_insert_with(|| whose.clone());
            assert_eq!(*known, whose, "a number names one rollout");
        }
        if after.rollout != self.state.rollout || !after.has_rollout() {
            self.plan = self.written.clone();
            self.terms = self.plan.terms();
        }
        self.state = after;
    }
}

/// What holds of two states with an event between them, beyond [`invariant::broken`].
fn holds_across(plan: &Plan, before: &State, event: &Event, after: &State) {
    let (old, new) = (project(before), project(after));
    let is_evidence = matches!(event, Event::Tick(_) | Event::Answer(..) | Event::RevObserved(_));
    if let (Phase::Failed { cause: Cause::RolledBack, primary, canary, .. }, true) = (&before.phase, is_evidence) {
        let Phase::Failed { primary: same_primary, canary: same_canary, .. } = &after.phase else {
            unsound(&format!("evidence undoes an abort: {event:?} from {before:?} to {after:?}"));
            return;
        };
        assert_eq!(
            (primary, canary, old.routes),
            (same_primary, same_canary, new.routes),
            "{event:?} changes what has failed"
        );
    }
    if let Event::Tick(facts) = event {
        let risen = new.routes.canary_weight() > old.routes.canary_weight();
        let harm = matches!(facts.verdict, Verdict::Rollback(_));
        let judged = matches!(before.phase, Phase::Progressing(_));
        assert!(!(harm && judged) || matches!(after.phase, Phase::Failed { .. }), "harm ends a rollout: {after:?}");
        let is_ready = facts.canary.is_ready() && facts.primary.is_ready();
        assert!(
            !(risen && judged) || is_ready || is_rescue(plan, event),
            "what cannot serve gets no more: {before:?} to {after:?}"
        );
        assert!(!(risen && judged && plan.is_suspended()), "what is suspended does not rise");
    }
    if let (Phase::Progressing(progress), Phase::Promoting(_)) = (&before.phase, &after.phase) {
        let commanded = matches!(event, Event::Command(Command::Promote));
        let is_last = plan.next(progress.position, progress.share).is_none();
        let may = commanded || plan.skips_analysis() || is_last || is_rescue(plan, event);
        assert!(may, "promoted after its last step: {before:?}");
        assert!(commanded || !progress.paused, "what is paused is not promoted");
    }
}

/// Returns true if the canary may take the place of a primary that is gone, whatever is known of it.
fn is_rescue(plan: &Plan, event: &Event) -> bool {
    let Event::Tick(facts) = event else { return false };
    plan.handover() == Handover::Copy && facts.primary_gone && facts.canary.is_ready() && facts.doubt.is_none()
}

/// What holds of every state.
fn holds_in(state: &State) {
    let (primary, canary) = (state.primary(), state.canary());
    match &state.phase {
        Phase::Progressing(progress) => {
            assert_ne!(primary, canary, "a revision is not compared with itself");
            assert!(progress.position > 0 || progress.share == Share::Nothing, "nothing at position 0");
        }
        Phase::Waiting(_) | Phase::Promoting(_) => assert_ne!(primary, canary, "a revision does not replace itself"),
        Phase::Initializing
        | Phase::Initialized { .. }
        | Phase::Finalising { .. }
        | Phase::Succeeded { .. }
        | Phase::Failed { .. } => {}
    }
}

fn unsound(why: &str) {
    assert!(why.is_empty(), "{why}");
}
