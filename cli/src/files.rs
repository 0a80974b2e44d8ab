//! Configuration files: a file, or every `.yaml` and `.yml` of a folder.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Component, Path, PathBuf};

use wingbeat_api::Problem;

/// Bytes of a file; a larger one cannot be read. As many as a thousand canaries take, and a slip in a path does not.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// Links that lead to a file; further ones are not followed, as the system does not follow them either.
const MAX_LINKS: usize = 40;

/// What is read where no regular file is, but a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pipes {
    /// A path that is named and is a pipe is read to its end, as of `<(command)` in a shell.
    Read,
    /// It cannot be read: a pipe has no text that could be read again.
    Refuse,
}

/// What was found below some paths.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The text of files, by name.
    pub(crate) texts: BTreeMap<String, String>,
    /// What could not be read.
    pub(crate) unreadable: Vec<Problem>,
    /// What is in the folders and was not read.
    pub(crate) left_out: Vec<Problem>,
    /// Folders without any file of documents.
    pub(crate) empty: Vec<Problem>,
    /// Where changes of all that come about.
    pub(crate) places: Places,
    /// Folders of documents, links resolved, each with the paths that name it.
    pub(crate) folders: BTreeMap<PathBuf, Vec<PathBuf>>,
}

/// Where files are, links resolved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Places {
    /// Files, folders and links that lead to them: what is there is read by its name.
    pub(crate) names: BTreeSet<PathBuf>,
    /// Folders of documents: of what is in them, files of documents are read.
    pub(crate) folders: BTreeSet<PathBuf>,
}

/// Reads all files below these paths. One that cannot be read holds no other one back.
pub(crate) fn read(paths: &[PathBuf], pipes: Pipes) -> Found {
    let mut found = Found::default();
    for path in paths {
        let real = found.places.trace(path);
        match std::fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() => {
                found.folder(path, &real);
                found.folders.entry(real.clone()).or_default().push(path.clone());
                found.places.folders.insert(real);
            }
            Ok(metadata) if metadata.is_file() || pipes == Pipes::Read => found.file(path),
            Ok(_) => found.unreadable.push(problem(path, "is no regular file, name one or a folder".to_owned())),
            Err(error) => found.cannot_read(path, &error),
        }
    }
    found
}

/// Reads these files of such folders again. Returns the name and the text of each; nothing if one of them is not what it was, a
/// file that can be read: then all are to be looked at.
pub(crate) fn reread(
    files: &BTreeSet<PathBuf>,
    folders: &BTreeMap<PathBuf, Vec<PathBuf>>,
) -> Option<Vec<(String, String)>> {
    let mut read = Vec::new();
    for file in files {
        let (names, folder) = (file.file_name()?, folders.get(file.parent()?)?);
        // Who follows a link has to follow it to its end.
        if !std::fs::symlink_metadata(file).ok()?.is_file() {
            return None;
        }
        let mut text = String::new();
        File::open(file).ok()?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text).ok()?;
        if u64::try_from(text.len()).is_ok_and(|bytes| bytes > MAX_FILE_BYTES) {
            return None;
        }
        read.extend(folder.iter().map(|folder| (folder.join(names).display().to_string(), text.clone())));
    }
    Some(read)
}

/// Returns true for the name of a file that is read where it is in a folder. Hidden ones are what editors and mounts keep for
/// themselves.
pub(crate) fn is_of_documents(name: &OsStr) -> bool {
    let end = Path::new(name).extension();
    !is_hidden(name) && end.is_some_and(|end| end == "yaml" || end == "yml")
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b".")
}

impl Found {
    fn folder(&mut self, path: &Path, real: &Path) {
        let entries = match std::fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) => return self.cannot_read(path, &error),
        };
        let before = (self.texts.len(), self.unreadable.len());
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    self.cannot_read(path, &error);
                    continue;
                }
            };
            let (name, file) = (entry.file_name(), entry.path());
            if is_hidden(&name) {
                continue;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_symlink()) && is_of_documents(&name) {
                self.places.trace(&real.join(&name));
            }
            match std::fs::metadata(&file) {
                Ok(metadata) if metadata.is_dir() => {
                    let message = "this folder in a folder is not read: name it beside, if it holds documents";
                    self.left_out.push(problem(&file, message.to_owned()));
                }
                Ok(metadata) if is_of_documents(&name) && !metadata.is_file() => {
                    self.left_out.push(problem(&file, "is no regular file, and is not read".to_owned()));
                }
                Ok(_) if is_of_documents(&name) => self.file(&file),
                Err(error) if is_of_documents(&name) => self.cannot_read(&file, &error),
                Ok(_) | Err(_) => {}
            }
        }
        if before == (self.texts.len(), self.unreadable.len()) {
            let message = "this folder has no .yaml or .yml file, name another one or a file";
            self.empty.push(problem(path, message.to_owned()));
        }
    }

    fn file(&mut self, path: &Path) {
        let mut text = String::new();
        let read = File::open(path).and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_string(&mut text));
        match read {
            Ok(_) if u64::try_from(text.len()).is_ok_and(|bytes| bytes <= MAX_FILE_BYTES) => {
                self.texts.insert(path.display().to_string(), text);
            }
            Ok(_) => {
                let message = format!("is larger than {} MiB, split it, if it holds documents", MAX_FILE_BYTES >> 20);
                self.unreadable.push(problem(path, message));
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

impl Places {
    /// Notes a path and every link on the way to what it names, which is returned.
    fn trace(&mut self, path: &Path) -> PathBuf {
        let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let mut todo = parts(&whole);
        let (mut at, mut links) = (PathBuf::from("/"), 0);
        while let Some(part) = todo.pop() {
            if part == ".." {
                at.pop();
                continue;
            }
            let next = at.join(&part);
            match std::fs::read_link(&next) {
                Ok(target) if links < MAX_LINKS => {
                    links += 1;
                    if target.is_absolute() {
                        at = PathBuf::from("/");
                    }
                    todo.extend(parts(&target));
                    self.names.insert(next);
                }
                Ok(_) | Err(_) => at = next,
            }
        }
        self.names.insert(at.clone());
        at
    }
}

/// Returns the parts of a path, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let parts = path.components().filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
    let mut parts: Vec<OsString> = parts.map(|part| part.as_os_str().to_owned()).collect();
    parts.reverse();
    parts
}

fn problem(path: &Path, message: String) -> Problem {
    Problem { file: path.display().to_string(), line: 0, column: 0, field: String::new(), message }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_folder_is_read_as_far_as_it_holds_documents() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        for name in ["a.yaml", "b.yml", "c.log", ".hidden.yaml", "large.yaml"] {
            std::fs::write(path(name), "{}").unwrap();
        }
        std::fs::write(path("large.yaml"), "#".repeat(usize::try_from(MAX_FILE_BYTES).unwrap() + 1)).unwrap();
        std::fs::create_dir(path("folder")).unwrap();
        std::fs::create_dir(path(".git")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket.yaml")).unwrap();
        let found = read(&[folder.path().to_owned()], Pipes::Refuse);
        let names = |paths: Vec<&String>| {
            let of = |path: &&String| Path::new(path).file_name().unwrap().to_str().unwrap().to_owned();
            let mut names: Vec<String> = paths.iter().map(of).collect();
            names.sort();
            names.join(" ")
        };
        assert_eq!(names(found.texts.keys().collect()), "a.yaml b.yml");
        let files = |problems: &[Problem]| names(problems.iter().map(|problem| &problem.file).collect());
        assert_eq!(
            (files(&found.left_out), files(&found.unreadable)),
            ("folder socket.yaml".into(), "large.yaml".into())
        );
    }

    /// As a ConfigMap is mounted.
    #[test]
    fn every_link_on_the_way_to_a_file_is_noted() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let path = |name: &str| root.join(name);
        std::fs::create_dir_all(path("mount/..1")).unwrap();
        std::fs::write(path("mount/..1/a.yaml"), "{}").unwrap();
        symlink("..1", path("mount/..data")).unwrap();
        symlink("..data/a.yaml", path("mount/a.yaml")).unwrap();
        symlink("mount", path("conf")).unwrap();
        let found = read(&[path("conf")], Pipes::Refuse);
        let names = ["conf", "mount", "mount/..1/a.yaml", "mount/..data", "mount/a.yaml"].map(path);
        assert_eq!(found.places, Places { names: names.into(), folders: [path("mount")].into() });
        assert_eq!(found.texts.len(), 1);
        symlink("loop", path("loop")).unwrap();
        assert_eq!(read(&[path("loop")], Pipes::Refuse).unreadable.len(), 1);
    }
}
