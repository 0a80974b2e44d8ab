//! What is counted in parts is the same in whatever order the parts are put together.

use proptest::prelude::*;
use wingbeat_core::analysis::sequential::Split;
use wingbeat_core::analysis::window::{Arms, Batch, NodeGroup, WINDOW};
use wingbeat_core::counts::{Cohorts, Counts, GroupCounts, Groups, PodCounts};
use wingbeat_core::histogram::Histogram;
use wingbeat_core::id::Rev;
use wingbeat_core::time::{Span, Timestamp};

fn histogram() -> impl Strategy<Value = Histogram> {
    proptest::collection::vec((0_u16..40, 0_u64..1_000), 0..12).prop_map(|bins| bins.into_iter().collect())
}

fn cohorts() -> impl Strategy<Value = Cohorts> {
    (0_u64..3, 0_u64..100, 0_u64..100, 0_u64..100, histogram()).prop_map(|(rev, finished, errors, overdue, latency)| {
        Cohorts { rev: Rev::new(rev), finished, errors, overdue, latency }
    })
}

fn pod() -> impl Strategy<Value = PodCounts> {
    (0_u64..100, 0_u64..100, 0_u64..100).prop_map(|(finished, errors, slow)| PodCounts { finished, errors, slow })
}

fn groups() -> impl Strategy<Value = Groups> {
    let group = (0_u64..100, 0_u64..100).prop_map(|(judged, errors)| GroupCounts { judged, errors });
    proptest::collection::btree_map(0_u8..5, group, 0..4).prop_map(|groups| groups.into_iter().collect())
}

/// Counts as no worker has to have made them: the arithmetic holds for all.
fn counts() -> impl Strategy<Value = Counts> {
    let numbers = proptest::array::uniform16(0_u64..1_000);
    let outcomes = proptest::array::uniform12(0_u64..1_000);
    let statuses = proptest::collection::btree_map(0_u32..5, 1_u64..50, 0..4);
    let pods = proptest::collection::btree_map("[a-c]", pod(), 0..3);
    (numbers, outcomes, statuses, pods, (0_u64..3, 0_u64..9), histogram(), (cohorts(), groups())).prop_map(
        |(numbers, outcomes, grpc_statuses, pods, (rev, rev_started), latency, (cohorts, groups))| {
            let [started, finished, overdue, overdue_finished, overdue_errors, streams, streams_finished, ..] = numbers;
            let [.., abandoned, stalled, stalled_settled, uncounted, retried, extra_attempts, sized, empty] = numbers;
            let uncounted_by_pod = uncounted / 2;
            Counts {
                started,
                finished,
                overdue,
                overdue_finished,
                overdue_errors,
                abandoned,
                stalled,
                stalled_settled,
                streams,
                streams_finished,
                outcomes,
                grpc_statuses,
                retried,
                extra_attempts,
                sized,
                empty,
                uncounted,
                uncounted_by_pod,
                latency,
                latency_sum_us: started.wrapping_mul(7),
                rev: Rev::new(rev),
                rev_started,
                pods,
                cohorts,
                groups,
            }
        },
    )
}

fn arms() -> impl Strategy<Value = Arms> {
    (counts(), counts()).prop_map(|(primary, canary)| Arms { primary, canary })
}

/// A window as one node group or several report it.
fn batch() -> impl Strategy<Value = Batch> {
    let parts = proptest::collection::vec((0_u8..4, arms()), 1..4);
    (parts, arms(), 0_u64..50, any::<bool>(), proptest::option::of(0_u64..5)).prop_map(
        |(parts, direct, number, warmup, overdue)| {
            let overdue = overdue.map(Span::from_secs);
            let end = Timestamp::from_millis(1_000_000).plus(WINDOW.times(number));
            let alone = parts.into_iter().map(|(node_group, judged)| Batch {
                end,
                span: WINDOW,
                warmup,
                overdue,
                judged,
                node_group: NodeGroup(node_group),
                ..Batch::default()
            });
            let whole = alone.reduce(|whole, more| merged(&whole, &more)).unwrap_or_default();
            Batch { direct, ..whole }
        },
    )
}

/// Returns both together, and checks that the node groups add up to the whole.
fn merged(a: &Batch, b: &Batch) -> Batch {
    let mut sum = a.clone();
    sum.extend(b);
    let mut whole = Arms::default();
    sum.by_node_group.values().for_each(|part| whole.merge(part));
    if !sum.by_node_group.is_empty() {
        assert_eq!(whole, sum.judged);
    }
    sum
}

/// What tests can see of a batch: which node group was the first is none of it.
fn seen(batch: &Batch) -> (Batch, Vec<Batch>) {
    let whole = Batch {
        node_group: NodeGroup::default(),
        by_node_group: std::collections::BTreeMap::default(),
        ..batch.clone()
    };
    (whole, (0..4).map(|node_group| batch.without(NodeGroup(node_group))).collect())
}

/// Checks that an operation does not care for the order.
fn assert_orderless<T: Clone + PartialEq + std::fmt::Debug>(
    [a, b, c]: [&T; 3],
    join: impl Fn(&T, &T) -> T,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(join(&join(a, b), c), join(a, &join(b, c)), "associative");
    prop_assert_eq!(join(a, b), join(b, a), "commutative");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn histograms_add_up(a in histogram(), b in histogram(), c in histogram()) {
        let with = |change: fn(&mut Histogram, &Histogram)| move |a: &Histogram, b: &Histogram| {
            let mut sum = a.clone();
            change(&mut sum, b);
            sum
        };
        assert_orderless([&a, &b, &c], with(Histogram::merge))?;
        assert_orderless([&a, &b, &c], with(Histogram::max_merge))?;
        let naive: u64 = [&a, &b].into_iter().flat_map(Histogram::iter).map(|(_, count)| count).sum();
        prop_assert_eq!(with(Histogram::merge)(&a, &b).count(), naive);
        prop_assert_eq!(with(Histogram::merge)(&a, &b).since(&b), a);
    }

    #[test]
    fn counts_add_up(a in counts(), b in counts(), c in counts()) {
        let with = |change: fn(&mut Counts, &Counts)| move |a: &Counts, b: &Counts| {
            let mut sum = a.clone();
            change(&mut sum, b);
            sum
        };
        assert_orderless([&a, &b, &c], with(Counts::merge))?;
        assert_orderless([&a, &b, &c], with(Counts::max_merge))?;
        prop_assert_eq!(with(Counts::max_merge)(&a, &a), a, "taking in a report again changes nothing");
    }

    #[test]
    fn splits_add_up(numbers in proptest::array::uniform12(0_u64..1_000)) {
        let split = |place: usize| {
            let mut four = numbers.iter().copied().skip(4 * place);
            let mut next = || four.next().unwrap_or_default();
            Split { canary_bad: next(), canary: next(), primary_bad: next(), primary: next() }
        };
        assert_orderless([&split(0), &split(1), &split(2)], |a, b| a.plus(*b))?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn windows_add_up_with_and_without_each_seat(a in batch(), b in batch(), c in batch()) {
        prop_assert_eq!(seen(&merged(&merged(&a, &b), &c)), seen(&merged(&a, &merged(&b, &c))), "associative");
        prop_assert_eq!(seen(&merged(&a, &b)), seen(&merged(&b, &a)), "commutative");
    }
}
