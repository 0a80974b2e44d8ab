//! Recordings of what judges got wrong, as `wingbeat replay` reads them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use wingbeat_core::analysis::judge::JudgeConfig;
use wingbeat_core::analysis::replay::Replay;

/// Returns how many seconds after `fault`, in seconds, the canary is rolled back.
fn found_after(recording: &str, fault: u64) -> u64 {
    let mut replay = Replay::new(JudgeConfig::default());
    for line in recording.lines() {
        let row = replay.step(&serde_json::from_str(line).unwrap()).unwrap();
        if row.verdict == "rollback" {
            return row.t_ms / 1_000 - fault;
        }
    }
    u64::MAX
}

/// The reference of latencies is halved after a minute: where that forgot the tail, this took 12 and 39 seconds.
#[test]
fn a_slow_tail_is_found_as_soon_after_a_halving_as_before() {
    let before = found_after(include_str!("cases/halving-fault-at-40s.jsonl"), 40);
    let after = found_after(include_str!("cases/halving-fault-at-61s.jsonl"), 61);
    println!("{before} s, and {after} s after a halving");
    assert!(before <= 13 && after.abs_diff(before) * 10 <= before.next_multiple_of(10), "{before} {after}");
}

/// Five outages of two seconds at both arms before the fault: where they counted as bursts for ever, it was never found.
#[test]
fn outages_of_both_arms_hide_no_fault_that_begins_later() {
    let quiet = found_after(include_str!("cases/phi-without-outages.jsonl"), 150);
    let after = found_after(include_str!("cases/phi-shared-outages.jsonl"), 150);
    println!("{quiet} s, and {after} s after outages");
    assert!(quiet <= 15 && after <= 4 * quiet, "{quiet} {after}");
}
