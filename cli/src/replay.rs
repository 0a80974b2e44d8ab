//! `wingbeat replay`.

use std::io::{BufRead, BufReader, Read as _};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use wingbeat_core::analysis::judge::JudgeConfig;
use wingbeat_core::analysis::replay::{Line, Problem, Replay, Row};

use crate::check::lint;
use crate::output::{Outcome, Wrong, print_line};

/// A batch of a thousand nodes is shorter.
const MAX_LINE_BYTES: u64 = 16 * 1_024 * 1_024;

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
    let config = match args.canary.as_deref() {
        None => JudgeConfig::default(),
        Some(file) => match judge_of(file)? {
            Some(config) => config,
            None => return Ok(Outcome::BadInput),
        },
    };
    let file = std::fs::File::open(&args.file)
        .map_err(|error| Wrong(format!("cannot read {}: {error}", args.file.display())))?;
    let mut file = BufReader::new(file);
    let mut replay = Replay::new(config);
    let mut outcome = Outcome::Done;
    for number in 1_u64.. {
        let read = read_line(&mut file).with_context(|| format!("cannot read {}", args.file.display()))?;
        let Some(line) = read else { break };
        let judged = match line {
            Ok(line) if line.trim_ascii().is_empty() => continue,
            Ok(line) => judge(&mut replay, &line),
            Err(why) => Err(why),
        };
        match judged {
            Ok(row) => print_line(&serde_json::to_string(&row)?)?,
            Err(error) => {
                print_line(&serde_json::json!({"line": number, "error": error}).to_string())?;
                outcome = Outcome::BadInput;
            }
        }
    }
    Ok(outcome)
}

fn judge(replay: &mut Replay, line: &[u8]) -> Result<Row, String> {
    let line: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let told = |problems: Vec<Problem>| problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    replay.step(&line).map_err(told)
}

/// Returns the next line, or that it is too long to be one; nothing at the end.
fn read_line(file: &mut impl BufRead) -> std::io::Result<Option<Result<Vec<u8>, String>>> {
    let mut line = Vec::new();
    let read = file.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
    if read == 0 {
        return Ok(None);
    }
    if line.ends_with(b"\n") || u64::try_from(read).is_ok_and(|read| read < MAX_LINE_BYTES) {
        return Ok(Some(Ok(line)));
    }
    file.skip_until(b'\n')?;
    Ok(Some(Err(format!("longer than {MAX_LINE_BYTES} bytes: a line holds one batch"))))
}

/// Returns how the canary of a file is judged; nothing if something is wrong with the file, which is told.
fn judge_of(path: &Path) -> anyhow::Result<Option<JudgeConfig>> {
    let Some(set) = lint(path)? else { return Ok(None) };
    let mut canaries = set.canaries();
    match (canaries.next(), canaries.next()) {
        (Some((_, canary)), None) => Ok(Some(JudgeConfig { attempt: Some(NonZeroU32::MIN), ..canary.judge.clone() })),
        (None, _) => Err(Wrong(format!("{} has no Canary", path.display())).into()),
        (Some(_), Some(_)) => {
            Err(Wrong(format!("{} has several canaries, give a file with one", path.display())).into())
        }
    }
}
