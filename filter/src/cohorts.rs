//! Requests by the second of the worker's clock in which they began: whole cohorts only are told (P2).
//!
//! Of the requests that began lately only the short ones have ended. What became of a cohort is therefore kept apart
//! until its last request has ended or has grown too old, and those of all cohorts before it; [`Worker`] knows which
//! are still open. Where no policy asks for cohorts, nothing is kept and nothing is done.
//!
//! [`Worker`]: crate::worker::Worker

use std::collections::BTreeMap;

use wingbeat_core::counts::Cohorts;
use wingbeat_core::id::Rev;
use wingbeat_core::outcome::Stratum;

/// Cohorts that are kept open. Beyond it the oldest is dropped: a request of it has neither ended nor a limit.
const MAX_OPEN: usize = 64;
/// Clusters and strata of one cohort, and canaries whose revs are followed.
const MAX_KEYS: usize = 64;
const SECOND_NS: u64 = 1_000_000_000;

/// Results of the cohorts that are open.
#[derive(Debug, Default)]
pub struct OpenCohorts {
    on: bool,
    /// Cohorts before this one were told, dropped, or never whole: no result of them is taken any more.
    first: u64,
    open: BTreeMap<u64, BTreeMap<(String, Stratum), Cohorts>>,
    routes: BTreeMap<String, Routes>,
}

/// What became of a request.
#[derive(Debug, Clone, Copy)]
pub enum Became {
    /// It ended, after this many microseconds.
    Finished {
        /// How long it took.
        micros: u64,
        /// True if the server is to blame.
        error: bool,
    },
    /// It grew older than the policy allows.
    TooOld,
}

/// Results of one closed cohort at one cluster.
#[derive(Debug)]
pub struct Closed {
    /// The cluster.
    pub cluster: String,
    /// Where the requests came from.
    pub stratum: Stratum,
    /// What became of them, with the rev of their routes.
    pub results: Cohorts,
}

/// The latest routes of a canary.
#[derive(Debug, Clone, Copy)]
struct Routes {
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
        if let Some(known) = self.routes.get_mut(canary) {
            if rev > known.rev {
                *known = Routes { rev, since_ns: started_ns };
            } else if rev == known.rev {
                known.since_ns = known.since_ns.min(started_ns);
            }
        } else if self.routes.len() < MAX_KEYS {
            self.routes.insert(canary.to_owned(), Routes { rev, since_ns: started_ns });
        }
    }

    /// Takes what became of a request that began at this time.
    pub fn record(&mut self, cluster: &str, stratum: Stratum, started_ns: u64, became: Became) {
        let cohort = second(started_ns);
        if !self.on || cohort < self.first {
            return;
        }
        let held = self.open.entry(cohort).or_default();
        let key = (cluster.to_owned(), stratum);
        if held.len() >= MAX_KEYS && !held.contains_key(&key) {
            return;
        }
        let results = held.entry(key).or_default();
        match became {
            Became::Finished { micros, error } => {
                results.finished = results.finished.saturating_add(1);
                results.errors = results.errors.saturating_add(u64::from(error));
                results.latency.record(micros);
            }
            Became::TooOld => results.overdue = results.overdue.saturating_add(1),
        }
        if self.open.len() > MAX_OPEN
            && let Some((oldest, _)) = self.open.pop_first()
        {
            self.forget_before(oldest.saturating_add(1));
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
    ) -> Vec<Closed> {
        let kept = still_open.map(second).filter(|cohort| *cohort >= self.first);
        let first_open = kept.fold(second(now_ns), u64::min);
        let mut closed = Vec::new();
        while let Some(entry) = self.open.first_entry().filter(|entry| *entry.key() < first_open) {
            let began_ns = entry.key().saturating_mul(SECOND_NS);
            for ((cluster, stratum), results) in entry.remove() {
                let routes = canary_of(&cluster).and_then(|canary| self.routes.get(canary));
                if let Some(routes) = routes.filter(|routes| routes.since_ns <= began_ns) {
                    closed.push(Closed { cluster, stratum, results: Cohorts { rev: Rev::new(routes.rev), ..results } });
                }
            }
        }
        self.forget_before(first_open);
        closed
    }

    fn forget_before(&mut self, cohort: u64) {
        self.first = self.first.max(cohort);
        self.open = self.open.split_off(&self.first);
    }
}

const fn second(nanos: u64) -> u64 {
    nanos / SECOND_NS
}
