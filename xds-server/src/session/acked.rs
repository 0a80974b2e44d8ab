//! What a client holds of one type, as far as its answers tell, and what it refuses.
//!
//! A client takes a response as a whole or not at all. So that what it refuses holds nothing else back, that is looked
//! for: after a refusal, half as many changed resources are sent, until one of them alone is refused. That one is not
//! sent again until it changes. With `k` such ones among `n` changed ones, the client is asked about `k · (2 + log₂ n)`
//! times. Envoy takes clusters and listeners one by one all the same, and names those that it did not: what a refusal names
//! is tried last, so that what was taken is not taken away again. In a whole set, the version that the client accepted last stands in for what is not sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::resource::Resource;
use crate::session::message::Culprit;
use crate::snapshot::Resources;
use crate::version::Version;

/// So many refused resources of a type are looked for, and so many refused hosts of a route table. Who refuses more
/// refuses something that they have in common; it is left with what it has.
pub(super) const MAX_CULPRITS: usize = 64;

/// What was sent, and what became of it.
#[derive(Debug, Default)]
pub(super) struct AckedState {
    resources: BTreeMap<String, AckedResource>,
    outstanding: Option<Outstanding>,
    /// Nonce of the latest response.
    last_nonce: Option<String>,
    /// Refused, each alone among what changed, in this version.
    blamed: BTreeMap<String, Version>,
    /// While a culprit is looked for: it is among so many of the first changes. At least one.
    among: Option<usize>,
    /// What refusals named of these.
    named: Named,
    origin: SetOrigin,
}

/// What refusals name while a culprit is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Named {
    /// These, which are tried last. Each refusal adds to them, or they are of no more use.
    TriedLast(BTreeSet<String>),
    /// A refusal named nothing new: until the search ends, only halving goes on for sure.
    Useless,
}

impl Default for Named {
    fn default() -> Self {
        Self::TriedLast(BTreeSet::new())
    }
}

impl Named {
    /// Takes what a refusal names.
    fn add(&mut self, named: BTreeSet<String>) {
        let Self::TriedLast(known) = self else { return };
        let before = known.len();
        known.extend(named);
        if known.len() == before {
            *self = Self::Useless;
        }
    }

    fn contains(&self, name: &str) -> bool {
        match self {
            Self::TriedLast(names) => names.contains(name),
            Self::Useless => false,
        }
    }
}

/// Whether it is known what the client held when its stream began.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum SetOrigin {
    /// It is, or nothing was held.
    #[default]
    Known,
    /// It came with a whole set, and nobody here knows what is in it: nothing may be left out of the next one.
    Unknown,
}

/// What an answer was about.
#[derive(Debug, Clone)]
pub(super) struct AckOutcome {
    /// Names of what was accepted, or of what was refused and not accepted before.
    pub(super) names: Vec<String>,
    /// True if the response carried nothing else.
    pub(super) alone: bool,
    /// Who is to blame, of a refusal.
    pub(super) culprit: Option<Culprit>,
    /// True if something is accepted now that was refused along with others before.
    pub(super) mended: bool,
    /// What had to be in a response that was refused for something else in it: it is still to come.
    pub(super) forced: BTreeSet<String>,
}

/// A response that is not answered yet.
#[derive(Debug, Clone)]
pub(super) struct Outstanding {
    pub(super) nonce: String,
    pub(super) resources: Vec<Arc<Resource>>,
    /// What had to be in it, changed or not.
    pub(super) forced: BTreeSet<String>,
    /// True if it is a whole set: what is left out is gone.
    pub(super) whole: bool,
    /// What was held and is taken away by it: who refuses it goes on with that.
    pub(super) taken_away: TakenAway,
}

/// What a client holds until it accepts a response without it.
#[derive(Debug, Clone, Default)]
pub(super) struct TakenAway(BTreeMap<String, AckedResource>);

#[derive(Debug, Clone, Default)]
struct AckedResource {
    /// Sent last and not refused; none if the client holds something that we do not know.
    sent: Option<Version>,
    accepted: Option<Version>,
    /// What was accepted, if it was seen.
    body: Option<Arc<Resource>>,
}

impl AckedResource {
    fn has_accepted(&self, resource: &Resource) -> bool {
        self.accepted == Some(resource.version)
    }
}

impl AckedState {
    /// Takes the answer to a response, if it is the one that was waited for.
    pub(super) fn answer(&mut self, nonce: &str, error: Option<&str>) -> Option<AckOutcome> {
        let Outstanding { resources, forced, whole, taken_away, .. } =
            self.outstanding.take_if(|outstanding| outstanding.nonce == nonce)?;
        let alone = resources.len() <= 1;
        let changed: Vec<Arc<Resource>> =
            resources.iter().filter(|resource| !self.has_accepted(resource)).cloned().collect();
        let Some(error) = error else {
            let mended = self.among.is_some();
            self.among = self.among.and_then(|among| among.checked_sub(changed.len())).filter(|left| *left > 0);
            if self.among.is_none() {
                self.named = Named::default();
            }
            if whole {
                self.origin = SetOrigin::Known;
            }
            let names = resources.iter().map(|resource| resource.name.clone()).collect();
            for resource in resources {
                let held = self.resources.entry(resource.name.clone()).or_default();
                held.accepted = Some(resource.version);
                held.body = Some(resource);
            }
            return Some(AckOutcome { names, alone, culprit: None, mended, forced: BTreeSet::new() });
        };
        let names: Vec<String> = changed.iter().map(|resource| resource.name.clone()).collect();
        let culprit = match changed.as_slice() {
            [] => Culprit::Unknown,
            [one] => {
                (self.among, self.named) = (None, Named::default());
                self.blamed.insert(one.name.clone(), one.version);
                Culprit::One(one.name.clone())
            }
            // Nothing can be left out to find it, and most of them may well be in use.
            _ if whole && self.origin == SetOrigin::Unknown => {
                let culprit = Some(Culprit::Unknown);
                return Some(AckOutcome { names, alone, culprit, mended: false, forced: BTreeSet::new() });
            }
            many => {
                let names = many.iter().map(|resource| &resource.name);
                self.named.add(names.filter(|name| error.contains(name.as_str())).cloned().collect());
                self.among = Some(many.len());
                Culprit::Sought
            }
        };
        if !changed.is_empty() {
            // Something else comes next, and takes it away anew. Who refuses nothing but that is left with it.
            let held = taken_away.0.into_iter().filter(|(_, held)| !whole || held.accepted.is_some());
            self.resources.extend(held);
        }
        for resource in changed {
            let Some(held) = self.resources.get_mut(&resource.name) else { continue };
            held.sent = held.accepted;
            if whole && held.accepted.is_none() {
                self.resources.remove(&resource.name);
            }
        }
        // Who refuses nothing but that is not asked for ever.
        let forced = if names.is_empty() { BTreeSet::new() } else { forced };
        Some(AckOutcome { names, alone, culprit: Some(culprit), mended: false, forced })
    }

    /// Returns true for the nonce of a response that is not the latest one.
    pub(super) fn is_stale(&self, nonce: &str) -> bool {
        !nonce.is_empty() && self.last_nonce.as_deref().is_some_and(|last| last != nonce)
    }

    /// Notes a response. A whole set replaces what was held.
    pub(super) fn sent(&mut self, outstanding: Outstanding) {
        if outstanding.whole {
            let names: BTreeSet<&String> = outstanding.resources.iter().map(|resource| &resource.name).collect();
            self.resources.retain(|name, _| names.contains(name));
        }
        for resource in &outstanding.resources {
            self.resources.entry(resource.name.clone()).or_default().sent = Some(resource.version);
        }
        self.last_nonce = Some(outstanding.nonce.clone());
        self.outstanding = Some(outstanding);
    }

    pub(super) const fn is_outstanding(&self) -> bool {
        self.outstanding.is_some()
    }

    /// Returns true if this was sent, is not answered yet, and no version of it was accepted before.
    pub(super) fn awaits(&self, name: &str) -> bool {
        let mut sent = self.outstanding.iter().flat_map(|outstanding| &outstanding.resources);
        !self.has_accepted_some(name) && sent.any(|resource| resource.name == name)
    }

    /// Returns true if the client came with a whole set of which nothing is known, and has accepted none since.
    pub(super) fn is_of_unknown_origin(&self) -> bool {
        self.origin == SetOrigin::Unknown
    }

    /// Notes what the client holds from an earlier stream.
    pub(super) fn assume(&mut self, name: &str, version: Option<Version>, body: Option<Arc<Resource>>) {
        self.resources.insert(name.to_owned(), AckedResource { sent: version, accepted: version, body });
    }

    /// Notes that the client holds a whole set of which nothing is known.
    pub(super) const fn assume_something(&mut self) {
        self.origin = SetOrigin::Unknown;
    }

    /// Notes that the client holds this whole set from an earlier stream.
    pub(super) fn assume_all(&mut self, resources: &Resources) {
        self.origin = SetOrigin::Known;
        for held in resources.values() {
            self.assume(&held.name, Some(held.version), Some(held.clone()));
        }
    }

    /// Returns true if the client holds some version of this.
    pub(super) fn has(&self, name: &str) -> bool {
        self.resources.contains_key(name)
    }

    /// Returns true if the client has accepted this very version.
    pub(super) fn has_accepted(&self, resource: &Resource) -> bool {
        self.resources.get(&resource.name).is_some_and(|held| held.has_accepted(resource))
    }

    /// Returns true if the client has accepted some version of this.
    pub(super) fn has_accepted_some(&self, name: &str) -> bool {
        self.resources.get(name).is_some_and(|held| held.accepted.is_some())
    }

    /// Returns true if this version is to be sent: it was not, or it was refused along with others.
    pub(super) fn lacks(&self, resource: &Resource) -> bool {
        let sent = self.resources.get(&resource.name).and_then(|held| held.sent);
        sent != Some(resource.version) && self.blamed.get(&resource.name) != Some(&resource.version)
    }

    /// Returns true if something that the client is to hold may refer to this: it was sent, and some version of it
    /// was not refused.
    pub(super) fn may_be_used(&self, name: &str) -> bool {
        self.resources.get(name).is_some_and(|held| held.accepted.is_some() || held.sent.is_some())
    }

    /// Returns true if the client refuses this, and never accepted another version of it.
    pub(super) fn is_refused(&self, name: &str) -> bool {
        self.blamed.contains_key(name) && !self.may_be_used(name)
    }

    /// Returns the names of what the client refuses.
    pub(super) fn refused(&self) -> impl Iterator<Item = &String> {
        self.blamed.keys()
    }

    /// Returns all that the client has accepted, where that was seen.
    pub(super) fn accepted(&self) -> Vec<Arc<Resource>> {
        self.resources.values().filter_map(|held| held.body.clone()).collect()
    }

    /// Returns the names of what the client holds and is not to hold.
    pub(super) fn without(&self, target: &Resources) -> Vec<String> {
        self.resources.keys().filter(|name| !target.contains_key(*name)).cloned().collect()
    }

    /// Forgets who was blamed for what is to be held no longer.
    pub(super) fn prune(&mut self, target: &Resources) {
        self.blamed.retain(|name, version| target.get(name).is_some_and(|resource| resource.version == *version));
    }

    /// Returns the names of what is not sent for now: what the client refuses and, while a culprit is looked for, half of
    /// what it may be. `waits` are names that are not sent anyway.
    pub(super) fn withheld(&self, target: &Resources, waits: &BTreeSet<String>) -> BTreeSet<String> {
        if self.origin == SetOrigin::Unknown || (self.blamed.is_empty() && self.among.is_none()) {
            return BTreeSet::new();
        }
        let is_open = |resource: &&Arc<Resource>| !self.has_accepted(resource) && !waits.contains(&resource.name);
        let is_blamed = |resource: &Resource| self.blamed.get(&resource.name) == Some(&resource.version);
        let (refused, changed): (Vec<_>, Vec<_>) =
            target.values().filter(is_open).partition(|resource| is_blamed(resource));
        let (named, unnamed): (Vec<_>, Vec<_>) =
            changed.into_iter().partition(|resource| self.named.contains(&resource.name));
        let at_most = match self.among {
            _ if self.blamed.len() >= MAX_CULPRITS => 0,
            Some(_) if !named.is_empty() && !unnamed.is_empty() => unnamed.len(),
            Some(among) => (among / 2).max(1),
            None => usize::MAX,
        };
        let changed = unnamed.into_iter().chain(named);
        refused.into_iter().chain(changed.skip(at_most)).map(|resource| resource.name.clone()).collect()
    }

    /// Puts into a whole set what the client accepted last, in the place of what is withheld; what it never accepted is
    /// left out.
    pub(super) fn stand_in(&self, target: &mut Resources, withheld: &BTreeSet<String>) {
        for name in withheld {
            match self.resources.get(name).and_then(|held| held.body.clone()) {
                Some(body) => target.insert(name.clone(), body),
                None => target.remove(name),
            };
        }
    }

    /// Forgets what is taken away, and returns it: it is held on should the client refuse that.
    pub(super) fn drop_names(&mut self, names: &[String]) -> TakenAway {
        for name in names {
            self.blamed.remove(name);
        }
        TakenAway(names.iter().filter_map(|name| self.resources.remove_entry(name)).collect())
    }

    /// Forgets resources that the client no longer wants.
    pub(super) fn forget(&mut self, unwanted: impl Fn(&String) -> bool) {
        self.resources.retain(|name, _| !unwanted(name));
        self.blamed.retain(|name, _| !unwanted(name));
    }
}
