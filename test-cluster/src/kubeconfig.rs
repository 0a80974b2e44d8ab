//! How clients find the API server and say who they are.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::api::SERVER;

/// Returns where the API server of a cluster in this folder writes its certificate.
pub(crate) fn certificate(folder: &Path) -> PathBuf {
    folder.join("certs/apiserver.crt")
}

/// Returns a kubeconfig for who has this token, in JSON, which is YAML.
pub(crate) fn of(folder: &Path, token: &str) -> Value {
    let cluster = json!({"server": SERVER, "certificate-authority": certificate(folder)});
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "user", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "user"}}],
        "current-context": "test",
    })
}
