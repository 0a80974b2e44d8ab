//! Which routes a client can be sent: those whose clusters it has.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::kind::Kind;
use crate::resource::Resource;
use crate::scoped_snapshots::ScopedSnapshots;
use crate::session::cluster_wait::ClusterState;
use crate::session::route_table::{Composed, FirstTable, RouteTable};
use crate::session::{Response, Session, Subscription};

impl Session {
    /// Returns when [`Session::expire`] is due, if it is.
    pub fn expires(&self) -> Option<Duration> {
        self.patience.ends()
    }

    /// Ends the waiting of routes, if it is time.
    pub fn expire(&mut self, now: Duration) -> Vec<Response> {
        self.now = now;
        if !self.patience.end(now) {
            return Vec::new();
        }
        let unasked = self.held_back().into_iter().filter(|cluster| self.state(cluster) == ClusterState::Unasked);
        let unasked: Vec<String> = unasked.collect();
        self.patience.unasked.extend(unasked);
        self.of_mut(Kind::Routes).dirty = true;
        self.pump()
    }

    /// Returns the clusters that the client's routes lead to; none while they are not all known: those on their way lead
    /// to others than those that it has accepted.
    pub(super) fn used_clusters(&self) -> Option<BTreeSet<String>> {
        let subscription = self.of(Kind::Routes);
        if subscription.holding.is_outstanding() {
            return None;
        }
        let mut used = BTreeSet::new();
        for wanted in self.snapshot.iter().flat_map(|snapshot| snapshot.of(Kind::Routes).values()) {
            if subscription.wants(wanted) {
                let resource = self.composed(Kind::Routes, wanted).table?;
                if !subscription.holding.has_accepted(&resource) {
                    return None;
                }
                used.extend(resource.refers_to.iter().cloned());
            }
        }
        // Listeners that the client may still have lead by these.
        for lingering in subscription.lingering.values().filter(|table| subscription.wants(table)) {
            used.extend(lingering.refers_to.iter().cloned());
            let held = self.tables.get(&lingering.name).and_then(RouteTable::accepted);
            used.extend(held.into_iter().flat_map(|held| held.refers_to.iter().cloned()));
        }
        Some(used)
    }

    /// Returns what of a type that is gone goes on though no listener refers to it: Envoy lets connections of a listener that
    /// is gone end in their time, by its routes, and names these until then.
    pub(super) fn drained(&self, kind: Kind) -> BTreeSet<String> {
        let subscription = self.of(kind);
        let lingering = subscription.lingering.values().filter(|_| kind == Kind::Routes);
        let named = lingering.filter(|table| subscription.wants(table));
        named.map(|table| table.name.clone()).collect()
    }

    /// Takes what others are served of what is gone for the client and goes on: an abort is one for connections of a listener
    /// that is gone, too.
    pub fn follow(&mut self, views: &ScopedSnapshots, now: Duration) -> Vec<Response> {
        self.now = now;
        for kind in [Kind::Cluster, Kind::Endpoints, Kind::Routes] {
            let Subscription { lingering, dirty, .. } = self.of_mut(kind);
            for held in lingering.values_mut() {
                let newer = views.find(kind, &held.name).filter(|newer| newer.version != held.version);
                if let Some(newer) = newer {
                    (*held, *dirty) = (newer.clone(), true);
                }
            }
        }
        self.pump()
    }

    /// Returns true if routes that the client came with may lead to something of this type that is gone: it has not taken
    /// the current ones yet.
    pub(super) fn may_route_to_what_is_gone(&self, kind: Kind) -> bool {
        let is_routed_to = kind.referred_by() == Some(Kind::Routes);
        is_routed_to && self.of(Kind::Routes).wanted.is_some() && self.used_clusters().is_none()
    }

    /// Notes which tables of routes the client brought from an earlier stream, now that they are known again.
    pub(super) fn recognise(&mut self, kind: Kind) {
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

    /// Returns a resource as it is sent to this client, if it has not to wait. Routes differ, where the client refuses
    /// hosts of them, or these need clusters that it refuses or that are missing: it goes on with what it had.
    pub(super) fn composed(&self, kind: Kind, resource: &Arc<Resource>) -> Composed {
        let goes = |table: Option<Arc<Resource>>| Composed { table, held_back: Vec::new() };
        if kind != Kind::Routes {
            return goes(Some(resource.clone()));
        }
        if resource.parts.is_empty() {
            return goes((self.worst(&resource.refers_to) == ClusterState::Ready).then(|| resource.clone()));
        }
        let fresh = RouteTable::default();
        let first = if self.patience.is_over() { FirstTable::Goes } else { FirstTable::Waits };
        let known = self.tables.get(&resource.name).unwrap_or(&fresh);
        known.compose(resource, |clusters| self.worst(clusters), first)
    }

    /// Returns the clusters for which hosts are held back.
    fn held_back(&self) -> BTreeSet<String> {
        let tables = self.target(Kind::Routes);
        let parts = tables.values().flat_map(|table| self.composed(Kind::Routes, table).held_back);
        parts.flat_map(|part| part.refers_to.clone()).collect()
    }

    fn worst(&self, clusters: &[String]) -> ClusterState {
        clusters.iter().map(|cluster| self.state(cluster)).max().unwrap_or(ClusterState::Ready)
    }

    /// Returns how a cluster is. Of one that the client takes from elsewhere nothing is known, and one that it does not
    /// want, while it names those that it wants, it will ask for by itself.
    pub(super) fn state(&self, cluster: &str) -> ClusterState {
        let (clusters, endpoints) = (self.of(Kind::Cluster), self.of(Kind::Endpoints));
        let (Some(snapshot), Some(wanted)) = (&self.snapshot, &clusters.wanted) else { return ClusterState::Ready };
        let is_served = snapshot.of(Kind::Cluster).contains_key(cluster) || clusters.lingering.contains_key(cluster);
        let by_eds = snapshot.of(Kind::Endpoints).contains_key(cluster);
        if !is_served {
            ClusterState::Missing
        } else if !wanted.covers(cluster) {
            ClusterState::Ready
        } else if clusters.holding.is_refused(cluster) || endpoints.holding.is_refused(cluster) {
            ClusterState::Refused
        } else if !clusters.holding.may_be_used(cluster) || self.returning.is_open(cluster) {
            ClusterState::Pending
        } else if !by_eds {
            // Envoy resolves its names first, and until then a route to it answers 503. Over ADS, it accepts clusters once
            // none of them warms any more. Of a client of which nothing is known, most are there all the same.
            let hopes = clusters.holding.is_of_unknown_origin() && self.patience.is_over();
            if clusters.holding.awaits(cluster) && !hopes { ClusterState::Pending } else { ClusterState::Ready }
        } else if endpoints.holding.may_be_used(cluster) || self.patience.unasked.contains(cluster) {
            ClusterState::Ready
        } else if endpoints.wanted.as_ref().is_some_and(|wanted| wanted.covers(cluster)) {
            ClusterState::Pending
        } else if clusters.holding.has_accepted_some(cluster) {
            ClusterState::Unasked
        } else {
            ClusterState::Pending
        }
    }
}
