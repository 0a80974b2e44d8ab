//! Rules: which requests they take.

use alloc::string::String;
use alloc::vec::Vec;

#[cfg(feature = "compile")]
use super::input::EntryInput;
use super::pattern::Pattern;
use super::request::Request;

/// Which requests of an A/B test get the canary.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "compile", derive(serde::Serialize, serde::Deserialize))]
pub struct Rules {
    /// `service.match`: one of these must hold, if there are any.
    pub served: Entries,
    /// `analysis.match`: the first that holds.
    pub canary: Entries,
}

/// Alternatives, each a list of conditions that must all hold.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "compile", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "compile", serde(try_from = "Vec<EntryInput>", into = "Vec<EntryInput>"))]
pub struct Entries {
    entries: Vec<Vec<Condition>>,
    /// What they were compiled from, by which they are stored and compared. Nothing for those that came as automata.
    #[cfg(feature = "compile")]
    written: Vec<EntryInput>,
}

/// One property of a request against one pattern.
#[derive(Debug, Clone)]
pub struct Condition {
    /// What is looked at.
    pub subject: Subject,
    /// What it must be.
    pub pattern: Pattern,
    /// ASCII case does not matter; regexes keep it.
    pub ignore_case: bool,
}

/// What is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// Any value of this header. Its name is in lower case.
    Header(String),
    /// No value of this header may match.
    WithoutHeader(String),
    /// Any value of this query parameter.
    Query(String),
    /// The path, without the query.
    Path,
    /// The method.
    Method,
    /// The scheme.
    Scheme,
    /// The host.
    Authority,
}

impl Rules {
    /// Returns true if no request can get the canary by them.
    pub const fn is_empty(&self) -> bool {
        self.canary.is_empty()
    }

    /// Returns the place of the rule in `canary` that takes this request, if one does.
    pub fn first_match(&self, request: &Request) -> Option<usize> {
        let served = self.served.is_empty() || self.served.first_match(request).is_some();
        served.then(|| self.canary.first_match(request)).flatten()
    }
}

impl Entries {
    /// Returns these alternatives.
    pub const fn new(entries: Vec<Vec<Condition>>) -> Self {
        Self {
            entries,
            #[cfg(feature = "compile")]
            written: Vec::new(),
        }
    }

    /// Returns these alternatives, which were compiled from these.
    #[cfg(feature = "compile")]
    pub(super) const fn compiled(entries: Vec<Vec<Condition>>, written: Vec<EntryInput>) -> Self {
        Self { entries, written }
    }

    /// Returns what they were compiled from.
    #[cfg(feature = "compile")]
    pub fn written(&self) -> &[EntryInput] {
        &self.written
    }

    /// Returns true if there are none.
    pub const fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the alternatives in order.
    pub fn iter(&self) -> impl Iterator<Item = &[Condition]> {
        self.entries.iter().map(Vec::as_slice)
    }

    /// Returns the place of the first entry that matches.
    pub fn first_match(&self, request: &Request) -> Option<usize> {
        self.entries.iter().position(|entry| entry.iter().all(|condition| condition.holds(request)))
    }
}

/// Returns a host without its port. What is in brackets is an address of IPv6, with colons of its own.
fn without_port(host: &[u8]) -> &[u8] {
    let end = host.iter().rposition(|byte| *byte == b':');
    let (name, port) = end.and_then(|end| host.split_at_checked(end)).unwrap_or((host, b""));
    let is_port = port.len() > 1 && port.iter().skip(1).all(u8::is_ascii_digit);
    let is_whole = !name.contains(&b':') || name.ends_with(b"]");
    if is_port && is_whole { name } else { host }
}

impl Condition {
    fn holds(&self, request: &Request) -> bool {
        let test = |value: &[u8]| self.pattern.matches(value, self.ignore_case);
        match &self.subject {
            Subject::Header(name) => request.values(name).iter().any(|value| test(value)),
            Subject::WithoutHeader(name) => !request.values(name).iter().any(|value| test(value)),
            Subject::Query(name) => request.query(name).any(test),
            Subject::Path => test(request.uri()),
            Subject::Method => test(&request.method),
            Subject::Scheme => test(&request.scheme),
            Subject::Authority => {
                // As hosts are compared: neither case nor port matter, unless the pattern has a port.
                let host = request.authority.to_ascii_lowercase();
                test(&request.authority) || test(&host) || test(without_port(&host))
            }
        }
    }
}

#[cfg(all(test, feature = "compile"))]
mod tests {
    use alloc::vec;

    use super::super::input::StringMatch;
    use super::*;

    /// Clients send hosts in any case, and with a port where it is not the usual one.
    #[test]
    fn hosts_are_compared_as_hosts() {
        let exact = |text: &str| StringMatch { exact: Some(text.into()), ..StringMatch::default() };
        let regex = |text: &str| StringMatch { regex: Some(text.into()), ..StringMatch::default() };
        let matches = |test: StringMatch, host: &str| {
            let entry = EntryInput { authority: Some(test), ..EntryInput::default() };
            let request = Request { authority: host.as_bytes().to_vec(), headers: vec![], ..Request::default() };
            Entries::try_new(&[entry]).unwrap().first_match(&request).is_some()
        };
        for host in ["shop.local", "SHOP.Local", "shop.local:8080"] {
            assert!(matches(exact("Shop.local"), host) && matches(regex("shop[.]local"), host), "{host}");
            assert!(!matches(exact("shop.locals"), host), "{host}");
        }
        assert!(matches(exact("shop.local:8080"), "Shop.local:8080"));
        assert!(!matches(exact("shop.local:8080"), "shop.local:80"));
        assert!(matches(exact("[::1]"), "[::1]:80") && matches(exact("[::1]"), "[::1]"));
        assert!(!matches(exact("shop.local"), "shop.local:") && !matches(exact("::"), "::1"));
    }
}
