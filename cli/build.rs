//! Builds the filter for Envoy and leaves its path in `WINGBEAT_FILTER_WASM`.
//!
//! A nested cargo with a target folder of its own, so that it never waits for the outer one's lock. The variable
//! `WINGBEAT_WASM=PATH` uses a module that is already built.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

const TARGET: &str = "wasm32-wasip1";
/// The filter's callbacks are built under this name, as the SDK has taken that of proxy-wasm.
const OURS: &str = "wingbeat_on_";
const CALLBACK: &str = "proxy_on_";

fn main() -> anyhow::Result<()> {
    println!("cargo::rerun-if-env-changed=WINGBEAT_WASM");
    if let Some(module) = env::var_os("WINGBEAT_WASM") {
        let module = Path::new(&module).canonicalize().context("WINGBEAT_WASM names no file")?;
        println!("cargo::rerun-if-changed={}", module.display());
        println!("cargo::rustc-env=WINGBEAT_FILTER_WASM={}", module.display());
        return Ok(());
    }
    let root = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("..").canonicalize()?;
    for watched in [
        "filter/Cargo.toml",
        "filter/src",
        "core/Cargo.toml",
        "core/src",
        "proto/Cargo.toml",
        "proto/src",
        "Cargo.lock",
    ] {
        println!("cargo::rerun-if-changed={}", root.join(watched).display());
    }
    let out = PathBuf::from(env::var("OUT_DIR")?);
    ensure_target()?;
    let built = build(&root, &out.join("filter"))?;
    let module = out.join("wingbeat_filter.wasm");
    trim(&built, &module)?;
    println!("cargo::rustc-env=WINGBEAT_FILTER_WASM={}", module.display());
    Ok(())
}

/// Installs the standard library for wasm if the toolchain lacks it.
fn ensure_target() -> anyhow::Result<()> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let printed = Command::new(rustc)
        .args(["--print", "target-libdir", "--target", TARGET])
        .output()
        .context("cannot run rustc")?;
    let libdir = String::from_utf8(printed.stdout)?;
    if Path::new(libdir.trim()).is_dir() {
        return Ok(());
    }
    println!("cargo::warning=installing the Rust target {TARGET} for the filter");
    let added = Command::new("rustup").args(["target", "add", TARGET]).status();
    match added {
        Ok(status) if status.success() => Ok(()),
        Ok(_) | Err(_) => bail!("the filter needs Rust's target {TARGET}: run `rustup target add {TARGET}`"),
    }
}

fn build(root: &Path, target_dir: &Path) -> anyhow::Result<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(root)
        .args(["rustc", "--quiet", "--locked", "--package", "wingbeat-filter", "--lib", "--crate-type", "cdylib"])
        .args(["--release", "--target", TARGET, "--target-dir"])
        .arg(target_dir)
        // Small and without unwinding: the module is sent to every Envoy.
        .args(["--config", "profile.release.opt-level='s'", "--config", "profile.release.lto=true"])
        .args(["--config", "profile.release.codegen-units=1", "--config", "profile.release.panic='abort'"])
        .args(["--config", "profile.release.strip=true"])
        // Of what we depend on, only automata run for long.
        .args(["--config", "profile.release.package.'*'.opt-level='z'"])
        .args(["--config", "profile.release.package.regex-automata.opt-level='s'"])
        // Messages are written and read once a tick.
        .args(["--config", "profile.release.package.wingbeat-proto.opt-level='z'"]);
    // What the outer cargo set for its own compilation is wrong for this one.
    for (name, _) in env::vars_os() {
        if is_of_outer_cargo(&name) {
            command.env_remove(name);
        }
    }
    if !command.status().context("cannot run cargo for the filter")?.success() {
        bail!("the filter does not build; see above");
    }
    Ok(target_dir.join(TARGET).join("release/wingbeat_filter.wasm"))
}

fn is_of_outer_cargo(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    let prefixes = ["CARGO_CFG_", "CARGO_FEATURE_", "CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_PROFILE_", "DEP_"];
    let names = [
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTFLAGS",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "CARGO_MAKEFLAGS",
        "MAKEFLAGS",
        "TARGET",
        "HOST",
        "OUT_DIR",
        "OPT_LEVEL",
        "DEBUG",
        "PROFILE",
        "NUM_JOBS",
        "CARGO_TARGET_DIR",
        "CARGO_BUILD_TARGET",
    ];
    prefixes.iter().any(|prefix| name.starts_with(prefix)) || names.contains(&name.as_ref())
}

/// Gives the filter's callbacks their names, and removes the SDK's: Envoy calls each that is exported.
fn trim(built: &Path, module: &Path) -> anyhow::Result<()> {
    let mut wasm = walrus::Module::from_file(built)?;
    let unused: Vec<_> =
        wasm.exports.iter().filter(|export| export.name.starts_with(CALLBACK)).map(walrus::Export::id).collect();
    for export in unused {
        wasm.exports.delete(export);
    }
    for export in wasm.exports.iter_mut() {
        if let Some(name) = export.name.strip_prefix(OURS) {
            export.name = format!("{CALLBACK}{name}");
        }
    }
    walrus::passes::gc::run(&mut wasm);
    wasm.emit_wasm_file(module)
}
