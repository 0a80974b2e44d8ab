//! What the filters are told: which clusters to count, how long is too long, and how hosts are divided.

use std::collections::{BTreeMap, VecDeque};

use prost::Message as _;
use wingbeat_core::id::{Arm, CanaryName};
use wingbeat_core::matching::division::Division;
use wingbeat_core::matching::pattern::AUTOMATON_FORMAT;
use wingbeat_proto::convert::policy::write::{Automata, host};
use wingbeat_proto::v1::{ClusterPolicy, Policy};
use wingbeat_xds_server::resource::Version;

use crate::engine::canary::Canary;

/// Earlier policies whose divisions are remembered. A worker with an older one counts as one that knows nothing.
const REMEMBERED: usize = 64;

/// Hanging and abandoned requests of one client that count against a canary in 10 minutes, at each worker, where rules or
/// users decide who gets it. Beyond it they count only while more of the client's connections hang than a browser opens.
const CLIENT_SHARE: u32 = 4;

/// The policy in force, and who knows how hosts are divided.
#[derive(Debug, Default)]
pub(super) struct Policies {
    current: Policy,
    /// The same without divisions, for filters that cannot run our automata.
    plain: Policy,
    /// Versions that were in force, each with the version of its divisions.
    known: VecDeque<(u64, Divisions)>,
}

/// Names how all hosts are divided. Equal ones are the same; nothing for a policy that is not known.
pub(super) type Divisions = Option<u64>;

impl Policies {
    /// Makes the policy that these canaries need the one in force.
    pub(super) fn update(&mut self, canaries: &BTreeMap<CanaryName, Canary>) {
        let policy = policy(canaries);
        if policy.version == self.current.version {
            return;
        }
        self.known.push_back((policy.version, Some(divisions(&policy))));
        while self.known.len() > REMEMBERED {
            self.known.pop_front();
        }
        self.plain = versioned(Policy { hosts: Vec::new(), automata: Vec::new(), ..policy.clone() });
        self.current = policy;
    }

    /// Returns the policy for a filter that has `version` and runs automata of `format`, if it is another one.
    pub(super) fn news(&self, version: u64, format: u32) -> Option<Policy> {
        let right = if format == AUTOMATON_FORMAT { &self.current } else { &self.plain };
        (right.version != version).then(|| right.clone())
    }

    /// Returns how a worker with the policy of this version divides hosts.
    pub(super) fn divisions_of(&self, version: u64) -> Divisions {
        let known = self.known.iter().rev().find(|(known, _)| *known == version);
        known.and_then(|(_, divisions)| *divisions)
    }

    /// Returns how hosts are to be divided.
    pub(super) fn divisions(&self) -> u64 {
        divisions(&self.current)
    }
}

/// Returns the policy. Its version is made from its content: after a restart nobody needs to be told again.
fn policy(canaries: &BTreeMap<CanaryName, Canary>) -> Policy {
    let mut policy = Policy::default();
    let mut automata = Automata::default();
    let workload = |of: &Canary| (of.managed.plan.name().namespace.clone(), of.managed.plan.target().to_owned());
    let mut hosts: BTreeMap<(String, String), usize> = BTreeMap::new();
    let judged = || canaries.iter().filter(|(_, canary)| canary.is_counted());
    judged().for_each(|(_, canary)| *hosts.entry(workload(canary)).or_default() += 1);
    for (name, canary) in judged() {
        let virtual_host = format!("{}/{}", name.namespace, name.name);
        let division = canary.division();
        // Each name that a filter has to look up costs it a call per request. Where a cluster serves one host only and
        // all of its requests are compared, none is needed.
        let shared = hosts.get(&workload(canary)).is_some_and(|hosts| *hosts > 1);
        let told_apart = shared || division.as_ref().is_some_and(Division::holds_back);
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
                grpc: canary.managed.workload.http2,
                retries: canary.managed.service.retries.is_some(),
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
            policy.hosts.push(host(virtual_host, &division, &mut automata));
        }
    }
    policy.automata = automata.into_wire();
    // Cohorts are looked at only where a step may end before its interval.
    policy.cohorts = canaries.values().any(|canary| canary.is_judged() && canary.managed.judge.early_promotion);
    versioned(policy)
}

fn versioned(policy: Policy) -> Policy {
    let content = Policy { version: 0, ..policy };
    let version = Version::of([content.encode_to_vec().as_slice()]).get().max(1);
    Policy { version, ..content }
}

fn divisions(policy: &Policy) -> u64 {
    let alone = Policy { hosts: policy.hosts.clone(), automata: policy.automata.clone(), ..Policy::default() };
    Version::of([alone.encode_to_vec().as_slice()]).get()
}
