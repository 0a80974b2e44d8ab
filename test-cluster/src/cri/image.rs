//! What images are: names of programs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The image of the test web service. Its tag is the version that it tells.
pub const WEB: &str = "wingbeat.test/web";
/// The program of the test web service: a target of this crate.
const WEB_PROGRAM: &str = "wingbeat-test-web";
/// What an image begins with, its path aside, whose containers exit with 1.
const CRASHES: &str = "crash-";
/// The program of such an image.
const CRASHING: &str = "false";
/// What an image begins with, its path aside, that cannot be pulled.
const ABSENT: &str = "never-";

/// Which program the containers of an image are, by the image's name without its tag.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Images {
    programs: BTreeMap<String, PathBuf>,
}

impl Images {
    /// Adds an image.
    #[must_use]
    pub fn with(mut self, image: &str, program: impl Into<PathBuf>) -> Self {
        self.programs.insert(image.to_owned(), program.into());
        self
    }

    /// Returns the program of an image, or why it cannot be pulled.
    pub(super) fn program(&self, image: &str) -> Result<PathBuf, String> {
        let name = without_tag(image);
        if let Some(program) = self.programs.get(name) {
            return Ok(program.clone());
        }
        let last = name.rsplit('/').next().unwrap_or(name);
        if last.starts_with(CRASHES) {
            return Ok(CRASHING.into());
        }
        if last.starts_with(ABSENT) {
            return Err(format!("{image}: not found"));
        }
        if name == WEB {
            let program = beside(std::env::current_exe().ok().as_deref());
            return program.ok_or_else(|| {
                format!("{image}: {WEB_PROGRAM} is not built: cargo build --package wingbeat-test-cluster --bins")
            });
        }
        Err(format!("{image}: not found: no program is named for {name}"))
    }
}

/// Returns the test web service as cargo puts it: into the folder of the program, or into the one above that of tests.
fn beside(program: Option<&Path>) -> Option<PathBuf> {
    let folders = program?.ancestors().skip(1).take(2);
    folders.map(|folder| folder.join(WEB_PROGRAM)).find(|path| path.is_file())
}

/// Returns an image's name without tag and digest. A colon before the last slash is that of a port.
fn without_tag(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => name,
        Some(_) | None => image,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_its_name_whatever_its_tag() {
        for (image, name) in [
            ("web", "web"),
            ("web:1", "web"),
            ("host:5000/web", "host:5000/web"),
            ("host:5000/web:1.4.1", "host:5000/web"),
            ("host/web:1@sha256:00", "host/web"),
        ] {
            assert_eq!(without_tag(image), name);
        }
        let images = Images::default().with("a/web", "/bin/web");
        assert_eq!(images.program("a/web:7"), Ok("/bin/web".into()));
        assert_eq!(images.program("a/crash-at-once:7"), Ok(CRASHING.into()));
        for image in ["a/never-there:7", "never-there", "unknown:1"] {
            assert!(images.program(image).unwrap_err().contains("not found"), "{image}");
        }
    }
}
