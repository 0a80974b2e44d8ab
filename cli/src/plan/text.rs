//! A forecast as a person reads it.

use std::fmt::Write as _;

use wingbeat_control::forecast::{Forecast, ForecastAssumptions, ForecastDetection, ForecastStep};
use wingbeat_core::id::CanaryName;

use crate::output::{lasting, table};

/// A step that takes longer is explained.
const LONG_MS: u64 = 10 * 60_000;

/// Returns a forecast in words.
pub(super) fn text(name: &CanaryName, assumed: &ForecastAssumptions, told: &Forecast) -> String {
    let mut out = format!(
        "{}/{} at {} requests a second, of which {} fail{}\n\n",
        name.namespace,
        name.name,
        assumed.rps,
        percent(assumed.error_rate),
        assumed.latency_ms.map_or_else(String::new, |(median, p99)| format!(", p50 {median} ms, p99 {p99} ms")),
    );
    out.push_str(&healthy(told));
    if !told.steps.is_empty() {
        let rows = told
            .steps
            .iter()
            .map(|step| vec![weight(step), lasting(step.duration_ms), step.canary_requests.to_string()]);
        let head = ["WEIGHT", "LASTS", "CANARY REQUESTS"].map(str::to_owned).to_vec();
        out.extend(["\n", &table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())]);
    }
    for step in told.steps.iter().filter(|step| step.duration_ms >= LONG_MS) {
        let why = long(assumed, step);
        out.extend(["\n", &why, "\n"]);
    }
    out.extend(["\n", &regressions(&told.detect)]);
    if let Some(example) = told.detect.iter().find(|detect| is_worth_telling(detect)) {
        out.extend(["\n", &in_words(example), "\n"]);
    }
    if !told.notes.is_empty() {
        out.push('\n');
        told.notes.iter().for_each(|note| out.extend(["Note: ", note, "\n"]));
    }
    out
}

fn healthy(told: &Forecast) -> String {
    if told.healthy_rollouts == 0 {
        return "No rollout was tried.\n".to_owned();
    }
    let (rollouts, back) = (told.healthy_rollouts, told.healthy_rolled_back);
    let mut out = match (told.healthy_duration_ms, told.healthy_p90_ms) {
        (Some(half), Some(most)) => {
            format!("A healthy canary is promoted within {} (half) … {} (9 of 10)", lasting(half), lasting(most))
        }
        (Some(half), None) => format!("Half of the healthy canaries are promoted within {}", lasting(half)),
        (None, _) => "A healthy canary is not promoted within a day".to_owned(),
    };
    let _infallible = writeln!(out, "; {back} of {rollouts} were rolled back.");
    if let Some(word) = &told.stuck {
        let _infallible = writeln!(out, "Some rollouts are undecided after a day. What the judge says then: {word}");
    }
    out
}

fn long(assumed: &ForecastAssumptions, step: &ForecastStep) -> String {
    let share = weight(step);
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let an_hour = step.canary_requests as f64 / (step.duration_ms as f64 / 3_600_000.0);
    format!(
        "At {} rps the step at {share} needs {}, because the canary gets {an_hour:.0} requests an hour there, and {} are needed \
         until the regression that must be detected (judge.mustDetect) would have been seen.",
        assumed.rps,
        lasting(step.duration_ms),
        step.canary_requests,
    )
}

fn regressions(detect: &[ForecastDetection]) -> String {
    let head = ["REGRESSION", "CAUGHT (HALF)", "CAUGHT (9 OF 10)", "MISSED"].map(str::to_owned).to_vec();
    let rows = detect.iter().map(|detect| {
        let caught = |millis: Option<u64>| match (millis, detect.missed) {
            (Some(millis), _) => lasting(millis),
            (None, Some(_)) => "not".to_owned(),
            (None, None) => "-".to_owned(),
        };
        vec![regression(detect), caught(detect.detect_p50_ms), caught(detect.detect_p90_ms), missed(detect)]
    });
    table(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}

/// The one that people ask for: some errors more, and caught as a rule.
fn is_worth_telling(detect: &ForecastDetection) -> bool {
    detect.error_rate.is_some() && detect.detect_p90_ms.is_some()
}

fn in_words(detect: &ForecastDetection) -> String {
    let [half, most] = [detect.detect_p50_ms, detect.detect_p90_ms].map(|millis| lasting(millis.unwrap_or_default()));
    let rate = percent(detect.error_rate.unwrap_or_default());
    let missed = missed(detect);
    format!(
        "A canary that fails {rate} of its requests is caught within {half} (half) … {most} (9 of 10), {missed} missed."
    )
}

fn regression(detect: &ForecastDetection) -> String {
    match (detect.error_rate, detect.latency_factor) {
        (Some(rate), _) => format!("{} errors", percent(rate)),
        (None, Some(times)) => format!("latency × {times}"),
        (None, None) => String::new(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "some hundred rollouts")]
fn missed(detect: &ForecastDetection) -> String {
    let count = |missed: f64| format!("{:.0} of {}", missed * detect.rollouts as f64, detect.rollouts);
    detect.missed.map_or_else(|| "-".to_owned(), count)
}

fn weight(step: &ForecastStep) -> String {
    step.weight.map_or_else(|| "mirrored".to_owned(), |weight| format!("{weight} %"))
}

/// Without the noise of binary fractions: 3 %, not 3.0000000000000004 %.
fn percent(share: f64) -> String {
    let text = format!("{:.4}", share * 100.0);
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_told_without_the_noise_of_floats() {
        assert_eq!(percent(0.03), "3 %");
        assert_eq!(percent(3.0 * 0.0001), "0.03 %");
    }
}
