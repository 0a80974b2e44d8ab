//! The real kubelet, over a container runtime of ours.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::api::Api;
use crate::bind::NODE;
use crate::namespace::NODE_ADDRESS;
use crate::process::Process;
use crate::wait::until;

/// Time for the node to be ready; it takes a second or two.
const NODE_TIMEOUT: Duration = Duration::from_mins(2);
/// The most Pods of the node. There are addresses for 62,500.
const MAX_PODS: u32 = 1_000;

/// Starts a kubelet that registers the node, and waits until the node is ready.
pub(crate) async fn start(folder: &Path, binaries: &Path, socket: &Path, api: &Api) -> anyhow::Result<Process> {
    let config = folder.join("kubelet.json");
    let root = folder.join("kubelet");
    let text = configuration(folder, socket).to_string();
    std::fs::write(&config, text).context("cannot write kubelet's configuration")?;
    let args = [
        format!("--config={}", config.display()),
        format!("--kubeconfig={}", folder.join("kubeconfig").display()),
        format!("--hostname-override={NODE}"),
        format!("--root-dir={}", root.display()),
        format!("--cert-dir={}", root.join("pki").display()),
        format!("--node-ip={NODE_ADDRESS}"),
    ];
    let mut kubelet = Process::start("kubelet", binaries, &folder.join("log"), args)?;
    let ready = until("the node is ready", NODE_TIMEOUT, &mut kubelet, async || {
        is_ready(&api.get(&format!("/api/v1/nodes/{NODE}")).await?).then_some(())
    });
    match ready.await {
        Ok(()) => Ok(kubelet),
        Err(error) => {
            kubelet.kill().await;
            Err(error)
        }
    }
}

/// Returns true if the node says that it is ready, and takes Pods.
fn is_ready(node: &Value) -> bool {
    let conditions = node.pointer("/status/conditions").and_then(Value::as_array);
    let ready = |condition: &Value| {
        condition.get("type").is_some_and(|kind| kind == "Ready")
            && condition.get("status").is_some_and(|status| status == "True")
    };
    let taints = node.pointer("/spec/taints").and_then(Value::as_array);
    conditions.is_some_and(|all| all.iter().any(ready)) && taints.is_none_or(Vec::is_empty)
}

/// Returns the configuration: without cgroups, without iptables, without limits of disk, and as quick as it gets.
fn configuration(folder: &Path, socket: &Path) -> Value {
    let endpoint = format!("unix://{}", socket.display());
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": true}, "webhook": {"enabled": false}},
        "authorization": {"mode": "AlwaysAllow"},
        "address": NODE_ADDRESS,
        "healthzBindAddress": "127.0.0.1",
        "containerRuntimeEndpoint": endpoint,
        "imageServiceEndpoint": endpoint,
        "cgroupsPerQOS": false,
        "enforceNodeAllocatable": [],
        "cgroupDriver": "cgroupfs",
        "failSwapOn": false,
        "failCgroupV1": false,
        "makeIPTablesUtilChains": false,
        "localStorageCapacityIsolation": false,
        "evictionHard": {},
        // Images are names: there is nothing to collect.
        "imageGCHighThresholdPercent": 100,
        "serializeImagePulls": false,
        "registryPullQPS": 0,
        "eventRecordQPS": 0,
        "maxPods": MAX_PODS,
        "registerNode": true,
        "syncFrequency": "1s",
        "nodeStatusUpdateFrequency": "10s",
        "podLogsDir": folder.join("pods"),
        "volumePluginDir": folder.join("volume-plugins"),
        "resolvConf": "",
        "clusterDNS": ["10.96.0.10"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ready_that_says_so_and_has_no_taint() {
        let node = |status: &str, taints: &Value| {
            json!({
                "spec": {"taints": taints},
                "status": {"conditions": [
                    {"type": "MemoryPressure", "status": "False"},
                    {"type": "Ready", "status": status},
                ]},
            })
        };
        assert!(is_ready(&node("True", &json!([]))) && is_ready(&node("True", &Value::Null)));
        assert!(!is_ready(&node("False", &Value::Null)) && !is_ready(&node("Unknown", &Value::Null)));
        assert!(!is_ready(&node("True", &json!([{"key": "node.kubernetes.io/not-ready"}]))));
        assert!(!is_ready(&json!({})));
    }
}
