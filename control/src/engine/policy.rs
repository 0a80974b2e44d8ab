//! What the filters are told: which clusters to count, how long is too long, and how hosts are divided. Each of what its node
//! is served, and of nothing else.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use prost::Message as _;
use wingbeat_core::analysis::judge::Sources;
use wingbeat_core::id::{Arm, CanaryName, NodeId};
use wingbeat_core::matching::assignment::Assignment;
use wingbeat_core::matching::pattern::AUTOMATON_FORMAT;
use wingbeat_core::time::Timestamp;
use wingbeat_proto::convert::policy::write::{Automata, DividedHost};
use wingbeat_proto::v1::{ClusterPolicy, Policy};
use wingbeat_xds_server::model::Listener;
use wingbeat_xds_server::scope::{Scope, Scopes};
use wingbeat_xds_server::version::Version;

use crate::engine::canaries::Canaries;
use crate::engine::canary::Canary;

/// Policies of a place that are remembered, 16 bytes each: half a minute in which each tick brings another one, and workers report
/// every five seconds at least. A worker with an older one counts as one that has none.
const MAX_REVISIONS: usize = 512;

/// Hanging and abandoned requests of one client that count against a canary in 10 minutes, at each worker, where rules or
/// users decide who gets it. Beyond it they count only while more of the client's connections hang than a browser opens.
const CLIENT_SHARE: u32 = 4;

/// The policies in force, and who knows how hosts are divided.
#[derive(Debug, Default)]
pub(super) struct Policies {
    scopes: Scopes,
    /// For nodes of each `node.cluster` that listeners name, or did until lately.
    named: BTreeMap<Arc<str>, PolicyRevisions>,
    /// For all others.
    others: PolicyRevisions,
    /// The latest number of any place.
    latest: PolicyNumber,
}

/// When a policy came into force: each one, of whatever place, has a higher number than those before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PolicyNumber(pub(super) u64);

/// Canaries of which policies may say something else than they do.
#[derive(Debug)]
pub(super) enum StalePolicies {
    /// These.
    Of(BTreeSet<CanaryName>),
    /// All, and where they are served.
    All,
}

/// The policy of a place.
#[derive(Debug, Default)]
struct PolicyRevisions {
    /// Those that filters count there.
    canaries: BTreeSet<CanaryName>,
    current: Arc<Policy>,
    /// The same without divisions, for filters that cannot run our automata.
    plain: Arc<Policy>,
    /// Hosts that are divided.
    divided: BTreeMap<CanaryName, DividedSince>,
    /// Versions that were in force, with the numbers that they had. One may come back with a higher number.
    known: VecDeque<(u64, PolicyNumber)>,
}

/// How a host is divided, and since when. What changes for another host does not concern this one.
#[derive(Debug, Clone, Copy)]
struct DividedSince {
    content: Version,
    since: PolicyNumber,
}

/// A policy, with how each host is divided by it.
#[derive(Debug)]
struct PlacePolicy {
    policy: Arc<Policy>,
    divided: BTreeMap<CanaryName, Version>,
}

/// Which policy is for a worker.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum PolicyScope {
    /// Listeners are for other nodes than when it was heard of.
    #[default]
    Unknown,
    /// That of the nodes that no listener names.
    Others,
    /// That of this `node.cluster`.
    Named(Arc<str>),
}

/// Nodes with a worker that does not have the policy in force, by place, each with the oldest policy that a worker of it has:
/// nothing where it is not known.
#[derive(Debug, Default)]
pub(super) struct OutdatedNodes(pub(super) BTreeMap<PolicyScope, BTreeMap<NodeId, Option<PolicyNumber>>>);

/// The sources that speak for nodes of these places.
#[derive(Debug, Default)]
pub(super) struct SourcesByPlaces(pub(super) BTreeMap<BTreeSet<PolicyScope>, Sources>);

/// The sources that speak for nodes that are served what is on some listeners. Many canaries are on the same.
#[derive(Debug)]
pub(super) struct SourcesByListeners<'a> {
    /// What those are served that the sources speak for; nothing where that is not known.
    served: Vec<(Vec<Option<&'a Scope>>, Sources)>,
    known: BTreeMap<Vec<String>, Sources>,
}

impl SourcesByListeners<'_> {
    pub(super) fn of(&mut self, listeners: &[String]) -> Sources {
        if let Some(known) = self.known.get(listeners) {
            return *known;
        }
        let may_serve = |scope: Option<&Scope>| scope.is_none_or(|scope| scope.serves(listeners));
        let serving = self.served.iter().filter(|(scopes, _)| scopes.iter().copied().any(may_serve));
        let sources = serving.fold(Sources::default(), |sum, (_, sources)| sum.plus(*sources));
        self.known.insert(listeners.to_vec(), sources);
        sources
    }
}

impl Policies {
    /// Takes new listeners. Returns true if some nodes are served something else.
    pub(super) fn follow(&mut self, listeners: &[Listener]) -> bool {
        let scopes = Scopes::of_listeners(listeners);
        let before = std::mem::replace(&mut self.scopes, scopes);
        before != self.scopes
    }

    /// Makes the policies that the canaries need the ones in force, where they may have changed.
    pub(super) fn update(&mut self, canaries: &Canaries, stale: StalePolicies, now: Timestamp) {
        let stale = match stale {
            StalePolicies::Of(stale) => Some(stale),
            StalePolicies::All => {
                let names = canaries.in_policy().flat_map(|canary| canary.former.names(now)).chain(self.scopes.names());
                let names: BTreeSet<&str> = names.collect();
                self.named.retain(|name, _| names.contains(&**name));
                let new: Vec<&str> = names.into_iter().filter(|name| !self.named.contains_key(*name)).collect();
                self.named.extend(new.into_iter().map(|name| (name.into(), PolicyRevisions::default())));
                None
            }
        };
        // Places with the same canaries share one.
        let mut made = BTreeMap::new();
        let mut renew = |place: &mut PolicyRevisions, latest: &mut PolicyNumber, serves: &dyn Fn(&Canary) -> bool| {
            if place.follow(canaries, stale.as_ref(), serves) {
                let served = || place.canaries.iter().filter_map(|name| canaries.get(name)).collect::<Vec<_>>();
                let policy = made.entry(place.canaries.clone()).or_insert_with(|| Arc::new(policy(&served()))).clone();
                place.replace(&policy, latest);
            }
        };
        for (name, place) in &mut self.named {
            let scope = self.scopes.of_node(name);
            renew(place, &mut self.latest, &|canary| serves(scope, canary) || canary.former.had(name, now));
        }
        let scope = self.scopes.others();
        renew(&mut self.others, &mut self.latest, &|canary| serves(scope, canary) || canary.former.had_all(now));
    }

    /// Returns true if nodes of this `node.cluster` are served a canary, or were until lately: what they report of it counts.
    pub(super) fn reaches(&self, node_cluster: &str, canary: &Canary, now: Timestamp) -> bool {
        serves(self.scopes.of_node(node_cluster), canary) || canary.former.had(node_cluster, now)
    }

    /// Returns the policy for a filter of this `node.cluster` that has `version` and runs automata of `format`, if it is
    /// another one.
    pub(super) fn update_for(&self, node_cluster: &str, version: u64, format: u32) -> Option<Policy> {
        let edition = self.edition(node_cluster);
        let right = if format == AUTOMATON_FORMAT { &edition.current } else { &edition.plain };
        (right.version != version).then(|| Policy::clone(right))
    }

    /// Returns where nodes of this `node.cluster` belong.
    pub(super) fn place_of(&self, node_cluster: &str) -> PolicyScope {
        let named = self.named.get_key_value(node_cluster);
        named.map_or(PolicyScope::Others, |(name, _)| PolicyScope::Named(name.clone()))
    }

    /// Returns when the policy of this version was in force last for nodes of this `node.cluster`, if it is known.
    pub(super) fn number_of(&self, node_cluster: &str, version: u64) -> Option<PolicyNumber> {
        self.edition(node_cluster).number_of(version)
    }

    /// Returns the number of the policy in force in a place.
    pub(super) fn number_in(&self, place: &PolicyScope) -> Option<PolicyNumber> {
        self.in_place(place)?.number()
    }

    /// Returns the nodes that are served a canary, or may be, and do not know how its host is divided.
    pub(super) fn unaware(&self, of: &OutdatedNodes, canary: &Canary) -> Vec<NodeId> {
        let mut unaware = BTreeSet::new();
        for (place, nodes) in of.0.iter().filter(|(place, _)| self.may_serve(place, canary)) {
            let divided = self.in_place(place).and_then(|policies| policies.divided.get(canary.config.plan.name()));
            let knows = |has: Option<PolicyNumber>| divided.is_some_and(|divided| has >= Some(divided.since));
            unaware.extend(nodes.iter().filter(|(_, has)| !knows(**has)).map(|(node, _)| node));
        }
        unaware.into_iter().cloned().collect()
    }

    /// Returns these sources by what is on the listeners of the nodes that they speak for.
    pub(super) fn sources(&self, of: &SourcesByPlaces) -> SourcesByListeners<'_> {
        let scopes = |places: &BTreeSet<PolicyScope>| places.iter().map(|place| self.scope(place)).collect();
        let served = of.0.iter().map(|(places, sources)| (scopes(places), *sources)).collect();
        SourcesByListeners { served, known: BTreeMap::new() }
    }

    fn may_serve(&self, place: &PolicyScope, canary: &Canary) -> bool {
        self.scope(place).is_none_or(|scope| serves(scope, canary))
    }

    /// Returns what nodes of a place are served, if that is known.
    fn scope(&self, place: &PolicyScope) -> Option<&Scope> {
        match place {
            PolicyScope::Unknown => None,
            PolicyScope::Others => Some(self.scopes.others()),
            PolicyScope::Named(name) => Some(self.scopes.of_node(name)),
        }
    }

    /// Holds the policies against those that are made from nothing.
    #[cfg(test)]
    pub(super) fn check(&self, canaries: &Canaries, now: Timestamp) {
        let mut anew = Self { scopes: self.scopes.clone(), ..Self::default() };
        anew.update(canaries, StalePolicies::All, now);
        let contents = |place: &PolicyRevisions| -> Vec<_> {
            place.divided.iter().map(|(name, divided)| (name.clone(), divided.content)).collect()
        };
        let places = anew.named.iter().map(|(name, place)| (self.edition(name), place));
        for (held, anew) in places.chain([(&self.others, &anew.others)]) {
            assert_eq!(held.current, anew.current);
            assert_eq!(contents(held), contents(anew));
            assert!(held.divided.values().all(|divided| Some(divided.since) <= held.number()));
        }
    }

    fn in_place(&self, place: &PolicyScope) -> Option<&PolicyRevisions> {
        match place {
            PolicyScope::Unknown => None,
            PolicyScope::Others => Some(&self.others),
            PolicyScope::Named(name) => Some(self.edition(name)),
        }
    }

    fn edition(&self, node_cluster: &str) -> &PolicyRevisions {
        self.named.get(node_cluster).unwrap_or(&self.others)
    }
}

fn serves(scope: &Scope, canary: &Canary) -> bool {
    scope.serves(&canary.config.service.listeners)
}

impl Default for StalePolicies {
    fn default() -> Self {
        Self::Of(BTreeSet::new())
    }
}

impl StalePolicies {
    /// Notes a canary.
    pub(super) fn note(&mut self, name: &CanaryName) {
        match self {
            Self::Of(names) if names.contains(name) => {}
            Self::Of(names) => drop(names.insert(name.clone())),
            Self::All => {}
        }
    }

    /// Returns true if there are none.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Of(names) => names.is_empty(),
            Self::All => false,
        }
    }
}

impl PolicyRevisions {
    /// Notes which of these canaries, or of all, filters count here. Returns true if what they are told may be something else.
    fn follow(
        &mut self,
        canaries: &Canaries,
        stale: Option<&BTreeSet<CanaryName>>,
        serves: &dyn Fn(&Canary) -> bool,
    ) -> bool {
        let Some(stale) = stale else {
            let served = canaries.in_policy().filter(|canary| serves(canary));
            self.canaries = served.map(|canary| canary.config.plan.name().clone()).collect();
            return true;
        };
        let mut concerned = false;
        for name in stale {
            let is_served = canaries.get(name).is_some_and(|canary| canary.is_in_policy() && serves(canary));
            let was_served = if is_served { !self.canaries.insert(name.clone()) } else { self.canaries.remove(name) };
            concerned |= is_served || was_served;
        }
        concerned
    }

    /// Makes a policy the one in force. It has the number after `latest`, if it is another one than before.
    fn replace(&mut self, by: &PlacePolicy, latest: &mut PolicyNumber) {
        let PlacePolicy { policy, divided } = by;
        if policy.version == self.current.version {
            return;
        }
        let number = PolicyNumber(latest.0.saturating_add(1));
        *latest = number;
        let since = |(name, content): (&CanaryName, &Version)| {
            let before = self.divided.get(name).filter(|before| before.content == *content);
            (name.clone(), before.copied().unwrap_or(DividedSince { content: *content, since: number }))
        };
        self.divided = divided.iter().map(since).collect();
        self.known.push_back((policy.version, number));
        while self.known.len() > MAX_REVISIONS {
            self.known.pop_front();
        }
        self.plain = Arc::new(versioned(Policy { hosts: Vec::new(), automata: Vec::new(), ..Policy::clone(policy) }));
        self.current = policy.clone();
    }

    fn number_of(&self, version: u64) -> Option<PolicyNumber> {
        let known = self.known.iter().rev().find(|(known, _)| *known == version);
        known.map(|(_, number)| *number)
    }

    fn number(&self) -> Option<PolicyNumber> {
        self.known.back().map(|(_, number)| *number)
    }
}

/// Returns the policy of these canaries. Its version is made from its content: after a restart nobody needs to be told again.
fn policy(canaries: &[&Canary]) -> PlacePolicy {
    let mut policy = Policy::default();
    let mut divided = BTreeMap::new();
    let mut automata = Automata::default();
    let workload = |of: &Canary| (Arc::clone(&of.config.plan.name().namespace), of.config.plan.target().to_owned());
    let mut hosts: BTreeMap<(Arc<str>, String), usize> = BTreeMap::new();
    let judged = || canaries.iter().filter(|canary| canary.is_counted());
    judged().for_each(|canary| *hosts.entry(workload(canary)).or_default() += 1);
    for canary in judged() {
        let name = canary.config.plan.name();
        let virtual_host = format!("{}/{}", name.namespace, name.name);
        let division = canary.division();
        // Each name that a filter has to look up costs it a call per request. Where a cluster serves one host only and
        // all of its requests are compared, none is needed.
        let shared = hosts.get(&workload(canary)).is_some_and(|hosts| *hosts > 1);
        let told_apart = shared || division.as_ref().is_some_and(Assignment::holds_back);
        // Chance does not divide the requests of one client: it could decide by itself (P12).
        let chosen = division.as_ref().is_some_and(|division| !division.holds_back());
        for arm in Arm::ALL {
            let Some(cluster) = canary.cluster(arm) else { continue };
            policy.clusters.push(ClusterPolicy {
                cluster: cluster.to_string(),
                arm: match arm {
                    Arm::Primary => 0,
                    Arm::Canary => 1,
                },
                overdue_ms: u32::try_from(canary.limits.overdue.as_millis()).unwrap_or(u32::MAX),
                grpc: canary.config.workload.http2,
                retries: canary.config.service.retries.is_some(),
                virtual_host: if told_apart { virtual_host.clone() } else { String::new() },
                slow_us: u32::try_from(canary.limits.slow.as_micros()).unwrap_or(u32::MAX),
                canary: virtual_host.clone(),
                epoch: canary.epoch().get(),
                first_rev: canary.first_rev.get(),
                // Of the primary all counts: what is left out can only speak for the canary.
                client_share: match arm {
                    Arm::Canary if chosen => CLIENT_SHARE,
                    Arm::Canary | Arm::Primary => 0,
                },
            });
        }
        if let Some(division) = division {
            let host = DividedHost::new(virtual_host, &division);
            divided.insert(name.clone(), Version::of([host.content().as_slice()]));
            policy.hosts.push(automata.add(host));
        }
    }
    policy.automata = automata.to_wire();
    // Cohorts are looked at only where a step may end before its interval.
    policy.cohorts = canaries.iter().any(|canary| canary.is_judged() && canary.config.judge.early_promotion);
    PlacePolicy { policy: Arc::new(versioned(policy)), divided }
}

fn versioned(policy: Policy) -> Policy {
    let content = Policy { version: 0, ..policy };
    let version = Version::of([content.encode_to_vec().as_slice()]).get().max(1);
    Policy { version, ..content }
}
