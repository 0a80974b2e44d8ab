//! One managed canary: its state, its judge, and what its nodes serve.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use wingbeat_core::analysis::judge::{Assessment, Comparison, Judge, NoticeSubject, Propagation};
use wingbeat_core::analysis::propagation::PropagationTracker;
use wingbeat_core::analysis::replay::{Line, RecordedWindow};
use wingbeat_core::analysis::sample_ratio::SampleRatios;
use wingbeat_core::analysis::signal::SignalMode;
use wingbeat_core::analysis::threshold::CheckResult;
use wingbeat_core::analysis::window::{Arms, Batch};
use wingbeat_core::counts::Counts;
use wingbeat_core::id::{Arm, ClusterName, Epoch, NodeId, Rev, RolloutId};
use wingbeat_core::matching::assignment::Assignment;
use wingbeat_core::matching::rule::{Entries, Rules};
use wingbeat_core::rollout::{Answer, Cause, Facts, Phase, Readiness, Routes, Share, State, Ticket, project, question};
use wingbeat_core::time::{Span, Timestamp};
use wingbeat_core::verdict::Verdict;
use wingbeat_core::weight::BasisPoints;
use wingbeat_xds_server::lineage::Adoption;
use wingbeat_xds_server::version::Version;

pub(super) use crate::engine::canary::chronicle::Chronicle;
pub(super) use crate::engine::canary::former_nodes::FormerNodes;
pub(super) use crate::engine::canary::node::Node;
use wingbeat_api::desired_state::{CanaryConfig, MetricProvider, ObservedArms, Targeting, cluster_name};

use crate::engine::canary::uncounted::Uncounted;
use crate::engine::limits::Limits;
use crate::engine::pending::{Proposed, WaitingCommands};
use crate::engine::persisted::{PersistedCanary, StoredFormat};
use crate::engine::step_event::StepEvent;
use crate::engine::unready_record::UnreadyRecord;
use crate::recording::JudgedWindow;
use crate::rollout_end::End;

mod chart;
pub(super) mod chronicle;
mod claims;
mod former_nodes;
mod intake;
mod judging;
mod node;
mod recorded;
mod uncounted;
mod workloads;

/// Windows that a rate is made of.
const RECENT: usize = 5;
/// Without a new window, an assessment holds for this time: how old the latest request is, is part of it.
const VERDICT_TTL: Span = Span::from_millis(500);
/// A tick and so much after the share began to flow, what is reported was routed by the current routes.
const SETTLED: Span = Span::from_millis(500);
/// Nodes that are noted of a canary. What more of them serve is not shown, and shows no abort.
const MAX_NODES: usize = 10_000;
/// A sample-ratio test says wrongly that traffic does not split as routed in at most this share of steps.
const RATIO_ALPHA: f64 = 1e-4;

/// Why a rollout does not move on while some proxy has routes of another state.
const UNADOPTED: &str = "proxies have routes of another state";

/// A managed canary.
#[derive(Debug)]
pub(super) struct Canary {
    /// What is in force. While no rollout is on, it is what is written.
    pub(super) config: Arc<CanaryConfig>,
    /// What is written, and in force from the next rollout on.
    written: Arc<CanaryConfig>,
    /// How its workloads stand, where a cluster runs them.
    pub(super) observed: Option<Arc<ObservedArms>>,
    /// What the latest steps had to tell, where a cluster runs it.
    pub(super) events: Vec<StepEvent>,
    /// Since when no pod of the primary's workload serves.
    primary_gone: Option<Timestamp>,
    /// Fields that were changed since, and wait for the next rollout.
    pub(super) waiting: Vec<&'static str>,
    pub(super) state: State,
    /// The ids of the commands that were carried out, stored with the state.
    pub(super) commands: VecDeque<String>,
    secret: String,
    /// What filters and ledger know the latest rollout by: it follows from the secret and the rollout.
    epoch: Epoch,
    /// The rev of the first routes of the latest rollout.
    pub(super) first_rev: Rev,
    /// Whether its routes may take the place of another state's.
    pub(super) adoption: Adoption,
    /// The state could not be stored: an abort that is served already.
    pub(super) unstored: bool,
    /// Whether it is stored since when a workload is not ready.
    pub(super) unready_record: UnreadyRecord,
    /// The next step, while it is being stored.
    pub(super) proposed: Option<Proposed>,
    /// What was written since, and is taken over once it is.
    pub(super) rewritten: Option<Arc<CanaryConfig>>,
    /// The answer to the question that is open, if it came since.
    pub(super) waiting_answer: Option<(Ticket, Answer)>,
    /// Commands that came since, and are carried out once it is.
    pub(super) waiting_commands: WaitingCommands,
    /// That proxies have routes of another state is to be stored once it is.
    pub(super) adoption_unstored: bool,
    /// What people were told of, and is not over.
    noticed: BTreeSet<NoticeSubject>,
    pub(super) assessed: Option<Assessment>,
    /// Judged traffic of the rollout, and of the last windows. Totals, limits and judge are shared with a checkpoint until it is
    /// encoded.
    pub(super) totals: Arc<Arms>,
    pub(super) recent: VecDeque<Batch>,
    pub(super) limits: Arc<Limits>,
    pub(super) nodes: BTreeMap<NodeId, Node>,
    pub(super) former: FormerNodes,
    /// None until there is something to judge: most canaries are at rest.
    judge: Option<Arc<Judge>>,
    flow: PropagationTracker,
    ratios: Option<SampleRatios>,
    /// What Flagger's checks look back at; kept only where they decide.
    history: VecDeque<(Timestamp, Counts)>,
    /// When the rollout began, if it was seen.
    began: Option<Timestamp>,
    /// What others have measured in this rollout, by metric.
    pub(super) measured: BTreeMap<String, f64>,
    /// When, and by which flow, the judge gave its latest word; nothing if there was news since.
    asked: Option<(Timestamp, Propagation)>,
    told: JudgeInputs,
    pub(super) chronicle: Chronicle,
}

/// What the judge got besides windows: a replay has to give it the same.
#[derive(Debug, Clone, Copy, Default)]
struct JudgeInputs {
    step_began: Option<Timestamp>,
    switched: bool,
    /// Its evidence is that of an earlier process.
    resumed: bool,
}

/// The state of the fleet besides its counts.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FleetStatus<'a> {
    /// Those that do not know how hosts are divided.
    pub(super) unaware: &'a [NodeId],
    /// When the last one reported, if none does any more.
    pub(super) nothing_since: Option<Timestamp>,
}

impl StoredFormat for Evidence {
    /// Evidence of the judge before cannot be turned into that of this one: a rollout in progress gathers it anew.
    const SINCE: u32 = 3;
}

/// What the judge has seen of a rollout, as it is written down.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Evidence {
    rollout: RolloutId,
    judge: Arc<Judge>,
    totals: Arc<Arms>,
    #[serde(flatten)]
    limits: Arc<Limits>,
}

impl Canary {
    pub(super) fn new(written: Arc<CanaryConfig>, record: PersistedCanary, now: Timestamp) -> Self {
        let PersistedCanary { state, commands, secret, first_rev, terms, adoption, events } = record;
        // A record of a version before has none: then what is written is in force.
        let amended = terms.filter(|_| state.has_rollout()).map(|terms| terms.amend(&written));
        let amended = amended.map(|(config, waiting)| (Arc::new(config), waiting));
        let (config, waiting) = amended.unwrap_or_else(|| (written.clone(), Vec::new()));
        let flow = PropagationTracker::new(state.rev, now);
        let mut canary = Self {
            config,
            written,
            observed: None,
            primary_gone: None,
            waiting,
            state,
            commands,
            secret,
            epoch: Epoch::default(),
            first_rev,
            adoption,
            events,
            unstored: false,
            unready_record: UnreadyRecord::Stored,
            proposed: None,
            rewritten: None,
            waiting_answer: None,
            waiting_commands: WaitingCommands::new(),
            adoption_unstored: false,
            noticed: BTreeSet::new(),
            assessed: None,
            totals: Arc::default(),
            recent: VecDeque::new(),
            limits: Arc::default(),
            nodes: BTreeMap::new(),
            former: FormerNodes::default(),
            judge: None,
            flow,
            ratios: None,
            history: VecDeque::new(),
            began: None,
            measured: BTreeMap::new(),
            asked: None,
            told: JudgeInputs::default(),
            chronicle: Chronicle::default(),
        };
        canary.epoch = canary.made_epoch();
        canary.begin_judging();
        canary.begin_step(now);
        canary
    }

    /// Goes on from what was written down, if it is of this rollout. Returns whether it is.
    pub(super) fn restore(&mut self, evidence: Evidence, now: Timestamp) -> bool {
        let goes_on = evidence.rollout == self.state.rollout && self.is_judged();
        if goes_on {
            self.judge = Some(evidence.judge);
            self.totals = evidence.totals;
            self.limits = evidence.limits;
            self.begin_step(now);
            self.told.resumed = true;
        }
        goes_on
    }

    /// Returns what is to be written down, while a rollout is on.
    pub(super) fn evidence(&self) -> Option<Evidence> {
        self.is_judged().then(|| Evidence {
            rollout: self.state.rollout,
            judge: self.judge.clone().unwrap_or_else(|| Arc::new(Judge::new(self.judge_config()))),
            totals: self.totals.clone(),
            limits: self.limits.clone(),
        })
    }

    /// Returns true while a verdict ends the rollout.
    pub(super) const fn is_judged(&self) -> bool {
        self.state.is_judged()
    }

    /// Returns where requests go.
    pub(super) fn routes(&self) -> Routes {
        project(&self.state).routes
    }

    /// Returns true if nothing becomes of it by itself.
    pub(super) fn is_at_rest(&self) -> bool {
        let wanted = self.wanted();
        let settled = match &self.state.phase {
            Phase::Initialized { primary } | Phase::Succeeded { primary, .. } => Some(primary) == wanted,
            Phase::Failed { seen, .. } => Some(seen) == wanted,
            Phase::Initializing
            | Phase::Waiting(_)
            | Phase::Progressing(_)
            | Phase::Promoting(_)
            | Phase::Finalising { .. } => false,
        };
        settled && !self.unstored
    }

    /// Returns true while filters count its requests: there are two arms, or an abort is not stored. Who is asked after
    /// a restart has to show that it was served, and shows it by the requests that it counts.
    pub(super) const fn is_counted(&self) -> bool {
        matches!(self.state.phase, Phase::Progressing(_) | Phase::Promoting(_)) || self.unstored
    }

    /// Returns true while filters are told of it.
    pub(super) const fn is_in_policy(&self) -> bool {
        self.is_counted() || self.is_judged()
    }

    /// Returns true while a question to somebody outside is open.
    pub(super) fn asks(&self) -> bool {
        question(&self.config.plan, &self.state).is_some()
    }

    /// Returns the clusters of primary and canary, while filters count them.
    pub(super) fn clusters(&self) -> Option<[ClusterName; 2]> {
        Some([self.cluster(Arm::Primary)?, self.cluster(Arm::Canary)?])
    }

    /// Returns the cluster of an arm, while filters count it.
    pub(super) fn cluster(&self, arm: Arm) -> Option<ClusterName> {
        if !self.is_counted() {
            return None;
        }
        let revision = match arm {
            Arm::Primary => self.state.primary(),
            Arm::Canary => self.state.canary(),
        };
        Some(cluster_name(&self.config.plan, revision?))
    }

    /// Returns true while filters have to know whom they mark.
    pub(super) fn is_divided(&self) -> bool {
        !matches!(self.config.audience, Targeting::Chance) && self.division().is_some()
    }

    /// Returns how the host's requests find their arm, where not chance alone decides.
    pub(super) fn division(&self) -> Option<Assignment> {
        let share = match self.routes() {
            Routes::Shared { share } if !matches!(share, Share::Mirrored(_)) => share,
            Routes::Shared { .. } | Routes::Nowhere | Routes::Settled(_) => return None,
        };
        match &self.config.audience {
            Targeting::Chance => None,
            Targeting::Rules { rules, holdback } => {
                // Before the canary has users, all who match stay with the primary and are counted by themselves.
                let holdback = if self.has_users() { *holdback } else { BasisPoints::FULL };
                Some(Assignment::Rules { rules: rules.clone(), token: self.arm_token(), holdback })
            }
            Targeting::Served(entries) => {
                let rules = Rules { served: Entries::default(), canary: entries.clone() };
                // Those that match and are left to the primary are what is compared. At the full share it keeps the
                // smallest part of them: else it would be compared by those that do not match.
                let holdback = share.shown().complement().max(BasisPoints::MIN_NONZERO);
                Some(Assignment::Rules { rules, token: self.arm_token(), holdback })
            }
            Targeting::Users(_) if share == Share::Everything => None,
            Targeting::Users(identity) => Some(Assignment::Users { identity: identity.clone(), key: self.key() }),
        }
    }

    /// Returns the value of the arm header in this rollout: one that no client can know.
    pub(super) fn arm_token(&self) -> String {
        Version::of([self.secret.as_bytes(), &self.key().to_le_bytes()]).to_string()
    }

    /// Returns a number that every rollout has for itself.
    fn key(&self) -> u64 {
        let name = self.config.plan.name();
        let text = format!("{}/{}/{}", name.namespace, name.name, self.state.rollout);
        Version::of([text.as_bytes()]).get()
    }

    /// Returns the end of the rollout, if this state is one. That its change was taken back is none.
    pub(super) fn end_by(&self, next: &State, now: Timestamp) -> Option<End> {
        let took = self.began.map(|began| now.since(began));
        let failed = matches!(self.state.phase, Phase::Failed { .. });
        match &next.phase {
            Phase::Failed { cause: Cause::RolledBack, .. } => {
                (!failed).then_some(End { promoted: false, skipped: false, took })
            }
            Phase::Succeeded { .. } => match &self.state.phase {
                Phase::Promoting(promotion) => Some(End { promoted: true, skipped: promotion.skipped, took }),
                Phase::Finalising { .. } => Some(End { promoted: true, skipped: false, took }),
                Phase::Initializing
                | Phase::Initialized { .. }
                | Phase::Waiting(_)
                | Phase::Progressing(_)
                | Phase::Succeeded { .. }
                | Phase::Failed { .. } => None,
            },
            Phase::Failed { cause: Cause::TakenBack, .. }
            | Phase::Initializing
            | Phase::Initialized { .. }
            | Phase::Waiting(_)
            | Phase::Progressing(_)
            | Phase::Promoting(_)
            | Phase::Finalising { .. } => None,
        }
    }

    /// Takes a new state over: a new rollout or a new share begins to be judged.
    pub(super) fn adopt(&mut self, state: State, now: Timestamp) {
        let old = std::mem::replace(&mut self.state, state);
        self.follow_change(&old, now);
        if old.rollout != self.state.rollout || !self.state.has_rollout() {
            self.begin_terms();
        }
        if old.rollout != self.state.rollout {
            self.began = Some(now);
            self.epoch = self.made_epoch();
            self.begin_judging();
        }
        if old.rev != self.state.rev || old.rollout != self.state.rollout {
            self.begin_step(now);
        }
    }

    fn begin_judging(&mut self) {
        self.judge = None;
        self.totals = Arc::default();
        self.recent.clear();
        self.history.clear();
        self.measured.clear();
        self.assessed = None;
        self.limits = Arc::default();
        self.former = FormerNodes::default();
        self.nodes.values_mut().for_each(|node| node.uncounted = 0);
        self.told = JudgeInputs::default();
    }

    fn begin_step(&mut self, now: Timestamp) {
        self.asked = None;
        self.flow.changed(self.state.rev, now);
        self.ratios = None;
        let Routes::Shared { share } = self.routes() else { return };
        self.told.step_began = share.has_users().then_some(now);
        if share.has_users() {
            let weight = self.judged_weight(share);
            self.judge().step_started(weight, now);
        }
        match share {
            // Users with very different activity make the requests of few a large share (P12).
            Share::Weight(weight) if matches!(self.config.audience, Targeting::Chance) => {
                self.ratios = Some(SampleRatios::new(weight));
            }
            Share::Everything => self.switched(),
            // Who matches differs from who does not: what their requests came to before is the measure (P12).
            Share::Matched if self.judge_config().comparison == Comparison::Absolute => self.switched(),
            Share::Weight(_) | Share::Nothing | Share::Mirrored(_) | Share::Matched => {}
        }
    }

    /// Returns the canary's share of the requests that are compared. Those held back are among these: a canary that all
    /// others of them get has not everything.
    fn judged_weight(&self, share: Share) -> BasisPoints {
        match &self.config.audience {
            Targeting::Rules { holdback, .. } if share == Share::Matched => holdback.complement(),
            Targeting::Rules { .. } | Targeting::Served(_) | Targeting::Chance | Targeting::Users(_) => share.shown(),
        }
    }

    fn switched(&mut self) {
        self.told.switched = true;
        self.judge().switched();
    }

    /// Returns the latest window as the judge saw it, with what it was told before.
    pub(super) fn judged_window(&self) -> Option<JudgedWindow> {
        let seen = RecordedWindow {
            attempt: std::num::NonZeroU32::new(self.state.attempt()).unwrap_or(std::num::NonZeroU32::MIN),
            step_began: self.told.step_began,
            switched: self.told.switched,
            batch: self.recent.back()?.clone(),
        };
        let weight = match self.routes() {
            Routes::Shared { share } => self.judged_weight(share),
            Routes::Nowhere | Routes::Settled(_) => BasisPoints::ZERO,
        };
        Some(JudgedWindow {
            canary: self.config.plan.name().clone(),
            rollout: self.state.rollout,
            resumed: self.told.resumed,
            line: Line::recorded(weight, seen),
        })
    }

    /// Returns how things stand.
    pub(super) fn facts(&mut self, now: Timestamp, heard: FleetStatus<'_>) -> Facts {
        let mut facts = self.workload_facts(now);
        if !self.is_judged() {
            return facts;
        }
        let propagation = self.propagation(now, heard);
        let known = self.asked.as_ref().is_some_and(|(at, by)| now.since(*at) < VERDICT_TTL && *by == propagation);
        let assessed = match self.assessed.take().filter(|_| known) {
            Some(assessed) => assessed,
            None => {
                self.asked = Some((now, propagation.clone()));
                let assessed = self.judge().assess(now, &propagation);
                Assessment { verdict: self.uncounted().hold(assessed.verdict), ..assessed }
            }
        };
        // Before the canary has users there is nothing to judge; that the routes are in force is enough.
        let has_data = !self.has_users() || !matches!(assessed.verdict, Verdict::NoData(_));
        facts.uncounted = self.uncounted().may_hide_harm();
        facts.propagation = propagation == Propagation::Effective && has_data && !facts.uncounted;
        facts.verdict = assessed.verdict.clone();
        facts.counted = self.judge().counted();
        facts.safe = assessed.safe;
        facts.doubt = assessed.doubt;
        if self.is_contested() {
            // Nothing moves; what rolls back still does.
            facts.propagation = false;
            facts.primary = Readiness::NotReady { reason: UNADOPTED.to_owned(), hopeless: false };
        }
        self.assessed = Some(assessed);
        facts
    }

    /// Returns true while any report may show that what is judged is in force at the proxies, or is no longer: where filters
    /// mark requests, one that comes anew does not know whom.
    pub(super) fn is_pending(&self) -> bool {
        let is_effective = || self.asked.as_ref().is_some_and(|(_, by)| *by == Propagation::Effective);
        self.is_judged() && (self.is_divided() || !is_effective())
    }

    /// Returns what the filters had no room to count in this rollout.
    pub(super) fn uncounted(&self) -> Uncounted<'_> {
        Uncounted { totals: &self.totals, nodes: &self.nodes }
    }

    fn has_users(&self) -> bool {
        matches!(self.routes(), Routes::Shared { share } if share.has_users())
    }

    /// Looks at the plan's metric in this place, over its interval up to now. Nothing if somebody else has to be asked.
    pub(super) fn evaluate(&self, place: usize, now: Timestamp) -> Option<Answer> {
        let check = match self.config.metric_providers.get(place) {
            Some(MetricProvider::Filters(check)) => check,
            Some(MetricProvider::Prometheus(_)) => return None,
            None => return Some(Answer::Unknown(format!("Metric query failed for no usable metric in place {place}"))),
        };
        let mut counts = Counts::default();
        for (_, window) in self.history.iter().filter(|(end, _)| now.since(*end) < check.interval) {
            counts.merge(window);
        }
        let plan = &self.config.plan;
        Some(match check.passes(plan.name(), plan.target(), "envoy", &counts, self.judge_config().min_requests()) {
            CheckResult::Passed => Answer::Passed,
            CheckResult::Failed(text) => Answer::Failed(text),
            CheckResult::NoValues(text) => Answer::Unknown(text),
            CheckResult::TooFew(text) => Answer::TooFew(text),
        })
    }

    /// Returns what an answer comes to for the metric in this place, and what is told of it though it moves nothing.
    pub(super) fn with_metric_mode(&self, place: usize, answer: Answer) -> (Answer, Option<String>) {
        let (mode, answer) = match (self.config.metric_providers.get(place), answer) {
            // What the filters counted of nothing moves nothing, whatever the metric may do.
            (Some(MetricProvider::Filters(check)), Answer::Unknown(text)) if check.mode != SignalMode::Judge => {
                (check.mode, Answer::TooFew(text))
            }
            (Some(MetricProvider::Filters(check)), answer) => (check.mode, answer),
            (Some(MetricProvider::Prometheus(query)), answer) => (query.mode, answer),
            (None, answer) => (SignalMode::Judge, answer),
        };
        match (mode, answer) {
            (SignalMode::Judge, answer) | (SignalMode::Warn | SignalMode::Report, answer @ Answer::TooFew(_)) => {
                (answer, None)
            }
            (SignalMode::Warn, Answer::Failed(text) | Answer::Unknown(text)) => (Answer::Passed, Some(text)),
            (SignalMode::Warn | SignalMode::Report, Answer::Passed | Answer::Failed(_) | Answer::Unknown(_)) => {
                (Answer::Passed, None)
            }
        }
    }
}
