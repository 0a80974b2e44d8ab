//! Wherever the controller dies, the next one ends what it had begun.

use proptest::prelude::*;

use crate::cluster::{Cluster, Crash};

fn crash() -> impl Strategy<Value = Crash> {
    prop_oneof![(0_usize..6).prop_map(Crash::Writes), Just(Crash::Engine)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn a_rollout_ends_as_without_a_crash(rounds in 1_usize..140, crash in crash(), is_broken: bool) {
        let mut cluster = Cluster::new();
        cluster.crash = Some((rounds, crash));
        cluster.create();
        cluster.run_until(200, |it| it.phase() == "Initialized" && it.replicas("backend") == 0);
        cluster.errors = if is_broken { 10 } else { 0 };
        cluster.set_image("app:2");
        let (phase, image) = if is_broken { ("Failed", "app:1") } else { ("Succeeded", "app:2") };
        cluster.run_until(600, |it| it.phase() == phase && it.replicas("backend") == 0);
        prop_assert_eq!(cluster.image("backend-primary"), image);
        prop_assert_eq!(cluster.weight(), 0);
        cluster.run(20);
        let written = cluster.api.log.len();
        cluster.run(100);
        prop_assert_eq!(cluster.api.log.len(), written, "{:?}", cluster.api.log);
    }
}

/// What the primary runs is what was promoted: a template that failed is not taken for it.
#[test]
fn where_the_state_is_lost_a_rollout_begins_from_what_the_primary_runs() {
    let mut cluster = Cluster::initialized();
    cluster.errors = 10;
    cluster.set_image("app:2");
    cluster.run_until(300, |it| it.phase() == "Failed" && it.replicas("backend") == 0);
    cluster.lose_state();
    cluster.run_until(10, |it| it.phase() == "Progressing");
    assert_eq!(cluster.image("backend-primary"), "app:1");
    cluster.run_until(300, |it| it.phase() == "Failed" && it.replicas("backend") == 0);
    assert_eq!(cluster.image("backend-primary"), "app:1");
}
