//! Alternatives, compiled from what users write.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::input::{EntryInput, RuleError, StringMatch};
use super::pattern::{Pattern, Regex};
use super::rule::{Condition, Entries, Subject};
use crate::matching::input::{MAX_AUTOMATA_BYTES, MAX_ENTRIES};

impl Entries {
    /// Returns the entries, or everything that is wrong with them.
    pub fn try_new(inputs: &[EntryInput]) -> Result<Self, Vec<RuleError>> {
        let mut errors = Vec::new();
        if inputs.len() > MAX_ENTRIES {
            let wrong = format!("has {} entries, write at most {MAX_ENTRIES}", inputs.len());
            errors.push(RuleError { field: String::new(), wrong });
        }
        let entries: Vec<Vec<Condition>> =
            inputs.iter().enumerate().map(|(place, input)| entry(place, input, &mut errors)).collect();
        let size: usize = entries.iter().flatten().map(|condition| condition.pattern.size()).sum();
        if size > MAX_AUTOMATA_BYTES {
            let wrong = format!(
                "has regexes that take {} KiB together as automata, {} are the most: make some simpler",
                size / 1_024,
                MAX_AUTOMATA_BYTES / 1_024
            );
            errors.push(RuleError { field: String::new(), wrong });
        }
        if errors.is_empty() { Ok(Self::compiled(entries, inputs.to_vec())) } else { Err(errors) }
    }
}

impl TryFrom<Vec<EntryInput>> for Entries {
    type Error = String;

    /// Compiles what was stored.
    fn try_from(written: Vec<EntryInput>) -> Result<Self, String> {
        Self::try_new(&written).map_err(|errors| errors.first().map_or_else(String::new, ToString::to_string))
    }
}

impl From<Entries> for Vec<EntryInput> {
    fn from(entries: Entries) -> Self {
        entries.written().to_vec()
    }
}

/// A subject that has a name.
type Named = fn(String) -> Subject;

fn entry(place: usize, input: &EntryInput, errors: &mut Vec<RuleError>) -> Vec<Condition> {
    let mut conditions = Vec::new();
    let mut add = |path: String, subject: Subject, test: &StringMatch, ignore_case: bool| match pattern(test) {
        Ok(pattern) => conditions.push(Condition { subject, pattern, ignore_case }),
        Err((kind, wrong)) => {
            let field = if kind.is_empty() { path } else { format!("{path}.{kind}") };
            errors.push(RuleError { field, wrong });
        }
    };
    let named: [(&str, &BTreeMap<String, StringMatch>, Named); 3] = [
        ("headers", &input.headers, |name| Subject::Header(name.to_ascii_lowercase())),
        ("withoutHeaders", &input.without_headers, |name| Subject::WithoutHeader(name.to_ascii_lowercase())),
        ("queryParams", &input.query, Subject::Query),
    ];
    for (kind, tests, subject) in named {
        for (name, test) in tests {
            add(format!("[{place}].{kind}.{name}"), subject(name.clone()), test, false);
        }
    }
    let single = [
        ("uri", &input.uri, Subject::Path, input.ignore_uri_case),
        ("method", &input.method, Subject::Method, false),
        ("scheme", &input.scheme, Subject::Scheme, false),
        ("authority", &input.authority, Subject::Authority, true),
    ];
    for (kind, test, subject, ignore_case) in single {
        if let Some(test) = test {
            add(format!("[{place}].{kind}"), subject, test, ignore_case);
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
