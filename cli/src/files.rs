//! Configuration files: a file, or every `.yaml` and `.yml` of a folder.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use wingbeat_controller::document::Problem;

/// What was found below some paths.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The text of files, by name.
    pub(crate) texts: BTreeMap<String, String>,
    /// What could not be read.
    pub(crate) unreadable: Vec<Problem>,
    /// Folders without any file of documents.
    pub(crate) empty: Vec<Problem>,
}

/// Reads all files below these paths. One that cannot be read holds no other one back.
pub(crate) fn read(paths: &[PathBuf]) -> Found {
    let mut found = Found::default();
    for path in paths {
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => found.folder(path),
            Ok(_) => found.file(path),
            Err(error) => found.cannot_read(path, &error),
        }
    }
    found
}

impl Found {
    fn folder(&mut self, path: &Path) {
        let entries = match std::fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) => return self.cannot_read(path, &error),
        };
        let before = (self.texts.len(), self.unreadable.len());
        for entry in entries {
            match entry.map(|entry| entry.path()) {
                Ok(file) if file.extension().is_some_and(|end| end == "yaml" || end == "yml") => self.file(&file),
                Ok(_) => {}
                Err(error) => self.cannot_read(path, &error),
            }
        }
        if before == (self.texts.len(), self.unreadable.len()) {
            let message = "this folder has no .yaml or .yml file, name another one or a file";
            self.empty.push(problem(path, message.to_owned()));
        }
    }

    fn file(&mut self, path: &Path) {
        match std::fs::read_to_string(path) {
            Ok(text) => {
                self.texts.insert(path.display().to_string(), text);
            }
            Err(error) => self.cannot_read(path, &error),
        }
    }

    fn cannot_read(&mut self, path: &Path, error: &std::io::Error) {
        let mends = [
            (ErrorKind::NotFound, "name a file or folder that is there"),
            (ErrorKind::PermissionDenied, "let this user read it"),
            (ErrorKind::InvalidData, "write it in UTF-8"),
            (ErrorKind::IsADirectory, "it is a folder with the name of a file, rename it"),
        ];
        let mend = mends.iter().find(|(kind, _)| *kind == error.kind()).map_or("name another one", |(_, mend)| *mend);
        self.unreadable.push(problem(path, format!("cannot be read ({error}), {mend}")));
    }
}

fn problem(path: &Path, message: String) -> Problem {
    Problem { file: path.display().to_string(), line: 0, column: 0, field: String::new(), message }
}
