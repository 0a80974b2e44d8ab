//! A revision whose Pods do not become ready, in a real Kubernetes: it fails at its deadline, and people are told why.
#![expect(clippy::expect_used, reason = "tests")]

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::Instant;
use wingbeat_e2e::gateway::Gateway;

/// What the Canary says.
const DEADLINE: Duration = Duration::from_mins(1);
/// How much later it may have failed, on a busy machine.
const LATE: Duration = Duration::from_secs(10);
/// Somebody scales the target as often as this.
const SCALED: Duration = Duration::from_secs(10);

/// Returns header and body of a request that is posted to a channel.
async fn posted(slack: &TcpListener) -> (String, Value) {
    let (mut stream, _) = slack.accept().await.expect("somebody comes");
    let (mut heard, mut bytes) = (Vec::new(), [0; 4_096]);
    loop {
        let read = stream.read(&mut bytes).await.expect("it is sent");
        heard.extend_from_slice(bytes.get(..read).expect("what was read"));
        let text = String::from_utf8_lossy(&heard);
        if let Some((header, body)) = text.split_once("\r\n\r\n")
            && let Ok(body) = serde_json::from_str(body)
        {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.expect("it is answered");
            return (header.to_owned(), body);
        }
        assert_ne!(read, 0, "it ended: {text}");
    }
}

#[tokio::test]
async fn real_kubernetes_an_image_that_cannot_be_pulled_fails_and_says_why() {
    let test = "real_kubernetes_an_image_that_cannot_be_pulled_fails_and_says_why";
    let Some(gateway) = Gateway::start(test).await else { return };
    let slack = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = format!("--from-literal=address=http://{}/hook", slack.local_addr().expect("an address"));
    gateway.kubectl(&["create", "secret", "generic", "slack", &address, "--from-literal=token=s3cr3t"]).await;
    let provider = json!({
        "apiVersion": "wingbeat.dev/v1alpha1", "kind": "AlertProvider",
        "metadata": {"name": "on-call", "namespace": gateway.namespace()},
        "spec": {"type": "slack", "channel": "on-call", "secretRef": {"name": "slack"}},
    });
    gateway.apply(&provider.to_string()).await;
    let alerts = json!([{"name": "on-call", "severity": "error", "providerRef": {"name": "on-call"}}]);
    let spec = json!({"progressDeadlineSeconds": DEADLINE.as_secs(), "analysis": {"alerts": alerts}});
    let patch = json!({"spec": spec}).to_string();
    gateway.kubectl(&["patch", "canaries.wingbeat.dev/backend", "--type=merge", "--patch", &patch]).await;
    let generation = gateway.words("canaries.wingbeat.dev/backend", "{.metadata.generation}").await;
    let observed = "{.status.observedGeneration}";
    gateway.until("it is taken", "canaries.wingbeat.dev/backend", observed, &generation[0]).await;
    let users = gateway.users();
    let before = gateway.audit();
    gateway.kubectl(&["set", "image", "deployment/backend", "web=wingbeat.test/never-there:1"]).await;
    let asked = Instant::now();
    // As a scaler that cannot make up its mind: that is no progress.
    let scaling = async {
        let mut due = tokio::time::interval_at(Instant::now() + SCALED, SCALED);
        for replicas in [3, 2].into_iter().cycle() {
            due.tick().await;
            let replicas = format!("--replicas={replicas}");
            gateway.kubectl(&["scale", "deployment/backend", &replicas]).await;
        }
    };
    let (header, body) = tokio::select! {
        posted = tokio::time::timeout(DEADLINE + LATE, posted(&slack)) => posted.expect("somebody is told in time"),
        () = scaling => unreachable!("it goes on"),
    };
    let took = asked.elapsed();
    gateway.until_phase("Failed", LATE).await;
    println!("a revision that cannot be pulled, with a deadline of {DEADLINE:?}: failed after {took:?}");
    assert!(took >= DEADLINE, "{took:?}");
    assert!(header.contains("authorization: Bearer s3cr3t"), "{header}");
    let text = body["attachments"][0]["text"].as_str().unwrap_or_default();
    // kubelet says the one while it tries, and the other while it waits.
    let is_why = ["ErrImagePull", "ImagePullBackOff"].iter().any(|why| text.contains(why));
    assert!(is_why && text.starts_with("Progress deadline exceeded"), "{body}");
    assert_eq!((&body["channel"], &body["attachments"][0]["color"]), (&json!("on-call"), &json!("danger")));
    let reads = gateway.audit().since(&before);
    let lists =
        reads.calls().iter().filter(|(call, _)| call.resource == "pods" && call.user_agent.starts_with("wingbeat/"));
    let lists: u64 = lists.map(|(_, count)| count).sum();
    assert!((1..=5).contains(&lists), "Pods were listed {lists} times");
    gateway.assert_allowed();
    let tally = users.stop(Duration::from_secs(5)).await;
    assert_eq!(tally.failed, [], "of {}\n{}", tally.finished, gateway.said());
    assert!(!gateway.said().contains("s3cr3t"), "{}", gateway.said());
}
