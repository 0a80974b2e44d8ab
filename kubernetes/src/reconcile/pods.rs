//! What a Deployment says of its Pods.

use serde_json::Value;

use crate::object::number;

/// Returns how many pods it should have.
pub(super) fn replicas(deployment: &Value) -> u64 {
    number(deployment, "/spec/replicas").unwrap_or(1)
}

/// Returns true if there are Pods of it, ready or not.
pub(super) fn has_made_pods(deployment: &Value) -> bool {
    number(deployment, "/status/replicas").is_some_and(|it| it > 0)
}

/// Returns false once its last Pod is gone, or going.
pub(super) fn has_pods(deployment: &Value) -> bool {
    let of = |field: &str| number(deployment, &format!("/status/{field}")).unwrap_or(0);
    let is_observed = number(deployment, "/metadata/generation").is_some_and(|it| of("observedGeneration") >= it);
    !is_observed || replicas(deployment) > 0 || of("replicas") > 0
}

/// Returns the template of its Pods.
pub(super) fn template_of(deployment: &Value) -> &Value {
    deployment.pointer("/spec/template").unwrap_or(&Value::Null)
}
