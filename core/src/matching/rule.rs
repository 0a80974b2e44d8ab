//! Rules: which requests they take.

use alloc::string::String;
use alloc::vec::Vec;

use super::pattern::Pattern;
use super::request::Request;

/// Which requests of an A/B test get the canary.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// `service.match`: one of these must hold, if there are any.
    pub served: Entries,
    /// `analysis.match`: the first that holds.
    pub canary: Entries,
}

/// Alternatives, each a list of conditions that must all hold.
#[derive(Debug, Clone, Default)]
pub struct Entries(Vec<Vec<Condition>>);

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
        Self(entries)
    }

    /// Returns true if there are none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the alternatives in order.
    pub fn iter(&self) -> impl Iterator<Item = &[Condition]> {
        self.0.iter().map(Vec::as_slice)
    }

    /// Returns the place of the first entry that matches.
    pub fn first_match(&self, request: &Request) -> Option<usize> {
        self.0.iter().position(|entry| entry.iter().all(|condition| condition.holds(request)))
    }
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
            Subject::Authority => test(&request.authority),
        }
    }
}
