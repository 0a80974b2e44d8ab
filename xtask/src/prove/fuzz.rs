//! The fuzzers: libFuzzer drives each target for a while.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::prove::told::told;
use crate::run::{cargo, say, succeed};

pub(super) const NAME: &str = "fuzz";

/// Targets of `wingbeat-fuzz`, each with a folder in `fuzz/corpus`.
const TARGETS: [&str; 5] = ["step", "session", "report", "ledger", "document"];
/// For so many seconds each.
const SECONDS: u32 = 20;
/// Bytes of an input at most: more events show nothing new.
const LONGEST: u32 = 2_048;
/// Inputs of a target that are checked in at most.
const KEPT: usize = 40;

/// Drives every target and prints how often; true if none fails.
pub(super) fn run(root: &Path) -> anyhow::Result<bool> {
    let fuzzer = build(root)?;
    let mut total = 0_u64;
    let mut failed = Vec::new();
    for target in TARGETS {
        let found = root.join("target/fuzz/corpus").join(target);
        std::fs::create_dir_all(&found).with_context(|| format!("cannot create {}", found.display()))?;
        let output = libfuzzer(root, &fuzzer, target)
            .arg(format!("-max_total_time={SECONDS}"))
            .args([found.as_path(), &corpus(root, target)])
            .output()
            .with_context(|| format!("cannot run {}", fuzzer.display()))?;
        let printed = String::from_utf8_lossy(&output.stderr);
        let executions = executions(&printed);
        let word = if output.status.success() { "PASS" } else { "FAIL" };
        say(&format!("    {executions:>9} executions of {target} | {word}"))?;
        total += executions;
        if !output.status.success() || executions == 0 {
            say(&printed)?;
            failed.push(target);
        }
    }
    let figures = format!("{total} executions of {} targets, {} of them fail", TARGETS.len(), failed.len());
    told(NAME, "cargo xtask prove fuzz", &figures, "every input is taken, and all invariants hold", failed.is_empty())
}

/// Writes the corpus anew: the least of the inputs found so far that reach as much code as all do.
pub(crate) fn write_corpus(root: &Path) -> anyhow::Result<()> {
    let fuzzer = build(root)?;
    for target in TARGETS {
        let found = root.join("target/fuzz/corpus").join(target);
        let (kept, least) = (corpus(root, target), root.join("target/fuzz/least").join(target));
        for folder in [&found, &least] {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let merge = ["-merge=1", "-use_value_profile=0", "-use_counters=0"];
        succeed(libfuzzer(root, &fuzzer, target).args(merge).args([&least, &kept, &found]))?;
        let mut inputs = Vec::new();
        for file in std::fs::read_dir(&least)? {
            let input = std::fs::read(file?.path())?;
            inputs.push(input);
        }
        // The longest ones go the furthest.
        inputs.sort_by_key(|input| std::cmp::Reverse(input.len()));
        inputs.truncate(KEPT);
        std::fs::remove_dir_all(&kept)?;
        std::fs::remove_dir_all(&least)?;
        std::fs::create_dir_all(&kept)?;
        for (place, input) in inputs.iter().enumerate() {
            std::fs::write(kept.join(format!("{place:02}")), input)?;
        }
        say(&format!("{} inputs of {target}", inputs.len()))?;
    }
    Ok(())
}

fn corpus(root: &Path, target: &str) -> PathBuf {
    root.join("fuzz/corpus").join(target)
}

/// Builds the program that libFuzzer drives. libFuzzer itself comes as source, so that a C++ compiler is all that it takes.
fn build(root: &Path) -> anyhow::Result<PathBuf> {
    let args = ["--workspace", "--features", "wingbeat-fuzz/libfuzzer", "--bin", "wingbeat-fuzz"];
    let mut build = cargo(root, &[&["build", "--locked"], &args[..]].concat());
    succeed(build.env("RUSTC_WORKSPACE_WRAPPER", root.join("fuzz/rustc.sh")))
        .context("the fuzzer cannot be built; it needs a C++ compiler")?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let fuzzer = target.join("debug/wingbeat-fuzz");
    if !fuzzer.exists() {
        bail!("{} was not built", fuzzer.display());
    }
    Ok(fuzzer)
}

fn libfuzzer(root: &Path, fuzzer: &Path, target: &str) -> Command {
    let mut command = Command::new(fuzzer);
    let artifacts = format!("-artifact_prefix={}/target/fuzz/{target}-", root.display());
    command.env("WINGBEAT_FUZZ_TARGET", target).arg("-print_final_stats=1");
    command.arg(format!("-max_len={LONGEST}")).arg("-timeout=20").arg(artifacts);
    command
}

/// Reads how often libFuzzer has run a target.
fn executions(printed: &str) -> u64 {
    let number = printed.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:"));
    number.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn executions_are_read_from_what_libfuzzer_prints() {
        assert_eq!(executions("#2 DONE\nstat::number_of_executed_units: 12345\nstat::peak_rss_mb: 90\n"), 12_345);
        assert_eq!(executions("==1== ERROR: libFuzzer: deadly signal\n"), 0);
    }
}
