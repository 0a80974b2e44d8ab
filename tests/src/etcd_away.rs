//! A canary that breaks while the API server cannot store anything.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::gateway::Gateway;
use crate::gateway::broken::{fail, last_failure};
use crate::kills::RATE;

/// The Canary, as kubectl is told.
const CANARY: &str = "canaries.wingbeat.dev/backend";

/// How etcd is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Away {
    /// It is stopped where it is: calls hang.
    Paused,
    /// It is killed: calls fail.
    Killed,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// From when the canary broke to the last request that failed.
    pub out: Duration,
    /// Requests that failed.
    pub failed: usize,
    /// Requests that failed after the last of them should have.
    pub failed_afterwards: usize,
    /// From when the API server could store again to when it had stored that the canary failed.
    pub stored: Duration,
}

/// Returns an analysis whose first step lasts until etcd is away.
pub fn analysis() -> Value {
    json!({"interval": "10s", "threshold": 3, "stepWeights": [20, 50], "judge": {"mode": "guard"}})
}

/// Takes etcd away for this long, and has a canary break that gets a fifth.
pub async fn breaks(gateway: &Gateway, away: Away, duration: Duration, version: &str) -> Outcome {
    let users = gateway.users_at(RATE);
    let before = gateway.events().await;
    let said = gateway.said().len();
    gateway.kubectl(&["set", "image", "deployment/backend", &format!("web=wingbeat.test/web:{version}")]).await;
    gateway.until_said(said, "canary weight 20").await;
    let pods = gateway.canaries(version).await;
    assert_eq!(users.tally().failed, [], "it is good at first\n{}", gateway.said());
    match away {
        Away::Paused => gateway.cluster().pause_etcd().await.expect("it is paused"),
        Away::Killed => gateway.cluster().kill_etcd().await.expect("it is killed"),
    }
    let broke = Instant::now();
    for pod in &pods {
        fail(pod).await;
    }
    let out = last_failure(&users, 0).await.duration_since(broke);
    let failed = users.tally().failed.len();
    tokio::time::sleep_until(broke + duration).await;
    match away {
        Away::Paused => gateway.cluster().resume_etcd().await.expect("it goes on"),
        Away::Killed => gateway.cluster().start_etcd().await.expect("it is started"),
    }
    let back = Instant::now();
    gateway.until_after_all("it is stored", CANARY, "{.status.phase}", "Failed").await;
    let stored = back.elapsed();
    let record = gateway.kubectl(&["get", "canarystates/backend", "--output=jsonpath={.status.record}"]).await;
    assert!(record.contains("Failed"), "{record}");
    gateway.until_after_all("the target is scaled down", "deployment/backend", "{.spec.replicas}", "0").await;
    gateway.assert_whole(&before).await;
    let tally = users.stop(Duration::from_secs(5)).await;
    Outcome { out, failed, failed_afterwards: tally.failed.len() - failed, stored }
}
