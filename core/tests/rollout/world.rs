//! A canary of which the test says all that happens.

use std::collections::BTreeMap;

use wingbeat_core::id::{CanaryName, Revision};
use wingbeat_core::rollout::{
    Alert, AlertLevel, Amendment, Answer, Effect, Event, Facts, Hook, HookInput, HookKind, Pace, Plan, PlanInput,
    PlanTerms, QuestionSubject, Readiness, Routes, State, Ticket, invariant, project, question, step,
};
use wingbeat_core::time::{Span, Timestamp};
use wingbeat_core::verdict::Verdict;
use wingbeat_core::weight::BasisPoints;

pub(crate) fn input() -> PlanInput {
    PlanInput {
        name: Some(CanaryName::new("prod", "backend")),
        target: "backend".into(),
        interval: Some(Span::from_secs(1)),
        threshold: Some(2),
        step_weight: Some(5),
        max_weight: Some(50),
        ..PlanInput::default()
    }
}

pub(crate) fn by_checks() -> PlanInput {
    PlanInput { pace: Pace::Checks, metrics: vec!["request-success-rate".into()], ..input() }
}

pub(crate) fn hooks(kinds: &[HookKind]) -> Vec<HookInput> {
    kinds
        .iter()
        .map(|kind| HookInput { name: format!("the-{}", kind.as_str()), kind: kind.as_str().into(), mute_alert: false })
        .collect()
}

/// A canary with a clock that only the test moves, and hooks that answer as they were told.
pub(crate) struct World {
    /// What is in force.
    pub(crate) plan: Plan,
    /// What is written.
    pub(crate) written: Plan,
    pub(crate) terms: PlanTerms,
    /// Every question that was ever open, with what it asked.
    pub(crate) questions: Vec<(Ticket, String)>,
    pub(crate) state: State,
    pub(crate) now: Timestamp,
    pub(crate) facts: Facts,
    pub(crate) answers: BTreeMap<String, Answer>,
    pub(crate) asked: Vec<String>,
    pub(crate) texts: Vec<String>,
    pub(crate) alerts: Vec<(AlertLevel, String)>,
}

impl World {
    pub(crate) fn new(input: &PlanInput) -> Self {
        let plan = Plan::try_new(input).expect("a good plan");
        let mut world = Self {
            written: plan.clone(),
            terms: plan.terms(),
            plan,
            questions: Vec::new(),
            state: State::default(),
            now: Timestamp::from_millis(1),
            facts: Facts { propagation: true, ..Facts::unmeasured() },
            answers: BTreeMap::new(),
            asked: Vec::new(),
            texts: Vec::new(),
            alerts: Vec::new(),
        };
        world.feed(&revision("1"));
        world.texts.clear();
        world.alerts.clear();
        world
    }

    pub(crate) fn feed(&mut self, event: &Event) -> Vec<Effect> {
        let stepped = step(&self.plan, &self.state, event, self.now);
        let broken = invariant::broken(&self.plan, &self.state, event, &stepped.state);
        assert_eq!(broken, None, "{event:?} from {:?} to {:?}", self.state, stepped.state);
        let began = stepped.state.rollout != self.state.rollout;
        self.state = stepped.state;
        if began || !self.state.has_rollout() {
            self.plan = self.written.clone();
            self.terms = self.plan.terms();
        }
        self.note_question();
        for effect in &stepped.effects {
            match effect {
                Effect::Emit(_, text) => self.texts.push(text.clone()),
                Effect::Alert(Alert { level, text, .. }) => self.alerts.push((*level, text.clone())),
                Effect::Refuse(_) => {}
            }
        }
        stepped.effects
    }

    /// The spec is written anew. Returns the fields that wait for the next rollout.
    pub(crate) fn rewrite(&mut self, input: &PlanInput) -> Vec<&'static str> {
        self.rewrite_as(Plan::try_new(input).expect("a good plan"))
    }

    pub(crate) fn rewrite_as(&mut self, plan: Plan) -> Vec<&'static str> {
        self.written = plan;
        let mut amendment = Amendment::default();
        self.plan = self.written.clone();
        if self.state.has_rollout() {
            self.plan = self.written.clone().under(&self.terms, &mut amendment);
            self.terms = self.plan.terms();
        }
        self.note_question();
        amendment.waiting()
    }

    /// One ticket never names two questions, whatever happens to the plan.
    fn note_question(&mut self) {
        let Some(open) = question(&self.plan, &self.state) else { return };
        let asked = match open.asked {
            QuestionSubject::Hook(place) => format!("{:?}", hook(&self.plan, place)),
            QuestionSubject::Metric(place) => format!("{:?}", self.plan.metrics().find(|(at, _)| *at == place)),
        };
        if let Some((_, known)) = self.questions.iter().find(|(ticket, _)| *ticket == open.ticket) {
            assert_eq!(*known, asked, "one ticket names one question");
        } else {
            self.questions.push((open.ticket, asked));
        }
    }

    /// Lets hooks and metrics answer until nothing is asked.
    pub(crate) fn settle(&mut self) {
        while let Some(asked) = question(&self.plan, &self.state) {
            let name = match asked.asked {
                QuestionSubject::Hook(place) => hook_name(&self.plan, place),
                QuestionSubject::Metric(place) => {
                    self.plan.metrics().find(|(at, _)| *at == place).expect("the metric is in the plan").1.name.clone()
                }
            };
            self.asked.push(format!("{name} in {}", asked.phase));
            let answer = self.answers.get(&name).cloned().unwrap_or(Answer::Passed);
            let answer = match (name.as_str(), answer) {
                ("the-rollback", Answer::Passed) if !self.answers.contains_key(&name) => Answer::Failed("no".into()),
                (_, answer) => answer,
            };
            self.feed(&Event::Answer(asked.ticket, answer));
        }
    }

    /// Lets hooks and metrics agree until this one is asked.
    pub(crate) fn settle_until(&mut self, name: &str) {
        while let Some(open) = question(&self.plan, &self.state) {
            if matches!(open.asked, QuestionSubject::Hook(place) if hook_name(&self.plan, place) == name) {
                return;
            }
            self.feed(&Event::Answer(open.ticket, Answer::Passed));
        }
    }

    /// One interval passes.
    pub(crate) fn interval(&mut self) {
        self.pass(1_000);
        self.tick();
    }

    pub(crate) fn tick(&mut self) {
        self.feed(&Event::Tick(self.facts.clone()));
        self.settle();
    }

    pub(crate) fn pass(&mut self, millis: u64) {
        self.now = self.now.plus(Span::from_millis(millis));
    }

    pub(crate) fn verdict(&mut self, verdict: Verdict) {
        self.facts.verdict = verdict;
        self.tick();
    }

    pub(crate) fn weight(&self) -> BasisPoints {
        project(&self.state).routes.canary_weight()
    }

    pub(crate) fn routes(&self) -> Routes {
        project(&self.state).routes
    }

    /// The revision that all requests go to, if they do.
    pub(crate) fn served(&self) -> Option<Revision> {
        let projection = project(&self.state);
        match projection.routes {
            Routes::Settled(arm) => projection.revisions.of(arm).cloned(),
            Routes::Nowhere | Routes::Shared { .. } => None,
        }
    }

    pub(crate) fn phase(&self) -> &'static str {
        self.state.phase.as_str()
    }

    pub(crate) fn take_texts(&mut self) -> Vec<String> {
        std::mem::take(&mut self.texts)
    }
}

fn hook(plan: &Plan, place: usize) -> &Hook {
    let mut all = HookKind::ALL.into_iter().flat_map(|kind| plan.hooks(kind));
    all.find(|(at, _)| *at == place).expect("the hook is in the plan").1
}

pub(crate) fn hook_name(plan: &Plan, place: usize) -> String {
    hook(plan, place).name.clone()
}

pub(crate) fn advance() -> Verdict {
    Verdict::Advance(String::new())
}

pub(crate) fn harm() -> Verdict {
    Verdict::Rollback("the canary fails".into())
}

pub(crate) fn revision(name: &str) -> Event {
    Event::Revision(Revision::new(name))
}

pub(crate) fn percent(percent: u8) -> BasisPoints {
    BasisPoints::from_percent(percent)
}

pub(crate) fn down(reason: &str, hopeless: bool) -> Readiness {
    Readiness::NotReady { reason: reason.into(), hopeless }
}

/// A rollout by evidence, at its first weight.
pub(crate) fn running() -> World {
    let mut world = World::new(&input());
    world.feed(&revision("2"));
    world.tick();
    world.tick();
    world.take_texts();
    world
}

/// What [`World::served`] returns where all requests go to this revision.
#[expect(clippy::unnecessary_wraps, reason = "what World::served returns is compared with it")]
pub(crate) fn settled(revision: &str) -> Option<Revision> {
    Some(Revision::new(revision))
}
