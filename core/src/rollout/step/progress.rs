//! A rollout in progress: harm first, then readiness, then the round.

use alloc::format;

use super::super::event::{AlertLevel, Facts};
use super::super::messages;
use super::super::plan::{HookKind, NoData, Pace, Plan, Share};
use super::super::readiness::Readiness;
use super::super::recovery::{Action, Health, RolloutStage, act};
use super::super::round::Stage;
use super::super::state::{Ended, Gate, Phase, Progress, StepClock, Unready};
use super::TransitionBuilder;
use crate::time::{Span, Timestamp};
use crate::verdict::{Counted, Doubt, Verdict};

impl TransitionBuilder<'_> {
    pub(super) fn tick(&mut self, facts: &Facts) {
        match self.state.phase.clone() {
            Phase::Waiting(_) if self.plan.is_suspended() => {}
            Phase::Waiting(mut waiting) => {
                if waiting.round.is_outdated(self.plan) {
                    waiting.round = waiting.round.at(Stage::Over);
                }
                if waiting.round.stage == Stage::Over && waiting.round.due <= self.now {
                    waiting.round = waiting.round.next(self.plan, self.now);
                    // Who waits for approval may be called off, too: from the second time on.
                    let rollback = Stage::hooks(self.plan, HookKind::Rollback, 0).filter(|_| waiting.announced);
                    match Stage::hooks(self.plan, HookKind::ConfirmRollout, 0) {
                        Some(first) => waiting.round.stage = rollback.unwrap_or(first),
                        // The plan has lost its hooks meanwhile.
                        None => return self.confirmed(waiting.primary, waiting.canary, waiting.attempt),
                    }
                }
                self.state.phase = Phase::Waiting(waiting);
            }
            Phase::Progressing(progress) => self.progress(progress, facts),
            Phase::Promoting(promotion) => self.promotion(promotion, facts),
            Phase::Finalising { primary, due, unready } => self.finalising(primary, due, unready.as_ref(), facts),
            Phase::Succeeded { ended: Ended::Asking(place), .. }
            | Phase::Failed { ended: Ended::Asking(place), .. }
                if self.plan.hooks(HookKind::PostRollout).nth(place).is_none() =>
            {
                // The plan has lost it: one that takes its place later is not told of this rollout.
                self.post_rollout_is_over();
            }
            Phase::Initializing | Phase::Initialized { .. } | Phase::Succeeded { .. } | Phase::Failed { .. } => {}
        }
    }

    fn progress(&mut self, mut progress: Progress, facts: &Facts) {
        let (plan, now) = (self.plan, self.now);
        progress.clock = progress.clock.run(facts.propagation, now);
        (progress.uncounted, progress.doubt) = (facts.uncounted, facts.doubt);
        if progress.round.is_outdated(plan) {
            progress.round = progress.round.at(Stage::Over);
        }
        let hopeless = self.note_readiness(&mut progress, facts);
        self.state.phase = Phase::Progressing(progress.clone());
        let primary = if facts.primary.is_ready() { Health::Good } else { Health::Bad };
        if let Verdict::Rollback(reason) = &facts.verdict {
            // The judge compares with the primary: its word counts however the primary's workload looks.
            return self.fail(reason, AlertLevel::Error, format!("Canary rolled back: {reason}"));
        }
        if facts.primary_gone && facts.canary.is_ready() && facts.doubt.is_none() && self.may_rescue(&progress) {
            return self.rescue(progress);
        }
        if facts.canary_gone && self.withdraw(&progress) {
            return;
        }
        if let Some(reason) = hopeless {
            match act(RolloutStage::Judging, primary, Health::Bad) {
                Action::Rollback => {
                    let text = format!("progress deadline exceeded {reason}");
                    return self.fail(&text, AlertLevel::Error, format!("Progress deadline exceeded {reason}"));
                }
                Action::GoOn | Action::StayOnCanary | Action::Freeze => return,
            }
        }
        // The canary has no way up while either workload is incomplete; that is no failed check.
        if !facts.canary.is_ready() || !facts.primary.is_ready() || progress.paused || plan.is_suspended() {
            return;
        }
        if facts.doubt == Some(Doubt::OnePod) && self.shrink(&progress) {
            return;
        }
        let is_due = progress.round.due <= now;
        match progress.round.stage {
            Stage::Over | Stage::Entered if measures_before(plan, &progress, now) => {}
            Stage::Entered if facts.safe && plan.pace() == Pace::Evidence => self.check(progress, facts),
            Stage::Over | Stage::Entered if is_due => self.check(progress, facts),
            Stage::Judge if may_move(plan, &progress, facts, now) => self.after(progress, Stage::Judge),
            Stage::Judge if is_due && plan.pace() == Pace::Checks => self.too_few(progress, facts),
            // The judge takes longer than an interval: hooks and checks are asked again meanwhile.
            Stage::Judge if is_due => {
                if !self.check_data(progress.clone(), facts) && looks(plan) {
                    self.begin_round(progress);
                }
            }
            Stage::Over | Stage::Entered | Stage::Judge | Stage::Hook(..) | Stage::Metric(_) => {}
        }
    }

    /// Begins a round and goes as far as nobody has to be asked.
    fn check(&mut self, progress: Progress, facts: &Facts) {
        self.begin_round(progress);
        self.move_on(facts);
    }

    /// Takes the share back to nothing, as nobody would answer. False if it is nothing, or suspended.
    fn withdraw(&mut self, progress: &Progress) -> bool {
        if progress.share == Share::Nothing || self.plan.is_suspended() {
            return false;
        }
        self.warning(messages::withdrawn_share(self.plan));
        let mut progress = progress.clone();
        self.enter(&mut progress, 0, Share::Nothing);
        self.state.phase = Phase::Progressing(progress);
        true
    }

    /// Takes the share back to the first one. False if it is not above it.
    fn shrink(&mut self, progress: &Progress) -> bool {
        let Some((position, share)) = self.plan.first_weight() else { return false };
        if !matches!(progress.share, Share::Weight(_)) || progress.share.shown() <= share.shown() {
            return false;
        }
        self.warning(messages::shrunk(self.plan, share));
        let mut progress = progress.clone();
        self.enter(&mut progress, position, share);
        self.state.phase = Phase::Progressing(progress);
        true
    }

    /// A round without hooks is at the judge at once, who may have spoken already.
    fn move_on(&mut self, facts: &Facts) {
        let Phase::Progressing(progress) = &self.state.phase else { return };
        if progress.round.stage != Stage::Judge {
            return;
        }
        let progress = progress.clone();
        if may_move(self.plan, &progress, facts, self.now) {
            self.after(progress, Stage::Judge);
        } else if self.plan.pace() == Pace::Evidence {
            self.check_data(progress, facts);
        }
    }

    /// Where a look without data is a failed check, counts it. True if it did.
    fn check_data(&mut self, progress: Progress, facts: &Facts) -> bool {
        match &facts.verdict {
            Verdict::NoData(reason) if self.plan.no_data() == NoData::Fail => {
                self.end_check(progress, true, messages::no_data(self.plan, reason));
                true
            }
            Verdict::NoData(_) | Verdict::Rollback(_) | Verdict::Advance(_) | Verdict::Continue(_) => false,
        }
    }

    /// Notes why a workload cannot serve, and says so once per reason. Returns the reason if the canary's has had its
    /// time.
    fn note_readiness(&mut self, progress: &mut Progress, facts: &Facts) -> Option<alloc::string::String> {
        let (plan, now) = (self.plan, self.now);
        let unready = Unready::note(progress.unready.as_ref(), &facts.canary, now);
        if let Some(Unready { reason, .. }) = &unready
            && progress.unready.as_ref().is_none_or(|before| before.reason != *reason)
        {
            self.warning(messages::canary_not_ready(plan, reason));
        }
        progress.unready = unready;
        let primary = match &facts.primary {
            Readiness::Ready => None,
            Readiness::NotReady { reason, .. } => Some(reason.clone()),
        };
        if let Some(reason) = &primary
            && progress.primary_unready != primary
        {
            self.warning(messages::primary_not_ready(plan, reason));
            if progress.unready.is_some() {
                self.warning(messages::frozen(plan));
                self.alert(AlertLevel::Error, "Neither primary nor canary is healthy.");
            }
        }
        progress.primary_unready = primary;
        let Readiness::NotReady { reason, hopeless } = &facts.canary else { return None };
        let late = progress.unready.as_ref().is_some_and(|unready| now.since(unready.since) >= plan.deadline());
        (*hopeless || late).then(|| reason.clone())
    }

    fn begin_round(&mut self, mut progress: Progress) {
        let plan = self.plan;
        let first = progress.round.number == 0;
        progress.round = progress.round.next(plan, self.now);
        if plan.skips_analysis() {
            return self.promote(progress, true);
        }
        if first {
            self.normal(messages::starting(plan));
        }
        match Stage::hooks(plan, HookKind::Rollback, 0) {
            Some(stage) => self.at(progress, stage),
            None => self.check_threshold(progress),
        }
    }

    fn at(&mut self, mut progress: Progress, stage: Stage) {
        progress.round = progress.round.at(stage);
        self.state.phase = Phase::Progressing(progress);
    }

    fn check_threshold(&mut self, progress: Progress) {
        let (plan, failed) = (self.plan, progress.failed_checks);
        if failed >= plan.threshold() {
            self.state.phase = Phase::Progressing(progress);
            let reason = format!("failed checks threshold reached {failed}");
            return self.fail(&reason, AlertLevel::Error, format!("Failed checks threshold reached {failed}"));
        }
        if plan.pace() == Pace::Checks && plan.metrics().next().is_none() && progress.share.has_users() {
            return self.at(progress, Stage::Judge);
        }
        self.check_hooks(progress);
    }

    fn check_hooks(&mut self, progress: Progress) {
        let kind = if progress.position == 0 { HookKind::PreRollout } else { HookKind::Rollout };
        match Stage::hooks(self.plan, kind, 0) {
            Some(stage) => self.at(progress, stage),
            None => self.check_metrics(progress, 0),
        }
    }

    /// A look at a step that has next to no requests ends, and is not counted as failed: no check was asked.
    fn too_few(&mut self, progress: Progress, facts: &Facts) {
        match facts.counted {
            Counted::Sufficient => {}
            Counted::Missing(missing) => self.end_check(progress, false, messages::too_few(self.plan, missing)),
            Counted::Contested => self.end_check(progress, false, messages::contested(self.plan)),
        }
    }

    fn check_metrics(&mut self, progress: Progress, from: usize) {
        // Before the first traffic there is nothing to measure.
        let metric = (progress.position > 0).then(|| Stage::metrics(self.plan, from)).flatten();
        match metric {
            Some(stage) => self.at(progress, stage),
            None => self.judge(progress),
        }
    }

    fn judge(&mut self, progress: Progress) {
        match Stage::last(self.plan) {
            Some(stage) if progress.share.has_users() => self.at(progress, stage),
            Some(_) | None => self.pass_gate(progress, 0),
        }
    }

    /// Goes on after a stage of the round that has passed.
    pub(super) fn after(&mut self, progress: Progress, stage: Stage) {
        match stage {
            Stage::Over | Stage::Entered => {}
            // Where Flagger's checks decide, requests are waited for before anything is asked.
            Stage::Judge if self.plan.pace() == Pace::Checks => self.check_hooks(progress),
            Stage::Judge => self.pass_gate(progress, 0),
            Stage::Metric(place) => self.check_metrics(progress, place.saturating_add(1)),
            Stage::Hook(kind, place) => {
                let next = place.saturating_add(1);
                match (kind, Stage::hooks(self.plan, kind, next)) {
                    (HookKind::ConfirmTrafficIncrease | HookKind::ConfirmPromotion, _) => {
                        self.pass_gate(progress, next);
                    }
                    (_, Some(stage)) => self.at(progress, stage),
                    (HookKind::Rollback, None) => self.check_threshold(progress),
                    (HookKind::PreRollout | HookKind::Rollout, None) => self.check_metrics(progress, 0),
                    (HookKind::ConfirmRollout | HookKind::PostRollout | HookKind::Event, None) => {}
                }
            }
        }
    }

    /// Asks whoever guards the way to the next position, then goes there.
    fn pass_gate(&mut self, progress: Progress, from: usize) {
        // The judge does not end a step on them; whoever else was asked has not seen them either.
        if progress.uncounted {
            return self.end_check(progress, false, messages::uncounted(self.plan));
        }
        if progress.doubt.is_some() {
            return self.end_check(progress, false, messages::undecided(self.plan));
        }
        let gate = gate(self.plan, &progress);
        let open = gate.is_none() || progress.approved == gate;
        let hook = gate.and_then(|gate| Stage::hooks(self.plan, hook_of(gate), from));
        match hook {
            Some(stage) if !open => self.at(progress, stage),
            Some(_) | None => self.advance(progress),
        }
    }

    fn advance(&mut self, mut progress: Progress) {
        let Some((position, share)) = self.plan.next(progress.position, progress.share) else {
            return self.promote(progress, false);
        };
        self.normal(messages::advance(self.plan, position, progress.share, share));
        self.enter(&mut progress, position, share);
        self.state.phase = Phase::Progressing(progress);
    }

    fn enter(&self, progress: &mut Progress, position: usize, share: Share) {
        progress.position = position;
        progress.share = share;
        progress.clock = StepClock::Standing(Span::ZERO);
        progress.round = progress.round.at(Stage::Entered);
        progress.round.due = self.now.plus(self.plan.interval());
        progress.gate = None;
        progress.approved = None;
    }
}

/// Returns the gate before the next position.
pub(super) fn gate(plan: &Plan, progress: &Progress) -> Option<Gate> {
    match (progress.share, plan.next(progress.position, progress.share)) {
        // It has all requests: the gate was before the switch, and one approval is enough for both.
        (Share::Everything, None) | (_, Some((_, Share::Nothing | Share::Mirrored(_) | Share::Matched))) => None,
        (_, None | Some((_, Share::Everything))) => Some(Gate::Promotion),
        (_, Some((_, Share::Weight(_)))) => Some(Gate::TrafficIncrease),
    }
}

pub(super) const fn hook_of(gate: Gate) -> HookKind {
    match gate {
        Gate::TrafficIncrease => HookKind::ConfirmTrafficIncrease,
        Gate::Promotion => HookKind::ConfirmPromotion,
    }
}

/// Returns true while an A/B test has yet to measure, for an interval, what matching requests come to at the primary: their
/// users are not those of the others, and this is what the canary can be held against (P12).
fn measures_before(plan: &Plan, progress: &Progress, now: Timestamp) -> bool {
    let next = plan.next(progress.position, progress.share).map(|(_, share)| share);
    progress.position == 0
        && next == Some(Share::Matched)
        && plan.pace() == Pace::Evidence
        && !plan.skips_analysis()
        && progress.clock.elapsed(now) < plan.interval()
}

/// Returns true if the evidence lets the step end: enough of it, over an interval of flowing time.
fn may_move(plan: &Plan, progress: &Progress, facts: &Facts, now: Timestamp) -> bool {
    if plan.pace() == Pace::Checks {
        return facts.counted == Counted::Sufficient;
    }
    match facts.verdict {
        Verdict::Advance(_) => facts.safe || progress.clock.elapsed(now) >= plan.interval(),
        // Absence is not success, and neither is "not yet".
        Verdict::Rollback(_) | Verdict::Continue(_) | Verdict::NoData(_) => false,
    }
}

/// Returns true if a round asks anything before the judge.
fn looks(plan: &Plan) -> bool {
    let hooks = [HookKind::Rollback, HookKind::Rollout].into_iter().any(|kind| plan.hooks(kind).next().is_some());
    hooks || plan.metrics().next().is_some()
}
