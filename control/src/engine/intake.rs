//! What the filters report: taken into the ledger, and from there to the canary whose rollout counted it.

use wingbeat_core::analysis::ledger::{Refused, Report, Reported, Trust, WorkerKey};
use wingbeat_core::analysis::window::{EarlyReport, ReportSource};
use wingbeat_core::id::{Arm, BootId, CanaryName, Epoch, NodeId, WorkerId};
use wingbeat_core::rollout::Event;
use wingbeat_core::time::{Span, Timestamp};
use wingbeat_proto::convert::{self, ReportError};
use wingbeat_proto::v1::{ClusterReport, ReportRequest, ReportResponse};
use wingbeat_xds_server::report_refusal::ReportRefusal;

use crate::engine::Engine;
use crate::engine::canary::Canary;
use crate::engine::fleet::{Traffic, WorkerReport};
use crate::engine::timeouts::NODE_TIMEOUT;

impl Engine {
    /// Takes a report of a filter, from a peer that may speak for its node. However many nodes a principal or a host says it
    /// is, `source` is one: the judge hears it once. The error says why the report was refused; then nothing of it counts.
    pub fn report(
        &mut self,
        source: &str,
        request: &ReportRequest,
        now: Timestamp,
    ) -> Result<ReportResponse, ReportRefusal> {
        let source = NodeId::new(source);
        let node = NodeId::new(request.node_id.clone());
        let key = WorkerKey { boot: BootId::new(request.boot_id), worker: WorkerId::new(request.worker_id) };
        // What is of no rollout in progress, or of one that the node is not served, is left out before anything is made of it.
        let mut owners: Vec<(&ClusterReport, CanaryName, Arm)> = Vec::with_capacity(request.clusters.len());
        for report in &request.clusters {
            let Some((name, arm)) = self.canaries.owner(&report.cluster) else { continue };
            let counts = |canary: &&Canary| canary.epoch() == Epoch::new(report.epoch);
            let canary = self.canaries.get(name).filter(counts);
            if canary.is_some_and(|canary| self.policies.reaches(&request.node_cluster, canary, now)) {
                owners.push((report, name.clone(), *arm));
            }
        }
        let entries = owners.iter().map(|(report, ..)| reported(report));
        let entries: Result<Vec<Reported>, ReportError> = entries.collect();
        let entries = entries.map_err(|error| ReportRefusal::Malformed(error.to_string()))?;
        let foreign = request.clusters.len().saturating_sub(entries.len());
        self.foreign = self.foreign.saturating_add(u64::try_from(foreign).unwrap_or(u64::MAX));
        let report = Report {
            source: source.as_str(),
            node: &node,
            key,
            sequence: request.sequence,
            since: request.since,
            entries: &entries,
        };
        let ingested = self.ledger.ingest(&report, now).map_err(|refused| not_taken(&refused))?;
        self.reports = self.reports.saturating_add(1);
        self.last_report = Some(now);
        // One that leaves out what is not held here shows nothing yet.
        self.heard_of(key, !entries.is_empty() && !ingested.incomplete);
        self.reported_since_checkpoint |= !ingested.deltas.is_empty();
        let has = self.policies.number_of(&request.node_cluster, request.policy_version);
        let knows = (self.policies.place_of(&request.node_cluster), has);
        let traffic = if ingested.deltas.is_empty() { Traffic::None } else { Traffic::Some };
        let reported = WorkerReport { key, node: &node, knows, traffic };
        let tick = self.fleet.observe(&source, reported, self.canaries.is_judging(), now);
        self.clients.reported(&source, &request.node_cluster, Span::from_millis(u64::from(tick)), now);
        let ahead = EarlyReport { worker: (key.boot, key.worker), tick: Span::from_millis(u64::from(tick)) };
        let ahead = request.urgent.then_some(ahead);
        if ahead.is_none() {
            self.windows.caught_up(key.boot, key.worker, now);
        }
        for delta in ingested.deltas {
            let owner = owners.iter().find(|(report, ..)| report.cluster == delta.cluster.as_str());
            let Some((_, name, arm)) = owner else { continue };
            // A report of its own may have taken it further.
            let counts = |canary: &&mut Canary| canary.epoch() == delta.epoch;
            let Some(canary) = self.canaries.measure(name).filter(counts) else { continue };
            let sender = ReportSource { node_group: canary.node_group(&source, now), ahead };
            self.windows.add(name, sender, *arm, delta.stratum, &delta.counts, now);
            canary.observe_delta(*arm, &delta, &source, Span::from_millis(u64::from(tick)), now);
            if let Some(rev) =
                canary.served_abort(delta.counts.rev, || self.ledger.sources_in(delta.epoch, NODE_TIMEOUT))
            {
                self.apply(name, &Event::RevObserved(rev), now);
            }
        }
        let policy = self.policies.update_for(&request.node_cluster, request.policy_version, request.automaton_format);
        Ok(ReportResponse {
            received: ingested.received,
            durable: ingested.durable,
            policy,
            next_tick_ms: tick,
            send_all: ingested.incomplete,
        })
    }

    /// Notes a report. One without requests shows nothing: threads of Envoy that serve nobody ask for the policy, too.
    fn heard_of(&mut self, key: WorkerKey, has_requests: bool) {
        if let Some(awaited) = self.awaited.as_mut().filter(|_| has_requests) {
            awaited.remove(&key);
            if awaited.is_empty() {
                self.awaited = None;
            }
        }
    }

    /// Lets the ledger and the windows follow a canary from one rollout to the next. `before` is the epoch that was
    /// counted until now.
    pub(super) fn follow_epoch(&mut self, name: &CanaryName, before: Option<Epoch>) {
        let now = self.canaries.get(name).filter(|canary| canary.is_counted()).map(Canary::epoch);
        if before == now {
            return;
        }
        if let Some(before) = before {
            self.ledger.close(before);
            self.windows.forget(name);
            self.reported_since_checkpoint = true;
        }
        if let Some(now) = now {
            self.ledger.open(now, Trust::Complete);
        }
    }
}

/// Returns why a report is not taken that the ledger refuses: where there is no room for its sender, nothing is wrong with
/// what it sent.
fn not_taken(refused: &Refused) -> ReportRefusal {
    match refused {
        Refused::Full => ReportRefusal::Busy,
        Refused::Absurd { .. }
        | Refused::Backwards { .. }
        | Refused::Twice { .. }
        | Refused::TooManyEntries { .. }
        | Refused::TooManyPods { .. }
        | Refused::OtherNode { .. } => ReportRefusal::Malformed(refused.to_string()),
    }
}

/// Returns what a report says of one cluster, stratum and epoch.
fn reported(report: &ClusterReport) -> Result<Reported, ReportError> {
    let (cluster, stratum, counts) = convert::counts(report)?;
    let (epoch, first_sequence) = (Epoch::new(report.epoch), report.first_sequence);
    Ok(Reported { cluster, stratum, epoch, first_sequence, counts })
}
