//! From nodes to typed values, collecting everything that is wrong.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use url::Url;

use super::duration::parse_duration;
use super::platform::{Platform, Severity, Terms};
use super::problem::Problem;
use super::report::Report;
use super::shape::{ClusterUse, MAX_DURATION, Object, Support};
use super::yaml::{Node, Position, Value};

/// Nothing on its way to a user takes longer: [`MAX_DURATION`], a year.
const MAX_LIMIT: Duration = Duration::from_hours(8_760);

/// Decodes one document.
#[derive(Debug)]
pub(super) struct Decoder {
    file: String,
    /// What is an error and what a warning.
    pub(super) terms: Terms,
    pub(super) report: Report,
    /// Documents that this one names.
    pub(super) references: Vec<Reference>,
    /// Host names of endpoints, which may not resolve.
    pub(super) hosts: Vec<HostName>,
    /// Places of the fields that were read.
    places: BTreeMap<String, Position>,
}

/// A document that another one names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    /// Its kind.
    pub(super) kind: &'static str,
    /// Its namespace; none: that of who names it.
    pub(super) namespace: Option<String>,
    /// Its name.
    pub(super) name: String,
    /// Where it is named.
    pub(super) at: Position,
    /// The field that names it.
    pub(super) field: String,
    /// How bad it is if there is none.
    pub(super) missing: Severity,
}

/// A host name of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostName {
    /// The name.
    pub(super) name: String,
    /// Where it is.
    pub(super) at: Position,
    /// The field that holds it.
    pub(super) field: String,
}

/// The fields of a mapping that were not read yet.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    path: String,
    at: Position,
    left: BTreeMap<&'a str, (Position, &'a Node)>,
    /// What was asked for so far.
    known: Vec<&'static str>,
    shape: &'static Object,
}

impl Decoder {
    pub(super) fn new(file: &str, terms: Terms) -> Self {
        Self {
            file: file.to_owned(),
            terms,
            report: Report::default(),
            references: Vec::new(),
            hosts: Vec::new(),
            places: BTreeMap::new(),
        }
    }

    pub(super) fn wrong(&mut self, at: Position, field: &str, message: impl Into<String>) {
        let problem = self.problem(at, field, message.into());
        self.report.errors.push(problem);
    }

    pub(super) fn warn(&mut self, at: Position, field: &str, message: impl Into<String>) {
        let problem = self.problem(at, field, message.into());
        self.report.warnings.push(problem);
    }

    /// Tells of something that this server does not carry out: an error, unless another one may.
    pub(super) fn unsupported(&mut self, at: Position, field: &str, message: impl Into<String>) {
        self.say(self.terms.unsupported(), at, field, message);
    }

    /// Tells of something that makes no sense, and that Flagger takes.
    pub(super) fn slip(&mut self, at: Position, field: &str, message: impl Into<String>) {
        self.say(self.terms.slip(), at, field, message);
    }

    fn say(&mut self, severity: Severity, at: Position, field: &str, message: impl Into<String>) {
        match severity {
            Severity::Error => self.wrong(at, field, message),
            Severity::Warning => self.warn(at, field, message),
        }
    }

    /// Reads a text that names a document.
    pub(super) fn reference(&mut self, kind: &'static str, node: &Node, path: &str) -> Option<String> {
        let name = self.text(node, path)?;
        self.refer(kind, None, name.clone(), node.at, path);
        Some(name)
    }

    /// Reads a text that names a document of this namespace.
    pub(super) fn reference_in(
        &mut self,
        kind: &'static str,
        namespace: &str,
        node: &Node,
        path: &str,
    ) -> Option<String> {
        let name = self.text(node, path)?;
        self.refer(kind, Some(namespace.to_owned()), name.clone(), node.at, path);
        Some(name)
    }

    fn refer(&mut self, kind: &'static str, namespace: Option<String>, name: String, at: Position, field: &str) {
        let (field, missing) = (field.to_owned(), self.terms.unsupported());
        self.references.push(Reference { kind, namespace, name, at, field, missing });
    }

    fn problem(&self, at: Position, field: &str, message: String) -> Problem {
        Problem { file: self.file.clone(), line: at.line, column: at.column, field: field.to_owned(), message }
    }

    /// Returns the place of a field, or of the nearest one around it that was written.
    pub(super) fn place(&self, field: &str) -> Position {
        let mut path = field;
        loop {
            if let Some(place) = self.places.get(path) {
                return *place;
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = path.get(..end).unwrap_or_default(),
                None => return Position { line: 1, column: 1 },
            }
        }
    }

    /// Returns the fields of a mapping.
    pub(super) fn fields<'a>(&mut self, node: &'a Node, path: &str, shape: &'static Object) -> Option<Fields<'a>> {
        let left = self.mapping(node, path)?;
        Some(Fields { path: path.to_owned(), at: node.at, left, known: Vec::new(), shape })
    }

    /// Returns the entries of a mapping from names that the user chooses, with the places of the names.
    pub(super) fn entries<'a>(&mut self, node: &'a Node, path: &str) -> Vec<(&'a str, Position, &'a Node, String)> {
        let entries = self.mapping(node, path).unwrap_or_default().into_iter();
        entries.map(|(name, (at, node))| (name, at, node, join(path, name))).collect()
    }

    fn mapping<'a>(&mut self, node: &'a Node, path: &str) -> Option<BTreeMap<&'a str, (Position, &'a Node)>> {
        self.places.insert(path.to_owned(), node.at);
        let Value::Mapping(entries) = &node.value else {
            self.wrong(node.at, path, "is not a mapping, write its fields below it");
            return None;
        };
        let mut left: BTreeMap<&str, (Position, &Node)> = BTreeMap::new();
        for (name, at, value) in entries {
            if left.insert(name, (*at, value)).is_some() {
                self.wrong(*at, &join(path, name), "is there twice, keep one of them");
            }
        }
        Some(left)
    }

    /// Reports the fields that nobody asked for: those that have no effect here, and those that there are none of.
    pub(super) fn done(&mut self, mut fields: Fields<'_>) {
        let unread = fields.shape.fields.iter().filter(|field| field.support != Support::Full);
        fields.known.extend(unread.map(|field| field.name));
        for (name, (at, node)) in fields.left {
            let path = join(&fields.path, name);
            let shaped = fields.shape.field(name);
            let cluster_use =
                shaped.map(|field| field.cluster_use).filter(|_| self.terms.platform == Platform::Cluster);
            match shaped.map(|field| field.support) {
                Some(Support::Ignored(_)) if cluster_use == Some(ClusterUse::Objects) => {}
                Some(Support::Ignored(_)) if cluster_use == Some(ClusterUse::Ignored) => {
                    self.warn(at, &path, "has no effect yet".to_owned());
                }
                Some(Support::Ignored(why)) => self.warn(at, &path, format!("has no effect here: {why}")),
                Some(Support::Refused(said)) if !node.is_null() => self.unsupported(node.at, &path, said),
                Some(Support::Moot(_) | Support::Refused(_)) => {}
                Some(Support::Full) | None => {
                    let hint = match nearest(name, fields.known.iter().copied()) {
                        Some(near) => format!("did you mean {near}?"),
                        None => format!("the fields here are {}", fields.known.join(", ")),
                    };
                    self.slip(at, &path, format!("is unknown, {hint}"));
                }
            }
        }
    }

    pub(super) fn text(&mut self, node: &Node, path: &str) -> Option<String> {
        self.places.insert(path.to_owned(), node.at);
        let Value::Scalar { text, .. } = &node.value else {
            self.wrong(node.at, path, "is not a text, write one value");
            return None;
        };
        Some(text.clone())
    }

    pub(super) fn number(&mut self, node: &Node, path: &str) -> Option<i64> {
        let text = self.text(node, path)?;
        let number = text.parse().ok();
        if number.is_none() {
            self.wrong(node.at, path, format!("{text:?} is not a whole number, write one like 5"));
        }
        number
    }

    /// Reads a whole number within these bounds.
    pub(super) fn within(&mut self, node: &Node, path: &str, bounds: RangeInclusive<i64>) -> Option<i64> {
        let number = self.number(node, path)?;
        if bounds.contains(&number) {
            return Some(number);
        }
        let (low, high) = (bounds.start(), bounds.end());
        self.wrong(node.at, path, format!("{number} is out of range, use a number from {low} to {high}"));
        None
    }

    pub(super) fn float(&mut self, node: &Node, path: &str) -> Option<f64> {
        let text = self.text(node, path)?;
        let number = text.parse().ok().filter(|number: &f64| number.is_finite());
        if number.is_none() {
            self.wrong(node.at, path, format!("{text:?} is not a number, write one like 0.5"));
        }
        number
    }

    pub(super) fn truth(&mut self, node: &Node, path: &str) -> Option<bool> {
        match self.text(node, path)?.as_str() {
            "true" => Some(true),
            "false" => Some(false),
            text => {
                self.wrong(node.at, path, format!("{text:?} is not true or false"));
                None
            }
        }
    }

    /// Takes one of these words.
    pub(super) fn one_of<T: Copy>(&mut self, at: Position, path: &str, text: &str, values: &[(&str, T)]) -> Option<T> {
        let found = values.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        if found.is_none() {
            let names = values.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
            self.wrong(at, path, format!("there is no {text}, use one of {names}"));
        }
        found
    }

    pub(super) fn duration(&mut self, node: &Node, path: &str) -> Option<Duration> {
        let text = self.text(node, path)?;
        let duration = parse_duration(&text);
        if duration.is_none() {
            self.wrong(node.at, path, format!("{text:?} is not a duration, write one like 500ms, 10s or 1m30s"));
        }
        duration
    }

    /// Reads how long something may take. Envoy refuses routes with times beyond some centuries.
    pub(super) fn limit(&mut self, node: &Node, path: &str) -> Option<Duration> {
        let duration = self.duration(node, path)?;
        if duration > MAX_LIMIT {
            self.wrong(
                node.at,
                path,
                format!("is longer than a year, use at most {MAX_DURATION}, or leave it out for no limit"),
            );
            return None;
        }
        Some(duration)
    }

    /// Reads a URL of HTTP. It may hold secrets: errors do not repeat it.
    pub(super) fn url(&mut self, node: &Node, path: &str, like: &str) -> Option<Url> {
        let text = self.text(node, path)?;
        let url = Url::parse(&text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        if url.is_none() {
            self.wrong(node.at, path, format!("is not a URL of http or https, write one like {like}"));
        }
        url
    }

    /// Takes `0.1%` and returns 0.001.
    pub(super) fn percent(&mut self, node: &Node, path: &str) -> Option<f64> {
        let text = self.text(node, path)?;
        let number = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
        let share = number.filter(|number| (0.0..=100.0).contains(number)).map(|number| number / 100.0);
        if share.is_none() {
            self.wrong(node.at, path, format!("{text:?} is not a share, write one like 0.1%"));
        }
        share
    }

    pub(super) fn list<'a>(&mut self, node: &'a Node, path: &str) -> Vec<(&'a Node, String)> {
        self.places.insert(path.to_owned(), node.at);
        let Value::Sequence(items) = &node.value else {
            self.wrong(node.at, path, "is not a list, begin each entry with -");
            return Vec::new();
        };
        items.iter().enumerate().map(|(place, item)| (item, format!("{path}[{place}]"))).collect()
    }

    /// Reads a list that must not be empty.
    pub(super) fn some<'a>(&mut self, node: &'a Node, path: &str, mend: &str) -> Vec<(&'a Node, String)> {
        let listed = self.list(node, path);
        if node.is_empty_list() {
            self.wrong(node.at, path, format!("is empty, {mend}"));
        }
        listed
    }

    pub(super) fn texts(&mut self, node: &Node, path: &str) -> Vec<String> {
        self.list(node, path).into_iter().filter_map(|(item, path)| self.text(item, &path)).collect()
    }

    pub(super) fn text_map(&mut self, node: &Node, path: &str) -> BTreeMap<String, String> {
        let entries = self.entries(node, path).into_iter();
        entries.filter_map(|(name, _, node, path)| Some((name.to_owned(), self.text(node, &path)?))).collect()
    }
}

impl<'a> Fields<'a> {
    /// Returns a field with its path, unless it is absent or null.
    pub(super) fn take(&mut self, name: &'static str) -> Option<(&'a Node, String)> {
        self.known.push(name);
        let (_, node) = self.left.remove(name)?;
        (!node.is_null()).then(|| (node, join(&self.path, name)))
    }

    /// Returns a field that must be there.
    pub(super) fn need(&mut self, name: &'static str, mend: &str, decoder: &mut Decoder) -> Option<(&'a Node, String)> {
        let taken = self.take(name);
        if taken.is_none() {
            decoder.wrong(self.at, &join(&self.path, name), format!("is missing, {mend}"));
        }
        taken
    }

    /// Returns a field that must be there if plain Envoy is to carry it out from files: a cluster knows it by itself.
    pub(super) fn need_in_files(
        &mut self,
        name: &'static str,
        mend: &str,
        decoder: &mut Decoder,
    ) -> Option<(&'a Node, String)> {
        self.need_by(decoder.terms.left_out(), name, mend, decoder)
    }

    /// Returns a field that must be there if plain Envoy is to carry it out.
    pub(super) fn need_here(
        &mut self,
        name: &'static str,
        mend: &str,
        decoder: &mut Decoder,
    ) -> Option<(&'a Node, String)> {
        self.need_by(decoder.terms.unsupported(), name, mend, decoder)
    }

    fn need_by(
        &mut self,
        severity: Severity,
        name: &'static str,
        mend: &str,
        decoder: &mut Decoder,
    ) -> Option<(&'a Node, String)> {
        match severity {
            Severity::Error => self.need(name, mend, decoder),
            Severity::Warning => self.take(name),
        }
    }

    /// Tells of fields that belong somewhere else.
    pub(super) fn misplaced(&mut self, names: &[&'static str], place: &str, decoder: &mut Decoder) {
        for name in names {
            let Some((at, _)) = self.left.remove(name) else { continue };
            decoder.slip(at, &join(&self.path, name), format!("belongs to {place}, move it there"));
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Returns the one of these that a word was probably meant to be.
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.into_iter().map(|known| (distance(known, word), known)).filter(|(edits, _)| *edits <= 2);
    near.min_by_key(|(edits, _)| *edits).map(|(_, known)| known)
}

/// Edits between two words, for hints. Quadratic in short words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (cb, above) in b.iter().zip(row.iter().skip(1)) {
            let same = usize::from(!ca.eq_ignore_ascii_case(cb));
            left = (diagonal + same).min(above + 1).min(left + 1);
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_near() {
        assert_eq!(distance("stepWeight", "stepweigth"), 2);
        assert_eq!(distance("", "abc"), 3);
        assert!(distance("threshold", "interval") > 2);
    }
}
