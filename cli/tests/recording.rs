//! What `wingbeat serve --record` writes down of rollouts with a real Envoy.
#![expect(clippy::expect_used, reason = "tests")]

use serde_json::Value;
use wingbeat_demo::service::Behaviour;
use wingbeat_test_support::server::{Server, until};

use crate::site::{Site, serve};

mod site;

/// A recording is judged again as its rollout was: a good canary, then a bad one.
#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_a_recording_comes_to_the_verdict_of_its_rollout() {
    let site = Site::build("interval: 300ms, stepWeight: 25, maxWeight: 50, judge: {warmup: 1s}").await;
    let server = serve(&site.path(), "127.0.0.1:0".parse().expect("an address"));
    let _envoy = site.envoy(server.xds).await;
    let _users = site.users();
    until("the first revision serves", || server.phase() == "Initialized").await;
    let verdict = |server: &Server| {
        let canary = server.canary().expect("it is shown");
        canary.get("verdict").and_then(|verdict| verdict.get("kind")).and_then(Value::as_str).map(str::to_owned)
    };
    let document = site.path().join("canary.yaml");
    for (number, revision, ends) in [(1, "2", "Succeeded"), (2, "1", "Failed")] {
        if ends == "Failed" {
            site.old.behave(Behaviour { error_share: 0.5, ..Behaviour::default() });
        }
        site.write(revision);
        until(ends, || server.phase() == ends || server.phase() == "Failed").await;
        assert_eq!(server.phase(), ends, "{}", server.client(&["events", "prod/backend"]).1);
        let live = verdict(&server);
        let file = site.path().join(format!("record/prod_backend_{number}.jsonl"));
        let replayed = || {
            let args = ["replay".as_ref(), file.as_os_str(), "--canary".as_ref(), document.as_os_str()];
            let output = wingbeat_test_support::server::run(site::PROGRAM, args);
            let rows = String::from_utf8(output.stdout).expect("text");
            let last: Option<Value> = rows.lines().last().map(|row| serde_json::from_str(row).expect("JSON"));
            (output.status.code(), last.and_then(|row| Some(row.get("verdict")?.as_str()?.to_owned())))
        };
        // The last lines are on their way to the disk.
        until("the recording is whole", || replayed() == (Some(0), live.clone())).await;
        let expected = if ends == "Failed" { "rollback" } else { "advance" };
        assert_eq!(live.as_deref(), Some(expected), "{}", server.said());
    }
    // Whatever came after their ends is in neither of them.
    for number in [1, 2] {
        let file = site.path().join(format!("record/prod_backend_{number}.jsonl"));
        let output = wingbeat_test_support::server::run(site::PROGRAM, ["replay".as_ref(), file.as_os_str()]);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    }
    // A folder that goes away stops no rollout.
    site.old.behave(Behaviour::default());
    assert_eq!(server.condition("Recorded"), None);
    assert_eq!(server.client(&["retry", "prod/backend"]).0, Some(0));
    until("it is on", || server.phase() == "Progressing").await;
    let record = site.path().join("record");
    std::fs::rename(&record, site.path().join("away")).expect("the folder is taken away");
    until("it is told", || server.condition("Recorded").is_some()).await;
    until("the rollout goes on", || server.phase() == "Succeeded").await;
    let (_, events) = server.client(&["events", "prod/backend"]);
    assert_eq!(events.matches("Recording of backend.prod fails and the rollout goes on").count(), 1, "{events}");
}
