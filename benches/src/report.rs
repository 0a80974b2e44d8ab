//! Reports that no filter has made.

use wingbeat_core::outcome::Outcome;
use wingbeat_proto::v1::{ClusterReport, Count};

/// Requests of a cluster, and what became of them: so many took 1 ms and were answered well, or with a 500.
pub fn requests(cluster: &str, epoch: u64, fine: u64, errors: u64, rev: u64) -> ClusterReport {
    let mut outcomes = vec![0; Outcome::ALL.len()];
    for (outcome, count) in [(Outcome::Success, fine), (Outcome::ServerFault, errors)] {
        if let Some(place) = outcomes.get_mut(outcome.index()) {
            *place = count;
        }
    }
    let total = fine.saturating_add(errors);
    ClusterReport {
        cluster: cluster.to_owned(),
        started: total,
        finished: total,
        outcomes,
        latency: vec![Count { key: u32::from(wingbeat_core::histogram::bin_of(1_000)), count: total }],
        latency_sum_us: total.saturating_mul(1_000),
        rev,
        rev_started: total,
        epoch,
        first_sequence: 1,
        ..ClusterReport::default()
    }
}
