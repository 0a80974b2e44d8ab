//! The controller is killed in the midst of a rollout in a real Kubernetes. `SEED` says when; else it is another moment each time.
#![expect(clippy::expect_used, reason = "tests")]

use std::io::Write as _;
use std::time::Duration;

use wingbeat_e2e::gateway::{Gateway, Kind};
use wingbeat_e2e::kills::{Case, Moment, Outcome, RATE, Successor, choose, seed};

/// In which a rollout of ten steps of half a second is under way.
const UNDER_WAY: Duration = Duration::from_secs(12);

/// Runs a case under load, and prints what came of it.
async fn run(test: &str, case: &Case) -> Option<Outcome> {
    let mut gateway = Gateway::start(test).await?;
    let users = gateway.users_at(RATE);
    let outcome = case.run(&mut gateway, &users, 1).await.expect("it ends right");
    let failures = gateway.failures().await;
    let told = format!("{case:?}: {outcome:?}\n{failures}");
    let _nobody_reads = writeln!(std::io::stderr(), "{told}");
    let told = format!("{told}\n{}", gateway.said());
    assert!(outcome.failed_afterwards == 0 && (outcome.failed == 0 || !case.is_healthy), "{told}");
    Some(outcome)
}

/// Returns a write of a rollout: which one is up to the seed.
fn write(seed: u64, index: u64) -> Moment {
    let kinds = Kind::OF_ROLLOUT;
    let kind = usize::try_from(choose(seed, index, kinds.len() as u64)).expect("a few");
    Moment::After(kinds.into_iter().nth(kind).expect("one of them"), 1)
}

#[tokio::test]
async fn real_kubernetes_killed_after_a_write_a_healthy_canary_is_promoted() {
    let seed = seed();
    let kills = vec![write(seed, 0), write(seed, 1)];
    let case = Case { is_healthy: true, kills, successor: Successor::Container };
    run("real_kubernetes_killed_after_a_write_a_healthy_canary_is_promoted", &case).await;
}

#[tokio::test]
async fn real_kubernetes_killed_after_a_write_a_broken_canary_is_rolled_back() {
    let seed = seed();
    let case = Case { is_healthy: false, kills: vec![write(seed, 2)], successor: Successor::Container };
    run("real_kubernetes_killed_after_a_write_a_broken_canary_is_rolled_back", &case).await;
}

#[tokio::test]
async fn real_kubernetes_killed_at_any_moment_a_healthy_canary_is_promoted() {
    let millis = choose(seed(), 3, UNDER_WAY.as_secs() * 1_000);
    let kills = vec![Moment::At(Duration::from_millis(millis))];
    let case = Case { is_healthy: true, kills, successor: Successor::Container };
    run("real_kubernetes_killed_at_any_moment_a_healthy_canary_is_promoted", &case).await;
}
