//! Writes: applied once, by managers of ours, and by nobody who has no permit.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use wingbeat_core::time::Span;
use wingbeat_kubernetes::crds::Group;
use wingbeat_kubernetes::edge::act::Writer;
use wingbeat_kubernetes::failure::Failure;
use wingbeat_kubernetes::permit::Permits;
use wingbeat_kubernetes::resource::{ObjectRef, Resource};
use wingbeat_kubernetes::world::Kind;
use wingbeat_kubernetes::writes::{Accepted, Change, Report, Write};

use crate::support::{DEADLINE, Place};

struct Act {
    writer: Writer,
    reports: UnboundedReceiver<Report>,
}

impl Act {
    async fn start(place: &Place, permits: Permits) -> Self {
        let (sender, reports) = unbounded_channel();
        let report = move |report| drop(sender.send(report));
        let (writer, _task) = Writer::start(place.connect().await, place.clock, permits, report);
        Self { writer, reports }
    }

    /// Writes and returns what came of it.
    async fn write(
        &mut self,
        object: &ObjectRef,
        change: Change,
        basis: Option<&str>,
    ) -> Result<Option<String>, Failure> {
        let write = Write { object: object.clone(), change, basis: basis.map(str::to_owned) };
        let Accepted::Queued(ticket) = self.writer.put(write) else { panic!("it is not queued") };
        let report = self.report().await;
        assert_eq!((report.ticket, &report.object), (ticket, object));
        report.result.map_err(|error| error.failure)
    }

    async fn report(&mut self) -> Report {
        tokio::time::timeout(DEADLINE, self.reports.recv()).await.expect("in time").expect("a report")
    }
}

fn service(place: &Place, name: &str, port: u16) -> (ObjectRef, Value) {
    let object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": place.namespace, "name": name, "labels": {"wingbeat.dev/canary": name}},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": port}]},
    });
    (ObjectRef::new(Resource::SERVICE, &place.namespace, name), object)
}

/// Returns who has written an object, with how.
fn managers(object: &Value) -> BTreeMap<String, String> {
    let fields = object["metadata"]["managedFields"].as_array().expect("managed fields").iter();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    fields.map(|entry| (text(&entry["manager"]), text(&entry["operation"]))).collect()
}

#[tokio::test]
async fn real_kubernetes_an_identical_apply_changes_nothing_and_is_not_sent_twice() {
    let Some(place) = Place::begin("real_kubernetes_an_identical_apply").await else { return };
    let mut act = Act::start(&place, place.permit(0, Span::from_secs(600))).await;
    let (of, object) = service(&place, "backend", 80);
    let first = act.write(&of, Change::Apply(object.clone()), None).await.expect("applied");
    // From another writer, which does not know of the first one: the API server leaves the object as it is.
    let mut other = Act::start(&place, place.permit(0, Span::from_secs(600))).await;
    let second = other.write(&of, Change::Apply(object.clone()), first.as_deref()).await.expect("applied");
    assert_eq!(first, second);
    // From the same one it is not sent at all until something else was observed.
    let repeated = Write { object: of.clone(), change: Change::Apply(object), basis: None };
    assert_eq!(act.writer.put(repeated), Accepted::Repeated);
    assert_eq!(managers(&place.get("service", "backend").await), BTreeMap::from([("wingbeat".into(), "Apply".into())]));
    let changed = service(&place, "backend", 81).1;
    let third = act.write(&of, Change::Apply(changed), second.as_deref()).await.expect("applied");
    assert_ne!(second, third);
    let audit = place.cluster.audit().expect("a log");
    let agent = format!("wingbeat-test/{}", place.namespace);
    assert_eq!((audit.count(&agent, "patch"), audit.count(&agent, "get")), (3, 0));
}

#[tokio::test]
async fn real_kubernetes_status_replicas_annotations_and_events_are_written_each_in_its_way() {
    let Some(place) = Place::begin("real_kubernetes_each_in_its_way").await else { return };
    let mut act = Act::start(&place, place.permit(0, Span::from_secs(600))).await;
    let container = json!({"name": "web", "image": "wingbeat.test/web:1"});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"namespace": place.namespace, "name": "backend"},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": "backend"}},
            "template": {"metadata": {"labels": {"app": "backend"}}, "spec": {"containers": [container]}},
        },
    });
    place.create(&[place.canary("backend"), deployment]).await;
    let target = ObjectRef::new(Resource::DEPLOYMENT, &place.namespace, "backend");
    act.write(&target, Change::Scale(2), None).await.expect("scaled");
    let scaled = place.get("deployment", "backend").await;
    assert_eq!(scaled["spec"]["replicas"], 2);
    assert_eq!(managers(&scaled)["wingbeat-scale"], "Update");

    let canary = ObjectRef::new(Resource::of(Kind::Canary, Group::Wingbeat), &place.namespace, "backend");
    let own = |fields: Value| {
        let mut object = json!({
            "apiVersion": "wingbeat.dev/v1alpha1", "kind": "Canary",
            "metadata": {"namespace": place.namespace, "name": "backend"},
        });
        object["status"] = fields;
        object
    };
    act.write(&canary, Change::ApplyStatus(own(json!({"phase": "Progressing", "canaryWeight": 5}))), None)
        .await
        .expect("status");
    let patch = json!({"metadata": {"finalizers": ["wingbeat.dev/canary"]}});
    act.write(&canary, Change::Merge { slot: "finalizer", patch }, None).await.expect("patched");
    let written = place.get("canaries.wingbeat.dev", "backend").await;
    assert_eq!((&written["status"]["phase"], &written["status"]["canaryWeight"]), (&json!("Progressing"), &json!(5)));
    assert_eq!(written["metadata"]["finalizers"], json!(["wingbeat.dev/canary"]));
    assert_eq!(written["spec"], place.canary("backend")["spec"]);
    // So that the namespace can go.
    act.write(&canary, Change::Merge { slot: "finalizer", patch: json!({"metadata": {"finalizers": null}}) }, None)
        .await
        .expect("patched");

    let event = ObjectRef::new(Resource::EVENT, &place.namespace, "backend.1");
    let body = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": {"namespace": place.namespace, "name": "backend.1"},
        "eventTime": "2026-11-30T12:00:00.000000Z", "type": "Normal", "reason": "Synced", "action": "Rollout",
        "note": "Advance backend canary weight 5", "reportingController": "wingbeat.dev/controller",
        "reportingInstance": "a",
        "regarding": {"apiVersion": "wingbeat.dev/v1alpha1", "kind": "Canary", "namespace": place.namespace, "name": "backend"},
    });
    act.write(&event, Change::Create(body), None).await.expect("created");
    let described = place.kubectl(&["events", "--for=canary.wingbeat.dev/backend"]).await;
    assert!(described.contains("Advance backend canary weight 5"), "{described}");
}

#[tokio::test]
async fn real_kubernetes_what_is_refused_is_told_apart_and_delays_nothing_else() {
    let Some(place) = Place::begin("real_kubernetes_what_is_refused").await else { return };
    let mut act = Act::start(&place, place.permit(0, Span::from_secs(600))).await;
    let (of, mut wrong) = service(&place, "wrong", 80);
    wrong["spec"]["ports"][0]["port"] = json!(0);
    let refused = act.write(&of, Change::Apply(wrong), None).await;
    assert!(matches!(&refused, Err(Failure::Invalid(why)) if why.contains("spec.ports[0].port")), "{refused:?}");
    let nowhere = ObjectRef::new(Resource::SERVICE, "nowhere", "a");
    let mut object = service(&place, "a", 80).1;
    object["metadata"]["namespace"] = json!("nowhere");
    let missing = act.write(&nowhere, Change::Apply(object), None).await;
    assert!(matches!(missing, Err(Failure::NotFound(_))), "{missing:?}");
    let absent = ObjectRef::new(Resource::DEPLOYMENT, &place.namespace, "absent");
    let missing = act.write(&absent, Change::Scale(1), None).await;
    assert!(matches!(missing, Err(Failure::NotFound(_))), "{missing:?}");
    let stale = json!({"metadata": {"resourceVersion": "1"}, "spec": {"selector": {"app": "b"}}});
    let (of, object) = service(&place, "b", 80);
    act.write(&of, Change::Apply(object), None).await.expect("applied");
    // A conflict is tried again, and others go on meanwhile.
    let write = Write { object: of.clone(), change: Change::Merge { slot: "stale", patch: stale }, basis: None };
    assert!(matches!(act.writer.put(write), Accepted::Queued(_)));
    let (other, object) = service(&place, "c", 80);
    act.write(&other, Change::Apply(object), None).await.expect("applied");
    assert_eq!(act.writer.len(), 1, "the other one still waits");
}

#[tokio::test]
async fn real_kubernetes_without_a_permit_nothing_is_sent() {
    let Some(place) = Place::begin("real_kubernetes_without_a_permit").await else { return };
    let permits = place.permit(0, Span::from_secs(600));
    let mut act = Act::start(&place, permits.clone()).await;
    let (of, object) = service(&place, "a", 80);
    act.write(&of, Change::Apply(object), None).await.expect("applied");
    permits.set(None);
    let (of, object) = service(&place, "b", 80);
    assert_eq!(act.write(&of, Change::Apply(object.clone()), None).await, Err(Failure::NoPermit));
    // One that has run out, as a process finds it that was paused, is none.
    let mut act = Act::start(&place, place.permit(0, Span::ZERO)).await;
    assert_eq!(act.write(&of, Change::Apply(object), None).await, Err(Failure::NoPermit));
    let names = place.kubectl(&["get", "services", "--output=jsonpath={.items[*].metadata.name}"]).await;
    assert_eq!(names, "a");
    let audit = place.cluster.audit().expect("a log");
    assert_eq!(audit.count(&format!("wingbeat-test/{}", place.namespace), "patch"), 1);
}
