//! Flagger's `rewrite`, `headers` and `corsPolicy`, of the shape that Istio gives them. What Envoy would refuse is
//! told here: it would refuse all routes of the listener.

use wingbeat_core::matching::compile::captures;
use wingbeat_core::matching::input::{EntryInput, StringMatch};
use wingbeat_xds_server::model::http::{Cors, HeaderChanges, HttpOptions, NewPath, PathRewrite, TextMatch};

use super::decoder::{Decoder, Fields};
use super::duration::span;
use super::yaml::Node;
use super::{operators, shape};

/// Envoy's limit on names and values.
const MAX_VALUE_LEN: usize = 16_384;

/// Takes the fields from those of `service`. `served` is `service.match`: a rewrite replaces what its paths match.
pub(super) fn decode(decoder: &mut Decoder, fields: &mut Fields<'_>, served: &[EntryInput]) -> HttpOptions {
    let mut options = HttpOptions::default();
    if let Some((node, path)) = fields.take("rewrite") {
        rewrite(decoder, node, &path, served, &mut options);
    }
    if let Some((node, path)) = fields.take("headers")
        && let Some(mut fields) = decoder.fields(node, &path, &shape::HEADERS)
    {
        if let Some((node, path)) = fields.take("request") {
            options.request = headers(decoder, node, &path, Some(&mut options.authority));
        }
        if let Some((node, path)) = fields.take("response") {
            options.response = headers(decoder, node, &path, None);
        }
        decoder.done(fields);
    }
    options.cors = fields.take("corsPolicy").and_then(|(node, path)| cors(decoder, node, &path));
    options
}

fn rewrite(decoder: &mut Decoder, node: &Node, path: &str, served: &[EntryInput], options: &mut HttpOptions) {
    let Some(mut fields) = decoder.fields(node, path, &shape::REWRITE) else { return };
    let authority = fields.take("authority").and_then(|(node, path)| host(decoder, node, &path));
    options.authority = authority.or_else(|| options.authority.take());
    let uri = fields.take("uri");
    let by_regex = fields.take("uriRegexRewrite");
    if uri.is_some() && by_regex.is_some() {
        decoder.wrong(node.at, path, "has both uri and uriRegexRewrite, keep one of them");
    }
    if uri.is_none() && by_regex.is_none() && options.authority.is_none() {
        decoder.wrong(node.at, path, "has nothing to rewrite, write uri, uriRegexRewrite or authority");
    }
    decoder.done(fields);
    let to = match (uri, by_regex) {
        (Some((node, path)), _) => new_path(decoder, node, &path, served),
        (None, Some((node, path))) => substitution(decoder, node, &path),
        (None, None) => None,
    };
    let Some(to) = to else { return };
    // As if every entry of `match` were a route: without one, all paths begin with a slash.
    let everything = [EntryInput::default()];
    let served = if served.is_empty() { &everything } else { served };
    for (place, entry) in served.iter().enumerate() {
        let field = format!("spec.service.match[{place}].uri");
        if let Some(path) = path_of(decoder, &field, entry.uri.as_ref()) {
            options.rewrites.push(PathRewrite { path, ignore_case: entry.ignore_uri_case, to: to.clone() });
        }
    }
}

/// Returns the paths of an entry.
fn path_of(decoder: &mut Decoder, field: &str, uri: Option<&StringMatch>) -> Option<TextMatch> {
    let all = || Some(TextMatch::Prefix("/".to_owned()));
    let Some(uri) = uri else { return all() };
    match uri {
        StringMatch { exact: Some(text), .. } => Some(TextMatch::Exact(text.clone())),
        StringMatch { prefix: Some(text), .. } => Some(TextMatch::Prefix(text.clone())),
        StringMatch { suffix: Some(_), .. } => {
            let at = decoder.place(field);
            decoder.wrong(at, field, "is a suffix, of which no path can be rewritten, use exact, prefix or regex");
            None
        }
        StringMatch { regex: Some(text), .. } => match captures(text) {
            Ok(_) => Some(TextMatch::Regex(text.clone())),
            Err(wrong) => {
                let at = decoder.place(field);
                decoder.wrong(at, field, format!("cannot be rewritten: it {wrong}"));
                None
            }
        },
        StringMatch { exact: None, prefix: None, suffix: None, regex: None } => all(),
    }
}

fn new_path(decoder: &mut Decoder, node: &Node, path: &str, served: &[EntryInput]) -> Option<NewPath> {
    let text = decoder.text(node, path)?;
    let right = text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic() && !b"?#".contains(&byte));
    if !right {
        decoder.wrong(node.at, path, format!("{text:?} is not a path, write one like /v2/"));
        return None;
    }
    let prefixes = served.iter().map(|entry| entry.uri.as_ref().map_or(Some("/"), |uri| uri.prefix.as_deref()));
    let prefixes = if served.is_empty() { vec!["/"] } else { prefixes.flatten().collect() };
    if let Some(prefix) = prefixes.into_iter().find(|prefix| prefix.ends_with('/') != text.ends_with('/')) {
        // Istio's users know it; who does not would look for long.
        let before = format!("{}/x", prefix.trim_end_matches('/'));
        let after = format!("{text}{}", before.get(prefix.len()..).unwrap_or_default());
        let mend = if prefix.ends_with('/') { "end it with / too" } else { "end both with /, or neither" };
        decoder.warn(node.at, path, format!("makes {after} of {before}, since only {prefix} is replaced: {mend}"));
    }
    Some(NewPath::Replaced(text))
}

fn substitution(decoder: &mut Decoder, node: &Node, path: &str) -> Option<NewPath> {
    let mut fields = decoder.fields(node, path, &shape::SUBSTITUTION)?;
    let pattern = fields.need("match", "write a regex", decoder).and_then(|(node, path)| {
        let pattern = decoder.text(node, &path)?;
        match captures(&pattern) {
            Ok(groups) => Some((pattern, groups)),
            Err(wrong) => {
                decoder.wrong(node.at, &path, wrong);
                None
            }
        }
    });
    let text = fields.need("rewrite", "say what takes its place", decoder);
    let text = text.and_then(|(node, path)| Some((node.at, decoder.text(node, &path)?, path)));
    decoder.done(fields);
    let ((pattern, groups), (at, substitution, path)) = (pattern?, text?);
    if substitution.chars().any(char::is_control) {
        decoder.wrong(at, &path, "holds a control character, leave it out");
    }
    let mut escaped = false;
    for c in substitution.chars() {
        match (escaped, c.to_digit(10).and_then(|digit| usize::try_from(digit).ok())) {
            (true, Some(group)) if group > groups => {
                decoder.wrong(at, &path, format!("names group {group} of a pattern that has {groups}"));
            }
            (true, None) if c != '\\' => {
                decoder.wrong(at, &path, format!(r"has \{c}, write \1 for a group and \\ for a backslash"));
            }
            (false | true, _) => {}
        }
        escaped = !escaped && c == '\\';
    }
    if escaped {
        decoder.wrong(at, &path, r"ends with \, write \1 for a group and \\ for a backslash");
    }
    Some(NewPath::Substituted { pattern, substitution })
}

/// Decodes changes of headers. Setting the host is what `rewrite.authority` is for; Istio takes it here too.
fn headers(
    decoder: &mut Decoder,
    node: &Node,
    path: &str,
    mut authority: Option<&mut Option<String>>,
) -> HeaderChanges {
    let mut changes = HeaderChanges::default();
    let Some(mut fields) = decoder.fields(node, path, &shape::HEADER_CHANGES) else { return changes };
    for (name, into) in [("set", &mut changes.set), ("add", &mut changes.add)] {
        let Some((node, path)) = fields.take(name) else { continue };
        for (header, at, node, path) in decoder.entries(node, &path) {
            let is_host = header.eq_ignore_ascii_case("host") || header == ":authority";
            if let Some(authority) = authority.as_mut().filter(|_| is_host && name == "set") {
                let host = host(decoder, node, &path);
                authority.get_or_insert_with(|| host.unwrap_or_default());
                continue;
            }
            let Some(text) = decoder.text(node, &path) else { continue };
            if let Some(wrong) = name_complaint(header).or_else(|| value_complaint(&text)) {
                decoder.wrong(at, &path, wrong);
            }
            into.insert(header.to_ascii_lowercase(), text);
        }
    }
    if let Some((node, path)) = fields.take("remove") {
        for (node, path) in decoder.list(node, &path) {
            let Some(header) = decoder.text(node, &path) else { continue };
            if let Some(wrong) = name_complaint(&header) {
                decoder.wrong(node.at, &path, wrong);
            }
            changes.remove.push(header.to_ascii_lowercase());
        }
    }
    decoder.done(fields);
    changes
}

fn host(decoder: &mut Decoder, node: &Node, path: &str) -> Option<String> {
    let text = decoder.text(node, path)?;
    let right = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
    if text.is_empty() || !text.bytes().all(right) {
        decoder.wrong(node.at, path, format!("{text:?} is not a host, write one like backend.local"));
    }
    Some(text)
}

fn name_complaint(name: &str) -> Option<String> {
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        return Some("is part of every request, and changed by rewrite alone".to_owned());
    }
    (!is_token(name)).then(|| format!("{name:?} is not the name of a header, write one like x-team"))
}

fn value_complaint(value: &str) -> Option<String> {
    if value.len() > MAX_VALUE_LEN {
        return Some(format!("is {} bytes long, write at most {MAX_VALUE_LEN}", value.len()));
    }
    if value.chars().any(|c| matches!(c, '\0' | '\r' | '\n')) {
        return Some("has several lines, write one".to_owned());
    }
    operators::unsupported_operator(value)
}

/// Returns true for what RFC 9110 calls a token: names of headers, and methods.
fn is_token(text: &str) -> bool {
    let right = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.len() <= MAX_VALUE_LEN && text.bytes().all(right)
}

fn cors(decoder: &mut Decoder, node: &Node, path: &str) -> Option<Cors> {
    let mut fields = decoder.fields(node, path, &shape::CORS_POLICY)?;
    let mut cors = Cors::default();
    // Istio's old form, of exact ones.
    if let Some((node, path)) = fields.take("allowOrigin") {
        cors.origins.extend(decoder.texts(node, &path).into_iter().map(TextMatch::Exact));
    }
    let mut listed = !cors.origins.is_empty();
    if let Some((node, path)) = fields.take("allowOrigins") {
        let origins = decoder.list(node, &path);
        listed |= !origins.is_empty();
        for (node, path) in origins {
            cors.origins.extend(origin(decoder, node, &path));
        }
    }
    for (name, into) in
        [("allowMethods", &mut cors.methods), ("allowHeaders", &mut cors.headers), ("exposeHeaders", &mut cors.exposed)]
    {
        let Some((node, path)) = fields.take(name) else { continue };
        for (node, path) in decoder.list(node, &path) {
            let Some(text) = decoder.text(node, &path) else { continue };
            if !is_token(&text) {
                let what = if name == "allowMethods" { "a method, write one like GET" } else { "a header" };
                decoder.wrong(node.at, &path, format!("{text:?} is not the name of {what}"));
            }
            into.push(text);
        }
    }
    cors.max_age = fields.take("maxAge").and_then(|(node, path)| decoder.duration(node, &path)).map(span);
    cors.credentials = fields.take("allowCredentials").and_then(|(node, path)| decoder.truth(node, &path));
    decoder.done(fields);
    if !listed {
        decoder.wrong(
            node.at,
            path,
            "allows no origin, list some in allowOrigins like [{exact: \"https://a.example\"}]",
        );
    }
    Some(cors)
}

fn origin(decoder: &mut Decoder, node: &Node, path: &str) -> Option<TextMatch> {
    let mut fields = decoder.fields(node, path, &shape::ORIGIN)?;
    let mut text = |name| fields.take(name).and_then(|(node, path)| decoder.text(node, &path));
    let tests = (text("exact"), text("prefix"), text("regex"));
    decoder.done(fields);
    match tests {
        (Some(text), None, None) => Some(TextMatch::Exact(text)),
        (None, Some(text), None) => Some(TextMatch::Prefix(text)),
        (None, None, Some(text)) => match captures(&text) {
            Ok(_) => Some(TextMatch::Regex(text)),
            Err(wrong) => {
                decoder.wrong(node.at, path, wrong);
                None
            }
        },
        _ => {
            decoder.wrong(node.at, path, "has to be one of exact, prefix and regex");
            None
        }
    }
}
