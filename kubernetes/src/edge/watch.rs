//! Reads by watching: the only file that does. A watch for each kind, of a namespace or the cluster; what they observe is handed
//! over in slots.
//!
//! ```text
//!  API server ─► watcher of each kind ─► Slots ─► Observations::next ─► whoever has the World
//! ```
//!
//! A list comes as a stream, where the API server can do that, and in pages where it cannot. A watch that fails is begun anew,
//! later and later, and says why: a definition that is not installed, a role that lacks a verb.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use kube::core::WatchEvent;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::configs;
use crate::crds::Group;
use crate::desire::CANARY_LABEL;
use crate::edge::client::{Connection, JSON, METADATA, METADATA_LIST, refusal};
use crate::failure::{CallError, Failure};
use crate::object::{SCALED_BY, list, text};
use crate::resource::{ObjectRef, Resource, Scope};
use crate::slots::{Batch, Slots, SourceId};
use crate::world::Kind;
use crate::writes::SCALE_MANAGER;

/// Objects of one page of a list, where lists do not come as streams.
const PAGE_SIZE: u32 = 500;
/// Time for one page.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for a watch to be answered. Then it is begun anew.
const START_TIMEOUT: Duration = Duration::from_secs(15);
/// Seconds after which the API server ends a watch, so that connections wander between its replicas. It goes on from where it
/// was.
const WATCH_SECS: u32 = 290;
/// Time without an event in which a connection is taken for lost: an API server sends a bookmark each minute.
const SILENCE_TIMEOUT: Duration = Duration::from_mins(3);
/// The annotation of the bookmark that ends a list.
const LIST_END: &str = "k8s.io/initial-events-end";
/// Where an object's version is.
const RESOURCE_VERSION: &str = "/metadata/resourceVersion";
/// After a watch failed for the first time, it is begun anew this much later, and the time doubles.
const FIRST_BACKOFF: Duration = Duration::from_millis(250);
/// What the time doubles to. A definition that is installed, and an API server that is back, are found within this time.
const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// What is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scopes {
    /// The groups that Canaries are written in.
    pub groups: Vec<Group>,
    /// The namespace; nothing: all of them.
    pub namespace: Option<String>,
    /// Whether ConfigMaps and Secrets are watched, as metadata.
    pub configs: bool,
}

/// A watch of objects of a kind.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Source {
    kind: Kind,
    resource: Resource,
    /// Only objects that have this label; nothing: all.
    label: Option<&'static str>,
}

impl Scopes {
    /// Returns what is watched. Deployments and their scalers are people's: each may be a target. Services and slices are ours, by
    /// their label.
    fn sources(&self) -> Vec<Source> {
        let all = |kind: Kind, group: Group| Source { kind, resource: Resource::of(kind, group), label: None };
        let labelled = |kind: Kind| Source { label: Some(CANARY_LABEL), ..all(kind, Group::Wingbeat) };
        let written = [Kind::Canary, Kind::MetricTemplate, Kind::AlertProvider];
        let written = self.groups.iter().flat_map(|group| written.map(|kind| all(kind, *group)));
        let own = [Kind::CanaryState, Kind::Listener, Kind::Deployment, Kind::HorizontalPodAutoscaler];
        let own = own.map(|kind| all(kind, Group::Wingbeat));
        let configs = [Kind::ConfigMap, Kind::Secret].into_iter().filter(|_| self.configs);
        let configs = configs.map(|kind| all(kind, Group::Wingbeat));
        written.chain(own).chain([Kind::Service, Kind::EndpointSlice].map(labelled)).chain(configs).collect()
    }
}

/// What was observed, to be taken by one consumer.
#[derive(Debug)]
pub struct Observations {
    shared: Arc<Shared>,
    /// Ends the watches when it is dropped.
    _watches: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Shared {
    slots: Mutex<Slots>,
    changed: Notify,
}

impl Shared {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Observations {
    /// Begins to watch. Dropping what is returned ends it.
    pub fn start(connection: &Connection, scopes: &Scopes) -> Self {
        let shared = Arc::new(Shared::default());
        let mut watches = JoinSet::new();
        for source in scopes.sources() {
            let id = shared.slots().add(source.kind, &source.resource.full_name());
            let watch = Watch {
                id,
                connection: connection.clone(),
                namespace: scopes.namespace.clone().filter(|_| source.resource.scope == Scope::Namespaced),
                source,
                shared: shared.clone(),
            };
            watches.spawn(watch.run());
        }
        Self { shared, _watches: watches }
    }

    /// Waits for something new, and returns it with all else that is.
    pub async fn next(&mut self) -> Batch {
        loop {
            let batch = self.shared.slots().take();
            if let Some(batch) = batch {
                return batch;
            }
            self.shared.changed.notified().await;
        }
    }

    /// Returns how many objects wait to be taken.
    pub fn waiting(&self) -> usize {
        self.shared.slots().len()
    }
}

/// How a list comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Listing {
    Streamed,
    Paged,
}

struct Watch {
    id: SourceId,
    connection: Connection,
    namespace: Option<String>,
    source: Source,
    shared: Arc<Shared>,
}

/// What comes after a list or watch that did not fail.
enum Next {
    /// A watch, at once.
    Watch,
    /// The same from where it ended, a moment later.
    Resume,
}

/// How a list or watch ended.
struct Ended {
    /// What the next one goes on from; nothing: everything is to be listed.
    version: Option<String>,
    end: Result<Next, Failure>,
    /// How long it worked.
    duration: Duration,
}

impl Watch {
    async fn run(self) {
        let (mut listing, mut version, mut backoff) = (Listing::Streamed, None::<String>, FIRST_BACKOFF);
        loop {
            let ended = match (version.take(), listing) {
                (None, Listing::Paged) => self.list().await,
                (from, Listing::Paged | Listing::Streamed) => self.follow(from).await,
            };
            version = ended.version;
            if ended.duration > MAX_BACKOFF {
                backoff = FIRST_BACKOFF;
            }
            match ended.end {
                Ok(Next::Watch) => continue,
                Ok(Next::Resume) => {}
                Err(failure) if listing == Listing::Streamed && cannot_stream(&failure) => {
                    let what = self.source.resource.full_name();
                    tracing::info!(
                        what,
                        ?failure,
                        "lists come in pages: the API server or its etcd cannot stream them"
                    );
                    listing = Listing::Paged;
                    continue;
                }
                Err(failure) => {
                    // What fails for long may fail for where it goes on from, as after a backup of etcd was restored.
                    if failure == Failure::Gone || backoff == MAX_BACKOFF {
                        version = None;
                    }
                    self.report(&failure);
                }
            }
            tokio::time::sleep(backoff).await;
            backoff = backoff.saturating_mul(2).min(MAX_BACKOFF);
        }
    }

    /// Lists all in pages.
    async fn list(&self) -> Ended {
        let (version, end) = match self.take_pages().await {
            Ok(version) => (Some(version), Ok(Next::Watch)),
            Err(failure) => (None, Err(failure)),
        };
        // However long it took: what is listed is not yet watched.
        Ended { version, end, duration: Duration::ZERO }
    }

    /// Takes all pages, and returns as of which version they are.
    async fn take_pages(&self) -> Result<String, Failure> {
        self.shared.slots().begin_list(self.id);
        let mut page = String::new();
        loop {
            let uri = format!("{}limit={PAGE_SIZE}{page}", self.uri());
            let accept = if self.source.kind.is_config() { METADATA_LIST } else { JSON };
            let listed = self.connection.get_as(accept, &uri, LIST_TIMEOUT).await?;
            for object in list(&listed, "/items") {
                self.apply(object.clone());
            }
            let at = |pointer: &str| text(&listed, pointer).filter(|it| !it.is_empty()).map(str::to_owned);
            let Some(token) = at("/metadata/continue") else {
                let version = at(RESOURCE_VERSION);
                let version = version.ok_or_else(|| Failure::Invalid("a list without a version".to_owned()))?;
                self.end_list();
                return Ok(version);
            };
            page = format!("&continue={token}");
        }
    }

    /// Watches until that ends: from a version on, or from a list that comes first.
    async fn follow(&self, mut version: Option<String>) -> Ended {
        let began = Instant::now();
        let start = match &version {
            Some(version) => format!("resourceVersion={version}"),
            None => "sendInitialEvents=true&resourceVersionMatch=NotOlderThan".to_owned(),
        };
        let uri = format!("{}watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_SECS}&{start}", self.uri());
        let end = self.take_events(&uri, &mut version).await.map(|()| Next::Resume);
        Ended { version, end, duration: began.elapsed() }
    }

    /// Takes what a watch observes, and notes up to which version; none while a list is not complete: half of one is nothing to
    /// go on from.
    async fn take_events(&self, uri: &str, version: &mut Option<String>) -> Result<(), Failure> {
        let accept = if self.source.kind.is_config() { METADATA } else { JSON };
        let started = tokio::time::timeout(START_TIMEOUT, self.connection.watch(accept, uri)).await;
        let mut events = pin!(started.map_err(|_| Failure::Timeout)??);
        match version {
            Some(_) => self.works(),
            None => self.shared.slots().begin_list(self.id),
        }
        loop {
            let event = tokio::time::timeout(SILENCE_TIMEOUT, events.next()).await.map_err(|_| Failure::Timeout)?;
            let Some(event) = event.transpose()? else { return Ok(()) };
            let (at, is_listed) = match event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    let at = text(&object, RESOURCE_VERSION).map(str::to_owned);
                    self.apply(object);
                    (at, version.is_some())
                }
                WatchEvent::Deleted(object) => {
                    self.shared.slots().delete(self.id, &object);
                    self.shared.changed.notify_one();
                    (text(&object, RESOURCE_VERSION).map(str::to_owned), version.is_some())
                }
                WatchEvent::Bookmark(bookmark) => {
                    let ends_list = bookmark.metadata.annotations.contains_key(LIST_END);
                    if ends_list {
                        self.end_list();
                    }
                    (Some(bookmark.metadata.resource_version), version.is_some() || ends_list)
                }
                WatchEvent::Error(status) => return Err(Failure::of(refusal(&status))),
            };
            if is_listed && at.is_some() {
                *version = at;
            }
        }
    }

    fn apply(&self, object: Value) {
        let object = configs::tidy(self.source.kind, tidy(object, &self.source.resource));
        self.shared.slots().apply(self.id, object);
        self.shared.changed.notify_one();
    }

    fn end_list(&self) {
        self.shared.slots().end_list(self.id);
        self.shared.changed.notify_one();
        self.works();
    }

    /// Takes it that the API server answers.
    fn works(&self) {
        if self.shared.slots().set_problem(self.id, None) {
            tracing::info!(what = self.source.resource.full_name(), "can be watched again");
            self.shared.changed.notify_one();
        }
    }

    fn report(&self, failure: &Failure) {
        // A cluster without Flagger's definitions has no Canaries of it. Without ours there is nothing to do at all, so that those
        // are waited for.
        if matches!(failure, Failure::NotFound(_)) && self.source.resource.group == Group::Flagger.as_str() {
            self.shared.slots().set_undefined(self.id);
            self.shared.changed.notify_one();
        }
        let Some(problem) = problem(&self.source.resource, failure) else { return };
        if self.shared.slots().set_problem(self.id, Some(problem.clone())) {
            tracing::warn!("{problem}");
            self.shared.changed.notify_one();
        }
    }

    /// Returns what all calls begin with.
    fn uri(&self) -> String {
        let path = self.source.resource.path(self.namespace.as_deref());
        // An unescaped label of ours: letters, dots and a slash.
        let label = self.source.label.map(|label| format!("labelSelector={label}&")).unwrap_or_default();
        format!("{path}?{label}")
    }
}

/// Returns an object as it is kept: with its kind, which a list leaves out, and without what an API server notes about writes,
/// which is the larger half of many.
fn tidy(mut object: Value, resource: &Resource) -> Value {
    // Of a Deployment it is kept who scaled it.
    let scaled_by = (*resource == Resource::DEPLOYMENT).then(|| scaled_by(&object)).flatten();
    if let (Some(who), Some(fields)) = (scaled_by, object.as_object_mut()) {
        fields.insert(SCALED_BY.to_owned(), who.into());
    }
    if let Some(metadata) = object.pointer_mut("/metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    if let Some(fields) = object.as_object_mut() {
        fields.entry("apiVersion").or_insert_with(|| Value::from(resource.api_version()));
        fields.entry("kind").or_insert_with(|| Value::from(resource.kind));
    }
    object
}

/// Returns who wrote `spec.replicas` of a Deployment last, by the name of its field manager; nothing if that was us, or if it was
/// scaled to zero by the scale subresource.
fn scaled_by(deployment: &Value) -> Option<String> {
    let owns = |entry: &&Value| entry.pointer("/fieldsV1/f:spec/f:replicas").is_some();
    let owners = list(deployment, "/metadata/managedFields").iter().filter(owns);
    let last = owners.max_by_key(|entry| text(entry, "/time").unwrap_or_default().to_owned())?;
    text(last, "/manager").filter(|who| *who != SCALE_MANAGER).map(str::to_owned)
}

/// Returns true if the API server, or the etcd behind it, cannot send a list as a stream.
fn cannot_stream(failure: &Failure) -> bool {
    let (Failure::Invalid(message) | Failure::Forbidden(message) | Failure::Server { message, .. }) = failure else {
        return false;
    };
    ["RequestWatchProgress", "sendInitialEvents", "WatchList"].iter().any(|it| message.contains(it))
}

/// Returns why something cannot be watched, and what to do. What passes by itself, and soon, is none.
fn problem(resource: &Resource, failure: &Failure) -> Option<String> {
    let name = resource.full_name();
    if *failure == Failure::Gone {
        // The list is read anew, which is no trouble.
        return None;
    }
    if let Failure::NotFound(message) = failure {
        let group = resource.group;
        let flags = if group == Group::Flagger.as_str() { " --flagger-api" } else { "" };
        return Some(if resource.is_custom() {
            format!(
                "{name} are not defined in the cluster: apply what `wingbeat crds{flags}` prints; nothing is done for Canaries \
                 of {group} until then"
            )
        } else {
            format!("{name} are not served by the API server ({message}): is it Kubernetes 1.33 or later?")
        });
    }
    if let Failure::Forbidden(message) = failure {
        return Some(format!(
            "{name} may not be watched ({message}): give the controller's ClusterRole the verbs list and watch on them"
        ));
    }
    let object = ObjectRef::new(*resource, "", "");
    let why = CallError { action: "watched", object, failure: failure.clone() }.why();
    Some(format!("{name} cannot be watched: {why}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_a_deployment_it_is_kept_who_scaled_it_last() {
        let entry = |manager: &str, second: u64, field: &str| {
            let time = format!("2026-11-30T10:00:{second:02}Z");
            json!({"manager": manager, "time": time, "fieldsV1": {"f:spec": {field: {}}}})
        };
        let tidied = |entries: &[Value], resource: &Resource| {
            tidy(json!({"metadata": {"name": "backend", "managedFields": entries}}), resource)
        };
        let flux = [entry(SCALE_MANAGER, 1, "f:replicas"), entry("kustomize-controller", 2, "f:replicas")];
        let kept = tidied(&flux, &Resource::DEPLOYMENT);
        assert_eq!((&kept[SCALED_BY], kept.pointer("/metadata/managedFields")), (&json!("kustomize-controller"), None));
        assert_eq!(tidied(&flux, &Resource::SERVICE).get(SCALED_BY), None);
        let ours =
            [entry("kubectl", 1, "f:replicas"), entry(SCALE_MANAGER, 2, "f:replicas"), entry("helm", 3, "f:paused")];
        assert_eq!(tidied(&ours, &Resource::DEPLOYMENT).get(SCALED_BY), None);
    }

    #[test]
    fn what_is_watched_is_each_group_once() {
        let sources =
            |groups: &[Group]| Scopes { groups: groups.to_vec(), namespace: None, configs: true }.sources().len();
        assert_eq!((sources(&[Group::Wingbeat]), sources(&[Group::Wingbeat, Group::Flagger])), (11, 14));
        let scopes = Scopes { groups: vec![Group::Wingbeat], namespace: None, configs: false };
        assert_eq!(scopes.sources().len(), 9);
        let labelled = scopes.sources().into_iter().filter(|source| source.label.is_some());
        assert_eq!(labelled.map(|source| source.kind).collect::<Vec<_>>(), [Kind::Service, Kind::EndpointSlice]);
    }

    #[test]
    fn an_api_server_that_cannot_stream_is_told_from_one_that_may_not() {
        let server = |message: &str| Failure::Server { code: 500, message: message.to_owned() };
        assert!(cannot_stream(&server("RequestWatchProgress is disabled")));
        let refused =
            "WatchOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is forbidden";
        assert!(cannot_stream(&Failure::Invalid(refused.into())));
        assert!(!cannot_stream(&server("etcdserver: request timed out")));
        assert!(!cannot_stream(&Failure::Forbidden("canaries is forbidden".into())));
        assert!(!cannot_stream(&Failure::Timeout));
    }

    #[test]
    fn a_problem_has_a_name_and_a_mend() {
        let canaries = Resource::of(Kind::Canary, Group::Flagger);
        let missing = problem(&canaries, &Failure::NotFound("404".into())).unwrap();
        assert!(missing.starts_with("canaries.flagger.app") && missing.contains("wingbeat crds"), "{missing}");
        let forbidden = problem(&Resource::DEPLOYMENT, &Failure::Forbidden("no".into())).unwrap();
        assert!(forbidden.contains("deployments.apps") && forbidden.contains("list and watch"), "{forbidden}");
        assert_eq!(problem(&canaries, &Failure::Gone), None);
    }
}
