//! What is stored of a file.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::identity::DocumentId;

/// A part of what is in force: the text of a file, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// The text.
    pub text: String,
    /// Which of its documents are in force: all, or those that are missed.
    pub only: Option<BTreeSet<DocumentId>>,
}
