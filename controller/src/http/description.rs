//! Holds `/openapi.json` against the types that are answered, and against the answers of a running server.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use tokio::net::TcpListener;
use wingbeat_api::Problem;
use wingbeat_api::desired_state::{CanaryConfig, DesiredState, Service, Targeting, Workload};
use wingbeat_api::number::Number;
use wingbeat_control::engine::Engine;
use wingbeat_control::store::Entries;
use wingbeat_control::store::memory::Memory;
use wingbeat_control::view::{
    AlphaView, ArmView, ArmsView, CanaryView, ClockView, ConditionView, EvidenceView, NodeView, PastRolloutView,
    PointView, ProxyRouteView, ProxyView, RefusalView, RolloutsView, SampleView, SeriesView, ShareView, StepView,
    VerdictView,
};
use wingbeat_core::analysis::judge::{Harm, HarmSafe};
use wingbeat_core::id::Revision;
use wingbeat_core::rollout::{Plan, PlanInput};

use super::*;
use crate::runtime::Runtime;

fn document() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

/// Checks that a value is what a schema says, and has no field that the schema does not name.
fn check(schema: &Value, value: &Value, at: &str) {
    if let Some(name) = schema.get("$ref").and_then(Value::as_str) {
        let document = document();
        let referred = document.pointer(name.strip_prefix('#').unwrap()).unwrap_or_else(|| panic!("{name}"));
        return check(referred, value, at);
    }
    if let Some(either) = schema.get("anyOf").and_then(Value::as_array) {
        let chosen = if value.is_null() { either.last() } else { either.first() };
        return check(chosen.unwrap(), value, at);
    }
    let types = schema["type"].as_array().cloned().unwrap_or_else(|| vec![schema["type"].clone()]);
    let is = match value {
        Value::Null => &["null"][..],
        Value::Bool(_) => &["boolean"],
        Value::Number(number) if number.is_u64() => &["integer", "number"],
        Value::Number(_) => &["number"],
        Value::String(_) => &["string"],
        Value::Array(_) => &["array"],
        Value::Object(_) => &["object"],
    };
    assert!(types.iter().any(|a| is.iter().any(|b| a == b)), "{at}: {value} is not {types:?}");
    if let (Some(values), false) = (schema.get("enum").and_then(Value::as_array), value.is_null()) {
        assert!(values.contains(value), "{at}: {value} is none of {values:?}");
    }
    if let Some(expected) = schema.get("const") {
        assert_eq!(value, expected, "{at}");
    }
    for (place, item) in value.as_array().into_iter().flatten().enumerate() {
        check(&schema["items"], item, &format!("{at}[{place}]"));
    }
    let Value::Object(fields) = value else { return };
    if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
        let keys = |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(keys(fields), keys(properties), "{at}: fields, and those that are described");
        let required: BTreeSet<String> = serde_json::from_value(schema["required"].clone()).unwrap();
        assert_eq!(required, keys(properties), "{at}: every field is always there");
        fields.iter().for_each(|(name, field)| check(&properties[name], field, &format!("{at}.{name}")));
    } else if let Some(each) = schema.get("additionalProperties") {
        fields.iter().for_each(|(name, field)| check(each, field, &format!("{at}.{name}")));
    }
}

fn check_named(schema: &str, value: &impl Serialize) {
    let reference = json!({"$ref": format!("#/components/schemas/{schema}")});
    check(&reference, &serde_json::to_value(value).unwrap(), schema);
}

#[test]
fn every_field_is_described() {
    let arm = ArmView {
        outcomes: BTreeMap::from([("success".into(), 1)]),
        p50_ms: Some(1.0),
        p90_ms: Some(1.0),
        p99_ms: Some(1.0),
        p50_between_ms: Some([0.5, 1.5]),
        ..ArmView::default()
    };
    let harm_safe = HarmSafe { harm: 0.5, safe: 0.5 };
    let canary = CanaryView {
        phase: "Progressing".into(),
        strategy: "canary".into(),
        mode: "guard".into(),
        canary_revision: Some("2".into()),
        arms: Some(ArmsView { primary: arm.clone(), canary: arm }),
        metrics: BTreeMap::from([
            ("lag".into(), Number::new(0.5)),
            ("no number".into(), Number::new(f64::NAN)),
            ("endless".into(), Number::new(f64::INFINITY)),
        ]),
        alpha: AlphaView {
            total: 0.5,
            shares: vec![ShareView { signal: "errors".into(), share: 0.5 }],
            outside: vec!["metric lag".into()],
        },
        verdict: Some(VerdictView { kind: "continue".into(), reason: String::new(), comparison: String::new() }),
        evidence: Some(EvidenceView {
            harm: 0.5,
            errors: harm_safe,
            latency: harm_safe,
            outcomes: Harm { harm: 0.5 },
            attempts: Harm { harm: 0.5 },
            disconnects: Harm { harm: 0.5 },
            decisive: 6.9,
            rate_ratio: [Some(0.5), None],
            eta_requests: Some(5),
        }),
        nodes: vec![NodeView { id: "edge-1".into(), rev: 1, last_report_ms: 5 }],
        conditions: vec![ConditionView {
            kind: "Promoted".into(),
            status: "True".into(),
            reason: String::new(),
            message: String::new(),
        }],
        ..CanaryView::default()
    };
    check_named("Canary", &canary);
    check_named("Summary", &SummaryView::of(&canary));
    check_named("Canary", &CanaryView { arms: None, verdict: None, evidence: None, canary_revision: None, ..canary });
    let problem =
        Problem { file: "a.yaml".into(), line: 1, column: 1, field: "spec".into(), message: "is missing".into() };
    check_named("RefusedFile", &RefusedFileView { file: "a.yaml".into(), errors: vec![problem] });
    let refusal = RefusalView { t: "T".into(), resources: "routes".into(), message: "no".into() };
    let proxy = ProxyView {
        connected_since: Some("T".into()),
        acknowledged: BTreeMap::from([("routes".into(), "T".into())]),
        refuses: BTreeMap::from([("routes".into(), BTreeSet::from(["prod/backend".into()]))]),
        last_refusal: Some(refusal),
        last_report_ms: Some(1),
        routes: vec![ProxyRouteView::default()],
        ..ProxyView::default()
    };
    check_named("Proxy", &proxy);
    check_named("Proxy", &ProxyView::default());
    let sample = SampleView { p50_ms: Some(1.0), p90_ms: Some(1.0), p99_ms: Some(1.0), ..SampleView::default() };
    let point = PointView { harm: Some(0.5), primary: sample.clone(), canary: sample, ..PointView::default() };
    let past = PastRolloutView {
        began: Some("T".into()),
        result: "promoted".into(),
        primary_revision: Some("1".into()),
        canary_revision: Some("2".into()),
        ..PastRolloutView::default()
    };
    let rollouts = RolloutsView {
        gate: Some("confirm-rollout".into()),
        steps: vec![StepView { share: "weight".into(), ..StepView::default() }],
        clock: Some(ClockView { state: "running".into(), ..ClockView::default() }),
        series: Some(SeriesView { points: vec![point, PointView::default()], ..SeriesView::default() }),
        past: vec![past],
        ..RolloutsView::default()
    };
    check_named("Rollouts", &rollouts);
    check_named("Rollouts", &RolloutsView::default());
    check_named("Command", &CommandBody { id: Some("1".into()) });
    let verbs =
        document().pointer("/paths/~1api~1v1~1canaries~1{namespace}~1{name}~1{verb}/post/parameters/2").cloned();
    assert_eq!(verbs.unwrap()["schema"]["enum"], json!(Verb::ALL.map(Verb::as_str)));
}

#[test]
fn every_route_is_described() {
    let document = document();
    let described: BTreeSet<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(described, routes().iter().map(|(path, _)| *path).collect());
}

fn desired_state() -> DesiredState {
    let name = CanaryName::new("prod", "backend");
    let plan = Plan::try_new(&PlanInput {
        name: Some(name.clone()),
        target: "backend".into(),
        step_weight: Some(10),
        ..PlanInput::default()
    });
    let revisions = BTreeMap::from([(Revision::new("1"), vec![("127.0.0.1".to_owned(), 1)])]);
    let managed = CanaryConfig {
        plan: plan.unwrap(),
        judge: wingbeat_core::analysis::judge::JudgeConfig::default(),
        workload: Workload { revision: Revision::new("1"), revisions, http2: false },
        service: Service {
            hosts: vec!["backend.local".into()],
            listeners: vec!["public".into()],
            timeout: None,
            retries: None,
            http: wingbeat_xds_server::model::http::HttpOptions::default(),
            traffic: wingbeat_xds_server::model::traffic::TrafficPolicy::default(),
        },
        audience: Targeting::Chance,
        hooks: Vec::new(),
        metric_providers: Vec::new(),
        alerts: Vec::new(),
    };
    DesiredState { canaries: BTreeMap::from([(name, managed)]), ..DesiredState::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_answered_is_what_is_described() {
    let engine = Engine::open(&Entries::default(), [1; 32]).unwrap();
    let runtime = Runtime::start(
        engine,
        Box::new(Memory::default()),
        desired_state(),
        wingbeat_xds_server::publisher::Publisher::default(),
    )
    .unwrap();
    let handle = runtime.handle().clone();
    let mut board = handle.watch();
    board.wait_for(|board| !board.canaries.is_empty()).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let hosts = Arc::new(["wingbeat.example".to_owned()]);
    let api = Api { handle, token: None, hosts, readers: Readers::default() };
    tokio::spawn(async move { serve(&listener, None, Bounds::default(), api).await });
    let client = reqwest::Client::new();
    let document = document();
    let at = |path: &str| format!("http://{address}{path}");
    let id = || Some(json!({"id": "1"}));
    let one = "/api/v1/canaries/{namespace}/{name}";
    let rollouts = "/api/v1/canaries/{namespace}/{name}/rollouts";
    let verb = "/api/v1/canaries/{namespace}/{name}/{verb}";
    for (path, asked, body, status) in [
        ("/", "/", None, 200),
        ("/page/{file}", "/page/main.js", None, 200),
        ("/page/{file}", "/page/style.css", None, 200),
        ("/page/{file}", "/page/other.js", None, 404),
        ("/healthz", "/healthz", None, 200),
        ("/readyz", "/readyz", None, 200),
        ("/metrics", "/metrics", None, 200),
        ("/openapi.json", "/openapi.json", None, 200),
        ("/api/v1/canaries", "/api/v1/canaries", None, 200),
        (one, "/api/v1/canaries/prod/backend", None, 200),
        (one, "/api/v1/canaries/prod/nobody", None, 404),
        (rollouts, "/api/v1/canaries/prod/backend/rollouts", None, 200),
        (rollouts, "/api/v1/canaries/prod/nobody/rollouts", None, 404),
        (verb, "/api/v1/canaries/prod/backend/abort", id(), 409),
        (verb, "/api/v1/canaries/prod/nobody/abort", id(), 404),
        (verb, "/api/v1/canaries/prod/backend/explode", id(), 404),
        (verb, "/api/v1/canaries/prod/backend/abort", Some(json!({})), 400),
        (verb, "/api/v1/canaries/prod/backend/abort", Some(json!({"id": "x".repeat(129)})), 400),
        (verb, "/api/v1/canaries/prod/backend/abort", Some(json!({"id": "forged\nline"})), 400),
        ("/api/v1/events", "/api/v1/events", None, 200),
        ("/api/v1/refused-files", "/api/v1/refused-files", None, 200),
        ("/api/v1/proxies", "/api/v1/proxies", None, 200),
    ] {
        let request = match body {
            Some(body) => client.post(at(asked)).json(&body),
            None => client.get(at(asked)),
        };
        let response = request.send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{asked}");
        let operation = document["paths"][path].as_object().unwrap().values().next().unwrap();
        let content = operation["responses"][status.to_string()]["content"].as_object().unwrap();
        let kind = response.headers()[header::CONTENT_TYPE].to_str().unwrap().split(';').next().unwrap().to_owned();
        let schema = &content.get(&kind).unwrap_or_else(|| panic!("{asked} is {kind}"))["schema"];
        if kind == "application/json" {
            let value: Value = response.json().await.unwrap();
            check(schema, &value, asked);
            if path == "/api/v1/events" {
                assert!(value.as_array().is_some_and(|events| !events.is_empty()), "some were checked");
            }
        }
    }
    let summaries: Vec<Value> =
        client.get(at("/api/v1/canaries?summary=true")).send().await.unwrap().json().await.unwrap();
    assert_eq!(summaries.len(), 1);
    summaries.iter().for_each(|summary| check_named("Summary", summary));

    // A browser that has the page is not sent it again, and asks each time.
    let page = client.get(at("/page/main.js")).send().await.unwrap();
    assert_eq!(page.headers()[header::CACHE_CONTROL], "no-cache");
    let had = client.get(at("/")).header(header::IF_NONE_MATCH, &page.headers()[header::ETAG]).send().await.unwrap();
    assert_eq!(had.status().as_u16(), 304);

    let foreign = client.post(at("/api/v1/canaries/prod/backend/abort")).header("origin", "http://elsewhere").send();
    let foreign = foreign.await.unwrap();
    assert_eq!(foreign.status().as_u16(), 403);
    check_named("Error", &foreign.json::<Value>().await.unwrap());

    // A name that leads here makes a page elsewhere one of the same origin.
    for (host, path, status) in [
        ("evil.example:8080", "/api/v1/canaries", 421),
        ("evil.example", "/", 421),
        ("evil.example", "/healthz", 200),
        ("wingbeat.example", "/api/v1/canaries", 200),
        ("localhost:8080", "/api/v1/canaries", 200),
    ] {
        let response = client.get(at(path)).header("host", host).send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{host} {path}");
    }
    let rebound = client.post(at("/api/v1/canaries/prod/backend/abort")).header("origin", "http://evil.example");
    let rebound = rebound.header("host", "evil.example").json(&json!({"id": "2"})).send().await.unwrap();
    assert_eq!(rebound.status().as_u16(), 421);
    check_named("Error", &rebound.json::<Value>().await.unwrap());
}
