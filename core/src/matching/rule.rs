//! Rules, from their spec to the decision about a request.

use alloc::borrow::Cow;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use super::pattern::{Pattern, Regex};

/// Most entries of a canary.
pub const MOST_ENTRIES: usize = 64;
/// Longest cookies that are looked at; longer ones match nothing.
pub const LONGEST_COOKIES: usize = 64 * 1_024;

/// A test of one value, as it is written: exactly one of the four, or none for "is there".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StringMatch {
    /// The whole value.
    pub exact: Option<String>,
    /// Its beginning.
    pub prefix: Option<String>,
    /// Its end.
    pub suffix: Option<String>,
    /// A regex of the whole value.
    pub regex: Option<String>,
}

/// An entry of `match`, as it is written. All that is there must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryInput {
    /// By name; any value of a repeated header may match.
    pub headers: BTreeMap<String, StringMatch>,
    /// By name; no value may match.
    pub without_headers: BTreeMap<String, StringMatch>,
    /// By name, of the query.
    pub query: BTreeMap<String, StringMatch>,
    /// The path, without the query.
    pub uri: Option<StringMatch>,
    /// The method.
    pub method: Option<StringMatch>,
    /// The scheme.
    pub scheme: Option<StringMatch>,
    /// The host.
    pub authority: Option<StringMatch>,
    /// True if the case of the path does not matter.
    pub ignore_uri_case: bool,
}

/// What is wrong with a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {wrong}")]
pub struct RuleError {
    /// Path of the field below the list, like `[1].headers.cookie.regex`.
    pub field: String,
    /// What is wrong, and what would be right.
    pub wrong: String,
}

/// A request, as far as rules look at it.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The method.
    pub method: Vec<u8>,
    /// The path with its query.
    pub path: Vec<u8>,
    /// The scheme.
    pub scheme: Vec<u8>,
    /// The host.
    pub authority: Vec<u8>,
    /// Names and values in order; names may come twice.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// Alternatives.
#[derive(Debug, Clone, Default)]
pub struct Entries(Vec<Vec<Condition>>);

#[derive(Debug, Clone)]
struct Condition {
    field: Field,
    pattern: Pattern,
    ignore_case: bool,
}

#[derive(Debug, Clone)]
enum Field {
    Header(String),
    WithoutHeader(String),
    Query(String),
    Uri,
    Method,
    Scheme,
    Authority,
}

impl Entries {
    /// Returns the entries, or everything that is wrong with them.
    pub fn try_new(inputs: &[EntryInput]) -> Result<Self, Vec<RuleError>> {
        let mut errors = Vec::new();
        if inputs.len() > MOST_ENTRIES {
            let wrong = format!("has {} entries, write at most {MOST_ENTRIES}", inputs.len());
            errors.push(RuleError { field: String::new(), wrong });
        }
        let entries = inputs.iter().enumerate().map(|(place, input)| entry(place, input, &mut errors)).collect();
        if errors.is_empty() { Ok(Self(entries)) } else { Err(errors) }
    }

    /// Returns true if there are none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the place of the first entry that matches.
    pub fn first_match(&self, request: &Request) -> Option<usize> {
        self.0.iter().position(|entry| entry.iter().all(|condition| condition.holds(request)))
    }
}

/// A field that has a name.
type Named = fn(String) -> Field;

fn entry(place: usize, input: &EntryInput, errors: &mut Vec<RuleError>) -> Vec<Condition> {
    let mut conditions = Vec::new();
    let mut add = |path: String, field: Field, test: &StringMatch, ignore_case: bool| match pattern(test) {
        Ok(pattern) => conditions.push(Condition { field, pattern, ignore_case }),
        Err((kind, wrong)) => {
            let field = if kind.is_empty() { path } else { format!("{path}.{kind}") };
            errors.push(RuleError { field, wrong });
        }
    };
    let named: [(&str, &BTreeMap<String, StringMatch>, Named); 3] = [
        ("headers", &input.headers, |name| Field::Header(name.to_ascii_lowercase())),
        ("withoutHeaders", &input.without_headers, |name| Field::WithoutHeader(name.to_ascii_lowercase())),
        ("queryParams", &input.query, Field::Query),
    ];
    for (kind, tests, field) in named {
        for (name, test) in tests {
            add(format!("[{place}].{kind}.{name}"), field(name.clone()), test, false);
        }
    }
    let single = [
        ("uri", &input.uri, Field::Uri, input.ignore_uri_case),
        ("method", &input.method, Field::Method, false),
        ("scheme", &input.scheme, Field::Scheme, false),
        ("authority", &input.authority, Field::Authority, false),
    ];
    for (kind, test, field, ignore_case) in single {
        if let Some(test) = test {
            add(format!("[{place}].{kind}"), field, test, ignore_case);
        }
    }
    conditions
}

fn pattern(test: &StringMatch) -> Result<Pattern, (&'static str, String)> {
    let bytes = |text: &String| text.clone().into_bytes();
    let StringMatch { exact, prefix, suffix, regex } = test;
    let given = [exact, prefix, suffix, regex].into_iter().flatten().count();
    if given > 1 {
        return Err(("", "has several tests, use one of exact, prefix, suffix and regex".to_string()));
    }
    Ok(match (exact, prefix, suffix, regex) {
        (Some(text), ..) => Pattern::Exact(bytes(text)),
        (_, Some(text), ..) => Pattern::Prefix(bytes(text)),
        (_, _, Some(text), _) => Pattern::Suffix(bytes(text)),
        (.., Some(text)) => Pattern::Regex(Regex::compile(text).map_err(|wrong| ("regex", wrong))?),
        (None, None, None, None) => Pattern::Present,
    })
}

impl Condition {
    fn holds(&self, request: &Request) -> bool {
        let test = |value: &[u8]| self.pattern.matches(value, self.ignore_case);
        match &self.field {
            Field::Header(name) => request.values(name).iter().any(|value| test(value)),
            Field::WithoutHeader(name) => !request.values(name).iter().any(|value| test(value)),
            Field::Query(name) => request.query(name).any(test),
            Field::Uri => test(request.uri()),
            Field::Method => test(&request.method),
            Field::Scheme => test(&request.scheme),
            Field::Authority => test(&request.authority),
        }
    }
}

impl Request {
    /// Returns the values of a header. An absent header has none, an empty one has an empty one. Cookies may come in
    /// several headers, which are one list.
    fn values(&self, name: &str) -> Vec<Cow<'_, [u8]>> {
        let values = self.headers.iter().filter(|(header, _)| header.eq_ignore_ascii_case(name));
        let values: Vec<&[u8]> = values.map(|(_, value)| value.as_slice()).collect();
        if name != "cookie" || values.is_empty() {
            return values.into_iter().map(Cow::Borrowed).collect();
        }
        let crumbs = values.join(&b"; "[..]);
        if crumbs.len() > LONGEST_COOKIES { Vec::new() } else { [Cow::Owned(crumbs)].into() }
    }

    fn uri(&self) -> &[u8] {
        self.path.split(|byte| *byte == b'?').next().unwrap_or_default()
    }

    fn query<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        let start = self.path.iter().position(|byte| *byte == b'?').map_or(self.path.len(), |at| at.saturating_add(1));
        let query = self.path.get(start..).unwrap_or_default();
        let query = query.split(|byte| *byte == b'#').next().unwrap_or_default();
        query.split(|byte| *byte == b'&').filter_map(move |pair| {
            let end = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            let (key, value) = pair.split_at_checked(end)?;
            (key == name.as_bytes()).then(|| value.get(1..).unwrap_or_default())
        })
    }
}
