//! What metrics, services and the analysis say.

use super::*;

/// The metrics that rounds look at.
fn looked_at(plan: &Plan) -> Vec<&str> {
    plan.metrics().map(|(_, metric)| metric.name.as_str()).collect()
}

/// A MetricTemplate, and BACKEND with these metrics.
fn measured(mode: &str, metrics: &str) -> String {
    let analysis = format!("stepWeight: 5, judge: {{mode: {mode}}}, metrics: [{metrics}]}}");
    let template = r"
---
apiVersion: wingbeat.dev/v1alpha1
kind: MetricTemplate
metadata: {name: latency, namespace: metrics}
spec:
  provider: {type: prometheus, address: 'http://127.0.0.1:9090/prom/', headers: {Authorization: [Bearer hush]}}
  query: |
    histogram_quantile(0.99,
      sum(rate(seconds_bucket{ns='{{ namespace }}', reporter='{{ variables.reporter }}'}[{{ interval }}])) by (le))
";
    BACKEND.replace("stepWeight: 5}", &analysis) + template
}

const LATENCY: &str = "{name: slow, templateRef: {name: latency, namespace: metrics}, templateVariables: {reporter: \
                       source}, interval: 90s, thresholdRange: {max: 0.5}}";

#[test]
fn metrics_of_others_are_asked_for_with_their_variables_filled_in() {
    let inline = "{name: lag, query: 'lag{w=\"{{ target }}-primary\"}', thresholdRange: {min: 1}}";
    let metrics = format!("{LATENCY}, {inline}, {{name: request-success-rate, thresholdRange: {{min: 99}}}}");
    let server = "metricsServer: 'http://127.0.0.1:9091'\n  service: {port: 9898";
    let with_server = |mode: &str| measured(mode, &metrics).replace("service: {port: 9898", server);
    let queries = |mode: &str| {
        let set = read(&with_server(mode));
        assert_eq!(set.report, Report::default());
        let setup = set.desired_state(None);
        setup.canaries[&CanaryName::new("prod", "backend")].clone()
    };
    let backend = queries("guard");
    // Flagger's order: templates come last.
    assert_eq!(looked_at(&backend.plan), ["lag", "request-success-rate", "slow"]);
    let [MetricProvider::Prometheus(lag), MetricProvider::Filters(_), MetricProvider::Prometheus(slow)] =
        backend.metric_providers.as_slice()
    else {
        panic!("{:?}", backend.metric_providers)
    };
    let shown = |query: &Query| (query.origin, query.address.to_string(), query.query.clone(), query.range.min);
    assert_eq!(
        shown(lag),
        (Origin::Inline, "http://127.0.0.1:9091/".into(), "lag{w=\"backend-primary\"}".into(), Some(1.0))
    );
    let expected = "histogram_quantile(0.99, sum(rate(seconds_bucket{ns='prod', reporter='source'}[1m30s])) by (le))";
    assert_eq!(shown(slow), (Origin::Template, "http://127.0.0.1:9090/prom/".into(), expected.into(), None));
    assert!(!format!("{:?}", backend.metric_providers).contains("hush"), "headers may be secret");
    // Where evidence decides, the judge has the filters' metrics, and only the others are asked for.
    let backend = queries("sequential");
    assert_eq!(looked_at(&backend.plan), ["lag", "slow"]);
    assert!(backend.judge.error_limit.is_some_and(|limit| (limit - 0.01).abs() < 1e-9));
}

#[test]
fn metrics_that_nobody_can_be_asked_for_are_told() {
    let metrics = "{name: a, query: up, thresholdRange: {max: 1}}, {name: b}, \
                   {name: c, templateRef: {name: latency, namespace: metrics}}, \
                   {name: d, templateRef: {name: latency}, thresholdRange: {max: 1}}, \
                   {name: e, query: '{{ if x }}up{{ end }}', thresholdRange: {max: 1}}";
    let text = measured("guard", metrics)
        .replace("type: prometheus", "type: datadog, secretRef: {name: keys}, insecureSkipVerify: true")
        .replace("'http://127.0.0.1:9090/prom/'", "localhost:9090");
    insta::assert_snapshot!(errors(&text), @r"
    canary.yaml:22:121: spec.analysis.metrics[0].query: has nobody to be asked, set spec.metricsServer to the address of a Prometheus, or use templateRef
    canary.yaml:22:159: spec.analysis.metrics[1].name: there is no metric b, use one of request-success-rate, request-duration, response-classes, request-attempts, client-disconnects, or add templateRef or query
    canary.yaml:22:163: spec.analysis.metrics[2].templateRef: names MetricTemplate latency.metrics, which asks datadog: this server asks a prometheus only, and has a secretRef: this server has no Secrets of Kubernetes, use headers, and has insecureSkipVerify: certificates are always checked, use http or a trusted one
    canary.yaml:22:163: spec.analysis.metrics[2].templateVariables: lacks reporter, which MetricTemplate latency.metrics needs, add it
    canary.yaml:22:163: spec.analysis.metrics[2].thresholdRange: is missing, say what is good, like {max: 500}
    canary.yaml:22:254: spec.analysis.metrics[3].templateRef.name: there is no MetricTemplate latency, add it or name another
    canary.yaml:22:308: spec.analysis.metrics[4].query: holds {{ end }}, of Go's templates only {{ name }}, namespace, target, service, ingress, route, interval and variables.KEY are carried out
    canary.yaml:22:308: spec.analysis.metrics[4].query: holds {{ if x }}, of Go's templates only {{ name }}, namespace, target, service, ingress, route, interval and variables.KEY are carried out
    canary.yaml:29:89: spec.provider.address: is not a URL of http or https, write one like http://127.0.0.1:9090
    ");
    // A template that is right, and a variable that is missing.
    insta::assert_snapshot!(errors(&measured("guard", &LATENCY.replace("reporter: source", "other: x"))), @"canary.yaml:22:104: spec.analysis.metrics[0].templateVariables: lacks reporter, which MetricTemplate latency.metrics needs, add it");
}

#[test]
fn flaggers_metric_without_a_range_fails_above_nothing() {
    let canary = measured(
        "guard",
        "{name: a, templateRef: {name: latency, namespace: metrics}, templateVariables: {reporter: x}}",
    );
    let mut documents = canary.split("---");
    let before: Vec<&str> = documents.by_ref().take(2).collect();
    let [canary, template] = documents.collect::<Vec<_>>()[..] else { panic!("four documents") };
    let canary = canary.replace("wingbeat.dev/v1alpha1\nkind", "flagger.app/v1beta1\nkind");
    let set = read(&[before[0], before[1], &canary, template].join("---"));
    assert_eq!(set.report.errors, []);
    let warned: Vec<&str> = set.report.warnings.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(warned, ["is missing: as with Flagger, everything above 0 fails"]);
}

fn service(fields: &str) -> String {
    BACKEND.replace("listeners: [public]}", &format!("listeners: [public], {fields}}}"))
}

#[test]
fn what_a_service_changes_is_read() {
    let http = |fields: &str| {
        let set = read(&service(fields));
        assert_eq!(set.report.errors, [], "{fields}");
        let told: Vec<String> = set.report.warnings.iter().map(|warning| warning.message.clone()).collect();
        (set.desired_state(None).canaries[&CanaryName::new("prod", "backend")].service.http.clone(), told)
    };
    let replaced =
        |path: TextMatch, to: &str| PathRewrite { path, ignore_case: false, to: NewPath::Replaced(to.to_owned()) };
    let (options, told) = http("rewrite: {uri: /v2/, authority: inside}");
    assert_eq!(options.rewrites, [replaced(TextMatch::Prefix("/".to_owned()), "/v2/")]);
    assert_eq!((options.authority.as_deref(), told.len()), (Some("inside"), 0));
    let (options, told) = http("rewrite: {uri: /v2}");
    assert_eq!(options.rewrites.len(), 1);
    assert_eq!(told, ["makes /v2x of /x, since only / is replaced: end it with / too"]);
    let (options, _) =
        http("match: [{uri: {prefix: /a/}}, {uri: {regex: '/b/[0-9]+'}}, {uri: {exact: /c}}], rewrite: {uri: /}");
    let paths: Vec<TextMatch> = options.rewrites.into_iter().map(|rewrite| rewrite.path).collect();
    let text = str::to_owned;
    assert_eq!(
        paths,
        [TextMatch::Prefix(text("/a/")), TextMatch::Regex(text("/b/[0-9]+")), TextMatch::Exact(text("/c"))]
    );
    let (options, _) =
        http("headers: {request: {set: {X-A: '1', Host: other}, add: {x-b: '%REQ(:PATH)%'}, remove: [X-C]}}");
    assert_eq!(options.request.set, BTreeMap::from([(text("x-a"), text("1"))]));
    assert_eq!((options.authority, options.request.remove), (Some(text("other")), vec![text("x-c")]));
    let (options, _) = http("corsPolicy: {allowOrigin: ['*'], allowOrigins: [{prefix: 'https://a.'}], maxAge: 24h}");
    let cors = options.cors.unwrap();
    assert_eq!(cors.origins, [TextMatch::Exact(text("*")), TextMatch::Prefix(text("https://a."))]);
    assert_eq!((cors.max_age, cors.credentials), (Some(Span::from_secs(86_400)), None));
}

#[test]
fn what_envoy_would_refuse_of_a_service_is_told() {
    let told = |fields: &str| {
        let report = read(&service(fields)).report;
        report.errors.iter().flat_map(|error| [&error.field, ": ", &error.message, "\n"]).collect::<String>()
    };
    insta::assert_snapshot!(
        told("headers: {request: {set: {'a b': x, ':path': x, x-ok: '100%'}, remove: [host, 'x:y']}, response: {add: {x: '%NOPE%'}}, answer: {}}"),
        @r#"
    spec.service.headers.request.set.a b: "a b" is not the name of a header, write one like x-team
    spec.service.headers.request.set.:path: is part of every request, and changed by rewrite alone
    spec.service.headers.request.set.x-ok: has no operator at %, write one like %DURATION% or %REQ(USER-AGENT)%, and %% for a percent sign
    spec.service.headers.request.remove[0]: is part of every request, and changed by rewrite alone
    spec.service.headers.request.remove[1]: "x:y" is not the name of a header, write one like x-team
    spec.service.headers.response.add.x: has the operator %NOPE%, which Envoy 1.40 does not know, see Envoy's list of them
    spec.service.headers.answer: is unknown, the fields here are request, response
    "#
    );
    insta::assert_snapshot!(
        told(r"rewrite: {uriRegexRewrite: {match: '^/(a)/(?!b)', rewrite: /}}, corsPolicy: {allowOrigins: [{suffix: x}], allowMethods: ['GET, PUT'], maxAge: 600}"),
        @r#"
    spec.service.rewrite.uriRegexRewrite.match: has look-around, which Envoy cannot run here
    spec.service.corsPolicy.allowOrigins[0]: has to be one of exact, prefix and regex
    spec.service.corsPolicy.allowOrigins[0].suffix: is unknown, the fields here are exact, prefix, regex
    spec.service.corsPolicy.allowMethods[0]: "GET, PUT" is not the name of a method, write one like GET
    spec.service.corsPolicy.maxAge: "600" is not a duration, write one like 500ms, 10s or 1m30s
    "#
    );
    insta::assert_snapshot!(told(r"rewrite: {uriRegexRewrite: {match: '^/(a)/', rewrite: '/\2\x\'}}"), @r"
    spec.service.rewrite.uriRegexRewrite.rewrite: ends with \, write \1 for a group and \\ for a backslash
    spec.service.rewrite.uriRegexRewrite.rewrite: has \x, write \1 for a group and \\ for a backslash
    spec.service.rewrite.uriRegexRewrite.rewrite: names group 2 of a pattern that has 1
    ");
    insta::assert_snapshot!(told("match: [{uri: {suffix: .html}}], rewrite: {uri: v2}"), @r#"
    spec.service.rewrite.uri: "v2" is not a path, write one like /v2/
    "#);
    insta::assert_snapshot!(told("match: [{uri: {suffix: .html}}], rewrite: {uri: /v2}"), @"
    spec.service.match[0].uri: is a suffix, of which no path can be rewritten, use exact, prefix or regex
    ");
    insta::assert_snapshot!(told("rewrite: {}, corsPolicy: {}, mirror: []"), @r#"
    spec.service.rewrite: has nothing to rewrite, write uri, uriRegexRewrite or authority
    spec.service.corsPolicy: allows no origin, list some in allowOrigins like [{exact: "https://a.example"}]
    spec.service.mirror: is for the Gateway API, use analysis.mirror or leave it out
    "#);
}

#[test]
fn which_requests_are_health_checks_is_read() {
    let with =
        |judge: &str| BACKEND.replace("stepWeight: 5}", &format!("stepWeight: 5, judge: {{healthChecks: {judge}}}}}"));
    let checks = |judge: &str| {
        let set = read(&with(judge));
        assert_eq!(set.report.errors, []);
        set.desired_state(None).canaries[&CanaryName::new("prod", "backend")].service.http.health_checks.clone()
    };
    let usual = HealthChecks::default();
    assert_eq!(checks("{}"), usual);
    assert_eq!(checks("{userAgents: []}"), HealthChecks { user_agents: Vec::new(), ..usual.clone() });
    assert_eq!(checks("{paths: [/ping]}"), HealthChecks { paths: vec!["/ping".to_owned()], ..usual });
    insta::assert_snapshot!(errors(&with("{userAgents: [''], paths: [ping], path: 1}")), @r#"
    canary.yaml:22:108: spec.analysis.judge.healthChecks.userAgents[0]: "" tells no health check, write how it begins, like kube-probe/
    canary.yaml:22:121: spec.analysis.judge.healthChecks.paths[0]: "ping" tells no health check, write a path like /healthz
    canary.yaml:22:128: spec.analysis.judge.healthChecks.path: is unknown, did you mean paths?
    "#);
}

fn analysed(analysis: &str) -> String {
    BACKEND.replace("stepWeight: 5}", &format!("stepWeight: 5, {analysis}}}"))
}

fn warnings(text: &str) -> String {
    let told: Vec<String> = read(text).report.warnings.iter().map(ToString::to_string).collect();
    told.join("\n")
}

/// Where evidence decides, a range that is not tested is told, and so are numbers in the wrong unit (B9).
#[test]
fn a_range_that_would_not_be_tested_is_told() {
    let rate = |range: &str| format!("metrics: [{{name: request-success-rate, thresholdRange: {{{range}}}}}]");
    let duration = |range: &str| format!("metrics: [{{name: request-duration, thresholdRange: {{{range}}}}}]");
    for (metrics, told) in [
        (
            rate("min: 100"),
            "thresholdRange: has min 100, and no evidence can show that nothing ever fails: write a rate below it",
        ),
        (
            rate("max: 99.9"),
            "thresholdRange: has a max of the rate, which is not tested where evidence decides: leave it out",
        ),
        (duration("min: 5, max: 50"), "thresholdRange: has a min of the duration, which is not tested"),
        (
            duration("max: 0.5"),
            "thresholdRange: has max 0.5, which is in milliseconds and cut to 0: write 500 for 0.5 s",
        ),
        (
            "metrics: [{name: request-duration, threshold: 500}, {name: request-duration, threshold: 100}]".to_owned(),
            "metrics[1].threshold: is the second range of request-duration, of which one is tested: keep one",
        ),
    ] {
        let found = errors(&analysed(&metrics));
        assert!(found.lines().count() == 1 && found.contains(told), "{metrics}: {found}");
    }
    let guard = |metrics: &str| format!("judge: {{mode: guard}}, {metrics}");
    assert_eq!(errors(&analysed(&guard(&rate("min: 100, max: 100")))), "", "checks look at both ends");
    let found = warnings(&analysed(&rate("min: 0.99")));
    assert!(found.contains("has min 0.99, which is in percent: write 99 if that share is meant"), "{found}");
    // As people write it: 0.07 times 100 is 7.000000000000001 in floats.
    let found = warnings(&analysed(&rate("min: 0.07")));
    assert!(found.contains("write 7 if that share is meant"), "{found}");
    // The guide's way to write one is taken, and there is no doubt about it.
    assert_eq!(warnings(&analysed(&rate("min: 99.5"))), "");
}

/// Rules of the service limit the canary in every strategy (B10).
#[test]
fn what_a_service_matches_limits_a_rollout_by_weight_too() {
    let api = "match: [{uri: {prefix: /api}}]";
    let set = read(&service(api));
    assert_eq!(set.report.errors, []);
    let canary = set.desired_state(None).canaries[&CanaryName::new("prod", "backend")].clone();
    assert!(matches!(&canary.audience, Targeting::Served(entries) if !entries.is_empty()), "{:?}", canary.audience);
    assert_eq!(canary.judge.comparison, Comparison::Randomised, "chance decides among those that match");
    let both = service(api).replace("stepWeight: 5}", "stepWeight: 5, affinity: {cookie: uid}}");
    assert!(errors(&both).contains("spec.service.match: does not go with affinity yet"), "{}", errors(&both));
    let mirrored = service(api).replace("stepWeight: 5}", "stepWeight: 5, mirror: true}");
    assert!(errors(&mirrored).contains("spec.service.match: does not go with mirror"), "{}", errors(&mirrored));
}

/// What is no header never matches as one (B11), and what cannot be tested does not widen an entry in silence (B15).
#[test]
fn conditions_that_would_never_be_tested_are_refused() {
    let with = |entry: &str| {
        BACKEND.replace("maxWeight: 50, stepWeight: 5}", &format!("iterations: 5, match: [{{{entry}}}]}}"))
    };
    for (entry, told) in [
        ("headers: {Host: {exact: a}}", "match[0].headers.Host: is no header that rules see, write authority"),
        ("headers: {':authority': {exact: a}}", "headers.:authority: is no header that rules see, write authority"),
        ("headers: {':path': {prefix: /}}", "headers.:path: is no header that rules see, write uri"),
        (
            "withoutHeaders: {':method': {exact: GET}}",
            "withoutHeaders.:method: is no header that rules see, write method",
        ),
        ("headers: {a: {}}, port: 80", "match[0].port: is a condition that cannot be tested here: leave it out"),
        ("headers: {a: {}}, sourceLabels: {app: x}", "match[0].sourceLabels: is a condition that cannot be tested"),
        ("headers: {a: {}}, gateways: [mesh]", "match[0].gateways: is a condition that cannot be tested here"),
    ] {
        let found = errors(&with(entry));
        assert!(found.lines().count() == 1 && found.contains(told), "{entry}: {found}");
    }
    assert_eq!(
        errors(&with("queryParams: {host: {exact: a}}, authority: {exact: a}")),
        "",
        "of the query they are names"
    );
}

/// What people write, and what they expect of it (B22).
#[test]
fn slips_of_the_pen_are_told_and_what_is_right_is_taken() {
    let retried = |on: &str| service(&format!("retries: {{attempts: 2, retryOn: \"{on}\"}}"));
    assert_eq!(errors(&retried("5xx,reset,connect-failure,retriable-4xx,503")), "");
    let found = errors(&retried("5xx,gateway-errors,nonsense"));
    assert!(found.contains("has gateway-errors, on which Envoy never retries, did you mean gateway-error?"), "{found}");
    assert!(found.contains("has nonsense, on which Envoy never retries, use some of 5xx, cancelled"), "{found}");
    let set = read(&service("timeout: 3.5s"));
    assert_eq!(set.report.errors, []);
    let timeout = set.desired_state(None).canaries[&CanaryName::new("prod", "backend")].service.timeout;
    assert_eq!(timeout, Some(Span::from_millis(3_500)));
    let misplaced = BACKEND.replace("  analysis:", "  webhooks: []\n  hosts: [a]\n  analysis:");
    let found = errors(&misplaced);
    assert!(found.contains("spec.webhooks: belongs to spec.analysis, move it there"), "{found}");
    assert!(found.contains("spec.hosts: belongs to spec.service, move it there"), "{found}");
    let found = errors(&analysed("judge: {minRequests: -5}"));
    assert!(found.contains("spec.analysis.judge.minRequests: -5 is out of range, use a number from 0 to"), "{found}");
    let hook = |fields: &str| analysed(&format!("webhooks: [{{name: a, {fields}}}]"));
    let found = errors(&hook("url: 'http://127.0.0.1:1/', timeout: 0s"));
    assert!(found.contains("timeout: leaves no time to answer, use more than 0s"), "{found}");
    for url in ["not a url", "http://", "ftp://a/", "http://a b/"] {
        let found = errors(&hook(&format!("url: '{url}'")));
        assert!(found.contains("webhooks[0].url: is not a URL of http or https"), "{url}: {found}");
        let provider = format!(
            "{BACKEND}\n---\napiVersion: wingbeat.dev/v1alpha1\nkind: AlertProvider\nmetadata: {{name: a}}\nspec: {{type: \
             slack, address: '{url}'}}\n"
        );
        assert!(errors(&provider).contains("spec.address: is not a URL of http or https"), "{url}");
    }
}

#[test]
fn aliases_and_merges_are_taken() {
    let text = BACKEND
        .replace("[\"127.0.0.1:9001\"]", "&endpoints [\"127.0.0.1:9001\"]")
        .replace("[\"127.0.0.1:9002\"]", "*endpoints");
    let set = read(&text);
    assert_eq!(set.report.errors, []);
    let workload = set.desired_state(None).canaries[&CanaryName::new("prod", "backend")].workload.clone();
    assert_eq!(workload.revisions[&Revision::new("1.4.1")], [("127.0.0.1".to_owned(), 9001)]);
}

#[test]
fn listeners_that_meet_on_a_proxy_are_told() {
    let listeners = |nodes: [&str; 2], addresses: [&str; 2]| {
        let one = |name: &str, nodes: &str, address: &str| {
            format!(
                "---\napiVersion: wingbeat.dev/v1alpha1\nkind: Listener\nmetadata: {{name: {name}}}\nspec: {{address: \
                 {address}, port: 10009{nodes}}}\n"
            )
        };
        errors(&format!("{BACKEND}\n{}{}", one("a", nodes[0], addresses[0]), one("b", nodes[1], addresses[1])))
    };
    let (here, any) = ("127.0.0.1", "0.0.0.0");
    assert_eq!(listeners([", nodes: [a]", ", nodes: [b]"], [here, here]), "");
    assert_eq!(listeners(["", ""], [here, "127.0.0.2"]), "");
    for (nodes, addresses) in [
        (["", ", nodes: [b]"], [here, here]),
        ([", nodes: [b]", ""], [here, here]),
        ([", nodes: [a, b]", ", nodes: [b, c]"], [here, here]),
        (["", ""], [here, any]),
    ] {
        let found = listeners(nodes, addresses);
        assert!(found.contains("already on the same proxies, use another port"), "{nodes:?} {addresses:?}: {found}");
    }
}

/// What another server can ask is legal; a canary of this one cannot use it.
#[test]
fn templates_of_other_providers_are_legal_until_they_are_used() {
    let template = measured("guard", "").replace("type: prometheus", "type: datadog, secretRef: {name: keys}");
    assert_eq!(errors(&template), "");
    let found = warnings(&template);
    assert!(
        found.contains("asks datadog: this server asks a prometheus only; no canary of this server can use it"),
        "{found}"
    );
    let used = measured("guard", LATENCY).replace("type: prometheus", "type: datadog");
    let found = errors(&used);
    assert!(found.contains("names MetricTemplate latency.metrics, which asks datadog"), "{found}");
    let typo = measured("guard", "").replace("type: prometheus", "type: promethius");
    assert!(errors(&typo).contains("spec.provider.type: there is no promethius, use one of prometheus, influxdb"));
}
