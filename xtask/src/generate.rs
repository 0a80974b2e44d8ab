//! `cargo xtask gen`: files that are made from others and checked in. The protobuf types of `proto/` and `test-cluster/`, written
//! by protox and tonic's generator; the JSON schema of documents, the pages about their fields and the
//! CustomResourceDefinitions, written from the shapes in `api/`; and what the Helm chart holds of other files.

use std::path::Path;

use anyhow::{Context as _, bail};
use tonic_prost_build::Builder;
use wingbeat_api::shape;
use wingbeat_kubernetes::crds::Group;

use crate::chart;

/// Types that are made from a protobuf file.
struct Messages {
    /// Where the file is, and its name there.
    protos: &'static str,
    file: &'static str,
    /// Where the types are.
    folder: &'static str,
    with: fn(Builder) -> Builder,
}

const MESSAGES: [Messages; 2] = [
    Messages {
        protos: "proto/proto",
        file: "wingbeat/report/v1/report.proto",
        folder: "proto/src/gen",
        with: |builder| {
            builder
                .client_mod_attribute(".", r#"#[cfg(feature = "grpc")]"#)
                .server_mod_attribute(".", r#"#[cfg(feature = "grpc")]"#)
        },
    },
    Messages {
        protos: "test-cluster/proto",
        file: "cri.proto",
        folder: "test-cluster/src/gen",
        with: |builder| builder.build_client(false).btree_map("."),
    },
];
/// The fields of Flagger's CRDs, one a line.
const FLAGGERS_FIELDS: &str = "api/tests/flagger-fields.txt";

/// Writes all of them anew.
pub(crate) fn generate(root: &Path) -> anyhow::Result<()> {
    for messages in &MESSAGES {
        messages.write(root, &root.join(messages.folder))?;
    }
    for (file, text) in pages(root)? {
        let path = root.join(file);
        path.parent().map(std::fs::create_dir_all).transpose().with_context(|| format!("cannot create {file}"))?;
        std::fs::write(path, text).with_context(|| format!("cannot write {file}"))?;
    }
    Ok(())
}

/// Checks that all of them are what would be written.
pub(crate) fn check(root: &Path) -> anyhow::Result<()> {
    for messages in &MESSAGES {
        let (fresh, folder) = (tempfile::tempdir()?, messages.folder);
        messages.write(root, fresh.path())?;
        for entry in std::fs::read_dir(fresh.path())? {
            let entry = entry?;
            let held = std::fs::read(root.join(folder).join(entry.file_name())).unwrap_or_default();
            if std::fs::read(entry.path())? != held {
                let (name, protos) = (entry.file_name(), messages.protos);
                bail!("{folder}/{} is not what {protos} says: run cargo xtask gen", name.display());
            }
        }
    }
    for (file, text) in pages(root)? {
        if std::fs::read_to_string(root.join(file)).unwrap_or_default() != text {
            bail!("{file} is not what api/src/shape, kubernetes/src/crds and deploy say: run cargo xtask gen");
        }
    }
    chart::check(root)
}

/// Returns the files about documents and those of the chart, with their text.
fn pages(root: &Path) -> anyhow::Result<Vec<(&'static str, String)>> {
    let fields = std::fs::read_to_string(root.join(FLAGGERS_FIELDS)).context("cannot read Flagger's fields")?;
    let schema = format!("{:#}\n", shape::bundle());
    let documents = [
        ("docs/schema/wingbeat.json", schema),
        ("docs/reference.md", shape::reference()),
        ("docs/flagger.md", shape::flagger_page(&fields)),
        ("deploy/crds/wingbeat.dev.yaml", Group::Wingbeat.manifest()),
        ("deploy/crds/flagger.app.yaml", Group::Flagger.manifest()),
    ];
    Ok(documents.into_iter().chain(chart::pages(root)?).collect())
}

impl Messages {
    fn write(&self, root: &Path, folder: &Path) -> anyhow::Result<()> {
        let protos = root.join(self.protos);
        let descriptors =
            protox::compile([self.file], [&protos]).with_context(|| format!("{} does not compile", self.protos))?;
        (self.with)(tonic_prost_build::configure())
            .out_dir(folder)
            .compile_fds(descriptors)
            .with_context(|| format!("cannot write {}", folder.display()))
    }
}
