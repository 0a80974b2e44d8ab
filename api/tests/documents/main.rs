//! What users write, and what they are told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use wingbeat_api::desired_state::{InUse, MetricProvider, Targeting};
use wingbeat_api::files::{InForce, Observation, Removal};
use wingbeat_api::query::{Origin, Query};
use wingbeat_api::{Files, Problem, Report, Set, yaml};
use wingbeat_core::analysis::judge::{Comparison, SinglePodPolicy};
use wingbeat_core::analysis::signal::{Signal, SignalMode};
use wingbeat_core::id::{CanaryName, Revision};
use wingbeat_core::matching::assignment::Identity;
use wingbeat_core::rollout::{NoData, Pace, Plan};
use wingbeat_core::time::{Span, Timestamp};
use wingbeat_core::weight::BasisPoints;
use wingbeat_xds_server::model::http::{HealthChecks, NewPath, PathRewrite, TextMatch};
use wingbeat_xds_server::model::traffic::{
    ClientAddress, Front, Http10, LocalFailures, OutlierDetection, TrafficPolicy, TrailingDot,
};
use wingbeat_xds_server::model::{AccessLog, LogFormat};

mod analysis;
mod changes;
mod files;

const BACKEND: &str = include_str!("../../../deploy/examples/backend.yaml");
const GATED: &str = include_str!("../../../deploy/examples/gated.yaml");
const INSIDERS: &str = include_str!("../../../deploy/examples/insiders.yaml");

fn read(text: &str) -> Set {
    let set = Set::of(&BTreeMap::from([("canary.yaml".to_owned(), text.to_owned())]));
    if set.report.errors.is_empty() {
        assert_valid(text);
    }
    set
}

/// What is taken is valid by the JSON schema, too: nobody's editor complains of it.
#[expect(clippy::unwrap_used, reason = "what was read is read again")]
fn assert_valid(text: &str) {
    static VALIDATOR: LazyLock<jsonschema::Validator> =
        LazyLock::new(|| jsonschema::validator_for(&wingbeat_api::shape::bundle()).unwrap());
    for document in yaml::parse(text).unwrap() {
        let document = document.to_json();
        let told: Vec<String> = VALIDATOR.iter_errors(&document).map(|error| error.to_string()).collect();
        assert_eq!(told, Vec::<String>::new(), "{document}");
    }
}

fn errors(text: &str) -> String {
    let told: Vec<String> = read(text).report.errors.iter().map(ToString::to_string).collect();
    told.join("\n")
}

/// Clusters are named after revisions, and proxies report names of up to 1 KiB.
#[test]
fn a_revision_with_a_name_that_nothing_can_carry_is_refused() {
    let long = "r".repeat(300);
    let text = format!(
        "apiVersion: wingbeat.dev/v1alpha1\nkind: Workload\nmetadata: {{name: w}}\nspec:\n  revision: \"1\"\n  revisions:\n    \"1\": {{endpoints: [\"127.0.0.1:1\"]}}\n    {long}: {{endpoints: [\"127.0.0.1:2\"]}}\n"
    );
    let told = errors(&text);
    assert!(told.contains("has 300 bytes, at most 253"), "{told}");
}

#[test]
fn the_examples_are_right() {
    let texts = [("a", BACKEND), ("b", GATED), ("c", INSIDERS)].map(|(file, text)| (file.to_owned(), text.to_owned()));
    let set = Set::of(&BTreeMap::from(texts));
    assert_eq!(set.report.errors, []);
    assert_eq!(set.report.warnings, []);
    let setup = set.desired_state(None);
    let backend = &setup.canaries[&CanaryName::new("prod", "backend")];
    assert_eq!((backend.plan.positions(), backend.plan.pace()), (11, Pace::Evidence));
    assert_eq!(backend.workload.revision, Revision::new("1.4.0"));
    let frontend = &setup.canaries[&CanaryName::new("prod", "frontend")];
    assert_eq!((frontend.plan.pace(), frontend.hooks.len(), frontend.metric_providers.len()), (Pace::Checks, 2, 3));
    assert_eq!(frontend.alerts.len(), 1);
    assert_eq!(setup.listeners.len(), 3);
    let shop = &setup.canaries[&CanaryName::new("prod", "shop")];
    assert_eq!((shop.plan.iterations(), shop.judge.comparison), (Some(10), Comparison::Randomised));
    assert!(matches!(&shop.audience, Targeting::Rules { holdback, .. } if *holdback == BasisPoints::from_percent(10)));
}

#[test]
fn what_a_metric_may_do_is_told_by_its_name() {
    let with = |analysis: &str| BACKEND.replace("stepWeight: 5}", &format!("stepWeight: 5, {analysis}}}"));
    let metrics = "metrics: [{name: request-success-rate, thresholdRange: {min: 99}}, \
        {name: request-duration, thresholdRange: {max: 500}, mode: warn}, {name: response-classes, mode: report}], \
        judge: {noData: fail, onOnePod: rollback}";
    let set = read(&with(metrics));
    assert_eq!(set.report.errors, []);
    let canary = &set.desired_state(None).canaries[&CanaryName::new("prod", "backend")];
    let judge = &canary.judge;
    assert!(judge.error_limit.is_some_and(|limit| (limit - 0.01).abs() < 1e-9));
    assert_eq!(judge.latency_limit, Some(Span::from_millis(500)));
    let modes = [Signal::ErrorLimit, Signal::Latency, Signal::LatencyLimit, Signal::Outcomes, Signal::Attempts]
        .map(|signal| judge.signal_mode(signal));
    let (judges, warns, reports) = (SignalMode::Judge, SignalMode::Warn, SignalMode::Report);
    assert_eq!(modes, [judges, warns, warns, reports, judges]);
    assert_eq!(judge.shares().of(Signal::LatencyLimit), None, "what only warns has no part of alpha");
    assert_eq!((judge.on_one_pod, canary.plan.no_data()), (SinglePodPolicy::Rollback, NoData::Fail));
    insta::assert_snapshot!(errors(&with(
        "metrics: [{name: response-classes, mode: loud, thresholdRange: {min: 1}}, {name: error-rate}], \
         judge: {noData: maybe}"
    )), @"
    canary.yaml:22:113: spec.analysis.metrics[0].mode: there is no loud, use one of judge, warn, report
    canary.yaml:22:135: spec.analysis.metrics[0].thresholdRange: response-classes has no value of its own, leave it out: the arms are compared
    canary.yaml:22:153: spec.analysis.metrics[1].name: there is no metric error-rate, use one of request-success-rate, request-duration, response-classes, request-attempts, client-disconnects, or add templateRef or query
    canary.yaml:22:183: spec.analysis.judge.noData: there is no maybe, use one of hold, fail
    ");
}

#[test]
fn who_gets_the_canary_is_told_in_one_way() {
    let with = |analysis: &str| BACKEND.replace("stepWeight: 5}", &format!("stepWeight: 5, {analysis}}}"));
    let set = read(&with("affinity: {cookie: uid}"));
    assert_eq!(set.report.errors, []);
    let canary = &set.desired_state(None).canaries[&CanaryName::new("prod", "backend")];
    assert!(matches!(&canary.audience, Targeting::Users(Identity::Cookie(name)) if name == "uid"));
    assert_eq!(canary.judge.comparison, Comparison::Affinity, "the user is the unit");
    insta::assert_snapshot!(errors(&with("affinity: {cookie: uid, header: x-user}, holdback: 10%")), @"
    canary.yaml:22:82: spec.analysis.affinity: has to name one cookie or one header, like {cookie: uid}
    canary.yaml:22:123: spec.analysis.holdback: is for A/B tests, add match or leave it out
    ");
    insta::assert_snapshot!(errors(&with("sessionAffinity: {cookieName: c}, holdback: 100%")), @"
    canary.yaml:22:89: spec.analysis.sessionAffinity: is not carried out by this server yet, use affinity or leave it out
    canary.yaml:22:116: spec.analysis.holdback: has to leave something for the canary, use a share below 100%
    ");
    let both = with("affinity: {header: X-User}, iterations: 5, match: [{headers: {a: {exact: b}}}]");
    insta::assert_snapshot!(errors(&both), @"
    canary.yaml:22:13: spec.analysis: has iterations and step weights, use iterations, stepWeight or stepWeights
    canary.yaml:22:82: spec.analysis.affinity: is for rollouts by weight, leave out match and iterations, or this
    ");
}

#[test]
fn six_mistakes_are_told_at_once_each_by_its_place() {
    let text = BACKEND
        .replace("address: 127.0.0.1", "address: localhost")
        .replace("127.0.0.1:9002", "127.0.0.1")
        .replace("listeners: [public]", "listeners: [private]")
        .replace("interval: 1s", "interval: 1 second")
        .replace("threshold: 2", "treshold: 2")
        .replace("stepWeight: 5}", "stepWeight: 500}");
    insta::assert_snapshot!(errors(&text), @r#"
    canary.yaml:5:17: spec.address: "localhost" is not an IP address, use one like 127.0.0.1
    canary.yaml:14:27: spec.revisions.1.4.1.endpoints[0]: "127.0.0.1" is not an endpoint, write host:port, like 127.0.0.1:9001
    canary.yaml:21:61: spec.service.listeners[0]: there is no Listener private, add it or name another
    canary.yaml:22:24: spec.analysis.interval: "1 second" is not a duration, write one like 500ms, 10s or 1m30s
    canary.yaml:22:34: spec.analysis.treshold: is unknown, did you mean threshold?
    canary.yaml:22:74: spec.analysis.stepWeight: 500 is not a share of traffic, use a number from 1 to 100
    "#);
}

#[test]
fn a_listener_may_have_an_access_log() {
    let with = |log: &str| BACKEND.replace("port: 10000}", &format!("port: 10000, accessLog: {log}}}"));
    let log_of = |log: &str| {
        let set = read(&with(log));
        assert_eq!(set.report.errors, []);
        set.desired_state(None).listeners[0].access_log.clone().unwrap()
    };
    assert_eq!(log_of("{path: /dev/stdout}"), AccessLog { path: "/dev/stdout".to_owned(), format: LogFormat::Default });
    assert_eq!(
        log_of("{path: /a.log, format: '%DURATION% %REQ(:PATH)% 100 %%'}").format,
        LogFormat::Text("%DURATION% %REQ(:PATH)% 100 %%".to_owned())
    );
    assert_eq!(
        log_of("{path: /a.log, format: {us: '%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%'}}").format,
        LogFormat::Json(BTreeMap::from([("us".to_owned(), "%COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)%".to_owned())]))
    );
    insta::assert_snapshot!(errors(&with("{path: access.log, format: {a: '%DURATION', b: '%DURATON%'}, json: 1}")), @r#"
    canary.yaml:5:59: spec.accessLog.path: "access.log" is not the path of a file, write it from the root, like /dev/stdout
    canary.yaml:5:83: spec.accessLog.format.a: has no operator at %DURATION, write one like %DURATION% or %REQ(USER-AGENT)%, and %% for a percent sign
    canary.yaml:5:99: spec.accessLog.format.b: has the operator %DURATON%, which Envoy 1.40 does not know, did you mean %DURATION%?
    canary.yaml:5:113: spec.accessLog.json: is unknown, the fields here are path, format
    "#);
    insta::assert_snapshot!(errors(&with("{format: {}}")), @r#"
    canary.yaml:5:52: spec.accessLog.path: is missing, name a file, like /var/log/envoy/access.log
    canary.yaml:5:61: spec.accessLog.format: has no fields, write them like {duration: "%DURATION%"}
    "#);
}

#[test]
fn what_is_wrong_between_documents_is_told_too() {
    let second = r"
---
apiVersion: wingbeat.dev/v1alpha1
kind: Canary
metadata: {name: other, namespace: prod}
spec:
  targetRef: {apiVersion: wingbeat.dev/v1alpha1, kind: Workload, name: backend}
  service: {port: 1, hosts: [backend.local], listeners: [public, missing]}
  analysis: {interval: 1s, stepWeight: 5, alerts: [{name: a, providerRef: {name: nobody}}]}
---
apiVersion: wingbeat.dev/v1alpha1
kind: Listener
metadata: {name: again}
spec: {address: 127.0.0.1, port: 10000}
---
apiVersion: wingbeat.dev/v1alpha1
kind: Listener
metadata: {name: public}
spec: {address: 127.0.0.1, port: 10002}
";
    insta::assert_snapshot!(errors(&format!("{BACKEND}{second}")), @"
    canary.yaml:29:14: spec.targetRef.name: backend.prod has the same target, give each canary its own
    canary.yaml:30:30: spec.service.hosts[0]: backend.prod answers to backend.local on public already, use another host
    canary.yaml:30:66: spec.service.listeners[1]: there is no Listener missing, add it or name another
    canary.yaml:31:82: spec.analysis.alerts[0].providerRef.name: there is no AlertProvider nobody, add it or name another
    canary.yaml:38:1: metadata.name: is also in canary.yaml:2, give each its own name
    ");
}

/// What Envoy would refuse for all canaries of the listener, or take and never match.
#[test]
fn hosts_that_envoy_does_not_take_are_told() {
    let with = |hosts: &str| BACKEND.replace("hosts: [backend.local]", &format!("hosts: {hosts}"));
    for hosts in ["[Backend.Local, \"*.local\", \"backend.*\", \"[::1]\", 10.0.0.1]", "[\"*\"]"] {
        assert_eq!(errors(&with(hosts)), "", "{hosts}");
    }
    for (hosts, told) in [
        ("[]", "spec.service.hosts: is empty"),
        ("[a.local, A.LOCAL]", "spec.service.hosts[1]: A.LOCAL is there twice (upper and lower case are the same)"),
        ("[\"*\", \"*\"]", "spec.service.hosts[1]: * is there twice"),
        ("[\"a.local:8080\"]", "spec.service.hosts[0]: \"a.local:8080\" has a port, leave it out"),
        ("[\"a b\"]", "spec.service.hosts[0]: \"a b\" has blanks"),
        ("[\"\"]", "spec.service.hosts[0]: \"\" is empty"),
        ("[\"a.*.b\"]", "spec.service.hosts[0]: \"a.*.b\" has * in its middle"),
    ] {
        let found = errors(&with(hosts));
        assert!(found.lines().count() == 1 && found.contains(told), "{hosts}: {found}");
    }
    let twin = r#"
---
apiVersion: wingbeat.dev/v1alpha1
kind: Canary
metadata: {name: twin, namespace: prod}
spec:
  targetRef: {apiVersion: wingbeat.dev/v1alpha1, kind: Workload, name: twin}
  service: {hosts: [other.local, BACKEND.local], listeners: [public]}
  analysis: {interval: 1s, stepWeight: 5}
---
apiVersion: wingbeat.dev/v1alpha1
kind: Workload
metadata: {name: twin, namespace: prod}
spec: {revision: a, revisions: {a: {endpoints: ["127.0.0.1:1"]}}}
"#;
    let found = errors(&format!("{BACKEND}{twin}"));
    let told = "spec.service.hosts[1]: backend.prod answers to BACKEND.local on public already, use another host";
    assert!(found.lines().count() == 1 && found.contains(told), "{found}");
}

#[test]
fn nothing_that_is_wrong_passes_in_silence() {
    let text = BACKEND
        .replace("[\"127.0.0.1:9001\"]", "[]")
        .replace("127.0.0.1:9002", "127.0.0.1:99999")
        .replace(
            "metadata: {name: backend, namespace: prod}\nspec:\n  targetRef",
            "metadata: {name: Back End}\nspec:\n  targetRef",
        )
        .replace("port: 9898", "port: 0, timeout: 9999999h, retries: {attempts: 101, retryOn: \"5xx\\n\"}")
        .replace("listeners: [public]", "listeners: []")
        .replace(
            "maxWeight: 50, stepWeight: 5}",
            "maxWeight: 5, stepWeight: 50, match: [{}], metrics: [{name: \
            request-success-rate, thresholdRange: {min: 99, max: 1}}, {name: request-duration, thresholdRange: {}}]}",
        );
    let found = errors(&text);
    for told in [
        "spec.revisions.1.4.0.endpoints: is empty, list them like",
        "spec.revisions.1.4.1.endpoints[0]: 99999 is not a port, use one from 1 to 65535",
        "metadata.name: \"Back End\" is not a name",
        "spec.service.port: 0 is out of range, use a number from 1 to 65535",
        "spec.service.timeout: is longer than a year",
        "spec.service.retries.attempts: 101 is out of range",
        "spec.service.retries.retryOn: \"5xx\\n\" is no list of conditions",
        "spec.service.listeners: is empty",
        "spec.analysis.stepWeight: 50 is beyond maxWeight 5",
        "spec.analysis.match[0]: tests nothing",
        "spec.analysis.metrics[0].thresholdRange: has min 99 above max 1",
        "spec.analysis.metrics[1].thresholdRange: has neither min nor max",
    ] {
        assert!(found.contains(told), "{told} is not in\n{found}");
    }
}

/// As it stands in the guide, for Flagger in a mesh.
const GUIDE: &str = r#"
apiVersion: flagger.app/v1alpha3
kind: Canary
metadata: {name: backend, namespace: prod}
spec:
  provider: istio
  targetRef: {apiVersion: apps/v1, kind: Deployment, name: backend}
  progressDeadlineSeconds: 60
  autoscalerRef: {apiVersion: autoscaling/v2beta1, kind: HorizontalPodAutoscaler, name: backend}
  service:
    port: 9898
    gateways: [public-gateway.istio-system.svc.cluster.local]
    hosts: ["*"]
    headers: {request: {add: {x-envoy-upstream-rq-timeout-ms: "15000"}}}
    trafficPolicy: {tls: {mode: DISABLE}}
  canaryAnalysis:
    interval: 10s
    threshold: 10
    iterations: 10
    match:
      - {headers: {cookie: {regex: "^(.*?;)?(type=insider)(;.*)?$"}}}
    metrics:
      - {name: request-success-rate, threshold: 99, interval: 1m}
      - {name: request-duration, threshold: 500, interval: 30s}
    webhooks:
      - {name: load-test, url: "http://flagger-loadtester.prod/", timeout: 5s, metadata: {cmd: "hey -z 1m"}}
    surprise: 1
"#;

/// Whoever looks at documents of Flagger's is told what this server would not carry out; whoever serves them is
/// refused.
#[test]
fn flaggers_documents_can_be_looked_at() {
    let texts = |text: String| BTreeMap::from([("canary.yaml".to_owned(), text)]);
    let later = GUIDE.replace("v1alpha3", "v1beta1").replace("canaryAnalysis", "analysis");
    for text in [GUIDE.to_owned(), later] {
        let set = Set::lint(&texts(text.clone()));
        assert_eq!(set.report.errors, []);
        let warnings: Vec<String> = set.report.warnings.iter().map(ToString::to_string).collect();
        let warnings = warnings.join("\n");
        for told in ["spec.provider: istio", "Deployment is not what", "spec.service.gateways", ".surprise: is unknown"]
        {
            assert!(warnings.contains(told), "{told} is not in\n{warnings}");
        }
        let (_, canary) = set.canaries().next().expect("one");
        assert_eq!((canary.plan.iterations(), canary.plan.pace()), (Some(10), Pace::Checks));
        assert!(matches!(&canary.audience, Targeting::Rules { rules, .. } if !rules.is_empty()));
        let served = errors(&text);
        assert!(served.contains("spec.service.listeners: is missing") && served.contains("use Workload"), "{served}");
    }
    let wrong = Set::lint(&texts(GUIDE.replace("threshold: 10", "threshold: -1").replace("\"*\"", "\"a b\"")));
    assert_eq!(wrong.report.errors.len(), 2, "{:?}", wrong.report.errors);
}

/// What two files say is right in each and wrong together: the one that changed is refused, and no other.
#[test]
fn a_file_that_clashes_with_another_one_holds_no_third_one_back() {
    let canary = |name: &str, host: &str, revision: &str| {
        format!(
            "apiVersion: wingbeat.dev/v1alpha1\nkind: Canary\nmetadata: {{name: {name}}}\nspec:\n  targetRef: {{kind: \
             Workload, name: {name}}}\n  service: {{hosts: [{host}], listeners: [public]}}\n  analysis: {{stepWeight: \
             5}}\n---\napiVersion: wingbeat.dev/v1alpha1\nkind: Workload\nmetadata: {{name: {name}}}\nspec: {{revision: \
             {revision}, revisions: {{r1: {{endpoints: [\"127.0.0.1:1\"]}}, r2: {{endpoints: [\"127.0.0.1:2\"]}}}}}}\n"
        )
    };
    let listener = "apiVersion: wingbeat.dev/v1alpha1\nkind: Listener\nmetadata: {name: public}\nspec: {address: \
                    127.0.0.1, port: 10000}\n";
    let texts = |a: String, b: String, c: String| {
        BTreeMap::from([
            ("a".to_owned(), a),
            ("b".to_owned(), b),
            ("c".to_owned(), c),
            ("l".to_owned(), listener.to_owned()),
        ])
    };
    let of = |set: &Set, name: &str| {
        let setup = set.desired_state(None);
        let managed = &setup.canaries[&CanaryName::new("default", name)];
        (managed.service.hosts.join(","), managed.workload.revision.to_string())
    };
    let pair = |host: &str, revision: &str| (host.to_owned(), revision.to_owned());
    let mut files = Files::default();
    let first = texts(canary("a", "a.local", "r1"), canary("b", "b.local", "r1"), canary("c", "c.local", "r1"));
    assert_eq!(update(&mut files, &first).1.errors, []);
    // b takes the host of a; the error is told of b. And a takes that of b; it is told of b, too, which did not change.
    for (a, b, blamed) in [("a.local", "A.local", "b"), ("b.local", "b.local", "a")] {
        let mut files = files.clone();
        let texts = texts(canary("a", a, "r1"), canary("b", b, "r1"), canary("c", "c.local", "r2"));
        let (set, report) = update(&mut files, &texts);
        assert_eq!(report.errors.len(), 1, "{report:?}");
        assert_eq!(of(&set, "c"), pair("c.local", "r2"), "{blamed} is refused, c is not");
        assert_eq!((of(&set, "a"), of(&set, "b")), (pair("a.local", "r1"), pair("b.local", "r1")));
    }
}

#[test]
fn what_is_no_yaml_is_told_by_its_place() {
    let first = |text: &str| read(text).report.errors.first().map(ToString::to_string).unwrap_or_default();
    assert_eq!(
        first("apiVersion: wingbeat.dev/v1alpha1\nkind: [Canary\n"),
        "canary.yaml:3:1: this is no YAML that can be read: while parsing a flow sequence, expected ',' or ']'"
    );
    assert_eq!(first("just text"), "canary.yaml:1:1: is not a mapping, write its fields below it");
    assert_eq!(
        first("apiVersion: wingbeat.dev/v1\nkind: Canary\nmetadata: {name: a}\nspec: {}\n"),
        "canary.yaml:1:13: apiVersion: there is no wingbeat.dev/v1, use wingbeat.dev/v1alpha1"
    );
}

#[test]
fn a_listener_is_a_front_proxy_unless_it_says_otherwise() {
    let front = |more: &str| {
        let set = read(&BACKEND.replace("port: 10000}", &format!("port: 10000{more}}}")));
        assert_eq!(set.report.errors, []);
        set.desired_state(None).listeners[0].front.clone()
    };
    assert_eq!(front(""), Front::default());
    let other = Front {
        address: ClientAddress::Header { trusted_hops: 2 },
        http_10: Http10::Refused,
        trailing_dot: TrailingDot::Kept,
        stream_idle_timeout: Some(Span::from_secs(60)),
    };
    let fields = ", useRemoteAddress: false, xffNumTrustedHops: 2, acceptHttp10: false, stripTrailingHostDot: false, \
                  streamIdleTimeout: 1m";
    assert_eq!(front(fields), other);
    let wrong = errors(&BACKEND.replace("port: 10000}", "port: 10000, xffNumTrustedHops: 101, acceptHttp10: 1}"));
    assert!(wrong.contains("xffNumTrustedHops: 101 is out of range") && wrong.contains("acceptHttp10"), "{wrong}");
}

#[test]
fn a_service_may_have_a_traffic_policy() {
    let with = |policy: &str| {
        let text = BACKEND.replace("listeners: [public]", &format!("listeners: [public], trafficPolicy: {policy}"));
        assert_ne!(text, BACKEND);
        text
    };
    let traffic = |policy: &str| {
        let set = read(&with(policy));
        assert_eq!(set.report.errors, []);
        let setup = set.desired_state(None);
        setup.canaries[&CanaryName::new("prod", "backend")].service.traffic.clone()
    };
    assert_eq!(traffic("{}"), TrafficPolicy::default());
    let policy = "{connectionPool: {tcp: {maxConnections: 1, connectTimeout: 2s}, http: {http1MaxPendingRequests: 3, \
                  http2MaxRequests: 0, maxRetries: 5, maxRequestsPerConnection: 6, idleTimeout: 7s}}, \
                  outlierDetection: {consecutiveGatewayErrors: 2, maxEjectionPercent: 30}}";
    let expected = TrafficPolicy {
        max_connections: Some(1),
        max_pending_requests: Some(3),
        max_requests: None,
        max_retries: Some(5),
        max_requests_per_connection: Some(6),
        connect_timeout: Some(Span::from_secs(2)),
        idle_timeout: Some(Span::from_secs(7)),
        outliers: OutlierDetection {
            consecutive_5xx: 5,
            consecutive_gateway: 2,
            local: LocalFailures::AsResponses,
            max_ejection_percent: 30,
            min_health_percent: Some(0),
            ..OutlierDetection::default()
        },
    };
    assert_eq!(traffic(policy), expected);
    let wrong = errors(&with(
        "{connectionPool: {tcp: {maxConnections: -1, connectTimeout: 0s}}, outlierDetection: {consecutive5xxError: 1}}",
    ));
    for told in
        ["maxConnections: -1 is out of range", "connectTimeout: is no time", "did you mean consecutive5xxErrors?"]
    {
        assert!(wrong.contains(told), "{told} is not in\n{wrong}");
    }
}

#[test]
fn flaggers_documents_are_taken_with_warnings() {
    let guide = r#"
apiVersion: flagger.app/v1alpha3
kind: Canary
metadata: {name: backend, namespace: prod}
spec:
  targetRef: {apiVersion: wingbeat.dev/v1alpha1, kind: Workload, name: backend}
  progressDeadlineSeconds: 60
  autoscalerRef: {apiVersion: autoscaling/v2beta1, kind: HorizontalPodAutoscaler, name: backend}
  service: {port: 9898, hosts: [backend.local], listeners: [public], trafficPolicy: {tls: {mode: DISABLE}}}
  canaryAnalysis:
    interval: 10s
    threshold: 10
    maxWeight: 50
    stepWeight: 5
    metrics:
    - {name: request-success-rate, threshold: 99, interval: 1m}
    - {name: request-duration, threshold: 500, interval: 30s}
    webhooks:
    - {name: load-test, url: "http://127.0.0.1:8090/", timeout: 5s, metadata: {cmd: "true"}}
"#;
    let (around, _) = BACKEND.rsplit_once("---").expect("three documents");
    let set = read(&format!("{around}---{guide}"));
    assert_eq!(set.report.errors, []);
    let fields: Vec<&str> = set.report.warnings.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, ["spec.autoscalerRef", "spec.service.trafficPolicy.tls"]);
    let setup = set.desired_state(None);
    let backend = &setup.canaries[&CanaryName::new("prod", "backend")];
    assert_eq!((backend.plan.pace(), backend.plan.threshold()), (Pace::Checks, 10));
    let bounds = backend.metric_providers.iter().map(|measure| match measure {
        MetricProvider::Filters(check) => (check.range.min, check.range.max),
        MetricProvider::Prometheus(query) => panic!("{query:?}"),
    });
    assert_eq!(bounds.collect::<Vec<_>>(), [(Some(99.0), None), (None, Some(500.0))]);
}

#[test]
fn a_revision_that_serves_is_not_removed() {
    let mut files = Files::default();
    let in_use = InUse { bound: [Revision::new("1.4.0")].into(), on_trial: None };
    let serving = BTreeMap::from([(CanaryName::new("prod", "backend"), in_use)]);
    let text = BACKEND.replace("revision: \"1.4.0\"", "revision: \"1.4.1\"");
    let without = text.replace("    \"1.4.0\": {endpoints: [\"127.0.0.1:9001\"]}\n", "");
    let of = |text: &str| BTreeMap::from([("a".to_owned(), text.to_owned())]);
    assert_eq!(update_in_use(&mut files, &of(&text), &serving).1.errors, []);
    let (set, report) = update_in_use(&mut files, &of(&without), &serving);
    assert!(report.errors[0].message.contains("1.4.0 serves backend.prod"), "{report:?}");
    assert_eq!(set.desired_state(None).canaries.len(), 1);
}

/// A canary that becomes the primary stays; one under judgement goes with the change that ends its rollout (A11).
#[test]
fn a_canary_in_use_is_not_removed() {
    let canary = Revision::new("1.4.1");
    let of = |in_use: &InUse, text: &str| {
        let in_use = BTreeMap::from([(CanaryName::new("prod", "backend"), in_use.clone())]);
        let mut files = Files::default();
        let texts = BTreeMap::from([("a".to_owned(), text.to_owned())]);
        let told = update_in_use(&mut files, &texts, &in_use).1.errors;
        told.into_iter().map(|problem| problem.message).collect::<Vec<_>>().join("\n")
    };
    // The change is taken back, and its revision with it.
    let without = BACKEND.replace("    \"1.4.1\": {endpoints: [\"127.0.0.1:9002\"]}\n", "");
    let suspended = without.replace("  targetRef", "  suspend: true\n  targetRef");
    let judged = InUse { bound: [Revision::new("1.4.0")].into(), on_trial: Some(canary.clone()) };
    assert_eq!(of(&judged, &without), "");
    assert!(of(&judged, &suspended).contains("1.4.1 is the canary of backend.prod, which is suspended, and is gone"));
    let promoted = InUse { bound: [Revision::new("1.4.0"), canary].into(), on_trial: None };
    assert!(of(&promoted, &without).contains("1.4.1 serves backend.prod and is gone"));
}

fn update(files: &mut Files, texts: &BTreeMap<String, String>) -> (Set, Report) {
    update_in_use(files, texts, &BTreeMap::new())
}

fn update_in_use(
    files: &mut Files,
    texts: &BTreeMap<String, String>,
    in_use: &BTreeMap<CanaryName, InUse>,
) -> (Set, Report) {
    let InForce { set, report, .. } = files.update(Observation { in_use, ..seen(texts) });
    (set, report)
}

fn seen(texts: &BTreeMap<String, String>) -> Observation<'_> {
    static NOBODY: BTreeMap<CanaryName, InUse> = BTreeMap::new();
    static NOTHING: BTreeMap<String, String> = BTreeMap::new();
    let (absence, now) = (Removal::Deferred, Timestamp::EPOCH);
    Observation { texts, in_use: &NOBODY, unresolved: &NOTHING, absence, now }
}

#[test]
fn a_file_that_breaks_keeps_what_it_said_before() {
    let mut files = Files::default();
    let text =
        |backend: &str| BTreeMap::from([("a".to_owned(), backend.to_owned()), ("b".to_owned(), GATED.to_owned())]);
    let (set, report) = update(&mut files, &text(BACKEND));
    assert_eq!((set.desired_state(None).canaries.len(), report.errors.len()), (2, 0));
    let (set, report) = update(&mut files, &text("kind: [\n"));
    assert_eq!((set.desired_state(None).canaries.len(), report.errors.len()), (2, 1));
    // Right alone, wrong together with another file.
    let (set, report) = update(&mut files, &text(&BACKEND.replace("name: public", "name: elsewhere")));
    assert_eq!(set.desired_state(None).canaries.len(), 2);
    assert_eq!(report.errors[0].field, "spec.service.listeners[0]");
    let (set, report) = update(&mut files, &text(&BACKEND.replace("revision: \"1.4.0\"", "revision: \"1.4.1\"")));
    assert_eq!(report.errors, []);
    let setup = set.desired_state(None);
    assert_eq!(setup.canaries[&CanaryName::new("prod", "backend")].workload.revision, Revision::new("1.4.1"));
}

#[test]
fn a_name_without_an_address_is_told_by_its_place() {
    let mut files = Files::default();
    let of = |text: &str| BTreeMap::from([("a".to_owned(), text.to_owned())]);
    let named = of(&BACKEND.replace("127.0.0.1:9002", "nowhere.invalid:9002"));
    assert_eq!(update(&mut files, &of(BACKEND)).1.errors, []);
    assert_eq!(Set::of(&named).host_names().into_iter().collect::<Vec<_>>(), ["nowhere.invalid"]);
    let unresolved = BTreeMap::from([("nowhere.invalid".to_owned(), "unknown".to_owned())]);
    let InForce { set, report, .. } = files.update(Observation { unresolved: &unresolved, ..seen(&named) });
    assert_eq!(
        report.errors.first().map(ToString::to_string).unwrap_or_default(),
        "a:14:27: spec.revisions.1.4.1.endpoints[0]: nowhere.invalid does not resolve (unknown), use an address, or a \
         name that this machine resolves too"
    );
    assert_eq!(set.host_names().len(), 0, "what was good goes on");
    let (set, report) = update(&mut files, &named);
    assert_eq!((set.host_names().len(), report.errors), (1, Vec::new()));
}
