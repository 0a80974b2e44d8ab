//! The proxies: who is connected, what each has acknowledged and refused, and what its reports show.

use std::collections::{BTreeMap, BTreeSet};

use wingbeat_control::engine::{Reporter, rfc3339};
use wingbeat_control::view::{ProxyView, RefusalView};
use wingbeat_core::time::Timestamp;
use wingbeat_xds_server::client_event::{ClientEvent, ClientEventKind};
use wingbeat_xds_server::kind::Kind;

/// Characters of what a proxy said of a refusal.
const MAX_ERROR_LEN: usize = 500;
/// Names of refused resources that are shown of a type; there may be thousands.
const MAX_NAMES: usize = 10;

/// What open streams said. There are as many as the xDS server takes.
#[derive(Debug, Default)]
pub(crate) struct Proxies {
    streams: BTreeMap<u64, Stream>,
}

#[derive(Debug)]
struct Stream {
    node: String,
    since: Timestamp,
    /// When it said last that it holds all that it wants of a type.
    acknowledged: BTreeMap<Kind, Timestamp>,
    /// What it holds as it was before, because it refused it.
    refuses: BTreeMap<Kind, BTreeSet<String>>,
    latest: Option<(Timestamp, RefusalView)>,
}

impl Proxies {
    /// Takes news.
    pub(crate) fn observe(&mut self, news: &ClientEvent, now: Timestamp) {
        let stream = match &news.what {
            ClientEventKind::Connected { .. } => {
                let (node, acknowledged, refuses) = (news.node.clone(), BTreeMap::new(), BTreeMap::new());
                self.streams.insert(news.stream, Stream { node, since: now, acknowledged, refuses, latest: None });
                return;
            }
            ClientEventKind::Left => {
                self.streams.remove(&news.stream);
                return;
            }
            ClientEventKind::Overdue(_) | ClientEventKind::Foreign(_) | ClientEventKind::Mismatched(_) => return,
            ClientEventKind::Settled(_) | ClientEventKind::Refuses(..) | ClientEventKind::Refused(_) => {
                self.streams.get_mut(&news.stream)
            }
        };
        let Some(stream) = stream else { return };
        match &news.what {
            ClientEventKind::Settled(kind) => {
                stream.acknowledged.insert(*kind, now);
                stream.refuses.remove(kind);
            }
            ClientEventKind::Refuses(kind, names) if names.is_empty() => drop(stream.refuses.remove(kind)),
            ClientEventKind::Refuses(kind, names) => {
                stream.refuses.insert(*kind, names.iter().take(MAX_NAMES).cloned().collect());
            }
            ClientEventKind::Refused(nack) => {
                let message = nack.error.chars().take(MAX_ERROR_LEN).collect();
                let refusal = RefusalView { t: rfc3339(now), resources: word(nack.kind).to_owned(), message };
                stream.latest = Some((now, refusal));
            }
            ClientEventKind::Connected { .. }
            | ClientEventKind::Left
            | ClientEventKind::Overdue(_)
            | ClientEventKind::Foreign(_)
            | ClientEventKind::Mismatched(_) => {}
        }
    }

    /// Returns all that are connected or report, by node.
    pub(crate) fn view(&self, mut reporters: BTreeMap<String, Reporter>, now: Timestamp) -> Vec<ProxyView> {
        let mut streams: BTreeMap<&str, Vec<&Stream>> = BTreeMap::new();
        self.streams.values().for_each(|stream| streams.entry(&stream.node).or_default().push(stream));
        let connected = streams.into_iter().map(|(node, streams)| {
            let reporter = reporters.remove(node).unwrap_or_default();
            view(node, &streams, reporter, now)
        });
        let mut all: Vec<ProxyView> = connected.collect();
        // Some report and take no configuration: the stream is broken, or is yet to come back.
        all.extend(reporters.into_iter().map(|(node, reporter)| view(&node, &[], reporter, now)));
        all.sort_by(|one, other| one.node.cmp(&other.node));
        all
    }
}

fn view(node: &str, streams: &[&Stream], reporter: Reporter, now: Timestamp) -> ProxyView {
    let each = |of: fn(&Stream) -> &BTreeMap<Kind, Timestamp>| streams.iter().flat_map(move |stream| of(stream));
    let mut acknowledged = BTreeMap::new();
    for (kind, at) in each(|stream| &stream.acknowledged) {
        let latest = acknowledged.entry(*kind).or_insert(*at);
        *latest = (*latest).max(*at);
    }
    let mut refuses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (kind, names) in streams.iter().flat_map(|stream| &stream.refuses) {
        refuses.entry(word(*kind).to_owned()).or_default().extend(names.iter().cloned());
    }
    let latest = streams.iter().filter_map(|stream| stream.latest.as_ref()).max_by_key(|(at, _)| *at);
    ProxyView {
        node: node.to_owned(),
        streams: u64::try_from(streams.len()).unwrap_or(u64::MAX),
        connected_since: streams.iter().map(|stream| stream.since).min().map(rfc3339),
        acknowledged: acknowledged.into_iter().map(|(kind, at)| (word(kind).to_owned(), rfc3339(at))).collect(),
        refuses,
        last_refusal: latest.map(|(_, refusal)| refusal.clone()),
        last_report_ms: reporter.last.map(|last| now.since(last).as_millis()),
        routes: reporter.routes,
    }
}

/// Returns what people call the resources of a type.
const fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Cluster => "clusters",
        Kind::Endpoints => "endpoints",
        Kind::Listener => "listeners",
        Kind::Routes => "routes",
        Kind::Extension => "filter",
    }
}

#[cfg(test)]
mod tests {
    use wingbeat_control::view::ProxyRouteView;
    use wingbeat_xds_server::client_event::Nack;

    use super::*;

    #[test]
    fn a_proxy_is_shown_with_what_it_holds_refuses_and_reports() {
        let mut proxies = Proxies::default();
        let at = Timestamp::from_millis;
        let mut news =
            |stream, node: &str, what, ms| proxies.observe(&ClientEvent { node: node.into(), stream, what }, at(ms));
        news(1, "edge-1", ClientEventKind::Connected { source: None, node_cluster: String::new() }, 1_000);
        news(1, "edge-1", ClientEventKind::Settled(Kind::Cluster), 2_000);
        news(2, "edge-2", ClientEventKind::Connected { source: None, node_cluster: String::new() }, 2_000);
        let names = || vec!["public".to_owned()];
        let nack =
            Nack { kind: Kind::Listener, names: names(), culprits: Some(names()), error: "cannot bind".to_owned() };
        news(1, "edge-1", ClientEventKind::Refused(nack), 3_000);
        news(1, "edge-1", ClientEventKind::Refuses(Kind::Listener, names().into_iter().collect()), 3_000);
        news(2, "edge-2", ClientEventKind::Left, 4_000);
        news(9, "edge-9", ClientEventKind::Settled(Kind::Routes), 4_000);
        let route = ProxyRouteView { namespace: "prod".into(), name: "backend".into(), rev: 4, current_rev: 5 };
        let reports = |ms| Reporter { last: Some(at(ms)), routes: vec![route.clone()] };
        let reporters = BTreeMap::from([("edge-1".to_owned(), reports(4_500)), ("edge-3".to_owned(), reports(4_900))]);
        let shown = proxies.view(reporters, at(5_000));
        let expected = ProxyView {
            node: "edge-1".into(),
            streams: 1,
            connected_since: Some("1970-01-01T00:00:01.000Z".into()),
            acknowledged: [("clusters".to_owned(), "1970-01-01T00:00:02.000Z".to_owned())].into(),
            refuses: [("listeners".to_owned(), names().into_iter().collect())].into(),
            last_refusal: Some(RefusalView {
                t: "1970-01-01T00:00:03.000Z".into(),
                resources: "listeners".into(),
                message: "cannot bind".into(),
            }),
            last_report_ms: Some(500),
            routes: vec![route.clone()],
        };
        let alone =
            ProxyView { node: "edge-3".into(), last_report_ms: Some(100), routes: vec![route], ..ProxyView::default() };
        assert_eq!(shown, [expected, alone]);
        // What it took in the end is not refused; what it said stays.
        proxies.observe(
            &ClientEvent { node: "edge-1".into(), stream: 1, what: ClientEventKind::Settled(Kind::Listener) },
            at(6_000),
        );
        let shown = proxies.view(BTreeMap::new(), at(6_000));
        assert!(shown.iter().all(|proxy| proxy.refuses.is_empty() && proxy.last_refusal.is_some()), "{shown:?}");
    }
}
