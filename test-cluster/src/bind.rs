//! Pods get their node when they are created: by an admission policy, in place of a scheduler.

use serde_json::{Value, json};

/// The only node.
pub(crate) const NODE: &str = "node1";

/// Returns the policy and its binding, each with the path of its collection.
pub(crate) fn policy() -> [(&'static str, Value); 2] {
    let expression = format!("Object{{spec: Object.spec{{nodeName: \"{NODE}\"}}}}");
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicy",
        "metadata": {"name": "bind"},
        "spec": {
            "matchConstraints": {"resourceRules": [
                {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]},
            ]},
            "matchConditions": [{"name": "unbound", "expression": "!has(object.spec.nodeName)"}],
            "reinvocationPolicy": "Never",
            "failurePolicy": "Fail",
            "mutations": [{
                "patchType": "ApplyConfiguration",
                "applyConfiguration": {"expression": expression},
            }],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingAdmissionPolicyBinding",
        "metadata": {"name": "bind"},
        "spec": {"policyName": "bind"},
    });
    [
        ("/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies", policy),
        ("/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicybindings", binding),
    ]
}

/// Returns a Pod that is created for the sake of what admission makes of it.
pub(crate) fn probe() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "namespace": "default"},
        "spec": {"containers": [{"name": "probe", "image": "probe"}]},
    })
}
