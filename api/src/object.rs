//! Objects of an API server, read by the decoder that reads files.
//!
//! An object has no file and no lines: what is wrong with it is told by its field.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use wingbeat_core::id::CanaryName;
use wingbeat_xds_server::model::Listener;

use crate::admit::{Admission, Content, admit};
use crate::alert_provider::Channel;
use crate::canary::CanaryDocument;
use crate::desired_state::{CanaryConfig, Service, Workload};
use crate::hosts;
use crate::identity::DocumentId;
use crate::metric::TemplateDocument;
use crate::platform::Platform;
use crate::report::Report;
use crate::set::assemble;
use crate::yaml::Node;

/// What an object is of, where it has no name.
const UNNAMED: &str = "object";

/// An object, right or wrong.
#[derive(Debug)]
pub struct Object {
    content: Option<Content>,
    report: Report,
    named: Vec<DocumentId>,
}

/// Where a canary is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exposure {
    /// Domains.
    pub hosts: Vec<String>,
    /// Listeners that serve them.
    pub listeners: Vec<String>,
}

impl Object {
    /// Reads an object of one of our kinds. What only an API server writes into it is left out.
    pub fn read(object: &Value) -> Self {
        let of = |pointer: &str| object.pointer(pointer).cloned().unwrap_or_default();
        let document = json!({
            "apiVersion": of("/apiVersion"),
            "kind": of("/kind"),
            "metadata": {"name": of("/metadata/name"), "namespace": of("/metadata/namespace")},
            "spec": object.get("spec").cloned().unwrap_or_else(|| json!({})),
        });
        let Admission { document: content, report, references, name, .. } =
            admit(UNNAMED, &Node::from_json(&document), Platform::Cluster);
        let named = references.into_iter().map(|reference| {
            let namespace = reference.namespace.as_deref().unwrap_or(&name.namespace);
            DocumentId::new(reference.kind, CanaryName::new(namespace, reference.name.as_str()))
        });
        Self { content, report, named: named.collect() }
    }

    /// Gives an AlertProvider the token that its messages are posted with.
    pub fn with_token(mut self, token: Option<String>) -> Self {
        if let Some(Content::Channel(channel)) = &mut self.content {
            Arc::make_mut(channel).token = token;
        }
        self
    }

    /// Returns what is wrong with it, each by its field.
    pub fn errors(&self) -> Vec<String> {
        self.report.errors.iter().map(|problem| by_field(&problem.field, &problem.message)).collect()
    }

    /// Returns what is taken all the same, and has no effect or another one than it may seem.
    pub fn warnings(&self) -> Vec<String> {
        self.report.warnings.iter().map(|problem| by_field(&problem.field, &problem.message)).collect()
    }

    /// Returns the documents that it names.
    pub fn named(&self) -> &[DocumentId] {
        &self.named
    }

    /// Returns the listener, if it is one.
    pub const fn listener(&self) -> Option<&Arc<Listener>> {
        match &self.content {
            Some(Content::Listener(listener)) => Some(listener),
            Some(Content::Canary(_) | Content::Workload(_) | Content::Channel(_) | Content::Template(_)) | None => None,
        }
    }

    /// Returns how it is reached, if it is a Canary.
    pub fn service(&self) -> Option<&Service> {
        self.canary().map(|canary| &canary.service)
    }

    /// Returns how it is managed, with what it names, or all that is wrong with it.
    pub fn configure(
        &self,
        named: &BTreeMap<DocumentId, Self>,
        exposure: Exposure,
        workload: Workload,
    ) -> Result<CanaryConfig, Vec<String>> {
        let mut errors = self.errors();
        let template = |name: &CanaryName| -> Option<TemplateDocument> {
            match named.get(&DocumentId::new("MetricTemplate", name.clone()))?.content.as_ref()? {
                Content::Template(template) => Some(TemplateDocument::clone(template)),
                Content::Canary(_) | Content::Workload(_) | Content::Listener(_) | Content::Channel(_) => None,
            }
        };
        let channel = |name: &CanaryName| -> Option<Channel> {
            match named.get(&DocumentId::new("AlertProvider", name.clone()))?.content.as_ref()? {
                Content::Channel(channel) => Some(Channel::clone(channel)),
                Content::Canary(_) | Content::Workload(_) | Content::Listener(_) | Content::Template(_) => None,
            }
        };
        // Where it is reached is said by who calls.
        for id in self.named.iter().filter(|id| id.kind != "Listener") {
            match named.get(id) {
                None => errors.push(format!("there is no {id}, add it or name another")),
                Some(other) => errors.extend(other.errors().into_iter().map(|error| format!("{id}: {error}"))),
            }
        }
        let Some(canary) = self.canary().filter(|_| errors.is_empty()) else { return Err(errors) };
        let misuse = canary.metrics.iter().flat_map(|metric| metric.misuse(template));
        errors.extend(misuse.map(|(_, field, message)| by_field(&field, &message)));
        if !errors.is_empty() {
            return Err(errors);
        }
        let config = assemble(canary, workload, channel, template);
        let service = Service { hosts: exposure.hosts, listeners: exposure.listeners, ..config.service };
        Ok(CanaryConfig { service, ..config })
    }

    fn canary(&self) -> Option<&CanaryDocument> {
        match &self.content {
            Some(Content::Canary(canary)) => Some(canary),
            Some(Content::Workload(_) | Content::Listener(_) | Content::Channel(_) | Content::Template(_)) | None => {
                None
            }
        }
    }
}

/// Returns the form in which hosts are compared.
pub fn host_key(host: &str) -> String {
    hosts::key(host)
}

fn by_field(field: &str, message: &str) -> String {
    if field.is_empty() { message.to_owned() } else { format!("{field}: {message}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wingbeat_core::id::Revision;
    use wingbeat_core::rollout::Handover;

    fn canary(api: &str, spec: &Value) -> Object {
        Object::read(&json!({
            "apiVersion": api, "kind": "Canary",
            "metadata": {"name": "backend", "namespace": "prod", "uid": "u", "managedFields": [{}], "generation": 4},
            "spec": spec,
            "status": {"phase": "Failed"},
        }))
    }

    fn spec() -> Value {
        json!({
            "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "backend"},
            "autoscalerRef": {"kind": "HorizontalPodAutoscaler", "name": "backend"},
            "upstreamRef": {"kind": "Upstream", "name": "backend"},
            "progressDeadlineSeconds": 60.0,
            "service": {"port": 9898, "portName": "http", "apex": {"labels": {"a": "b"}}, "headless": true},
            "analysis": {
                "interval": "10s", "threshold": 10, "stepWeight": 5, "maxWeight": 50,
                "alerts": [{"name": "on-call", "severity": "", "providerRef": {"name": "on-call", "namespace": "ops"}}],
            },
        })
    }

    fn configure(object: &Object, named: &[Value]) -> Result<CanaryConfig, Vec<String>> {
        let named = named.iter().map(|value| {
            let of = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap().to_owned();
            let name = CanaryName::new(of("/metadata/namespace"), of("/metadata/name"));
            (DocumentId::new(of("/kind"), name), Object::read(value))
        });
        let exposure = Exposure { hosts: vec!["backend".into()], listeners: vec!["public".into()] };
        let workload = Workload { revision: Revision::new("1"), revisions: BTreeMap::new(), http2: false };
        object.configure(&named.collect(), exposure, workload)
    }

    #[test]
    fn a_canary_of_either_group_is_read_as_a_file_is() {
        let provider = json!({
            "apiVersion": "flagger.app/v1beta1", "kind": "AlertProvider",
            "metadata": {"name": "on-call", "namespace": "ops"},
            "spec": {"type": "slack", "address": "https://hooks.slack.com/x"},
        });
        for api in ["wingbeat.dev/v1alpha1", "flagger.app/v1beta1"] {
            let object = canary(api, &spec());
            assert_eq!(object.errors(), Vec::<String>::new(), "{api}");
            assert_eq!(object.warnings(), ["spec.upstreamRef: has no effect yet"], "{api}");
            let config = configure(&object, std::slice::from_ref(&provider)).unwrap();
            assert_eq!((config.plan.handover(), config.plan.kind()), (Handover::Copy, "Deployment"));
            assert_eq!(config.alerts.len(), 1);
            assert_eq!(
                (config.service.hosts, config.service.listeners),
                (vec!["backend".into()], vec!["public".into()])
            );
            let missing = configure(&object, &[]).unwrap_err();
            assert_eq!(missing, ["there is no AlertProvider on-call.ops, add it or name another"]);
        }
    }

    #[test]
    fn what_is_wrong_is_told_by_its_field() {
        let mut wrong = spec();
        *wrong.pointer_mut("/targetRef/kind").unwrap() = json!("DaemonSet");
        *wrong.pointer_mut("/analysis/interval").unwrap() = json!("soon");
        let object = canary("wingbeat.dev/v1alpha1", &wrong);
        assert_eq!(
            object.errors(),
            [
                "spec.analysis.interval: \"soon\" is not a duration, write one like 500ms, 10s or 1m30s",
                "spec.targetRef.kind: DaemonSet is not what this server has, use Deployment",
            ]
        );
        assert_eq!(configure(&object, &[]).unwrap_err().len(), 3, "and what is missing");
        let none = Object::read(&json!({"kind": "Canary"}));
        assert!(!none.errors().is_empty());
    }

    #[test]
    fn a_listener_may_be_a_default() {
        let object = Object::read(&json!({
            "apiVersion": "wingbeat.dev/v1alpha1", "kind": "Listener", "metadata": {"name": "public"},
            "spec": {"address": "0.0.0.0", "port": 8080, "default": true},
        }));
        assert_eq!((object.errors(), object.warnings()), (Vec::<String>::new(), Vec::<String>::new()));
        assert_eq!(object.listener().map(|it| it.port), Some(8080));
        assert!(object.service().is_none());
    }
}
