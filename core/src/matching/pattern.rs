//! Patterns: tests of one value, ready to run.
//!
//! A regex is a combination of sparse automata, which run in time linear in the value, without allocation and
//! without `std`: the filter runs the same code as everyone else. They are made where there is time, by
//! [`Regex::compile`] (feature `compile`), and travel as bytes.

use alloc::vec::Vec;

use regex_automata::dfa::Automaton as _;
use regex_automata::dfa::sparse::DFA;
use regex_automata::{Anchored, Input};

/// The form of automata in bytes. Raised with every version of `regex-automata` that writes another one; a filter
/// that reads another form is not sent any.
pub const AUTOMATON_FORMAT: u32 = 1;
/// Largest automaton, in bytes: a filter has to carry it.
pub const MAX_AUTOMATON_BYTES: usize = 64 * 1_024;

/// A test of one value.
#[derive(Debug, Clone)]
pub enum Pattern {
    /// The value is there, whatever it is.
    Present,
    /// The value is this.
    Exact(Vec<u8>),
    /// The value begins with this.
    Prefix(Vec<u8>),
    /// The value ends with this.
    Suffix(Vec<u8>),
    /// The whole value matches.
    Regex(Regex),
}

/// A compiled regex: automata that must accept the value, and such that must not.
#[derive(Debug, Clone)]
pub struct Regex {
    all: Vec<Automaton>,
    none: Vec<Automaton>,
}

/// One automaton. It accepts or refuses a value as a whole.
#[derive(Debug, Clone)]
pub struct Automaton(DFA<Vec<u8>>);

/// Bytes that are no automaton.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} bytes are no automaton of format {AUTOMATON_FORMAT}")]
pub struct NoAutomaton(usize);

impl Pattern {
    /// Returns true if the value passes.
    pub fn matches(&self, value: &[u8], ignore_case: bool) -> bool {
        let same = |a: &[u8], b: &[u8]| if ignore_case { a.eq_ignore_ascii_case(b) } else { a == b };
        match self {
            Self::Present => true,
            Self::Exact(text) => same(value, text),
            Self::Prefix(text) => value.get(..text.len()).is_some_and(|start| same(start, text)),
            Self::Suffix(text) => {
                let start = value.len().checked_sub(text.len());
                start.and_then(|start| value.get(start..)).is_some_and(|end| same(end, text))
            }
            Self::Regex(regex) => regex.matches(value),
        }
    }

    /// Returns how many bytes of automata it has.
    pub fn size(&self) -> usize {
        match self {
            Self::Regex(regex) => regex.size(),
            Self::Present | Self::Exact(_) | Self::Prefix(_) | Self::Suffix(_) => 0,
        }
    }
}

impl Regex {
    /// Returns a regex of these automata: every one of `all` must accept, none of `none` may.
    pub const fn new(all: Vec<Automaton>, none: Vec<Automaton>) -> Self {
        Self { all, none }
    }

    /// Returns true if the whole value matches. Linear in its length.
    pub fn matches(&self, value: &[u8]) -> bool {
        self.all.iter().all(|automaton| automaton.accepts(value))
            && !self.none.iter().any(|automaton| automaton.accepts(value))
    }

    /// Returns the automata that must accept.
    pub fn all(&self) -> &[Automaton] {
        &self.all
    }

    /// Returns the automata that must not.
    pub fn none(&self) -> &[Automaton] {
        &self.none
    }

    /// Returns the size of all automata, in bytes.
    pub fn size(&self) -> usize {
        self.all.iter().chain(&self.none).map(|automaton| automaton.0.memory_usage()).sum()
    }
}

impl Automaton {
    /// Reads an automaton. The bytes may come from anywhere: they are checked, and what passes cannot make a search
    /// panic or run on.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, NoAutomaton> {
        let wrong = NoAutomaton(bytes.len());
        if bytes.len() > MAX_AUTOMATON_BYTES {
            return Err(wrong);
        }
        let (dfa, read) = DFA::from_bytes(bytes).map_err(|_| wrong)?;
        if read == bytes.len() { Ok(Self(dfa.to_owned())) } else { Err(wrong) }
    }

    /// Returns the automaton as bytes, little-endian.
    #[cfg(feature = "compile")]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.to_bytes_little_endian()
    }

    #[cfg(feature = "compile")]
    pub(super) const fn new(dfa: DFA<Vec<u8>>) -> Self {
        Self(dfa)
    }

    fn accepts(&self, value: &[u8]) -> bool {
        let input = Input::new(value).anchored(Anchored::Yes);
        // Without Unicode there is no byte at which the search gives up.
        matches!(self.0.try_search_fwd(&input), Ok(Some(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_tests_and_their_case() {
        assert!(Pattern::Prefix(b"/v1".to_vec()).matches(b"/v1/x", false));
        assert!(!Pattern::Prefix(b"/v1/long".to_vec()).matches(b"/v1", false));
        assert!(Pattern::Suffix(b".PNG".to_vec()).matches(b"/a.png", true));
        assert!(!Pattern::Suffix(b".PNG".to_vec()).matches(b"/a.png", false));
        assert!(Pattern::Exact(b"\xff".to_vec()).matches(b"\xff", false));
        assert!(Pattern::Present.matches(b"", false));
    }

    #[test]
    fn any_bytes_may_come_for_an_automaton() {
        let regex = Regex::compile(r"^(.*?;)?(type=insider)(;.*)?$").unwrap();
        let good = regex.all()[0].to_bytes();
        assert!(Automaton::from_bytes(&good).is_ok_and(|read| read.accepts(b"a=b;type=insider")));
        assert!(Automaton::from_bytes(&[]).is_err());
        assert!(Automaton::from_bytes(&good[..good.len() - 1]).is_err());
        assert!(Automaton::from_bytes(&[&good[..], b"x"].concat()).is_err());
        assert!(Automaton::from_bytes(&alloc::vec![0; MAX_AUTOMATON_BYTES + 1]).is_err());
        // Whatever a byte is changed to, reading and running it ends.
        for place in 0..good.len() {
            let mut bad = good.clone();
            bad[place] ^= 0x55;
            if let Ok(read) = Automaton::from_bytes(&bad) {
                read.accepts(b"type=insider; a=b");
            }
        }
    }
}
