//! Flagger's checks: a metric of the last interval against a range.
//!
//! They decide in the modes `guard` and `thresholds`. Two things differ from Flagger's queries: counts are those of the
//! filters, so that failures of gRPC count too, and no request is seen through a sample of fifteen seconds.

use alloc::format;
use alloc::string::{String, ToString as _};

use serde::{Deserialize, Serialize};

use super::sequential::count;
use super::signal::SignalMode;
use crate::counts::Counts;
use crate::id::CanaryName;
use crate::time::Span;

/// A check of one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// What is measured.
    pub metric: Metric,
    /// What is good.
    pub range: Range,
    /// Over which time up to now.
    pub interval: Span,
    /// What a value that is not good comes to.
    #[serde(default)]
    pub mode: SignalMode,
}

/// What is measured of the canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Metric {
    /// Percent of requests where the server is not to blame.
    SuccessRate,
    /// The latency that 99 of 100 requests keep, in milliseconds.
    Duration,
}

/// A range, both ends included. Without ends it holds everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// The lowest good value.
    pub min: Option<f64>,
    /// The highest good value.
    pub max: Option<f64>,
}

/// What came of a look at a metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckResult {
    /// The value is in its range.
    Passed,
    /// It is not; the text of the event.
    Failed(String),
    /// There is no value; the text of the event.
    NoValues(String),
    /// It is in its range, and made of next to no requests; the text of the event.
    TooFew(String),
}

impl Metric {
    /// Returns the metric of this name.
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "request-success-rate" => Some(Self::SuccessRate),
            "request-duration" => Some(Self::Duration),
            _ => None,
        }
    }

    /// Returns Flagger's name for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SuccessRate => "request-success-rate",
            Self::Duration => "request-duration",
        }
    }

    /// Returns how many requests a value is made of.
    pub fn requests(self, counts: &Counts) -> u64 {
        match self {
            Self::SuccessRate => counts.judged(),
            Self::Duration => counts.latency.count(),
        }
    }

    /// Returns the value, in percent or milliseconds, if there is one.
    pub fn value(self, counts: &Counts) -> Option<f64> {
        match self {
            Self::SuccessRate => {
                let requests = counts.judged();
                (requests > 0).then(|| 100.0 * (1.0 - count(counts.errors()) / count(requests)))
            }
            Self::Duration => counts.latency.quantile(0.99).map(|(low, high)| (count(low) + count(high)) / 2_000.0),
        }
    }
}

impl Check {
    /// Returns whether the canary's requests pass, with Flagger's text if they do not. No requests do not pass, and fewer
    /// than `min_requests_for` do not either: one success is no success rate. A few failures fail, as in Flagger.
    pub fn passes(
        &self,
        canary: &CanaryName,
        target: &str,
        provider: &str,
        counts: &Counts,
        least: u64,
    ) -> CheckResult {
        let Some(value) = self.metric.value(counts) else {
            let namespace = &canary.namespace;
            let more = match self.metric {
                Metric::SuccessRate => ": running query failed: no values found",
                Metric::Duration => "",
            };
            return CheckResult::NoValues(format!(
                "Halt advancement no values found for {provider} metric {} probably {target}.{namespace} is not \
                 receiving traffic{more}",
                self.metric.as_str()
            ));
        };
        let Range { min, max } = self.range;
        let crossed = match (min.filter(|min| value < *min), max.filter(|max| value > *max)) {
            (Some(min), _) => Some(('<', min)),
            (None, Some(max)) => Some(('>', max)),
            (None, None) => None,
        };
        let Some((sign, bound)) = crossed else { return self.passes_by(self.metric.requests(counts), canary, least) };
        CheckResult::Failed(match self.metric {
            Metric::SuccessRate => format!("Halt {canary} advancement success rate {value:.2}% {sign} {bound}%"),
            Metric::Duration => {
                let (value, bound) = (go_duration(value), go_duration(libm::trunc(bound)));
                format!("Halt {canary} advancement request duration {value} {sign} {bound}")
            }
        })
    }

    fn passes_by(&self, requests: u64, canary: &CanaryName, least: u64) -> CheckResult {
        if requests >= least {
            return CheckResult::Passed;
        }
        let (metric, interval) = (self.metric.as_str(), go_duration(self.interval.as_secs_f64() * 1e3));
        CheckResult::TooFew(format!(
            "Halt {canary} advancement {requests} requests in the last {interval} are too few for {metric}: {least} are \
             needed"
        ))
    }
}

/// Returns milliseconds as Go writes them.
fn go_duration(millis: f64) -> String {
    let trimmed = |text: String| -> String {
        if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_string() } else { text }
    };
    if millis >= 60_000.0 {
        let minutes = libm::floor(millis / 60_000.0);
        let rest = trimmed(format!("{:.3}", (millis - minutes * 60_000.0) / 1_000.0));
        format!("{minutes}m{rest}s")
    } else if millis >= 1_000.0 {
        format!("{}s", trimmed(format!("{:.3}", millis / 1_000.0)))
    } else {
        format!("{}ms", trimmed(format!("{millis:.3}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome;

    fn check(metric: Metric, min: Option<f64>, max: Option<f64>) -> Check {
        Check { metric, range: Range { min, max }, interval: Span::from_secs(60), mode: SignalMode::Judge }
    }

    fn told(check: &Check, counts: &Counts) -> CheckResult {
        check.passes(&CanaryName::new("prod", "backend"), "backend", "envoy", counts, 20)
    }

    fn counts(good: u64, bad: u64, latency_us: u64) -> Counts {
        let mut counts = Counts::default();
        counts.outcomes[Outcome::Success.index()] = good;
        counts.outcomes[Outcome::ServerFault.index()] = bad;
        for _ in 0..good + bad {
            counts.latency.record(latency_us);
        }
        counts
    }

    #[test]
    fn texts_are_flaggers() {
        let rate = check(Metric::SuccessRate, Some(99.0), None);
        assert_eq!(
            told(&rate, &counts(6_917, 3_083, 1)),
            CheckResult::Failed("Halt backend.prod advancement success rate 69.17% < 99%".into())
        );
        assert_eq!(told(&rate, &counts(99, 1, 1)), CheckResult::Passed, "bounds are included");
        let duration = check(Metric::Duration, None, Some(500.9));
        let CheckResult::Failed(text) = told(&duration, &counts(100, 0, 1_515_000)) else { panic!("too slow") };
        let value = text.strip_prefix("Halt backend.prod advancement request duration 1.5").unwrap();
        assert!(value.ends_with("s > 500ms"), "{text}");
        assert_eq!(told(&check(Metric::Duration, None, None), &counts(20, 0, 9_000_000)), CheckResult::Passed);
    }

    #[test]
    fn no_requests_do_not_pass() {
        let rate = check(Metric::SuccessRate, Some(99.0), None);
        let text = "Halt advancement no values found for envoy metric request-success-rate probably backend.prod is \
                    not receiving traffic: running query failed: no values found";
        assert_eq!(told(&rate, &Counts::default()), CheckResult::NoValues(text.into()));
    }

    #[test]
    fn next_to_no_requests_do_not_pass() {
        let rate = check(Metric::SuccessRate, Some(99.0), None);
        let text = "Halt backend.prod advancement 19 requests in the last 1m0s are too few for request-success-rate: 20 are needed";
        assert_eq!(told(&rate, &counts(19, 0, 1)), CheckResult::TooFew(text.into()));
        assert!(matches!(told(&rate, &counts(18, 1, 1)), CheckResult::Failed(_)));
        assert_eq!(told(&rate, &counts(20, 0, 1)), CheckResult::Passed);
        assert!(matches!(told(&check(Metric::Duration, None, Some(500.0)), &counts(1, 0, 1)), CheckResult::TooFew(_)));
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        for (millis, text) in
            [(0.25, "0.25ms"), (500.0, "500ms"), (1_515.0, "1.515s"), (60_000.0, "1m0s"), (92_500.0, "1m32.5s")]
        {
            assert_eq!(go_duration(millis), text);
        }
    }
}
