//! Compiles regexes to automata.
//!
//! What the syntax of automata lacks is look-around; the one use of it that the field knows, look-ahead at the very
//! beginning (`^(?!.*Chrome)(?=.*\bSafari\b).*$`), is a boolean combination of whole patterns and compiled as that.
//! `\b`, `\d`, `\w` are ASCII, `.` is any byte but a newline.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use regex_automata::dfa::dense;
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;

use regex_syntax::hir::{Hir, HirKind};

use super::pattern::{Automaton, MAX_AUTOMATON_BYTES, Regex};

/// Longest pattern, in bytes.
pub const MAX_PATTERN_LEN: usize = 1_024;
/// Largest program of a pattern that proxies run themselves, in states of an automaton of bytes. Envoys with our bootstrap
/// take about as many instructions ten times over, which is more than RE2 makes of them.
pub const MAX_RE2_PROGRAM_SIZE: usize = 10_000;
/// Most repetitions of one thing, all braces around it multiplied, that RE2 takes.
const MAX_REPETITIONS: u64 = 1_000;
/// What determinising may use: a pattern whose automaton explodes is found out in milliseconds.
const MAX_DETERMINIZE_BYTES: usize = 1_024 * 1_024;

impl Regex {
    /// Compiles a pattern; the error says what is wrong with it and what would be right.
    pub fn compile(pattern: &str) -> Result<Self, String> {
        if pattern.len() > MAX_PATTERN_LEN {
            return Err(format!("is {} bytes long, write at most {MAX_PATTERN_LEN}", pattern.len()));
        }
        if pattern.contains('\u{8}') {
            return Err("holds a backspace, which is what YAML makes of \\b in double quotes: use single quotes".into());
        }
        let (mut all, mut none) = (Vec::new(), Vec::new());
        let rest = match ahead(pattern)? {
            Some((lookaheads, rest)) => {
                for (positive, inner) in lookaheads {
                    // What is looked at ahead may be followed by anything.
                    let automaton = determinise(&format!("(?:{inner})(?s:.*)"))?;
                    if positive { all.push(automaton) } else { none.push(automaton) }
                }
                rest
            }
            None => pattern,
        };
        all.push(determinise(rest)?);
        Ok(Self::new(all, none))
    }
}

/// Checks a pattern that proxies run themselves, by RE2, and returns how many groups it captures; the error says what
/// is wrong with it.
pub fn captures(pattern: &str) -> Result<usize, String> {
    if pattern.len() > MAX_PATTERN_LEN {
        return Err(format!("is {} bytes long, write at most {MAX_PATTERN_LEN}", pattern.len()));
    }
    let parsed = parse(pattern).map_err(|told| {
        if told.starts_with("has look-around") { "has look-around, which Envoy cannot run here".into() } else { told }
    })?;
    if repetitions(&parsed) > MAX_REPETITIONS {
        return Err(format!(
            "repeats something more than {MAX_REPETITIONS} times, which Envoy does not take: repeat less"
        ));
    }
    let config = thompson::Config::new().utf8(false).nfa_size_limit(Some(MAX_DETERMINIZE_BYTES));
    let built = thompson::Compiler::new().configure(config).build_from_hir(&parsed);
    if built.is_ok_and(|nfa| nfa.states().len() <= MAX_RE2_PROGRAM_SIZE) {
        return Ok(parsed.properties().explicit_captures_len());
    }
    Err(format!("makes a program of more than {MAX_RE2_PROGRAM_SIZE} steps: make it shorter, or repeat less"))
}

/// Returns how often something is repeated at most, by numbers in braces.
fn repetitions(hir: &Hir) -> u64 {
    match hir.kind() {
        HirKind::Repetition(repeated) => {
            let times = repeated.max.unwrap_or(repeated.min).max(1);
            u64::from(times).saturating_mul(repetitions(&repeated.sub))
        }
        HirKind::Capture(capture) => repetitions(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().map(repetitions).max().unwrap_or(1),
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => 1,
    }
}

/// One look-ahead: whether it must match, and its pattern.
type Lookahead<'a> = (bool, &'a str);

/// Splits look-ahead off the beginning of a pattern, if it begins so.
fn ahead(pattern: &str) -> Result<Option<(Vec<Lookahead<'_>>, &str)>, String> {
    let mut rest = pattern.strip_prefix('^').unwrap_or(pattern);
    let mut lookaheads = Vec::new();
    loop {
        let (positive, inside) = match (rest.strip_prefix("(?="), rest.strip_prefix("(?!")) {
            (Some(inside), _) => (true, inside),
            (None, Some(inside)) => (false, inside),
            (None, None) => break,
        };
        let Some(end) = closing(inside) else { return Err("has a parenthesis that is not closed".into()) };
        let (inner, after) = inside.split_at_checked(end).unwrap_or((inside, ""));
        lookaheads.push((positive, inner));
        rest = after.strip_prefix(')').unwrap_or(after);
    }
    if lookaheads.is_empty() {
        return Ok(None);
    }
    if has_alternatives(rest) {
        return Err("has look-ahead in one of several alternatives: write one pattern for each".into());
    }
    Ok(Some((lookaheads, rest)))
}

/// Returns the place of the parenthesis that closes what begins here.
fn closing(text: &str) -> Option<usize> {
    let mut walk = Walk::default();
    text.bytes().position(|byte| walk.step(byte) < 0)
}

/// Returns true for `a|b`, outside of parentheses.
fn has_alternatives(text: &str) -> bool {
    let mut walk = Walk::default();
    text.bytes().any(|byte| {
        let outside = walk.depth == 0 && !walk.in_class && !walk.escaped;
        walk.step(byte);
        outside && byte == b'|'
    })
}

/// A walk through a pattern that knows what is escaped or in a class.
#[derive(Default)]
struct Walk {
    depth: i32,
    in_class: bool,
    escaped: bool,
}

impl Walk {
    /// Returns how many parentheses are open after this byte.
    const fn step(&mut self, byte: u8) -> i32 {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' => self.escaped = true,
            b'[' if !self.in_class => self.in_class = true,
            b']' if self.in_class => self.in_class = false,
            b'(' if !self.in_class => self.depth = self.depth.saturating_add(1),
            b')' if !self.in_class => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        self.depth
    }
}

/// Compiles a pattern without look-around to an automaton that accepts whole values.
fn determinise(pattern: &str) -> Result<Automaton, String> {
    // On its own first: `a)|(b` must not become whole by what is put around it.
    parse(pattern)?;
    let built = dense::Builder::new()
        .syntax(syntax::Config::new().unicode(false).utf8(false))
        .thompson(thompson::Config::new().utf8(false).nfa_size_limit(Some(MAX_DETERMINIZE_BYTES)))
        .configure(
            dense::Config::new()
                .start_kind(regex_automata::dfa::StartKind::Anchored)
                .dfa_size_limit(Some(MAX_DETERMINIZE_BYTES))
                .determinize_size_limit(Some(MAX_DETERMINIZE_BYTES)),
        )
        .build(&format!(r"(?:{pattern})\z"));
    let too_large = || "has too many cases to keep apart: make it shorter, or less of `{n}` after `*`".to_string();
    let sparse = built.map_err(|_| too_large())?.to_sparse().map_err(|_| too_large())?;
    if sparse.memory_usage() > MAX_AUTOMATON_BYTES {
        return Err(too_large());
    }
    Ok(Automaton::new(sparse))
}

fn parse(pattern: &str) -> Result<Hir, String> {
    let mut parser = regex_syntax::ParserBuilder::new().unicode(false).utf8(false).build();
    parser.parse(pattern).map_err(|error| refused(&error))
}

fn refused(error: &regex_syntax::Error) -> String {
    let text = error.to_string();
    if text.contains("look-around") {
        return "has look-around that is not at the beginning, which no proxy can run in bounded time".into();
    }
    if text.contains("backreference") {
        return "has a back-reference, which no proxy can run in bounded time".into();
    }
    // The last line of the parser's message is what is wrong; those before draw the pattern.
    let last = text.lines().last().unwrap_or_default();
    format!("is no regex: {}", last.strip_prefix("error: ").unwrap_or(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regex_matches_the_whole_value() {
        let matches = |pattern: &str, value: &[u8]| Regex::compile(pattern).unwrap().matches(value);
        assert!(matches("a|ab", b"ab"));
        assert!(!matches("a|ab", b"abc"));
        assert!(!matches("bc", b"abc"));
        assert!(matches("^abc$", b"abc"));
        assert!(matches(r"\d+", b"42"));
        assert!(!matches("a.b", b"a\nb"));
        assert!(matches("a.b", b"a\xffb"), "any byte");
        assert!(matches(r".*\bSafari\b.*", b"x Safari/1"));
        assert!(matches("", b""));
    }

    #[test]
    fn look_ahead_at_the_beginning_is_a_combination() {
        let safari = Regex::compile(r"^(?!.*Chrome)(?=.*\bSafari\b).*$").unwrap();
        assert!(safari.matches(b"Mozilla/5.0 (Macintosh) AppleWebKit/605 Version/17 Safari/605"));
        assert!(!safari.matches(b"Mozilla/5.0 (X11) AppleWebKit/537 Chrome/120 Safari/537"));
        assert!(!safari.matches(b"Firefox"));
        assert!(safari.size() < 8 * 1_024, "{}", safari.size());
    }

    #[test]
    fn what_cannot_be_run_is_refused_with_a_reason() {
        for (pattern, says) in [
            ("a(?!b)c", "look-around that is not at the beginning"),
            (r"(a)\1", "back-reference"),
            ("(?!a)b|c", "one of several alternatives"),
            ("a)|(b", "is no regex"),
            ("(?=a", "not closed"),
            ("x\u{8}y", "backspace"),
            ("(a|b)*a(a|b){20}", "too many cases"),
        ] {
            let why = Regex::compile(pattern).unwrap_err();
            assert!(why.contains(says), "{pattern}: {why}");
        }
        assert!(Regex::compile(&"a".repeat(MAX_PATTERN_LEN + 1)).is_err());
    }

    #[test]
    fn groups_are_counted() {
        assert_eq!(captures("^/a/([^/]+)(?:/(.*))?$"), Ok(2));
        assert_eq!(captures("(?!a)b").unwrap_err(), "has look-around, which Envoy cannot run here");
        assert!(captures("(a").unwrap_err().contains("is no regex"));
    }

    #[test]
    fn what_proxies_do_not_take_is_found_before() {
        assert_eq!(captures(&format!("^/({})$", "[a-z0-9]+/".repeat(90))), Ok(1), "more than 100 instructions");
        assert_eq!(captures("a{1000}"), Ok(0));
        for (pattern, says) in [("a{1001}", "1000 times"), ("(a{100}){11}", "1000 times"), ("a{1001,}", "1000 times")] {
            let why = captures(pattern).unwrap_err();
            assert!(why.contains(says), "{pattern}: {why}");
        }
        let many = "[a-z]{1000}".repeat(20);
        assert!(captures(&many).unwrap_err().contains("10000 steps"));
    }
}
