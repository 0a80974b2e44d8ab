//! Configuration files: a file, or every `.yaml` and `.yml` of a folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::output::Wrong;

/// Returns the text of all files below these paths, by name.
pub(crate) fn read(paths: &[PathBuf]) -> anyhow::Result<BTreeMap<String, String>> {
    let mut texts = BTreeMap::new();
    for path in paths {
        let folder = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?.is_dir();
        if !folder {
            read_one(path, &mut texts)?;
            continue;
        }
        let entries = std::fs::read_dir(path).map_err(|error| unreadable(path, &error))?;
        for entry in entries {
            let file = entry.map_err(|error| unreadable(path, &error))?.path();
            if file.extension().is_some_and(|end| end == "yaml" || end == "yml") {
                read_one(&file, &mut texts)?;
            }
        }
    }
    Ok(texts)
}

fn read_one(path: &Path, texts: &mut BTreeMap<String, String>) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    texts.insert(path.display().to_string(), text);
    Ok(())
}

fn unreadable(path: &Path, error: &std::io::Error) -> Wrong {
    Wrong(format!("cannot read {}: {error}", path.display()))
}
