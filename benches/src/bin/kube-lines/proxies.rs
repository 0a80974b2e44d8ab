//! Which share of the requests the Envoy leads to the canary, as its own configuration has it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use jiff::Timestamp;
use serde_json::Value;
use tokio::task::JoinHandle;
use wingbeat_e2e::gateway::Gateway;

use crate::scene::PHASE;

/// How often it is asked.
const INTERVAL: Duration = Duration::from_millis(10);
/// A percent of the weights of a route, which add up to 10,000.
const PERCENT: u64 = 100;

/// A share in percent, and since when there is it.
pub(crate) type Change = (Timestamp, u64);

/// The share, watched.
#[derive(Debug)]
pub(crate) struct Weights {
    changes: Arc<Mutex<Vec<Change>>>,
    task: JoinHandle<()>,
}

impl Weights {
    /// Watches from now on.
    pub(crate) fn watch(gateway: &Gateway) -> anyhow::Result<Self> {
        let admin = gateway.envoy().admin().context("an administration interface")?;
        let url = format!("http://{admin}/config_dump?resource=dynamic_route_configs");
        let changes = Arc::<Mutex<Vec<Change>>>::default();
        let shared = changes.clone();
        let task = tokio::spawn(async move {
            let client = reqwest::Client::new();
            let mut poll = tokio::time::interval(INTERVAL);
            loop {
                poll.tick().await;
                let Ok(answer) = client.get(&url).send().await else { continue };
                let Ok(dump) = answer.json::<Value>().await else { continue };
                let Some(percent) = weight(&dump) else { continue };
                let mut changes = shared.lock().unwrap_or_else(PoisonError::into_inner);
                if changes.last().is_none_or(|(_, before)| *before != percent) {
                    changes.push((Timestamp::now(), percent));
                }
            }
        });
        Ok(Self { changes, task })
    }

    /// Returns all that there were, in their order.
    pub(crate) fn seen(&self) -> Vec<u64> {
        self.all().into_iter().map(|(_, percent)| percent).collect()
    }

    /// Waits until the share is this, and returns since when.
    pub(crate) async fn until(&self, percent: u64) -> anyhow::Result<Timestamp> {
        let wait = async {
            let mut poll = tokio::time::interval(INTERVAL);
            loop {
                poll.tick().await;
                if let Some((since, _)) = self.all().last().filter(|(_, last)| *last == percent) {
                    return *since;
                }
            }
        };
        let waited = tokio::time::timeout(PHASE, wait).await;
        waited.with_context(|| format!("Envoy does not come to {percent} %: {:?}", self.all()))
    }

    fn all(&self) -> Vec<Change> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Weights {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Returns the largest share of a second cluster, the canary's, in percent; 0 where all routes lead to one. Nothing if there is no
/// route.
fn weight(dump: &Value) -> Option<u64> {
    match dump {
        Value::Array(all) => all.iter().filter_map(weight).max(),
        Value::Object(fields) => {
            if let Some(clusters) = fields.get("weighted_clusters").and_then(|it| it.get("clusters")) {
                let of_canary = clusters.pointer("/1/weight").and_then(Value::as_u64);
                return Some(of_canary.unwrap_or_default() / PERCENT);
            }
            if fields.contains_key("cluster") {
                return Some(0);
            }
            fields.values().filter_map(weight).max()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_share_of_the_second_cluster_counts() {
        let dump =
            |route: Value| json!({"configs": [{"route_config": {"virtual_hosts": [{"routes": [{"route": route}]}]}}]});
        let weighted = |weights: [u64; 2]| {
            let clusters = weights.map(|weight| json!({"name": "a", "weight": weight}));
            dump(json!({"weighted_clusters": {"clusters": clusters}}))
        };
        assert_eq!(weight(&weighted([8_000, 2_000])), Some(20));
        assert_eq!(weight(&dump(json!({"cluster": "a"}))), Some(0));
        assert_eq!(weight(&json!({"configs": []})), None);
    }
}
