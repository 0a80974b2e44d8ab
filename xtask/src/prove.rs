//! `cargo xtask prove`: what a promise claims is run, and its figure printed beside its bound.

use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::run::{cargo, output, say, succeed};

/// A claim about the demo: its arguments, how often it is played, and the bounds that must hold.
struct Proof {
    name: &'static str,
    args: &'static [&'static str],
    rounds: usize,
    /// Bounds on the time from the fault to the last canary request, in milliseconds: of the median, and of all.
    last_request_ms: Option<(u64, u64)>,
    /// Users may lose so many requests to the canary in one round.
    lost: Option<u64>,
    result: &'static str,
}

const PROOFS: [Proof; 9] = [
    Proof { last_request_ms: Some((999, 999)), lost: Some(60), ..proof("errors-1000", &["--rps", "1000"], 10) },
    Proof { last_request_ms: Some((999, 999)), lost: Some(60), ..proof("errors-at-once", &["--fault-after", "0"], 10) },
    Proof { last_request_ms: Some((3_000, 6_000)), ..proof("errors-100", &["--rps", "100"], 10) },
    Proof { last_request_ms: Some((999, 999)), ..proof("hang", &["--scenario", "hang"], 5) },
    Proof {
        last_request_ms: Some((999, 999)),
        ..proof("hang-impatient", &["--scenario", "hang", "--patience", "500ms"], 5)
    },
    Proof { last_request_ms: Some((3_000, u64::MAX)), ..proof("latency", &["--scenario", "latency"], 5) },
    Proof { last_request_ms: Some((999, 999)), ..proof("ab", &["--scenario", "ab"], 5) },
    Proof { result: "promoted", ..proof("promote", &["--scenario", "promote"], 1) },
    Proof { result: "no-data", ..proof("no-traffic", &["--scenario", "no-traffic"], 1) },
];

const fn proof(name: &'static str, args: &'static [&'static str], rounds: usize) -> Proof {
    Proof { name, args, rounds, last_request_ms: None, lost: None, result: "rolled-back" }
}

/// Runs the named proofs, or all. Fails if one does.
pub(crate) fn prove(root: &Path, names: &[String]) -> anyhow::Result<()> {
    if let Some(unknown) = names.iter().find(|name| PROOFS.iter().all(|proof| proof.name != **name)) {
        bail!("there is no proof {unknown}; there are {}", PROOFS.map(|proof| proof.name).join(", "));
    }
    succeed(&mut cargo(root, &["build", "--release", "--locked", "--package", "wingbeat"]))?;
    let mut failed = Vec::new();
    for proof in PROOFS.iter().filter(|proof| names.is_empty() || names.iter().any(|name| name == proof.name)) {
        if !play(root, proof)? {
            failed.push(proof.name);
        }
    }
    if !failed.is_empty() {
        bail!("FAIL: {}", failed.join(", "));
    }
    Ok(())
}

fn play(root: &Path, proof: &Proof) -> anyhow::Result<bool> {
    let mut last = Vec::new();
    let mut most_lost = 0;
    let mut as_claimed = true;
    for seed in 1..=proof.rounds {
        let seed = seed.to_string();
        let run = ["run", "--quiet", "--release", "--locked", "--", "demo", "--output", "json", "--seed", &seed];
        let printed = output(&mut cargo(root, &[&run[..], proof.args].concat()))
            .with_context(|| format!("{} did not end as it should", proof.name))?;
        let line = printed.lines().last().context("the demo printed nothing")?;
        let summary: Value = serde_json::from_str(line).context("the demo's last line is no JSON")?;
        let number = |field: &str| summary.get(field).and_then(Value::as_u64);
        as_claimed &= summary.get("result").and_then(Value::as_str) == Some(proof.result);
        as_claimed &= number("false_verdicts") == Some(0) && number("misrouted") == Some(0);
        most_lost = most_lost.max(number("failed_requests_canary").unwrap_or(u64::MAX));
        last.extend(number("fault_to_last_canary_request_ms"));
    }
    last.sort_unstable();
    let median = last.get(last.len() / 2).copied();
    let worst = last.last().copied();
    if let Some((bound, bound_of_all)) = proof.last_request_ms {
        as_claimed &= median.is_some_and(|median| median <= bound) && worst.is_some_and(|worst| worst <= bound_of_all);
    }
    as_claimed &= proof.lost.is_none_or(|bound| most_lost <= bound);
    let shown = |millis: Option<u64>| millis.map_or_else(|| "-".to_owned(), |millis| millis.to_string());
    say(&format!(
        "{:<15} wingbeat demo {:<34} {:>2} rounds  fault to last canary request: median {} ms, worst {} ms  lost at most {most_lost}  bounds {:?} {:?}  {}",
        proof.name,
        proof.args.join(" "),
        proof.rounds,
        shown(median),
        shown(worst),
        proof.last_request_ms,
        proof.lost,
        if as_claimed { "PASS" } else { "FAIL" }
    ))?;
    Ok(as_claimed)
}
