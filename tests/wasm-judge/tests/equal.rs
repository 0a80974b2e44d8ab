//! Verdicts and evidence are the same to the bit on the machine that runs the tests and in wasm.
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test fails by panicking")]

mod wasi;

use std::path::{Path, PathBuf};
use std::process::Command;

use wingbeat_core::analysis::judge::{Judge, JudgeConfig};
use wingbeat_core::analysis::window::WINDOW;
use wingbeat_core::time::{Span, Timestamp};
use wingbeat_core::weight::BasisPoints;
use wingbeat_test_support::simulation::fleet::Fleet;
use wingbeat_test_support::simulation::rollout::World;
use wingbeat_test_support::simulation::traffic::{Answers, Besides, Law, Traffic};
use wingbeat_wasm_judge::{Event, judged};

const LAW: Law = Law::of(20_000.0);

/// Builds the program for wasm: by a nested cargo with a target folder of its own.
fn built() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("wasm-judge");
    let status = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--quiet", "--locked", "--release", "--package", "wingbeat-wasm-judge", "--bin"])
        .args(["wingbeat-wasm-judge", "--target", "wasm32-wasip1", "--target-dir"])
        .arg(&target)
        .args(["--config", "profile.release.lto='off'"])
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the judge does not build for wasm; see above");
    target.join("wasm32-wasip1/release/wingbeat-wasm-judge.wasm")
}

/// Records so many windows, of which the canary has users from the tenth on.
fn recorded(mut world: impl World, percent: u8, windows: u64) -> String {
    let config = JudgeConfig { warmup: Span::from_secs(2), early_promotion: true, ..JudgeConfig::default() };
    world.meet(&mut Judge::new(config.clone()));
    let mut now = Timestamp::from_millis(1_000_000);
    let mut events = vec![Event::Rollout(Box::new(config))];
    for window in 0..windows {
        // Two steps: what was safe at the first is tested anew at the second.
        for (place, weight) in [(10, percent), (windows / 2, percent + 5)] {
            if window == place {
                events.push(Event::Step(BasisPoints::from_percent(weight), now));
            }
        }
        now = now.plus(WINDOW);
        let share = if window < 10 { 0.0 } else { f64::from(percent) / 100.0 };
        events.push(Event::Window(Box::new(world.window(share, now))));
    }
    let lines = events.iter().map(|event| serde_json::to_string(event).unwrap());
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn wasm_says_the_same_to_the_bit() {
    let besides = Besides { redirects: 0.02, client_faults: 0.04, left: 0.005, retried: 0.02 };
    let pods = vec![0.7, 1.0, 1.3];
    let busy = |errors| Answers { besides, pods: pods.clone(), burst: 2.0, ..Answers::taking(errors, LAW) };
    let slow = Answers::taking(0.01, Law { median_us: 1.4 * LAW.median_us, ..LAW });
    let fleet = Fleet::new(4, 40, 500.0, Answers::failing(0.01), Answers::failing(0.2));
    let worlds = [
        ("errors 1 → 5 %, everything else besides", recorded(Traffic::new(1, 1_000.0, busy(0.01), busy(0.05)), 5, 120)),
        ("latency × 1.4", recorded(Traffic::new(2, 1_000.0, Answers::taking(0.01, LAW), slow), 10, 120)),
        ("1 rps", recorded(Traffic::new(3, 1.0, Answers::failing(0.1), Answers::failing(0.9)), 50, 300)),
        ("40 workers, errors 1 → 20 %", recorded(fleet, 10, 80)),
    ];
    let module = std::fs::read(built()).expect("the module was built");
    for (what, recording) in worlds {
        let native = judged(&recording).unwrap();
        let wasm = wasi::run(&module, recording.as_bytes()).unwrap();
        let differ = native.lines().zip(wasm.lines()).position(|(native, wasm)| native != wasm);
        assert_eq!((differ, native.len()), (None, wasm.len()), "{what}");
        println!("{what}: {} lines are the same to the bit", native.lines().count());
    }
}
