//! Finds the rollout of each request, and has those wait whose rollout the policy does not name yet.

use wingbeat_core::outcome::{Outcome, Stratum};

use crate::counters::{CountedAs, CounterKey, FinishedRequest};
use crate::host::Host;
use crate::worker::Worker;
use crate::worker::attributes::{AttributeSet, EndedAttributes, Timing};
use crate::worker::attribution::{
    Attribution, LeftOut, MAX_LEFT_OUT, MAX_UNASSIGNED, UnattributedRequest, route_rev, virtual_host,
};
use crate::worker::in_flight::RequestClass;

impl Worker {
    /// Returns where a request of this cluster is counted, which began at this time.
    pub(super) fn attribute(
        &mut self,
        host: &dyn Host,
        cluster: String,
        class: RequestClass,
        called: Option<String>,
        started_ns: u64,
    ) -> Attribution {
        let Some(counted) = self.clusters.get_mut(&cluster) else {
            // The filter is on where a rollout runs: a route of ours to a cluster without policy is one that just
            // began, and nothing of it may be lost. Others are not our business.
            return route_rev(host).map_or(Attribution::None, |rev| Attribution::Unassigned { cluster, rev });
        };
        let called = called.or_else(|| if counted.policy.virtual_host.is_empty() { None } else { virtual_host(host) });
        let divided = called.as_ref().and_then(|called| self.divisions.get(called));
        let stratum = counted.stratum(class, called.as_deref(), divided);
        if !counted.owns(host, stratum, called.as_deref(), started_ns) {
            return Attribution::None;
        }
        Attribution::Counted(CounterKey { epoch: counted.policy.epoch, stratum, cluster })
    }

    /// Keeps a request that ended until the policy names its cluster.
    pub(super) fn await_policy(
        &mut self,
        host: &dyn Host,
        cluster: String,
        rev: u64,
        class: RequestClass,
        called: Option<String>,
        timing: Timing,
    ) {
        let waiting = &mut self.waiting;
        if waiting.requests.len() < MAX_UNASSIGNED {
            let called = called.or_else(|| virtual_host(host));
            waiting.requests.push(UnattributedRequest {
                cluster,
                rev,
                class,
                called,
                timing,
                ended: EndedAttributes::of(host),
            });
        } else if let Some(known) = waiting.left_out.iter_mut().find(|known| known.cluster == cluster) {
            known.add(rev);
        } else if waiting.left_out.len() < MAX_LEFT_OUT {
            waiting.left_out.push(LeftOut { cluster, rev, requests: 1 });
        }
    }

    /// Counts what waited for this policy. What it does not name either is of a rollout that is over.
    pub(super) fn assign(&mut self, host: &dyn Host) {
        let requests = std::mem::take(&mut self.waiting.requests);
        let left_out = std::mem::take(&mut self.waiting.left_out);
        let sequence = self.next_sequence();
        let mut is_urgent = false;
        for UnattributedRequest { cluster, rev, class, called, timing, ended } in requests {
            let Some(counted) = self.clusters.get(&cluster).filter(|counted| rev >= counted.policy.first_rev) else {
                continue;
            };
            let divided = called.as_ref().and_then(|called| self.divisions.get(called));
            let stratum = counted.stratum(class, called.as_deref(), divided);
            let (reading, epoch) = (AttributeSet::of(&counted.policy), counted.policy.epoch);
            let read = self.read(&ended, &cluster, reading, timing, CountedAs::Nothing, false);
            let finished = FinishedRequest { group: class.group(), ..read };
            let failed = finished.abandoned || finished.outcome.is_some_and(Outcome::is_error);
            is_urgent |= reading.canary && failed;
            self.store.finish(&CounterKey { epoch, stratum, cluster }, &finished, sequence);
        }
        for LeftOut { cluster, rev, requests } in left_out {
            if let Some(counted) = self.clusters.get(&cluster).filter(|counted| rev >= counted.policy.first_rev) {
                let place = CounterKey { epoch: counted.policy.epoch, stratum: Stratum::Judged, cluster };
                self.store.leave_out(&place, requests, sequence);
            }
        }
        if is_urgent {
            self.hurry(host);
        }
    }
}
