//! Claims that tests show.

use std::path::Path;

use anyhow::Context as _;

use crate::kube;
use crate::prove::told::told;
use crate::run::{cargo, say};

/// Tests of one target, by parts of their names.
pub(super) struct Suite {
    pub(super) name: &'static str,
    claim: &'static str,
    package: &'static str,
    target: &'static [&'static str],
    tests: &'static [&'static str],
    /// True if what the tests print is a table, which is shown line by line.
    table: bool,
    place: Place,
}

/// Where tests run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// On this machine, one after another.
    Here,
    /// In a real Kubernetes, which they share.
    Kubernetes,
}

pub(super) const SUITES: [Suite; 30] = [
    Suite {
        name: "hostile",
        claim: "hostile requests: no worker lost, all counted",
        ..suite("wingbeat-e2e", &["--test", "hostile"])
    },
    Suite {
        name: "outcomes",
        claim: "requests sent = sum of the outcome classes",
        ..suite("wingbeat-e2e", &["--test", "outcomes"])
    },
    Suite {
        name: "exactly-once",
        claim: "final counts = requests sent",
        ..suite("wingbeat", &["--test", "exactly_once"])
    },
    Suite {
        name: "kills",
        claim: "20 SIGKILLs: the plan's weights, repeats only; an abort that was served is not taken back",
        tests: &["kill"],
        ..suite("wingbeat", &["--test", "serve"])
    },
    Suite {
        name: "served-abort",
        claim: "an abort that was served is never taken back",
        tests: &["abort"],
        ..suite("wingbeat-control", &["--lib"])
    },
    Suite {
        name: "crash-matrix",
        claim: "killed before and after every write, all converge",
        tests: &["crash_matrix"],
        ..suite("wingbeat-control", &["--lib"])
    },
    Suite {
        name: "crash",
        claim: "every fault at every commit converges; an abort is published before anything is stored, also where that takes 30 s",
        tests: &["commits::", "crash_matrix"],
        ..suite("wingbeat-control", &["--lib"])
    },
    Suite {
        name: "step",
        claim: "the rollout's machine under random histories",
        ..suite("wingbeat-core", &["--test", "rollout"])
    },
    Suite { name: "xds", claim: "no request lost, no refusal", ..suite("wingbeat-e2e", &["--test", "xds"]) },
    Suite {
        name: "xds-protocol",
        claim: "the scripts of protocol.toml in both dialects",
        ..suite("wingbeat-xds-server", &["--lib"])
    },
    Suite {
        name: "wasm", claim: "≤ 200 KB; exports and imports as listed", ..suite("wingbeat", &["--test", "wasm"])
    },
    Suite {
        name: "regex",
        claim: "the guide's patterns agree with a backtracking engine; explosions refused in 100 ms",
        ..suite("wingbeat-core", &["--test", "matching"])
    },
    Suite {
        name: "check",
        claim: "six mistakes, each with line, column and field",
        tests: &["six_mistakes"],
        ..suite("wingbeat-api", &["--test", "documents"])
    },
    Suite {
        name: "api",
        claim: "decoder, JSON schema, defaults and reference agree; no field of Flagger's is dropped in silence",
        table: true,
        ..suite("wingbeat-api", &["--test", "agreement"])
    },
    Suite {
        name: "bad-input",
        claim: "each told with its place, or refused and bounded; what was good goes on",
        ..suite("wingbeat", &["--test", "bad_files", "--test", "bad_peers"])
    },
    Suite {
        name: "judge",
        claim: "detection as the reference; bad ones promoted ≤ 10 %; 300 healthy rollouts, none rolled back",
        ..suite("wingbeat-core", &["--test", "analysis_judge"])
    },
    Suite {
        name: "judge-equal",
        claim: "what is optimised = what is naive, on random input",
        tests: &["one_sum_equals", "a_naive_look"],
        ..suite("wingbeat-core", &["--lib"])
    },
    Suite {
        name: "judge-equal",
        claim: "merging is associative and commutative, on random input",
        ..suite("wingbeat-core", &["--test", "merge"])
    },
    Suite {
        name: "judge-equal",
        claim: "verdicts and evidence in wasm are the same to the bit",
        ..suite("wingbeat-wasm-judge", &["--test", "equal"])
    },
    Suite {
        name: "reasons",
        claim: "every signal in words; on random traffic, a reason's numbers differ as it claims",
        ..suite("wingbeat-core", &["--test", "reasons"])
    },
    Suite {
        name: "reasons",
        claim: "every scene of the demo through a real Envoy, in words whose numbers show what they claim",
        ..suite("wingbeat-e2e", &["--test", "scenes"])
    },
    Suite {
        name: "latency-laws",
        claim: "p50, p90, p99 within 1 % of those of the same requests in Envoy's access log, waits for new connections aside",
        table: true,
        ..suite("wingbeat-e2e", &["--test", "latency"])
    },
    Suite {
        name: "kube-rows",
        claim: "rows of Flagger's behaviour, against a model of an API server",
        ..suite("wingbeat-kubernetes", &["--test", "reconcile", "--test", "desire", "--test", "crds"])
    },
    Suite {
        name: "kube-crds",
        claim: "the API server takes our definitions, and refuses by their rules (rows 1 to 4)",
        tests: &["real_kubernetes_"],
        place: Place::Kubernetes,
        ..suite("wingbeat-kubernetes", &["--test", "edge"])
    },
    kube(
        "kube-guide",
        "the guide's backend, unchanged: objects, columns and events as golden files; as v1beta1 over it, nothing is rolled out",
        &["--test", "guide"],
    ),
    kube(
        "kube-deletion",
        "A1, A3: the target has its requests before the primary goes, failed 0",
        &["--test", "deletion"],
    ),
    kube("kube-configs", "A11: a ConfigMap rolls out within 1 s, copies are equal", &["--test", "configs"]),
    kube(
        "kube-unready",
        "A13: an image that cannot be pulled fails after 60 s, and Slack is told why",
        &["--test", "unready"],
    ),
    kube(
        "kube-bad-input",
        "states deleted and edited, definitions missing, a namespace that ends, an API server that is away: the others go on",
        &["--test", "bad_input", "--test", "api_server_away"],
    ),
    kube(
        "kube-rbac",
        "the controller with the role of deploy and of the chart, and nothing else: nothing is forbidden",
        &["--test", "controller", "--test", "chart"],
    ),
];

const fn kube(name: &'static str, claim: &'static str, target: &'static [&'static str]) -> Suite {
    let suite = suite("wingbeat-e2e", target);
    Suite { name, claim, tests: &["real_kubernetes_"], place: Place::Kubernetes, ..suite }
}

const fn suite(package: &'static str, target: &'static [&'static str]) -> Suite {
    Suite { name: "", claim: "", package, target, tests: &[], table: false, place: Place::Here }
}

impl Suite {
    /// Runs the tests; true if there were some and all passed. What they print are the figures.
    pub(super) fn run(&self, root: &Path) -> anyhow::Result<bool> {
        // What is compiled for all tests of the workspace is not compiled again.
        let (packages, threads) = match self.place {
            Place::Here => (&["--package", self.package][..], "1"),
            Place::Kubernetes => {
                kube::prepare(root)?;
                (&["--workspace"][..], kube::TEST_THREADS)
            }
        };
        let args = [&["test", "--quiet", "--locked"][..], packages, self.target, &["--"], self.tests];
        let args: Vec<&str> = args.concat();
        let shown = format!("cargo {}", args.join(" "));
        let run = cargo(root, &args)
            .args(["--nocapture", "--test-threads", threads])
            .output()
            .with_context(|| format!("cannot run {shown}"))?;
        let printed = String::from_utf8_lossy(&run.stdout);
        let passed = printed.lines().filter_map(|line| line.strip_prefix("test result: ok. ")?.split(' ').next());
        let passed: u64 = passed.filter_map(|passed| passed.parse::<u64>().ok()).sum();
        let noise = |line: &&str| !line.is_empty() && !line.starts_with("running ") && !line.starts_with("test result");
        let figures: Vec<&str> = printed
            .lines()
            .filter(noise)
            .map(|line| line.trim_start_matches('.').trim())
            .filter(|line| line.contains(' ') && !line.starts_with('/'))
            .collect();
        let count = format!("{passed} tests passed");
        let figures = if self.table {
            for line in &figures {
                say(&format!("    {line}"))?;
            }
            count
        } else {
            [&[count.as_str()], figures.as_slice()].concat().join("; ")
        };
        told(self.name, &shown, &figures, self.claim, run.status.success() && passed > 0)
    }
}
