//! Traffic that is drawn as counts, from a seed: the same on every machine.

use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Binomial, Distribution as _, Poisson};
use rand_pcg::Pcg64Mcg;
use wingbeat_core::counts::{Cohorts, Counts, PodCounts};
use wingbeat_core::histogram::{Histogram, bin_of, bounds};
use wingbeat_core::id::Rev;
use wingbeat_core::outcome::Outcome;

/// A law is cut off so many standard deviations from its median: beyond it is one request in a thousand million.
const MAX_Z: f64 = 6.0;
/// The standard normal deviate of a quantile of 99 %.
const P99: f64 = 2.326_347_874_040_841;
/// Filters read the address of one primary request in so many, and of each of the canary.
const POD_SAMPLE: u64 = 16;

/// A stream of random numbers.
#[derive(Debug, Clone)]
pub(crate) struct Draw(Pcg64Mcg);

/// How one arm answers.
#[derive(Debug, Clone)]
pub(crate) struct Answers {
    /// The share of requests that fail.
    pub(crate) errors: f64,
    /// How long requests take, where it is known.
    pub(crate) latency: Option<Bins>,
    /// Its pods, of which each has the same share.
    pub(crate) pods: usize,
    /// One request in so many has its pod reported.
    pub(crate) pod_sample: u64,
}

/// A log-normal law of latencies, by the bins that filters count in.
#[derive(Debug, Clone)]
pub(crate) struct Bins {
    /// Each bin with the chance of a request to be in it or in one before it; the last chance is 1.
    upto: Vec<(u16, f64)>,
}

impl Draw {
    /// Returns the stream of a seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self(Pcg64Mcg::seed_from_u64(seed))
    }

    /// Returns how many happen where `mean` are expected.
    pub(crate) fn poisson(&mut self, mean: f64) -> u64 {
        // Means that are no number of requests have no law, and nothing happens.
        Poisson::new(mean).map_or(0, |law| whole(law.sample(&mut self.0)))
    }

    fn binomial(&mut self, n: u64, p: f64) -> u64 {
        Binomial::new(n, p.clamp(0.0, 1.0)).map_or(0, |law| law.sample(&mut self.0))
    }

    fn share(&mut self) -> f64 {
        self.0.random()
    }
}

impl Answers {
    /// Returns the answers of a primary, of whose pods filters see a sample.
    pub(crate) fn of_primary(errors: f64, latency: Option<Bins>, pods: usize) -> Self {
        Self { errors, latency, pods, pod_sample: POD_SAMPLE }
    }

    /// Returns the answers of a canary.
    pub(crate) fn of_canary(errors: f64, latency: Option<Bins>, pods: usize) -> Self {
        Self { errors, latency, pods, pod_sample: 1 }
    }

    /// Returns what so many requests came to. All have ended in the window in which they began.
    pub(crate) fn draw(&self, draw: &mut Draw, requests: u64, rev: Rev) -> Counts {
        let errors = draw.binomial(requests, self.errors);
        let mut counts =
            Counts { started: requests, finished: requests, rev, rev_started: requests, ..Counts::default() };
        for (outcome, count) in [(Outcome::Success, requests.saturating_sub(errors)), (Outcome::ServerFault, errors)] {
            if let Some(held) = counts.outcomes.get_mut(outcome.index()) {
                *held = count;
            }
        }
        if let Some(law) = &self.latency {
            counts.latency = law.draw(draw, requests);
            let micros = counts.latency.iter().map(|(bin, count)| bounds(bin).0.saturating_mul(count));
            counts.latency_sum_us = micros.fold(0, u64::saturating_add);
        }
        counts.cohorts = Cohorts { rev, finished: requests, errors, overdue: 0, latency: counts.latency.clone() };
        self.divide(draw, &mut counts, requests, errors);
        counts
    }

    /// Divides requests among pods, each by chance.
    fn divide(&self, draw: &mut Draw, counts: &mut Counts, requests: u64, errors: u64) {
        let sample = if self.pod_sample > 1 { draw.binomial(requests, 1.0 / real(self.pod_sample)) } else { requests };
        let (mut sample, mut errors) = (sample, errors);
        for place in 0..self.pods {
            let share = 1.0 / real(u64::try_from(self.pods - place).unwrap_or(u64::MAX));
            let (finished, failed) = (draw.binomial(sample, share), draw.binomial(errors, share));
            (sample, errors) = (sample.saturating_sub(finished), errors.saturating_sub(failed));
            if finished > 0 || failed > 0 {
                counts.pods.insert(place.to_string(), PodCounts { finished, errors: failed, slow: 0 });
            }
        }
    }
}

impl Bins {
    /// Returns the law with these quantiles, in microseconds. Equal ones: all requests take as long.
    pub(crate) fn log_normal(median: f64, p99: f64) -> Self {
        let (middle, sigma) = (libm::log(median.max(1.0)), libm::log((p99 / median).max(1.0)) / P99);
        let edge = |deviation: f64| bin_of(whole(libm::exp(middle + deviation * sigma)));
        let (first, last) = (edge(-MAX_Z), edge(MAX_Z));
        let below = |bin: u16| {
            let z = (libm::log(real(bounds(bin).1)) - middle) / sigma;
            if bin == last || sigma <= 0.0 { 1.0 } else { 0.5 * libm::erfc(-z / std::f64::consts::SQRT_2) }
        };
        Self { upto: (first..=last).map(|bin| (bin, below(bin))).collect() }
    }

    /// Returns the latencies of so many requests: one by one where they are few, bin by bin where they are many.
    fn draw(&self, draw: &mut Draw, requests: u64) -> Histogram {
        let bins = u64::try_from(self.upto.len()).unwrap_or(u64::MAX);
        if requests < bins { self.one_by_one(draw, requests) } else { self.bin_by_bin(draw, requests) }
    }

    fn one_by_one(&self, draw: &mut Draw, requests: u64) -> Histogram {
        let place = |draw: &mut Draw| {
            let share = draw.share();
            self.upto.partition_point(|(_, upto)| *upto <= share)
        };
        let mut places: Vec<usize> = (0..requests).map(|_| place(draw)).collect();
        // Bins in their order are each put at the end.
        places.sort_unstable();
        places
            .chunk_by(|a, b| a == b)
            .filter_map(|same| {
                let (bin, _) = self.upto.get(*same.first()?).or_else(|| self.upto.last())?;
                Some((*bin, u64::try_from(same.len()).unwrap_or(u64::MAX)))
            })
            .collect()
    }

    fn bin_by_bin(&self, draw: &mut Draw, requests: u64) -> Histogram {
        let (mut left, mut before) = (requests, 0.0);
        let mut drawn = Vec::new();
        for (bin, upto) in &self.upto {
            let share = if before < 1.0 { (upto - before) / (1.0 - before) } else { 1.0 };
            let here = draw.binomial(left, share);
            (left, before) = (left.saturating_sub(here), *upto);
            if here > 0 {
                drawn.push((*bin, here));
            }
        }
        drawn.into_iter().collect()
    }
}

/// Returns a count as a number to reckon with.
#[expect(clippy::cast_precision_loss, reason = "a share of 2^53 requests is as good")]
pub(crate) const fn real(count: u64) -> f64 {
    count as f64
}

/// Returns a number without its fraction.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative, and the cast saturates")]
pub(crate) const fn whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_have_the_quantiles_that_were_asked_for_however_they_are_drawn() {
        let law = Bins::log_normal(20_000.0, 100_000.0);
        let mut draw = Draw::new(1);
        let mut few = Histogram::new();
        (0..1_000).for_each(|_| few.merge(&law.draw(&mut draw, 200)));
        for drawn in [few, law.draw(&mut draw, 200_000)] {
            assert_eq!(drawn.count(), 200_000);
            for (q, micros) in [(0.5, 20_000.0), (0.99, 100_000.0)] {
                let (low, high) = drawn.quantile(q).unwrap();
                assert!(real(low) < micros * 1.03 && real(high) > micros * 0.97, "p{q}: {low}-{high}");
            }
        }
    }

    #[test]
    fn a_law_without_spread_has_one_bin() {
        let drawn = Bins::log_normal(7_000.0, 7_000.0).draw(&mut Draw::new(1), 50);
        assert_eq!(drawn.iter().collect::<Vec<_>>(), [(bin_of(7_000), 50)]);
    }

    #[test]
    fn requests_and_errors_are_divided_among_pods() {
        let answers = Answers::of_canary(0.5, None, 3);
        let counts = answers.draw(&mut Draw::new(1), 3_000, Rev::new(4));
        assert_eq!(counts.check(), Ok(()));
        assert_eq!(counts.pods.values().map(|pod| pod.finished).sum::<u64>(), 3_000);
        assert_eq!(counts.pods.values().map(|pod| pod.errors).sum::<u64>(), counts.errors());
        assert!(counts.pods.len() == 3 && counts.pods.values().all(|pod| pod.finished.abs_diff(1_000) < 150));
        assert!(counts.errors().abs_diff(1_500) < 150);
        let sampled = Answers::of_primary(0.0, None, 2).draw(&mut Draw::new(1), 16_000, Rev::new(4));
        assert!(sampled.pods.values().map(|pod| pod.finished).sum::<u64>().abs_diff(1_000) < 150);
    }
}
