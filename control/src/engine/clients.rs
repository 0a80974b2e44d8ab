//! Who takes configuration from us, and what stands in their way: what they refuse of it, and what they do not ask for.

use std::collections::{BTreeMap, BTreeSet};

use wingbeat_core::analysis::judge::{LATE_FOR, Sources};
use wingbeat_core::id::{CanaryName, NodeId};
use wingbeat_core::time::{Span, Timestamp};
use wingbeat_xds_server::client_event::{CLUSTER_WAIT, ClientEvent, ClientEventKind, Nack};
use wingbeat_xds_server::kind::Kind;

use crate::engine::canary::Canary;
use crate::engine::fleet::{MAX_IDLE_REPORT_INTERVAL, max_interval};
use crate::engine::policy::{PolicyScope, SourcesByPlaces};
use crate::view::ClientsView;

/// What a client says of a refusal is repeated up to this length.
const MAX_ERROR_LEN: usize = 500;

/// Named troubles that are remembered, over all clients; more are only counted and logged.
const MAX_BLOCKERS: usize = 10_000;

/// Without a client for so long, those whose rollouts wait for one are told. Envoys come back within seconds of a
/// restart.
const NO_CLIENTS_AFTER: Span = Span::from_secs(10);

/// Sources that are remembered to have reported. Later ones count once they are heard of by the judge.
const MAX_SOURCES: usize = 10_000;

/// Values of `node.cluster` that are remembered of each.
const MAX_CLUSTERS: usize = 16;

/// Events about refusals that one canary may have in an [`EVENT_PERIOD`]. Of more, its condition shows one: a client that
/// leaves and comes back can refuse something else each time.
const MAX_EVENTS: u32 = 10;
/// From the first event that is counted until it starts from none again.
const EVENT_PERIOD: Span = Span::from_secs(60);

/// Limits the rate of events by canary: when its period began, and how many it has had in it.
#[derive(Debug, Default)]
struct EventLimit(BTreeMap<CanaryName, (Timestamp, u32)>);

impl EventLimit {
    /// Drops what goes beyond the limit, and counts the rest.
    fn apply(&mut self, events: &mut Vec<(CanaryName, String)>, now: Timestamp) {
        if events.is_empty() {
            return;
        }
        self.0.retain(|_, (began, _)| now.since(*began) < EVENT_PERIOD);
        events.retain(|(canary, _)| {
            let (_, count) = self.0.entry(canary.clone()).or_insert((now, 0));
            *count = count.saturating_add(1);
            *count <= MAX_EVENTS
        });
    }
}

/// When somebody reported last, and how long the next report may take.
#[derive(Debug, Clone, Copy)]
struct LastReport {
    at: Timestamp,
    tick: Span,
}

/// Open streams, and what stands in the way of their clients.
#[derive(Debug, Default)]
pub(super) struct Clients {
    streams: BTreeMap<u64, Option<(NodeId, String)>>,
    /// Whose sources take configuration and may report, with the number of their streams of each `node.cluster`.
    sources: BTreeMap<NodeId, BTreeMap<String, u64>>,
    /// Whose sources reported, and when they did last, by `node.cluster`.
    reporters: BTreeMap<NodeId, BTreeMap<String, LastReport>>,
    /// What was refused together by who cannot be told what of it is to blame.
    refusals: BTreeMap<(u64, Kind), Refusal>,
    /// By what it is about and stream, what is told of it.
    troubles: BTreeMap<(BlockerKind, String, u64), String>,
    event_limit: EventLimit,
    nacks: BTreeMap<Kind, u64>,
    /// Something became of an open trouble since it was asked last.
    changed: bool,
    alone: ClientPresence,
    /// Who speaks something else than the port, and the mend; until somebody does better.
    mismatched: Option<String>,
}

/// What a trouble with something that has a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum BlockerKind {
    /// A resource is refused; of routes, a host.
    Refused(Kind),
    /// A cluster is not asked for further, or not answered.
    Overdue,
}

/// Whether there is a client at all.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum ClientPresence {
    /// Nobody looked yet.
    #[default]
    Unknown,
    /// There is none, since this time.
    AbsentSince(Timestamp),
    /// There is none, and that was told.
    ReportedAbsent,
    /// There is one.
    Connected,
}

/// What a client refused, until it accepts something better.
#[derive(Debug)]
struct Refusal {
    names: Vec<String>,
    text: String,
}

impl Clients {
    /// Takes news, and returns what is to be told of whom: of each canary and matter, the first trouble. What a client says
    /// that may not report is shown, and told nobody: it may say anything, and as often as it likes.
    pub(super) fn observe(
        &mut self,
        news: &ClientEvent,
        canaries: &BTreeMap<CanaryName, Canary>,
        now: Timestamp,
    ) -> Vec<(CanaryName, String)> {
        let mut events = self.taken(news, canaries);
        if self.may_not_report(news.stream) {
            events.clear();
        }
        self.event_limit.apply(&mut events, now);
        events
    }

    /// Returns true for a stream of a client that may not report.
    pub(super) fn may_not_report(&self, stream: u64) -> bool {
        self.streams.get(&stream).is_some_and(Option::is_none)
    }

    fn taken(&mut self, news: &ClientEvent, canaries: &BTreeMap<CanaryName, Canary>) -> Vec<(CanaryName, String)> {
        match &news.what {
            ClientEventKind::Connected { source, node_cluster } => {
                self.changed |= self.streams.is_empty();
                self.mismatched = None;
                let source = source.as_ref().map(|source| (NodeId::new(source.as_str()), node_cluster.clone()));
                if let Some((source, node_cluster)) = source.clone() {
                    let streams = self.sources.entry(source).or_default().entry(node_cluster).or_default();
                    *streams = streams.saturating_add(1);
                }
                self.streams.insert(news.stream, source);
            }
            ClientEventKind::Left => {
                if let Some((source, node_cluster)) = self.streams.remove(&news.stream).flatten()
                    && let Some(clusters) = self.sources.get_mut(&source)
                {
                    clusters.entry(node_cluster).and_modify(|streams| *streams = streams.saturating_sub(1));
                    clusters.retain(|_, streams| *streams > 0);
                    if clusters.is_empty() {
                        self.sources.remove(&source);
                    }
                }
                self.changed |= self.streams.is_empty();
                self.keep(|(stream, _)| *stream != news.stream, |(_, _, stream)| *stream != news.stream);
            }
            ClientEventKind::Settled(kind) => {
                let settled = (news.stream, *kind);
                let of_it = (BlockerKind::Refused(*kind), news.stream);
                self.keep(|key| *key != settled, |(matter, _, stream)| of_it != (*matter, *stream));
            }
            ClientEventKind::Refuses(kind, refused) => {
                let of_it = (BlockerKind::Refused(*kind), news.stream);
                let still = |matter: BlockerKind, name: &String, stream: u64| {
                    of_it != (matter, stream) || refused.contains(name)
                };
                self.keep(|_| true, |(matter, name, stream)| still(*matter, name, *stream));
            }
            ClientEventKind::Mismatched(mend) => {
                // Beside clients that can, it is logged and counted.
                if self.has_no_clients() {
                    self.changed = true;
                    self.mismatched = Some(format!("{}: {mend}", news.node));
                }
            }
            // It is the canaries' own, and outlasts the stream.
            ClientEventKind::Foreign(_) => {}
            ClientEventKind::Overdue(clusters) => return self.overdue(news, clusters, canaries),
            ClientEventKind::Refused(nack) => return self.refused(news, nack, canaries),
        }
        Vec::new()
    }

    /// Notes that somebody reported, for a node of this cluster.
    pub(super) fn reported(&mut self, source: &NodeId, node_cluster: &str, tick: Span, now: Timestamp) {
        let report = LastReport { at: now, tick };
        if let Some(clusters) = self.reporters.get_mut(source) {
            if let Some(last) = clusters.get_mut(node_cluster) {
                *last = report;
            } else if clusters.len() < MAX_CLUSTERS {
                clusters.insert(node_cluster.to_owned(), report);
            }
        } else if self.reporters.len() < MAX_SOURCES {
            self.reporters.insert(source.clone(), BTreeMap::from([(node_cluster.to_owned(), report)]));
        }
    }

    /// Forgets who has not reported for so long.
    pub(super) fn forget_silent(&mut self, now: Timestamp, silent: Span) {
        self.reporters.retain(|_, clusters| {
            clusters.retain(|_, last| now.since(last.at) <= silent);
            !clusters.is_empty()
        });
    }

    /// Returns true for a source that takes configuration: who leaves takes none.
    pub(super) fn takes_configuration(&self, source: &NodeId) -> bool {
        self.sources.contains_key(source)
    }

    /// Returns when a source was heard last that is late, of those that take configuration and reported lately.
    fn late_since(&self, source: &NodeId, now: Timestamp) -> Option<Timestamp> {
        let reports = self.reporters.get(source).filter(|_| self.takes_configuration(source))?;
        let LastReport { at, tick } = *reports.values().max_by_key(|report| report.at)?;
        (max_interval(tick).max(MAX_IDLE_REPORT_INTERVAL)..=LATE_FOR).contains(&now.since(at)).then_some(at)
    }

    /// Returns the sources, by the places of their nodes: those that take configuration, and those that reported lately.
    pub(super) fn sources(&self, place_of: impl Fn(&str) -> PolicyScope, now: Timestamp) -> SourcesByPlaces {
        let connected =
            self.sources.iter().flat_map(|(source, clusters)| clusters.keys().map(move |name| (source, name)));
        let reporting =
            self.reporters.iter().flat_map(|(source, clusters)| clusters.keys().map(move |name| (source, name)));
        let mut places: BTreeMap<&NodeId, BTreeSet<PolicyScope>> = BTreeMap::new();
        for (source, name) in connected.chain(reporting) {
            places.entry(source).or_default().insert(place_of(name));
        }
        let mut sources = SourcesByPlaces::default();
        for (source, places) in places {
            let one = Sources { count: 1, late_since: self.late_since(source, now) };
            let held = sources.0.entry(places).or_default();
            *held = held.plus(one);
        }
        sources
    }

    fn refused(
        &mut self,
        news: &ClientEvent,
        nack: &Nack,
        canaries: &BTreeMap<CanaryName, Canary>,
    ) -> Vec<(CanaryName, String)> {
        let error: String = nack.error.chars().take(MAX_ERROR_LEN).collect();
        let text = |of: &str| {
            format!("Envoy {} refuses {}{of} and goes on with the last good ones: {error}", news.node, what(nack.kind))
        };
        tracing::warn!(node = news.node, kind = what(nack.kind), names = nack.names.join(", "), "{}", text(""));
        let count = self.nacks.entry(nack.kind).or_default();
        *count = count.saturating_add(1);
        let Some(culprits) = &nack.culprits else { return self.refuse(news.stream, nack, &text(""), canaries) };
        // Who can tell them apart knows what the others are.
        self.changed |= self.refusals.remove(&(news.stream, nack.kind)).is_some();
        let blame = |name: &String| {
            self.trouble(BlockerKind::Refused(nack.kind), name, news.stream, &text(&format!(" ({name})")), canaries)
        };
        culprits.iter().flat_map(blame).collect()
    }

    fn overdue(
        &mut self,
        news: &ClientEvent,
        clusters: &BTreeSet<String>,
        canaries: &BTreeMap<CanaryName, Canary>,
    ) -> Vec<(CanaryName, String)> {
        let of_it = (BlockerKind::Overdue, news.stream);
        self.keep(|_| true, |(matter, name, stream)| of_it != (*matter, *stream) || clusters.contains(name));
        let known = |name: &&String| self.troubles.contains_key(&(BlockerKind::Overdue, (*name).clone(), news.stream));
        let fresh: Vec<&String> = clusters.iter().filter(|name| !known(name)).collect();
        let tell = |name: &String| {
            let text = format!(
                "Envoy {} has not asked for the endpoints of cluster {name}, or not answered, for {CLUSTER_WAIT:?}: its \
                 routes wait no longer",
                news.node
            );
            tracing::warn!(node = news.node, cluster = name, "{text}");
            self.trouble(BlockerKind::Overdue, name, news.stream, &text, canaries)
        };
        fresh.into_iter().flat_map(tell).collect()
    }

    /// Notes a trouble with something that has a name. Returns whom it concerns, if it is the first of its kind.
    fn trouble(
        &mut self,
        matter: BlockerKind,
        name: &str,
        stream: u64,
        text: &str,
        canaries: &BTreeMap<CanaryName, Canary>,
    ) -> Vec<(CanaryName, String)> {
        let known = self.of(matter, name).is_some();
        if self.troubles.len() < MAX_BLOCKERS {
            self.troubles.insert((matter, name.to_owned(), stream), text.to_owned());
        }
        self.changed = true;
        if known {
            return Vec::new();
        }
        let concerned = |(_, canary): &(&CanaryName, &Canary)| concerns(matter, name, canary);
        canaries.iter().filter(concerned).map(|(canary, _)| (canary.clone(), text.to_owned())).collect()
    }

    /// Notes what is refused together. Returns whom that concerns for the first time.
    fn refuse(
        &mut self,
        stream: u64,
        nack: &Nack,
        text: &str,
        canaries: &BTreeMap<CanaryName, Canary>,
    ) -> Vec<(CanaryName, String)> {
        let refusal = Refusal { names: nack.names.clone(), text: text.to_owned() };
        let concerned = canaries.iter().filter(|(_, canary)| {
            let known = || self.refusals.iter().any(|((_, of), known)| *of == nack.kind && known.concerns(*of, canary));
            refusal.concerns(nack.kind, canary) && !known()
        });
        let told = concerned.map(|(name, _)| (name.clone(), text.to_owned())).collect();
        self.changed = true;
        self.refusals.insert((stream, nack.kind), refusal);
        told
    }

    /// Keeps these troubles and forgets the others.
    fn keep(
        &mut self,
        refusals: impl Fn(&(u64, Kind)) -> bool,
        troubles: impl Fn(&(BlockerKind, String, u64)) -> bool,
    ) {
        let before = (self.refusals.len(), self.troubles.len());
        self.refusals.retain(|key, _| refusals(key));
        self.troubles.retain(|key, _| troubles(key));
        self.changed |= (self.refusals.len(), self.troubles.len()) != before;
    }

    fn of(&self, matter: BlockerKind, name: &str) -> Option<&str> {
        let mut of_it = self.troubles.range((matter, name.to_owned(), 0)..=(matter, name.to_owned(), u64::MAX));
        of_it.next().map(|(_, text)| text.as_str())
    }

    /// Returns true if there are other troubles than when it was asked last.
    pub(super) const fn take_changed(&mut self) -> bool {
        std::mem::replace(&mut self.changed, false)
    }

    /// Returns what stands in the way of some client of what this canary needs.
    pub(super) fn blocker_of(&self, canary: &Canary) -> Option<&str> {
        let concerned = self.refusals.iter().find(|((_, kind), refusal)| refusal.concerns(*kind, canary));
        if let Some((_, refusal)) = concerned {
            return Some(refusal.text.as_str());
        }
        if self.troubles.is_empty() {
            return None;
        }
        let clusters = clusters(canary);
        let of_clusters = clusters.iter().find_map(|cluster| {
            [BlockerKind::Refused(Kind::Cluster), BlockerKind::Refused(Kind::Endpoints), BlockerKind::Overdue]
                .into_iter()
                .find_map(|matter| self.of(matter, cluster))
        });
        let listeners = &canary.config.service.listeners;
        let of_filter = || {
            let mut rest = self.troubles.range((BlockerKind::Refused(Kind::Extension), String::new(), 0)..);
            let first = rest.next().filter(|((matter, ..), _)| *matter == BlockerKind::Refused(Kind::Extension));
            first.map(|(_, text)| text.as_str())
        };
        of_clusters
            .or_else(|| self.of(BlockerKind::Refused(Kind::Routes), &host(canary)))
            .or_else(|| listeners.iter().find_map(|name| self.of(BlockerKind::Refused(Kind::Listener), name)))
            .or_else(of_filter)
    }

    /// Returns why no client takes configuration, as far as that is known.
    pub(super) fn why_no_clients(&self) -> Option<&str> {
        self.mismatched.as_deref()
    }

    /// Returns true if no client takes configuration.
    pub(super) fn has_no_clients(&self) -> bool {
        self.streams.is_empty()
    }

    /// Returns true once there has been no client for long.
    pub(super) fn lost_all_clients(&mut self, now: Timestamp) -> bool {
        self.alone = match self.alone {
            _ if !self.has_no_clients() => ClientPresence::Connected,
            ClientPresence::Unknown | ClientPresence::Connected => ClientPresence::AbsentSince(now),
            ClientPresence::AbsentSince(since) if now.since(since) >= NO_CLIENTS_AFTER => {
                self.alone = ClientPresence::ReportedAbsent;
                return true;
            }
            ClientPresence::AbsentSince(since) => ClientPresence::AbsentSince(since),
            ClientPresence::ReportedAbsent => ClientPresence::ReportedAbsent,
        };
        false
    }

    pub(super) fn view(&self) -> ClientsView {
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        ClientsView {
            streams: count(self.streams.len()),
            refusals: count(self.refusals.len().saturating_add(self.troubles.len())),
            nacks: self.nacks.iter().map(|(kind, count)| (kind.type_url(), *count)).collect(),
        }
    }
}

impl Refusal {
    fn concerns(&self, kind: Kind, canary: &Canary) -> bool {
        self.names.iter().any(|name| match kind {
            // Together, hosts cannot be told from each other.
            Kind::Routes => canary.config.service.listeners.contains(name),
            Kind::Cluster | Kind::Endpoints | Kind::Listener | Kind::Extension => {
                concerns(BlockerKind::Refused(kind), name, canary)
            }
        })
    }
}

fn concerns(matter: BlockerKind, name: &str, canary: &Canary) -> bool {
    match matter {
        BlockerKind::Refused(Kind::Cluster | Kind::Endpoints) | BlockerKind::Overdue => {
            clusters(canary).iter().any(|cluster| cluster == name)
        }
        BlockerKind::Refused(Kind::Routes) => host(canary) == name,
        BlockerKind::Refused(Kind::Listener) => canary.config.service.listeners.iter().any(|listener| listener == name),
        BlockerKind::Refused(Kind::Extension) => true,
    }
}

fn clusters(canary: &Canary) -> Vec<String> {
    canary.revision_clusters().into_iter().map(|(name, _)| name.to_string()).collect()
}

fn host(canary: &Canary) -> String {
    let name = canary.config.plan.name();
    format!("{}/{}", name.namespace, name.name)
}

const fn what(kind: Kind) -> &'static str {
    match kind {
        Kind::Cluster => "clusters",
        Kind::Endpoints => "endpoints",
        Kind::Listener => "listeners",
        Kind::Routes => "routes",
        Kind::Extension => "the filter",
    }
}
