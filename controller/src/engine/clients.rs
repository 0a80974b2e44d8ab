//! Who takes configuration from us, and what they refuse of it.

use std::collections::BTreeMap;

use wingbeat_core::id::{CanaryName, NodeId};
use wingbeat_core::time::{Span, Timestamp};
use wingbeat_xds_server::resource::Kind;
use wingbeat_xds_server::server::{Happened, News};
use wingbeat_xds_server::session::Nack;

use crate::engine::canary::Canary;
use crate::setup::cluster_name;
use crate::view::ClientsView;

/// What a client says of a refusal is repeated up to this length.
const LONGEST_ERROR: usize = 500;

/// Refused hosts that are remembered, over all clients.
const MOST_HOSTS: usize = 10_000;

/// Voices that are remembered to have reported. Later ones count once they are heard of by the judge.
const MOST_VOICES: usize = 10_000;

/// Open streams and open refusals.
#[derive(Debug, Default)]
pub(super) struct Clients {
    streams: BTreeMap<u64, Option<NodeId>>,
    /// Whose voices take configuration and may report, with the number of their streams.
    voices: BTreeMap<NodeId, u64>,
    /// Whose voices reported, and when they did last.
    reporters: BTreeMap<NodeId, Timestamp>,
    refusals: BTreeMap<(u64, Kind), Refusal>,
    /// By host and stream, what was said of routes that one host alone is to blame for.
    hosts: BTreeMap<(String, u64), String>,
    nacks: BTreeMap<Kind, u64>,
    /// Something became of an open refusal since it was asked last.
    changed: bool,
}

/// What a client refused, until it accepts something better.
#[derive(Debug)]
struct Refusal {
    names: Vec<String>,
    text: String,
}

impl Clients {
    /// Takes news, and returns what is to be told of whom: of each canary and type, the first refusal.
    pub(super) fn heard(&mut self, news: &News, canaries: &BTreeMap<CanaryName, Canary>) -> Vec<(CanaryName, String)> {
        match &news.what {
            Happened::Connected { voice } => {
                let voice = voice.as_ref().map(NodeId::new);
                if let Some(voice) = &voice {
                    let streams = self.voices.entry(voice.clone()).or_default();
                    *streams = streams.saturating_add(1);
                }
                self.streams.insert(news.stream, voice);
            }
            Happened::Left => {
                if let Some(voice) = self.streams.remove(&news.stream).flatten()
                    && let Some(streams) = self.voices.get_mut(&voice)
                {
                    *streams = streams.saturating_sub(1);
                    if *streams == 0 {
                        self.voices.remove(&voice);
                    }
                }
                self.keep(|(stream, _)| *stream != news.stream, |(_, stream)| *stream != news.stream);
            }
            Happened::Settled(kind) => {
                let settled = (news.stream, *kind);
                self.keep(|key| *key != settled, |(_, stream)| settled != (*stream, Kind::Routes));
            }
            Happened::RefusesHosts(refused) => {
                self.keep(|_| true, |(host, stream)| *stream != news.stream || refused.contains(host));
            }
            Happened::Refused(nack) => {
                let text = format!(
                    "Envoy {} refuses {} and goes on with the last good ones: {}",
                    news.node,
                    what(nack.kind),
                    nack.error.chars().take(LONGEST_ERROR).collect::<String>()
                );
                tracing::warn!(node = news.node, kind = ?nack.kind, names = ?nack.names, "{text}");
                let count = self.nacks.entry(nack.kind).or_default();
                *count = count.saturating_add(1);
                let told = match &nack.hosts {
                    Some(hosts) => self.blame(news.stream, hosts, &text),
                    None => self.refuse(news.stream, nack, &text, canaries),
                };
                return told;
            }
        }
        Vec::new()
    }

    /// Notes that somebody reported.
    pub(super) fn reported(&mut self, voice: &NodeId, now: Timestamp) {
        if let Some(last) = self.reporters.get_mut(voice) {
            *last = now;
        } else if self.reporters.len() < MOST_VOICES {
            self.reporters.insert(voice.clone(), now);
        }
    }

    /// Returns how many voices there are: of those that take configuration, and of those that reported in the last
    /// `silent`.
    pub(super) fn voices(&mut self, now: Timestamp, silent: Span) -> usize {
        self.reporters.retain(|_, last| now.since(*last) <= silent);
        let others = self.reporters.keys().filter(|voice| !self.voices.contains_key(*voice));
        self.voices.len().saturating_add(others.count())
    }

    /// Notes who is to blame for refused routes, if that is known. Returns who is refused for the first time.
    fn blame(&mut self, stream: u64, hosts: &[String], text: &str) -> Vec<(CanaryName, String)> {
        let mut told = Vec::new();
        // Who can tell them apart knows what the others are.
        self.changed |= self.refusals.remove(&(stream, Kind::Routes)).is_some();
        for host in hosts {
            let known = self.host_refusal(host).is_some();
            if self.hosts.len() < MOST_HOSTS {
                self.hosts.insert((host.clone(), stream), text.to_owned());
            }
            self.changed = true;
            if let Some((namespace, name)) = host.split_once('/').filter(|_| !known) {
                told.push((CanaryName::new(namespace, name), text.to_owned()));
            }
        }
        told
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

    /// Keeps these refusals and forgets the others.
    fn keep(&mut self, refusals: impl Fn(&(u64, Kind)) -> bool, hosts: impl Fn(&(String, u64)) -> bool) {
        let before = (self.refusals.len(), self.hosts.len());
        self.refusals.retain(|key, _| refusals(key));
        self.hosts.retain(|key, _| hosts(key));
        self.changed |= (self.refusals.len(), self.hosts.len()) != before;
    }

    fn host_refusal(&self, host: &str) -> Option<&str> {
        let refused = self.hosts.range((host.to_owned(), 0)..).next();
        refused.filter(|((of, _), _)| of == host).map(|(_, text)| text.as_str())
    }

    /// Returns true if there are other refusals than when it was asked last.
    pub(super) const fn take_changed(&mut self) -> bool {
        std::mem::replace(&mut self.changed, false)
    }

    /// Returns what some client refuses of what this canary needs.
    pub(super) fn refusal(&self, canary: &Canary) -> Option<&str> {
        let concerned = self.refusals.iter().find(|((_, kind), refusal)| refusal.concerns(*kind, canary));
        let name = canary.managed.plan.name();
        concerned
            .map(|(_, refusal)| refusal.text.as_str())
            .or_else(|| self.host_refusal(&format!("{}/{}", name.namespace, name.name)))
    }

    pub(super) fn view(&self) -> ClientsView {
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        ClientsView {
            streams: count(self.streams.len()),
            refusals: count(self.refusals.len().saturating_add(self.hosts.len())),
            nacks: self.nacks.iter().map(|(kind, count)| (kind.type_url(), *count)).collect(),
        }
    }
}

impl Refusal {
    fn concerns(&self, kind: Kind, canary: &Canary) -> bool {
        let managed = &canary.managed;
        match kind {
            Kind::Cluster | Kind::Endpoints => {
                let clusters = managed.workload.revisions.keys().map(|revision| cluster_name(&managed.plan, revision));
                clusters.into_iter().any(|cluster| self.names.iter().any(|name| name == cluster.as_str()))
            }
            Kind::Listener | Kind::Routes => managed.service.listeners.iter().any(|name| self.names.contains(name)),
            Kind::Extension => true,
        }
    }
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
