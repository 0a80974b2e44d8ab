//! Two replicas of the controller: one leads, and the other one takes over in the midst of a rollout.

use std::time::Duration;

use tokio::time::Instant;

use crate::gateway::{Controller, Gateway, Signal};

/// Time for a rollout of ten steps of half a second, in which the leader changes.
const ROLLOUT: Duration = Duration::from_mins(2);

/// What came of a leader that was paused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paused {
    /// What it wrote after the next leader's first write, and when.
    pub late: Vec<(String, String)>,
    /// How often it wrote before.
    pub before: usize,
}

/// Returns a second replica that knows who leads.
pub async fn standby(gateway: &Gateway) -> Controller {
    let said = gateway.said().len();
    let standby = gateway.replica().await;
    gateway.until_said(said, "Following").await;
    standby
}

/// Begins a rollout, and waits until the canary gets a tenth.
pub async fn begin(gateway: &Gateway, version: &str) {
    let said = gateway.said().len();
    gateway.kubectl(&["set", "image", "deployment/backend", &format!("web=wingbeat.test/web:{version}")]).await;
    gateway.until_said(said, "canary weight 10").await;
}

/// Waits until that rollout was promoted.
pub async fn end(gateway: &Gateway, version: &str) {
    let path = "{.spec.template.spec.containers[0].image}";
    let image = format!("wingbeat.test/web:{version}");
    gateway.until_within("the primary has it", "deployment/backend-primary", path, &image, ROLLOUT).await;
    gateway.until_phase("Succeeded", ROLLOUT).await;
    gateway.until("the target is scaled down", "deployment/backend", "{.spec.replicas}", "0").await;
}

/// Kills the leader in a rollout. Returns how long nobody led.
pub async fn killed(gateway: &mut Gateway, version: &str) -> Duration {
    let next = standby(gateway).await;
    begin(gateway, version).await;
    gateway.kill_controller().await;
    let killed = Instant::now();
    let (_, led) = gateway.follow(next).await;
    end(gateway, version).await;
    led.duration_since(killed)
}

/// Asks the leader to end in a rollout (SIGTERM). Returns how long it took until the next one led.
pub async fn ended(gateway: &mut Gateway, version: &str) -> Duration {
    let next = standby(gateway).await;
    begin(gateway, version).await;
    gateway.controller().signal(Signal::TERM);
    let ended = Instant::now();
    let (former, led) = gateway.follow(next).await;
    if let Some(mut former) = former {
        former.ended().await;
    }
    end(gateway, version).await;
    led.duration_since(ended)
}

/// Pauses the leader in a rollout, for this long. Once it wakes, it ends by itself.
pub async fn paused(gateway: &mut Gateway, version: &str, pause: Duration) -> Paused {
    let next = standby(gateway).await;
    let (identity, audit) = (gateway.leader().await, gateway.audit_end());
    begin(gateway, version).await;
    gateway.controller().signal(Signal::STOP);
    let paused = Instant::now();
    let (former, _) = gateway.follow(next).await;
    let mut former = former.expect("it was there");
    let leader = gateway.leader().await;
    assert_ne!(leader, identity, "another replica leads");
    tokio::time::sleep_until(paused + pause).await;
    former.signal(Signal::CONT);
    former.ended().await;
    end(gateway, version).await;
    let first = gateway.writes_of(&leader, audit).into_iter().next().expect("it leads");
    let (before, late) =
        gateway.writes_of(&identity, audit).into_iter().partition::<Vec<_>, _>(|(at, _)| *at <= first.0);
    Paused { late, before: before.len() }
}
