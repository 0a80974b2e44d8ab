//! Metrics that a Prometheus has: asked by the real program, of a server that speaks Prometheus' API.
#![expect(clippy::expect_used, reason = "tests")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::routing::get;
use wingbeat_test_support::server::{Server, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_wingbeat");

/// What the Prometheus says, and what it was asked.
#[derive(Clone, Default)]
struct Prometheus {
    value: Arc<Mutex<f64>>,
    asked: Arc<Mutex<Vec<(String, String)>>>,
}

impl Prometheus {
    async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let routes = Router::new().route("/api/v1/query", get(answer)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        format!("http://{address}")
    }
}

async fn answer(
    State(prometheus): State<Prometheus>,
    Query(parameters): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> String {
    let token = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let query = parameters.get("query").cloned().unwrap_or_default();
    prometheus.asked.lock().expect("not poisoned").push((query, token.to_owned()));
    let value = *prometheus.value.lock().expect("not poisoned");
    format!(
        r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{}},"value":[1,"{value}"]}}]}}}}"#
    )
}

fn documents(address: &str, revision: &str) -> String {
    let example = format!("{}/../deploy/examples/backend.yaml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(example).expect("an example");
    let analysis = "interval: 200ms, judge: {mode: guard}, metrics: [{name: slow, thresholdRange: {max: 0.5}, \
                    templateRef: {name: latency}, templateVariables: {reporter: source}}], ";
    let template = format!(
        r#"
---
apiVersion: wingbeat.dev/v1alpha1
kind: MetricTemplate
metadata: {{name: latency, namespace: prod}}
spec:
  provider: {{type: prometheus, address: "{address}", headers: {{authorization: [Bearer hush]}}}}
  query: |
    latency{{ns="{{{{ namespace }}}}",
            workload="{{{{ target }}}}", by="{{{{ variables.reporter }}}}"}}[{{{{ interval }}}}]
"#
    );
    let text = text.replace("revision: \"1.4.0\"", &format!("revision: \"{revision}\""));
    text.replace("interval: 1s, ", analysis) + &template
}

/// A query that divides by zero. Nobody can read less for it.
#[tokio::test(flavor = "multi_thread")]
async fn a_metric_that_is_no_number_is_shown_as_such() {
    let prometheus = Prometheus { value: Arc::new(Mutex::new(0.25)), ..Prometheus::default() };
    let address = prometheus.start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("canary.yaml");
    std::fs::write(&config, documents(&address, "1.4.0")).expect("the file is written");
    let args = ["--listen-xds", "127.0.0.1:0", "--listen-http", "127.0.0.1:0", "--config"].map(PathBuf::from);
    let server = Server::start(PROGRAM, args.into_iter().chain([config.clone()]));
    until("the first revision serves", || server.phase() == "Initialized").await;
    *prometheus.value.lock().expect("not poisoned") = f64::INFINITY;
    std::fs::write(&config, documents(&address, "1.4.1")).expect("the file is written");
    let measured = || server.canary().and_then(|canary| canary.pointer("/metrics/slow").cloned());
    until("it is measured", || measured().is_some_and(|value| value == "+Inf")).await;
    until("it ends the rollout", || server.phase() == "Failed").await;
    for (args, shown) in [
        (&["get"][..], "Failed"),
        (&["describe"], "slow +Inf"),
        (&["events"], "Halt backend.prod advancement slow +Inf > 0.5"),
    ] {
        let (code, said) = server.client(args);
        assert!(code == Some(0) && said.contains(shown), "{args:?}: {said}");
    }
    let metrics = reqwest::get(format!("http://{}/metrics", server.http)).await.expect("an answer").text().await;
    let line = r#"flagger_canary_metric_analysis{name="backend",namespace="prod",metric="slow"} inf"#;
    assert!(metrics.expect("a text").contains(line));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_metric_of_a_prometheus_holds_and_fails_a_rollout() {
    let prometheus = Prometheus { value: Arc::new(Mutex::new(0.25)), ..Prometheus::default() };
    let address = prometheus.start().await;
    let folder = tempfile::tempdir().expect("a folder");
    let config = folder.path().join("canary.yaml");
    std::fs::write(&config, documents(&address, "1.4.0")).expect("the file is written");
    let args = ["--listen-xds", "127.0.0.1:0", "--listen-http", "127.0.0.1:0", "--config"].map(PathBuf::from);
    let server = Server::start(PROGRAM, args.into_iter().chain([config.clone()]));
    until("the first revision serves", || server.phase() == "Initialized").await;
    std::fs::write(&config, documents(&address, "1.4.1")).expect("the file is written");
    let events = || server.client(&["events", "prod/backend"]).1;
    until("what is good moves it on", || events().contains("Advance backend.prod canary weight 15")).await;
    *prometheus.value.lock().expect("not poisoned") = 0.907;
    until("what is bad ends it", || server.phase() == "Failed").await;
    let told = events();
    // Twice, in one event that is counted.
    let halts: Vec<&str> =
        told.lines().filter(|line| line.contains("Halt backend.prod advancement slow 0.91 > 0.5")).collect();
    assert!(matches!(halts[..], [halt] if halt.contains("(x2 up to ")), "{told}");
    assert!(told.contains("Rolling back backend.prod failed checks threshold reached 2"), "{told}");
    let (_, described) = server.client(&["describe", "prod/backend"]);
    assert!(described.contains("slow 0.907") && described.contains("metric slow"), "{described}");
    let metrics = reqwest::get(format!("http://{}/metrics", server.http)).await.expect("an answer").text().await;
    let line = r#"flagger_canary_metric_analysis{name="backend",namespace="prod",metric="slow"} 0.907"#;
    assert!(metrics.expect("a text").contains(line));
    let asked = prometheus.asked.lock().expect("not poisoned").clone();
    let query = r#"latency{ns="prod", workload="backend", by="source"}[1m]"#;
    assert!(asked.iter().all(|(asked, token)| asked == query && token == "Bearer hush"), "{asked:?}");
    assert!(!server.said().contains("hush"), "{}", server.said());
}
