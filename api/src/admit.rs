//! From a document's text to its typed value, as far as a platform takes it, and everything that is wrong with it.

use std::sync::Arc;

use wingbeat_core::id::CanaryName;
use wingbeat_xds_server::model::Listener;

use super::canary::{self, CanaryDocument};
use super::decoder::{Decoder, HostName, Reference};
use super::identity::{DocumentId, placeholders};
use super::metric::{self, TemplateDocument};
use super::platform::{Api, Platform, Terms};
use super::report::Report;
use super::yaml::{Node, Position};
use super::{listener, outgoing, shape, workload};
use crate::alert_provider::Channel;
use crate::desired_state::Workload;

/// What there is.
const KINDS: &str = "Canary, Workload, Listener, MetricTemplate or AlertProvider";

/// What a document says, shared: it is the same until its file says something else.
#[derive(Debug)]
pub(crate) enum Content {
    Canary(Arc<CanaryDocument>),
    Workload(Arc<Workload>),
    Listener(Arc<Listener>),
    Channel(Arc<Channel>),
    Template(Arc<TemplateDocument>),
}

/// What became of a document.
#[derive(Debug)]
pub(crate) struct Admission {
    /// What it is called, if it has a name, whether or not it is right.
    pub(crate) id: Option<DocumentId>,
    /// Its name; a stand-in if it has none.
    pub(crate) name: CanaryName,
    /// What it says. Where something is wrong with it, this is what the rest says, if anything: what is wrong between it
    /// and other documents is told too.
    pub(crate) document: Option<Content>,
    /// What is wrong with it, and what is taken all the same, in the order of the text.
    pub(crate) report: Report,
    /// Documents that it names.
    pub(crate) references: Vec<Reference>,
    /// Host names of endpoints, which may not resolve.
    pub(crate) hosts: Vec<HostName>,
}

/// Reads a document of ours for a platform.
pub(crate) fn admit(file: &str, node: &Node, platform: Platform) -> Admission {
    let mut decoder = Decoder::new(file, Terms { api: Api::Wingbeat, platform });
    let (name, kind, document) = decode(&mut decoder, node).unwrap_or((None, None, None));
    let unfilled = placeholders(node);
    let is_wrong = |(place, _): &&(Position, &str)| {
        decoder.report.errors.iter().any(|error| (error.line, error.column) == (place.line, place.column))
    };
    // What else is wrong follows from it, or is yet to be seen: it is no document, but makes one.
    if let Some((place, name)) = unfilled.iter().find(is_wrong) {
        decoder.report.errors.clear();
        let message = format!("${{{name}}} is to be filled in by something else, give what that writes");
        decoder.wrong(*place, "", message);
    }
    let id = kind.zip(name.clone()).map(|(kind, name)| DocumentId::new(kind, name));
    // Whose namespace is not known refers to nobody.
    let references = if id.is_some() { decoder.references } else { Vec::new() };
    // Without a name nothing comes of it.
    let document = document.filter(|_| id.is_some());
    let mut report = decoder.report;
    report.errors.sort();
    report.warnings.sort();
    Admission { id, name: name.unwrap_or_else(unnamed), document, report, references, hosts: decoder.hosts }
}

/// The parts of a document, as far as they are there.
type Parts = (Option<CanaryName>, Option<String>, Option<Content>);

fn decode(decoder: &mut Decoder, node: &Node) -> Option<Parts> {
    let mut fields = decoder.fields(node, "", &shape::DOCUMENT)?;
    let api = fields.need("apiVersion", "use wingbeat.dev/v1alpha1", decoder);
    let kind = fields.need("kind", &format!("use {KINDS}"), decoder);
    let metadata = fields.need("metadata", "name the document", decoder);
    let spec = fields.need("spec", "say what is wanted", decoder);
    let api = api.and_then(|(node, path)| {
        let text = decoder.text(node, &path)?;
        let api = Api::parse(&text);
        if api.is_none() {
            decoder.wrong(node.at, &path, format!("there is no {text}, use wingbeat.dev/v1alpha1"));
        }
        api
    });
    decoder.terms.api = api.unwrap_or(Api::Wingbeat);
    decoder.done(fields);
    let name = metadata.and_then(|(node, path)| self::metadata(decoder, node, &path));
    let (Some(_), Some((kind, path)), Some((spec, _))) = (api, kind, spec) else { return Some((name, None, None)) };
    let Some(kind_text) = decoder.text(kind, &path) else { return Some((name, None, None)) };
    // What else is wrong is told too.
    let stand_in = name.clone().unwrap_or_else(unnamed);
    let document = match kind_text.as_str() {
        "Canary" => canary::decode(decoder, stand_in, spec).map(|it| Content::Canary(Arc::new(it))),
        "Workload" => workload::decode(decoder, spec).map(|it| Content::Workload(Arc::new(it))),
        "Listener" => listener::decode(decoder, spec, &stand_in.name).map(|it| Content::Listener(Arc::new(it))),
        "AlertProvider" => outgoing::decode_channel(decoder, spec).map(|it| Content::Channel(Arc::new(it))),
        "MetricTemplate" => metric::decode_template(decoder, spec).map(|it| Content::Template(Arc::new(it))),
        other => {
            decoder.wrong(kind.at, &path, format!("there is no {other}, use {KINDS}"));
            None
        }
    };
    Some((name, Some(kind_text), document))
}

fn unnamed() -> CanaryName {
    CanaryName::new("default", "unnamed")
}

fn metadata(decoder: &mut Decoder, node: &Node, path: &str) -> Option<CanaryName> {
    let mut fields = decoder.fields(node, path, &shape::METADATA)?;
    let name = fields.need("name", "name the document", decoder);
    let namespace = fields.take("namespace");
    let label = |decoder: &mut Decoder, taken: Option<(&Node, String)>| {
        let (node, path) = taken?;
        let text = decoder.text(node, &path)?;
        let right = !text.is_empty()
            && text.len() <= 253
            && text
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.'));
        if !right {
            decoder.wrong(node.at, &path, format!("{text:?} is not a name, use lower case letters, digits, - and ."));
        }
        right.then_some(text)
    };
    let name = label(decoder, name);
    let namespace = if namespace.is_some() { label(decoder, namespace) } else { Some("default".to_owned()) };
    decoder.done(fields);
    Some(CanaryName::new(namespace?, name?))
}
