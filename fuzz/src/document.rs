//! Documents: whatever is written is read or refused, with the place and what would be right, in a time that grows with the
//! size.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use arbitrary::{Arbitrary, Unstructured};
use wingbeat_api::Set;
use wingbeat_api::files::{Files, InForce, Observation, Removal};
use wingbeat_api::yaml::{self, Node, Value};
use wingbeat_core::time::Timestamp;

const EXAMPLES: [&str; 3] = [
    include_str!("../../deploy/examples/backend.yaml"),
    include_str!("../../deploy/examples/gated.yaml"),
    include_str!("../../deploy/examples/insiders.yaml"),
];

/// What slips of the pen and attacks are made of.
const WORDS: [&str; 40] = [
    "0",
    "-1",
    "1e999",
    "NaN",
    "0x10",
    "5%",
    "100%",
    "101%",
    "1s",
    "-1s",
    "3.5s",
    "9999999999999h",
    "true",
    "null",
    "~",
    "\"\"",
    "{}",
    "[]",
    "*a",
    "&a ",
    "<<: ",
    "- ",
    "---\n",
    "? ",
    "|\n  ",
    "!!str ",
    "99999999999999999999",
    "é",
    "\u{202e}",
    "\u{1b}[31m",
    "http://[::1]:80/",
    "weighted",
    "sequential",
    "guard",
    "thresholds",
    "stepWeight: ",
    "spec:\n  ",
    "kind: Canary\n",
    "wingbeat.dev/v1alpha1",
    "\t",
];

/// A text of this many bytes is read within the time; twice as much is far more than any machine of CI needs.
const WITHIN: Duration = Duration::from_secs(3);
const LARGEST: usize = 64 * 1024;

#[derive(Debug, Arbitrary)]
enum Text {
    Raw,
    Edited {
        example: u8,
        edits: Vec<Edit>,
    },
    /// A piece many times over: what is quadratic shows.
    Repeated {
        head: u8,
        piece: [u8; 3],
        tail: u8,
    },
}

#[derive(Debug, Arbitrary)]
enum Edit {
    Drop { line: u8 },
    Double { line: u8 },
    Indent { line: u8 },
    Swap { line: u8, with: u8 },
    Value { line: u8, word: u8 },
    Insert { line: u8, word: u8 },
}

/// Reads a text.
#[expect(clippy::disallowed_methods, reason = "what is read must be read in time")]
pub(crate) fn run(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let text = match Text::arbitrary(&mut input) {
        Ok(Text::Edited { example, edits }) => edited(example, edits),
        Ok(Text::Repeated { head, piece, tail }) => repeated(head, piece, tail),
        Ok(Text::Raw) | Err(_) => String::from_utf8_lossy(input.take_rest()).into_owned(),
    };
    let text = text.chars().take(LARGEST).collect::<String>();
    let began = Instant::now();
    read(&text);
    let took = began.elapsed();
    assert!(took < WITHIN, "{} bytes took {took:?}", text.len());
}

fn edited(example: u8, edits: Vec<Edit>) -> String {
    let example = EXAMPLES.get(usize::from(example) % EXAMPLES.len()).copied().unwrap_or_default();
    let mut lines: Vec<String> = example.lines().map(str::to_owned).collect();
    let word = |word: u8| WORDS.get(usize::from(word) % WORDS.len()).copied().unwrap_or_default();
    for edit in edits.into_iter().take(16) {
        let count = lines.len().max(1);
        let at = |line: u8| usize::from(line) % count;
        match edit {
            Edit::Drop { line } if at(line) < lines.len() => drop(lines.remove(at(line))),
            Edit::Double { line } => {
                let twice = lines.get(at(line)).cloned();
                lines.extend(twice);
            }
            Edit::Indent { line } => {
                lines.get_mut(at(line)).into_iter().for_each(|line| line.insert_str(0, "  "));
            }
            Edit::Swap { line, with } if at(line) < lines.len() && at(with) < lines.len() => {
                lines.swap(at(line), at(with));
            }
            Edit::Value { line, word: new } => {
                if let Some(line) = lines.get_mut(at(line)) {
                    let key = line.split_once(": ").map(|(key, _)| format!("{key}: "));
                    *line = key.unwrap_or_default() + word(new);
                }
            }
            Edit::Insert { line, word: new } => lines.insert(at(line).min(lines.len()), word(new).to_owned()),
            Edit::Drop { .. } | Edit::Swap { .. } => {}
        }
    }
    lines.join("\n")
}

fn repeated(head: u8, piece: [u8; 3], tail: u8) -> String {
    let word = |word: u8| WORDS.get(usize::from(word) % WORDS.len()).copied().unwrap_or_default();
    let mut text = word(head).to_owned();
    let mut number = 0_u32;
    while text.len() < LARGEST {
        number = number.saturating_add(1);
        for part in piece {
            text.push_str(word(part));
        }
        let _written = writeln!(text, "k{number}: {number}");
    }
    text + word(tail)
}

fn read(text: &str) {
    if let Ok(documents) = yaml::parse(text) {
        for document in &documents {
            comes_back(document);
        }
    }
    let texts = BTreeMap::from([("a.yaml".to_owned(), text.to_owned())]);
    // YAML has more line ends than Rust, and what is missing at the end is told on the line after it.
    let lines = text.matches(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count().saturating_add(2);
    for set in [Set::of(&texts), Set::lint(&texts)] {
        for problem in set.report.errors.iter().chain(&set.report.warnings) {
            assert_eq!(problem.file, "a.yaml");
            assert!((1..=lines).contains(&problem.line) && problem.column > 0, "no place: {problem:?}");
            let mend = problem.message.contains([',', ':', '?']);
            assert!(mend, "says not what would be right: {problem}");
            assert!(
                problem.message.len() <= text.len().saturating_add(2_000),
                "longer than what it is about: {problem}"
            );
        }
    }
    keeps_the_last_good(text);
}

/// A file that breaks takes nothing away.
fn keeps_the_last_good(text: &str) {
    let good: BTreeMap<String, String> =
        EXAMPLES.iter().enumerate().map(|(place, text)| (place.to_string(), (*text).to_owned())).collect();
    let (in_use, unresolved) = (BTreeMap::new(), BTreeMap::new());
    let mut files = Files::default();
    let mut update = |texts: &BTreeMap<String, String>| {
        let (absence, now) = (Removal::Deferred, Timestamp::EPOCH);
        let InForce { set, report, .. } =
            files.update(Observation { texts, in_use: &in_use, unresolved: &unresolved, absence, now });
        (set, report)
    };
    let (before, report) = update(&good);
    assert!(report.errors.is_empty(), "the examples are right: {:?}", report.errors);
    let mut changed = good;
    changed.insert("0".to_owned(), text.to_owned());
    let (after, report) = update(&changed);
    assert!(after.report.errors.is_empty(), "what is served is right: {:?}", after.report.errors);
    let kept = |place: usize| {
        let example = EXAMPLES.get(place).copied().unwrap_or_default();
        let texts = BTreeMap::from([("a".to_owned(), example.to_owned())]);
        let set = Set::of(&texts);
        set.canaries().all(|(name, _)| after.canaries().any(|(known, _)| known == name))
    };
    assert!((1..EXAMPLES.len()).all(kept), "a file takes away what others say: {:?}", report.errors);
    assert!(report.errors.is_empty() || before.canaries().count() == after.canaries().count(), "{:?}", report.errors);
}

/// What was read and is written again is read as the same.
fn comes_back(node: &Node) {
    let mut text = String::new();
    write_node(node, &mut text);
    let again = yaml::parse(&text).map(|documents| documents.into_iter().next());
    match again {
        Ok(Some(again)) => assert!(is_same(node, &again), "{node:?} comes back as {again:?}"),
        Ok(None) => assert!(node.is_null(), "{text} is lost"),
        Err(broken) => assert!(broken.why.is_empty(), "{text} is no YAML: {broken:?}"),
    }
}

fn write_node(node: &Node, text: &mut String) {
    match &node.value {
        Value::Scalar { text: scalar, .. } => quote(scalar, text),
        Value::Sequence(nodes) => {
            text.push('[');
            for node in nodes {
                write_node(node, text);
                text.push_str(", ");
            }
            text.push(']');
        }
        Value::Mapping(entries) => {
            text.push('{');
            for (name, _, node) in entries {
                text.push_str("? ");
                quote(name, text);
                text.push_str(" : ");
                write_node(node, text);
                text.push_str(", ");
            }
            text.push('}');
        }
    }
}

fn quote(scalar: &str, text: &mut String) {
    text.push('"');
    for char in scalar.chars() {
        let _written = match char {
            '"' | '\\' => write!(text, "\\{char}"),
            ' '..='~' => write!(text, "{char}"),
            other => write!(text, "\\U{:08x}", u32::from(other)),
        };
    }
    text.push('"');
}

fn is_same(one: &Node, other: &Node) -> bool {
    match (&one.value, &other.value) {
        (Value::Scalar { text: one, .. }, Value::Scalar { text: other, .. }) => one == other,
        (Value::Sequence(one), Value::Sequence(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| is_same(one, other))
        }
        (Value::Mapping(one), Value::Mapping(other)) => {
            let entry =
                |(one, other): (&(String, _, Node), &(String, _, Node))| one.0 == other.0 && is_same(&one.2, &other.2);
            one.len() == other.len() && one.iter().zip(other).all(entry)
        }
        (Value::Scalar { .. } | Value::Sequence(_) | Value::Mapping(_), _) => false,
    }
}
