//! `cargo xtask gen`: the protobuf types of `proto/`, written by protox and tonic's generator.

use std::path::Path;

use anyhow::Context as _;

/// Writes `proto/src/gen/` anew from `proto/proto/`.
pub(crate) fn generate(root: &Path) -> anyhow::Result<()> {
    let protos = root.join("proto/proto");
    let descriptors =
        protox::compile(["wingbeat/report/v1/report.proto"], [&protos]).context("proto/proto does not compile")?;
    tonic_prost_build::configure()
        .out_dir(root.join("proto/src/gen"))
        .client_mod_attribute(".", r#"#[cfg(feature = "grpc")]"#)
        .server_mod_attribute(".", r#"#[cfg(feature = "grpc")]"#)
        .compile_fds(descriptors)
        .context("cannot write proto/src/gen")
}
