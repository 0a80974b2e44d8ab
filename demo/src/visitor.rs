//! Who sends requests. In the A/B scene some match its rules and some must not.

use wingbeat_core::matching::input::{EntryInput, StringMatch};

/// A kind of user.
#[derive(Debug)]
pub struct Visitor {
    /// Headers of each request.
    pub headers: &'static [(&'static str, &'static str)],
    /// True if the rules give the canary to them.
    pub matches: bool,
    /// True for those who ask for an error when the scene says so.
    pub tester: bool,
}

/// Path that the service answers with an error, whoever asks.
pub const FAILING_PATH: &str = "/status/500";
/// Safari, but no browser that only says so.
const SAFARI: &str = r"^(?!.*Chrome)(?=.*\bSafari\b).*$";
/// The cookie of insiders, among others.
const INSIDER: &str = "^(.*?;)?\\s*(type=insider)(;.*)?$";

/// Users of the scenes that divide by chance.
pub const ANYONE: &[Visitor] = &[visitor(&[], false)];

/// Users of the A/B scene, in equal numbers.
pub const AUDIENCE: &[Visitor] = &[
    Visitor { tester: true, ..visitor(&[("cookie", "type=insider")], true) },
    Visitor { tester: true, ..visitor(&[("cookie", "session=1; type=insider; theme=dark")], true) },
    visitor(
        &[(
            "user-agent",
            "Mozilla/5.0 (Macintosh; Intel Mac OS X 14_4) AppleWebKit/605.1.15 Version/17.4 Safari/605.1.15",
        )],
        true,
    ),
    visitor(&[("user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/131.0 Safari/537.36")], false),
    visitor(&[("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:133.0) Gecko/20100101 Firefox/133.0")], false),
    visitor(&[("cookie", "type=outsider")], false),
    visitor(&[("cookie", "xtype=insider; type=insiders")], false),
    visitor(&[("x-wingbeat-arm", "canary"), ("x-wingbeat-bucket", "9999")], false),
];

/// Returns the rules of the A/B scene: Safari, or the cookie of insiders.
pub fn rules() -> [EntryInput; 2] {
    [("user-agent", SAFARI), ("cookie", INSIDER)].map(|(header, regex)| {
        let test = StringMatch { regex: Some(regex.to_owned()), ..StringMatch::default() };
        EntryInput { headers: [(header.to_owned(), test)].into(), ..EntryInput::default() }
    })
}

const fn visitor(headers: &'static [(&'static str, &'static str)], matches: bool) -> Visitor {
    Visitor { headers, matches, tester: false }
}

#[cfg(test)]
mod tests {
    use wingbeat_core::matching::request::Request;
    use wingbeat_core::matching::rule::Entries;

    use super::*;

    #[test]
    fn the_audience_knows_who_matches() {
        let rules = Entries::try_new(&rules()).unwrap();
        for visitor in AUDIENCE {
            let pairs = visitor.headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
            assert_eq!(rules.first_match(&Request::from_pairs(pairs)).is_some(), visitor.matches, "{visitor:?}");
        }
    }
}
