//! Divisions of hosts: from the wire to the kernel's types, and back where rules are compiled ([`mod@write`]).
//!
//! What comes from the wire is checked as a whole: a policy that cannot be read changes nothing.

use wingbeat_core::matching::assignment::{Assignment, Identity};
use wingbeat_core::matching::pattern::{Automaton, NoAutomaton, Pattern, Regex};
use wingbeat_core::matching::rule::{Condition, Entries, Rules, Subject};
use wingbeat_core::weight::BasisPoints;

use crate::v1;
use crate::v1::condition::{Pattern as WirePattern, Subject as WireSubject};
use crate::v1::host_policy::Division as WireDivision;
use crate::v1::users::Identity as WireIdentity;

#[cfg(feature = "compile")]
pub mod write;

/// What a policy may not contain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Bytes that cannot be run.
    #[error(transparent)]
    Automaton(#[from] NoAutomaton),
    /// A place beyond the last automaton.
    #[error("there is no automaton in place {0}")]
    Place(u32),
    /// Something of a later version, or nothing at all.
    #[error("{0} is missing or unknown: the server is newer than this filter")]
    Missing(&'static str),
    /// More than everything.
    #[error("a share of {0} basis points is more than everything")]
    Share(u32),
}

/// Returns how the hosts of a policy are divided, by name.
pub fn divisions(policy: &v1::Policy) -> Result<Vec<(String, Assignment)>, PolicyError> {
    let automata = policy.automata.iter().map(|bytes| Automaton::from_bytes(bytes)).collect::<Result<Vec<_>, _>>()?;
    policy.hosts.iter().map(|host| Ok((host.virtual_host.clone(), division(host, &automata)?))).collect()
}

fn division(host: &v1::HostPolicy, automata: &[Automaton]) -> Result<Assignment, PolicyError> {
    match &host.division {
        Some(WireDivision::Rules(wire)) => {
            let holdback = u16::try_from(wire.holdback).ok().and_then(BasisPoints::new);
            let rules = Rules { served: rules(&wire.served, automata)?, canary: rules(&wire.canary, automata)? };
            let holdback = holdback.ok_or(PolicyError::Share(wire.holdback))?;
            Ok(Assignment::Rules { rules, token: wire.arm_value.clone(), holdback })
        }
        Some(WireDivision::Users(wire)) => {
            let identity = match wire.identity.as_ref().ok_or(PolicyError::Missing("a user's identity"))? {
                WireIdentity::Cookie(name) => Identity::Cookie(name.clone()),
                WireIdentity::Header(name) => Identity::Header(name.clone()),
            };
            Ok(Assignment::Users { identity, key: wire.key })
        }
        None => Err(PolicyError::Missing("the division of a host")),
    }
}

fn rules(rules: &[v1::Rule], automata: &[Automaton]) -> Result<Entries, PolicyError> {
    let rule = |rule: &v1::Rule| rule.conditions.iter().map(|wire| condition(wire, automata)).collect();
    rules.iter().map(rule).collect::<Result<_, _>>().map(Entries::new)
}

fn condition(wire: &v1::Condition, automata: &[Automaton]) -> Result<Condition, PolicyError> {
    let subject = match wire.subject.as_ref().ok_or(PolicyError::Missing("what a rule looks at"))? {
        WireSubject::Header(name) => Subject::Header(name.clone()),
        WireSubject::WithoutHeader(name) => Subject::WithoutHeader(name.clone()),
        WireSubject::Query(name) => Subject::Query(name.clone()),
        WireSubject::Path(_) => Subject::Path,
        WireSubject::Method(_) => Subject::Method,
        WireSubject::Scheme(_) => Subject::Scheme,
        WireSubject::Authority(_) => Subject::Authority,
    };
    let at = |place: &u32| {
        let found = usize::try_from(*place).ok().and_then(|place| automata.get(place));
        found.cloned().ok_or(PolicyError::Place(*place))
    };
    let pattern = match wire.pattern.as_ref().ok_or(PolicyError::Missing("a rule's pattern"))? {
        WirePattern::Present(_) => Pattern::Present,
        WirePattern::Exact(text) => Pattern::Exact(text.clone()),
        WirePattern::Prefix(text) => Pattern::Prefix(text.clone()),
        WirePattern::Suffix(text) => Pattern::Suffix(text.clone()),
        WirePattern::Regex(regex) => Pattern::Regex(Regex::new(
            regex.all.iter().map(at).collect::<Result<_, _>>()?,
            regex.none.iter().map(at).collect::<Result<_, _>>()?,
        )),
    };
    Ok(Condition { subject, pattern, ignore_case: wire.ignore_case })
}

#[cfg(feature = "compile")]
#[cfg(test)]
mod tests {
    use prost::Message as _;
    use wingbeat_core::matching::input::{EntryInput, StringMatch};
    use wingbeat_core::matching::request::Request;

    use super::write::{Automata, DividedHost};
    use super::*;

    fn insiders() -> v1::Policy {
        let regex = |text: &str| StringMatch { regex: Some(text.to_owned()), ..StringMatch::default() };
        let cookie = EntryInput {
            headers: [("cookie".to_owned(), regex("^(.*?;)?(type=insider)(;.*)?$"))].into(),
            ..EntryInput::default()
        };
        let safari = EntryInput {
            headers: [("user-agent".to_owned(), regex(r"^(?!.*Chrome)(?=.*\bSafari\b).*$"))].into(),
            ..EntryInput::default()
        };
        let canary = Entries::try_new(&[safari, cookie.clone(), cookie]).unwrap();
        let rules = Rules { served: Entries::default(), canary };
        let division = Assignment::Rules { rules, token: "token".to_owned(), holdback: BasisPoints::from_percent(10) };
        let mut automata = Automata::default();
        let hosts = vec![automata.add(DividedHost::new("prod/backend".to_owned(), &division))];
        v1::Policy { hosts, automata: automata.to_wire(), ..v1::Policy::default() }
    }

    #[test]
    fn rules_survive_the_wire_and_automata_travel_once() {
        let policy = insiders();
        assert_eq!(policy.automata.len(), 4, "three of the look-ahead, one of both cookies");
        let read = v1::Policy::decode(policy.encode_to_vec().as_slice()).unwrap();
        let divisions = divisions(&read).unwrap();
        let [(name, Assignment::Rules { rules, token, holdback })] = divisions.as_slice() else {
            panic!("{divisions:?}")
        };
        assert_eq!(
            (name.as_str(), token.as_str(), *holdback),
            ("prod/backend", "token", BasisPoints::from_percent(10))
        );
        for (header, value, rule) in [
            ("user-agent", "Version/17 Safari/605", Some(0)),
            ("user-agent", "Chrome/120 Safari/605", None),
            ("cookie", "a=b;type=insider", Some(1)),
            ("cookie", "type=outsider", None),
        ] {
            let request = Request { headers: vec![(header.to_owned(), value.into())], ..Request::default() };
            assert_eq!(rules.first_match(&request), rule, "{header}: {value}");
        }
    }

    #[test]
    fn users_survive_the_wire() {
        let division = Assignment::Users { identity: Identity::Cookie("uid".to_owned()), key: 9 };
        let hosts = vec![Automata::default().add(DividedHost::new("prod/backend".to_owned(), &division))];
        let read = divisions(&v1::Policy { hosts, ..v1::Policy::default() }).unwrap();
        assert!(
            matches!(&read[..], [(_, Assignment::Users { identity: Identity::Cookie(name), key: 9 })] if name == "uid")
        );
    }

    #[test]
    fn what_cannot_be_read_is_refused_as_a_whole() {
        let missing = v1::Policy { hosts: vec![v1::HostPolicy::default()], ..insiders() };
        assert_eq!(divisions(&missing).unwrap_err(), PolicyError::Missing("the division of a host"));
        let cut = v1::Policy { automata: insiders().automata[..1].to_vec(), ..insiders() };
        assert_eq!(divisions(&cut).unwrap_err(), PolicyError::Place(1));
        let damaged = v1::Policy { automata: vec![vec![1, 2, 3]], ..insiders() };
        assert!(matches!(divisions(&damaged).unwrap_err(), PolicyError::Automaton(_)));
    }
}
