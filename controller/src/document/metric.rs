//! Metrics: those that the filters measure, and those that somebody else does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use wingbeat_core::analysis::signal::{Signal, SignalMode};
use wingbeat_core::analysis::threshold::{Check, Metric, Range};
use wingbeat_core::id::CanaryName;

use super::canary::span;
use super::decoder::Decoder;
use super::template::{Template, Values};
use super::yaml::{Node, Place};
use crate::outbound::prometheus::{Origin, Query};
use crate::setup::Measure;

/// Flagger's default window of a metric.
const INTERVAL: Duration = Duration::from_mins(1);

/// A metric of a canary, as far as the canary's own document tells.
#[derive(Debug, Clone)]
pub(super) enum MetricDocument {
    /// The filters measure it.
    Filters(Check),
    /// A Prometheus is asked for it.
    Prometheus(Box<Asked>),
}

/// A question to a Prometheus.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    metric: String,
    source: Source,
    range: Range,
    mode: SignalMode,
    values: Values,
    at: Place,
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
    server: Server,
    query: Template,
}

/// A Prometheus.
#[derive(Debug, Clone)]
pub(super) struct Server {
    address: Url,
    headers: HeaderMap,
}

/// What a canary says beside its metrics that they may need.
pub(super) struct Surroundings {
    pub(super) values: Values,
    /// `metricsServer`, once it was read.
    pub(super) server: Option<Server>,
}

impl MetricDocument {
    /// Returns true for metrics that Flagger looks at after all others.
    pub(super) fn is_last(&self) -> bool {
        match self {
            Self::Filters(_) => false,
            Self::Prometheus(asked) => matches!(asked.source, Source::Template(_)),
        }
    }

    /// Returns its name.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Filters(check) => check.metric.as_str(),
            Self::Prometheus(asked) => &asked.metric,
        }
    }

    /// Returns how it is measured. Nothing if its template is not there.
    pub(super) fn measure(&self, templates: impl Fn(&CanaryName) -> Option<TemplateDocument>) -> Option<Measure> {
        let asked = match self {
            Self::Filters(check) => return Some(Measure::Filters(check.clone())),
            Self::Prometheus(asked) => asked,
        };
        let (origin, server, query) = match &asked.source {
            Source::Inline(server, query) => (Origin::Inline, server.clone(), query.clone()),
            Source::Template(name) => {
                let TemplateDocument { server, query } = templates(name)?;
                (Origin::Template, server, query)
            }
        };
        Some(Measure::Prometheus(Arc::new(Query {
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
    ) -> Vec<(Place, String, String)> {
        let Self::Prometheus(asked) = self else { return Vec::new() };
        let Asked { source: Source::Template(name), values, at, field, .. } = asked.as_ref() else { return Vec::new() };
        let template = templates(name);
        let missing = template.iter().flat_map(|template| template.query.keys());
        let missing = missing.filter(|key| !values.custom.contains_key(*key)).map(|key| {
            let message = format!("lacks {key}, which MetricTemplate {name} needs, add it");
            (*at, format!("{field}.templateVariables"), message)
        });
        missing.collect()
    }
}

/// Decodes a metric of `analysis`. One whose name is the filters' and that has a query too is looked at in both ways, as
/// Flagger does.
pub(super) fn decode(
    decoder: &mut Decoder,
    node: &Node,
    path: &str,
    around: &Surroundings,
    modes: &mut Vec<(Signal, SignalMode)>,
) -> Vec<MetricDocument> {
    let Some(mut fields) = decoder.fields(node, path) else { return Vec::new() };
    let name = fields.need("name", "name the metric", decoder);
    let name = name.and_then(|(node, path)| Some((node.at, decoder.text(node, &path)?, path)));
    let interval = fields.take("interval").and_then(|(node, path)| decoder.duration(node, &path)).unwrap_or(INTERVAL);
    let threshold = fields.take("threshold").and_then(|(node, path)| decoder.float(node, &path));
    let range = fields.take("thresholdRange").and_then(|(node, path)| {
        let mut bounds = decoder.fields(node, &path)?;
        let mut bound = |name| bounds.take(name).and_then(|(node, path)| decoder.float(node, &path));
        let range = Range { min: bound("min"), max: bound("max") };
        decoder.done(bounds);
        match range {
            Range { min: Some(min), max: Some(max) } if min > max => {
                decoder.wrong(node.at, &path, format!("has min {min} above max {max}, nothing would pass; swap them"));
            }
            Range { min: None, max: None } if decoder.strict => {
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
    let template = template.and_then(|(node, path)| template_ref(decoder, node, &path, namespace));
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
            let (at, field) = range_at.unwrap_or_else(|| (node.at, format!("{path}.threshold")));
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
        metrics.push(MetricDocument::Filters(Check { metric, range, interval: span(interval), mode }));
    }
    if !asks {
        return metrics;
    }
    let bounds = range.or_else(|| threshold.map(|max| Range { min: None, max: Some(max) }));
    if bounds.is_none() {
        let field = format!("{path}.thresholdRange");
        if decoder.strict {
            decoder.wrong(node.at, &field, "is missing, say what is good, like {max: 500}");
        } else {
            decoder.warn(node.at, &field, "is missing: as with Flagger, everything above 0 fails");
        }
    }
    let values = Values { interval: span(interval).to_string(), custom, ..around.values.clone() };
    let asked = |source| {
        let range = bounds.unwrap_or(Range { min: None, max: Some(0.0) });
        let (metric, values, field) = (name.clone(), values.clone(), path.to_owned());
        MetricDocument::Prometheus(Box::new(Asked { metric, source, range, mode, values, at: node.at, field }))
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

/// Decodes the spec of a `MetricTemplate`.
pub(super) fn decode_template(decoder: &mut Decoder, node: &Node) -> Option<TemplateDocument> {
    let mut fields = decoder.fields(node, "spec")?;
    let query = fields.need("query", "write it in PromQL", decoder);
    let query = query.and_then(|(node, path)| query_of(decoder, node, &path));
    let provider = fields.need("provider", "say who is asked, like {type: prometheus, address: …}", decoder);
    let server = provider.and_then(|(node, path)| provider_of(decoder, node, &path));
    decoder.done(fields);
    Some(TemplateDocument { server: server?, query: query? })
}

/// Decodes the address of a Prometheus.
pub(super) fn server_at(decoder: &mut Decoder, node: &Node, path: &str) -> Option<Server> {
    let text = decoder.text(node, path)?;
    let address = Url::parse(&text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if address.is_none() {
        decoder.wrong(node.at, path, "is not a URL of http or https, write one like http://127.0.0.1:9090");
    }
    Some(Server { address: address?, headers: HeaderMap::new() })
}

fn provider_of(decoder: &mut Decoder, node: &Node, path: &str) -> Option<Server> {
    let mut fields = decoder.fields(node, path)?;
    let kind = fields.need("type", "use prometheus", decoder);
    let kind = kind.and_then(|(node, path)| Some((node.at, decoder.text(node, &path)?, path)));
    if let Some((at, kind, path)) = kind.filter(|(_, kind, _)| kind != "prometheus") {
        decoder.wrong(at, &path, format!("{kind} is not asked by this server, use prometheus"));
    }
    let server = fields.need("address", "say where it is, like http://127.0.0.1:9090", decoder);
    let server = server.and_then(|(node, path)| server_at(decoder, node, &path));
    let headers = fields.take("headers").map(|(node, path)| headers(decoder, node, &path)).unwrap_or_default();
    if let Some((node, path)) = fields.take("secretRef") {
        decoder.wrong(node.at, &path, "names a Secret of Kubernetes, which this server has not, use headers");
    }
    if let Some((node, path)) = fields.take("insecureSkipVerify")
        && decoder.truth(node, &path) == Some(true)
    {
        decoder.wrong(
            node.at,
            &path,
            "is not carried out: certificates are always checked; use http or a trusted certificate",
        );
    }
    fields.ignore(&["region"], "it is for CloudWatch", decoder);
    decoder.done(fields);
    Some(Server { headers, ..server? })
}

/// What is in headers may be secret: neither errors nor logs show it.
fn headers(decoder: &mut Decoder, node: &Node, path: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let Some(mut fields) = decoder.fields(node, path) else { return headers };
    for (name, at, values, path) in fields.rest() {
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

fn query(decoder: &mut Decoder, node: &Node, path: &str) -> Option<(Template, Place, String)> {
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

fn template_ref(decoder: &mut Decoder, node: &Node, path: &str, namespace: &str) -> Option<CanaryName> {
    let mut fields = decoder.fields(node, path)?;
    let given = fields.take("namespace").and_then(|(node, path)| decoder.text(node, &path));
    let namespace = given.unwrap_or_else(|| namespace.to_owned());
    let name = fields.need("name", "name the MetricTemplate", decoder);
    let name = name.and_then(|(node, path)| decoder.reference_in("MetricTemplate", &namespace, node, &path));
    decoder.done(fields);
    Some(CanaryName::new(namespace, name?))
}

/// Returns what templates of a canary's metrics may hold.
pub(super) fn values(name: &CanaryName, target: &str, named: &BTreeMap<&str, String>) -> Values {
    let or_target = |what: &str| named.get(what).cloned().unwrap_or_else(|| target.to_owned());
    Values {
        name: name.name.clone(),
        namespace: name.namespace.clone(),
        target: target.to_owned(),
        service: or_target("service"),
        ingress: or_target("ingress"),
        route: or_target("route"),
        ..Values::default()
    }
}
