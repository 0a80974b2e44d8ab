//! `cargo xtask gen`: files that are made from others and checked in. The protobuf types of `proto/`, written by protox and
//! tonic's generator; the JSON schema of documents, the pages about their fields and the CustomResourceDefinitions, written
//! from the shapes in `api/`.

use std::path::Path;

use anyhow::{Context as _, bail};
use wingbeat_api::shape;
use wingbeat_kubernetes::crds::Group;

const FOLDER: &str = "proto/src/gen";
/// The fields of Flagger's CRDs, one a line.
const FLAGGERS_FIELDS: &str = "api/tests/flagger-fields.txt";

/// Writes all of them anew.
pub(crate) fn generate(root: &Path) -> anyhow::Result<()> {
    write(root, &root.join(FOLDER))?;
    for (file, text) in pages(root)? {
        let path = root.join(file);
        path.parent().map(std::fs::create_dir_all).transpose().with_context(|| format!("cannot create {file}"))?;
        std::fs::write(path, text).with_context(|| format!("cannot write {file}"))?;
    }
    Ok(())
}

/// Checks that all of them are what would be written.
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
    for (file, text) in pages(root)? {
        if std::fs::read_to_string(root.join(file)).unwrap_or_default() != text {
            bail!("{file} is not what api/src/shape and kubernetes/src/crds say: run cargo xtask gen");
        }
    }
    Ok(())
}

/// Returns the files about documents, with their text.
fn pages(root: &Path) -> anyhow::Result<[(&'static str, String); 5]> {
    let fields = std::fs::read_to_string(root.join(FLAGGERS_FIELDS)).context("cannot read Flagger's fields")?;
    let schema = format!("{:#}\n", shape::bundle());
    Ok([
        ("docs/schema/wingbeat.json", schema),
        ("docs/reference.md", shape::reference()),
        ("docs/flagger.md", shape::flagger_page(&fields)),
        ("deploy/crds/wingbeat.dev.yaml", Group::Wingbeat.manifest()),
        ("deploy/crds/flagger.app.yaml", Group::Flagger.manifest()),
    ])
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
