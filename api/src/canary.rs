//! The Canary document: Flagger's spec and what we add to it.

use std::collections::BTreeMap;
use std::time::Duration;

use wingbeat_core::analysis::judge::{Comparison, JudgeConfig, Mode};
use wingbeat_core::id::CanaryName;
use wingbeat_core::matching::assignment::Identity;
use wingbeat_core::matching::rule::{Entries, Rules};
use wingbeat_core::rollout::{AlertLevel, MetricInput, Pace, Plan, PlanInput};
use wingbeat_core::time::Span;
use wingbeat_core::weight::BasisPoints;
use wingbeat_xds_server::model::http::{HealthChecks, HttpOptions};

use super::decoder::Decoder;
use super::duration::span;
use super::metric::{self, DecodeContext, MetricDocument};
use super::platform::{Api, Platform, Severity};
use super::yaml::{Node, Position};
use super::{hosts, http, judge, outgoing, retries, rules, shape, traffic};
use crate::desired_state::{Service, Targeting};
use crate::hook::Hook;

/// A pod's first seconds are not compared.
const WARMUP: Duration = Duration::from_secs(15);

/// A Canary that is right in itself.
#[derive(Debug, Clone)]
pub struct CanaryDocument {
    /// How its rollouts go.
    pub plan: Plan,
    /// How they are judged.
    pub judge: JudgeConfig,
    /// How it is reached.
    pub service: Service,
    /// The plan's hooks.
    pub hooks: Vec<Hook>,
    /// The plan's metrics.
    pub(super) metrics: Vec<MetricDocument>,
    /// Names of `AlertProvider`s, with the least serious alerts that they get.
    pub alerts: Vec<(CanaryName, AlertLevel)>,
    /// Who gets the canary.
    pub audience: Targeting,
    /// Where its fields are, for what is found wrong later: the hosts, each by itself.
    pub(super) hosts_at: Vec<Position>,
    pub(super) target_at: Position,
}

/// What the fields of `analysis` say, before they are put together.
#[derive(Debug, Default)]
struct Analysis {
    /// Where they are: `spec.analysis`, or by its old name.
    path: String,
    input: PlanInput,
    judge: JudgeConfig,
    mode: Option<Mode>,
    hooks: Vec<Hook>,
    metrics: Vec<MetricDocument>,
    alerts: Vec<(CanaryName, AlertLevel)>,
    rules: Rules,
    holdback: BasisPoints,
    affinity: Option<Identity>,
    health_checks: HealthChecks,
}

/// Decodes `spec`. Errors are in the decoder; nothing is returned if there are any.
pub(super) fn decode(decoder: &mut Decoder, name: CanaryName, spec: &Node) -> Option<CanaryDocument> {
    let mut fields = decoder.fields(spec, "spec", &shape::CANARY)?;
    let mut input = PlanInput { name: Some(name), handover: decoder.terms.handover(), ..PlanInput::default() };
    let target = fields.need("targetRef", "name the workload", decoder);
    let target_at = target.as_ref().map_or(spec.at, |(node, _)| node.at);
    if let Some((node, path)) = target {
        (input.kind, input.target) = target_ref(decoder, node, &path);
    }
    if let Some((node, path)) = fields.take("provider") {
        let provider = decoder.text(node, &path).unwrap_or_default();
        if provider != "envoy" {
            let message = format!("{provider} is not what this server serves, use envoy or leave it out");
            if shape::PROVIDERS_OF_FLAGGER.contains(&provider.as_str()) {
                decoder.unsupported(node.at, &path, message);
            } else {
                decoder.wrong(node.at, &path, message);
            }
        }
    }
    let seconds = fields.take("progressDeadlineSeconds");
    let seconds = seconds.and_then(|(node, path)| decoder.within(node, &path, 1..=shape::MAX_SECONDS));
    input.progress_deadline = seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Span::from_secs);
    input.skip_analysis =
        fields.take("skipAnalysis").and_then(|(node, path)| decoder.truth(node, &path)).unwrap_or(false);
    input.suspend = fields.take("suspend").and_then(|(node, path)| decoder.truth(node, &path)).unwrap_or(false);
    let mut named = BTreeMap::new();
    for (field, what) in [("ingressRef", "ingress"), ("routeRef", "route")] {
        if let Some((node, path)) = fields.take(field) {
            decoder.warn(node.at, &path, "has no effect here but for its name in queries: this server routes itself");
            named.extend(name_in(decoder, node, &path).map(|name| (what, name)));
        }
    }
    let server = fields.take("metricsServer").and_then(|(node, path)| metric::server_at(decoder, node, &path));
    let mut service = None;
    let mut rules = Rules::default();
    let mut hosts_at = Vec::new();
    if let Some((node, path)) = fields.need_in_files("service", "say which hosts it answers to", decoder) {
        let decoded = decode_service(decoder, node, &path, &mut rules.served, &mut named);
        service = decoded.map(|(service, places)| {
            hosts_at = places;
            service
        });
    } else if decoder.terms.left_out() == Severity::Warning {
        service = Some(Service::default());
    }
    // The guide's v1alpha3 calls it canaryAnalysis.
    let (analysis, old) = (fields.take("analysis"), fields.take("canaryAnalysis"));
    if let (Some(_), Some((old, path))) = (&analysis, &old) {
        decoder.slip(old.at, path, "is the old name of analysis, which is there too: keep that one");
    }
    let analysis = analysis.or(old);
    let path = analysis.as_ref().map_or("spec.analysis", |(_, path)| path).to_owned();
    let mut decoded = Analysis { path, input, rules, ..Analysis::default() };
    decoded.judge.warmup = span(WARMUP);
    match analysis {
        Some((node, path)) => {
            let values = decoded.input.name.as_ref().map(|name| metric::values(name, &decoded.input.target, &named));
            let around = DecodeContext { values: values.unwrap_or_default(), server };
            decode_analysis(decoder, node, &path, &around, &mut decoded);
        }
        None if decoded.input.skip_analysis => {}
        None => decoder.wrong(spec.at, "spec.analysis", "is missing, say how rollouts go"),
    }
    fields.misplaced(
        &["webhooks", "metrics", "alerts", "match", "interval", "threshold", "stepWeight", "maxWeight"],
        "spec.analysis",
        decoder,
    );
    fields.misplaced(&["hosts", "listeners", "port", "timeout", "retries"], "spec.service", decoder);
    decoder.done(fields);
    finish(decoder, decoded, service?).map(|document| CanaryDocument { hosts_at, target_at, ..document })
}

fn finish(decoder: &mut Decoder, analysis: Analysis, service: Service) -> Option<CanaryDocument> {
    let Analysis {
        path,
        mut input,
        mut judge,
        mode,
        hooks,
        mut metrics,
        alerts,
        rules,
        holdback,
        affinity,
        health_checks,
    } = analysis;
    let service = Service { http: HttpOptions { health_checks, ..service.http }, ..service };
    judge.mode = mode.unwrap_or(match decoder.terms.api {
        Api::Wingbeat => Mode::Sequential,
        Api::FlaggerV1Beta1 | Api::FlaggerV1Alpha3 => Mode::Guard,
    });
    input.pace = match judge.mode {
        Mode::Sequential => Pace::Evidence,
        Mode::Guard | Mode::Thresholds => Pace::Checks,
    };
    if judge.mode == Mode::Sequential {
        metric::limits(decoder, &metrics, &mut judge);
    }
    metrics.sort_by_key(MetricDocument::is_last);
    let planned = metrics.iter().map(|metric| MetricInput { name: metric.name().to_owned(), source: metric.source() });
    input.metrics = planned.collect();
    // Only chance makes arms comparable (P12).
    if affinity.is_some() {
        judge.comparison = Comparison::Affinity;
    } else if (input.matches && holdback.is_zero()) || (!input.matches && input.iterations.is_some()) {
        judge.comparison = Comparison::Absolute;
    }
    if !holdback.is_zero() && !input.matches {
        let field = format!("{path}.holdback");
        let at = decoder.place(&field);
        decoder.wrong(at, &field, "is for A/B tests, add match or leave it out");
    }
    if affinity.is_some() && (input.matches || input.iterations.is_some()) {
        let field = format!("{path}.affinity");
        let at = decoder.place(&field);
        decoder.wrong(at, &field, "is for rollouts by weight, leave out match and iterations, or this");
    }
    if !rules.served.is_empty() {
        let field = "spec.service.match";
        let at = decoder.place(field);
        if affinity.is_some() {
            decoder.wrong(at, field, "does not go with affinity yet, leave out one of them");
        }
        if input.mirror {
            decoder.wrong(
                at,
                field,
                "does not go with mirror: copies are made of every request, leave out one of them",
            );
        }
    }
    let audience = match (affinity, rules.is_empty()) {
        (Some(identity), _) => Targeting::Users(identity),
        (None, false) => Targeting::Rules { rules, holdback },
        (None, true) if rules.served.is_empty() => Targeting::Chance,
        (None, true) => Targeting::Served(rules.served),
    };
    let plan = match Plan::try_new(&input) {
        Ok(plan) => plan,
        Err(errors) => {
            for error in errors {
                let field = match error.field.strip_prefix("analysis") {
                    Some(below) => format!("{path}{below}"),
                    None => format!("spec.{}", error.field),
                };
                let at = decoder.place(&field);
                decoder.wrong(at, &field, format!("{}, {}", error.wrong, error.mend));
            }
            return None;
        }
    };
    let (hosts_at, target_at) = (Vec::new(), Position::default());
    Some(CanaryDocument { plan, judge, service, hooks, metrics, alerts, audience, hosts_at, target_at })
}

fn target_ref(decoder: &mut Decoder, node: &Node, path: &str) -> (Option<String>, String) {
    let Some(mut fields) = decoder.fields(node, path, &shape::TARGET_REFERENCE) else { return (None, String::new()) };
    let here = match decoder.terms.platform {
        Platform::Cluster => "Deployment",
        Platform::Envoy | Platform::Undecided => "Workload",
    };
    let kind = fields.need("kind", &format!("use {here}"), decoder).and_then(|(node, path)| {
        let kind = decoder.text(node, &path)?;
        let message = format!("{kind} is not what this server has, use {here}");
        match kind.as_str() {
            kind if kind == here => {}
            "Deployment" | "DaemonSet" | "Service" => decoder.unsupported(node.at, &path, message),
            _ => decoder.wrong(node.at, &path, message),
        }
        Some(kind)
    });
    let name = fields.need("name", "name the workload", decoder);
    let is_ours = kind.as_deref() == Some("Workload");
    let name =
        name.and_then(
            |(node, path)| {
                if is_ours { decoder.reference("Workload", node, &path) } else { decoder.text(node, &path) }
            },
        );
    let name = name.unwrap_or_default();
    decoder.done(fields);
    (kind, name)
}

/// Returns the `name` of a reference to something that is not here.
fn name_in(decoder: &mut Decoder, node: &Node, path: &str) -> Option<String> {
    let mut fields = decoder.fields(node, path, &shape::OBJECT_REFERENCE)?;
    let name = fields.take("name").and_then(|(node, path)| decoder.text(node, &path));
    decoder.done(fields);
    name
}

fn decode_service(
    decoder: &mut Decoder,
    node: &Node,
    path: &str,
    rules: &mut Entries,
    named: &mut BTreeMap<&str, String>,
) -> Option<(Service, Vec<Position>)> {
    let mut fields = decoder.fields(node, path, &shape::SERVICE)?;
    let hosts = fields.need_in_files("hosts", "list the hosts that it answers to, like backend.local", decoder);
    let listeners = fields.need_in_files("listeners", "list the listeners that serve it", decoder);
    let hosts = hosts.map(|(node, path)| hosts::decode(decoder, node, &path)).unwrap_or_default();
    let (hosts, places) = hosts.into_iter().unzip();
    let listeners = listeners.map(|(node, path)| decode_listeners(decoder, node, &path)).unwrap_or_default();
    let timeout = fields.take("timeout").and_then(|(node, path)| decoder.limit(node, &path)).map(span);
    let retries = fields.take("retries").and_then(|(node, path)| retries::decode(decoder, node, &path));
    if let Some((node, path)) = fields.take("port") {
        decoder.within(node, &path, 1..=65_535);
    }
    let name = fields.take("name").and_then(|(node, path)| decoder.text(node, &path));
    named.extend(name.map(|name| ("service", name)));
    let traffic = fields.take("trafficPolicy").map(|(node, path)| traffic::decode(decoder, node, &path));
    let traffic = traffic.unwrap_or_default();
    let mut served = Vec::new();
    if let Some((node, path)) = fields.take("match") {
        served = rules::decode_inputs(decoder, node, &path);
        *rules = rules::compile(decoder, &served, &path);
        decoder.warn(node.at, &path, "limits who may get the canary; requests that match nothing are still served");
    }
    let http = http::decode(decoder, &mut fields, &served);
    decoder.done(fields);
    Some((Service { hosts, listeners, timeout, retries, http, traffic }, places))
}

fn decode_listeners(decoder: &mut Decoder, node: &Node, path: &str) -> Vec<String> {
    let mut listeners: Vec<String> = Vec::new();
    for (node, path) in decoder.some(node, path, "list the listeners that serve it") {
        let Some(listener) = decoder.reference("Listener", node, &path) else { continue };
        if listeners.contains(&listener) {
            decoder.wrong(node.at, &path, format!("{listener} is there twice, keep one"));
        } else {
            listeners.push(listener);
        }
    }
    listeners
}

fn decode_analysis(decoder: &mut Decoder, node: &Node, path: &str, around: &DecodeContext, out: &mut Analysis) {
    let Some(mut fields) = decoder.fields(node, path, &shape::ANALYSIS) else { return };
    let interval = fields.take("interval").and_then(|(node, path)| decoder.duration(node, &path));
    out.input.interval = interval.map(span);
    for (name, number) in [
        ("threshold", &mut out.input.threshold),
        ("iterations", &mut out.input.iterations),
        ("maxWeight", &mut out.input.max_weight),
        ("stepWeight", &mut out.input.step_weight),
        ("stepWeightPromotion", &mut out.input.step_weight_promotion),
        ("mirrorWeight", &mut out.input.mirror_weight),
    ] {
        *number = fields.take(name).and_then(|(node, path)| decoder.number(node, &path));
    }
    let beyond = |(max, step): &(i64, i64)| (1..=100).contains(max) && (*max < *step) && *step <= 100;
    if let Some((max, step)) = out.input.max_weight.zip(out.input.step_weight).filter(beyond) {
        let field = format!("{path}.stepWeight");
        let message = format!("{step} is beyond maxWeight {max}, use a smaller step or a larger maximum");
        // Flagger takes one step and goes beyond the maximum.
        decoder.slip(decoder.place(&field), &field, message);
    }
    if let Some((node, path)) = fields.take("stepWeights") {
        let weights = decoder.list(node, &path);
        out.input.step_weights = weights.into_iter().filter_map(|(node, path)| decoder.number(node, &path)).collect();
    }
    out.input.mirror = fields.take("mirror").and_then(|(node, path)| decoder.truth(node, &path)).unwrap_or(false);
    if let Some((node, path)) = fields.take("match") {
        out.rules.canary = rules::decode_tests(decoder, node, &path);
        // With Flagger, no rules at all are no A/B test.
        out.input.matches = decoder.terms.slip() == Severity::Error || !node.is_empty_list();
    }
    if let Some((node, path)) = fields.take("holdback") {
        out.holdback = rules::decode_holdback(decoder, node, &path).unwrap_or_default();
    }
    if let Some((node, path)) = fields.take("affinity") {
        out.affinity = rules::decode_affinity(decoder, node, &path);
    }
    if let Some((node, path)) = fields.take("metrics") {
        for (node, path) in decoder.list(node, &path) {
            out.metrics.extend(metric::decode(decoder, node, &path, around, &mut out.judge.modes));
        }
    }
    if let Some((node, path)) = fields.take("webhooks") {
        for (node, path) in decoder.list(node, &path) {
            if let Some((input, hook)) = outgoing::decode_hook(decoder, node, &path) {
                out.input.hooks.push(input);
                out.hooks.push(hook);
            }
        }
    }
    if let Some((node, path)) = fields.take("alerts") {
        for (node, path) in decoder.list(node, &path) {
            out.alerts.extend(outgoing::decode_alert(decoder, node, &path, &around.values.namespace));
        }
    }
    if let Some((node, path)) = fields.take("judge") {
        out.mode = judge::decode(decoder, node, &path, &mut out.judge, &mut out.input, &mut out.health_checks);
    }
    decoder.done(fields);
}
