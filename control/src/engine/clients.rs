//! Who takes configuration from us, and what stands in their way: what they refuse of it, and what they do not ask for.

use std::collections::{BTreeMap, BTreeSet};

use wingbeat_api::setup::cluster_name;
use wingbeat_core::id::{CanaryName, NodeId};
use wingbeat_core::time::{Span, Timestamp};
use wingbeat_xds_server::client_event::{Happened, Nack, News, PATIENCE};
use wingbeat_xds_server::kind::Kind;

use crate::engine::canary::Canary;
use crate::engine::policy::{Place, Voices};
use crate::view::ClientsView;

/// What a client says of a refusal is repeated up to this length.
const LONGEST_ERROR: usize = 500;

/// Named troubles that are remembered, over all clients; more are only counted and logged.
const MOST_TROUBLES: usize = 10_000;

/// Without a client for so long, those whose rollouts wait for one are told. Envoys come back within seconds of a
/// restart.
const ALONE: Span = Span::from_secs(10);

/// Voices that are remembered to have reported. Later ones count once they are heard of by the judge.
const MOST_VOICES: usize = 10_000;

/// Values of `node.cluster` that are remembered of each.
const MOST_CLUSTERS: usize = 16;

/// Events about refusals that one canary may have in an [`EVENT_PERIOD`]. Of more, its condition shows one: a client that
/// leaves and comes back can refuse something else each time.
const MOST_EVENTS: u32 = 10;
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
            *count <= MOST_EVENTS
        });
    }
}

/// Open streams, and what stands in the way of their clients.
#[derive(Debug, Default)]
pub(super) struct Clients {
    streams: BTreeMap<u64, Option<(NodeId, String)>>,
    /// Whose voices take configuration and may report, with the number of their streams of each `node.cluster`.
    voices: BTreeMap<NodeId, BTreeMap<String, u64>>,
    /// Whose voices reported, and when they did last, by `node.cluster`.
    reporters: BTreeMap<NodeId, BTreeMap<String, Timestamp>>,
    /// What was refused together by who cannot be told what of it is to blame.
    refusals: BTreeMap<(u64, Kind), Refusal>,
    /// By what it is about and stream, what is told of it.
    troubles: BTreeMap<(Matter, String, u64), String>,
    event_limit: EventLimit,
    nacks: BTreeMap<Kind, u64>,
    /// Something became of an open trouble since it was asked last.
    changed: bool,
    alone: Alone,
    /// Who speaks something else than the port, and the mend; until somebody does better.
    mismatched: Option<String>,
}

/// What a trouble with something that has a name is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Matter {
    /// A resource is refused; of routes, a host.
    Refused(Kind),
    /// A cluster is not asked for further, or not answered.
    Overdue,
}

/// Whether there is a client at all.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Alone {
    /// Nobody looked yet.
    #[default]
    Unknown,
    /// There is none, since this time.
    Since(Timestamp),
    /// There is none, and that was told.
    Told,
    /// There is one.
    No,
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
    pub(super) fn heard(
        &mut self,
        news: &News,
        canaries: &BTreeMap<CanaryName, Canary>,
        now: Timestamp,
    ) -> Vec<(CanaryName, String)> {
        let mut events = self.taken(news, canaries);
        if self.is_voiceless(news.stream) {
            events.clear();
        }
        self.event_limit.apply(&mut events, now);
        events
    }

    /// Returns true for a stream of a client that may not report.
    pub(super) fn is_voiceless(&self, stream: u64) -> bool {
        self.streams.get(&stream).is_some_and(Option::is_none)
    }

    fn taken(&mut self, news: &News, canaries: &BTreeMap<CanaryName, Canary>) -> Vec<(CanaryName, String)> {
        match &news.what {
            Happened::Connected { voice, node_cluster } => {
                self.changed |= self.streams.is_empty();
                self.mismatched = None;
                let voice = voice.as_ref().map(|voice| (NodeId::new(voice), node_cluster.clone()));
                if let Some((voice, node_cluster)) = voice.clone() {
                    let streams = self.voices.entry(voice).or_default().entry(node_cluster).or_default();
                    *streams = streams.saturating_add(1);
                }
                self.streams.insert(news.stream, voice);
            }
            Happened::Left => {
                if let Some((voice, node_cluster)) = self.streams.remove(&news.stream).flatten()
                    && let Some(clusters) = self.voices.get_mut(&voice)
                {
                    clusters.entry(node_cluster).and_modify(|streams| *streams = streams.saturating_sub(1));
                    clusters.retain(|_, streams| *streams > 0);
                    if clusters.is_empty() {
                        self.voices.remove(&voice);
                    }
                }
                self.changed |= self.streams.is_empty();
                self.keep(|(stream, _)| *stream != news.stream, |(_, _, stream)| *stream != news.stream);
            }
            Happened::Settled(kind) => {
                let settled = (news.stream, *kind);
                let of_it = (Matter::Refused(*kind), news.stream);
                self.keep(|key| *key != settled, |(matter, _, stream)| of_it != (*matter, *stream));
            }
            Happened::Refuses(kind, refused) => {
                let of_it = (Matter::Refused(*kind), news.stream);
                let still =
                    |matter: Matter, name: &String, stream: u64| of_it != (matter, stream) || refused.contains(name);
                self.keep(|_| true, |(matter, name, stream)| still(*matter, name, *stream));
            }
            Happened::Mismatched(mend) => {
                // Beside clients that can, it is logged and counted.
                if self.is_alone() {
                    self.changed = true;
                    self.mismatched = Some(format!("{}: {mend}", news.node));
                }
            }
            // It is the canaries' own, and outlasts the stream.
            Happened::Foreign(_) => {}
            Happened::Overdue(clusters) => return self.overdue(news, clusters, canaries),
            Happened::Refused(nack) => return self.refused(news, nack, canaries),
        }
        Vec::new()
    }

    /// Notes that somebody reported, for a node of this cluster.
    pub(super) fn reported(&mut self, voice: &NodeId, node_cluster: &str, now: Timestamp) {
        if let Some(clusters) = self.reporters.get_mut(voice) {
            if let Some(last) = clusters.get_mut(node_cluster) {
                *last = now;
            } else if clusters.len() < MOST_CLUSTERS {
                clusters.insert(node_cluster.to_owned(), now);
            }
        } else if self.reporters.len() < MOST_VOICES {
            self.reporters.insert(voice.clone(), BTreeMap::from([(node_cluster.to_owned(), now)]));
        }
    }

    /// Forgets who has not reported for so long.
    pub(super) fn forget_silent(&mut self, now: Timestamp, silent: Span) {
        self.reporters.retain(|_, clusters| {
            clusters.retain(|_, last| now.since(*last) <= silent);
            !clusters.is_empty()
        });
    }

    /// Returns how many voices there are, by the places of their nodes: of those that take configuration, and of those that
    /// reported lately.
    pub(super) fn voices(&self, place_of: impl Fn(&str) -> Place) -> Voices {
        let connected = self.voices.iter().flat_map(|(voice, clusters)| clusters.keys().map(move |name| (voice, name)));
        let reporting =
            self.reporters.iter().flat_map(|(voice, clusters)| clusters.keys().map(move |name| (voice, name)));
        let mut places: BTreeMap<&NodeId, BTreeSet<Place>> = BTreeMap::new();
        for (voice, name) in connected.chain(reporting) {
            places.entry(voice).or_default().insert(place_of(name));
        }
        let mut voices = Voices::default();
        places.into_values().for_each(|places| *voices.0.entry(places).or_default() += 1);
        voices
    }

    fn refused(
        &mut self,
        news: &News,
        nack: &Nack,
        canaries: &BTreeMap<CanaryName, Canary>,
    ) -> Vec<(CanaryName, String)> {
        let error: String = nack.error.chars().take(LONGEST_ERROR).collect();
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
            self.trouble(Matter::Refused(nack.kind), name, news.stream, &text(&format!(" ({name})")), canaries)
        };
        culprits.iter().flat_map(blame).collect()
    }

    fn overdue(
        &mut self,
        news: &News,
        clusters: &BTreeSet<String>,
        canaries: &BTreeMap<CanaryName, Canary>,
    ) -> Vec<(CanaryName, String)> {
        let of_it = (Matter::Overdue, news.stream);
        self.keep(|_| true, |(matter, name, stream)| of_it != (*matter, *stream) || clusters.contains(name));
        let known = |name: &&String| self.troubles.contains_key(&(Matter::Overdue, (*name).clone(), news.stream));
        let fresh: Vec<&String> = clusters.iter().filter(|name| !known(name)).collect();
        let tell = |name: &String| {
            let text = format!(
                "Envoy {} has not asked for the endpoints of cluster {name}, or not answered, for {PATIENCE:?}: its \
                 routes wait no longer",
                news.node
            );
            tracing::warn!(node = news.node, cluster = name, "{text}");
            self.trouble(Matter::Overdue, name, news.stream, &text, canaries)
        };
        fresh.into_iter().flat_map(tell).collect()
    }

    /// Notes a trouble with something that has a name. Returns whom it concerns, if it is the first of its kind.
    fn trouble(
        &mut self,
        matter: Matter,
        name: &str,
        stream: u64,
        text: &str,
        canaries: &BTreeMap<CanaryName, Canary>,
    ) -> Vec<(CanaryName, String)> {
        let known = self.of(matter, name).is_some();
        if self.troubles.len() < MOST_TROUBLES {
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
    fn keep(&mut self, refusals: impl Fn(&(u64, Kind)) -> bool, troubles: impl Fn(&(Matter, String, u64)) -> bool) {
        let before = (self.refusals.len(), self.troubles.len());
        self.refusals.retain(|key, _| refusals(key));
        self.troubles.retain(|key, _| troubles(key));
        self.changed |= (self.refusals.len(), self.troubles.len()) != before;
    }

    fn of(&self, matter: Matter, name: &str) -> Option<&str> {
        let mut of_it = self.troubles.range((matter, name.to_owned(), 0)..=(matter, name.to_owned(), u64::MAX));
        of_it.next().map(|(_, text)| text.as_str())
    }

    /// Returns true if there are other troubles than when it was asked last.
    pub(super) const fn take_changed(&mut self) -> bool {
        std::mem::replace(&mut self.changed, false)
    }

    /// Returns what stands in the way of some client of what this canary needs.
    pub(super) fn trouble_of(&self, canary: &Canary) -> Option<&str> {
        let concerned = self.refusals.iter().find(|((_, kind), refusal)| refusal.concerns(*kind, canary));
        if let Some((_, refusal)) = concerned {
            return Some(refusal.text.as_str());
        }
        if self.troubles.is_empty() {
            return None;
        }
        let clusters = clusters(canary);
        let of_clusters = clusters.iter().find_map(|cluster| {
            [Matter::Refused(Kind::Cluster), Matter::Refused(Kind::Endpoints), Matter::Overdue]
                .into_iter()
                .find_map(|matter| self.of(matter, cluster))
        });
        let listeners = &canary.managed.service.listeners;
        let of_filter = || {
            let mut rest = self.troubles.range((Matter::Refused(Kind::Extension), String::new(), 0)..);
            let first = rest.next().filter(|((matter, ..), _)| *matter == Matter::Refused(Kind::Extension));
            first.map(|(_, text)| text.as_str())
        };
        of_clusters
            .or_else(|| self.of(Matter::Refused(Kind::Routes), &host(canary)))
            .or_else(|| listeners.iter().find_map(|name| self.of(Matter::Refused(Kind::Listener), name)))
            .or_else(of_filter)
    }

    /// Returns why no client takes configuration, as far as that is known.
    pub(super) fn why_alone(&self) -> Option<&str> {
        self.mismatched.as_deref()
    }

    /// Returns true if no client takes configuration.
    pub(super) fn is_alone(&self) -> bool {
        self.streams.is_empty()
    }

    /// Returns true once there has been no client for long.
    pub(super) fn has_become_alone(&mut self, now: Timestamp) -> bool {
        self.alone = match self.alone {
            _ if !self.is_alone() => Alone::No,
            Alone::Unknown | Alone::No => Alone::Since(now),
            Alone::Since(since) if now.since(since) >= ALONE => {
                self.alone = Alone::Told;
                return true;
            }
            Alone::Since(since) => Alone::Since(since),
            Alone::Told => Alone::Told,
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
            Kind::Routes => canary.managed.service.listeners.contains(name),
            Kind::Cluster | Kind::Endpoints | Kind::Listener | Kind::Extension => {
                concerns(Matter::Refused(kind), name, canary)
            }
        })
    }
}

fn concerns(matter: Matter, name: &str, canary: &Canary) -> bool {
    match matter {
        Matter::Refused(Kind::Cluster | Kind::Endpoints) | Matter::Overdue => {
            clusters(canary).iter().any(|cluster| cluster == name)
        }
        Matter::Refused(Kind::Routes) => host(canary) == name,
        Matter::Refused(Kind::Listener) => canary.managed.service.listeners.iter().any(|listener| listener == name),
        Matter::Refused(Kind::Extension) => true,
    }
}

fn clusters(canary: &Canary) -> Vec<String> {
    let managed = &canary.managed;
    managed.workload.revisions.keys().map(|revision| cluster_name(&managed.plan, revision).to_string()).collect()
}

fn host(canary: &Canary) -> String {
    let name = canary.managed.plan.name();
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
