//! Rollouts in whose midst the controller is killed: started again, it ends what it began.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use anyhow::ensure;
use serde_json::json;
use wingbeat_demo::load::Load;

use crate::gateway::{Gateway, Kind, Writes};

/// Requests a second.
pub const RATE: u32 = 200;
/// Time for a rollout, its kills included; a busy machine may be slow.
const ROLLOUT: Duration = Duration::from_mins(4);
/// How long users are watched after a rollout has ended.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// When the controller is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// This long after the target was changed.
    At(Duration),
    /// Right after a write was answered: the how manieth of its kind since the target was changed.
    After(Kind, u32),
}

/// What the killed one is followed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Successor {
    /// A container of the same Pod.
    Container,
    /// Another Pod, whose disk is empty.
    Pod,
}

/// A rollout in which the controller is killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// Whether the canary answers well. If not, it fails everything.
    pub is_healthy: bool,
    /// When it is killed, one after the other.
    pub kills: Vec<Moment>,
    /// What comes after each.
    pub successor: Successor,
}

/// What came of a case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Requests that came back.
    pub finished: u64,
    /// Requests that failed.
    pub failed: usize,
    /// Requests that failed after the rollout had ended.
    pub failed_afterwards: usize,
    /// For how long nobody led, kill by kill. Fewer than asked for: the rollout was over before.
    pub away: Vec<Duration>,
    /// Texts of events that were not told.
    pub missing: Vec<String>,
}

/// Returns a number below `below`: always the same for a seed and an index.
pub fn choose(seed: u64, index: u64, below: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    (seed, index).hash(&mut hasher);
    hasher.finish() % below.max(1)
}

/// Returns what tests choose by: `SEED`, or another one each time.
pub fn seed() -> u64 {
    let given = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| std::process::id().into())
}

impl Case {
    /// Carries it out, as the rollout of this number at this gateway, and checks what it left behind.
    pub async fn run(&self, gateway: &mut Gateway, users: &Load, number: u64) -> anyhow::Result<Outcome> {
        let before = gateway.events().await;
        users.mark();
        let mut writes = Writes::begin(gateway);
        let image = format!("wingbeat.test/web:{number}");
        let status = if self.is_healthy { "200" } else { "500" };
        let container = json!({"name": "web", "image": image, "env": [{"name": "STATUS", "value": status}]});
        let patch = json!({"spec": {"template": {"spec": {"containers": [container]}}}}).to_string();
        gateway.kubectl(&["patch", "deployment/backend", "--patch", &patch]).await;
        let mut outcome = Outcome::default();
        for moment in &self.kills {
            let over = self.over(gateway, &image);
            let is_over = match *moment {
                Moment::At(after) => tokio::time::timeout(after, over).await.is_ok(),
                Moment::After(kind, count) => tokio::select! {
                    () = writes.until(gateway, kind, count) => false,
                    () = over => true,
                },
            };
            if is_over {
                break;
            }
            outcome.away.push(match self.successor {
                Successor::Container => gateway.restart_controller().await,
                Successor::Pod => gateway.replace_controller().await,
            });
        }
        self.over(gateway, &image).await;
        gateway.until("the target is scaled down", "deployment/backend", "{.spec.replicas}", "0").await;
        let ended = users.tally().failed.len();
        tokio::time::sleep(AFTERWARDS).await;
        let tally = users.tally();
        (outcome.finished, outcome.failed) = (tally.finished, tally.failed.len());
        outcome.failed_afterwards = tally.failed.len() - ended;
        self.check(gateway, &image, &before).await?;
        outcome.missing = self.missing(gateway, &before).await;
        Ok(outcome)
    }

    /// Waits until the rollout has ended as it should.
    async fn over(&self, gateway: &Gateway, image: &str) {
        if self.is_healthy {
            let path = "{.spec.template.spec.containers[0].image}";
            gateway.until_within("the primary has it", "deployment/backend-primary", path, image, ROLLOUT).await;
            gateway.until_phase("Succeeded", ROLLOUT).await;
        } else {
            gateway.until_phase("Failed", ROLLOUT).await;
        }
    }

    async fn check(&self, gateway: &Gateway, image: &str, before: &BTreeMap<String, usize>) -> anyhow::Result<()> {
        let runs = gateway.words("deployment/backend-primary", "{.spec.template.spec.containers[0].image}").await;
        ensure!((runs == [image]) == self.is_healthy, "the primary has {runs:?} after {image}: {self:?}");
        gateway.assert_whole(before).await;
        Ok(())
    }

    /// Returns the texts that people wait for and that were not told.
    async fn missing(&self, gateway: &Gateway, before: &BTreeMap<String, usize>) -> Vec<String> {
        let name = format!("backend.{}", gateway.namespace());
        let started = format!("New revision detected! Scaling up {name}");
        let texts = if self.is_healthy {
            vec![
                started,
                format!("Starting canary analysis for {name}"),
                format!("Advance {name} canary weight 50"),
                format!("Copying {name} template spec"),
                "Routing all traffic to primary".to_owned(),
                format!("Promotion completed! Scaling down {name}"),
            ]
        } else {
            vec![started, format!("Rolling back {name}"), format!("Canary failed! Scaling down {name}")]
        };
        let now = gateway.events().await;
        let is_missing = |text: &String| {
            let count = |events: &BTreeMap<String, usize>| -> usize {
                events.iter().filter(|(note, _)| note.starts_with(text.as_str())).map(|(_, count)| count).sum()
            };
            count(&now) <= count(before)
        };
        texts.into_iter().filter(is_missing).collect()
    }
}
