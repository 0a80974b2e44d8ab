//! Requests by the second of the worker's clock in which they began: whole cohorts only are told (P2).
//!
//! Of the requests that began lately only the short ones have ended. What became of a cohort is therefore kept apart
//! until its last request has ended or has grown too old, and those of all cohorts before it; [`Worker`] knows which
//! are still open. Where no policy asks for cohorts, nothing is kept and nothing is done.
//!
//! [`Worker`]: crate::worker::Worker

use wingbeat_core::counts::Cohorts;
use wingbeat_core::histogram::MAX_MICROS;
use wingbeat_core::id::Rev;
use wingbeat_core::outcome::Stratum;

/// Cohorts that are kept open. Beyond it the oldest is dropped: a request of it has neither ended nor a limit.
const MAX_OPEN: usize = 64;
/// Clusters and strata of one cohort, and canaries whose revs are followed.
const MAX_KEYS: usize = 64;
/// Nanoseconds of a second: a cohort is of one.
const SECOND_NS: u64 = 1_000_000_000;

/// Results of the cohorts that are open.
#[derive(Debug, Default)]
pub struct OpenCohorts {
    on: bool,
    /// Cohorts before this one were told, dropped, or never whole: no result of them is taken any more.
    first: u64,
    /// In order of time. Few, and of few clusters: looking through them costs less code and time than trees.
    open: Vec<Cohort>,
    routes: Vec<Routes>,
}

/// What became of a request.
#[derive(Debug, Clone, Copy)]
pub enum CohortOutcome {
    /// It ended, after this many microseconds.
    Finished {
        /// How long it took.
        micros: u64,
        /// True if the server is to blame.
        error: bool,
    },
    /// It grew older than the policy allows, and has no answer.
    Overdue,
    /// It grew as old, but its response has begun: no error so far, and longer than any threshold.
    Answering,
}

/// Results of one cohort at one cluster.
#[derive(Debug)]
pub struct Part {
    /// The cluster.
    pub cluster: String,
    /// Where the requests came from.
    pub stratum: Stratum,
    /// What became of them, with the rev of their routes once the cohort is closed.
    pub results: Cohorts,
}

#[derive(Debug)]
struct Cohort {
    second: u64,
    parts: Vec<Part>,
}

/// The latest routes of a canary.
#[derive(Debug)]
struct Routes {
    canary: String,
    rev: u64,
    /// Start of the earliest request that is known to have been routed by them. Routes only move forward, so that all
    /// that began later was routed by them too, or by later ones.
    since_ns: u64,
}

impl OpenCohorts {
    /// Begins or ends to keep cohorts. The second in which it begins is not whole, nor are those before it.
    pub fn switch(&mut self, on: bool, now_ns: u64) {
        if on != self.on {
            *self = Self { on, ..Self::default() };
            self.spoil(now_ns);
        }
    }

    /// Returns true if cohorts are kept.
    pub const fn on(&self) -> bool {
        self.on
    }

    /// Notes that not all requests up to now are followed: the cohorts that are open will never be whole.
    pub fn spoil(&mut self, now_ns: u64) {
        self.forget_before(second(now_ns).saturating_add(1));
    }

    /// Notes that a request of the canary, begun at this time, was routed by this rev.
    pub fn routed(&mut self, canary: &str, rev: u64, started_ns: u64) {
        if !self.on {
            return;
        }
        if let Some(known) = self.routes.iter_mut().find(|routes| routes.canary == canary) {
            if rev > known.rev {
                (known.rev, known.since_ns) = (rev, started_ns);
            } else if rev == known.rev {
                known.since_ns = known.since_ns.min(started_ns);
            }
        } else if self.routes.len() < MAX_KEYS {
            self.routes.push(Routes { canary: canary.to_owned(), rev, since_ns: started_ns });
        }
    }

    /// Takes what became of a request that began at this time.
    pub fn record(&mut self, cluster: &str, stratum: Stratum, started_ns: u64, became: CohortOutcome) {
        let second = second(started_ns);
        if !self.on || second < self.first {
            return;
        }
        let results = self.part(second, cluster, stratum);
        match (results, became) {
            (None, _) => {}
            (Some(results), CohortOutcome::Finished { micros, error }) => {
                results.finished = results.finished.saturating_add(1);
                results.errors = results.errors.saturating_add(u64::from(error));
                results.latency.record(micros);
            }
            (Some(results), CohortOutcome::Overdue) => results.overdue = results.overdue.saturating_add(1),
            (Some(results), CohortOutcome::Answering) => {
                results.finished = results.finished.saturating_add(1);
                results.latency.record(MAX_MICROS);
            }
        }
        if self.open.len() > MAX_OPEN
            && let Some(oldest) = self.open.first()
        {
            self.forget_before(oldest.second.saturating_add(1));
        }
    }

    /// Closes the cohorts that are over, given when the requests began that are still open; those of cohorts that were
    /// given up hold nobody up. Returns the results of cohorts whose routes are known; `canary_of` names the canary
    /// of a cluster.
    pub fn close<'a>(
        &mut self,
        now_ns: u64,
        still_open: impl Iterator<Item = u64>,
        canary_of: impl Fn(&str) -> Option<&'a str>,
    ) -> Vec<Part> {
        let kept = still_open.map(second).filter(|cohort| *cohort >= self.first);
        let first_open = kept.fold(second(now_ns), u64::min);
        let mut closed = Vec::new();
        for cohort in &mut self.open {
            if cohort.second >= first_open {
                break;
            }
            let began_ns = cohort.second.saturating_mul(SECOND_NS);
            for mut part in std::mem::take(&mut cohort.parts) {
                let canary = canary_of(&part.cluster);
                let routes = self.routes.iter().find(|routes| Some(routes.canary.as_str()) == canary);
                if let Some(routes) = routes.filter(|routes| routes.since_ns <= began_ns) {
                    part.results.rev = Rev::new(routes.rev);
                    closed.push(part);
                }
            }
        }
        self.forget_before(first_open);
        closed
    }

    /// Returns where results are added, or none where there is no room.
    fn part(&mut self, second: u64, cluster: &str, stratum: Stratum) -> Option<&mut Cohorts> {
        let place = self.open.iter().rposition(|cohort| cohort.second <= second);
        let place = match place {
            Some(place) if self.open.get(place)?.second == second => place,
            Some(before) => self.insert(before.saturating_add(1), second),
            None => self.insert(0, second),
        };
        let parts = &mut self.open.get_mut(place)?.parts;
        let known = parts.iter().position(|part| part.stratum == stratum && part.cluster == cluster);
        let known = match known {
            Some(known) => known,
            None if parts.len() < MAX_KEYS => {
                parts.push(Part { cluster: cluster.to_owned(), stratum, results: Cohorts::default() });
                parts.len().saturating_sub(1)
            }
            None => return None,
        };
        parts.get_mut(known).map(|part| &mut part.results)
    }

    fn insert(&mut self, place: usize, second: u64) -> usize {
        let place = place.min(self.open.len());
        self.open.insert(place, Cohort { second, parts: Vec::new() });
        place
    }

    fn forget_before(&mut self, second: u64) {
        self.first = self.first.max(second);
        let first = self.first;
        self.open.retain(|cohort| cohort.second >= first);
    }
}

const fn second(nanos: u64) -> u64 {
    nanos / SECOND_NS
}
