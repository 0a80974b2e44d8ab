//! An API server in memory, with what its controllers would do: enough of it to see a rollout through.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use serde_json::{Value, json};
use wingbeat_core::id::CanaryName;
use wingbeat_kubernetes::configs::{Part, Read, ReadFailure};
use wingbeat_kubernetes::crds::Group;
use wingbeat_kubernetes::pod_status::PodQuery;
use wingbeat_kubernetes::reconcile::{Outcome, Write};
use wingbeat_kubernetes::world::{Kind, ObjectKey};

/// See the module's documentation.
#[derive(Debug, Clone, Default)]
pub(crate) struct ApiServer {
    pub(crate) objects: BTreeMap<ObjectKey, Value>,
    /// Objects that were written or deleted since watches were asked last.
    changed: BTreeSet<ObjectKey>,
    version: u64,
    /// Texts of events, each with how often it happened.
    pub(crate) events: Vec<(String, String, u64)>,
    /// What is to be written with the engine's next record of a canary.
    noted: BTreeMap<CanaryName, Value>,
    /// How often a CanaryState was written.
    pub(crate) stored: usize,
    /// What was written by us, in short.
    pub(crate) log: Vec<String>,
    /// A Deployment whose Pods do not become ready.
    pub(crate) is_broken: Option<String>,
    /// A Deployment that lacks a Pod.
    pub(crate) is_incomplete: Option<String>,
    /// This write is refused.
    pub(crate) refuses: Option<&'static str>,
    /// The namespace is being deleted: nothing is made in it.
    pub(crate) namespace_ends: bool,
    /// Reads of this object fail.
    pub(crate) is_unreadable: Option<&'static str>,
    /// What was read by us, in short.
    pub(crate) reads: Vec<String>,
    /// How often Pods were listed.
    pub(crate) lists: usize,
    /// Of this write nobody is told what came of it.
    pub(crate) is_silent: Option<&'static str>,
}

pub(crate) fn key(kind: Kind, name: &str) -> ObjectKey {
    key_in("prod", kind, name)
}

fn key_in(namespace: &str, kind: Kind, name: &str) -> ObjectKey {
    ObjectKey::new(kind, if kind == Kind::Listener { "" } else { namespace }, name)
}

impl ApiServer {
    pub(crate) fn get(&self, kind: Kind, name: &str) -> Option<&Value> {
        self.objects.get(&key(kind, name))
    }

    /// Returns a value at a pointer of an object.
    pub(crate) fn at(&self, kind: Kind, name: &str, pointer: &str) -> Value {
        self.at_in("prod", kind, name, pointer)
    }

    /// The same of an object in another namespace.
    pub(crate) fn at_in(&self, namespace: &str, kind: Kind, name: &str, pointer: &str) -> Value {
        let object = self.objects.get(&key_in(namespace, kind, name));
        object.and_then(|it| it.pointer(pointer)).cloned().unwrap_or_default()
    }

    /// Returns what changed since this was called last, and forgets it.
    pub(crate) fn watch(&mut self) -> Vec<(ObjectKey, Option<Value>)> {
        let changed = std::mem::take(&mut self.changed).into_iter();
        changed.map(|key| (key.clone(), self.objects.get(&key).map(|object| observed(&key, object)))).collect()
    }

    /// Returns an object, as far as it is asked for.
    pub(crate) fn read(&mut self, read: &Read) -> Result<Option<Value>, ReadFailure> {
        let Read { key, part } = read;
        self.reads.push(format!("{part:?} {:?} {}", key.kind, key.name));
        if self.is_unreadable == Some(&key.name) {
            return Err(ReadFailure { why: format!("{} cannot be read", key.name), is_transient: true });
        }
        let object = self.objects.get(key);
        Ok(object.map(|object| if *part == Part::Whole { object.clone() } else { observed(key, object) }))
    }

    /// Lists the Pods of a Deployment: of one that cannot be pulled, and one that is ready.
    pub(crate) fn list(&mut self, query: &PodQuery) -> Value {
        self.lists += 1;
        let is_asked = |it: &&Value| {
            let labels = it["spec"]["selector"]["matchLabels"].as_object().unwrap().iter();
            let labels: Vec<String> = labels.map(|(key, value)| format!("{key}={}", value.as_str().unwrap())).collect();
            labels.join(",") == query.selector
        };
        let deployments = self.objects.iter().filter(|(key, _)| key.kind == Kind::Deployment).map(|(_, it)| it);
        let image = deployments.into_iter().find(is_asked).map(image).unwrap_or_default();
        let mut pods = vec![json!({"metadata": {"name": "a"}, "status": {}})];
        if image.contains("never") {
            let message = format!("Back-off pulling image {image:?}, attempt {}", self.lists);
            let waiting = json!({"waiting": {"reason": "ImagePullBackOff", "message": message}});
            let status = json!({"containerStatuses": [{"name": "c", "state": waiting}]});
            pods.push(json!({"metadata": {"name": "b"}, "status": status}));
        }
        json!({"items": pods})
    }

    /// Changes an object, as somebody does; it is made if it is not there.
    pub(crate) fn edit(&mut self, kind: Kind, name: &str, edit: impl FnOnce(&mut Value)) -> Value {
        self.edit_in("prod", kind, name, edit)
    }

    /// The same in another namespace.
    pub(crate) fn edit_in(&mut self, namespace: &str, kind: Kind, name: &str, edit: impl FnOnce(&mut Value)) -> Value {
        let key = key_in(namespace, kind, name);
        let before = self.objects.get(&key).cloned();
        let mut object = before.clone().unwrap_or_else(|| json!({"metadata": {"name": name}}));
        if !key.namespace.is_empty() {
            object["metadata"]["namespace"] = json!(key.namespace);
        }
        edit(&mut object);
        prune(kind, &mut object);
        // What is empty is not there.
        if let Some(metadata) = object["metadata"].as_object_mut() {
            let is_empty = |texts: &Value| texts.as_object().is_some_and(serde_json::Map::is_empty);
            metadata.retain(|field, texts| !["labels", "annotations"].contains(&field.as_str()) || !is_empty(texts));
        }
        if before.as_ref() == Some(&object) {
            return object;
        }
        self.version += 1;
        let generation = object.pointer("/metadata/generation").and_then(Value::as_u64).unwrap_or(0);
        let is_new_spec = before.as_ref().and_then(|it| it.get("spec")) != object.get("spec");
        object["metadata"]["generation"] = json!(generation + u64::from(is_new_spec));
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if before.is_none() {
            object["metadata"]["uid"] = json!(format!("uid-{}", self.version));
            object["metadata"]["creationTimestamp"] =
                json!(format!("2026-11-30T10:{:02}:{:02}Z", self.version / 60, self.version % 60));
        }
        self.changed.insert(key.clone());
        self.objects.insert(key, object.clone());
        object
    }

    /// Deletes an object, as somebody does: one that has finalizers stays until they are gone.
    pub(crate) fn delete(&mut self, kind: Kind, name: &str) {
        let has_finalizers = |it: &Value| it["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty());
        if self.get(kind, name).is_some_and(has_finalizers) {
            self.edit(kind, name, |it| it["metadata"]["deletionTimestamp"] = json!("2026-11-30T12:00:00Z"));
        } else {
            self.remove(&key(kind, name));
        }
    }

    /// Deletes an object of another namespace.
    pub(crate) fn delete_in(&mut self, namespace: &str, kind: Kind, name: &str) {
        self.remove(&key_in(namespace, kind, name));
    }

    /// Writes a CanaryState, with what waited for that.
    pub(crate) fn store(&mut self, name: &CanaryName, record: Option<&str>) {
        self.stored += 1;
        let noted = self.noted.remove(name).unwrap_or_else(|| json!({}));
        self.edit_in(&name.namespace, Kind::CanaryState, &name.name, |it| {
            merge(it, &json!({"status": {}}));
            if let Some(record) = record {
                merge(it, &json!({"status": {"format": 3, "epoch": 1, "record": record}}));
            }
            for (field, value) in noted.as_object().unwrap() {
                if value.is_null() {
                    it["status"].as_object_mut().unwrap().remove(field);
                } else {
                    it["status"][field] = value.clone();
                }
            }
        });
    }

    /// An object whose finalizers somebody has taken away is gone. What belongs to it is there for a moment.
    pub(crate) fn delete_by_force(&mut self, kind: Kind, name: &str) {
        let key = key(kind, name);
        self.objects.remove(&key);
        self.changed.insert(key);
    }

    /// An object is gone, and so is, at once, what belongs to it alone.
    fn remove(&mut self, key: &ObjectKey) {
        let Some(object) = self.objects.remove(key) else { return };
        self.changed.insert(key.clone());
        let uid = &object["metadata"]["uid"];
        let belongs = |it: &Value| {
            let owners = it["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
            !owners.is_empty() && owners.iter().all(|owner| owner["uid"] == *uid)
        };
        let dependents: Vec<ObjectKey> =
            self.objects.iter().filter(|(_, it)| belongs(it)).map(|(key, _)| key.clone()).collect();
        dependents.iter().for_each(|key| self.remove(key));
        if key.kind == Kind::Service {
            self.remove(&ObjectKey::new(Kind::EndpointSlice, &key.namespace, &format!("{}-x", key.name)));
        }
    }

    /// Merges a patch, if it is of the version that is there.
    fn patch(&mut self, key: &ObjectKey, patch: &Value) -> Outcome {
        let Some(before) = self.objects.get(key) else { return Outcome::Written };
        if patch["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"] {
            return Outcome::Failed;
        }
        let is_deleted = before["metadata"].get("deletionTimestamp").is_some();
        let after = self.edit_in(&key.namespace, key.kind, &key.name, |it| merge_patch(it, patch));
        if is_deleted && after["metadata"]["finalizers"] == json!([]) {
            self.remove(key);
        }
        Outcome::Written
    }

    /// Carries a write out.
    pub(crate) fn carry_out(&mut self, write: &Write) -> Outcome {
        let short = |verb: &str, key: &ObjectKey| format!("{verb} {:?} {}", key.kind, key.name);
        if let (Write::Apply(key, _), Some(refused)) = (write, self.refuses)
            && short("apply", key) == refused
        {
            return Outcome::Refused(format!("{refused} is refused"));
        }
        match write {
            Write::Apply(key, object) => {
                self.log.push(short("apply", key));
                self.edit_in(&key.namespace, key.kind, &key.name, |it| {
                    // A selector is replaced, and not merged.
                    if let (Kind::Service, Some(spec)) = (key.kind, it.get_mut("spec").and_then(Value::as_object_mut)) {
                        spec.remove("selector");
                    }
                    // What is applied no more is gone.
                    if let (Kind::HorizontalPodAutoscaler, Some(metadata)) =
                        (key.kind, it.get_mut("metadata").and_then(Value::as_object_mut))
                    {
                        metadata.remove("annotations");
                    }
                    if key.kind.is_config() {
                        // All that is in it is ours.
                        for field in ["data", "binaryData"] {
                            it.as_object_mut().unwrap().remove(field);
                        }
                        it["metadata"]["annotations"] = json!({});
                    }
                    merge(it, object);
                });
                Outcome::Written
            }
            Write::Scale(key, replicas) => {
                self.log.push(format!("{} to {replicas}", short("scale", key)));
                self.edit_in(&key.namespace, key.kind, &key.name, |it| it["spec"]["replicas"] = json!(replicas));
                Outcome::Written
            }
            Write::Status(key, object) => {
                self.log.push(short("status", key));
                let status = &object["status"];
                self.edit_in(&key.namespace, key.kind, &key.name, |it| {
                    merge(it, &json!({"status": status}));
                    it["status"]["conditions"] = status["conditions"].clone();
                });
                Outcome::Written
            }
            Write::Record(name, record) => {
                self.log.push("record".to_owned());
                self.noted.insert(name.clone(), record.clone());
                self.store(name, None);
                Outcome::Written
            }
            Write::Note(name, record) => {
                self.noted.insert(name.clone(), record.clone());
                Outcome::Written
            }
            Write::Merge(key, patch) => {
                let of =
                    |pointer: &str| patch.pointer(pointer).map(|it| format!(" {pointer} {it}")).unwrap_or_default();
                let what = ["/metadata/finalizers", "/metadata/ownerReferences", "/spec/selector"].map(of).concat();
                self.log.push(format!("{}{what}", short("merge", key)));
                self.patch(key, patch)
            }
            Write::Event(..) if self.namespace_ends => Outcome::NamespaceEnds,
            Write::Event(key, object) => {
                let (name, note) = (key.name.clone(), object["note"].as_str().unwrap().to_owned());
                if !self.events.iter().any(|(known, ..)| *known == name) {
                    self.events.push((name, note, 1));
                }
                Outcome::Written
            }
            Write::Repeat(key, series) => {
                let count = series["series"]["count"].as_u64().unwrap();
                for event in self.events.iter_mut().filter(|(name, ..)| *name == key.name) {
                    event.2 = count;
                }
                Outcome::Written
            }
        }
    }

    /// What the controllers of Deployments and of slices do, at once.
    pub(crate) fn run_controllers(&mut self) {
        let all: Vec<Value> =
            self.objects.iter().filter(|(key, _)| key.kind == Kind::Deployment).map(|(_, it)| it.clone()).collect();
        for deployment in &all {
            let name = deployment["metadata"]["name"].as_str().unwrap().to_owned();
            let is_broken = self.is_broken.as_deref() == Some(&name);
            let is_incomplete = self.is_incomplete.as_deref() == Some(&name);
            let namespace = namespace_of(deployment);
            self.edit_in(&namespace, Kind::Deployment, &name, |it| {
                roll(it, is_broken);
                if is_incomplete {
                    it["status"]["availableReplicas"] = json!(1);
                }
            });
        }
        let services: Vec<Value> =
            self.objects.iter().filter(|(key, _)| key.kind == Kind::Service).map(|(_, it)| it.clone()).collect();
        for service in services {
            let selector = service["spec"]["selector"].clone();
            let namespace = namespace_of(&service);
            let addresses: Vec<String> = self
                .objects
                .iter()
                .filter(|(key, _)| key.kind == Kind::Deployment && key.namespace == namespace)
                .filter(|(_, it)| {
                    let labels = &it["spec"]["template"]["metadata"]["labels"];
                    selector.as_object().unwrap().iter().all(|(key, value)| labels.get(key) == Some(value))
                })
                .flat_map(|(_, it)| pods(it))
                .collect();
            let name = service["metadata"]["name"].as_str().unwrap();
            self.edit_in(&namespace, Kind::EndpointSlice, &format!("{name}-x"), |it| {
                it["metadata"]["labels"] = service["metadata"]["labels"].clone();
                let endpoints: Vec<Value> =
                    addresses.iter().map(|it| json!({"addresses": [it], "conditions": {"ready": true}})).collect();
                it["endpoints"] = json!(endpoints);
                it["ports"] = json!([{"name": "http", "port": 9898}]);
            });
        }
    }

    /// Returns how often an event happened, by its text.
    pub(crate) fn texts(&self) -> Vec<&str> {
        self.events.iter().map(|(_, text, _)| text.as_str()).collect()
    }
}

/// Takes out of a status what the definition of its kind does not have, as an API server does, in silence.
fn prune(kind: Kind, object: &mut Value) {
    static SCHEMAS: OnceLock<BTreeMap<String, Value>> = OnceLock::new();
    let schemas = SCHEMAS.get_or_init(|| {
        let of_kind = |definition: Value| {
            let kind = definition["spec"]["names"]["kind"].as_str().unwrap().to_owned();
            let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
            (kind, schema.clone())
        };
        Group::Wingbeat.definitions().into_iter().map(of_kind).collect()
    });
    if let (Some(schema), Some(status)) = (schemas.get(&format!("{kind:?}")), object.get_mut("status")) {
        prune_by(schema, status);
    }
}

fn prune_by(schema: &Value, value: &mut Value) {
    if schema["x-kubernetes-preserve-unknown-fields"] == json!(true) {
        return;
    }
    let (known, others) = (&schema["properties"], &schema["additionalProperties"]);
    match value {
        Value::Object(fields) => {
            fields.retain(|field, _| known.get(field).is_some() || !others.is_null());
            for (field, value) in fields {
                prune_by(known.get(field).unwrap_or(others), value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| prune_by(&schema["items"], item)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Returns an object as a watch shows it: of what configures Pods, metadata alone.
pub(crate) fn observed(key: &ObjectKey, object: &Value) -> Value {
    if key.kind.is_config() { json!({"metadata": object["metadata"]}) } else { object.clone() }
}

fn namespace_of(object: &Value) -> String {
    object["metadata"]["namespace"].as_str().unwrap_or("prod").to_owned()
}

/// A ReplicaSet for each template, and Pods that are ready at once, unless their image says otherwise.
fn roll(deployment: &mut Value, is_broken: bool) {
    let image = image(deployment);
    let template = deployment["spec"]["template"].to_string();
    if deployment["metadata"]["annotations"]["test/template"] != json!(template) {
        let before = deployment["metadata"]["annotations"]["deployment.kubernetes.io/revision"].as_str();
        let next = before.and_then(|it| it.parse::<u64>().ok()).unwrap_or(0) + 1;
        let annotations = json!({"test/template": template, "deployment.kubernetes.io/revision": next.to_string()});
        merge(deployment, &json!({"metadata": {"annotations": annotations}}));
    }
    let replicas = deployment["spec"]["replicas"].as_u64().unwrap_or(1);
    let available = if is_broken || image.contains("never") { 0 } else { replicas };
    let conditions = if image.contains("hopeless") && replicas > 0 {
        json!([{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded"}])
    } else {
        json!([{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}])
    };
    deployment["status"] = json!({
        "observedGeneration": deployment["metadata"]["generation"],
        "replicas": replicas, "updatedReplicas": replicas, "readyReplicas": available,
        "availableReplicas": available, "conditions": conditions,
    });
}

pub(crate) fn image(deployment: &Value) -> String {
    deployment["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned()
}

/// Returns the addresses of its ready Pods, which say whose they are.
fn pods(deployment: &Value) -> Vec<String> {
    let is_primary = deployment["metadata"]["name"].as_str().unwrap().ends_with("-primary");
    let version: u64 = image(deployment).bytes().map(u64::from).sum::<u64>() % 250;
    let ready = deployment["status"]["readyReplicas"].as_u64().unwrap_or(0);
    (1..=ready).map(|pod| format!("10.{}.{version}.{pod}", if is_primary { 1 } else { 2 })).collect()
}

/// The same where null takes a field away.
fn merge_patch(into: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *into = patch.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    let fields = into.as_object_mut().unwrap();
    for (field, value) in patch {
        if value.is_null() {
            fields.remove(field);
        } else {
            merge_patch(fields.entry(field.clone()).or_insert(Value::Null), value);
        }
    }
}

/// Merges what is written into what is there; lists are replaced.
pub(crate) fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (field, value) in from {
                merge(into.entry(field.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}
