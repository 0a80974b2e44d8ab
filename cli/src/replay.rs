//! `wingbeat replay`.

use std::io::{BufRead as _, BufReader};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use wingbeat_controller::document::Set;
use wingbeat_core::analysis::judge::JudgeConfig;
use wingbeat_core::analysis::replay::{Line, Replay};

use crate::files;
use crate::output::{Outcome, Wrong, say};

/// What is replayed, and how it is judged.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: wingbeat replay recorded.jsonl --canary deploy/examples/backend.yaml")]
pub(crate) struct Args {
    /// One batch a line: {"t_ms","weight","primary":{"requests","errors","latency_us"},"canary":{…}}
    #[arg(value_name = "FILE.jsonl")]
    file: PathBuf,
    /// A document with one Canary, whose judge is used; otherwise the defaults, without warm-up
    #[arg(long, value_name = "FILE")]
    canary: Option<PathBuf>,
}

/// Judges a recording: a line of JSON for each of its lines.
pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let config = args.canary.as_deref().map_or_else(|| Ok(JudgeConfig::default()), judge_of)?;
    let file = std::fs::File::open(&args.file)
        .map_err(|error| Wrong(format!("cannot read {}: {error}", args.file.display())))?;
    let mut replay = Replay::new(config);
    let mut outcome = Outcome::Done;
    for (number, line) in (1_u64..).zip(BufReader::new(file).lines()) {
        let line = line.with_context(|| format!("cannot read {}", args.file.display()))?;
        if line.trim().is_empty() {
            continue;
        }
        let judged = serde_json::from_str::<Line>(&line).map_err(|error| error.to_string()).and_then(|line| {
            let told = |problems: Vec<_>| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
            replay.step(&line).map_err(|problems: Vec<wingbeat_core::analysis::replay::Problem>| told(problems))
        });
        match judged {
            Ok(row) => say(&serde_json::to_string(&row)?)?,
            Err(error) => {
                say(&serde_json::json!({"line": number, "error": error}).to_string())?;
                outcome = Outcome::BadInput;
            }
        }
    }
    Ok(outcome)
}

fn judge_of(path: &Path) -> anyhow::Result<JudgeConfig> {
    let set = Set::of(&files::read(&[path.to_owned()])?);
    if let Some(first) = set.report.errors.first() {
        return Err(Wrong(first.to_string()).into());
    }
    let setup = set.setup(None);
    let mut canaries = setup.canaries.into_values();
    match (canaries.next(), canaries.next()) {
        (Some(canary), None) => Ok(JudgeConfig { attempt: Some(NonZeroU32::MIN), ..canary.judge }),
        (None, _) => Err(Wrong(format!("{} has no Canary with its Workload", path.display())).into()),
        (Some(_), Some(_)) => {
            Err(Wrong(format!("{} has several canaries, give a file with one", path.display())).into())
        }
    }
}
