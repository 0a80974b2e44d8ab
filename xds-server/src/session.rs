//! One xDS stream, as a machine: requests and snapshots in, responses out. It knows no network.
//!
//! ```text
//!  request ─► Session::request ─┐
//!  snapshot ► Session::snapshot ┼─► responses, in an order in which nothing refers to what is not there yet
//! ```
//!
//! State of the world and delta are two [`Dialect`]s of the same machine: they differ in how a request changes what
//! is wanted, and in what a response carries. Rules of the
//! [xDS protocol](https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol) are named where they apply, and
//! `session/protocol.toml` plays them as scripts.
//!
//! - One response per type is outstanding; the newest snapshot wins. So memory is bounded by what a client names.
//! - What is referred to is sent before what refers to it, and taken away only after the client has accepted a
//!   configuration that no longer refers to it.
//! - A refused resource is not sent again until it changes. Who is to blame among what was refused together is looked
//!   for, so that the innocent get through; within a table of routes, among its hosts.
//! - Routes wait for clusters that are on their way, [`CLUSTER_WAIT`](crate::client_event::CLUSTER_WAIT) at most, and for nothing else: hosts whose clusters are
//!   missing or refused hold no other one back.
//!
//! - Connections of a listener that is gone go by its routes until they end: these stay, with all that they lead to, and
//!   follow what others are served, for as long as the client names them.
//!
//! - A client that has routes of another state keeps all that it has, until this state may take over.
//!
//! Time is an argument: how long ago the stream began.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::client_event::Nack;
use crate::kind::Kind;
use crate::lineage::Lineage;
use crate::resource::{Resource, version_of_all};
use crate::session::acked::{AckOutcome, AckedState, Outstanding};
use crate::session::cluster_wait::{ClusterState, ClusterWait};
use crate::session::message::Culprit;
use crate::session::origin::RouteOrigin;
use crate::session::readded_clusters::ReaddedClusters;
use crate::session::reported::ReportedChanges;
use crate::session::route_table::RouteTable;
use crate::session::subscription::SubscribedNames;
use crate::snapshot::{Resources, Snapshot};
use crate::version::Version;

pub use message::{Changes, Dialect, MAX_NAMES, Names, Reaction, Request, Response, TooManyNames};
pub use resume_cache::ResumeCache;

mod acked;
mod cluster_wait;
mod message;
mod named;
mod origin;
mod readded_clusters;
mod reported;
mod resume_cache;
mod route_table;
mod routing;
mod subscription;

/// The state of one stream.
#[derive(Debug)]
pub struct Session {
    dialect: Dialect,
    snapshot: Option<Arc<Snapshot>>,
    types: [Subscription; Kind::ALL.len()],
    /// The tables of routes that the client wants.
    tables: BTreeMap<String, RouteTable>,
    memory: ResumeCache,
    patience: ClusterWait,
    /// Clusters by EDS that were sent on this stream, and not yet their endpoints.
    warming: BTreeSet<String>,
    returning: ReaddedClusters,
    told: ReportedChanges,
    /// The state that is served.
    lineage: Lineage,
    origin: RouteOrigin,
    nonce: u64,
    now: Duration,
}

#[derive(Debug, Default)]
struct Subscription {
    /// None until the first request.
    wanted: Option<SubscribedNames>,
    holding: AckedState,
    /// What is gone from the snapshot, until nothing that the client holds refers to it.
    lingering: Resources,
    /// Must be sent even if nothing changed.
    forced: BTreeSet<String>,
    /// The first request of this type is not answered yet.
    unanswered: bool,
    /// Version of all that the client held on its last stream, until it is looked at.
    resumed: Option<Version>,
    /// The client holds something from an earlier stream that is gone, and that its routes may still lead to.
    removes_later: bool,
    /// Something happened since it was looked at last.
    dirty: bool,
}

impl Subscription {
    fn wants(&self, resource: &Resource) -> bool {
        self.wanted.as_ref().is_some_and(|wanted| wanted.covers(&resource.name))
    }
}

impl Session {
    /// Returns the machine of a new stream.
    pub fn new(dialect: Dialect) -> Self {
        Self {
            dialect,
            snapshot: None,
            types: Default::default(),
            tables: BTreeMap::new(),
            memory: ResumeCache::default(),
            patience: ClusterWait::default(),
            warming: BTreeSet::new(),
            returning: ReaddedClusters::default(),
            told: ReportedChanges::default(),
            lineage: Lineage::default(),
            origin: RouteOrigin::default(),
            nonce: 0,
            now: Duration::ZERO,
        }
    }

    /// Returns the same machine, which knows what other streams remember.
    #[must_use]
    pub fn with_resume_cache(self, memory: ResumeCache) -> Self {
        Self { memory, ..self }
    }

    /// Returns the same machine, which serves this state.
    #[must_use]
    pub fn of_lineage(self, lineage: Lineage) -> Self {
        Self { lineage, ..self }
    }

    /// Takes a request.
    pub fn request(&mut self, kind: Kind, request: &Request, now: Duration) -> Result<Reaction, TooManyNames> {
        self.now = now;
        let dialect = self.dialect;
        let subscription = self.of_mut(kind);
        // "ACK and NACK": told apart by error_detail, not by the version.
        let answered = subscription.holding.answer(&request.nonce, request.error.as_deref());
        // "Stale nonces": in state of the world, the client has not seen the latest response yet, and its answer to
        // that will say what it wants. In delta, each request is a change of its own and always counts.
        if dialect == Dialect::StateOfTheWorld && subscription.holding.is_stale(&request.nonce) {
            return Ok(Reaction::default());
        }
        subscription.dirty = true;
        if kind == Kind::Cluster && answered.is_some() {
            match request.error {
                None => self.returning.accept(),
                Some(_) => self.returning.refuse(),
            }
        }
        let nack = answered.as_ref().and_then(|answered| self.judge(kind, answered, request.error.as_deref()));
        self.subscribe(kind, &request.names)?;
        self.release();
        let responses = self.pump();
        let settled = (answered.is_some() && nack.is_none() && self.is_settled(kind)).then_some(kind);
        Ok(Reaction { responses, nack, settled })
    }

    /// Returns what is different since it was asked last. A snapshot may mend a host without anything to be sent.
    pub fn take_changes(&mut self) -> Changes {
        let refused = Kind::ALL.map(|kind| match kind {
            Kind::Routes => (kind, self.tables.values().flat_map(RouteTable::refused).cloned().collect()),
            Kind::Cluster | Kind::Endpoints | Kind::Listener | Kind::Extension => {
                (kind, self.of(kind).holding.refused().cloned().collect())
            }
        });
        let (overdue, foreign) = (self.patience.overdue(), self.origin.foreign(self.snapshot.as_deref()));
        self.told.changes(refused, overdue, foreign)
    }

    /// Takes an answer to what was sent. Returns what is to be told if it is a refusal.
    fn judge(&mut self, kind: Kind, answered: &AckOutcome, error: Option<&str>) -> Option<Nack> {
        if self.dialect == Dialect::StateOfTheWorld && kind.has_wildcard() {
            let holding = &self.of(kind).holding;
            if holding.refused().next().is_some() {
                self.memory.record(holding.accepted());
            }
        }
        let tables = answered.names.iter().filter(|_| kind == Kind::Routes);
        let Some(error) = error else {
            tables.for_each(|name| self.tables.entry(name.clone()).or_default().accept());
            if kind == Kind::Routes && self.tables.values().any(|table| table.refused().next().is_some()) {
                self.memory.record(self.tables.values().filter_map(RouteTable::accepted).cloned().collect());
            }
            let is_used = matches!(kind, Kind::Cluster | Kind::Endpoints);
            self.of_mut(Kind::Routes).dirty |= is_used && (answered.mended || !self.patience.is_rested());
            return None;
        };
        self.of_mut(kind).forced.extend(answered.forced.iter().cloned());
        if matches!(kind, Kind::Cluster | Kind::Endpoints) {
            // Hosts that need what was refused go back to what they were.
            self.of_mut(Kind::Routes).dirty = true;
        }
        if kind == Kind::Cluster {
            // Clients may have taken some of them all the same, which warm anew when they go back to what they were.
            self.force_endpoints(&answered.names);
        }
        let blamed: Vec<Culprit> = match kind {
            Kind::Routes => {
                let tables = answered.names.iter();
                tables.map(|name| self.tables.entry(name.clone()).or_default().refuse(answered.alone)).collect()
            }
            Kind::Cluster | Kind::Endpoints | Kind::Listener | Kind::Extension => {
                answered.culprit.iter().cloned().collect()
            }
        };
        let culprits: Option<Vec<Vec<String>>> = blamed.into_iter().map(Culprit::names).collect();
        let culprits = culprits.map(|culprits| culprits.concat());
        Some(Nack { kind, names: answered.names.clone(), culprits, error: error.to_owned() })
    }

    /// Takes a new snapshot: what the client's node is to be served. What is not in it any more is gone for the client,
    /// whether or not others are served it.
    pub fn snapshot(&mut self, snapshot: &Arc<Snapshot>, now: Duration) -> Vec<Response> {
        self.now = now;
        if self.snapshot.as_ref().is_some_and(|held| Arc::ptr_eq(held, snapshot)) {
            return Vec::new();
        }
        // A client that is sent nothing has nothing of it that would have to linger.
        let was_held = self.origin.is_held(self.snapshot.as_deref());
        let old = self.snapshot.replace(snapshot.clone());
        for kind in Kind::ALL {
            let new = snapshot.of(kind);
            let held = old.as_ref().map(|old| old.of(kind));
            if held.is_some_and(|held| Arc::ptr_eq(held, new)) {
                continue;
            }
            let subscription = self.of_mut(kind);
            subscription.dirty = true;
            if kind.referred_by().is_some() && !was_held {
                let gone = held.into_iter().flat_map(|held| held.iter());
                subscription.lingering.extend(gone.map(|(name, resource)| (name.clone(), resource.clone())));
                subscription.lingering.retain(|name, _| !new.contains_key(name));
            }
        }
        self.patience.unasked.retain(|cluster| snapshot.of(Kind::Cluster).contains_key(cluster));
        self.warming.retain(|cluster| snapshot.of(Kind::Cluster).contains_key(cluster));
        for (name, table) in &mut self.tables {
            table.prune(snapshot.of(Kind::Routes).get(name).map(Arc::as_ref));
        }
        self.release();
        self.pump()
    }

    /// Returns true if the client has accepted all that it wants of a type, as it is.
    pub fn is_settled(&self, kind: Kind) -> bool {
        let subscription = self.of(kind);
        let current = self.snapshot.as_ref().map(|snapshot| snapshot.of(kind));
        current
            .into_iter()
            .flat_map(|all| all.values())
            .all(|resource| !subscription.wants(resource) || subscription.holding.has_accepted(resource))
    }

    fn subscribe(&mut self, kind: Kind, names: &Names) -> Result<(), TooManyNames> {
        let first = self.of(kind).wanted.is_none();
        let excess = self.excess(kind);
        let (memory, lineage) = (self.memory.clone(), self.lineage);
        if first {
            let versions: Vec<&String> = match names {
                Names::All { version, .. } => Some(version).into_iter().filter(|version| !version.is_empty()).collect(),
                Names::Change { initial, .. } => initial.iter().map(|(_, version)| version).collect(),
            };
            versions.into_iter().for_each(|version| self.origin.note(lineage.read(version)));
        }
        let subscription = self.of_mut(kind);
        let wanted = subscription.wanted.get_or_insert_default();
        let mut before = Vec::new();
        match names {
            Names::All { names, version } => {
                let new = wanted.replace(kind, names);
                subscription.holding.forget(|name| !wanted.covers(name));
                // "Newly requested names must always be sent", even if nothing changed.
                subscription.forced.extend(new);
                if first {
                    let resumed = lineage.read(version).version();
                    let held = resumed.map(|version| memory.all(version)).unwrap_or_default();
                    // Of names, the version does not say which of them were dropped and are asked for again.
                    if kind.has_wildcard() {
                        (subscription.unanswered, subscription.resumed) = (true, resumed);
                        if held.is_empty() && !version.is_empty() {
                            subscription.holding.assume_something();
                        }
                        for known in &held {
                            subscription.holding.assume(&known.name, Some(known.version), Some(known.clone()));
                        }
                    }
                    before.extend(names.iter().filter(|_| !version.is_empty()).map(|name| {
                        let known = held.iter().find(|table| table.name == *name);
                        (name.clone(), known.cloned())
                    }));
                }
            }
            Names::Change { subscribe, unsubscribe, initial } => {
                // Only a stream's first request says what is held.
                for (name, version) in initial.iter().filter(|_| first) {
                    let version = lineage.read(version).version();
                    subscription.holding.assume(name, version, None);
                    let known = version.and_then(|version| memory.one(name, version));
                    before.push((name.clone(), known));
                }
                let forced = wanted.change(kind, first, subscribe, unsubscribe);
                subscription.holding.forget(|name| !wanted.covers(name));
                // A subscription is answered even if the client holds the resource, unless it has just said so.
                subscription.forced.extend(forced.into_iter().filter(|name| !first || !subscription.holding.has(name)));
                subscription.unanswered |= first && kind.has_wildcard() && initial.is_empty();
            }
        }
        // Of what is gone, the client goes on naming what it has not let go of yet: that alone ends no stream.
        if self.excess(kind) > excess {
            return Err(TooManyNames);
        }
        if kind == Kind::Endpoints {
            let unasked = std::mem::take(&mut self.patience.unasked);
            let wanted = self.of(kind).wanted.as_ref();
            let asked = |cluster: &String| wanted.is_some_and(|wanted| wanted.covers(cluster));
            self.patience.unasked = unasked.into_iter().filter(|cluster| !asked(cluster)).collect();
            let [_, endpoints, ..] = &self.types;
            endpoints.wanted.iter().for_each(|wanted| self.returning.ask(wanted));
        }
        if kind == Kind::Routes {
            let mut tables = std::mem::take(&mut self.tables);
            let wanted = self.of(kind).wanted.as_ref();
            tables.retain(|name, _| wanted.is_some_and(|wanted| wanted.covers(name)));
            for (name, known) in before {
                tables.entry(name).or_default().assume_from_before(known);
            }
            self.tables = tables;
        }
        Ok(())
    }

    /// Lets go of what is gone once nothing that the client holds refers to it: a route to a cluster that does not
    /// exist answers 503 ("Eventual consistency considerations").
    fn release(&mut self) {
        // Listeners let go of routes, and these of clusters.
        for kind in Kind::ALL.into_iter().rev() {
            let Some(referrer) = kind.referred_by() else { continue };
            if self.of(kind).lingering.is_empty() && !self.of(kind).removes_later {
                continue;
            }
            let used = match referrer {
                // Hosts that are refused go on as they were, with the clusters that they had.
                Kind::Routes => self.used_clusters(),
                Kind::Cluster | Kind::Endpoints | Kind::Listener | Kind::Extension => {
                    let holding = &self.of(referrer).holding;
                    let is_gone = holding.without(&self.target(referrer)).is_empty() && !holding.is_outstanding();
                    (is_gone && self.is_settled(referrer)).then(|| self.drained(kind))
                }
            };
            let Some(used) = used else { continue };
            // A client that warms a cluster asks for its endpoints, and accepts nothing of clusters until it has them. In
            // delta it is told that they are gone.
            let is_warmed = |name: &&String| {
                let sow_endpoints = kind == Kind::Endpoints && self.dialect == Dialect::StateOfTheWorld;
                sow_endpoints && self.of(Kind::Cluster).holding.may_be_used(name)
            };
            let warmed: BTreeSet<String> = self.of(kind).lingering.keys().filter(is_warmed).cloned().collect();
            let subscription = self.of_mut(kind);
            let before = subscription.lingering.len();
            subscription.lingering.retain(|name, _| used.contains(name) || warmed.contains(name));
            let removes = std::mem::take(&mut subscription.removes_later);
            subscription.dirty |= removes || subscription.lingering.len() != before;
        }
    }

    fn pump(&mut self) -> Vec<Response> {
        let mut responses = Vec::new();
        // What it lacks meanwhile stays due.
        if self.snapshot.is_none() || self.origin.is_held(self.snapshot.as_deref()) {
            return responses;
        }
        for kind in Kind::ALL {
            let subscription = self.of(kind);
            if subscription.wanted.is_none() || !subscription.dirty || subscription.holding.is_outstanding() {
                continue;
            }
            self.of_mut(kind).dirty = false;
            responses.extend(self.due(kind));
        }
        responses
    }

    /// Returns the response of a type that is due, if one is, and notes it as sent.
    fn due(&mut self, kind: Kind) -> Option<Response> {
        self.recognise(kind);
        let mut target = self.target(kind);
        let mut blocked = BTreeSet::new();
        // What differs from what is wanted is not sent again to who holds it already.
        let mut kept = BTreeSet::new();
        let mut held_back = Vec::new();
        for (name, resource) in &mut target {
            let composed = self.composed(kind, resource);
            held_back.extend(composed.held_back);
            match composed.table {
                Some(composed) if composed.version == resource.version => {}
                Some(composed) => {
                    *resource = composed;
                    kept.extend(self.tables.get(name).filter(|table| table.holds(resource)).map(|_| name.clone()));
                }
                None => {
                    blocked.insert(name.clone());
                }
            }
        }
        if kind == Kind::Routes {
            let clusters = held_back.iter().flat_map(|part| &part.refers_to);
            let on_their_way = clusters.filter(|cluster| self.state(cluster) != ClusterState::Ready).cloned().collect();
            self.patience.update(on_their_way, self.now);
        }
        let all = version_of_all(target.values());
        let whole = self.dialect == Dialect::StateOfTheWorld && kind.has_wildcard();
        let delta = self.dialect == Dialect::Delta;
        let subscription = self.of_mut(kind);
        let mut forced = std::mem::take(&mut subscription.forced);
        // A client that held this very set on its last stream needs no answer: versions are made from the content of
        // all that a client holds.
        if subscription.resumed.take() == Some(all) && !target.is_empty() {
            subscription.holding.assume_all(&target);
            forced.clear();
            subscription.unanswered = false;
            self.recognise(kind);
        }
        if kind == Kind::Endpoints {
            // A client that was away asks for endpoints when it was sent the cluster anew, and may hold them.
            forced.extend(self.warming.iter().filter(|name| target.contains_key(*name)).cloned());
        }
        let subscription = self.of_mut(kind);
        subscription.holding.prune(&target);
        let withheld = subscription.holding.withheld(&target, &blocked);
        if whole {
            subscription.holding.stand_in(&mut target, &withheld);
        } else {
            blocked.extend(withheld);
        }
        let is_due = |resource: &&Arc<Resource>| {
            !blocked.contains(&resource.name)
                && (forced.contains(&resource.name)
                    || (!kept.contains(&resource.name) && subscription.holding.lacks(resource)))
        };
        let changed: Vec<Arc<Resource>> = target.values().filter(is_due).cloned().collect();
        let mut removed = subscription.holding.without(&target);
        if delta && !removed.is_empty() && self.may_route_to_what_is_gone(kind) {
            removed.clear();
            self.of_mut(kind).removes_later = true;
        }
        if delta {
            // A name that does not exist is answered by its removal, so that nobody waits for it.
            removed.extend(forced.iter().filter(|name| !target.contains_key(*name)).cloned());
            removed.sort();
            removed.dedup();
        }
        if kind == Kind::Cluster {
            let [_, endpoints, ..] = &self.types;
            self.returning.take_away(&removed, endpoints.wanted.as_ref());
        }
        let taken_away = self.of_mut(kind).holding.drop_names(&removed);
        if kind == Kind::Routes {
            removed.iter().for_each(|name| drop(self.tables.remove(name)));
        }
        let subscription = self.of_mut(kind);
        let news = !changed.is_empty() || ((whole || delta) && !removed.is_empty());
        if !news && !subscription.unanswered {
            return None;
        }
        subscription.unanswered = false;
        match kind {
            Kind::Cluster => self.warm(&changed),
            // Routes may have waited for a cluster that was not warm.
            Kind::Endpoints => {
                self.warming.retain(|cluster| changed.iter().all(|endpoints| endpoints.name != *cluster));
                self.of_mut(Kind::Routes).dirty = true;
            }
            Kind::Listener | Kind::Routes | Kind::Extension => {}
        }
        self.nonce = self.nonce.saturating_add(1);
        let nonce = self.nonce.to_string();
        let holding = &self.of(kind).holding;
        let version = version_of_all(target.values().filter(|resource| {
            whole || holding.has_accepted(resource) || changed.iter().any(|changed| changed.name == resource.name)
        }));
        let resources = if whole { target.into_values().collect() } else { changed };
        for resource in resources.iter().filter(|_| kind == Kind::Routes) {
            self.tables.entry(resource.name.clone()).or_default().sent(resource);
        }
        self.origin = RouteOrigin::Own;
        forced.retain(|name| resources.iter().any(|resource| resource.name == *name));
        let sent = Outstanding { nonce: nonce.clone(), resources: resources.clone(), forced, whole, taken_away };
        self.of_mut(kind).holding.sent(sent);
        Some(Response { kind, version, nonce, resources, removed: if delta { removed } else { Vec::new() } })
    }

    /// A cluster that changed warms anew and waits for its endpoints, changed or not; routes may have waited for it too.
    fn warm(&mut self, clusters: &[Arc<Resource>]) {
        let names: Vec<String> = clusters.iter().map(|cluster| cluster.name.clone()).collect();
        let by_eds = |name: &&String| {
            self.snapshot.as_ref().is_some_and(|snapshot| snapshot.of(Kind::Endpoints).contains_key(*name))
        };
        let warming: Vec<String> = names.iter().filter(by_eds).cloned().collect();
        self.returning.send(&names);
        self.warming.extend(warming);
        self.force_endpoints(&names);
        self.of_mut(Kind::Routes).dirty = true;
    }

    fn force_endpoints(&mut self, clusters: &[String]) {
        let Subscription { wanted, forced, dirty, .. } = self.of_mut(Kind::Endpoints);
        let covered = |name: &&String| wanted.as_ref().is_some_and(|wanted| wanted.covers(name));
        forced.extend(clusters.iter().filter(covered).cloned());
        *dirty = true;
    }

    /// Returns what the client is to hold of a type.
    fn target(&self, kind: Kind) -> Resources {
        let subscription = self.of(kind);
        let current = self.snapshot.as_ref().map(|snapshot| snapshot.of(kind));
        let all = current.into_iter().flat_map(|all| all.iter()).chain(&subscription.lingering);
        all.filter(|(_, resource)| subscription.wants(resource))
            .map(|(name, resource)| (name.clone(), resource.clone()))
            .collect()
    }

    fn of(&self, kind: Kind) -> &Subscription {
        let [clusters, endpoints, listeners, routes, extensions] = &self.types;
        match kind {
            Kind::Cluster => clusters,
            Kind::Endpoints => endpoints,
            Kind::Listener => listeners,
            Kind::Routes => routes,
            Kind::Extension => extensions,
        }
    }

    fn of_mut(&mut self, kind: Kind) -> &mut Subscription {
        let [clusters, endpoints, listeners, routes, extensions] = &mut self.types;
        match kind {
            Kind::Cluster => clusters,
            Kind::Endpoints => endpoints,
            Kind::Listener => listeners,
            Kind::Routes => routes,
            Kind::Extension => extensions,
        }
    }
}

#[cfg(test)]
mod tests;
