//! Divisions of hosts, as they travel. Automata are written once per policy, whoever uses them.

use wingbeat_core::matching::assignment::{Assignment, Identity};
use wingbeat_core::matching::pattern::{Automaton, Pattern};
use wingbeat_core::matching::rule::{Condition, Entries, Subject};

use crate::v1;
use crate::v1::condition::{Pattern as WirePattern, Subject as WireSubject};
use crate::v1::host_policy::Division as WireDivision;
use crate::v1::users::Identity as WireIdentity;

/// Automata of a policy, each once.
#[derive(Debug, Default)]
pub struct Automata(Vec<Vec<u8>>);

impl Automata {
    /// Returns the place of an automaton.
    fn place(&mut self, automaton: &Automaton) -> u32 {
        let bytes = automaton.to_bytes();
        let place = self.0.iter().position(|known| *known == bytes).unwrap_or_else(|| {
            self.0.push(bytes);
            self.0.len().saturating_sub(1)
        });
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    /// Returns them as they travel.
    pub fn into_wire(self) -> Vec<Vec<u8>> {
        self.0
    }
}

/// Returns how a host is divided, as it travels.
pub fn host(virtual_host: String, division: &Assignment, automata: &mut Automata) -> v1::HostPolicy {
    let division = match division {
        Assignment::Rules { rules, token, holdback } => WireDivision::Rules(v1::Rules {
            arm_value: token.clone(),
            served: entries(&rules.served, automata),
            canary: entries(&rules.canary, automata),
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
    v1::HostPolicy { virtual_host, division: Some(division) }
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
    let mut places = |list: &[Automaton]| list.iter().map(|automaton| automata.place(automaton)).collect();
    let pattern = match &condition.pattern {
        Pattern::Present => WirePattern::Present(true),
        Pattern::Exact(text) => WirePattern::Exact(text.clone()),
        Pattern::Prefix(text) => WirePattern::Prefix(text.clone()),
        Pattern::Suffix(text) => WirePattern::Suffix(text.clone()),
        Pattern::Regex(regex) => WirePattern::Regex(v1::Regex { all: places(regex.all()), none: places(regex.none()) }),
    };
    v1::Condition { subject: Some(subject), pattern: Some(pattern), ignore_case: condition.ignore_case }
}
