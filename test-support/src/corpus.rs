//! The corpus of matching: rules, a request, and the rule that takes it.

use std::collections::BTreeMap;

use serde::Deserialize;
use wingbeat_core::matching::input::{EntryInput, StringMatch};
use wingbeat_core::matching::request::Request;

/// A row of the corpus.
#[derive(Debug, Clone)]
pub struct Row {
    /// What it shows.
    pub name: String,
    /// The rules.
    pub rules: Vec<EntryInput>,
    /// What is sent.
    pub request: Request,
    /// The place of the rule that takes it.
    pub rule: Option<usize>,
}

/// Host of requests that name no other.
pub const HOST: &str = "shop.example";

/// Returns all rows.
pub fn rows() -> Vec<Row> {
    let text = include_str!("../../core/testdata/matching/rules.toml");
    let corpus: Corpus = toml::from_str(text).expect("the corpus is TOML");
    let row = |Written { name, rules, request, rule }| Row {
        name,
        rules: rules.into_iter().map(Into::into).collect(),
        request: request.into(),
        rule,
    };
    corpus.test.into_iter().map(row).collect()
}

#[derive(Debug, Deserialize)]
struct Corpus {
    test: Vec<Written>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: String,
    rules: Vec<Rule>,
    request: Sent,
    rule: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "camelCase")]
struct Rule {
    headers: BTreeMap<String, Test>,
    without_headers: BTreeMap<String, Test>,
    query_params: BTreeMap<String, Test>,
    uri: Option<Test>,
    method: Option<Test>,
    scheme: Option<Test>,
    authority: Option<Test>,
    ignore_uri_case: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Test {
    exact: Option<String>,
    prefix: Option<String>,
    suffix: Option<String>,
    regex: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Sent {
    method: Option<String>,
    path: Option<String>,
    authority: Option<String>,
    headers: Vec<(String, String)>,
}

impl From<Test> for StringMatch {
    fn from(Test { exact, prefix, suffix, regex }: Test) -> Self {
        Self { exact, prefix, suffix, regex }
    }
}

fn tests(tests: BTreeMap<String, Test>) -> BTreeMap<String, StringMatch> {
    tests.into_iter().map(|(name, test)| (name, test.into())).collect()
}

impl From<Rule> for EntryInput {
    fn from(rule: Rule) -> Self {
        Self {
            headers: tests(rule.headers),
            without_headers: tests(rule.without_headers),
            query: tests(rule.query_params),
            uri: rule.uri.map(Into::into),
            method: rule.method.map(Into::into),
            scheme: rule.scheme.map(Into::into),
            authority: rule.authority.map(Into::into),
            ignore_uri_case: rule.ignore_uri_case,
        }
    }
}

impl From<Sent> for Request {
    fn from(sent: Sent) -> Self {
        let bytes = |text: Option<String>, otherwise: &str| text.unwrap_or_else(|| otherwise.to_owned()).into_bytes();
        Self {
            method: bytes(sent.method, "GET"),
            path: bytes(sent.path, "/"),
            scheme: b"https".to_vec(),
            authority: bytes(sent.authority, HOST),
            headers: sent.headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect(),
        }
    }
}
