//! Metrics: those that the filters measure, and those that somebody else does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use url::Url;
use wingbeat_core::analysis::judge::JudgeConfig;
use wingbeat_core::analysis::signal::{Signal, SignalMode};
use wingbeat_core::analysis::threshold::{Check, Metric, Range};
use wingbeat_core::id::CanaryName;
use wingbeat_core::rollout::MetricSource;
use wingbeat_core::time::Span;

use super::decoder::Decoder;
use super::duration::span;
use super::platform::Severity;
use super::shape;
use super::template::{Template, Values};
use super::yaml::{Node, Position};
use crate::desired_state::MetricProvider;
use crate::number::rounded;
use crate::query::{Origin, Query};

/// Flagger's default window of a metric.
const INTERVAL: Duration = Duration::from_mins(1);

/// A metric of a canary, as far as the canary's own document tells.
#[derive(Debug, Clone)]
pub(super) enum MetricDocument {
    /// The filters measure it.
    Filters {
        /// What is looked at.
        check: Check,
        /// Where its range is.
        at: Position,
        /// The field that holds it.
        field: String,
    },
    /// A Prometheus is asked for it.
    Prometheus(Box<PrometheusMetric>),
}

/// A question to a Prometheus.
#[derive(Debug, Clone)]
pub(super) struct PrometheusMetric {
    metric: String,
    source: Source,
    range: Range,
    mode: SignalMode,
    values: Values,
    at: Position,
    field: String,
}

#[derive(Debug, Clone)]
enum Source {
    /// The canary has the query.
    Inline(Server, Template),
    /// A `MetricTemplate` has it.
    Template(CanaryName),
}

/// A `MetricTemplate`.
#[derive(Debug, Clone)]
pub(super) struct TemplateDocument {
    /// Who is asked, or why this server cannot.
    server: Result<Server, String>,
    query: Template,
}

/// A Prometheus.
#[derive(Debug, Clone)]
pub(super) struct Server {
    address: Url,
    headers: HeaderMap,
}

/// What a canary says beside its metrics that they may need.
pub(super) struct DecodeContext {
    pub(super) values: Values,
    /// `metricsServer`, once it was read.
    pub(super) server: Option<Server>,
}

impl MetricDocument {
    /// Returns true for metrics that Flagger looks at after all others.
    pub(super) fn is_last(&self) -> bool {
        match self {
            Self::Filters { .. } => false,
            Self::Prometheus(asked) => matches!(asked.source, Source::Template(_)),
        }
    }

    /// Returns its name.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Filters { check, .. } => check.metric.as_str(),
            Self::Prometheus(asked) => &asked.metric,
        }
    }

    /// Returns who measures it.
    pub(super) const fn source(&self) -> MetricSource {
        match self {
            Self::Filters { .. } => MetricSource::Filters,
            Self::Prometheus(_) => MetricSource::External,
        }
    }

    /// Returns the `MetricTemplate` that it takes its query from.
    pub(super) fn template(&self) -> Option<&CanaryName> {
        match self {
            Self::Filters { .. } => None,
            Self::Prometheus(asked) => match &asked.source {
                Source::Template(name) => Some(name),
                Source::Inline(..) => None,
            },
        }
    }

    /// Returns how it is measured. Nothing if its template is not there.
    pub(super) fn measure(
        &self,
        templates: impl Fn(&CanaryName) -> Option<TemplateDocument>,
    ) -> Option<MetricProvider> {
        let asked = match self {
            Self::Filters { check, .. } => return Some(MetricProvider::Filters(check.clone())),
            Self::Prometheus(asked) => asked,
        };
        let (origin, server, query) = match &asked.source {
            Source::Inline(server, query) => (Origin::Inline, server.clone(), query.clone()),
            Source::Template(name) => {
                let TemplateDocument { server, query } = templates(name)?;
                (Origin::Template, server.ok()?, query)
            }
        };
        Some(MetricProvider::Prometheus(Arc::new(Query {
            metric: asked.metric.clone(),
            origin,
            address: server.address,
            headers: server.headers,
            query: query.render(&asked.values),
            range: asked.range,
            mode: asked.mode,
        })))
    }

    /// Returns what is wrong with how it uses its template, with place and field.
    pub(super) fn misuse(
        &self,
        templates: impl Fn(&CanaryName) -> Option<TemplateDocument>,
    ) -> Vec<(Position, String, String)> {
        let Self::Prometheus(asked) = self else { return Vec::new() };
        let PrometheusMetric { source: Source::Template(name), values, at, field, .. } = asked.as_ref() else {
            return Vec::new();
        };
        let template = templates(name);
        let missing = template.iter().flat_map(|template| template.query.keys());
        let missing = missing.filter(|key| !values.custom.contains_key(*key)).map(|key| {
            let message = format!("lacks {key}, which MetricTemplate {name} needs, add it");
            (*at, format!("{field}.templateVariables"), message)
        });
        let unasked = template.iter().filter_map(|template| template.server.as_ref().err()).map(|why| {
            let message = format!("names MetricTemplate {name}, which {why}");
            (*at, format!("{field}.templateRef"), message)
        });
        missing.chain(unasked).collect()
    }
}

/// Decodes a metric of `analysis`. One whose name is the filters' and that has a query too is looked at in both ways, as
/// Flagger does.
pub(super) fn decode(
    decoder: &mut Decoder,
    node: &Node,
    path: &str,
    around: &DecodeContext,
    modes: &mut Vec<(Signal, SignalMode)>,
) -> Vec<MetricDocument> {
    let Some(mut fields) = decoder.fields(node, path, &shape::METRIC) else { return Vec::new() };
    let name = fields.need("name", "name the metric", decoder);
    let name = name.and_then(|(node, path)| Some((node.at, decoder.text(node, &path)?, path)));
    let interval = fields.take("interval").and_then(|(node, path)| decoder.duration(node, &path)).unwrap_or(INTERVAL);
    let threshold = fields.take("threshold").and_then(|(node, path)| decoder.float(node, &path));
    let range = fields.take("thresholdRange").and_then(|(node, path)| {
        let mut bounds = decoder.fields(node, &path, &shape::RANGE)?;
        let mut bound = |name| bounds.take(name).and_then(|(node, path)| decoder.float(node, &path));
        let range = Range { min: bound("min"), max: bound("max") };
        decoder.done(bounds);
        match range {
            Range { min: Some(min), max: Some(max) } if min > max => {
                decoder.wrong(node.at, &path, format!("has min {min} above max {max}, nothing would pass; swap them"));
            }
            Range { min: None, max: None } if decoder.terms.slip() == Severity::Error => {
                decoder.wrong(node.at, &path, "has neither min nor max, everything would pass; add one of them");
            }
            Range { .. } => {}
        }
        Some((range, node.at, path))
    });
    let (inline, template) = (fields.take("query"), fields.take("templateRef"));
    let asks = inline.is_some() || template.is_some();
    let inline = inline.and_then(|(node, path)| query(decoder, node, &path));
    let namespace = around.values.namespace.as_str();
    let template = template.and_then(|(node, path)| {
        named(decoder, ("MetricTemplate", &shape::TEMPLATE_REFERENCE), node, &path, namespace)
    });
    let custom = fields.take("templateVariables").map(|(node, path)| decoder.text_map(node, &path)).unwrap_or_default();
    let mode = fields.take("mode").and_then(|(node, path)| {
        let text = decoder.text(node, &path)?;
        let words = [("judge", SignalMode::Judge), ("warn", SignalMode::Warn), ("report", SignalMode::Report)];
        decoder.one_of(node.at, &path, &text, &words)
    });
    let mode = mode.unwrap_or_default();
    decoder.done(fields);
    let Some((at, name, name_path)) = name else { return Vec::new() };
    let own = Metric::parse(&name);
    let percents = |bound: f64| (0.0..=100.0).contains(&bound);
    let (range, range_at) = range.map_or((None, None), |(range, at, path)| (Some(range), Some((at, path))));
    if own == Some(Metric::SuccessRate) && !asks {
        let bounds = range.unwrap_or_default();
        let mut written = [bounds.min, bounds.max, threshold].into_iter().flatten();
        if let Some(bound) = written.find(|bound| !percents(*bound)) {
            let (at, field) = range_at.clone().unwrap_or_else(|| (node.at, format!("{path}.threshold")));
            decoder.wrong(at, &field, format!("{bound} is not a percentage of requests, use a number from 0 to 100"));
        }
    }
    let signals = Signal::of_metric(&name);
    modes.extend(signals.iter().map(|signal| (*signal, mode)));
    if own.is_none() && !asks {
        if signals.is_empty() {
            let known = Signal::METRICS.join(", ");
            let wrong = format!("there is no metric {name}, use one of {known}, or add templateRef or query");
            decoder.wrong(at, &name_path, wrong);
        } else if threshold.is_some() || range.is_some() {
            let field = format!("{path}.thresholdRange");
            let wrong = format!("{name} has no value of its own, leave it out: the arms are compared");
            decoder.wrong(decoder.place(&field), &field, wrong);
        }
        return Vec::new();
    }
    let mut metrics = Vec::new();
    if let Some(metric) = own {
        // The guide's one number means the lowest rate, or the longest duration.
        let mut range = range.unwrap_or_default();
        match (threshold, metric) {
            (Some(number), Metric::SuccessRate) => range.min = range.min.or(Some(number)),
            (Some(number), Metric::Duration) => range.max = range.max.or(Some(number)),
            (None, _) => {}
        }
        let field = range_at.as_ref().map_or_else(|| format!("{path}.threshold"), |(_, path)| path.clone());
        let at = range_at.as_ref().map_or_else(|| decoder.place(&field), |(at, _)| *at);
        doubt(decoder, metric, range, at, &field);
        metrics.push(MetricDocument::Filters {
            check: Check { metric, range, interval: span(interval), mode },
            at,
            field,
        });
    }
    if !asks {
        return metrics;
    }
    let bounds = range.or_else(|| threshold.map(|max| Range { min: None, max: Some(max) }));
    if bounds.is_none() {
        let field = format!("{path}.thresholdRange");
        match decoder.terms.slip() {
            Severity::Error => decoder.wrong(node.at, &field, "is missing, say what is good, like {max: 500}"),
            Severity::Warning => {
                decoder.warn(node.at, &field, "is missing: as with Flagger, everything above 0 fails");
            }
        }
    }
    let values = Values { interval: span(interval).to_string(), custom, ..around.values.clone() };
    let asked = |source| {
        let range = bounds.unwrap_or(Range { min: None, max: Some(0.0) });
        let (metric, values, field) = (name.clone(), values.clone(), path.to_owned());
        MetricDocument::Prometheus(Box::new(PrometheusMetric {
            metric,
            source,
            range,
            mode,
            values,
            at: node.at,
            field,
        }))
    };
    if let Some((query, at, field)) = inline {
        for key in query.keys().filter(|key| !values.custom.contains_key(*key)) {
            decoder.wrong(at, &field, format!("needs variables.{key}, add it to templateVariables"));
        }
        match &around.server {
            Some(server) => metrics.push(asked(Source::Inline(server.clone(), query))),
            None => decoder.wrong(
                at,
                &field,
                "has nobody to be asked, set spec.metricsServer to the address of a Prometheus, or use templateRef",
            ),
        }
    }
    metrics.extend(template.map(|name| asked(Source::Template(name))));
    metrics
}

/// Tells of numbers that are probably meant in another unit.
fn doubt(decoder: &mut Decoder, metric: Metric, range: Range, at: Position, field: &str) {
    match (metric, range) {
        (Metric::Duration, Range { max: Some(max), .. }) if max > 0.0 && max < 1.0 => {
            let millis = rounded(max * 1_000.0);
            let message = format!("has max {max}, which is in milliseconds and cut to 0: write {millis} for {max} s");
            // Nothing would pass; with Flagger, that is what was asked for.
            decoder.slip(at, field, message);
        }
        (Metric::SuccessRate, Range { min: Some(min), .. }) if min > 0.0 && min <= 1.0 => {
            let percent = rounded(min * 100.0);
            let message = format!("has min {min}, which is in percent: write {percent} if that share is meant");
            decoder.warn(at, field, message);
        }
        (Metric::Duration | Metric::SuccessRate, Range { .. }) => {}
    }
}

/// Makes ranges the judge's absolute limits, tested within its α (P20). What could not be tested so is told.
pub(super) fn limits(decoder: &mut Decoder, metrics: &[MetricDocument], judge: &mut JudgeConfig) {
    let (mut error_limit, mut latency_limit) = (None, None);
    for metric in metrics {
        let MetricDocument::Filters { check: Check { metric, range, .. }, at, field } = metric else { continue };
        let mut wrong = |message: &str| {
            decoder.wrong(
                *at,
                field,
                format!("{message}, or set judge.mode to guard, which looks at it in every interval"),
            );
        };
        match (metric, range) {
            (Metric::SuccessRate, Range { max: Some(_), .. }) => {
                wrong("has a max of the rate, which is not tested where evidence decides: leave it out");
            }
            (Metric::Duration, Range { min: Some(_), .. }) => {
                wrong("has a min of the duration, which is not tested where evidence decides: leave it out");
            }
            (Metric::SuccessRate, Range { min: Some(min), .. }) if *min >= 100.0 => {
                wrong(
                    "has min 100, and no evidence can show that nothing ever fails: write a rate below it, like 99.9",
                );
            }
            (Metric::Duration, Range { max: Some(max), .. }) if *max <= 0.0 => {
                wrong("has max 0, which nothing keeps: write milliseconds, like 500");
            }
            (Metric::SuccessRate, Range { min: Some(min), .. }) => {
                if error_limit.replace(1.0 - min / 100.0).is_some() {
                    wrong("is the second range of request-success-rate, of which one is tested: keep one");
                }
            }
            (Metric::Duration, Range { max: Some(max), .. }) => {
                if latency_limit.replace(millis(*max)).is_some() {
                    wrong("is the second range of request-duration, of which one is tested: keep one");
                }
            }
            (Metric::SuccessRate | Metric::Duration, Range { min: None, max: None }) => {}
        }
    }
    (judge.error_limit, judge.latency_limit) = (error_limit, latency_limit);
}

/// Returns a span of so many milliseconds, of which a fraction is cut off as Flagger does.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, and the cast saturates")]
const fn millis(millis: f64) -> Span {
    Span::from_millis(millis as u64)
}

/// Decodes the spec of a `MetricTemplate`.
pub(super) fn decode_template(decoder: &mut Decoder, node: &Node) -> Option<TemplateDocument> {
    let mut fields = decoder.fields(node, "spec", &shape::METRIC_TEMPLATE)?;
    let query = fields.need("query", "write it in PromQL", decoder);
    let query = query.and_then(|(node, path)| query_of(decoder, node, &path));
    let provider = fields.need("provider", "say who is asked, like {type: prometheus, address: …}", decoder);
    let server = provider.and_then(|(node, path)| provider_of(decoder, node, &path));
    decoder.done(fields);
    Some(TemplateDocument { server: server?, query: query? })
}

/// Decodes the address of a Prometheus.
pub(super) fn server_at(decoder: &mut Decoder, node: &Node, path: &str) -> Option<Server> {
    let address = decoder.url(node, path, "http://127.0.0.1:9090");
    Some(Server { address: address?, headers: HeaderMap::new() })
}

/// Decodes who is asked. What this server cannot ask is legal all the same, and told where somebody refers to it.
fn provider_of(decoder: &mut Decoder, node: &Node, path: &str) -> Option<Result<Server, String>> {
    let mut fields = decoder.fields(node, path, &shape::PROVIDER)?;
    let kind = fields.need("type", "use prometheus", decoder);
    let kind = kind.and_then(|(node, path)| {
        let text = decoder.text(node, &path)?;
        decoder.one_of(node.at, &path, &text, &shape::PROVIDERS.map(|name| (name, name)))
    });
    let is_ours = kind.is_none_or(|kind| kind == "prometheus");
    let server = if is_ours {
        fields.need("address", "say where it is, like http://127.0.0.1:9090", decoder)
    } else {
        fields.take("address")
    };
    let server = server.and_then(|(node, path)| server_at(decoder, node, &path));
    let headers = fields.take("headers").map(|(node, path)| headers(decoder, node, &path)).unwrap_or_default();
    let mut reasons = Vec::new();
    if let Some(kind) = kind.filter(|_| !is_ours) {
        reasons.push(format!("asks {kind}: this server asks a prometheus only"));
    }
    if fields.take("secretRef").is_some() {
        reasons.push("has a secretRef: this server has no Secrets of Kubernetes, use headers".to_owned());
    }
    let skips = fields.take("insecureSkipVerify").and_then(|(node, path)| decoder.truth(node, &path));
    if skips == Some(true) {
        reasons.push("has insecureSkipVerify: certificates are always checked, use http or a trusted one".to_owned());
    }
    decoder.done(fields);
    if reasons.is_empty() {
        return Some(Ok(Server { headers, ..server? }));
    }
    reasons.iter().for_each(|why| decoder.warn(node.at, path, format!("{why}; no canary of this server can use it")));
    Some(Err(reasons.join(", and ")))
}

/// What is in headers may be secret: neither errors nor logs show it.
fn headers(decoder: &mut Decoder, node: &Node, path: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, at, values, path) in decoder.entries(node, path) {
        let Ok(header) = name.parse::<HeaderName>() else {
            decoder.wrong(at, &path, "is not the name of a header, use letters, digits and -");
            continue;
        };
        for (node, path) in decoder.list(values, &path) {
            let text = decoder.text(node, &path).unwrap_or_default();
            match HeaderValue::from_str(&text) {
                Ok(mut value) => {
                    value.set_sensitive(true);
                    headers.append(header.clone(), value);
                }
                Err(_) => decoder.wrong(node.at, &path, "is not the value of a header, use visible ASCII characters"),
            }
        }
    }
    headers
}

fn query(decoder: &mut Decoder, node: &Node, path: &str) -> Option<(Template, Position, String)> {
    Some((query_of(decoder, node, path)?, node.at, path.to_owned()))
}

fn query_of(decoder: &mut Decoder, node: &Node, path: &str) -> Option<Template> {
    let text = decoder.text(node, path)?;
    match Template::parse(&text) {
        Ok(template) => Some(template),
        Err(all) => {
            all.into_iter().for_each(|wrong| decoder.wrong(node.at, path, wrong));
            None
        }
    }
}

/// Takes the name of a document, in this namespace unless it says another one.
pub(super) fn named(
    decoder: &mut Decoder,
    (kind, shape): (&'static str, &'static shape::Object),
    node: &Node,
    path: &str,
    namespace: &str,
) -> Option<CanaryName> {
    let mut fields = decoder.fields(node, path, shape)?;
    let given = fields.take("namespace").and_then(|(node, path)| decoder.text(node, &path));
    let namespace = given.unwrap_or_else(|| namespace.to_owned());
    let name = fields.need("name", &format!("name the {kind}"), decoder);
    let name = name.and_then(|(node, path)| decoder.reference_in(kind, &namespace, node, &path));
    decoder.done(fields);
    Some(CanaryName::new(namespace, name?))
}

/// Returns what templates of a canary's metrics may hold.
pub(super) fn values(name: &CanaryName, target: &str, named: &BTreeMap<&str, String>) -> Values {
    let or_target = |what: &str| named.get(what).cloned().unwrap_or_else(|| target.to_owned());
    Values {
        name: name.name.to_string(),
        namespace: name.namespace.to_string(),
        target: target.to_owned(),
        service: or_target("service"),
        ingress: or_target("ingress"),
        route: or_target("route"),
        ..Values::default()
    }
}
