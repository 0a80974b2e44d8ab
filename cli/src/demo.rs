//! `wingbeat demo`.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use wingbeat_demo::scene::{Outcome as Played, Scenario, Scene, Sight};
use wingbeat_demo::summary::{Ended, Summary};

use crate::output::{Format, Outcome, complain, emit, lasting, print_line};

use lines::Lines;
use screen::Screen;

mod lines;
mod screen;

/// Example: wingbeat demo --scenario errors --rps 1000 --weight 5
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: wingbeat demo --scenario errors --canary-errors 25% --primary-errors 1%")]
pub(crate) struct Args {
    /// What goes wrong
    #[arg(long, value_enum, default_value = "errors")]
    scenario: ScenarioName,
    /// Requests a second
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    rps: u32,
    /// Percent of traffic that the canary gets; the primary needs some to be compared with
    #[arg(long, default_value_t = 5, value_parser = weight)]
    weight: u8,
    /// Share of the canary's requests that fail
    #[arg(long, default_value = "100%", value_parser = share)]
    canary_errors: f64,
    /// Share of the primary's requests that fail
    #[arg(long, default_value = "0%", value_parser = share)]
    primary_errors: f64,
    /// How much later a slow canary answers
    #[arg(long, default_value_t = 1_000)]
    latency_ms: u64,
    /// Users give up after this time; without it they wait
    #[arg(long, value_parser = duration)]
    patience: Option<Duration>,
    /// From the moment that the share flows to the fault; 0: broken from its first request
    #[arg(long, default_value = "2s", value_parser = duration)]
    fault_after: Duration,
    /// A rollout that takes longer is given up
    #[arg(long, default_value = "120s", value_parser = duration)]
    max_duration: Duration,
    /// Decides which requests fail
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// An Envoy to use instead of installing one
    #[arg(long, env = "WINGBEAT_ENVOY")]
    envoy: Option<PathBuf>,
    /// text or json
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ScenarioName {
    Errors,
    Latency,
    Hang,
    Stall,
    Ab,
    Promote,
    NoTraffic,
}

/// Plays the scene and says what it came to.
pub(crate) async fn run(args: Args) -> anyhow::Result<Outcome> {
    let scene = Scene {
        scenario: match args.scenario {
            ScenarioName::Errors => Scenario::Errors,
            ScenarioName::Latency => Scenario::Latency,
            ScenarioName::Hang => Scenario::Hang,
            ScenarioName::Stall => Scenario::Stall,
            ScenarioName::Ab => Scenario::Ab,
            ScenarioName::Promote => Scenario::Promote,
            ScenarioName::NoTraffic => Scenario::NoTraffic,
        },
        rps: args.rps,
        weight: args.weight,
        canary_errors: args.canary_errors,
        primary_errors: args.primary_errors,
        latency: Duration::from_millis(args.latency_ms),
        patience: args.patience,
        fault_after: args.fault_after,
        max_duration: args.max_duration,
        seed: args.seed,
        envoy: args.envoy,
    };
    let title = format!("{} at {} requests a second", scene.scenario.as_str(), scene.rps);
    let played = match args.output {
        Format::Text if let Some(screen) = Screen::open(title) => {
            let show = |sight: Sight<'_>| screen.show(sight);
            let played = to_the_end(scene.play(wingbeat::FILTER, &show)).await;
            screen.close();
            played?
        }
        Format::Text => to_the_end(scene.play(wingbeat::FILTER, &Lines::new(print_line).spectator())).await?,
        // For a script, standard output has the summary alone.
        Format::Json | Format::Yaml => {
            to_the_end(scene.play(wingbeat::FILTER, &Lines::new(complain).spectator())).await?
        }
    };
    let Some(played) = played else { return Ok(Outcome::Unmet) };
    match args.output {
        Format::Text => print_line(&in_words(&played))?,
        Format::Json | Format::Yaml => emit(args.output, &played.summary)?,
    }
    Ok(if played.as_it_should { Outcome::Done } else { Outcome::Unmet })
}

/// Plays until the end, or until somebody interrupts: then nothing comes of it, and everything that was started ends.
async fn to_the_end(played: impl Future<Output = anyhow::Result<Played>>) -> anyhow::Result<Option<Played>> {
    tokio::select! {
        played = played => played.map(Some),
        Ok(()) = tokio::signal::ctrl_c() => Ok(None),
    }
}

fn headline(summary: &Summary) -> String {
    let failed = format!("{} of {} requests failed", thousands(summary.failed_requests), thousands(summary.requests));
    match (summary.result, summary.fault_to_verdict_ms) {
        (Ended::RolledBack, Some(ms)) => format!("ROLLED BACK {ms} ms after the fault: {failed}"),
        (Ended::RolledBack, None) => {
            format!("ROLLED BACK without a fault, {} after the rollout began", lasting(summary.duration_ms))
        }
        (Ended::Promoted, _) => {
            format!("PROMOTED {} after the rollout began: {failed}", lasting(summary.duration_ms))
        }
        (Ended::NoData, _) => format!("NOT DECIDED within {}: {failed}", lasting(summary.duration_ms)),
    }
}

/// Returns a number with a comma after every three digits, as the reasons write them.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

fn in_words(played: &Played) -> String {
    let Summary { fault_to_verdict_ms, fault_to_last_canary_request_ms, canary_requests_after_fault, .. } =
        played.summary;
    let mut lines = vec![String::new(), headline(&played.summary), played.reason.clone()];
    if let (Some(verdict), Some(last), Some(requests)) =
        (fault_to_verdict_ms, fault_to_last_canary_request_ms, canary_requests_after_fault)
    {
        lines.push(format!("from the fault to the verdict            {verdict:>6} ms"));
        lines.push(format!("from the fault to the last canary request{last:>6} ms, {requests} requests"));
    }
    lines.push(format!(
        "users lost {} of {} requests: {} to the canary, {} to the primary, {} unanswered",
        thousands(played.summary.failed_requests),
        thousands(played.summary.requests),
        thousands(played.summary.failed_requests_canary.saturating_sub(played.unanswered)),
        thousands(played.summary.failed_requests_primary),
        thousands(played.unanswered)
    ));
    let (answered, sent) = played.answered;
    if answered.saturating_mul(10) < sent.saturating_mul(9) {
        lines.push(format!(
            "this machine is too slow for {} requests a second: {answered} of {sent} were answered when the load ended; try a \
             smaller --rps",
            played.summary.rps
        ));
    }
    let verdict = if played.as_it_should { "as it should" } else { "NOT as it should" };
    lines.push(format!("the scenario {} ended {verdict}", played.summary.scenario));
    lines.join("\n")
}

fn weight(text: &str) -> Result<u8, String> {
    match text.strip_suffix('%').unwrap_or(text).parse() {
        Ok(percent @ 1..=99) => Ok(percent),
        Ok(100) => {
            Err("with 100 nothing is left for the primary, and so nothing to compare the canary with; use 99 or less"
                .to_owned())
        }
        Ok(_) | Err(_) => Err("write a number of percent from 1 to 99".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').and_then(|number| number.parse::<f64>().ok());
    match number {
        Some(percent) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
        Some(_) | None => Err("write a share from 0% to 100%, for example 5%".to_owned()),
    }
}

/// Reads a time as people write it.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a time like 500ms, 2s or 1m".to_owned();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000)];
    let found = units.into_iter().find_map(|(unit, millis)| Some((text.strip_suffix(unit)?, millis)));
    let (number, millis) = found.ok_or_else(wrong)?;
    let number: u64 = number.parse().map_err(|_| wrong())?;
    number.checked_mul(millis).map(Duration::from_millis).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn played(result: Ended, fault_to_verdict_ms: Option<u64>) -> Played {
        let summary = Summary {
            scenario: "errors",
            result,
            rps: 1_000,
            weight_at_fault: None,
            fault_to_verdict_ms,
            fault_to_last_canary_request_ms: None,
            canary_requests_after_fault: None,
            requests: 3_155,
            failed_requests: 7,
            failed_requests_canary: 6,
            failed_requests_primary: 1,
            misrouted: 0,
            false_verdicts: 0,
            duration_ms: 132_340,
        };
        let reason = "the canary fails".to_owned();
        Played { summary, reason, as_it_should: true, unanswered: 2, answered: (3_150, 3_155) }
    }

    #[test]
    fn the_end_is_told_in_a_headline() {
        for (result, fault, headline) in [
            (Ended::RolledBack, Some(153), "ROLLED BACK 153 ms after the fault: 7 of 3,155 requests failed"),
            (Ended::RolledBack, None, "ROLLED BACK without a fault, 2 min 12 s after the rollout began"),
            (Ended::Promoted, None, "PROMOTED 2 min 12 s after the rollout began: 7 of 3,155 requests failed"),
            (Ended::NoData, None, "NOT DECIDED within 2 min 12 s: 7 of 3,155 requests failed"),
        ] {
            assert_eq!(in_words(&played(result, fault)).lines().nth(1), Some(headline));
        }
        let words = in_words(&played(Ended::RolledBack, Some(153)));
        assert!(words.contains(": 4 to the canary, 1 to the primary, 2 unanswered"), "{words}");
        assert!(!words.contains("too slow"), "{words}");
        let slow = in_words(&Played { answered: (169, 1_000), ..played(Ended::RolledBack, Some(153)) });
        assert!(slow.contains("too slow for 1000 requests a second: 169 of 1000 were answered"), "{slow}");
    }

    #[test]
    fn large_numbers_are_written_as_in_reasons() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn times_and_shares_are_read_as_people_write_them() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("1m"), Ok(Duration::from_mins(1)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert!(duration("2").is_err() && duration("s").is_err() && duration("-1s").is_err());
        assert_eq!((weight("5"), weight("99%")), (Ok(5), Ok(99)));
        assert!(weight("100").is_err_and(|why| why.contains("nothing to compare")));
        assert!(weight("0").is_err() && weight("101").is_err() && weight("x").is_err());
        assert!(share("5%").is_ok_and(|share| (share - 0.05).abs() < 1e-12));
        assert!(share("5").is_err() && share("101%").is_err() && share("NaN%").is_err());
    }
}
