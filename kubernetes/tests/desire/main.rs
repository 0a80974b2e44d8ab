//! What should be in a cluster, as whole values.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "what is not there fails the test")]

use std::collections::BTreeMap;

use serde_json::{Value, json};
use wingbeat_kubernetes::configs::Renames;
use wingbeat_kubernetes::desire::{Desired, Observed, Problem, Scaling, Settings, Source};

mod flagger;
mod primary;
mod problems;
mod service;

/// The uid of the Canary.
const UID: &str = "587718bd-d0f6-4274-a429-44559866c973";

/// Returns a Canary of Flagger's API.
fn canary(service: Value) -> Value {
    let mut canary = json!({
        "apiVersion": "flagger.app/v1beta1",
        "kind": "Canary",
        "metadata": {"name": "backend", "namespace": "prod", "uid": UID},
        "spec": {
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "backend"},
            "analysis": {"interval": "10s", "threshold": 10, "stepWeight": 5},
        },
    });
    canary["spec"]["service"] = service;
    canary
}

/// Returns a target with a container that has two ports.
fn target() -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": "backend", "namespace": "prod", "uid": "f6bb", "generation": 2,
            "labels": {"app": "backend", "team": "shop", "kustomize.toolkit.fluxcd.io/name": "apps"},
            "annotations": {"deployment.kubernetes.io/revision": "1", "team/contact": "shop"},
        },
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "backend", "tier": "web"}},
            "template": {
                "metadata": {"labels": {"app": "backend", "tier": "web"}, "annotations": {"scrape": "true"}},
                "spec": {"containers": [{
                    "name": "c", "image": "app:1.4.0",
                    "ports": [{"name": "http", "containerPort": 9898}, {"containerPort": 9797, "protocol": "TCP"}],
                    "aFieldThatNobodyKnows": {"in": ["any", 1.5, null]},
                }]},
            },
        },
        "status": {"replicas": 2},
    })
}

/// Returns what an object of a kind and name is that a controller has.
fn owned(kind: &str, name: &str, owner: Option<(&str, &str, &str)>) -> Value {
    let references: Vec<Value> = owner
        .into_iter()
        .map(|(kind, name, uid)| json!({"kind": kind, "name": name, "uid": uid, "controller": true}))
        .collect();
    json!({"kind": kind, "metadata": {"name": name, "namespace": "prod", "ownerReferences": references}})
}

fn desired(canary: &Value, target: &Value, existing: &[&Value]) -> Result<Desired, Vec<Problem>> {
    let observed = Observed { canary, target, existing, promotion: "p-1", renames: &Renames::new() };
    Desired::of(&observed, &Settings::default())
}

fn right(canary: &Value, target: &Value) -> Desired {
    desired(canary, target, &[]).unwrap_or_else(|problems| panic!("{problems:?}"))
}
