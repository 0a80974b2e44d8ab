//! All that is wrong with files.

use std::collections::BTreeMap;

use serde::Serialize;

use super::problem::Problem;
use crate::refused_file::RefusedFileView;

/// What was found in files.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// What must be mended.
    pub errors: Vec<Problem>,
    /// What is taken all the same.
    pub warnings: Vec<Problem>,
}

impl Report {
    /// Returns the errors, file by file.
    pub fn by_file(&self) -> Vec<RefusedFileView> {
        let mut files: BTreeMap<&str, Vec<Problem>> = BTreeMap::new();
        for problem in &self.errors {
            files.entry(&problem.file).or_default().push(problem.clone());
        }
        files.into_iter().map(|(file, errors)| RefusedFileView { file: file.to_owned(), errors }).collect()
    }
}
