//! Claims about the main job: the demo is played several times.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

use crate::prove::told::told;
use crate::run::output;

/// A scene: its arguments, how often it is played, and the bounds that must hold.
pub(super) struct Scene {
    pub(super) name: &'static str,
    args: &'static [&'static str],
    rounds: usize,
    /// Bounds on the time from the fault to the last canary request, in milliseconds: of the median, and of all.
    last_request_ms: Option<(u64, u64)>,
    /// Users may lose so many requests to the canary in one round.
    lost: Option<u64>,
    result: &'static str,
}

pub(super) const SCENES: [Scene; 11] = [
    Scene { last_request_ms: Some((999, 999)), lost: Some(60), ..scene("errors-1000", &["--rps", "1000"], 10) },
    Scene { last_request_ms: Some((999, 999)), lost: Some(60), ..scene("errors-at-once", &["--fault-after", "0"], 10) },
    Scene { last_request_ms: Some((3_000, 6_000)), ..scene("errors-100", &["--rps", "100"], 10) },
    // The simulated 95 % quantile (core/tests/analysis_judge/main.rs) and half a second.
    Scene {
        last_request_ms: Some((2_900, 2_900)),
        ..scene("errors-25-percent", &["--canary-errors", "25%", "--primary-errors", "1%"], 5)
    },
    Scene {
        last_request_ms: Some((17_900, 17_900)),
        ..scene("errors-5-percent", &["--canary-errors", "5%", "--primary-errors", "1%"], 5)
    },
    Scene { last_request_ms: Some((999, 999)), ..scene("hang", &["--scenario", "hang"], 5) },
    Scene {
        last_request_ms: Some((999, 999)),
        ..scene("hang-impatient", &["--scenario", "hang", "--patience", "500ms"], 5)
    },
    Scene { last_request_ms: Some((3_000, u64::MAX)), ..scene("latency", &["--scenario", "latency"], 5) },
    Scene { last_request_ms: Some((999, 999)), ..scene("ab", &["--scenario", "ab"], 5) },
    Scene { result: "promoted", ..scene("promote", &["--scenario", "promote"], 1) },
    Scene { result: "no-data", ..scene("no-traffic", &["--scenario", "no-traffic"], 1) },
];

const fn scene(name: &'static str, args: &'static [&'static str], rounds: usize) -> Scene {
    Scene { name, args, rounds, last_request_ms: None, lost: None, result: "rolled-back" }
}

impl Scene {
    /// Plays it as often as it says; true if every bound held.
    pub(super) fn play(&self, root: &Path) -> anyhow::Result<bool> {
        let mut last = Vec::new();
        let mut most_lost = 0;
        let mut holds = true;
        for seed in 1..=self.rounds {
            let mut demo = std::process::Command::new(root.join("target/release/wingbeat"));
            demo.current_dir(root).args(["demo", "--output", "json", "--seed", &seed.to_string()]).args(self.args);
            let printed = output(&mut demo).with_context(|| format!("{} did not end as it should", self.name))?;
            let line = printed.lines().last().context("the demo printed nothing")?;
            let summary: Value = serde_json::from_str(line).context("the demo's last line is no JSON")?;
            let number = |field: &str| summary.get(field).and_then(Value::as_u64);
            holds &= summary.get("result").and_then(Value::as_str) == Some(self.result);
            holds &= number("false_verdicts") == Some(0) && number("misrouted") == Some(0);
            most_lost = most_lost.max(number("failed_requests_canary").unwrap_or(u64::MAX));
            last.extend(number("fault_to_last_canary_request_ms"));
        }
        last.sort_unstable();
        let median = last.get(last.len() / 2).copied();
        let worst = last.last().copied();
        let mut bounds = self.result.to_owned();
        if let Some((bound, bound_of_all)) = self.last_request_ms {
            holds &= median.is_some_and(|median| median <= bound) && worst.is_some_and(|worst| worst <= bound_of_all);
            let all = if bound_of_all == u64::MAX { String::new() } else { format!(", worst ≤ {bound_of_all} ms") };
            let _infallible = write!(bounds, ", median ≤ {bound} ms{all}");
        }
        if let Some(bound) = self.lost {
            holds &= most_lost <= bound;
            let _infallible = write!(bounds, ", lost ≤ {bound}");
        }
        let shown = |millis: Option<u64>| millis.map_or_else(|| "-".to_owned(), |millis| format!("{millis} ms"));
        let figures = format!(
            "{} rounds, fault to last canary request: median {}, worst {}; lost at most {most_lost}",
            self.rounds,
            shown(median),
            shown(worst)
        );
        told(self.name, &format!("wingbeat demo {}", self.args.join(" ")), &figures, &bounds, holds)
    }
}
