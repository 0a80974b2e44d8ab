//! From the wire to the kernel's types.

use wingbeat_core::counts::{Cohorts, Counts, GroupCounts, Groups, MAX_PODS_OF_WORKER, PodCounts};
use wingbeat_core::histogram::{BINS, Histogram};
use wingbeat_core::id::{ClusterName, Rev};
use wingbeat_core::matching::bucket::GROUPS;
use wingbeat_core::outcome::{Outcome, Stratum};

use crate::v1;

pub mod policy;

/// What a report may not contain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// A name that no cluster of ours has.
    #[error("a cluster's name has {0} bytes: at most {MAX_NAME} are taken")]
    Name(usize),
    /// A stratum of a later version.
    #[error("stratum {0} is unknown: the filter is newer than this server")]
    Stratum(u32),
    /// A bin that no histogram has.
    #[error("latency bin {0} does not exist")]
    Bin(u32),
    /// A group of users that there is not.
    #[error("group {0} of users does not exist")]
    Group(u32),
    /// More outcome classes than there are.
    #[error("{0} outcome classes: the filter is newer than this server")]
    Outcomes(usize),
    /// More pods than a filter keeps.
    #[error("{0} pods of one cluster: a filter keeps at most {MAX_PODS}")]
    Pods(usize),
    /// An address that no pod has.
    #[error("a pod's address has {0} bytes: at most {MAX_ADDRESS} are taken")]
    Address(usize),
    /// A number that no gRPC status has.
    #[error("gRPC status {0} does not exist")]
    GrpcStatus(u32),
}

/// Names longer than this are refused.
const MAX_NAME: usize = 1_024;

/// Pods of one cluster that a report may name. One with more is refused.
pub const MAX_PODS: usize = MAX_PODS_OF_WORKER;

/// Length of a pod's address in bytes; a report with a longer one is refused. IPv6 with zone and port has fewer than 100.
const MAX_ADDRESS: usize = 256;

/// gRPC has statuses up to 16; filters count all others as 17.
pub const OTHER_GRPC_STATUS: u32 = 17;

/// Returns the counts of one cluster.
pub fn counts(report: &v1::ClusterReport) -> Result<(ClusterName, Stratum, Counts), ReportError> {
    if report.cluster.len() > MAX_NAME {
        return Err(ReportError::Name(report.cluster.len()));
    }
    let place = usize::try_from(report.stratum).unwrap_or(usize::MAX);
    let stratum = Stratum::ALL.get(place).copied().ok_or(ReportError::Stratum(report.stratum))?;
    if report.outcomes.len() > Outcome::ALL.len() {
        return Err(ReportError::Outcomes(report.outcomes.len()));
    }
    if report.pods.len() > MAX_PODS {
        return Err(ReportError::Pods(report.pods.len()));
    }
    if let Some(pod) = report.pods.iter().find(|pod| pod.address.len() > MAX_ADDRESS) {
        return Err(ReportError::Address(pod.address.len()));
    }
    if let Some(status) = report.grpc_statuses.iter().find(|status| status.key > OTHER_GRPC_STATUS) {
        return Err(ReportError::GrpcStatus(status.key));
    }
    let statuses = report.grpc_statuses.iter().filter(|status| status.count > 0);
    let mut counts = Counts {
        started: report.started,
        finished: report.finished,
        overdue: report.overdue,
        overdue_finished: report.overdue_finished,
        overdue_errors: report.overdue_errors,
        abandoned: report.abandoned,
        stalled: report.stalled,
        stalled_settled: report.stalled_settled,
        grpc_statuses: statuses.map(|status| (status.key, status.count)).collect(),
        streams: report.streams,
        streams_finished: report.streams_finished,
        retried: report.retried,
        extra_attempts: report.extra_attempts,
        sized: report.sized,
        empty: report.empty,
        uncounted: report.uncounted,
        uncounted_by_pod: report.uncounted_by_pod,
        latency: histogram(&report.latency)?,
        latency_sum_us: report.latency_sum_us,
        rev: Rev::new(report.rev),
        rev_started: report.rev_started,
        cohorts: report.cohorts.as_ref().map(cohorts).transpose()?.unwrap_or_default(),
        groups: groups(&report.groups)?,
        ..Counts::default()
    };
    for (held, reported) in counts.outcomes.iter_mut().zip(&report.outcomes) {
        *held = *reported;
    }
    for pod in &report.pods {
        let held = PodCounts { finished: pod.finished, errors: pod.errors, slow: pod.slow };
        // One without requests takes the place of no other.
        if held != PodCounts::default() {
            counts.pods.insert(pod.address.clone(), held);
        }
    }
    Ok((ClusterName::new(report.cluster.clone()), stratum, counts))
}

/// Returns what a report says of closed start cohorts.
fn cohorts(report: &v1::Cohorts) -> Result<Cohorts, ReportError> {
    Ok(Cohorts {
        rev: Rev::new(report.rev),
        finished: report.finished,
        errors: report.errors,
        overdue: report.overdue,
        latency: histogram(&report.latency)?,
    })
}

fn groups(reports: &[v1::GroupReport]) -> Result<Groups, ReportError> {
    let group = |report: &v1::GroupReport| match u8::try_from(report.group) {
        Ok(group) if group < GROUPS => Ok((group, GroupCounts { judged: report.judged, errors: report.errors })),
        Ok(_) | Err(_) => Err(ReportError::Group(report.group)),
    };
    let counted = |group: &Result<(u8, GroupCounts), ReportError>| !matches!(group, Ok((_, counts)) if *counts == GroupCounts::default());
    reports.iter().map(group).filter(counted).collect()
}

fn histogram(bins: &[v1::Count]) -> Result<Histogram, ReportError> {
    let mut histogram = Histogram::new();
    for bin in bins {
        match u16::try_from(bin.key) {
            Ok(key) if key < BINS => histogram.add(key, bin.count),
            Ok(_) | Err(_) => return Err(ReportError::Bin(bin.key)),
        }
    }
    Ok(histogram)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_filter_says_of_streams_bodies_and_cohorts_is_read() {
        let latency = vec![v1::Count { key: 7, count: 3 }];
        let report = v1::ClusterReport {
            cluster: "a".into(),
            abandoned: 7,
            stalled: 6,
            stalled_settled: 5,
            sized: 5,
            empty: 4,
            streams: 3,
            streams_finished: 2,
            cohorts: Some(v1::Cohorts { rev: 9, finished: 4, errors: 1, overdue: 2, latency }),
            groups: vec![v1::GroupReport { group: 99, judged: 4, errors: 1 }],
            ..Default::default()
        };
        let cohorts =
            Cohorts { rev: Rev::new(9), finished: 4, errors: 1, overdue: 2, latency: [(7, 3)].into_iter().collect() };
        let groups = [(99, GroupCounts { judged: 4, errors: 1 })].into_iter().collect();
        let expected = Counts {
            abandoned: 7,
            stalled: 6,
            stalled_settled: 5,
            sized: 5,
            empty: 4,
            streams: 3,
            streams_finished: 2,
            cohorts,
            groups,
            ..Counts::default()
        };
        assert_eq!(counts(&report).unwrap().2, expected);
        // A filter of before knows nothing of them.
        let old = v1::ClusterReport { cluster: "a".into(), ..Default::default() };
        assert_eq!(counts(&old).unwrap().2, Counts::default());
    }

    #[test]
    fn absurd_reports_are_refused_with_a_reason() {
        let report = v1::ClusterReport { cluster: "a".into(), ..Default::default() };
        assert!(counts(&report).is_ok());
        let bin = |key| v1::Count { key, count: 1 };
        for (bad, why) in [
            (v1::ClusterReport { cluster: "x".repeat(2_000), ..report.clone() }, ReportError::Name(2_000)),
            (v1::ClusterReport { stratum: 9, ..report.clone() }, ReportError::Stratum(9)),
            (v1::ClusterReport { outcomes: vec![0; 13], ..report.clone() }, ReportError::Outcomes(13)),
            (
                v1::ClusterReport {
                    groups: vec![v1::GroupReport { group: 100, ..Default::default() }],
                    ..report.clone()
                },
                ReportError::Group(100),
            ),
            (v1::ClusterReport { latency: vec![bin(70_000)], ..report.clone() }, ReportError::Bin(70_000)),
            (v1::ClusterReport { latency: vec![bin(BINS.into())], ..report.clone() }, ReportError::Bin(BINS.into())),
            (
                v1::ClusterReport {
                    cohorts: Some(v1::Cohorts { latency: vec![bin(70_000)], ..Default::default() }),
                    ..report.clone()
                },
                ReportError::Bin(70_000),
            ),
        ] {
            assert_eq!(counts(&bad), Err(why));
        }
    }

    #[test]
    fn what_no_filter_keeps_is_refused() {
        let report = v1::ClusterReport { cluster: "a".into(), ..Default::default() };
        let pods = |pods: usize, address: usize| v1::ClusterReport {
            pods: vec![v1::PodReport { address: "x".repeat(address), ..Default::default() }; pods],
            ..report.clone()
        };
        let status = |key| v1::ClusterReport { grpc_statuses: vec![v1::Count { key, count: 1 }], ..report.clone() };
        assert!(counts(&pods(MAX_PODS, MAX_ADDRESS)).is_ok() && counts(&status(OTHER_GRPC_STATUS)).is_ok());
        for (bad, why) in [
            (pods(MAX_PODS + 1, 1), ReportError::Pods(MAX_PODS + 1)),
            (pods(1, MAX_ADDRESS + 1), ReportError::Address(MAX_ADDRESS + 1)),
            (status(OTHER_GRPC_STATUS + 1), ReportError::GrpcStatus(OTHER_GRPC_STATUS + 1)),
        ] {
            assert_eq!(counts(&bad), Err(why));
        }
    }
}
