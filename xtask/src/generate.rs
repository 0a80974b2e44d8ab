//! `cargo xtask gen`: the protobuf types of `proto/`, written by protox and tonic's generator.

use std::path::Path;

use anyhow::{Context as _, bail};

const FOLDER: &str = "proto/src/gen";

/// Writes `proto/src/gen/` anew from `proto/proto/`.
pub(crate) fn generate(root: &Path) -> anyhow::Result<()> {
    write(root, &root.join(FOLDER))
}

/// Checks that `proto/src/gen/` is what would be written.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    let fresh = tempfile::tempdir()?;
    write(root, fresh.path())?;
    for entry in std::fs::read_dir(fresh.path())? {
        let entry = entry?;
        let held = std::fs::read(root.join(FOLDER).join(entry.file_name())).unwrap_or_default();
        if std::fs::read(entry.path())? != held {
            bail!("{FOLDER}/{} is not what proto/proto says: run cargo xtask gen", entry.file_name().display());
        }
    }
    Ok(())
}

fn write(root: &Path, folder: &Path) -> anyhow::Result<()> {
    let protos = root.join("proto/proto");
    let descriptors =
        protox::compile(["wingbeat/report/v1/report.proto"], [&protos]).context("proto/proto does not compile")?;
    tonic_prost_build::configure()
        .out_dir(folder)
        .client_mod_attribute(".", r#"#[cfg(feature = "grpc")]"#)
        .server_mod_attribute(".", r#"#[cfg(feature = "grpc")]"#)
        .compile_fds(descriptors)
        .with_context(|| format!("cannot write {}", folder.display()))
}
