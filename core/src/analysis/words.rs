//! Verdicts in words for a person, with the numbers that they rest on.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

use super::config::JudgeConfig;
use super::guard::{self, with_hangs};
use super::outcome_mix::Kind;
use super::sequential::count;
use super::trial::{attempts, disconnects};
use super::window::Batch;
use crate::counts::Counts;
use crate::histogram::Tally;
use crate::id::NodeId;
use crate::outcome::Outcome;
use crate::time::Span;
use crate::weight::BasisPoints;

/// Nodes that a reason names before it only counts them.
const NAMED: usize = 3;

/// What was seen since the rollout began, as people count it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Observed {
    canary: ArmTotals,
    primary: ArmTotals,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct ArmTotals {
    requests: u64,
    errors: u64,
    requests_and_hangs: u64,
    errors_and_hangs: u64,
    stalled: u64,
    requests_and_stalled: u64,
    redirects: u64,
    client_faults: u64,
    sized: u64,
    empty: u64,
    grpc_statuses: BTreeMap<u32, u64>,
    retried: u64,
    disconnects: u64,
    latency: Tally,
}

impl Observed {
    pub(crate) fn add(&mut self, batch: &Batch, warmup: bool) {
        for arms in [&batch.judged, &batch.new_connection] {
            let split = with_hangs(arms);
            self.canary.hangs(split.canary_bad, split.canary);
            self.primary.hangs(split.primary_bad, split.primary);
            let split = guard::stalled(arms);
            self.canary.stalls(split.canary_bad, split.canary);
            self.primary.stalls(split.primary_bad, split.primary);
            if !warmup {
                self.canary.plain(arms.canary.errors(), arms.canary.judged());
                self.primary.plain(arms.primary.errors(), arms.primary.judged());
            }
        }
        if warmup {
            return;
        }
        let arms = &batch.judged;
        self.canary.answers(&arms.canary);
        self.primary.answers(&arms.primary);
        let (again, left) = (attempts(arms), disconnects(arms));
        self.canary.retried = self.canary.retried.saturating_add(again.canary_bad);
        self.primary.retried = self.primary.retried.saturating_add(again.primary_bad);
        self.canary.disconnects = self.canary.disconnects.saturating_add(left.canary_bad);
        self.primary.disconnects = self.primary.disconnects.saturating_add(left.primary_bad);
        self.canary.latency.merge(&arms.canary.latency);
        self.primary.latency.merge(&arms.primary.latency);
    }
}

impl ArmTotals {
    fn hangs(&mut self, bad: u64, all: u64) {
        self.errors_and_hangs = self.errors_and_hangs.saturating_add(bad);
        self.requests_and_hangs = self.requests_and_hangs.saturating_add(all);
    }

    fn stalls(&mut self, bad: u64, all: u64) {
        self.stalled = self.stalled.saturating_add(bad);
        self.requests_and_stalled = self.requests_and_stalled.saturating_add(all);
    }

    fn plain(&mut self, bad: u64, all: u64) {
        self.errors = self.errors.saturating_add(bad);
        self.requests = self.requests.saturating_add(all);
    }

    fn answers(&mut self, counts: &Counts) {
        for (held, more) in [
            (&mut self.redirects, counts.outcome(Outcome::Redirect)),
            (&mut self.client_faults, counts.outcome(Outcome::ClientFault)),
            (&mut self.sized, counts.sized),
            (&mut self.empty, counts.empty),
        ] {
            *held = held.saturating_add(more);
        }
        for (status, more) in &counts.grpc_statuses {
            let held = self.grpc_statuses.entry(*status).or_default();
            *held = held.saturating_add(*more);
        }
    }

    fn quantiles(&self) -> String {
        let shown: Vec<String> = [0.5, 0.9, 0.99]
            .into_iter()
            .map(|q| {
                self.latency.quantile(q).map_or_else(|| "?".to_string(), |(low, _)| format!("{:.1}", count(low) / 1e3))
            })
            .collect();
        format!("{} ms", shown.join("/"))
    }
}

pub(crate) fn more_errors(seen: &Observed, ratio: (Option<f64>, Option<f64>)) -> String {
    let times = match ratio {
        (Some(low), Some(high)) => format!(": between {low:.1} and {high:.1} times as often"),
        (Some(low), None) => format!(": at least {low:.1} times as often"),
        (None, _) => String::new(),
    };
    format!(
        "the canary fails {} of {} requests, the primary {} of {}{times}",
        percent(seen.canary.errors, seen.canary.requests),
        thousands(seen.canary.requests),
        percent(seen.primary.errors, seen.primary.requests),
        thousands(seen.primary.requests),
    )
}

pub(crate) fn broken(seen: &Observed) -> String {
    format!(
        "hard guard: {} of {} canary requests fail or hang, {} of {} at the primary",
        thousands(seen.canary.errors_and_hangs),
        thousands(seen.canary.requests_and_hangs),
        thousands(seen.primary.errors_and_hangs),
        thousands(seen.primary.requests_and_hangs),
    )
}

pub(crate) fn stalled(seen: &Observed) -> String {
    format!(
        "hard guard: {} of {} canary responses began and then stood still, {} of {} at the primary",
        thousands(seen.canary.stalled),
        thousands(seen.canary.requests_and_stalled),
        thousands(seen.primary.stalled),
        thousands(seen.primary.requests_and_stalled),
    )
}

pub(crate) fn slower(seen: &Observed) -> String {
    format!(
        "the canary is slower: p50/p90/p99 {} in {} requests, the primary {} in {}",
        seen.canary.quantiles(),
        thousands(seen.canary.latency.count()),
        seen.primary.quantiles(),
        thousands(seen.primary.latency.count()),
    )
}

pub(crate) fn above_limit(seen: &Observed, limit: Option<f64>) -> String {
    format!(
        "the canary fails {} of {} requests, above the limit of {}",
        percent(seen.canary.errors, seen.canary.requests),
        thousands(seen.canary.requests),
        share(limit.unwrap_or_default()),
    )
}

pub(crate) fn slower_than_limit(seen: &Observed, limit: Span) -> String {
    format!(
        "more than 1 in 100 canary requests take longer than the limit of {limit}: p50/p90/p99 {} in {}",
        seen.canary.quantiles(),
        thousands(seen.canary.latency.count()),
    )
}

pub(crate) fn other_answers(seen: &Observed, kind: Option<Kind>) -> String {
    let told = |what: &str, of: fn(&ArmTotals) -> (u64, u64)| {
        let ((bad, all), (before, of_all)) = (of(&seen.canary), of(&seen.primary));
        format!(
            "the canary answers otherwise: {what} in {} of {} requests, at the primary in {} of {}",
            percent(bad, all),
            thousands(all),
            percent(before, of_all),
            thousands(of_all),
        )
    };
    match kind {
        Some(Kind::Redirect) => told("redirects (3xx)", |arm| (arm.redirects, arm.requests)),
        Some(Kind::Empty) => told("no body", |arm| (arm.empty, arm.sized)),
        Some(Kind::Grpc(status)) => {
            let of = |arm: &ArmTotals| arm.grpc_statuses.get(&status).copied().unwrap_or_default();
            format!(
                "the canary answers otherwise: gRPC status {status} in {} of {} requests, at the primary in {} of {}",
                percent(of(&seen.canary), seen.canary.requests),
                thousands(seen.canary.requests),
                percent(of(&seen.primary), seen.primary.requests),
                thousands(seen.primary.requests),
            )
        }
        Some(Kind::ClientFault) | None => told("faults of the caller (4xx)", |arm| (arm.client_faults, arm.requests)),
    }
}

pub(crate) fn more_attempts(seen: &Observed) -> String {
    format!(
        "retries hide what the canary does: {} of {} requests need another attempt, at the primary {} of {}",
        percent(seen.canary.retried, seen.canary.requests),
        thousands(seen.canary.requests),
        percent(seen.primary.retried, seen.primary.requests),
        thousands(seen.primary.requests),
    )
}

pub(crate) fn more_disconnects(seen: &Observed) -> String {
    let all = |arm: &ArmTotals| arm.requests.saturating_add(arm.disconnects);
    format!(
        "clients leave the canary before they have their answer: {} of {}, the primary {} of {}",
        percent(seen.canary.disconnects, all(&seen.canary)),
        thousands(all(&seen.canary)),
        percent(seen.primary.disconnects, all(&seen.primary)),
        thousands(all(&seen.primary)),
    )
}

pub(crate) fn shared_harm(seen: &Observed, rate: f64) -> String {
    format!(
        "the primary fails {} of its recent requests, far more than before: both arms suffer, nothing is moved until it \
         recovers (no harm of the canary alone in {} requests)",
        share(rate),
        thousands(seen.canary.requests_and_hangs),
    )
}

pub(crate) fn suspect(reason: &str, left: Span) -> String {
    format!(
        "suspect: {reason}; the canary has one pod, which may be bad by itself: held for {} s more, a second pod would \
         tell",
        thousands(left.as_millis().div_ceil(1_000)),
    )
}

pub(crate) fn rests_on(reason: &str, nodes: &[NodeId]) -> String {
    format!("{reason}; only {} shows it, what the other nodes report does not: nothing is moved", one_of(nodes))
}

pub(crate) fn hidden_by(nodes: &[NodeId]) -> String {
    format!("without what {} reports the canary does harm, which it may hide: nothing is moved", one_of(nodes))
}

fn one_of(nodes: &[NodeId]) -> String {
    if nodes.is_empty() { "one group of nodes".to_string() } else { named(nodes) }
}

pub(crate) fn too_few(carrying: usize, voices: usize) -> String {
    format!("{carrying} of {voices} proxies that may report carried requests of the rollout: the others are waited for")
}

pub(crate) fn content_alone(node: Option<&NodeId>) -> String {
    let node = node.map_or("one group of nodes", NodeId::as_str);
    format!("without {node}, too few requests of the canary are known to tell that it is not broken")
}

pub(crate) fn would_roll_back(reason: &str) -> String {
    format!("would be rolled back, if it were not set to warn: {reason}")
}

pub(crate) fn limit_exceeded_before(limit: f64) -> String {
    format!(
        "the primary was above the limit of {} before the canary had traffic: the limit blames nobody",
        share(limit)
    )
}

pub(crate) fn would_have_been_caught(seen: &Observed, config: &JudgeConfig) -> String {
    format!("{}: {} times the errors would have been caught by now", counted(seen), config.must_detect.errors)
}

pub(crate) fn missing(seen: &Observed, requests: Option<u64>, eta: Option<Span>) -> String {
    let counted = counted(seen);
    match (requests, eta) {
        (Some(requests), Some(eta)) => format!(
            "{counted}; {} more canary requests are needed to tell, about {} s at this rate",
            thousands(requests),
            thousands(eta.as_millis().div_ceil(1_000)),
        ),
        (Some(requests), None) => format!("{counted}; {} more canary requests are needed to tell", thousands(requests)),
        (None, _) => format!("{counted}; too little is known of the primary to say how many more are needed"),
    }
}

pub(crate) fn warming_up(seen: &Observed, left: Span) -> String {
    format!(
        "the canary's pods warm up for {} s more: only the hard guard looks ({} of {} canary requests fail or hang)",
        thousands(left.as_millis().div_ceil(1_000)),
        thousands(seen.canary.errors_and_hangs),
        thousands(seen.canary.requests_and_hangs),
    )
}

/// Tells what was seen, without a judgement.
fn counted(seen: &Observed) -> String {
    format!(
        "no decisive harm in {} canary requests ({} errors; primary {} of {})",
        thousands(seen.canary.requests),
        percent(seen.canary.errors, seen.canary.requests),
        percent(seen.primary.errors, seen.primary.requests),
        thousands(seen.primary.requests),
    )
}

pub(crate) fn checks_decide(seen: &Observed) -> String {
    format!(
        "the checks at each interval decide; {} of {} canary requests fail or hang",
        thousands(seen.canary.errors_and_hangs),
        thousands(seen.canary.requests_and_hangs)
    )
}

pub(crate) fn too_little(canary: u64, requests: Option<u64>, eta: Option<Span>) -> String {
    format!(
        "too little traffic: {} canary requests in this step, {} more take about {} h at this rate",
        thousands(canary),
        requests.map_or_else(|| "unknown".to_string(), |requests| thousands(requests).to_string()),
        eta.map_or(0, |eta| eta.as_millis() / 3_600_000),
    )
}

pub(crate) fn stale(age: Span) -> String {
    format!("reports are stale: no proxy has reported for {} s", age.as_millis() / 1_000)
}

pub(crate) fn stopped(age: Span) -> String {
    format!("traffic stopped: the last request was reported {} s ago", age.as_millis() / 1_000)
}

pub(crate) fn not_flowing(weight: BasisPoints, laggards: &[NodeId]) -> String {
    if laggards.is_empty() {
        return format!("not flowing: no node has served a request at weight {weight} % yet");
    }
    format!("not flowing: still on older routes than weight {weight} %: {}", named(laggards))
}

pub(crate) fn astray(weight: BasisPoints, nodes: &[NodeId]) -> String {
    if nodes.is_empty() {
        return format!("not flowing: requests do not divide by weight {weight} %, at no node in particular");
    }
    format!("not flowing: requests do not divide by weight {weight} % at {}", named(nodes))
}

fn named(nodes: &[NodeId]) -> String {
    let names: Vec<&str> = nodes.iter().take(NAMED).map(NodeId::as_str).collect();
    let more = match nodes.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{}{more}", names.join(", "))
}

pub(crate) fn no_traffic(direct: u64) -> String {
    format!("no traffic at all in this step{}", beside(direct))
}

pub(crate) fn only_primary(primary: u64, direct: u64) -> String {
    format!("the canary got no request in this step, the primary {}{}", thousands(primary), beside(direct))
}

pub(crate) fn only_canary(canary: u64) -> String {
    format!("nothing to compare with: the primary got no request in this step, the canary {}", thousands(canary))
}

fn beside(direct: u64) -> String {
    if direct == 0 {
        String::new()
    } else {
        format!("; {} requests that called the canary by its own name are not compared", thousands(direct))
    }
}

fn percent(part: u64, whole: u64) -> Share {
    share(count(part) / count(whole).max(1.0))
}

const fn share(fraction: f64) -> Share {
    Share(fraction)
}

const fn thousands(n: u64) -> Thousands {
    Thousands(n)
}

/// A share, written in percent with a digit more where it is small.
struct Share(f64);

impl Display for Share {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let percent = self.0 * 100.0;
        if percent > 0.0 && percent < 0.1 { write!(f, "{percent:.2} %") } else { write!(f, "{percent:.1} %") }
    }
}

/// A number, written with a comma after every three digits.
struct Thousands(u64);

impl Display for Thousands {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match (self.0 / 1_000, self.0 % 1_000) {
            (0, rest) => write!(f, "{rest}"),
            (more, rest) => write!(f, "{},{rest:03}", Self(more)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_as_people_write_them() {
        assert_eq!(
            [0, 12, 999, 1_000, 5_930, 1_234_567].map(|n| thousands(n).to_string()),
            ["0", "12", "999", "1,000", "5,930", "1,234,567"]
        );
        assert_eq!(percent(1, 20).to_string(), "5.0 %");
        assert_eq!(percent(1, 2_000).to_string(), "0.05 %");
        assert_eq!(percent(0, 0).to_string(), "0.0 %");
    }

    #[test]
    fn laggards_are_named_up_to_a_point() {
        let nodes: Vec<NodeId> = ["a", "b", "c", "d", "e"].map(NodeId::new).into();
        assert_eq!(
            not_flowing(BasisPoints::from_percent(5), &nodes),
            "not flowing: still on older routes than weight 5 %: a, b, c and 2 more"
        );
    }
}
