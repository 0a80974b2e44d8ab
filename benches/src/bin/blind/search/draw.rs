//! What is drawn.

use std::time::Duration;

use rand::{Rng, RngExt as _};
use wingbeat_demo::visitor::{ANYONE, Visitor};
use wingbeat_e2e::rollouts::{Fault, Spec};

/// Hosts of a round.
const HOSTS: usize = 8;
/// Requests of users a second that the canary has: at least, and less than.
const CANARY_RATE: (u32, u32) = (30, 40);
/// What the others have where one Envoy carries nearly all of the traffic: requests a second of both arms.
const NEXT_TO_NOTHING: u32 = 1;

/// Looks of a rollout that is not divided by weight, and steps of one that is to last.
const ITERATIONS: u32 = 10;

/// Those who match, and as many who do not.
const MATCHING: &[Visitor] = &[
    Visitor { headers: &[("x-tester", "yes")], matches: true, tester: false },
    Visitor { headers: &[], matches: false, tester: false },
];

/// Hosts on the same Envoys, and what befalls them.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) seed: u64,
    pub(super) envoys: usize,
    /// True if one Envoy carries nearly all.
    uneven: bool,
    pub(super) event: Event,
    pub(super) draws: Vec<Draw>,
}

/// What befalls control plane and Envoys in mid-rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Event {
    Nothing,
    /// The control plane is restarted.
    Restart,
    /// An Envoy leaves.
    Leave,
    /// An Envoy has no users any more.
    Idle,
    /// An Envoy joins.
    Join,
}

/// One rollout.
#[derive(Debug)]
pub(super) struct Draw {
    name: String,
    mode: &'static str,
    pub(super) strategy: Strategy,
    weight: u32,
    interval_ms: u64,
    warmup: &'static str,
    http2: bool,
    pub(super) fault: Fault,
    pub(super) health: Health,
    /// From the first share to the fault, where it does not come at once.
    pub(super) after: Duration,
    pub(super) earlier: Vec<Earlier>,
    canary_rate: u32,
    patience: Option<Duration>,
}

/// Who gets the canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strategy {
    Weight,
    /// Copies first.
    Mirror,
    Rules,
    /// Some of those who match are held back.
    Holdback,
    Affinity,
    BlueGreen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Health {
    Healthy,
    Broken,
    BrokenAtOnce,
}

/// An earlier rollout of the same host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Earlier {
    Promoted,
    Aborted,
    /// It was broken; if it was the last one, the rollout that counts tries the same revision again.
    Failed,
}

fn one<T: Copy>(random: &mut impl Rng, of: &[T]) -> Option<T> {
    of.get(random.random_range(0..of.len())).copied()
}

impl Round {
    pub(super) fn random(random: &mut impl Rng, seed: u64) -> Self {
        let envoys = random.random_range(1..=3);
        let events: &[Event] = if envoys == 1 {
            &[Event::Nothing, Event::Restart]
        } else {
            &[Event::Nothing, Event::Restart, Event::Leave, Event::Idle, Event::Join]
        };
        let event = one(random, events).unwrap_or(Event::Nothing);
        let uneven = envoys > 1 && random.random_bool(0.3);
        let draws = (0..HOSTS).map(|number| Draw::random(random, &format!("s{seed}-{number}"))).collect();
        Self { seed, envoys, uneven, event, draws }
    }

    /// Returns the Envoys that carry users, before or after the event.
    fn carrying(&self, after: bool) -> usize {
        match (self.event, after) {
            (Event::Leave | Event::Idle, true) | (Event::Join, false) => self.envoys - 1,
            (Event::Nothing | Event::Restart | Event::Leave | Event::Idle, false)
            | (Event::Nothing | Event::Restart | Event::Join, true) => self.envoys,
        }
    }
}

impl Draw {
    fn random(random: &mut impl Rng, name: &str) -> Self {
        let strategy = match random.random_range(0..100) {
            0..45 => Strategy::Weight,
            45..55 => Strategy::Mirror,
            55..68 => Strategy::Rules,
            68..80 => Strategy::Holdback,
            80..92 => Strategy::Affinity,
            _ => Strategy::BlueGreen,
        };
        let health = match random.random_range(0..100) {
            0..40 => Health::Healthy,
            40..70 => Health::Broken,
            _ => Health::BrokenAtOnce,
        };
        let intervals: &[u64] = match health {
            Health::Broken => &[10_000, 30_000],
            Health::Healthy | Health::BrokenAtOnce => &[300, 500, 1_000, 2_000, 10_000],
        };
        // What comes before users have the canary lasts an interval; so does measuring the primary.
        let intervals = match strategy {
            Strategy::Weight => intervals,
            // Users have it for the last interval only.
            Strategy::BlueGreen if health == Health::Broken => &[8_000],
            Strategy::Mirror | Strategy::Rules | Strategy::Holdback | Strategy::Affinity | Strategy::BlueGreen => {
                &[2_000, 3_000]
            }
        };
        let fault = one(random, &Fault::ALL).unwrap_or(Fault::Status);
        let mode = one(random, &["sequential", "sequential", "guard"]).unwrap_or_default();
        let interval_ms = one(random, intervals).unwrap_or(1_000);
        // Where checks decide, the canary has its first share after an interval, and so has each rollout before.
        let interval_ms = if mode == "guard" { interval_ms.min(10_000) } else { interval_ms };
        let rollouts = random.random_range(0..=2);
        let kinds = [Earlier::Promoted, Earlier::Aborted, Earlier::Failed];
        let earlier = (0..rollouts).filter_map(|_| one(random, &kinds)).collect();
        Self {
            name: name.to_owned(),
            mode,
            strategy,
            weight: one(random, &[10, 20, 25, 50]).unwrap_or(10),
            interval_ms,
            warmup: one(random, &["", ", warmup: 0s", ", warmup: 1s"]).unwrap_or_default(),
            // gRPC goes over nothing else.
            http2: random.random_bool(0.25) || fault == Fault::Grpc,
            fault,
            health,
            after: Duration::from_millis(random.random_range(0..1_500)),
            earlier,
            canary_rate: random.random_range(CANARY_RATE.0..CANARY_RATE.1),
            patience: random.random_bool(0.3).then_some(Duration::from_secs(1)),
        }
    }

    /// Returns the requests a second of users of this host by an Envoy, before or after the event.
    pub(super) fn rate(&self, round: &Round, edge: usize, after: bool) -> u32 {
        let carrying = round.carrying(after);
        if edge >= carrying {
            return 0;
        }
        let all = match self.strategy {
            Strategy::Weight | Strategy::Mirror | Strategy::Affinity => self.canary_rate * 100 / self.weight,
            // Half of them match, and all of these but a tenth get it.
            Strategy::Rules => self.canary_rate * 2,
            // Those held back have to show that the primary works: some eight a second, or fourteen where it is known only
            // after more than a second that the canary does not.
            Strategy::Holdback if matches!(self.fault, Fault::Stall) => self.canary_rate * 70 / 9,
            Strategy::Holdback => self.canary_rate * 40 / 9,
            Strategy::BlueGreen => self.canary_rate,
        };
        match (round.uneven && carrying > 1, edge) {
            (true, 0) => all,
            (true, _) => NEXT_TO_NOTHING,
            (false, _) => all.div_ceil(u32::try_from(carrying).unwrap_or(1)),
        }
    }

    /// Returns how long users have the canary before it is promoted, if all is well, at least.
    pub(super) fn lasts(&self) -> Duration {
        let looks = match (self.strategy, self.health) {
            (Strategy::Rules | Strategy::Holdback, _) | (Strategy::Mirror | Strategy::Affinity, Health::Broken) => {
                ITERATIONS
            }
            (Strategy::Weight | Strategy::Mirror | Strategy::Affinity, _) => self.weight.max(50).div_ceil(self.weight),
            (Strategy::BlueGreen, _) => 1,
        };
        Duration::from_millis(self.interval_ms) * looks
    }

    pub(super) fn spec(&self) -> Spec {
        Spec {
            name: self.name.clone(),
            analysis: self.analysis(),
            http2: self.http2,
            mirrored: self.strategy == Strategy::Mirror,
            fault: self.fault,
            patience: self.patience,
            visitors: match self.strategy {
                Strategy::Weight | Strategy::Mirror | Strategy::BlueGreen => ANYONE,
                Strategy::Rules | Strategy::Holdback => MATCHING,
                Strategy::Affinity => users(),
            },
        }
    }

    fn analysis(&self) -> String {
        let (weight, interval) = (self.weight, self.interval_ms);
        let steps = match (self.strategy, self.health) {
            // It is to last until all the others are under way, too.
            (Strategy::Mirror | Strategy::Affinity, Health::Broken) => {
                let weights: Vec<String> = (weight..weight + ITERATIONS).map(|weight| weight.to_string()).collect();
                format!("stepWeights: [{}]", weights.join(", "))
            }
            _ => format!("stepWeight: {weight}, maxWeight: {}", weight.max(50)),
        };
        let rules = format!("iterations: {ITERATIONS}, match: [{{headers: {{x-tester: {{exact: \"yes\"}}}}}}]");
        let who = match self.strategy {
            Strategy::Weight => steps,
            Strategy::Mirror => format!("{steps}, mirror: true"),
            Strategy::Rules => rules,
            Strategy::Holdback => format!("{rules}, holdback: 10%"),
            Strategy::Affinity => format!("{steps}, affinity: {{cookie: uid}}"),
            Strategy::BlueGreen => "iterations: 1".to_owned(),
        };
        format!("interval: {interval}ms, {who}, judge: {{mode: {}{}}}", self.mode, self.warmup)
    }

    /// Returns all of it in a line.
    pub(super) fn say(&self, round: &Round) -> String {
        let rates: Vec<String> = (0..round.envoys)
            .map(|edge| match (self.rate(round, edge, false), self.rate(round, edge, true)) {
                (before, after) if before == after => before.to_string(),
                (before, after) => format!("{before}→{after}"),
            })
            .collect();
        let when = match self.health {
            Health::Healthy => "healthy".to_owned(),
            Health::Broken => format!("{:?} after {} ms", self.fault, self.after.as_millis()),
            Health::BrokenAtOnce => format!("{:?} at once", self.fault),
        };
        format!(
            "{}: {:?}, earlier {:?}, {} rps{}{}; {}; {when}",
            self.name.rsplit('-').next().unwrap_or_default(),
            round.event,
            self.earlier,
            rates.join(":"),
            if self.http2 { ", http2" } else { "" },
            if self.patience.is_some() { ", impatient" } else { "" },
            self.analysis(),
        )
    }
}

/// Users whom affinity tells apart.
fn users() -> &'static [Visitor] {
    static USERS: std::sync::LazyLock<Vec<Visitor>> = std::sync::LazyLock::new(|| {
        let user = |number: u32| {
            let cookie: &'static str = Box::leak(format!("uid={number}").into_boxed_str());
            let headers: &'static [(&str, &str)] = Box::leak(Box::new([("cookie", cookie)]));
            Visitor { headers, matches: false, tester: false }
        };
        (0..500).map(user).collect()
    });
    &USERS
}
