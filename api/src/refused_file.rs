//! Files that are not taken.

use serde::{Deserialize, Serialize};

use crate::problem::Problem;

/// A file whose present text is wrong; what it said before goes on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedFileView {
    /// The file.
    pub file: String,
    /// All that is wrong with it.
    pub errors: Vec<Problem>,
}
