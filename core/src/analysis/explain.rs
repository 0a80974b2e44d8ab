//! Verdicts in words for a person, with the numbers that they rest on.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

use super::guard::{self, LimitFrom, with_hangs};
use super::latency::Exceedance;
use super::outcome_mix::Kind;
use super::recent_counts::RecentRates;
use super::sequential::{Split, count};
use super::signal::Signal;
use super::window::Batch;
use crate::id::NodeId;
use crate::time::Span;
use crate::weight::BasisPoints;

/// Nodes that a reason names before it only counts them.
const NAMED: usize = 3;

/// From so many seconds on, people count minutes; from so many minutes on, hours.
const COUNTED_UP_TO: u64 = 120;

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
}

/// What a step that ends would have shown.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct DetectionClaim {
    pub(crate) what: DetectableFault,
    pub(crate) besides: UntestedLatency,
}

/// A canary that would have been caught.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum DetectableFault {
    /// One that fails so often, compared with the primary.
    Rate(f64),
    /// One above its limit.
    Limit(f64),
    /// One that is broken outright.
    Outright,
}

/// What is not looked at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum UntestedLatency {
    Nothing,
    /// Latencies differ from user to user.
    NotCompared,
    /// None were reported.
    Unknown,
    /// The regression stays below the floor.
    BelowFloor {
        times: f64,
        floor: Span,
    },
}

impl Observed {
    pub(crate) fn add(&mut self, batch: &Batch, warmup: bool) {
        let arms = &batch.judged;
        let split = with_hangs(arms);
        self.canary.hangs(split.canary_bad, split.canary);
        self.primary.hangs(split.primary_bad, split.primary);
        if !warmup {
            self.canary.plain(arms.canary.errors(), arms.canary.judged());
            self.primary.plain(arms.primary.errors(), arms.primary.judged());
        }
    }

    /// Returns the share of the primary's requests that failed.
    pub(crate) fn primary_rate(&self) -> f64 {
        count(self.primary.errors) / count(self.primary.requests).max(1.0)
    }
}

impl ArmTotals {
    fn hangs(&mut self, bad: u64, all: u64) {
        self.errors_and_hangs = self.errors_and_hangs.saturating_add(bad);
        self.requests_and_hangs = self.requests_and_hangs.saturating_add(all);
    }

    fn plain(&mut self, bad: u64, all: u64) {
        self.errors = self.errors.saturating_add(bad);
        self.requests = self.requests.saturating_add(all);
    }
}

pub(crate) fn more_errors(lately: RecentRates, ratio: (Option<f64>, Option<f64>), refused: bool) -> String {
    let times = match ratio {
        (Some(low), Some(high)) if low >= 1.0 => format!(": between {low:.1} and {high:.1} times as often"),
        (Some(low), None) if low >= 1.0 => format!(": at least {low:.1} times as often"),
        (Some(_) | None, _) => String::new(),
    };
    let refused = if refused { "; nearly all are connections that were refused" } else { "" };
    format!("{}the canary fails {}, the primary {}{times}{refused}", within(lately), canary(lately), primary(lately))
}

pub(crate) fn broken(lately: RecentRates) -> String {
    hard_guard(lately, "requests fail or hang")
}

pub(crate) fn hung(lately: RecentRates, overdue: Option<Span>) -> String {
    hard_guard(lately, &waiting(overdue))
}

/// The same where the comparison of latencies found it before the hard guard did.
pub(crate) fn slower_since_hung(lately: RecentRates, overdue: Option<Span>) -> String {
    format!("the canary is slower: {}", beside_primary(lately, &waiting(overdue)))
}

fn waiting(overdue: Option<Span>) -> String {
    let longer = overdue.map_or_else(|| "than they may".to_string(), |age| format!("than {}", precise(age)));
    format!("requests have been waiting for more {longer}")
}

pub(crate) fn stalled(lately: RecentRates) -> String {
    hard_guard(lately, "responses began and then stood still")
}

pub(crate) fn refused(lately: RecentRates) -> String {
    hard_guard(lately, "requests are refused a connection")
}

/// What the hard guard says of the canary, and how much of it there is at the primary.
fn hard_guard(lately: RecentRates, what: &str) -> String {
    format!("hard guard: {}", beside_primary(lately, what))
}

fn beside_primary(lately: RecentRates, what: &str) -> String {
    format!(
        "{}{} of {} canary {what}, {} of {} at the primary",
        within(lately),
        thousands(lately.split.canary_bad),
        thousands(lately.split.canary),
        none_or(lately.split.primary_bad),
        thousands(lately.split.primary),
    )
}

pub(crate) fn slower(lately: RecentRates, beyond: Exceedance) -> String {
    format!(
        "the canary is slower: {}{} canary requests take longer than {}, {} of the primary's {} longer than {}",
        within(lately),
        canary_share(lately),
        precise(Span::from_micros(beyond.canary_us)),
        percent(lately.split.primary_bad, lately.split.primary),
        thousands(lately.split.primary),
        precise(Span::from_micros(beyond.primary_us)),
    )
}

pub(crate) fn slower_somewhere() -> String {
    "the canary is slower than the primary in the same moments".to_string()
}

pub(crate) fn above_limit(lately: RecentRates, limit: f64, from: LimitFrom) -> String {
    format!("{}the canary fails {}, above {}", within(lately), canary(lately), limit_of(limit, from))
}

fn limit_of(limit: f64, from: LimitFrom) -> String {
    let limit = share(limit);
    match from {
        LimitFrom::Document => format!("the limit of {limit}"),
        LimitFrom::Before => format!("{limit}: {:.0} times what the primary failed before", guard::RATIO),
        LimitFrom::MustDetect => {
            format!("{limit}: what must be detected at least, since the primary failed next to nothing before")
        }
        LimitFrom::MaxErrorRate => format!("{limit}: the most that is borne without a primary beside it"),
    }
}

pub(crate) fn slower_than_limit(lately: RecentRates, limit: Span) -> String {
    format!(
        "{}{} canary requests take longer than the limit of {}; 1 in 100 may",
        within(lately),
        canary_share(lately),
        precise(limit),
    )
}

pub(crate) fn other_answers(lately: RecentRates, kind: Kind) -> String {
    let what = match kind {
        Kind::Redirect => "redirects (3xx)".to_string(),
        Kind::ClientFault => "faults of the caller (4xx)".to_string(),
        Kind::Empty => "no body".to_string(),
        Kind::Grpc(status) => match status_name(status) {
            Some(name) => format!("gRPC status {status} ({name})"),
            None => format!("gRPC status {status}"),
        },
    };
    format!(
        "the canary answers otherwise: {}{what} in {}, at the primary in {}",
        within(lately),
        canary(lately),
        primary(lately),
    )
}

/// Returns the name of a status of gRPC.
const fn status_name(status: u32) -> Option<&'static str> {
    Some(match status {
        1 => "CANCELLED",
        2 => "UNKNOWN",
        3 => "INVALID_ARGUMENT",
        4 => "DEADLINE_EXCEEDED",
        5 => "NOT_FOUND",
        6 => "ALREADY_EXISTS",
        7 => "PERMISSION_DENIED",
        8 => "RESOURCE_EXHAUSTED",
        9 => "FAILED_PRECONDITION",
        10 => "ABORTED",
        11 => "OUT_OF_RANGE",
        12 => "UNIMPLEMENTED",
        13 => "INTERNAL",
        14 => "UNAVAILABLE",
        15 => "DATA_LOSS",
        16 => "UNAUTHENTICATED",
        _ => return None,
    })
}

pub(crate) fn more_attempts(lately: RecentRates) -> String {
    format!(
        "retries hide what the canary does: {}{} need another attempt, at the primary {}",
        within(lately),
        canary(lately),
        primary(lately),
    )
}

pub(crate) fn more_disconnects(lately: RecentRates) -> String {
    format!(
        "clients leave the canary before they have their answer: {}{}, the primary {}",
        within(lately),
        canary(lately),
        primary(lately),
    )
}

/// The arms had their requests at different times: sums do not show what every moment does.
pub(crate) fn not_in_sums(reason: &str) -> String {
    format!("worse than the primary in the same moments, which sums do not show: {reason}")
}

pub(crate) fn shared_harm(seen: &Observed, rate: f64, has_before: bool) -> String {
    let before = if has_before { ", far more than before" } else { "" };
    format!(
        "the primary fails {} of its recent requests{before}: both arms suffer, nothing is moved until it recovers (no harm \
         of the canary alone in {} requests)",
        share(rate),
        thousands(seen.canary.requests_and_hangs),
    )
}

pub(crate) fn suspect(reason: &str, left: Span) -> String {
    format!(
        "suspect: {reason}; the canary has one pod, which may be bad by itself: held for {} more, a second pod would tell",
        lasting(left),
    )
}

pub(crate) fn undecided(reason: &str) -> String {
    format!("{reason}; more requests decide, until then nothing is moved")
}

pub(crate) fn rests_on(reason: &str, nodes: &[NodeId]) -> String {
    format!("{reason}; only {} shows it, what the other nodes report does not: nothing is moved", one_of(nodes))
}

pub(crate) fn hidden_by(nodes: &[NodeId], signal: Option<Signal>) -> String {
    let nodes = one_of(nodes);
    let what = signal.map_or("harm", Signal::as_str);
    format!("all nodes but {nodes} together show harm of the canary ({what}), which what it reports hides")
}

pub(crate) fn may_be_hidden(hidden: &str) -> String {
    format!("{hidden}: nothing is moved until that is certain")
}

fn one_of(nodes: &[NodeId]) -> String {
    if nodes.is_empty() { "one group of nodes".to_string() } else { named(nodes) }
}

pub(crate) fn too_few(carrying: usize, sources: usize) -> String {
    format!(
        "{carrying} of {sources} proxies that may report carried requests of the rollout: the others are waited for"
    )
}

pub(crate) fn content_of_one_node(node: Option<&NodeId>) -> String {
    let node = node.map_or("one group of nodes", NodeId::as_str);
    format!("without {node}, too few requests of the canary are known to tell that it is not broken")
}

pub(crate) fn would_roll_back(reason: &str) -> String {
    format!("would be rolled back, if it were not set to warn: {reason}")
}

pub(crate) fn limit_exceeded_before(limit: f64, from: LimitFrom) -> String {
    let limit = limit_of(limit, from);
    format!("before the canary had traffic, the primary was above {limit}; it blames nobody")
}

pub(crate) fn would_have_been_caught(seen: &Observed, caught: &DetectionClaim) -> String {
    format!("{}: {} would have been caught by now{}", counted(seen), caught.what, caught.besides)
}

pub(crate) fn missing(seen: &Observed, caught: &DetectionClaim, requests: Option<u64>, eta: Option<Span>) -> String {
    let counted = counted(seen);
    let Some(requests) = requests else {
        return format!("{counted}; too little is known of the primary to say how many more are needed");
    };
    let what = format!("{} more canary requests would catch {}", thousands(requests), caught.what);
    match eta {
        Some(eta) => format!("{counted}; {what}: about {} at this rate", lasting(eta)),
        None => format!("{counted}; {what}"),
    }
}

pub(crate) fn warming_up(seen: &Observed, left: Span) -> String {
    format!(
        "the canary's pods warm up for {} more: only the hard guard looks ({} of {} canary requests fail or hang)",
        lasting(left),
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
        "too little traffic: {} canary request{} in this step, {} more take about {} at this rate",
        thousands(canary),
        if canary == 1 { "" } else { "s" },
        requests.map_or_else(|| "unknown".to_string(), |requests| thousands(requests).to_string()),
        lasting(eta.unwrap_or_default()),
    )
}

pub(crate) fn stale(age: Span) -> String {
    format!("reports are stale: no proxy has reported for {}", lasting(age))
}

pub(crate) fn stopped(age: Span) -> String {
    format!("traffic stopped: the last request was reported {} ago", lasting(age))
}

/// Where rules decide, or all requests go one way, the weight says nothing.
pub(crate) fn not_propagated(weight: BasisPoints, laggards: &[NodeId]) -> String {
    let is_divided = !weight.is_zero() && weight < BasisPoints::FULL;
    match (is_divided, laggards.is_empty()) {
        (true, true) => format!("not flowing: no node has served a request at weight {weight} % yet"),
        (false, true) => "not flowing: no node has served a request by the present routes yet".to_string(),
        (true, false) => format!("not flowing: still on older routes than weight {weight} %: {}", named(laggards)),
        (false, false) => format!("not flowing: still on older routes: {}", named(laggards)),
    }
}

pub(crate) fn unassigned(nodes: &[NodeId]) -> String {
    format!("not flowing: filters that do not have the rules for the present routes yet: {}", named(nodes))
}

pub(crate) fn skewed(weight: BasisPoints, nodes: &[NodeId]) -> String {
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

pub(crate) fn none_ended(stalled: u64) -> String {
    format!("no canary request of this step has ended: {} responses began and then stood still", thousands(stalled))
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

/// Tells since when is counted, where it is not since the rollout began.
fn within(lately: RecentRates) -> String {
    lately.span.map_or_else(String::new, |span| format!("in the last {} ", lasting(span)))
}

/// Tells the share of the canary's requests.
fn canary(RecentRates { split, .. }: RecentRates) -> String {
    format!("{} of {} requests", percent(split.canary_bad, split.canary), thousands(split.canary))
}

fn canary_share(RecentRates { split, .. }: RecentRates) -> String {
    format!("{} of {}", percent(split.canary_bad, split.canary), thousands(split.canary))
}

/// Tells that of the primary's. It follows the canary's.
fn primary(RecentRates { split: Split { primary_bad, primary, .. }, .. }: RecentRates) -> String {
    format!("{} of {}", percent(primary_bad, primary), thousands(primary))
}

fn none_or(n: u64) -> String {
    if n == 0 { "none".to_string() } else { thousands(n).to_string() }
}

/// Returns a length of time as people say it, rounded up.
fn lasting(span: Span) -> String {
    let seconds = span.as_millis().div_ceil(1_000);
    let minutes = seconds.div_ceil(60);
    if seconds <= COUNTED_UP_TO {
        format!("{seconds} s")
    } else if minutes <= COUNTED_UP_TO {
        format!("{minutes} min")
    } else {
        format!("{} h", thousands(minutes / 60))
    }
}

/// Returns a length of time to about three digits.
fn precise(span: Span) -> String {
    let micros = span.as_micros();
    let of = |unit: u64| count(micros) / count(unit);
    match micros {
        0..10_000 => format!("{:.1} ms", of(1_000)),
        10_000..1_000_000 if micros < 100_000 || !micros.is_multiple_of(100_000) => format!("{:.0} ms", of(1_000)),
        10_000..10_000_000 => format!("{:.1} s", of(1_000_000)),
        _ => format!("{:.0} s", of(1_000_000)),
    }
}

impl Display for DetectableFault {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rate(rate) => write!(f, "a canary that fails {}", share(*rate)),
            Self::Limit(limit) => write!(f, "a canary that fails far more than {}", share(*limit)),
            Self::Outright => f.write_str("a canary that is broken outright"),
        }
    }
}

impl Display for UntestedLatency {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => Ok(()),
            Self::NotCompared => f.write_str("; latency is not compared, since the arms have different users"),
            Self::Unknown => f.write_str("; latency is not known"),
            Self::BelowFloor { times, floor } => {
                write!(
                    f,
                    "; one that takes {times} times as long would not: differences below {} are not looked at",
                    precise(*floor)
                )
            }
        }
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
            not_propagated(BasisPoints::from_percent(5), &nodes),
            "not flowing: still on older routes than weight 5 %: a, b, c and 2 more"
        );
    }

    #[test]
    fn a_weight_that_divides_nothing_is_not_told() {
        for all in [BasisPoints::ZERO, BasisPoints::FULL] {
            assert_eq!(not_propagated(all, &[NodeId::new("a")]), "not flowing: still on older routes: a");
            assert_eq!(not_propagated(all, &[]), "not flowing: no node has served a request by the present routes yet");
        }
    }
}
