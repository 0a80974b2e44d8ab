//! Rewrites, changes of headers, and which requests nobody counts.

use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption};
use envoy_types::pb::envoy::config::route::v3::header_matcher::HeaderMatchSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_action::HostRewriteSpecifier;
use envoy_types::pb::envoy::config::route::v3::route_match::PathSpecifier;
use envoy_types::pb::envoy::config::route::v3::{HeaderMatcher, RouteAction, RouteMatch};
use envoy_types::pb::envoy::r#type::matcher::v3::{
    RegexMatchAndSubstitute, RegexMatcher, StringMatcher, string_matcher::MatchPattern,
};
use envoy_types::pb::google::protobuf::BoolValue;

use crate::model::http::{HeaderChanges, HealthChecks, HttpOptions, NewPath, PathRewrite, TextMatch};

/// Bytes of all alternatives of a regex: Envoys up to 1.36 refuse one of more than 100 instructions of RE2, which has about
/// one for each byte, unless their bootstrap allows for more.
const SHORT: usize = 48;

/// Returns which paths are rewritten how, in order; the last is all that is left.
pub(super) fn paths(options: &HttpOptions) -> Vec<(RouteMatch, Option<&PathRewrite>)> {
    let rewritten = options.rewrites.iter().map(|rewrite| (route_match(rewrite), Some(rewrite)));
    let all = |(path, _): &(RouteMatch, Option<&PathRewrite>)| *path == everything();
    let mut paths: Vec<_> = rewritten.collect();
    if let Some(last) = paths.iter().position(all) {
        paths.truncate(last + 1);
    } else {
        paths.push((everything(), None));
    }
    paths
}

/// Returns an action that rewrites.
pub(super) fn rewriting(action: RouteAction, options: &HttpOptions, path: Option<&PathRewrite>) -> RouteAction {
    let (prefix_rewrite, regex_rewrite) = match path.map(|rewrite| &rewrite.to) {
        None => (String::new(), None),
        Some(NewPath::Replaced(path)) => (path.clone(), None),
        Some(NewPath::Substituted { pattern, substitution }) => {
            let rewrite = RegexMatchAndSubstitute { pattern: Some(regex(pattern)), substitution: substitution.clone() };
            (String::new(), Some(rewrite))
        }
    };
    let authority = options.authority.clone().map(HostRewriteSpecifier::HostRewriteLiteral);
    RouteAction { prefix_rewrite, regex_rewrite, host_rewrite_specifier: authority, ..action }
}

/// Returns what is set and added.
pub(super) fn added(changes: &HeaderChanges) -> Vec<HeaderValueOption> {
    let option = |(name, value): (&String, &String), action: HeaderAppendAction| HeaderValueOption {
        header: Some(HeaderValue { key: name.clone(), value: value.clone(), ..HeaderValue::default() }),
        append_action: action.into(),
        // An operator that comes to nothing adds no header.
        keep_empty_value: value.is_empty(),
        ..HeaderValueOption::default()
    };
    let set = changes.set.iter().map(|header| option(header, HeaderAppendAction::OverwriteIfExistsOrAdd));
    let add = changes.add.iter().map(|header| option(header, HeaderAppendAction::AppendIfExistsOrAdd));
    set.chain(add).collect()
}

/// Returns tests one of which every health check passes: some of the user agent, some of the path.
pub(super) fn health_checks(checks: &HealthChecks) -> Vec<HeaderMatcher> {
    // One automaton for several is cheaper than a route for each.
    let any_of = |name: &str, texts: &[String], then: &str| {
        let any = |texts: &[&str]| {
            let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
            header_matcher(name, &TextMatch::Regex(format!("(?:{}){then}", texts.join("|"))))
        };
        short_lists(texts).iter().map(|texts| any(texts)).collect::<Vec<_>>()
    };
    [any_of("user-agent", &checks.user_agents, ".*"), any_of(":path", &checks.paths, r"(?:\?.*)?")].concat()
}

/// Divides texts into lists that Envoy takes as alternatives of one regex.
fn short_lists(texts: &[String]) -> Vec<Vec<&str>> {
    let mut lists: Vec<Vec<&str>> = Vec::new();
    for text in texts {
        match lists.last_mut() {
            Some(list) if list.iter().map(|text| text.len()).sum::<usize>() + text.len() <= SHORT => list.push(text),
            Some(_) | None => lists.push(vec![text]),
        }
    }
    lists
}

/// Returns a test of a header.
pub(super) fn header_matcher(name: &str, test: &TextMatch) -> HeaderMatcher {
    HeaderMatcher {
        name: name.to_owned(),
        header_match_specifier: Some(HeaderMatchSpecifier::StringMatch(string_matcher(test, false))),
        ..HeaderMatcher::default()
    }
}

/// Returns a test of a text.
pub(super) fn string_matcher(test: &TextMatch, ignore_case: bool) -> StringMatcher {
    let pattern = match test {
        TextMatch::Exact(text) => MatchPattern::Exact(text.clone()),
        TextMatch::Prefix(text) => MatchPattern::Prefix(text.clone()),
        TextMatch::Regex(pattern) => MatchPattern::SafeRegex(regex(pattern)),
    };
    StringMatcher { match_pattern: Some(pattern), ignore_case }
}

fn route_match(rewrite: &PathRewrite) -> RouteMatch {
    let path = match &rewrite.path {
        TextMatch::Exact(path) => PathSpecifier::Path(path.clone()),
        TextMatch::Prefix(prefix) => PathSpecifier::Prefix(prefix.clone()),
        TextMatch::Regex(pattern) => PathSpecifier::SafeRegex(regex(pattern)),
    };
    let case_sensitive = rewrite.ignore_case.then_some(BoolValue { value: false });
    RouteMatch { path_specifier: Some(path), case_sensitive, ..RouteMatch::default() }
}

fn everything() -> RouteMatch {
    RouteMatch { path_specifier: Some(PathSpecifier::Prefix("/".to_owned())), ..RouteMatch::default() }
}

fn regex(pattern: &str) -> RegexMatcher {
    RegexMatcher { regex: pattern.to_owned(), ..RegexMatcher::default() }
}

/// Returns a pattern of RE2 that matches this text alone.
fn quoted(text: &str) -> String {
    text.chars().flat_map(|c| (c.is_ascii_punctuation()).then_some('\\').into_iter().chain([c])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_checks_are_told_by_a_few_tests() {
        let tests = health_checks(&HealthChecks::default());
        let names: Vec<_> = tests.iter().map(|test| test.name.as_str()).collect();
        assert_eq!(names, ["user-agent", "user-agent", "user-agent", ":path", ":path"]);
        let by_path = HealthChecks { user_agents: Vec::new(), paths: vec!["/-/a.b".to_owned()] };
        let tests = health_checks(&by_path);
        assert_eq!(tests, [header_matcher(":path", &TextMatch::Regex(r"(?:\/\-\/a\.b)(?:\?.*)?".to_owned()))]);
        let none = HealthChecks { user_agents: Vec::new(), paths: Vec::new() };
        assert_eq!(health_checks(&none), []);
    }

    #[test]
    fn what_no_rewrite_matches_comes_last_unless_one_matches_everything() {
        let rewrite =
            |path: TextMatch| PathRewrite { path, ignore_case: false, to: NewPath::Replaced("/v2/".to_owned()) };
        let (api, all) = (rewrite(TextMatch::Prefix("/api/".to_owned())), rewrite(TextMatch::Prefix("/".to_owned())));
        let of = |rewrites: &[PathRewrite]| {
            let options = HttpOptions { rewrites: rewrites.to_vec(), ..HttpOptions::default() };
            paths(&options).into_iter().map(|(_, rewrite)| rewrite.cloned()).collect::<Vec<_>>()
        };
        assert_eq!(of(&[]), [None]);
        assert_eq!(of(std::slice::from_ref(&api)), [Some(api.clone()), None]);
        assert_eq!(of(&[all.clone(), api]), [Some(all)]);
    }
}
