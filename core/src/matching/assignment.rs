//! How requests of one host find their arm before they are routed.

use alloc::string::String;

use super::bucket::{BUCKETS, bucket};
use super::request::Request;
use super::rule::Rules;
use crate::weight::BasisPoints;

/// Request header that A/B routes match on. Its value is the rollout's token, which clients do not know.
pub const ARM_HEADER: &str = "x-wingbeat-arm";
/// Request header that picks a bucket of a weighted split.
pub const BUCKET_HEADER: &str = "x-wingbeat-bucket";

/// How requests find their arm. Where there is none, routes decide by chance.
#[derive(Debug, Clone)]
pub enum Assignment {
    /// Those that match get the canary.
    Rules {
        /// Which ones match.
        rules: Rules,
        /// The value of the arm header.
        token: String,
        /// This share of them stays with the primary, by chance: what the canary can fairly be compared with (P12).
        holdback: BasisPoints,
    },
    /// Users keep their arm.
    Users {
        /// Where a request names its user.
        identity: Identity,
        /// Key of the hash: another one in every rollout.
        key: u64,
    },
}

/// Where a request names its user.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Identity {
    /// In this cookie.
    Cookie(String),
    /// In this header; its name is in lower case.
    Header(String),
}

/// What a request is marked with for the routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RouteMark<'a> {
    /// The arm header with this value: the canary.
    Canary(&'a str),
    /// No arm header: the primary, since no rule matches.
    Primary,
    /// No arm header, though a rule matches: the primary, to be compared with the canary.
    HeldBack,
    /// The bucket header with this number.
    Bucket(u64),
    /// No bucket header: a user without a name gets an arm by chance.
    Unassigned,
}

impl Assignment {
    /// Returns the mark of a request. `draw` is an evenly distributed random number.
    pub fn mark(&self, request: &Request, draw: u64) -> RouteMark<'_> {
        match self {
            Self::Rules { rules, token, holdback } => match rules.first_match(request) {
                Some(_) if draw % BUCKETS < u64::from(holdback.get()) => RouteMark::HeldBack,
                Some(_) => RouteMark::Canary(token),
                None => RouteMark::Primary,
            },
            Self::Users { identity, key } => match identity.of(request) {
                Some(user) => RouteMark::Bucket(bucket(*key, user)),
                None => RouteMark::Unassigned,
            },
        }
    }

    /// Returns true if only a part of the primary's requests may be compared with the canary's.
    pub const fn holds_back(&self) -> bool {
        match self {
            Self::Rules { holdback, .. } => !holdback.is_zero(),
            Self::Users { .. } => false,
        }
    }
}

impl Identity {
    /// Returns the user's name in a request; an empty one is none.
    fn of<'a>(&'a self, request: &'a Request) -> Option<&'a [u8]> {
        let found = match self {
            Self::Cookie(name) => request.cookie(name),
            Self::Header(name) => {
                let mut values = request.headers.iter().filter(|(header, _)| header.eq_ignore_ascii_case(name));
                values.next().map(|(_, value)| value.as_slice())
            }
        };
        found.filter(|user| !user.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString as _;
    use alloc::vec;

    use super::*;
    use crate::matching::pattern::Pattern;
    use crate::matching::rule::{Condition, Entries, Subject};

    fn with(name: &str, value: &[u8]) -> Request {
        Request { headers: vec![(name.to_string(), value.to_vec())], ..Request::default() }
    }

    fn insiders(holdback: BasisPoints) -> Assignment {
        let subject = Subject::Header("x-group".to_string());
        let insider = Condition { subject, pattern: Pattern::Exact(b"insider".to_vec()), ignore_case: false };
        let rules = Rules { served: Entries::default(), canary: Entries::new(vec![vec![insider]]) };
        Assignment::Rules { rules, token: "t".to_string(), holdback }
    }

    #[test]
    fn who_matches_gets_the_canary_but_for_those_held_back() {
        let division = insiders(BasisPoints::ZERO);
        assert_eq!(division.mark(&with("x-group", b"insider"), 0), RouteMark::Canary("t"));
        assert_eq!(division.mark(&with("x-group", b"others"), 0), RouteMark::Primary);
        let division = insiders(BasisPoints::from_percent(10));
        let marks = (0..BUCKETS).map(|draw| division.mark(&with("x-group", b"insider"), draw));
        assert_eq!(marks.filter(|mark| *mark == RouteMark::HeldBack).count(), 1_000);
        assert_eq!(division.mark(&with("x-group", b"others"), 0), RouteMark::Primary, "never one that does not match");
    }

    #[test]
    fn users_are_named_by_a_cookie_or_a_header() {
        let by_cookie = Assignment::Users { identity: Identity::Cookie("uid".to_string()), key: 1 };
        let by_header = Assignment::Users { identity: Identity::Header("x-user".to_string()), key: 1 };
        let alice = RouteMark::Bucket(bucket(1, b"alice"));
        assert_eq!(by_cookie.mark(&with("cookie", b"a=b; uid=alice"), 0), alice);
        assert_eq!(by_header.mark(&with("X-User", b"alice"), 0), alice);
        assert_eq!(by_cookie.mark(&with("cookie", b"uid="), 0), RouteMark::Unassigned);
        assert_eq!(by_header.mark(&with("cookie", b"uid=alice"), 0), RouteMark::Unassigned);
    }
}
