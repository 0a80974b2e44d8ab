//! Traffic of both arms, drawn as counts.

use std::collections::BTreeMap;

use wingbeat_core::analysis::window::{Arms, Batch, WINDOW};
use wingbeat_core::counts::{Cohorts, Counts, PodCounts};
use wingbeat_core::histogram::Histogram;
use wingbeat_core::outcome::Outcome;
use wingbeat_core::time::Timestamp;

use crate::simulation::draw::Draw;

/// The share of the primary's requests of which the pod is reported; of the canary's and of errors all are.
const POD_SAMPLE: f64 = 1.0 / 16.0;

/// How one arm answers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Answers {
    /// The share of requests that fail.
    pub errors: f64,
    /// Errors come in bursts of this mean length, geometrically distributed; 0 or 1: each by itself.
    pub burst: f64,
    /// The pods, each with its errors as a multiple of the arm's. Without any, requests are drawn together.
    pub pods: Vec<f64>,
    /// How long requests take, where it is known.
    pub latency: Option<Law>,
    /// Shares of what is neither a success nor an error.
    pub besides: Besides,
}

/// A law of latencies: log-normal, with a share that takes longer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Law {
    /// Median in microseconds.
    pub median_us: f64,
    /// Standard deviation of the logarithm.
    pub sigma: f64,
    /// This share of requests takes so many times as long.
    pub tail: (f64, f64),
}

impl Law {
    /// Returns the law of the reference tables: σ = 0.7.
    pub const fn of(median_us: f64) -> Self {
        Self { median_us, sigma: 0.7, tail: (0.0, 1.0) }
    }

    /// Returns a latency in microseconds.
    pub fn draw(self, draw: &mut Draw) -> f64 {
        let latency = draw.log_normal(self.median_us, self.sigma);
        let (share, times) = self.tail;
        if share > 0.0 && draw.share() < share { latency * times } else { latency }
    }
}

/// Shares of requests that end otherwise, or took more than one attempt.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Besides {
    /// Answered with 3xx.
    pub redirects: f64,
    /// Answered with 4xx.
    pub client_faults: f64,
    /// Their client left before an answer.
    pub left: f64,
    /// Tried more than once.
    pub retried: f64,
}

impl Answers {
    /// Returns answers of which this share are errors, each by itself.
    pub fn failing(errors: f64) -> Self {
        Self { errors, ..Self::default() }
    }

    /// Returns answers that take so long, of which this share are errors.
    pub fn taking(errors: f64, law: Law) -> Self {
        Self { errors, latency: Some(law), ..Self::default() }
    }
}

/// A load and a rate of errors that rise and fall for both arms: an Ornstein–Uhlenbeck process in their logarithms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wave {
    /// Standard deviation of the logarithm of the error rate.
    pub errors: f64,
    /// Standard deviation of the logarithm of the load.
    pub load: f64,
    /// Seconds in which it forgets.
    pub tau: f64,
}

/// Requests of both arms, by chance.
#[derive(Debug, Clone)]
pub struct Traffic {
    /// The random numbers of this world.
    pub draw: Draw,
    /// Requests a second, of both arms.
    pub rps: f64,
    /// The primary.
    pub primary: Answers,
    /// The canary.
    pub canary: Answers,
    /// Pods are in the reports.
    pub reports_pods: bool,
    wave: Option<Wave>,
    state: f64,
}

impl Traffic {
    /// Returns traffic of this load.
    pub fn new(seed: u64, rps: f64, primary: Answers, canary: Answers) -> Self {
        Self { draw: Draw::new(seed), rps, primary, canary, wave: None, reports_pods: true, state: 0.0 }
    }

    /// Lets both arms rise and fall.
    pub fn with_wave(self, wave: Wave) -> Self {
        Self { wave: Some(wave), ..self }
    }

    /// Returns a window in which the canary has this share.
    pub fn window(&mut self, share: f64, end: Timestamp) -> Batch {
        let (mut load, mut errors) = (1.0, 1.0);
        if let Some(wave) = self.wave {
            let kept = libm::exp(-WINDOW.as_secs_f64() / wave.tau);
            self.state = self.state * kept + libm::sqrt(1.0 - kept * kept) * self.draw.normal();
            load = libm::exp(wave.load * self.state);
            errors = libm::exp(wave.errors * self.state);
        }
        let requests = self.rps * WINDOW.as_secs_f64() * load;
        let canary = self.draw.poisson(requests * share);
        let primary = self.draw.poisson(requests * (1.0 - share));
        let draw = &mut self.draw;
        let mut primary = answered(draw, primary, &self.primary, errors, POD_SAMPLE, "p");
        let mut canary = answered(draw, canary, &self.canary, errors, 1.0, "c");
        if !self.reports_pods {
            primary.pods.clear();
            canary.pods.clear();
        }
        batch(end, primary, canary)
    }
}

/// Returns a window of these requests.
pub fn batch(end: Timestamp, primary: Counts, canary: Counts) -> Batch {
    Batch { end, span: WINDOW, judged: Arms { primary, canary }, ..Batch::default() }
}

/// Returns requests of which so many fail; all ended in the window in which they began.
pub fn counts(requests: u64, errors: u64) -> Counts {
    let errors = errors.min(requests);
    let mut counts = Counts {
        started: requests,
        finished: requests,
        cohorts: Cohorts { finished: requests, errors, ..Cohorts::default() },
        ..Counts::default()
    };
    let classes = [(Outcome::Success, requests - errors), (Outcome::ServerFault, errors)];
    for (outcome, count) in classes {
        if let Some(held) = counts.outcomes.get_mut(outcome.index()) {
            *held = count;
        }
    }
    counts
}

/// Gives requests their latencies.
pub fn with_latency(mut counts: Counts, latencies: impl Iterator<Item = f64>) -> Counts {
    let mut micros: Vec<u64> = latencies.map(|latency| latency as u64).collect();
    // Bins come in order: each is put at the end, not in the middle.
    micros.sort_unstable();
    let mut latency = Histogram::new();
    for value in micros {
        latency.record(value);
        counts.latency_sum_us += value;
    }
    counts.cohorts.latency.clone_from(&latency);
    counts.latency = latency;
    counts
}

fn answered(draw: &mut Draw, requests: u64, answers: &Answers, multiple: f64, sample: f64, name: &str) -> Counts {
    let rate = (answers.errors * multiple).min(1.0);
    let mut counts = if answers.pods.is_empty() {
        let failed = errors(draw, requests, rate, answers.burst);
        counts(requests, failed)
    } else {
        by_pod(draw, requests, answers, rate, sample, name)
    };
    if answers.besides != Besides::default() {
        besides(draw, &mut counts, answers.besides);
    }
    if let Some(law) = answers.latency {
        counts = with_latency(counts, (0..requests).map(|_| law.draw(draw)));
    }
    counts
}

/// Lets some of the successes end otherwise.
fn besides(draw: &mut Draw, counts: &mut Counts, besides: Besides) {
    let classes = [
        (Outcome::Redirect, besides.redirects),
        (Outcome::ClientFault, besides.client_faults),
        (Outcome::DisconnectBeforeResponse, besides.left),
    ];
    for (outcome, share) in classes {
        let taken = draw.binomial(counts.outcome(Outcome::Success), share);
        for (class, change) in [(outcome, taken), (Outcome::Success, taken.wrapping_neg())] {
            if let Some(held) = counts.outcomes.get_mut(class.index()) {
                *held = held.wrapping_add(change);
            }
        }
    }
    counts.retried = draw.binomial(counts.finished, besides.retried);
    counts.extra_attempts = counts.retried;
    counts.cohorts.finished = counts.judged();
}

/// Returns how many of so many requests fail.
fn errors(draw: &mut Draw, requests: u64, rate: f64, burst: f64) -> u64 {
    if burst <= 1.0 {
        return draw.binomial(requests, rate);
    }
    let bursts = draw.poisson(requests as f64 * rate / burst);
    (0..bursts).map(|_| draw.length(burst)).sum::<u64>().min(requests)
}

fn by_pod(draw: &mut Draw, requests: u64, answers: &Answers, rate: f64, sample: f64, name: &str) -> Counts {
    let (mut left, mut failed) = (requests, 0);
    let mut pods = BTreeMap::new();
    let all = answers.pods.len();
    for (place, multiple) in answers.pods.iter().enumerate() {
        let here = draw.binomial(left, 1.0 / (all - place) as f64);
        left -= here;
        let bad = errors(draw, here, rate * multiple, answers.burst);
        failed += bad;
        let sampled = if sample < 1.0 { draw.binomial(here, sample) } else { here };
        if sampled > 0 || bad > 0 {
            pods.insert(format!("{name}{place}"), PodCounts { finished: sampled, errors: bad, slow: 0 });
        }
    }
    Counts { pods, ..counts(requests, failed) }
}
