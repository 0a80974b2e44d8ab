//! A route table of a client: which of its hosts are sent as they are, and which as they were.
//!
//! Envoy takes a route table as a whole or not at all, and all canaries of a listener are in one. So that a host that
//! is refused holds no other one back, it is looked for: after a refusal, half as many changed hosts are sent, until
//! one of them alone is refused. That one stays as the client accepted it last, or away if it never did, until it
//! changes, or the domains beside it do: it may have been refused only for what another one answered to. With `k` such
//! hosts among `n` changed ones, the client is asked about `k · (2 + log₂ n)` times.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::render::routes;
use crate::resource::{Part, Resource};
use crate::session::acked::MAX_CULPRITS;
use crate::session::cluster_wait::ClusterState;
use crate::session::message::Culprit;
use crate::version::Version;

/// What a client holds of a route table, and refuses of it.
#[derive(Debug, Default)]
pub(super) struct RouteTable {
    held: AckedTable,
    /// Sent last, until it is answered.
    sent: Option<Arc<Resource>>,
    blamed: BTreeMap<String, Rejection>,
    /// While a culprit is looked for: it is among so many of the first changes. At least one.
    suspects: Option<usize>,
}

/// What the client has accepted.
#[derive(Debug, Default)]
enum AckedTable {
    /// It has no such table.
    #[default]
    Nothing,
    /// It has one from an earlier stream, and nobody here knows what is in it.
    Unknown,
    /// This.
    Known(Arc<Resource>),
}

#[derive(Debug)]
struct Rejection {
    version: Version,
    /// What the client answered to when it refused this.
    surroundings: Version,
}

/// A table for a client.
#[derive(Debug, Default)]
pub(super) struct Composed {
    /// What is to be sent; none if that has to wait.
    pub(super) table: Option<Arc<Resource>>,
    /// Hosts whose clusters are on their way. They are not in it as they are to be, or lead to what is not there yet.
    pub(super) held_back: Vec<Arc<Part>>,
}

/// Whether a table of which the client has accepted none on its stream waits for hosts whose clusters are on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FirstTable {
    /// It does: to leave them out for a moment would be a moment of 404.
    Waits,
    /// It does no longer: it goes without them, or with them where the client may have them from an earlier stream.
    Goes,
}

impl RouteTable {
    /// Notes that the client has a table from an earlier stream, which may be remembered.
    pub(super) fn assume_from_before(&mut self, known: Option<Arc<Resource>>) {
        self.held = known.map_or(AckedTable::Unknown, AckedTable::Known);
    }

    /// Notes what the client has from an earlier stream, if that was not known.
    pub(super) fn assume(&mut self, resource: &Arc<Resource>) {
        if matches!(self.held, AckedTable::Unknown) {
            self.held = AckedTable::Known(resource.clone());
        }
    }

    /// Returns what the client has accepted, if that is known.
    pub(super) const fn accepted(&self) -> Option<&Arc<Resource>> {
        match &self.held {
            AckedTable::Known(held) => Some(held),
            AckedTable::Nothing | AckedTable::Unknown => None,
        }
    }

    /// Returns true if the client has accepted this very table.
    pub(super) fn holds(&self, resource: &Resource) -> bool {
        self.accepted().is_some_and(|held| held.version == resource.version)
    }

    /// Returns the table that is to be sent where `wanted` is what is to be served. It waits for what is on its way, never
    /// for what is missing or refused: one host must not take the others with it.
    pub(super) fn compose(
        &self,
        wanted: &Arc<Resource>,
        state: impl Fn(&[String]) -> ClusterState,
        first: FirstTable,
    ) -> Composed {
        let complete = |table: Option<Arc<Resource>>| Composed { table, held_back: Vec::new() };
        if self.blamed.is_empty() && self.suspects.is_none() && state(&wanted.refers_to) == ClusterState::Ready {
            return complete(Some(wanted.clone()));
        }
        if self.blamed.len() >= MAX_CULPRITS {
            return complete(self.accepted().cloned());
        }
        let held = self.parts();
        let surroundings = self.surroundings();
        let at_most = self.suspects.map_or(usize::MAX, |suspects| (suspects / 2).max(1));
        let mut changes = 0_usize;
        let mut parts = Vec::with_capacity(wanted.parts.len());
        let (mut held_back, mut waits) = (Vec::new(), false);
        for part in &wanted.parts {
            let before = held.get(part.name.as_str()).copied();
            if before.is_some_and(|before| before.version == part.version) {
                parts.push(part.clone());
                continue;
            }
            let is_blamed = self
                .blamed
                .get(&part.name)
                .is_some_and(|blame| blame.version == part.version && blame.surroundings == surroundings);
            let may_go = !is_blamed && changes < at_most;
            let state = state(&part.refers_to);
            match state {
                ClusterState::Ready if may_go => {
                    changes = changes.saturating_add(1);
                    parts.push(part.clone());
                    continue;
                }
                ClusterState::Unasked | ClusterState::Pending => held_back.push(part.clone()),
                ClusterState::Ready | ClusterState::Refused | ClusterState::Missing => {}
            }
            match (&self.held, state, first) {
                (AckedTable::Known(_), _, _) => parts.extend(before.cloned()),
                (AckedTable::Unknown, ClusterState::Ready, _)
                | (
                    AckedTable::Unknown | AckedTable::Nothing,
                    ClusterState::Unasked | ClusterState::Pending,
                    FirstTable::Waits,
                ) => {
                    waits = true;
                }
                // Who leaves out a host that the client may serve takes it away from its users; and who waits for what
                // is missing, or on until a name is resolved, keeps all others as they were: an abort, too.
                (AckedTable::Unknown, ClusterState::Unasked | ClusterState::Pending, FirstTable::Goes)
                | (AckedTable::Unknown, ClusterState::Refused | ClusterState::Missing, _) => parts.push(part.clone()),
                (AckedTable::Nothing, ClusterState::Unasked | ClusterState::Pending, FirstTable::Goes)
                | (AckedTable::Nothing, ClusterState::Ready | ClusterState::Refused | ClusterState::Missing, _) => {}
            }
        }
        if waits {
            return Composed { table: None, held_back };
        }
        let same = parts.len() == wanted.parts.len()
            && parts.iter().zip(&wanted.parts).all(|(part, wanted)| part.version == wanted.version);
        let table = if same { wanted.clone() } else { Arc::new(routes(&wanted.name, parts)) };
        Composed { table: Some(table), held_back }
    }

    /// Notes what is sent.
    pub(super) fn sent(&mut self, resource: &Arc<Resource>) {
        self.sent = Some(resource.clone());
    }

    /// Notes that the client accepts what was sent.
    pub(super) fn accept(&mut self) {
        let Some(sent) = self.sent.take() else { return };
        let changed = self.changed(&sent).len();
        self.suspects = self.suspects.and_then(|suspects| suspects.checked_sub(changed)).filter(|left| *left > 0);
        let accepted: BTreeSet<(&str, Version)> =
            sent.parts.iter().map(|part| (part.name.as_str(), part.version)).collect();
        self.blamed.retain(|name, blame| !accepted.contains(&(name.as_str(), blame.version)));
        self.held = AckedTable::Known(sent);
    }

    /// Notes that the client refuses what was sent, alone or with other tables.
    pub(super) fn refuse(&mut self, alone: bool) -> Culprit {
        let Some(sent) = self.sent.take() else { return Culprit::Unknown };
        if matches!(self.held, AckedTable::Unknown) {
            return Culprit::Unknown;
        }
        if !alone {
            return Culprit::Sought;
        }
        match self.changed(&sent).as_slice() {
            [] => Culprit::Unknown,
            [part] => {
                let blame = Rejection { version: part.version, surroundings: self.surroundings() };
                let name = part.name.clone();
                self.suspects = None;
                self.blamed.insert(name.clone(), blame);
                if self.blamed.len() < MAX_CULPRITS { Culprit::One(name) } else { Culprit::Unknown }
            }
            changed => {
                self.suspects = Some(changed.len());
                Culprit::Sought
            }
        }
    }

    /// Forgets who was blamed for what is no longer served.
    pub(super) fn prune(&mut self, wanted: Option<&Resource>) {
        let parts = wanted.map(|wanted| wanted.parts.as_slice()).unwrap_or_default();
        if !self.blamed.is_empty() {
            let served: BTreeSet<(&str, Version)> =
                parts.iter().map(|part| (part.name.as_str(), part.version)).collect();
            self.blamed.retain(|name, blame| served.contains(&(name.as_str(), blame.version)));
        }
    }

    /// Returns the hosts that the client refuses.
    pub(super) fn refused(&self) -> impl Iterator<Item = &String> {
        self.blamed.keys()
    }

    /// Returns the hosts of a table that the client does not hold as they are there.
    fn changed<'a>(&self, table: &'a Resource) -> Vec<&'a Arc<Part>> {
        let held = self.parts();
        let is_new = |part: &&Arc<Part>| held.get(part.name.as_str()).is_none_or(|held| held.version != part.version);
        table.parts.iter().filter(is_new).collect()
    }

    fn parts(&self) -> BTreeMap<&str, &Arc<Part>> {
        let held = self.accepted().into_iter().flat_map(|held| &held.parts);
        held.map(|part| (part.name.as_str(), part)).collect()
    }

    /// Returns a version of what the client answers to.
    fn surroundings(&self) -> Version {
        let identities: Vec<[u8; 8]> = self.parts().values().map(|part| part.identity.bytes()).collect();
        Version::of(identities.iter().map(<[u8; 8]>::as_slice))
    }
}
