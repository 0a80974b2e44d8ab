//! Divisions of hosts, as they travel. Automata are written once per policy, whoever uses them.

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message as _;
use wingbeat_core::matching::assignment::{Assignment, Identity};
use wingbeat_core::matching::pattern::{Automaton, Pattern};
use wingbeat_core::matching::rule::{Condition, Entries, Subject};

use crate::v1;
use crate::v1::condition::{Pattern as WirePattern, Subject as WireSubject};
use crate::v1::host_policy::Division as WireDivision;
use crate::v1::users::Identity as WireIdentity;

/// Automata, each once.
#[derive(Debug, Default)]
pub struct Automata {
    in_order: Vec<Arc<[u8]>>,
    places: HashMap<Arc<[u8]>, u32>,
}

impl Automata {
    /// Returns the place of an automaton.
    fn place(&mut self, automaton: Arc<[u8]>) -> u32 {
        let next = u32::try_from(self.in_order.len()).unwrap_or(u32::MAX);
        *self.places.entry(automaton).or_insert_with_key(|new| {
            self.in_order.push(new.clone());
            next
        })
    }

    /// Returns how a host of a policy with these automata is divided.
    pub fn add(&mut self, host: DividedHost) -> v1::HostPolicy {
        let DividedHost { mut policy, automata } = host;
        let places: Vec<u32> = automata.in_order.into_iter().map(|automaton| self.place(automaton)).collect();
        for place in places_in(&mut policy) {
            // Each was given by the host's own automata.
            *place = usize::try_from(*place).ok().and_then(|at| places.get(at)).copied().unwrap_or(u32::MAX);
        }
        policy
    }

    /// Returns them as they travel.
    pub fn to_wire(&self) -> Vec<Vec<u8>> {
        self.in_order.iter().map(|automaton| automaton.to_vec()).collect()
    }
}

/// How a host is divided, with the automata that this takes.
#[derive(Debug)]
pub struct DividedHost {
    policy: v1::HostPolicy,
    automata: Automata,
}

impl DividedHost {
    /// Returns how a host is divided.
    pub fn new(virtual_host: String, division: &Assignment) -> Self {
        let mut automata = Automata::default();
        let division = match division {
            Assignment::Rules { rules, token, holdback } => WireDivision::Rules(v1::Rules {
                arm_value: token.clone(),
                served: entries(&rules.served, &mut automata),
                canary: entries(&rules.canary, &mut automata),
                holdback: holdback.get().into(),
            }),
            Assignment::Users { identity, key } => WireDivision::Users(v1::Users {
                identity: Some(match identity {
                    Identity::Cookie(name) => WireIdentity::Cookie(name.clone()),
                    Identity::Header(name) => WireIdentity::Header(name.clone()),
                }),
                key: *key,
            }),
        };
        Self { policy: v1::HostPolicy { virtual_host, division: Some(division) }, automata }
    }

    /// Returns bytes that are the same for hosts that are divided in the same way, whatever else a policy says.
    pub fn content(&self) -> Vec<u8> {
        v1::Policy { hosts: vec![self.policy.clone()], automata: self.automata.to_wire(), ..v1::Policy::default() }
            .encode_to_vec()
    }
}

/// Returns the places of automata that a host refers to.
fn places_in(policy: &mut v1::HostPolicy) -> impl Iterator<Item = &mut u32> {
    let rules = match &mut policy.division {
        Some(WireDivision::Rules(rules)) => Some(rules),
        Some(WireDivision::Users(_)) | None => None,
    };
    let rules = rules.into_iter().flat_map(|rules| rules.served.iter_mut().chain(&mut rules.canary));
    let patterns = rules.flat_map(|rule| &mut rule.conditions).filter_map(|condition| condition.pattern.as_mut());
    patterns
        .filter_map(|pattern| match pattern {
            WirePattern::Regex(regex) => Some(regex.all.iter_mut().chain(&mut regex.none)),
            WirePattern::Present(_) | WirePattern::Exact(_) | WirePattern::Prefix(_) | WirePattern::Suffix(_) => None,
        })
        .flatten()
}

fn entries(entries: &Entries, automata: &mut Automata) -> Vec<v1::Rule> {
    let rule = |conditions: &[Condition], automata: &mut Automata| v1::Rule {
        conditions: conditions.iter().map(|condition| condition_to_wire(condition, automata)).collect(),
    };
    entries.iter().map(|conditions| rule(conditions, automata)).collect()
}

fn condition_to_wire(condition: &Condition, automata: &mut Automata) -> v1::Condition {
    let subject = match &condition.subject {
        Subject::Header(name) => WireSubject::Header(name.clone()),
        Subject::WithoutHeader(name) => WireSubject::WithoutHeader(name.clone()),
        Subject::Query(name) => WireSubject::Query(name.clone()),
        Subject::Path => WireSubject::Path(true),
        Subject::Method => WireSubject::Method(true),
        Subject::Scheme => WireSubject::Scheme(true),
        Subject::Authority => WireSubject::Authority(true),
    };
    let mut places =
        |list: &[Automaton]| list.iter().map(|automaton| automata.place(automaton.to_bytes().into())).collect();
    let pattern = match &condition.pattern {
        Pattern::Present => WirePattern::Present(true),
        Pattern::Exact(text) => WirePattern::Exact(text.clone()),
        Pattern::Prefix(text) => WirePattern::Prefix(text.clone()),
        Pattern::Suffix(text) => WirePattern::Suffix(text.clone()),
        Pattern::Regex(regex) => WirePattern::Regex(v1::Regex { all: places(regex.all()), none: places(regex.none()) }),
    };
    v1::Condition { subject: Some(subject), pattern: Some(pattern), ignore_case: condition.ignore_case }
}
