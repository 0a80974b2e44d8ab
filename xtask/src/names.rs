//! What things are called: a reader who knows Envoy, Kubernetes and statistics must not have to learn a dialect.
//!
//! Names of modules, types, variants, public functions and constants are taken apart into their words. Some words are
//! refused, each with the terms that the field has instead: see [`DIALECT`] and `docs/adr/0012-language.md`.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context as _, bail};

use crate::constants::is_of_product;
use crate::lengths::Source;

/// The decision, with the list of what was renamed.
const DECISION: &str = "docs/adr/0012-language.md";

/// Words that no name has, and what to say instead.
///
/// They are of four kinds. Verbs of a tale: somebody hears, tells, says, sees, remembers, weighs or wakes, where the field
/// observes, publishes, records, evaluates and schedules. Nouns of a picture (a board, a roster, a seat, a voice), which say
/// nothing to who does not know the picture. Pronouns and adverbs, which need a sentence around them (whose, elsewhere,
/// alone, together). And bounds that are no `MAX_` or `MIN_`
/// (most, longest, enough): a constant is found by what it bounds.
const DIALECT: [(&[&str], &str); 26] = [
    (&["hear", "heard", "hears", "hearing", "unheard"], "observe, intake, unknown"),
    (&["tell", "tells", "told", "telling"], "publish, emit, report, an event"),
    (&["say", "says", "said", "saying", "speak", "speaks", "spoken"], "report, emit, reply"),
    (&["saw", "seen", "looks", "looked", "look"], "observe, evaluate, inspect, check"),
    (&["remember", "remembers", "remembered"], "append, record, cache"),
    (&["weigh", "weighs", "weighed"], "evaluate"),
    (&["wake", "wakes", "woken"], "attach, notify, next_timeout"),
    (&["reckon", "reckons", "reckoned", "imagine", "imagined"], "estimate, counterfactual"),
    (&["accuse", "accused", "loud", "loudest"], "reason, dominant"),
    (&["whose", "whom", "who"], "owner, target, class"),
    (&["elsewhere", "surroundings"], "foreign, context"),
    (&["happened", "happening", "became", "news"], "event, outcome, changes"),
    (&["voice", "voices", "voiceless"], "source"),
    (&["seat", "seats", "seated", "manned"], "node group, quorum"),
    (&["word", "words"], "verdict, messages, text"),
    (&["board", "trouble", "troubles"], "status, blocker"),
    (&["roster", "memoir", "course"], "canaries, journal, simulation"),
    (&["dormant", "crowd", "crowded"], "unconfigured, and what there are many of"),
    (&["soft", "decisive"], "relative, threshold"),
    (&["astray"], "skewed"),
    (&["alone", "together", "nobody", "anybody", "somebody"], "single, batched, none"),
    (&["most", "longest", "largest", "deepest", "farthest"], "max"),
    (&["least", "shortest", "smallest"], "min"),
    (&["enough", "so"], "min, or what is enough for what"),
    (&["patience", "again"], "timeout, retry"),
    (&["taking", "stepping"], "transition, apply"),
];

/// Names of variants that are booleans in disguise, and what to say instead.
const BOOLEANS: ([&str; 2], &str) = (["Yes", "No"], "what is true, and what is true otherwise");

/// Something that has a name, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    line: usize,
    name: String,
}

/// Fails if names of the product have words of the dialect, and names them.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let (_, refused) = names(root)?;
    if !refused.is_empty() {
        bail!("{}\nsee {DECISION}", refused.join("\n"));
    }
    Ok(())
}

/// Returns how many names there are, and the complaints about them.
pub(crate) fn names(root: &Path) -> anyhow::Result<(usize, Vec<String>)> {
    let sources = Source::all(root)?;
    let (mut count, mut refused) = (0, Vec::new());
    for source in sources.iter().filter(|source| is_of_product(&source.path) && !source.is_of_tests()) {
        let path = source.path.display();
        let module = module(&source.path).map(|name| Named { line: 1, name: name.to_owned() });
        for named in module.into_iter().chain(declared(&source.text)) {
            count += 1;
            if let Some((word, instead)) = dialect(&named.name) {
                refused.push(format!("{path}:{}: {}: instead of \"{word}\": {instead}", named.line, named.name));
            }
        }
    }
    Ok((count, refused))
}

/// Returns the list of the decision: what was renamed, and those of the new names that are not declared any more.
pub(crate) fn renamed(root: &Path) -> anyhow::Result<(usize, Vec<String>)> {
    let text = std::fs::read_to_string(root.join(DECISION)).with_context(|| format!("cannot read {DECISION}"))?;
    let list = rows(&text);
    let mut declared_names = BTreeSet::new();
    for source in Source::all(root)?.iter().filter(|source| is_of_product(&source.path)) {
        declared_names.extend(module(&source.path).map(str::to_owned));
        declared_names.extend(every_name(&source.text));
    }
    let missing = list.iter().filter(|(_, became)| !declared_names.contains(*became));
    Ok((list.len(), missing.map(|(was, became)| format!("{was} → {became}")).collect()))
}

/// Returns the rows of all tables, as pairs of names.
fn rows(text: &str) -> Vec<(&str, &str)> {
    let cells = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | `"));
    cells.filter_map(|(was, rest)| Some((was, rest.split_once('`')?.0))).collect()
}

/// Returns the module that a file is.
fn module(path: &Path) -> Option<&str> {
    path.file_stem().and_then(std::ffi::OsStr::to_str).filter(|stem| !matches!(*stem, "lib" | "main" | "mod"))
}

/// Returns the names that a text declares: modules, types, variants, constants, and functions that others can call. Tests
/// at its end aside.
fn declared(text: &str) -> Vec<Named> {
    let mut found = Vec::new();
    let mut in_enum = false;
    for (number, line) in (1..).zip(text.lines()).take_while(|(_, line)| *line != "#[cfg(test)]") {
        let name = match item(line) {
            Some((keyword, name)) => {
                in_enum = (keyword == "enum" && line.ends_with('{')) || (in_enum && line.starts_with(' '));
                let is_called_here_only = keyword == "fn" && !line.trim_start().starts_with("pub");
                (!is_called_here_only).then_some(name)
            }
            None => {
                in_enum &= !line.starts_with('}');
                if in_enum { variant(line) } else { None }
            }
        };
        found.extend(name.map(|name| Named { line: number, name: name.to_owned() }));
    }
    found
}

/// Returns the same with private functions and fields: what a new name may be.
fn every_name(text: &str) -> BTreeSet<String> {
    let fields = text.lines().filter_map(|line| {
        let (name, _) = visible(line.trim_start()).split_once(": ")?;
        name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_').then(|| name.to_owned())
    });
    let items = text.lines().filter_map(|line| item(line).map(|(_, name)| name.to_owned()));
    fields.chain(items).chain(declared(text).into_iter().map(|named| named.name)).collect()
}

/// Returns what is left of a line without its visibility.
fn visible(code: &str) -> &str {
    let Some(rest) = code.strip_prefix("pub") else { return code };
    match rest.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        Some((_, rest)) => rest.trim_start(),
        None => rest.trim_start(),
    }
}

/// Returns the keyword and the name of the item that a line declares.
fn item(line: &str) -> Option<(&str, &str)> {
    let mut code = visible(line.trim_start());
    loop {
        let (keyword, rest) = code.split_once(' ')?;
        let name = rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().filter(|name| !name.is_empty());
        match keyword {
            "struct" | "enum" | "trait" | "type" | "mod" | "fn" | "static" => return name.map(|name| (keyword, name)),
            "const" if !matches!(name, Some("fn" | "unsafe")) => {
                return name.filter(|name| *name != "_").map(|name| (keyword, name));
            }
            "const" | "async" | "unsafe" => code = rest,
            _ => return None,
        }
    }
}

/// Returns the variant that a line of an enum declares.
fn variant(line: &str) -> Option<&str> {
    let code = line.strip_prefix("    ").filter(|code| code.starts_with(|c: char| c.is_ascii_uppercase()))?;
    code.split(|c: char| !c.is_ascii_alphanumeric()).next()
}

/// Returns the first word of a name that is of the dialect, and what to say instead.
fn dialect(name: &str) -> Option<(String, &'static str)> {
    let (booleans, instead) = BOOLEANS;
    if booleans.contains(&name) {
        return Some((name.to_owned(), instead));
    }
    words(name).into_iter().find_map(|word| {
        let (_, instead) = DIALECT.iter().find(|(refused, _)| refused.contains(&word.as_str()))?;
        Some((word, *instead))
    })
}

/// Takes a name apart, whatever its case.
fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = vec![String::new()];
    let mut before = '_';
    for c in name.chars() {
        if c == '_' || (c.is_ascii_uppercase() && !before.is_ascii_uppercase()) {
            words.push(String::new());
        }
        if c != '_'
            && let Some(word) = words.last_mut()
        {
            word.push(c.to_ascii_lowercase());
        }
        before = c;
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_whatever_their_case() {
        for (name, parts) in [
            ("has_become_alone", &["has", "become", "alone"][..]),
            ("MOST_VOICES", &["most", "voices"]),
            ("WhoseVoice", &["whose", "voice"]),
            ("Seat", &["seat"]),
        ] {
            assert_eq!(words(name), parts, "{name}");
        }
    }

    #[test]
    fn every_word_of_the_dialect_is_refused_wherever_a_name_has_it() {
        for word in DIALECT.iter().flat_map(|(refused, _)| refused.iter()) {
            let capital =
                format!("{}{}", word.get(..1).unwrap_or_default().to_uppercase(), word.get(1..).unwrap_or(""));
            let text = format!(
                "mod {word};\npub(crate) enum Of{capital} {{\n    {capital}(u8),\n}}\npub async fn do_{word}() {{}}\n\
                 const {}_BOUND: u8 = 1;\n",
                word.to_uppercase()
            );
            let lines: Vec<usize> =
                declared(&text).iter().filter(|named| dialect(&named.name).is_some()).map(|named| named.line).collect();
            assert_eq!(lines, [1, 2, 3, 5, 6], "{word}");
        }
    }

    #[test]
    fn booleans_in_disguise_are_refused() {
        assert!(dialect("Yes").is_some() && dialect("No").is_some());
        assert_eq!(dialect("NoData"), None);
    }

    #[test]
    fn what_only_its_file_knows_and_tests_are_not_asked() {
        let text = "fn tell() {}\nstruct Told {\n    said: u8,\n}\nimpl Told {\n    pub const fn heard(self) {}\n}\n\
                    let so = Yes;\n#[cfg(test)]\nmod told {}\n";
        let named: Vec<String> = declared(text).into_iter().map(|named| named.name).collect();
        assert_eq!(named, ["Told", "heard"]);
    }

    #[test]
    fn a_name_that_contains_such_a_word_and_is_another_is_fine() {
        for name in ["Foretold", "seating", "wordless", "MAX_ALMOST", "NodeGroup", "not_a_number"] {
            assert_eq!(dialect(name), None, "{name}");
        }
    }

    #[test]
    fn rows_of_the_decision_are_pairs_of_names() {
        let text = "| was | became | where |\n|---|---|---|\n| `Seat` | `NodeGroup` | core |\n| not code | `X` | |\n";
        assert_eq!(rows(text), [("Seat", "NodeGroup")]);
        let declared = every_name("pub(crate) struct NodeGroup;\n    pub(super) config: u8,\nfn private() {}\n");
        assert!(["NodeGroup", "config", "private"].iter().all(|name| declared.contains(*name)), "{declared:?}");
    }
}
