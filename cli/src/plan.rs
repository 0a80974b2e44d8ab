//! `wingbeat plan`.

use std::path::PathBuf;

use wingbeat_control::forecast::{ForecastAssumptions, forecast};

use crate::check::lint;
use crate::client::Name;
use crate::output::{Format, Outcome, Wrong, emit, print};

mod text;

/// Most requests a second that are planned for.
const MAX_RPS: f64 = 1e7;
/// Longest latency in milliseconds: an hour.
const MAX_MS: f64 = 3_600_000.0;

/// Which rollout, and what its traffic is like.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example: wingbeat plan deploy/examples/backend.yaml --rps 1000 --error-rate 1% --latency-ms 20,100"
)]
pub(crate) struct Args {
    /// A file with the Canary and its Workload
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Which one, if the file has several
    #[arg(long, value_name = "NAMESPACE/NAME")]
    name: Option<Name>,
    /// Requests a second at the host; of an A/B test, those that match
    #[arg(long, value_name = "N", value_parser = rps, allow_hyphen_values = true)]
    rps: f64,
    /// Share of the primary's requests that fail. In the JSON output rates are numbers: 0.01 for 1%
    #[arg(long, value_name = "PERCENT", value_parser = share, allow_hyphen_values = true)]
    error_rate: f64,
    /// Median and 99 % quantile of the primary's latency; without it, latency is left out
    #[arg(long, value_name = "MEDIAN,P99", value_parser = latency, allow_hyphen_values = true)]
    latency_ms: Option<(f64, f64)>,
    /// text, json or yaml
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
}

/// Says what a rollout will be like.
pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let Some(set) = lint(&args.file)? else { return Ok(Outcome::BadInput) };
    let setup = set.desired_state(None);
    let mut wanted = setup
        .canaries
        .iter()
        .filter(|(canary, _)| args.name.as_ref().is_none_or(|name| name.is(&canary.namespace, &canary.name)));
    let (Some((name, managed)), None) = (wanted.next(), wanted.next()) else {
        let why =
            format!("{} has not exactly one such Canary with its Workload: name it with --name", args.file.display());
        return Err(Wrong(why).into());
    };
    let assumed = ForecastAssumptions { rps: args.rps, error_rate: args.error_rate, latency_ms: args.latency_ms };
    let told = forecast(managed, &assumed);
    match args.output {
        Format::Text => print(&text::text(name, &assumed, &told))?,
        Format::Json | Format::Yaml => emit(args.output, &told)?,
    }
    Ok(Outcome::Done)
}

fn rps(text: &str) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|rps| *rps > 0.0 && *rps <= MAX_RPS);
    number.ok_or_else(|| format!("{text:?} is no number of requests a second, use one above 0, at most {MAX_RPS}"))
}

/// Takes `1%`.
fn share(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    let share = number.filter(|percent| (0.0..100.0).contains(percent)).map(|percent| percent / 100.0);
    share.ok_or_else(|| {
        format!("{text:?} is no share of requests that may fail, write one from 0% to below 100%, like 1%")
    })
}

/// Takes `20,100`.
fn latency(text: &str) -> Result<(f64, f64), String> {
    let numbers = text
        .split_once(',')
        .and_then(|(median, p99)| Some((median.trim().parse::<f64>().ok()?, p99.trim().parse::<f64>().ok()?)));
    let usable = |ms: f64| ms > 0.0 && ms <= MAX_MS;
    match numbers {
        Some((median, p99)) if usable(median) && usable(p99) && median <= p99 => Ok((median, p99)),
        Some((median, p99)) if usable(median) && usable(p99) => {
            Err(format!("the 99 % quantile {p99} is below the median {median}, write the median first, like 20,100"))
        }
        Some(_) | None => Err(format!(
            "{text:?} is no latency, write median and 99 % quantile in milliseconds, above 0 and at most {MAX_MS}, like \
             20,100"
        )),
    }
}
