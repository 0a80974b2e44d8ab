//! Two replicas of the controller in a real Kubernetes: one leads, and the other one takes over.

use std::io::Write as _;
use std::time::Duration;

use wingbeat_e2e::gateway::Gateway;
use wingbeat_e2e::kills::RATE;
use wingbeat_e2e::takeover::{Paused, ended, killed, paused};

/// How long nobody leads at most after a leader was killed.
const AFTER_KILL: Duration = Duration::from_secs(15);
/// The same after it was asked to end.
const AFTER_TERM: Duration = Duration::from_secs(1);
/// For how long a leader is paused: longer than its Lease.
const PAUSE: Duration = Duration::from_secs(25);

#[tokio::test]
async fn real_kubernetes_a_second_replica_takes_over() {
    let Some(mut gateway) = Gateway::start("real_kubernetes_a_second_replica_takes_over").await else { return };
    let users = gateway.users_at(RATE);
    let before = gateway.events().await;
    let after_kill = killed(&mut gateway, "killed").await;
    gateway.assert_whole(&before).await;
    let before = gateway.events().await;
    let after_term = ended(&mut gateway, "ended").await;
    gateway.assert_whole(&before).await;
    let failures = gateway.failures().await;
    let tally = users.stop(Duration::from_secs(5)).await;
    let told = format!("{after_kill:?} after SIGKILL, {after_term:?} after SIGTERM, {} requests", tally.finished);
    let _nobody_reads = writeln!(std::io::stderr(), "{told}");
    assert_eq!(tally.failed, [], "{told}\n{failures}\n{}", gateway.said());
    assert!(after_kill <= AFTER_KILL && after_term <= AFTER_TERM, "{told}\n{}", gateway.said());
}

#[tokio::test]
async fn real_kubernetes_a_leader_that_was_paused_writes_nothing_more() {
    let test = "real_kubernetes_a_leader_that_was_paused_writes_nothing_more";
    let Some(mut gateway) = Gateway::start(test).await else { return };
    let users = gateway.users_at(RATE);
    let events = gateway.events().await;
    let Paused { late, before } = paused(&mut gateway, "paused", PAUSE).await;
    gateway.assert_whole(&events).await;
    assert!(late.is_empty() && before > 0, "{before} writes before, and then {late:?}\n{}", gateway.said());
    let failures = gateway.failures().await;
    let tally = users.stop(Duration::from_secs(5)).await;
    assert_eq!(tally.failed, [], "of {}\n{failures}\n{}", tally.finished, gateway.said());
}
