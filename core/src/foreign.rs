//! Text that somebody outside chose: a proxy, a hook, a file, a browser.
//!
//! It ends in logs, terminals, pages and messages to people. So where it enters it is cut, and what a terminal or a
//! reader of lines would obey is escaped.

use alloc::format;
use alloc::string::String;
use core::fmt::{self, Write as _};

/// Text of others that can be written anywhere: on one line, of bounded length, and nothing in it acts on a terminal.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ForeignText(String);

impl ForeignText {
    /// Returns the first `longest` characters. What is cut off is said; what controls a terminal, ends a line or changes
    /// the direction of writing is escaped as in Rust's literals.
    pub fn new(text: &str, longest: usize) -> Self {
        let mut safe = String::with_capacity(text.len().min(longest));
        let mut left = text.chars();
        for character in left.by_ref().take(longest) {
            if acts(character) {
                safe.extend(character.escape_default());
            } else {
                safe.push(character);
            }
        }
        let cut = left.count();
        if cut > 0 {
            // Writing to a string cannot fail.
            let _written = write!(safe, "… ({cut} more)");
        }
        Self(safe)
    }

    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the text.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl fmt::Display for ForeignText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Returns true for a character that does something else than to be shown.
pub fn acts(character: char) -> bool {
    let separates_lines = matches!(character, '\u{2028}' | '\u{2029}');
    let directs = matches!(
        character,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
    );
    character.is_control() || separates_lines || directs
}

/// Returns why a text cannot name anything, if it cannot: it is longer than `longest` bytes, or has characters that do
/// something else than to be shown. `what` says what it was to name.
pub fn unfit_name(what: &str, name: &str, longest: usize) -> Option<String> {
    let length = name.len();
    if length > longest {
        return Some(format!("{what} has {length} bytes, at most {longest} are taken"));
    }
    let unfit = name.chars().find(|character| acts(*character))?;
    Some(format!("{what} has the character {}, which is not shown: leave it out", unfit.escape_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_is_escaped_and_what_is_long_is_cut() {
        for (text, longest, safe) in [
            ("edge-1", 10, "edge-1"),
            ("größe ✓", 10, "größe ✓"),
            ("a\nINFO forged", 20, "a\\nINFO forged"),
            ("\u{1b}[2J\u{9b}31m\u{7}", 20, "\\u{1b}[2J\\u{9b}31m\\u{7}"),
            ("evil\u{202e}txt.exe\u{2028}", 20, "evil\\u{202e}txt.exe\\u{2028}"),
            ("abcdef", 4, "abcd… (2 more)"),
            ("", 4, ""),
        ] {
            let once = ForeignText::new(text, longest);
            assert_eq!(once.as_str(), safe);
            assert_eq!(ForeignText::new(once.as_str(), 100), once, "safe text stays as it is");
        }
    }

    #[test]
    fn names_are_short_and_shown_as_they_are() {
        assert_eq!(unfit_name("the node's id", "sidecar~10.0.0.7~shop.prod~prod.svc", 256), None);
        let long = unfit_name("the node's id", &"e".repeat(300), 256).unwrap();
        assert_eq!(long, "the node's id has 300 bytes, at most 256 are taken");
        let forged = unfit_name("the node's id", "edge\nERROR", 256).unwrap();
        assert_eq!(forged, "the node's id has the character \\n, which is not shown: leave it out");
    }
}
