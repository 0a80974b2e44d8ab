//! The status of a canary.

use std::collections::BTreeSet;
use std::sync::Arc;

use rpds::RedBlackTreeMapSync;
use wingbeat_api::RefusedFileView;
use wingbeat_api::desired_state::InUse;
use wingbeat_api::number::Number;
use wingbeat_core::analysis::judge::{Assessment, Mode};
use wingbeat_core::analysis::quantile;
use wingbeat_core::counts::Counts;
use wingbeat_core::id::{Arm, CanaryName, ClusterName, NodeId, RolloutId};
use wingbeat_core::outcome::Outcome;
use wingbeat_core::rollout::{Cause, Gate, Phase, Plan, Progress, Unready};
use wingbeat_core::time::{Span, Timestamp};
use wingbeat_proto::convert::MAX_PODS;
use wingbeat_xds_server::version::Version;

use crate::engine::around::Around;
use crate::engine::canaries::Canaries;
use crate::engine::canary::{Canary, Node};
use crate::engine::clients::Clients;
use crate::engine::recording::RecordingBuffer;
use crate::engine::route_blockers::{ADOPTED, CONNECTED, PROGRAMMED, RouteBlockers};
use crate::engine::turns::Turns;
use crate::recording::RecordingLoss;
use crate::view::{
    AlphaView, ArmView, ArmsView, CanaryView, ConditionView, EvidenceView, NodeView, ShareView, VerdictView,
};

/// The bounds of a quantile miss it in at most this share of rollouts.
const QUANTILE_ALPHA: f64 = 0.05;

/// What changes with time alone is shown anew this often.
const SWEEP_EVERY: Span = Span::from_secs(1);

/// Canaries that are shown anew at once for what was counted meanwhile, or for what concerns all of them. With more, each has
/// its turn: what happens to one is shown at once.
const SHOWN_AT_ONCE: usize = 64;

/// Or one in so many of those that wait, if that is more: ten thousand take 61 rounds, three seconds.
const SHOWN_PART: usize = 20;

/// All canaries as they were shown last, and which of them changed since.
#[derive(Debug, Default)]
pub(super) struct StatusCache {
    shown: RedBlackTreeMapSync<(String, String), Arc<CanaryView>>,
    stale: BTreeSet<CanaryName>,
    /// Those that are shown anew in turn.
    aging: BTreeSet<CanaryName>,
    turns: Turns,
    all_are_stale: bool,
    /// When all that change with time were shown anew.
    swept: Timestamp,
    /// Of those that a cluster runs.
    route_blockers: RouteBlockers,
}

impl StatusCache {
    /// Notes that a canary is to be shown anew.
    pub(super) fn is_stale(&mut self, name: &CanaryName) {
        if !self.stale.contains(name) {
            self.stale.insert(name.clone());
        }
    }

    /// Notes that more was counted of a canary.
    pub(super) fn is_aging(&mut self, name: &CanaryName) {
        if !self.aging.contains(name) {
            self.aging.insert(name.clone());
        }
    }

    /// Returns true if some wait for their turn.
    pub(super) fn are_aging(&self) -> bool {
        !self.aging.is_empty()
    }

    /// Notes that something changed that any of them may show.
    pub(super) const fn all_are_stale(&mut self) {
        self.all_are_stale = true;
    }

    /// Shows it no longer.
    pub(super) fn forget(&mut self, name: &CanaryName) {
        self.aging.remove(name);
        self.shown.remove_mut(&key(name));
        self.route_blockers.forget(name);
    }

    /// Returns why routes of canaries are not in force, of those of which that is different since it was asked last.
    pub(super) fn take_route_blockers(&mut self) -> Vec<(CanaryName, Vec<ConditionView>)> {
        self.route_blockers.take()
    }

    /// Returns all of them as they are shown now. The age of what is known is as of the last second.
    pub(super) fn renew(
        &mut self,
        canaries: &Canaries,
        troubles: &BlockerSources<'_>,
        now: Timestamp,
    ) -> &RedBlackTreeMapSync<(String, String), Arc<CanaryView>> {
        let mut stale = std::mem::take(&mut self.stale);
        if std::mem::take(&mut self.all_are_stale) {
            self.aging.extend(canaries.all().keys().cloned());
        } else if now.since(self.swept) >= SWEEP_EVERY {
            self.swept = now;
            self.aging.extend(canaries.busy().iter().cloned());
        }
        for name in self.turns.next(&self.aging, shown_at_once(self.aging.len())) {
            self.aging.remove(&name);
            stale.insert(name);
        }
        for name in stale {
            if let Some(canary) = canaries.get(&name) {
                let trouble = troubles.of(&name, canary, canaries);
                let view = view(&name, canary, &trouble, now);
                if canary.observed.is_some() {
                    self.route_blockers.note(&name, &view.conditions);
                }
                self.shown.insert_mut(key(&name), Arc::new(view));
            }
        }
        &self.shown
    }
}

/// Returns how many of those that wait are shown anew.
fn shown_at_once(waiting: usize) -> usize {
    SHOWN_AT_ONCE.max(waiting / SHOWN_PART)
}

/// The sources of what blocks canaries from outside.
pub(super) struct BlockerSources<'a> {
    pub(super) clients: &'a Clients,
    pub(super) records: &'a RecordingBuffer,
    pub(super) around: &'a Around,
    /// Why nothing can be stored.
    pub(super) unstorable: Option<&'a str>,
}

impl<'a> BlockerSources<'a> {
    fn of(&self, name: &CanaryName, canary: &Canary, canaries: &Canaries) -> Blockers<'a> {
        Blockers {
            proxies: match (canaries.missing(name), self.clients.blocker_of(canary)) {
                (Some(cluster), _) => Some(ProxyBlocker::LackCluster(missing(canary, cluster))),
                (None, Some(text)) => Some(ProxyBlocker::Refuse(text)),
                (None, None) if self.clients.has_no_clients() => {
                    Some(ProxyBlocker::Absent(self.clients.why_no_clients()))
                }
                (None, None) => None,
            },
            unstorable: self.unstorable,
            file: self.around.refused(name),
            unrecorded: self.records.loss(name, canary.state.rollout),
        }
    }
}

/// What blocks a canary.
struct Blockers<'a> {
    proxies: Option<ProxyBlocker<'a>>,
    /// Why nothing can be stored.
    unstorable: Option<&'a str>,
    /// What is missing in the recording of its rollout.
    unrecorded: Option<&'a RecordingLoss>,
    /// The file that it is from, if what that says now was refused.
    file: Option<&'a RefusedFileView>,
}

/// Why its routes are not in force, at all proxies or at some.
enum ProxyBlocker<'a> {
    /// There is none, maybe for this reason.
    Absent(Option<&'a str>),
    /// Some refuses what it needs, or does not ask for it.
    Refuse(&'a str),
    /// They are not sent these routes.
    LackCluster(String),
}

/// Returns what is told of a cluster that a canary's routes lead to and that there is none of.
pub(super) fn missing(canary: &Canary, cluster: &ClusterName) -> String {
    let hosts = canary.config.service.hosts.join(", ");
    format!("Routes of {hosts} lead to cluster {cluster}, which is not there: proxies keep the routes that they have")
}

fn key(name: &CanaryName) -> (String, String) {
    (name.namespace.to_string(), name.name.to_string())
}

/// Returns a canary as it is shown.
fn view(name: &CanaryName, canary: &Canary, trouble: &Blockers<'_>, now: Timestamp) -> CanaryView {
    let (state, plan) = (&canary.state, &canary.config.plan);
    let progress = match &state.phase {
        Phase::Progressing(progress) => Some(progress),
        Phase::Initializing
        | Phase::Initialized { .. }
        | Phase::Waiting(_)
        | Phase::Promoting(_)
        | Phase::Finalising { .. }
        | Phase::Succeeded { .. }
        | Phase::Failed { .. } => None,
    };
    let iterations = progress.and_then(|progress| Some(plan.iterations()?.min(progress.position)));
    let began = state.rollout != RolloutId::default();
    let nodes = canary.nodes.iter().filter(|(_, node)| !node.is_silent(now));
    CanaryView {
        namespace: name.namespace.to_string(),
        name: name.name.to_string(),
        target: plan.target().to_owned(),
        phase: state.phase.as_str().to_owned(),
        weight: canary.routes().canary_weight().percent(),
        last_transition_time: rfc3339(state.changed),
        failed_checks: state.failed_checks(),
        iterations: iterations.and_then(|done| u64::try_from(done).ok()).unwrap_or_default(),
        strategy: plan.strategy().as_str().to_owned(),
        paused: progress.is_some_and(|progress| progress.paused),
        primary_revision: state.primary().map_or_else(String::new, ToString::to_string),
        canary_revision: state.canary().map(ToString::to_string),
        attempt: state.attempt(),
        rev: state.rev.get(),
        mode: match canary.config.judge.mode {
            Mode::Sequential => "sequential",
            Mode::Guard => "guard",
            Mode::Thresholds => "thresholds",
        }
        .to_owned(),
        arms: began.then(|| ArmsView { primary: arm(canary, Arm::Primary), canary: arm(canary, Arm::Canary) }),
        metrics: canary.measured.iter().map(|(metric, value)| (metric.clone(), Number::new(*value))).collect(),
        verdict: canary.assessed.as_ref().map(|assessed| verdict(assessed, canary)),
        evidence: canary.assessed.as_ref().map(|assessed| evidence(assessed, canary)),
        alpha: alpha(canary),
        nodes: nodes.map(|(id, node)| node_view(id, node, now)).collect(),
        conditions: conditions(canary, trouble).into_iter().chain(uncounted(canary)).collect(),
        in_use: InUse::of(state),
    }
}

/// Returns what the filters had no room to count. Requests that are missing hold the rollout; of pods, only the
/// differences between them are known less well.
fn uncounted(canary: &Canary) -> Option<ConditionView> {
    let totals = &canary.totals;
    let pods = totals.primary.uncounted_by_pod.saturating_add(totals.canary.uncounted_by_pod);
    let uncounted = canary.uncounted();
    let message = match (uncounted.requests(), pods) {
        (0, 0) => return None,
        (0, pods) => format!("{pods} requests are not told apart by pod: a proxy keeps {MAX_PODS} pods of a cluster."),
        (_, _) if uncounted.may_hide_harm() => format!(
            "{uncounted}, and no step ends. A proxy counts 64 rollouts at a time, and keeps 1,024 requests until it knows whose they are: let some rollouts end, and retry this one."
        ),
        (_, _) => format!("{uncounted}. It is less than one in a hundred, and the rollout goes on."),
    };
    let reason = if uncounted.requests() > 0 { "RequestsLeftOut" } else { "PodsLeftOut" };
    let (kind, status) = ("Counted".to_owned(), "False".to_owned());
    Some(ConditionView { kind, status, reason: reason.to_owned(), message })
}

/// Returns what hooks know a revision by: Flagger's checksum stays the same as long as the revision does.
pub(super) fn checksum(canary: &Canary) -> String {
    let revision = canary.state.canary().or_else(|| canary.state.primary());
    let revision = revision.map_or_else(String::new, ToString::to_string);
    format!("{:016x}", Version::of([revision.as_bytes()]).get())
}

/// Returns a time as people write it, in UTC.
pub fn rfc3339(at: Timestamp) -> String {
    let millis = i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(millis).map_or_else(|_| String::new(), |time| format!("{time:.3}"))
}

/// Returns status and message of the condition `Promoted`. The wording is Flagger's.
pub fn promoted_condition(phase: &Phase, kind: &str) -> (&'static str, String) {
    match phase {
        Phase::Initializing => ("Unknown", format!("New {kind} detected, starting initialization.")),
        Phase::Initialized { .. } => ("True", format!("{kind} initialization completed.")),
        Phase::Waiting(_) | Phase::Progressing(Progress { gate: Some(Gate::Promotion), .. }) => {
            ("Unknown", "Waiting for approval.".to_owned())
        }
        Phase::Progressing(_) => ("Unknown", "New revision detected, progressing canary analysis.".to_owned()),
        Phase::Promoting(_) => ("Unknown", "Canary analysis completed, starting primary rolling update.".to_owned()),
        Phase::Finalising { .. } => {
            ("Unknown", "Canary analysis completed, routing all traffic to primary.".to_owned())
        }
        Phase::Succeeded { .. } => ("True", "Canary analysis completed successfully, promotion finished.".to_owned()),
        Phase::Failed { reason, cause: Cause::RolledBack, .. } => {
            ("False", format!("Canary analysis failed: {reason}"))
        }
        Phase::Failed { reason, cause: Cause::TakenBack, .. } => ("False", format!("Canary taken back: {reason}")),
    }
}

/// Returns what people hold a rollout by: conditions that are there while it is held.
pub fn held_conditions(plan: &Plan, phase: &Phase) -> Vec<ConditionView> {
    let progress = if let Phase::Progressing(progress) = phase { Some(progress) } else { None };
    let mut conditions = Vec::new();
    if progress.is_some_and(|progress| progress.paused) {
        let message = "The share is frozen until the rollout is resumed.".to_owned();
        conditions.push(condition("Paused", "True", "Command", message));
    }
    if plan.is_suspended() {
        let message = "Nothing is started or moved on while the canary is suspended.".to_owned();
        conditions.push(condition("Suspended", "True", "Spec", message));
    }
    if let Some(Progress { gate: Some(Gate::TrafficIncrease), .. }) = progress {
        conditions.push(condition("Waiting", "True", "TrafficIncrease", "Waiting for approval.".to_owned()));
    }
    conditions
}

fn condition(kind: &str, status: &str, reason: &str, message: String) -> ConditionView {
    ConditionView { kind: kind.to_owned(), status: status.to_owned(), reason: reason.to_owned(), message }
}

fn conditions(canary: &Canary, trouble: &Blockers<'_>) -> Vec<ConditionView> {
    let (plan, phase) = (&canary.config.plan, &canary.state.phase);
    let (status, message) = promoted_condition(phase, plan.kind());
    let mut conditions = vec![condition("Promoted", status, phase.as_str(), message)];
    match &trouble.proxies {
        Some(ProxyBlocker::Refuse(text)) => {
            conditions.push(condition(PROGRAMMED, "False", "Refused", (*text).to_owned()));
        }
        Some(ProxyBlocker::LackCluster(text)) => {
            conditions.push(condition(PROGRAMMED, "False", "ClusterMissing", text.clone()));
        }
        Some(ProxyBlocker::Absent(None)) => {
            let message = "No Envoy takes configuration: start one with what `wingbeat bootstrap` prints.".to_owned();
            conditions.push(condition(CONNECTED, "False", "NoProxies", message));
        }
        Some(ProxyBlocker::Absent(Some(why))) => {
            let message = format!("No Envoy takes configuration, and one that tries cannot: {why}.");
            conditions.push(condition(CONNECTED, "False", "TlsMismatch", message));
        }
        None => {}
    }
    if canary.is_contested() {
        conditions.push(condition(ADOPTED, "False", "RoutesOfAnotherState", unadopted(canary)));
    }
    if let Some(file) = trouble.file
        && let Some(first) = file.errors.first()
    {
        let more = match file.errors.len() {
            1 => String::new(),
            all => format!(" (and {} more)", all.saturating_sub(1)),
        };
        let message = format!("{first}{more}; what the file said before goes on.");
        conditions.push(condition("Accepted", "False", "FileRefused", message));
    }
    if let Some(why) = trouble.unstorable {
        let message = format!("No step is begun, an abort is served: {why}");
        conditions.push(condition("Stored", "False", "StoreFailed", message));
    }
    if let Some(RecordingLoss { windows, why, .. }) = trouble.unrecorded {
        let message = format!("{windows} windows of the rollout are not in its recording: {why}");
        conditions.push(condition("Recorded", "False", "RecordFailed", message));
    }
    conditions.extend(held_conditions(plan, phase));
    if let Some(Unready { reason, .. }) = canary.state.unready() {
        conditions.push(condition("Ready", "False", "CanaryNotReady", reason.clone()));
    }
    if !canary.waiting.is_empty() {
        conditions.push(condition("InForce", "False", "NextRollout", waits(&canary.waiting)));
    }
    conditions
}

/// Returns the revision that serves all of a canary's requests where it is adopted.
pub(super) fn would_serve(canary: &Canary) -> String {
    let revision = canary.state.primary().unwrap_or(&canary.config.workload.revision);
    format!("revision {revision}")
}

/// Returns what is told of a canary that some proxy has from another state, and what to do.
pub(super) fn unadopted(canary: &Canary) -> String {
    let (name, service) = (canary.config.plan.name(), &canary.config.service);
    let (namespace, name) = (&name.namespace, &name.name);
    let (restore, approve) = if canary.observed.is_some() {
        ("apply its CanaryState from a backup", "wingbeat.dev/command: approve/1".to_owned())
    } else {
        ("restore the state folder and start again", format!("wingbeat approve {namespace}/{name}"))
    };
    format!(
        "Proxies have routes of {} from a state that is not here, and keep them: {restore}, or `{approve}` makes {} the primary. Until then no rollout of it begins or goes on, and these proxies \
         take nothing new of all that is on listener {}.",
        service.hosts.join(", "),
        would_serve(canary),
        service.listeners.join(", "),
    )
}

/// Returns what is told when a change of the spec waits for the next rollout.
pub(super) fn held_back(name: &CanaryName, waiting: &[&'static str]) -> String {
    format!("The spec of {name} changed during a rollout: {}", waits(waiting))
}

fn waits(waiting: &[&'static str]) -> String {
    let fields: Vec<String> = waiting.iter().map(|field| format!("spec.{field}")).collect();
    format!("{} is in force as it was when the rollout began, the change waits for the next one", fields.join(", "))
}

fn alpha(canary: &Canary) -> AlphaView {
    let share = |(signal, share): (&str, f64)| ShareView { signal: signal.to_owned(), share };
    AlphaView {
        total: canary.alpha(),
        shares: canary.shares().into_iter().map(share).collect(),
        outside: canary.outside_alpha(),
    }
}

fn verdict(assessed: &Assessment, canary: &Canary) -> VerdictView {
    VerdictView {
        kind: assessed.verdict.as_str().to_owned(),
        reason: assessed.verdict.reason().to_owned(),
        comparison: canary.comparison().to_owned(),
    }
}

fn node_view(id: &NodeId, node: &Node, now: Timestamp) -> NodeView {
    NodeView { id: id.to_string(), rev: node.rev.get(), last_report_ms: now.since(node.last).as_millis() }
}

fn evidence(assessed: &Assessment, canary: &Canary) -> EvidenceView {
    EvidenceView {
        harm: assessed.evidence.harm(),
        errors: assessed.evidence.errors,
        latency: assessed.evidence.latency,
        outcomes: assessed.evidence.outcomes,
        attempts: assessed.evidence.attempts,
        disconnects: assessed.evidence.disconnects,
        decisive: canary.decision_threshold(),
        rate_ratio: canary.rate_ratio().into(),
        eta_requests: assessed.eta_requests,
    }
}

fn arm(canary: &Canary, arm: Arm) -> ArmView {
    let totals = canary.totals.arm(arm);
    let quantile = |q| totals.latency.quantile(q).map(|(low, high)| millis(low, high));
    let surely = |q| {
        let held = quantile::quantile(&totals.latency, q, QUANTILE_ALPHA)?;
        Some([millis(held.at_least, held.at_least), millis(held.at_most?, held.at_most?)])
    };
    ArmView {
        requests: totals.judged(),
        errors: totals.errors(),
        overdue: totals.overdue,
        disconnects: totals.outcome(Outcome::DisconnectBeforeResponse) + totals.outcome(Outcome::DisconnectMidResponse),
        outcomes: Outcome::ALL
            .into_iter()
            .map(|outcome| (outcome.as_str().to_owned(), totals.outcome(outcome)))
            .filter(|(_, count)| *count > 0)
            .collect(),
        retried: totals.retried,
        rate: rate(canary, arm),
        p50_ms: quantile(0.5),
        p90_ms: quantile(0.9),
        p99_ms: quantile(0.99),
        p50_between_ms: surely(0.5),
        p90_between_ms: surely(0.9),
        p99_between_ms: surely(0.99),
    }
}

/// The middle of a bin, in milliseconds.
#[expect(clippy::cast_precision_loss, reason = "microseconds of an hour fit")]
fn millis(low: u64, high: u64) -> f64 {
    (low as f64 + high as f64) / 2_000.0
}

#[expect(clippy::cast_precision_loss, reason = "requests of a second fit")]
fn rate(canary: &Canary, arm: Arm) -> f64 {
    let started: u64 = canary.recent.iter().map(|batch| started(batch.judged.arm(arm))).sum();
    // Windows in which nobody reported are none: time passed all the same.
    let span = match (canary.recent.front(), canary.recent.back()) {
        (Some(first), Some(last)) => last.end.since(first.end.minus(first.span)).as_secs_f64(),
        (None, _) | (_, None) => 0.0,
    };
    if span > 0.0 { started as f64 / span } else { 0.0 }
}

const fn started(counts: &Counts) -> u64 {
    counts.started
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn however_many_wait_all_are_shown_within_seconds() {
        let rounds = |mut waiting: usize| {
            let mut rounds = 0;
            while waiting > 0 {
                waiting = waiting.saturating_sub(shown_at_once(waiting));
                rounds += 1;
            }
            rounds
        };
        assert_eq!([1, 64, 1_000, 10_000, 100_000].map(rounds), [1, 1, 16, 61, 106]);
    }
}
