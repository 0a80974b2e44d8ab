//! Rules of A/B tests in documents.

use wingbeat_core::matching::rule::{Entries, EntryInput, Request, StringMatch};

use super::decoder::Decoder;
use super::yaml::Node;

/// Which requests of an A/B test get the canary.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// `service.match`: one of these must hold, if there are any.
    pub(super) service: Entries,
    /// `analysis.match`: the first that holds.
    pub(super) analysis: Entries,
}

impl Rules {
    /// Returns the place of the rule in `analysis.match` that gives this request to the canary.
    pub fn canary(&self, request: &Request) -> Option<usize> {
        let served = self.service.is_empty() || self.service.first_match(request).is_some();
        served.then(|| self.analysis.first_match(request)).flatten()
    }

    /// Returns true if there are none.
    pub const fn is_empty(&self) -> bool {
        self.analysis.is_empty()
    }
}

/// Decodes a list of rules; errors of patterns are told by their fields.
pub(super) fn decode(decoder: &mut Decoder, node: &Node, path: &str) -> Entries {
    let listed = decoder.list(node, path);
    let inputs: Vec<EntryInput> =
        listed.into_iter().filter_map(|(node, path)| decode_rule(decoder, node, &path)).collect();
    Entries::try_new(&inputs).unwrap_or_else(|errors| {
        for error in errors {
            let field = format!("{path}{}", error.field);
            let at = decoder.place(&field);
            decoder.wrong(at, &field, error.wrong);
        }
        Entries::default()
    })
}

fn decode_rule(decoder: &mut Decoder, node: &Node, path: &str) -> Option<EntryInput> {
    let mut fields = decoder.fields(node, path)?;
    let mut rule = EntryInput::default();
    for (name, tests) in [
        ("headers", &mut rule.headers),
        ("withoutHeaders", &mut rule.without_headers),
        ("queryParams", &mut rule.query),
    ] {
        if let Some((node, path)) = fields.take(name)
            && let Some(mut named) = decoder.fields(node, &path)
        {
            for (name, _, node, path) in named.rest() {
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
    fields.take("name");
    fields.ignore(&["port", "gateways", "sourceLabels", "sourceNamespace"], "it is for Istio", decoder);
    decoder.done(fields);
    Some(rule)
}

fn decode_test(decoder: &mut Decoder, node: &Node, path: &str) -> Option<StringMatch> {
    let mut fields = decoder.fields(node, path)?;
    let mut text = |name| fields.take(name).and_then(|(node, path)| decoder.text(node, &path));
    let test =
        StringMatch { exact: text("exact"), prefix: text("prefix"), suffix: text("suffix"), regex: text("regex") };
    decoder.done(fields);
    Some(test)
}
