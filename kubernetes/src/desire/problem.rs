//! What is in the way, told all at once.

use std::fmt;

/// Something that has to be mended before the objects of a Canary can be there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The object, like `Deployment backend.prod`.
    pub object: String,
    /// The path of the field; empty for the whole object.
    pub field: String,
    /// What is wrong.
    pub wrong: String,
    /// What would be right.
    pub mend: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { object, field, wrong, mend } = self;
        let between = if field.is_empty() { "" } else { " " };
        write!(f, "{object}{between}{field} {wrong}, {mend}")
    }
}

impl std::error::Error for Problem {}

/// Those found so far.
#[derive(Debug, Default)]
pub(super) struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn add(&mut self, object: &str, field: &str, wrong: impl Into<String>, mend: impl Into<String>) {
        let (object, field) = (object.to_owned(), field.to_owned());
        self.0.push(Problem { object, field, wrong: wrong.into(), mend: mend.into() });
    }

    /// Returns them in order, each once.
    pub(super) fn into_list(mut self) -> Vec<Problem> {
        self.0.sort();
        self.0.dedup();
        self.0
    }
}
