//! From a Canary and what it names to how it is managed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;
use wingbeat_api::DocumentId;
use wingbeat_api::desired_state::{CanaryConfig, Workload};
use wingbeat_api::object::{Exposure, Object, host_key};
use wingbeat_core::id::{CanaryName, Revision};
use wingbeat_xds_server::model::Listener;

use super::channels::{ChannelSecrets, Provider, without_alerts};
use crate::object::{is_true, list, text};
use crate::world::{Kind, ObjectKey, World};

/// Where a Canary of Flagger's API, which has no field for it, names the listeners that serve it, with commas between.
const LISTENERS_ANNOTATION: &str = "wingbeat.dev/listeners";
/// Application protocols of Kubernetes and Istio that are HTTP/2 to the Pods.
const HTTP2: [&str; 4] = ["grpc", "http2", "h2c", "kubernetes.io/h2c"];

/// A canary that can be managed, but for what others may have.
#[derive(Debug)]
pub(super) struct Configuration {
    pub(super) config: Arc<CanaryConfig>,
    pub(super) exposure: Exposure,
    /// What is not carried out.
    pub(super) warnings: Vec<String>,
    /// Who is not alerted, and why.
    pub(super) muted: Vec<String>,
}

/// What a Canary names, as far as it is there.
#[derive(Debug, Default)]
struct Named {
    documents: BTreeMap<DocumentId, Object>,
    /// AlertProviders whose Secrets are being read.
    pending: Vec<ObjectKey>,
    /// Those whose Secrets cannot be used, and why.
    incomplete: BTreeMap<ObjectKey, String>,
}

/// The Listeners, by name.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    all: BTreeMap<String, ListenerObject>,
    has_changed: bool,
}

#[derive(Debug)]
struct ListenerObject {
    /// What holds: of one that is wrong, what it said before.
    listener: Option<Arc<Listener>>,
    serves: Serves,
    errors: Vec<String>,
}

/// Which canaries a Listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Serves {
    /// Those that name it.
    Named,
    /// Those that name none, too.
    Default,
}

impl Listeners {
    /// Takes a Listener.
    pub(super) fn apply(&mut self, object: &Value) {
        let Some(name) = text(object, "/metadata/name") else { return };
        let read = Object::read(object);
        let errors = read.errors();
        let before = self.all.get(name).and_then(|before| before.listener.clone());
        let listener = read.listener().filter(|_| errors.is_empty()).cloned();
        let serves = if is_true(object, "/spec/default") { Serves::Default } else { Serves::Named };
        self.has_changed |= listener.is_some() && listener != before;
        self.all.insert(name.to_owned(), ListenerObject { listener: listener.or(before), serves, errors });
    }

    pub(super) fn delete(&mut self, name: &str) {
        self.has_changed |= self.all.remove(name).is_some_and(|object| object.listener.is_some());
    }

    /// Returns all that hold, if they are others than when this was asked last.
    pub(super) fn take_changed(&mut self) -> Option<Vec<Listener>> {
        let all = || self.all.values().filter_map(|object| object.listener.as_deref().cloned());
        std::mem::take(&mut self.has_changed).then(|| all().collect())
    }

    /// Returns those that serve a canary which names these, or none.
    fn serving(&self, named: Vec<String>) -> Result<Vec<String>, Vec<String>> {
        if named.is_empty() {
            let default = self.all.iter().filter(|(_, it)| it.serves == Serves::Default && it.listener.is_some());
            let default: Vec<String> = default.map(|(name, _)| name.clone()).collect();
            let none = "spec.service.listeners: no Listener serves it, name one, or set spec.default of one to true";
            return if default.is_empty() { Err(vec![none.to_owned()]) } else { Ok(default) };
        }
        let problem = |name: &String| match self.all.get(name) {
            Some(ListenerObject { listener: Some(_), .. }) => None,
            Some(ListenerObject { errors, .. }) => Some(format!("Listener {name}: {}", errors.join("; "))),
            None => Some(format!("spec.service.listeners: there is no Listener {name}, add it or name another")),
        };
        let problems: Vec<String> = named.iter().filter_map(problem).collect();
        if problems.is_empty() { Ok(named) } else { Err(problems) }
    }
}

impl Configuration {
    /// Reads a Canary with what it names, or all that is wrong. By names of its Service that others have it is not reached.
    pub(super) fn read(
        canary: &Value,
        name: &CanaryName,
        revision: &Revision,
        world: &World,
        listeners: &Listeners,
        channels: &ChannelSecrets,
        taken: &BTreeSet<String>,
    ) -> Result<Self, Vec<String>> {
        let mut object = Object::read(canary);
        let Named { documents: named, pending, incomplete } = Named::of(&object, world, channels);
        let left_out: BTreeSet<ObjectKey> = incomplete.keys().cloned().chain(pending).collect();
        if !left_out.is_empty() {
            object = Object::read(&without_alerts(canary, &name.namespace, &left_out));
        }
        let muted = incomplete
            .iter()
            .map(|(key, why)| format!("AlertProvider {}.{} gets no alerts: {why}", key.name, key.namespace));
        let service = object.service();
        let own = service.map(|service| service.listeners.clone()).unwrap_or_default();
        let serving = listeners.serving(if own.is_empty() { annotated(canary) } else { own });
        let mut errors = Vec::new();
        let serving = serving.unwrap_or_else(|problems| {
            errors.extend(problems);
            Vec::new()
        });
        let own = service.map(|service| service.hosts.as_slice()).unwrap_or_default();
        let exposure = Exposure { hosts: hosts(own, canary, name, taken), listeners: serving };
        let workload = Workload { revision: revision.clone(), revisions: BTreeMap::new(), http2: is_http2(canary) };
        let config = object.configure(&named, exposure.clone(), workload);
        let not_reached = taken.iter().map(|host| format!("another canary answers to {host}: this one does not"));
        let warnings = object.warnings().into_iter().chain(not_reached).collect();
        match config {
            Ok(config) if errors.is_empty() => {
                Ok(Self { config: Arc::new(config), exposure, warnings, muted: muted.collect() })
            }
            Ok(_) => Err(errors),
            Err(mut more) => {
                more.extend(errors);
                Err(more)
            }
        }
    }
}

/// Returns the name of the Service of the target's name.
pub(super) fn service_name(canary: &Value) -> &str {
    let target = text(canary, "/spec/targetRef/name").unwrap_or_default();
    text(canary, "/spec/service/name").filter(|name| !name.is_empty()).unwrap_or(target)
}

/// Returns name and number by which the port of endpoints is found.
pub(super) fn port(canary: &Value) -> (&str, u16) {
    let number = |field: &str| canary.pointer(field).and_then(Value::as_u64).filter(|number| *number > 0);
    let number = number("/spec/service/targetPort").or_else(|| number("/spec/service/port"));
    let name = text(canary, "/spec/service/portName").filter(|name| !name.is_empty()).unwrap_or("http");
    (name, number.and_then(|number| u16::try_from(number).ok()).unwrap_or(0))
}

impl Named {
    /// Returns what is there of the documents that a Canary names, AlertProviders with what their Secrets hold.
    fn of(canary: &Object, world: &World, channels: &ChannelSecrets) -> Self {
        let mut named = Self::default();
        for id in canary.named() {
            let kind = match id.kind.as_str() {
                "MetricTemplate" => Kind::MetricTemplate,
                "AlertProvider" => Kind::AlertProvider,
                "Listener" => Kind::Listener,
                _ => continue,
            };
            let key = ObjectKey::new(kind, &id.name.namespace, &id.name.name);
            let Some(object) = world.get(&key) else { continue };
            let document = if kind == Kind::AlertProvider {
                channels.complete(&object)
            } else {
                Provider::Complete(Object::read(&object))
            };
            match document {
                Provider::Complete(document) => drop(named.documents.insert(id.clone(), document)),
                Provider::Pending => named.pending.push(key),
                Provider::Incomplete(why) => drop(named.incomplete.insert(key, why)),
            }
        }
        named
    }
}

fn annotated(canary: &Value) -> Vec<String> {
    let annotations = canary.pointer("/metadata/annotations");
    let listed = annotations.and_then(|all| all.get(LISTENERS_ANNOTATION)).and_then(Value::as_str).unwrap_or_default();
    let names: BTreeSet<&str> = listed.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    names.into_iter().map(str::to_owned).collect()
}

/// Returns the hosts that it answers to: its own, and those of its Service in the cluster that nobody else has. Envoy does not
/// look at the port.
fn hosts(own: &[String], canary: &Value, name: &CanaryName, taken: &BTreeSet<String>) -> Vec<String> {
    let of_service = names_of_service(canary, &name.namespace).into_iter().filter(|host| !taken.contains(host));
    let mut keys = BTreeSet::new();
    own.iter().cloned().chain(of_service).filter(|host| keys.insert(host_key(host))).collect()
}

/// Returns the names by which its Service is reached in the cluster.
pub(super) fn names_of_service(canary: &Value, namespace: &str) -> [String; 4] {
    let service = service_name(canary);
    [
        service.to_owned(),
        format!("{service}.{namespace}"),
        format!("{service}.{namespace}.svc"),
        format!("{service}.{namespace}.svc.cluster.local"),
    ]
}

/// Returns the hosts that a Canary names itself.
pub(super) fn own_hosts(canary: &Value) -> BTreeSet<String> {
    list(canary, "/spec/service/hosts").iter().filter_map(Value::as_str).map(host_key).collect()
}

fn is_http2(canary: &Value) -> bool {
    let of = |field: &str| text(canary, &format!("/spec/service/{field}")).filter(|it| !it.is_empty());
    match of("appProtocol") {
        Some(protocol) => HTTP2.iter().any(|it| protocol.eq_ignore_ascii_case(it)),
        None => of("portName").is_some_and(|name| name.split('-').next().is_some_and(|it| HTTP2.contains(&it))),
    }
}

/// Returns true for a Canary whose target is a Deployment.
pub(super) fn has_deployment(canary: &Value) -> bool {
    text(canary, "/spec/targetRef/kind") == Some("Deployment")
}

/// Returns when an object was made, as an API server says it, which sorts as text.
pub(super) fn created(object: &Value) -> String {
    text(object, "/metadata/creationTimestamp").unwrap_or_default().to_owned()
}
