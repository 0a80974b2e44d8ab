//! Rules of A/B tests in documents.

use wingbeat_core::matching::assignment::Identity;
use wingbeat_core::matching::input::{EntryInput, StringMatch};
use wingbeat_core::matching::rule::Entries;
use wingbeat_core::weight::BasisPoints;

use super::decoder::Decoder;
use super::platform::Severity;
use super::shape;
use super::yaml::{Node, Position};

/// Decodes a list of rules as they are written.
pub(super) fn decode_inputs(decoder: &mut Decoder, node: &Node, path: &str) -> Vec<EntryInput> {
    decode_rules(decoder, node, path).into_iter().map(|(rule, _, _)| rule).collect()
}

/// Decodes the rules of an A/B test: each has to test something, or everybody would get the canary.
pub(super) fn decode_tests(decoder: &mut Decoder, node: &Node, path: &str) -> Entries {
    if decoder.terms.slip() == Severity::Error && node.is_empty_list() {
        decoder.wrong(node.at, path, "is empty, list whom the canary is for, or leave it out");
    }
    let mut rules = Vec::new();
    for (rule, at, path) in decode_rules(decoder, node, path) {
        if tests_nothing(&rule) {
            let message = "tests nothing, so that every request would match; add headers, queryParams, uri or method";
            decoder.wrong(at, &path, message);
        }
        rules.push(rule);
    }
    compile(decoder, &rules, path)
}

fn decode_rules(decoder: &mut Decoder, node: &Node, path: &str) -> Vec<(EntryInput, Position, String)> {
    let listed = decoder.list(node, path).into_iter();
    listed.filter_map(|(node, path)| Some((decode_rule(decoder, node, &path)?, node.at, path))).collect()
}

/// Compiles rules that were written at `path`; errors of patterns are told by their fields.
pub(super) fn compile(decoder: &mut Decoder, inputs: &[EntryInput], path: &str) -> Entries {
    Entries::try_new(inputs).unwrap_or_else(|errors| {
        for error in errors {
            let field = format!("{path}{}", error.field);
            let at = decoder.place(&field);
            decoder.wrong(at, &field, error.wrong);
        }
        Entries::default()
    })
}

/// Decodes the share of matching requests that stays with the primary.
pub(super) fn decode_holdback(decoder: &mut Decoder, node: &Node, path: &str) -> Option<BasisPoints> {
    let share = BasisPoints::from_fraction(decoder.percent(node, path)?)?;
    if share == BasisPoints::FULL {
        decoder.wrong(node.at, path, "has to leave something for the canary, use a share below 100%");
        return None;
    }
    Some(share)
}

/// Decodes where requests name their user.
pub(super) fn decode_affinity(decoder: &mut Decoder, node: &Node, path: &str) -> Option<Identity> {
    let mut fields = decoder.fields(node, path, &shape::IDENTITY)?;
    let mut text = |name| fields.take(name).and_then(|(node, path)| decoder.text(node, &path));
    let (cookie, header) = (text("cookie"), text("header"));
    decoder.done(fields);
    match (cookie, header) {
        (Some(name), None) if !name.is_empty() => Some(Identity::Cookie(name)),
        (None, Some(name)) if !name.is_empty() => Some(Identity::Header(name.to_ascii_lowercase())),
        _ => {
            decoder.wrong(node.at, path, "has to name one cookie or one header, like {cookie: uid}");
            None
        }
    }
}

fn decode_rule(decoder: &mut Decoder, node: &Node, path: &str) -> Option<EntryInput> {
    let mut fields = decoder.fields(node, path, &shape::HTTP_MATCH)?;
    let mut rule = EntryInput::default();
    for (kind, tests) in [
        ("headers", &mut rule.headers),
        ("withoutHeaders", &mut rule.without_headers),
        ("queryParams", &mut rule.query),
    ] {
        if let Some((node, path)) = fields.take(kind) {
            for (name, at, node, path) in decoder.entries(node, &path) {
                if let Some(mend) = of_no_header(name).filter(|_| kind != "queryParams") {
                    decoder.unsupported(at, &path, format!("is no header that rules see, write {mend}"));
                }
                tests.extend(decode_test(decoder, node, &path).map(|test| (name.to_owned(), test)));
            }
        }
    }
    for (name, test) in [
        ("uri", &mut rule.uri),
        ("method", &mut rule.method),
        ("scheme", &mut rule.scheme),
        ("authority", &mut rule.authority),
    ] {
        *test = fields.take(name).and_then(|(node, path)| decode_test(decoder, node, &path));
    }
    let ignore = fields.take("ignoreUriCase").and_then(|(node, path)| decoder.truth(node, &path));
    rule.ignore_uri_case = ignore.unwrap_or(false);
    decoder.done(fields);
    Some(rule)
}

/// Returns what to write in place of a header that is a property of the request, and never among its headers.
fn of_no_header(name: &str) -> Option<&'static str> {
    match name.to_ascii_lowercase().as_str() {
        "host" | ":authority" => Some("authority beside headers, like {authority: {exact: shop.local}}"),
        ":path" => Some("uri beside headers, like {uri: {prefix: /v2/}}, and queryParams for the query"),
        ":method" => Some("method beside headers, like {method: {exact: GET}}"),
        ":scheme" => Some("scheme beside headers, like {scheme: {exact: https}}"),
        _ => None,
    }
}

fn decode_test(decoder: &mut Decoder, node: &Node, path: &str) -> Option<StringMatch> {
    let mut fields = decoder.fields(node, path, &shape::STRING_MATCH)?;
    let mut text = |name| fields.take(name).and_then(|(node, path)| decoder.text(node, &path));
    let test =
        StringMatch { exact: text("exact"), prefix: text("prefix"), suffix: text("suffix"), regex: text("regex") };
    decoder.done(fields);
    Some(test)
}

fn tests_nothing(rule: &EntryInput) -> bool {
    let EntryInput { headers, without_headers, query, uri, method, scheme, authority, ignore_uri_case: _ } = rule;
    let parts = [uri, method, scheme, authority];
    headers.is_empty() && without_headers.is_empty() && query.is_empty() && parts.iter().all(|part| part.is_none())
}
