//! Claims that a bench measures.

use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

use crate::prove::told::told;
use crate::run::{output, say};

/// A program of `benches/`, and what its figures may be at most.
pub(super) struct Bench {
    pub(super) name: &'static str,
    program: &'static str,
    at_most: &'static [(&'static str, f64)],
}

pub(super) const BENCHES: [Bench; 19] = [
    Bench {
        name: "kube-gateway",
        program: "kube",
        at_most: &[
            ("rollback_median_ms", 1_000.0),
            ("rollback_worst_ms", 1_000.0),
            ("failed_after_rollback", 0.0),
            ("slow_median_ms", 1_000.0),
            ("slow_worst_ms", 1_000.0),
            ("healthy_failed", 0.0),
            ("react_p50_ms", 50.0),
            ("react_p99_ms", 500.0),
            ("rest_calls", 0.0),
            ("rollout_reads", 5.0),
            ("rollout_writes", 45.0),
        ],
    },
    Bench {
        name: "kube-scale",
        program: "kube-scale",
        at_most: &[
            ("rest_cores", 0.05),
            ("rest_calls", 0.0),
            ("rss_mib", 150.0),
            ("synced_secs", 5.0),
            ("rolling_cores", 0.5),
            ("rolling_failed", 0.0),
        ],
    },
    Bench {
        name: "kube-kill",
        program: "kube-kill",
        at_most: &[
            ("healthy_failed", 0.0),
            ("failed_after_rollback", 0.0),
            ("ended_wrong", 0.0),
            ("after_kill_worst_s", 15.0),
            ("after_term_worst_s", 1.0),
            ("takeover_failed", 0.0),
            ("late_writes", 0.0),
            ("etcd_paused_out_ms", 1_000.0),
            ("etcd_paused_failed_afterwards", 0.0),
            ("etcd_killed_out_ms", 1_000.0),
            ("etcd_killed_failed_afterwards", 0.0),
        ],
    },
    Bench { name: "kube-lines", program: "kube-lines", at_most: &[("failed", 0.0)] },
    Bench { name: "push", program: "push", at_most: &[("median_ms", 5.0), ("p99_ms", 25.0), ("lost", 0.0)] },
    Bench { name: "xds-10000", program: "xds-clients", at_most: &[("worst_ms", 1_000.0)] },
    Bench {
        name: "scale",
        program: "scale",
        at_most: &[
            ("one_file_cpu_ms_files", 50.0),
            ("one_file_cpu_ms_bundles", 50.0),
            ("idle_cores_files", 0.05),
            ("idle_cores_bundles", 0.05),
            ("rss_mib_files", 300.0),
            ("rss_mib_bundles", 300.0),
            ("reports_short_a_second", 200.0),
            ("rollouts_cores", 0.5),
            ("abort_p99_ms", 50.0),
            ("abort_in_changes_p99_ms", 50.0),
        ],
    },
    Bench { name: "engine-10000", program: "engine", at_most: &[("cores", 1.0)] },
    Bench {
        name: "judge-cost",
        program: "judge",
        at_most: &[("verdict_ns", 10_000.0), ("bytes_a_canary_and_metric", 4_096.0)],
    },
    Bench {
        name: "blind",
        program: "blind",
        at_most: &[
            ("cells_that_failed", 0.0),
            ("broken_late", 0.0),
            ("broken_promoted", 0.0),
            ("healthy_rolled_back", 0.0),
        ],
    },
    Bench {
        name: "age-filter",
        program: "age-filter",
        at_most: &[
            ("out_ratio", 1.2),
            ("envoy_ratio", 1.2),
            ("modules_kib", 1_024.0),
            ("here_ratio", 1.2),
            ("state_ratio", 1.2),
        ],
    },
    Bench {
        name: "takeover",
        program: "takeover",
        at_most: &[
            ("requests_lost", 0.0),
            ("requests_doubled", 0.0),
            ("errors_lost", 0.0),
            ("errors_doubled", 0.0),
            ("charged_with_another", 0.0),
            ("users_without_answer", 0.0),
            ("changed_without_state", 0.0),
            ("untold_without_state", 0.0),
        ],
    },
    Bench { name: "cpu", program: "cpu", at_most: &[("ratio_off", 1.02), ("ratio_judged", 1.25), ("ratio_ab", 1.5)] },
    Bench {
        name: "neighbours",
        program: "neighbours",
        at_most: &[("slowest_served_ms", 2_000.0), ("worst_ratio", 1.5), ("failed", 0.0)],
    },
    Bench { name: "forger", program: "forger", at_most: &[("failed", 0.0)] },
    Bench {
        name: "age-controller",
        program: "age-controller",
        at_most: &[("reports_a_second", 2_000.0), ("failed", 0.0)],
    },
    Bench { name: "monitoring", program: "monitoring", at_most: &[("failed", 0.0)] },
    Bench { name: "page", program: "page", at_most: &[("failed", 0.0)] },
    Bench { name: "terminal", program: "terminal", at_most: &[("failed", 0.0)] },
];

impl Bench {
    /// Runs it; true if every figure is within its bound.
    pub(super) fn run(&self, root: &Path) -> anyhow::Result<bool> {
        let mut program = std::process::Command::new(root.join("target/release").join(self.program));
        let printed = output(program.current_dir(root))?;
        let mut lines: Vec<&str> = printed.lines().collect();
        let line = lines.pop().with_context(|| format!("{} printed nothing", self.program))?;
        for row in lines {
            say(&format!("    {row}"))?;
        }
        let figures: Value = serde_json::from_str(line).with_context(|| format!("{line} is no JSON"))?;
        let figure = |name: &str| figures.get(name).and_then(Value::as_f64);
        let holds = self.at_most.iter().all(|(name, bound)| figure(name).is_some_and(|figure| figure <= *bound));
        let bounds: Vec<String> = self.at_most.iter().map(|(name, bound)| format!("{name} ≤ {bound}")).collect();
        let shown = figures.as_object().into_iter().flatten().map(|(name, figure)| match figure.as_f64() {
            Some(figure) => format!("{name} {}", (figure * 1e3).round() / 1e3),
            None => format!("{name} {figure}"),
        });
        let shown: Vec<String> = shown.collect();
        told(self.name, &format!("benches: {}", self.program), &shown.join(", "), &bounds.join(", "), holds)
    }
}
