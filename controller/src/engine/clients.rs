//! Who takes configuration from us, and what they refuse of it.

use std::collections::BTreeMap;

use wingbeat_core::id::CanaryName;
use wingbeat_xds_server::resource::Kind;
use wingbeat_xds_server::server::{Happened, News};

use crate::engine::canary::Canary;
use crate::setup::cluster_name;
use crate::view::ClientsView;

/// What a client says of a refusal is repeated up to this length.
const LONGEST_ERROR: usize = 500;

/// Open streams and open refusals.
#[derive(Debug, Default)]
pub(super) struct Clients {
    streams: BTreeMap<u64, String>,
    refusals: BTreeMap<(u64, Kind), Refusal>,
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
            Happened::Connected => {
                self.streams.insert(news.stream, news.node.clone());
            }
            Happened::Left => {
                self.streams.remove(&news.stream);
                let before = self.refusals.len();
                self.refusals.retain(|(stream, _), _| *stream != news.stream);
                self.changed |= self.refusals.len() != before;
            }
            Happened::Settled(kind) => {
                self.changed |= self.refusals.remove(&(news.stream, *kind)).is_some();
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
                let refusal = Refusal { names: nack.names.clone(), text: text.clone() };
                let concerned = canaries.iter().filter(|(_, canary)| {
                    let known =
                        || self.refusals.iter().any(|((_, of), known)| *of == nack.kind && known.concerns(*of, canary));
                    refusal.concerns(nack.kind, canary) && !known()
                });
                let told = concerned.map(|(name, _)| (name.clone(), text.clone())).collect();
                self.changed = true;
                self.refusals.insert((news.stream, nack.kind), refusal);
                return told;
            }
        }
        Vec::new()
    }

    /// Returns true if there are other refusals than when it was asked last.
    pub(super) const fn take_changed(&mut self) -> bool {
        std::mem::replace(&mut self.changed, false)
    }

    /// Returns what some client refuses of what this canary needs.
    pub(super) fn refusal(&self, canary: &Canary) -> Option<&str> {
        let concerned = self.refusals.iter().find(|((_, kind), refusal)| refusal.concerns(*kind, canary));
        concerned.map(|(_, refusal)| refusal.text.as_str())
    }

    pub(super) fn view(&self) -> ClientsView {
        let count = |length: usize| u64::try_from(length).unwrap_or(u64::MAX);
        ClientsView {
            streams: count(self.streams.len()),
            refusals: count(self.refusals.len()),
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
