//! What was counted lately, for the reasons of verdicts.
//!
//! A test that restarts speaks of the time since its loudest copy began; sums since the rollout began would hide it: after
//! an hour of health, a canary that fails a third of its requests for a second has failed as often as the primary. So
//! counts are kept by stretches of time that grow with their age, and a reason tells those of the latest stretches, as
//! many as show best what it claims.
//!
//! Cost: at most [`MAX_STRETCHES`] stretches, each of some hundred bytes, however long a rollout takes.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::guard::{MAX_ERROR_RATE, stalled, with_hangs};
use super::sequential::{Split, count};
use super::test_suite::{attempts, disconnects, errors};
use super::window::{Arms, Batch};
use crate::counts::Counts;
use crate::outcome::Outcome;
use crate::time::Span;

/// Length of the shortest stretch.
const MIN_STRETCH: Span = Span::from_secs(1);

/// So many stretches of about the same length are kept; one more, and the oldest two become one of twice the length.
const STRETCHES_PER_LENGTH: usize = 2;

/// Older stretches are told only if with them the canary has so many times (as a fraction) as many bad requests: health
/// of before makes the primary's share surer, and would hide how bad the canary is.
const MIN_INCREASE: (u64, u64) = (11, 10);

/// So often lengths double: the oldest stretch takes in everything before the last few minutes.
const DOUBLINGS: u32 = 7;

/// The most stretches that are kept, with the one that is not over.
pub(crate) const MAX_STRETCHES: usize = STRETCHES_PER_LENGTH * (DOUBLINGS as usize + 1) + 2;

/// A kind of event that is counted in both arms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventKind {
    /// Errors, out of warm-up.
    Errors,
    /// Errors and hangs, in warm-up too.
    Broken,
    /// Of these, requests that wait for longer than they may.
    Hung,
    /// Of these, requests that got no connection.
    Refused,
    /// Responses that stood still.
    Stalled,
    /// Requests that needed another attempt.
    Retried,
    /// Clients that left.
    Left,
    /// Answers with 3xx.
    Redirects,
    /// Answers with 4xx.
    ClientFaults,
    /// Successes without a body, of those that were looked at.
    Empty,
    /// Requests above the limit of latency.
    AboveLimit,
    /// Requests above the threshold of a quantile, by its place.
    Slow(usize),
    /// A status of gRPC.
    Grpc(u32),
}

/// Kinds that every stretch counts.
const KINDS: usize = 11;

/// What a batch came to that only the tests know: slow requests, by quantile, and above the limit.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slow {
    pub(crate) quantiles: Vec<Split>,
    pub(crate) above_limit: Split,
}

/// Counts by stretches of time, the latest first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecentCounts {
    stretches: Vec<Stretch>,
    /// The age at which requests in flight were counted as overdue last.
    overdue: Option<Span>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Stretch {
    span: Span,
    kinds: [Short; KINDS],
    slow: Vec<Short>,
    /// Those of the canary and of the primary, by status.
    grpc: BTreeMap<u32, (u32, u32)>,
}

/// A [`Split`] in half the room; numbers beyond four billion stay there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "[u32; 4]", into = "[u32; 4]")]
struct Short {
    canary_bad: u32,
    canary: u32,
    primary_bad: u32,
    primary: u32,
}

/// The latest stretches, as many as show best what is claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecentRates {
    /// What was counted.
    pub(crate) split: Split,
    /// Their length; nothing if they are all.
    pub(crate) span: Option<Span>,
}

impl RecentCounts {
    /// Takes in a batch.
    pub(crate) fn add(&mut self, batch: &Batch, warmup: bool, slow: &Slow) {
        self.begin();
        self.overdue = batch.overdue.or(self.overdue);
        let Some(latest) = self.stretches.first_mut() else { return };
        latest.span = latest.span.plus(batch.span);
        let arms = &batch.judged;
        latest.kind(EventKind::Broken, with_hangs(arms));
        latest.kind(EventKind::Hung, of(arms, |counts| counts.overdue.min(counts.judged_and_hangs())));
        latest.kind(EventKind::Stalled, stalled(arms));
        latest.kind(EventKind::Refused, of(arms, |counts| counts.outcome(Outcome::ConnectFailure)));
        if warmup {
            return;
        }
        latest.kind(EventKind::Errors, errors(arms));
        let (canary, primary) = (&arms.canary, &arms.primary);
        let answers = |outcome: Outcome| Split {
            canary_bad: canary.outcome(outcome),
            primary_bad: primary.outcome(outcome),
            ..errors(arms)
        };
        latest.kind(EventKind::Retried, attempts(arms));
        latest.kind(EventKind::Left, disconnects(arms));
        latest.kind(EventKind::Redirects, answers(Outcome::Redirect));
        latest.kind(EventKind::ClientFaults, answers(Outcome::ClientFault));
        let bodies = Split {
            canary_bad: canary.empty,
            canary: canary.sized,
            primary_bad: primary.empty,
            primary: primary.sized,
        };
        latest.kind(EventKind::Empty, bodies);
        latest.kind(EventKind::AboveLimit, slow.above_limit);
        latest.slow.resize(slow.quantiles.len(), Short::default());
        for (held, split) in latest.slow.iter_mut().zip(&slow.quantiles) {
            *held = held.plus(Short::of(*split));
        }
        for (status, more) in &canary.grpc_statuses {
            let held = &mut latest.grpc.entry(*status).or_default().0;
            *held = held.saturating_add(short(*more));
        }
        for (status, more) in &primary.grpc_statuses {
            let held = &mut latest.grpc.entry(*status).or_default().1;
            *held = held.saturating_add(short(*more));
        }
    }

    /// Returns the latest stretches in which the canary does worst beside the primary; nothing if it does in none.
    pub(crate) fn worst(&self, told: EventKind) -> Option<RecentRates> {
        self.latest_by(told, excess)
    }

    /// Returns the latest stretches in which the canary does worst beside a limit; nothing if it keeps it in all.
    pub(crate) fn worst_beside(&self, told: EventKind, limit: f64) -> Option<RecentRates> {
        self.latest_by(told, |split| surprise(split.canary_bad, split.canary, limit))
    }

    fn latest_by(&self, told: EventKind, score: impl Fn(Split) -> f64) -> Option<RecentRates> {
        let (mut sum, mut span) = (Split::default(), Span::ZERO);
        let mut best: Option<(f64, RecentRates)> = None;
        for (place, stretch) in self.stretches.iter().enumerate() {
            sum = sum.plus(stretch.of(told));
            span = span.plus(stretch.span);
            let reached = score(sum);
            // What is older is told only if it adds something: a nat, and bad requests.
            let adds = best.is_none_or(|(most, lately)| {
                let (bad, more) = (lately.split.canary_bad, sum.canary_bad);
                reached > most + 1.0 && more.saturating_mul(MIN_INCREASE.1) >= bad.saturating_mul(MIN_INCREASE.0)
            });
            if reached > 0.0 && adds {
                let is_all = place + 1 == self.stretches.len();
                best = Some((reached, RecentRates { split: sum, span: (!is_all).then_some(span) }));
            }
        }
        best.map(|(_, lately)| lately)
    }

    /// Returns the age at which requests that wait are told of.
    pub(crate) const fn overdue(&self) -> Option<Span> {
        self.overdue
    }

    /// Returns everything that was counted.
    pub(crate) fn whole(&self, told: EventKind) -> RecentRates {
        let split = self.stretches.iter().fold(Split::default(), |sum, stretch| sum.plus(stretch.of(told)));
        RecentRates { split, span: None }
    }

    /// Returns how many ends of stretches there are to choose from.
    pub(crate) const fn choices(&self) -> usize {
        self.stretches.len()
    }

    /// Sees to it that the first stretch is not over.
    fn begin(&mut self) {
        if self.stretches.first().is_none_or(|latest| latest.span >= MIN_STRETCH) {
            self.stretches.insert(0, Stretch::default());
        }
        let mut length = 0;
        while length < DOUBLINGS {
            let is_of = |stretch: &Stretch| doublings(stretch.span) == length;
            let later = self.stretches.iter().skip(1);
            if later.clone().filter(|stretch| is_of(stretch)).count() > STRETCHES_PER_LENGTH
                && let Some(oldest) = self.stretches.iter().rposition(is_of)
                && oldest > 1
            {
                let stretch = self.stretches.remove(oldest);
                if let Some(next) = self.stretches.get_mut(oldest - 1) {
                    next.merge(&stretch);
                }
            } else {
                length += 1;
            }
        }
        // The oldest take in what they were before.
        while self.stretches.len() >= MAX_STRETCHES {
            let Some(oldest) = self.stretches.pop() else { return };
            if let Some(next) = self.stretches.last_mut() {
                next.merge(&oldest);
            }
        }
    }
}

impl Stretch {
    fn kind(&mut self, told: EventKind, split: Split) {
        if let Some(held) = place(told).and_then(|place| self.kinds.get_mut(place)) {
            *held = held.plus(Short::of(split));
        }
    }

    fn of(&self, told: EventKind) -> Split {
        match told {
            EventKind::Slow(quantile) => self.slow.get(quantile).copied().unwrap_or_default().split(),
            EventKind::Grpc(status) => {
                let (canary, primary) = self.grpc.get(&status).copied().unwrap_or_default();
                let all = self.of(EventKind::Errors);
                Split { canary_bad: u64::from(canary), primary_bad: u64::from(primary), ..all }
            }
            EventKind::Errors
            | EventKind::Broken
            | EventKind::Hung
            | EventKind::Refused
            | EventKind::Stalled
            | EventKind::Retried
            | EventKind::Left
            | EventKind::Redirects
            | EventKind::ClientFaults
            | EventKind::Empty
            | EventKind::AboveLimit => {
                place(told).and_then(|place| self.kinds.get(place)).copied().unwrap_or_default().split()
            }
        }
    }

    fn merge(&mut self, other: &Self) {
        self.span = self.span.plus(other.span);
        for (held, more) in self.kinds.iter_mut().zip(&other.kinds) {
            *held = held.plus(*more);
        }
        self.slow.resize(self.slow.len().max(other.slow.len()), Short::default());
        for (held, more) in self.slow.iter_mut().zip(&other.slow) {
            *held = held.plus(*more);
        }
        for (status, (canary, primary)) in &other.grpc {
            let held = self.grpc.entry(*status).or_default();
            *held = (held.0.saturating_add(*canary), held.1.saturating_add(*primary));
        }
    }
}

impl From<[u32; 4]> for Short {
    fn from([canary_bad, canary, primary_bad, primary]: [u32; 4]) -> Self {
        Self { canary_bad, canary, primary_bad, primary }
    }
}

impl From<Short> for [u32; 4] {
    fn from(short: Short) -> Self {
        [short.canary_bad, short.canary, short.primary_bad, short.primary]
    }
}

impl Short {
    fn of(split: Split) -> Self {
        Self {
            canary_bad: short(split.canary_bad),
            canary: short(split.canary),
            primary_bad: short(split.primary_bad),
            primary: short(split.primary),
        }
    }

    fn split(self) -> Split {
        Split {
            canary_bad: u64::from(self.canary_bad),
            canary: u64::from(self.canary),
            primary_bad: u64::from(self.primary_bad),
            primary: u64::from(self.primary),
        }
    }

    const fn plus(self, more: Self) -> Self {
        Self {
            canary_bad: self.canary_bad.saturating_add(more.canary_bad),
            canary: self.canary.saturating_add(more.canary),
            primary_bad: self.primary_bad.saturating_add(more.primary_bad),
            primary: self.primary.saturating_add(more.primary),
        }
    }
}

/// Returns the place of a kind among those that every stretch counts.
const fn place(told: EventKind) -> Option<usize> {
    match told {
        EventKind::Errors => Some(0),
        EventKind::Broken => Some(1),
        EventKind::Hung => Some(2),
        EventKind::Refused => Some(3),
        EventKind::Retried => Some(4),
        EventKind::Left => Some(5),
        EventKind::Redirects => Some(6),
        EventKind::ClientFaults => Some(7),
        EventKind::Empty => Some(8),
        EventKind::AboveLimit => Some(9),
        EventKind::Stalled => Some(10),
        EventKind::Slow(_) | EventKind::Grpc(_) => None,
    }
}

fn of(arms: &Arms, bad: impl Fn(&Counts) -> u64) -> Split {
    Split { canary_bad: bad(&arms.canary), primary_bad: bad(&arms.primary), ..with_hangs(arms) }
}

fn short(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Returns how often the shortest length was doubled to come to this one.
fn doublings(span: Span) -> u32 {
    let times = span.as_millis() / MIN_STRETCH.as_millis().max(1);
    times.checked_ilog2().unwrap_or(0).min(DOUBLINGS)
}

/// Returns how surprising it is that the canary fails so often beside the primary, if it does not fail more often: a
/// log-likelihood ratio. Without requests of the primary, half of them are borne.
fn excess(split: Split) -> f64 {
    if split.primary == 0 {
        return surprise(split.canary_bad, split.canary, MAX_ERROR_RATE);
    }
    let (canary, primary) = (count(split.canary), count(split.primary));
    let (bad, before) = (count(split.canary_bad), count(split.primary_bad));
    if bad * primary <= before * canary {
        return 0.0;
    }
    let pooled = (bad + before) / (canary + primary);
    divergence(bad, canary, pooled) + divergence(before, primary, pooled)
}

/// The same for `bad` of `all` where a share is expected: 0 where there are fewer.
fn surprise(bad: u64, all: u64, share: f64) -> f64 {
    let (bad, all) = (count(bad), count(all));
    if bad <= share * all { 0.0 } else { divergence(bad, all, share) }
}

/// Returns ln of how much likelier `bad` of `all` is at its own share than at another.
fn divergence(bad: f64, all: f64, share: f64) -> f64 {
    let share = share.clamp(1e-9, 1.0 - 1e-9);
    let part = |seen: f64, due: f64| if seen > 0.0 { seen * libm::log(seen / due) } else { 0.0 };
    part(bad, share * all) + part((all - bad).max(0.0), (1.0 - share) * all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Timestamp;

    const WINDOW: Span = Span::from_millis(200);

    fn counts(requests: u64, errors: u64) -> Counts {
        let mut outcomes = [0; 12];
        outcomes[Outcome::Success.index()] = requests - errors;
        outcomes[Outcome::ServerFault.index()] = errors;
        Counts { started: requests, finished: requests, outcomes, ..Counts::default() }
    }

    fn batch(primary: (u64, u64), canary: (u64, u64)) -> Batch {
        let judged = Arms { primary: counts(primary.0, primary.1), canary: counts(canary.0, canary.1) };
        Batch { end: Timestamp::from_millis(1_000_000), span: WINDOW, judged, ..Batch::default() }
    }

    #[test]
    fn nothing_is_lost_and_nothing_grows() {
        let mut account = RecentCounts::default();
        for window in 1..=50_000_u64 {
            account.add(&batch((190, 1), (10, 0)), false, &Slow::default());
            assert!(account.stretches.len() <= MAX_STRETCHES, "{} after {window}", account.stretches.len());
            let all =
                account.stretches.iter().fold(Split::default(), |sum, stretch| sum.plus(stretch.of(EventKind::Errors)));
            assert_eq!((all.primary, all.primary_bad, all.canary), (190 * window, window, 10 * window));
        }
        let latest: Vec<u64> =
            account.stretches.iter().take(5).map(|stretch| stretch.span.as_millis() / 1_000).collect();
        assert!(latest[1..].iter().all(|seconds| *seconds <= 8), "the latest are short: {latest:?}");
    }

    #[test]
    fn the_stretch_that_shows_it_is_found() {
        let mut account = RecentCounts::default();
        for _ in 0..5_000 {
            account.add(&batch((190, 2), (10, 0)), false, &Slow::default());
        }
        assert_eq!(account.worst(EventKind::Errors), None);
        for _ in 0..10 {
            account.add(&batch((190, 2), (10, 3)), false, &Slow::default());
        }
        let worst = account.worst(EventKind::Errors).unwrap();
        assert!(worst.span.is_some_and(|span| span <= Span::from_secs(4)), "{worst:?}");
        assert_eq!(worst.split.canary_bad, 30);
        let beside = account.worst_beside(EventKind::Errors, 0.05).unwrap();
        assert!(beside.split.canary_bad == 30 && account.worst_beside(EventKind::Errors, 0.9).is_none());
    }

    /// Two seconds of the primary alone, and three of health: then most requests fail, and the reason tells most of few.
    #[test]
    fn health_of_before_does_not_hide_how_bad_it_is() {
        let mut account = RecentCounts::default();
        for (windows, primary, canary) in [(10, 200, (0, 0)), (15, 125, (75, 0)), (2, 125, (75, 50))] {
            for _ in 0..windows {
                account.add(&batch((primary, 0), canary), true, &Slow::default());
            }
        }
        let worst = account.worst(EventKind::Broken).unwrap();
        assert_eq!(
            (worst.split.canary_bad, worst.span.is_some_and(|span| span <= MIN_STRETCH)),
            (100, true),
            "{worst:?}"
        );
    }

    #[test]
    fn without_a_primary_half_is_borne() {
        let mut account = RecentCounts::default();
        account.add(&batch((0, 0), (12, 12)), true, &Slow::default());
        assert_eq!(account.worst(EventKind::Errors), None, "warm-up");
        let split = Split { canary_bad: 12, canary: 12, ..Split::default() };
        assert_eq!(account.worst(EventKind::Broken), Some(RecentRates { split, span: None }));
    }
}
