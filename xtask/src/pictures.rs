//! `cargo xtask pictures`: the pictures that the documentation shows.

use std::path::Path;
use std::process::Command;

use crate::run::{cargo, stage, succeed};

/// The programs that take them; each of them also checks what it shows.
const PROGRAMS: [&str; 2] = ["page", "terminal"];

/// Takes all of them anew.
pub(crate) fn take(root: &Path) -> anyhow::Result<()> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into);
    stage("build", || succeed(&mut cargo(root, &["build", "--release", "--locked", "--workspace", "--bins"])))?;
    for program in PROGRAMS {
        stage(program, || {
            succeed(Command::new(target.join("release").join(program)).current_dir(root).arg("docs/pictures"))
        })?;
    }
    Ok(())
}
