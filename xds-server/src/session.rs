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
//! - A refused resource is not sent again until it changes. What was refused along with others is sent once more
//!   alone, so that the innocent get through; and within a table of routes, whose hosts are refused together, the ones
//!   to blame are looked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::resource::{Kind, Resource, Version};
use crate::session::holding::{Answered, Holding, Outstanding};
use crate::session::table::{Culprit, Table, Usable};
use crate::session::wanted::Wanted;
use crate::snapshot::{Resources, Snapshot};

pub use memory::Memory;

mod holding;
mod memory;
mod named;
mod table;
mod wanted;

/// Names that a client may ask for, of one type.
pub const MAX_NAMES: usize = 10_000;

/// The two forms of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Responses carry whole sets (of clusters and listeners) or whole resources (of the other types).
    StateOfTheWorld,
    /// Responses carry what changed, and the names of what is gone.
    Delta,
}

/// What a client sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// How it changes what it wants.
    pub names: Names,
    /// Nonce of the response that this answers; empty if it answers none.
    pub nonce: String,
    /// Set if the client rejects the response.
    pub error: Option<String>,
}

/// What a client says it wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// State of the world: these and no others; none may mean all.
    All {
        /// The names.
        names: Vec<String>,
        /// Version that the client holds, from an earlier stream if this is its first request.
        version: String,
    },
    /// Delta: more of these and less of those.
    Change {
        /// Names that it wants from now on.
        subscribe: Vec<String>,
        /// Names that it wants no longer.
        unsubscribe: Vec<String>,
        /// Names and versions that it holds from an earlier stream.
        initial: Vec<(String, String)>,
    },
}

impl Default for Names {
    fn default() -> Self {
        Self::All { names: Vec::new(), version: String::new() }
    }
}

/// What is sent back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// Type of the resources.
    pub kind: Kind,
    /// Version of all that the client holds of this type once it accepts this.
    pub version: Version,
    /// To be repeated by the client.
    pub nonce: String,
    /// The resources.
    pub resources: Vec<Arc<Resource>>,
    /// Delta: names of resources that are gone.
    pub removed: Vec<String>,
}

/// A client's refusal of what it was sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nack {
    /// Type of the resources.
    pub kind: Kind,
    /// Names of what was refused together.
    pub names: Vec<String>,
    /// Where routes were refused, the hosts that are to blame; nobody while they are looked for; none if they cannot be
    /// told from the others.
    pub hosts: Option<Vec<String>>,
    /// Why, in the client's words.
    pub error: String,
}

/// What a request came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Reaction {
    /// To be sent, in this order.
    pub responses: Vec<Response>,
    /// Set if the client refused something.
    pub nack: Option<Nack>,
    /// Set if the client now holds all that it wants of a type, as it is.
    pub settled: Option<Kind>,
    /// Set if other hosts are now kept from it than before, because it refuses them: all of them.
    pub refused_hosts: Option<BTreeSet<String>>,
}

/// A client named more than [`MAX_NAMES`] resources of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("more than {MAX_NAMES} names of one type")]
pub struct TooManyNames;

/// The state of one stream.
#[derive(Debug)]
pub struct Session {
    dialect: Dialect,
    node_cluster: String,
    snapshot: Option<Arc<Snapshot>>,
    types: [Subscription; Kind::ALL.len()],
    /// The tables of routes that the client wants.
    tables: BTreeMap<String, Table>,
    memory: Memory,
    /// The hosts that it refuses, as they were told last.
    refused_hosts: BTreeSet<String>,
    nonce: u64,
}

#[derive(Debug, Default)]
struct Subscription {
    /// None until the first request.
    wanted: Option<Wanted>,
    holding: Holding,
    /// What is gone from the snapshot, until nothing that the client holds refers to it.
    lingering: Resources,
    /// Must be sent even if nothing changed.
    forced: BTreeSet<String>,
    /// The first request of this type is not answered yet.
    unanswered: bool,
    /// Version of all that the client held on its last stream, until it is looked at.
    resumed: Option<Version>,
    /// Something happened since it was looked at last.
    dirty: bool,
}

impl Session {
    /// Returns the machine of a new stream, of a node of this cluster.
    pub fn new(dialect: Dialect, node_cluster: &str) -> Self {
        Self {
            dialect,
            node_cluster: node_cluster.to_owned(),
            snapshot: None,
            types: Default::default(),
            tables: BTreeMap::new(),
            memory: Memory::default(),
            refused_hosts: BTreeSet::new(),
            nonce: 0,
        }
    }

    /// Returns the same machine, which knows what other streams remember.
    #[must_use]
    pub fn with_memory(self, memory: Memory) -> Self {
        Self { memory, ..self }
    }

    /// Takes a request.
    pub fn request(&mut self, kind: Kind, request: &Request) -> Result<Reaction, TooManyNames> {
        let dialect = self.dialect;
        let subscription = self.of_mut(kind);
        // "ACK and NACK": told apart by error_detail, not by the version.
        let answered = subscription.holding.answer(&request.nonce, request.error.is_some());
        // "Stale nonces": in state of the world, the client has not seen the latest response yet, and its answer to
        // that will say what it wants. In delta, each request is a change of its own and always counts.
        if dialect == Dialect::StateOfTheWorld && subscription.holding.is_stale(&request.nonce) {
            return Ok(Reaction::default());
        }
        subscription.dirty = true;
        let nack = answered.as_ref().and_then(|answered| self.judge(kind, answered, request.error.as_deref()));
        self.subscribe(kind, &request.names)?;
        self.release();
        let responses = self.pump();
        let settled = (answered.is_some() && nack.is_none() && self.is_settled(kind)).then_some(kind);
        Ok(Reaction { responses, nack, settled, refused_hosts: self.take_refused_hosts() })
    }

    /// Returns the hosts that the client refuses now, if they are others than when they were told last. A snapshot may
    /// mend one without anything to be sent.
    pub fn take_refused_hosts(&mut self) -> Option<BTreeSet<String>> {
        let refused: BTreeSet<String> = self.tables.values().flat_map(Table::refused).cloned().collect();
        let changed = refused != self.refused_hosts;
        self.refused_hosts.clone_from(&refused);
        changed.then_some(refused)
    }

    /// Takes an answer to what was sent. Returns what is to be told if it is a refusal.
    fn judge(&mut self, kind: Kind, answered: &Answered, error: Option<&str>) -> Option<Nack> {
        let tables = answered.names.iter().filter(|_| kind == Kind::Routes);
        let Some(error) = error else {
            tables.for_each(|name| self.tables.entry(name.clone()).or_default().accept());
            if kind == Kind::Routes && self.tables.values().any(|table| table.refused().next().is_some()) {
                self.memory.remember(self.tables.values().filter_map(Table::accepted).cloned().collect());
            }
            return None;
        };
        if matches!(kind, Kind::Cluster | Kind::Endpoints) {
            // Hosts that need what was refused go back to what they were.
            self.of_mut(Kind::Routes).dirty = true;
        }
        let culprits = tables.map(|name| self.tables.entry(name.clone()).or_default().refuse(answered.alone));
        let hosts = culprits.map(|culprit| match culprit {
            Culprit::Host(name) => Some(vec![name]),
            Culprit::Sought => Some(Vec::new()),
            Culprit::Unknown => None,
        });
        let hosts: Option<Vec<Vec<String>>> = hosts.collect();
        let hosts = hosts.filter(|_| kind == Kind::Routes).map(|hosts| hosts.concat());
        Some(Nack { kind, names: answered.names.clone(), hosts, error: error.to_owned() })
    }

    /// Takes a new snapshot.
    pub fn snapshot(&mut self, snapshot: &Arc<Snapshot>) -> Vec<Response> {
        let old = self.snapshot.replace(snapshot.clone());
        for kind in Kind::ALL {
            let new = snapshot.of(kind);
            let held = old.as_ref().map(|old| old.of(kind));
            if held.is_some_and(|held| Arc::ptr_eq(held, new)) {
                continue;
            }
            let subscription = self.of_mut(kind);
            subscription.dirty = true;
            if kind.referred_by().is_some() {
                let gone = held.into_iter().flat_map(|held| held.iter());
                subscription.lingering.extend(gone.map(|(name, resource)| (name.clone(), resource.clone())));
                subscription.lingering.retain(|name, _| !new.contains_key(name));
            }
        }
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
            .all(|resource| !self.is_wanted(subscription, resource) || subscription.holding.has_accepted(resource))
    }

    fn subscribe(&mut self, kind: Kind, names: &Names) -> Result<(), TooManyNames> {
        let first = self.of(kind).wanted.is_none();
        let memory = self.memory.clone();
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
                    subscription.unanswered = kind.has_wildcard();
                    subscription.resumed = Version::parse(version);
                    let held = subscription.resumed.map(|version| memory.all(version)).unwrap_or_default();
                    for known in &held {
                        subscription.holding.assume(&known.name, Some(known.version));
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
                    subscription.holding.assume(name, Version::parse(version));
                    let known = Version::parse(version).and_then(|version| memory.one(name, version));
                    before.push((name.clone(), known));
                }
                let forced = wanted.change(kind, first, subscribe, unsubscribe);
                subscription.holding.forget(|name| !wanted.covers(name));
                // A subscription is answered even if the client holds the resource, unless it has just said so.
                subscription.forced.extend(forced.into_iter().filter(|name| !first || !subscription.holding.has(name)));
                subscription.unanswered |= first && kind.has_wildcard() && initial.is_empty();
            }
        }
        if wanted.len() > MAX_NAMES {
            return Err(TooManyNames);
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
        for kind in Kind::ALL {
            let Some(referrer) = kind.referred_by() else { continue };
            if self.of(kind).lingering.is_empty() {
                continue;
            }
            let used = match referrer {
                // Hosts that are refused go on as they were, with the clusters that they had.
                Kind::Routes => self.used_clusters(),
                Kind::Cluster | Kind::Endpoints | Kind::Listener | Kind::Extension => {
                    self.is_settled(referrer).then(BTreeSet::new)
                }
            };
            let Some(used) = used else { continue };
            let subscription = self.of_mut(kind);
            let before = subscription.lingering.len();
            subscription.lingering.retain(|name, _| used.contains(name));
            subscription.dirty |= subscription.lingering.len() != before;
        }
    }

    /// Returns the clusters that the client's routes lead to; none while they are not all known.
    fn used_clusters(&self) -> Option<BTreeSet<String>> {
        let subscription = self.of(Kind::Routes);
        let mut used = BTreeSet::new();
        for wanted in self.snapshot.iter().flat_map(|snapshot| snapshot.of(Kind::Routes).values()) {
            if self.is_wanted(subscription, wanted) {
                let resource = self.composed(Kind::Routes, wanted)?;
                if !subscription.holding.has_accepted(&resource) {
                    return None;
                }
                used.extend(resource.refers_to.iter().cloned());
            }
        }
        Some(used)
    }

    fn pump(&mut self) -> Vec<Response> {
        let mut responses = Vec::new();
        if self.snapshot.is_none() {
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
        for (name, resource) in &mut target {
            match self.composed(kind, resource) {
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
        let all = Version::of_all(target.values());
        let whole = self.dialect == Dialect::StateOfTheWorld && kind.has_wildcard();
        let delta = self.dialect == Dialect::Delta;
        let subscription = self.of_mut(kind);
        let mut forced = std::mem::take(&mut subscription.forced);
        // A client that held this very set on its last stream needs no answer: versions are made from the content of
        // all that a client holds.
        if subscription.resumed.take() == Some(all) && !target.is_empty() {
            target.values().for_each(|held| subscription.holding.assume(&held.name, Some(held.version)));
            forced.clear();
            subscription.unanswered = false;
            self.recognise(kind);
        }
        let subscription = self.of_mut(kind);
        let is_due = |resource: &&Arc<Resource>| {
            !blocked.contains(&resource.name)
                && (forced.contains(&resource.name)
                    || (!kept.contains(&resource.name) && subscription.holding.lacks(resource)))
        };
        let mut changed: Vec<Arc<Resource>> = target.values().filter(is_due).cloned().collect();
        let mut removed = subscription.holding.without(&target);
        if let (false, Some(suspect)) = (whole, subscription.holding.suspect(&target)) {
            // The others wait until this one is answered.
            subscription.forced = forced;
            subscription.dirty = true;
            changed = vec![suspect];
            removed.clear();
        } else if delta {
            // A name that does not exist is answered by its removal, so that nobody waits for it.
            removed.extend(forced.into_iter().filter(|name| !target.contains_key(name)));
            removed.sort();
            removed.dedup();
        }
        subscription.holding.drop_names(&removed);
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
            Kind::Endpoints => self.of_mut(Kind::Routes).dirty = true,
            Kind::Listener | Kind::Routes | Kind::Extension => {}
        }
        self.nonce = self.nonce.saturating_add(1);
        let nonce = self.nonce.to_string();
        let holding = &self.of(kind).holding;
        let version = Version::of_all(target.values().filter(|resource| {
            whole || holding.has_accepted(resource) || changed.iter().any(|changed| changed.name == resource.name)
        }));
        let resources = if whole { target.into_values().collect() } else { changed };
        for resource in resources.iter().filter(|_| kind == Kind::Routes) {
            self.tables.entry(resource.name.clone()).or_default().sent(resource);
        }
        let sent = resources.iter().map(|resource| (resource.name.clone(), resource.version)).collect();
        self.of_mut(kind).holding.sent(Outstanding { nonce: nonce.clone(), resources: sent }, whole);
        Some(Response { kind, version, nonce, resources, removed: if delta { removed } else { Vec::new() } })
    }

    /// A cluster that changed warms anew and waits for its endpoints, changed or not; routes may have waited for it too.
    fn warm(&mut self, clusters: &[Arc<Resource>]) {
        let Subscription { wanted, forced, dirty, .. } = self.of_mut(Kind::Endpoints);
        let covered = |name: &str| wanted.as_ref().is_some_and(|wanted| wanted.covers(name));
        forced.extend(clusters.iter().map(|cluster| cluster.name.clone()).filter(|name| covered(name)));
        *dirty = true;
        self.of_mut(Kind::Routes).dirty = true;
    }

    /// Returns what the client is to hold of a type.
    fn target(&self, kind: Kind) -> Resources {
        let subscription = self.of(kind);
        let current = self.snapshot.as_ref().map(|snapshot| snapshot.of(kind));
        let all = current.into_iter().flat_map(|all| all.iter()).chain(&subscription.lingering);
        all.filter(|(_, resource)| self.is_wanted(subscription, resource))
            .map(|(name, resource)| (name.clone(), resource.clone()))
            .collect()
    }

    fn is_wanted(&self, subscription: &Subscription, resource: &Resource) -> bool {
        let here = resource.node_clusters.is_empty() || resource.node_clusters.contains(&self.node_cluster);
        here && subscription.wanted.as_ref().is_some_and(|wanted| wanted.covers(&resource.name))
    }

    /// Notes which tables of routes the client brought from an earlier stream, now that they are known again.
    fn recognise(&mut self, kind: Kind) {
        let Some(snapshot) = self.snapshot.clone().filter(|_| kind == Kind::Routes) else { return };
        let mut tables = std::mem::take(&mut self.tables);
        for (name, table) in &mut tables {
            let served = snapshot.of(kind).get(name);
            served.filter(|served| self.of(kind).holding.has_accepted(served)).into_iter().for_each(|held| {
                table.assume(held);
            });
        }
        self.tables = tables;
    }

    /// Returns a resource as it is sent to this client; none if it has to wait. Routes differ, where the client refuses
    /// hosts of them, or clusters that these need: it goes on with what it had. Where clusters come by another stream,
    /// nothing is known of them.
    fn composed(&self, kind: Kind, resource: &Arc<Resource>) -> Option<Arc<Resource>> {
        if kind != Kind::Routes {
            return Some(resource.clone());
        }
        if resource.parts.is_empty() {
            return (self.usable(&resource.refers_to) == Usable::Yes).then(|| resource.clone());
        }
        let fresh = Table::default();
        self.tables.get(&resource.name).unwrap_or(&fresh).compose(resource, |clusters| self.usable(clusters))
    }

    fn usable(&self, needed: &[String]) -> Usable {
        let (clusters, endpoints) = (self.of(Kind::Cluster), self.of(Kind::Endpoints));
        let by_eds = |cluster: &String| {
            self.snapshot.as_ref().is_some_and(|snapshot| snapshot.of(Kind::Endpoints).contains_key(cluster))
        };
        let is_usable = |cluster: &&String| {
            clusters.holding.may_be_used(cluster) && (!by_eds(cluster) || endpoints.holding.may_be_used(cluster))
        };
        let is_refused =
            |cluster: &String| clusters.holding.is_refused(cluster) || endpoints.holding.is_refused(cluster);
        let mut missing = needed.iter().filter(|cluster| !is_usable(cluster)).peekable();
        if clusters.wanted.is_none() || missing.peek().is_none() {
            Usable::Yes
        } else if missing.any(is_refused) {
            Usable::Refused
        } else {
            Usable::NotYet
        }
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
