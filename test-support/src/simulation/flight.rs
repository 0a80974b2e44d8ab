//! Requests that take long: of a new arm, only the short ones have finished.

use std::collections::BTreeMap;

use wingbeat_core::analysis::window::{Batch, WINDOW};
use wingbeat_core::counts::Counts;
use wingbeat_core::histogram::bin_of;
use wingbeat_core::outcome::Outcome;
use wingbeat_core::time::{Span, Timestamp};

use crate::simulation::draw::Draw;
use crate::simulation::rollout::World;
use crate::simulation::traffic::{Law, batch};

/// What speaks for safety.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Known {
    /// Requests of which all contemporaries are known too: finished, or overdue.
    Closed,
    /// Whatever has finished.
    Finished,
}

/// A world in which requests begin in one window and end in another.
#[derive(Debug, Clone)]
pub struct Flight {
    draw: Draw,
    rps: f64,
    errors: f64,
    overdue: Span,
    known: Known,
    /// Primary and canary.
    arms: [Arm; 2],
    /// Before the first window was asked for, the primary had served for a while.
    served: bool,
}

#[derive(Debug, Clone)]
struct Arm {
    law: Law,
    /// What happens, by the window in which it does.
    to_come: BTreeMap<Timestamp, Counts>,
}

/// The primary has served for so long before anyone looks.
const BEFORE: Span = Span::from_secs(90);

impl Flight {
    /// Returns a world where both arms fail equally often, and take so long.
    pub fn new(seed: u64, rps: f64, errors: f64, (primary, canary): (Law, Law), known: Known) -> Self {
        let arm = |law| Arm { law, to_come: BTreeMap::new() };
        // As the engine sets it: four times the primary's p99, within bounds.
        let p99 = primary.median_us * libm::exp(2.326 * primary.sigma);
        let overdue = Span::from_micros((4.0 * p99) as u64).clamp(Span::from_millis(250), Span::from_secs(30));
        let draw = Draw::new(seed);
        Self { draw, rps, errors, overdue, known, arms: [arm(primary), arm(canary)], served: false }
    }

    /// Lets requests of both arms begin in the window that ends then.
    fn begin(&mut self, share: f64, end: Timestamp) {
        let each = self.rps * WINDOW.as_secs_f64();
        for (arm, share) in self.arms.iter_mut().zip([1.0 - share, share]) {
            let requests = self.draw.poisson(each * share);
            arm.begin(&mut self.draw, requests, self.errors, self.overdue, self.known, end);
        }
    }
}

impl World for Flight {
    fn window(&mut self, share: f64, end: Timestamp) -> Batch {
        if !std::mem::replace(&mut self.served, true) {
            let mut early = end.minus(BEFORE);
            while early < end {
                self.begin(0.0, early);
                early = early.plus(WINDOW);
            }
        }
        self.begin(share, end);
        let [primary, canary] = &mut self.arms;
        Batch { overdue: Some(self.overdue), ..batch(end, primary.until(end), canary.until(end)) }
    }
}

impl Arm {
    fn begin(&mut self, draw: &mut Draw, requests: u64, rate: f64, overdue: Span, known: Known, end: Timestamp) {
        let mut cohort = Counts::default();
        let mut closes = end;
        for _ in 0..requests {
            let micros = self.law.draw(draw) as u64;
            let error = draw.share() < rate;
            let began = end.minus(Span::from_nanos(draw.below(WINDOW.as_nanos())));
            let ends = window_of(began.plus(Span::from_micros(micros)));
            let late = Span::from_micros(micros) > overdue;
            let finished = self.to_come.entry(ends).or_default();
            // Requests are attributed when they end, or when they have grown too old.
            finished.started += u64::from(!late);
            finish(finished, micros, error, late);
            if known == Known::Finished {
                close(finished, micros, error);
            }
            let seen = if late {
                let seen = window_of(began.plus(overdue));
                let grown = self.to_come.entry(seen).or_default();
                grown.started += 1;
                grown.overdue += 1;
                cohort.cohorts.overdue += 1;
                seen
            } else {
                close(&mut cohort, micros, error);
                ends
            };
            closes = closes.max(seen);
        }
        if known == Known::Closed {
            self.to_come.entry(closes).or_default().merge(&cohort);
        }
    }

    /// Returns what has happened up to then and was not told yet.
    fn until(&mut self, end: Timestamp) -> Counts {
        let later = self.to_come.split_off(&end.plus(Span::from_nanos(1)));
        let mut all = Counts::default();
        for counts in std::mem::replace(&mut self.to_come, later).into_values() {
            all.merge(&counts);
        }
        all
    }
}

/// Returns the end of the window in which something happens.
fn window_of(at: Timestamp) -> Timestamp {
    at.window_start(WINDOW).plus(WINDOW)
}

fn finish(counts: &mut Counts, micros: u64, error: bool, late: bool) {
    counts.finished += 1;
    let outcome = if error { Outcome::ServerFault } else { Outcome::Success };
    if let Some(held) = counts.outcomes.get_mut(outcome.index()) {
        *held += 1;
    }
    counts.latency.add(bin_of(micros), 1);
    counts.overdue_finished += u64::from(late);
    counts.overdue_errors += u64::from(late && error);
}

fn close(counts: &mut Counts, micros: u64, error: bool) {
    counts.cohorts.finished += 1;
    counts.cohorts.errors += u64::from(error);
    counts.cohorts.latency.add(bin_of(micros), 1);
}
