//! What is wrong, with its place.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Something wrong in a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// Counted from one; 0 if it concerns the file as a whole.
    pub line: usize,
    /// Counted from one.
    pub column: usize,
    /// Path of the field.
    pub field: String,
    /// What is wrong, and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, column, field, message } = self;
        if *line == 0 {
            write!(f, "{file}: {message}")
        } else if field.is_empty() {
            write!(f, "{file}:{line}:{column}: {message}")
        } else {
            write!(f, "{file}:{line}:{column}: {field}: {message}")
        }
    }
}
