//! A state folder that an earlier version wrote: what it knew goes on, and nobody notices.
//!
//! `older_state/state.redb` was written by version 0a4db95, which was killed while one rollout was on, one had succeeded and
//! one had failed, below two Envoys with traffic; `documents.yaml` is what it managed, and `shown.json` what it showed then.
#![expect(clippy::expect_used, reason = "tests")]

use std::path::{Path, PathBuf};

use serde_json::Value;
use wingbeat_test_support::server::{Server, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_wingbeat");

fn written(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/older_state").join(name)
}

/// What people see of a canary that must not change.
#[derive(Debug, PartialEq, Eq)]
struct Shown {
    name: String,
    phase: String,
    weight: String,
    primary: String,
    canary: String,
    attempt: String,
}

impl Shown {
    fn of(canary: &Value) -> Self {
        let text = |field: &str| canary.get(field).filter(|it| !it.is_null()).map(Value::to_string).unwrap_or_default();
        let (name, phase, weight) = (text("name"), text("phase"), text("weight"));
        let (primary, canary) = (text("primary_revision"), text("canary_revision"));
        Self { name, phase, weight, primary, canary, attempt: text("attempt") }
    }

    fn all(canaries: &Value) -> Vec<Self> {
        canaries.as_array().into_iter().flatten().map(Self::of).collect()
    }
}

fn serve(state: &Path) -> Server {
    let ports = ["--listen-xds", "127.0.0.1:0", "--listen-http", "127.0.0.1:0", "--config"].map(PathBuf::from);
    let paths = [written("documents.yaml"), PathBuf::from("--state"), state.to_owned()];
    Server::start(PROGRAM, ports.into_iter().chain(paths))
}

fn shown(server: &Server) -> Vec<Shown> {
    let (code, said) = server.client(&["get", "--output", "json"]);
    // It learns first what Envoys hold, and does not answer before.
    if code == Some(0) { Shown::all(&serde_json::from_str(&said).expect("get prints JSON")) } else { Vec::new() }
}

fn events(server: &Server, name: &str) -> String {
    server.client(&["events", &format!("prod/{name}")]).1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_folder_of_version_0a4db95_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let state = folder.path().join("state");
    std::fs::create_dir(&state).expect("a folder");
    std::fs::copy(written("state.redb"), state.join("state.redb")).expect("it is copied");
    let before: Value =
        serde_json::from_slice(&std::fs::read(written("shown.json")).expect("what was shown")).expect("JSON");
    let before = Shown::all(&before);
    assert_eq!(before.len(), 3, "{before:?}");

    let server = serve(&state);
    until("it serves what was served", || shown(&server) == before).await;
    assert!(events(&server, "promoted").contains("Promotion completed"), "{}", events(&server, "promoted"));
    assert!(events(&server, "failed").contains("Rolling back"), "{}", events(&server, "failed"));
    // The rollout that was on is as alive as any: it ends, and begins anew, which is stored before it is said.
    // It finds out first what proxies serve, and nothing moves meanwhile.
    for verb in ["abort", "retry"] {
        until(verb, || server.client(&[verb, "prod/goes-on"]).0 == Some(0)).await;
    }
    drop(server);

    let server = serve(&state);
    let is_second = |it: &Shown| it.name.contains("goes-on") && it.phase.contains("Progressing") && it.attempt == "2";
    until("what this version stored is read again", || shown(&server).iter().any(is_second)).await;
    let others = |shown: Vec<Shown>| shown.into_iter().filter(|it| !it.name.contains("goes-on")).collect::<Vec<_>>();
    assert_eq!(others(shown(&server)), others(before));
}
