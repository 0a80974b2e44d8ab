//! Users who keep their arm: which ones an arm has is drawn once.

use wingbeat_core::analysis::judge::{Comparison, JudgeConfig};
use wingbeat_core::analysis::window::{Batch, WINDOW};
use wingbeat_core::counts::{Counts, GroupCounts};
use wingbeat_core::matching::bucket::{BUCKETS, group_of, has_canary};
use wingbeat_core::time::Timestamp;
use wingbeat_core::weight::BasisPoints;

use crate::simulation::draw::Draw;
use crate::simulation::line::{Effort, Line, Tally, each, quantile};
use crate::simulation::rollout::{Rollout, World, shipped};
use crate::simulation::traffic::{batch, counts};
use crate::simulation::watching::{REQUESTS, above_alpha, rolled_back, watched};

const RPS: f64 = 1_000.0;

/// Users, and the standard deviations of the logarithms of what they do and of how often it fails.
const USERS: u64 = 5_000;
const ERRORS: f64 = 0.01;
const ERRORS_SIGMA: f64 = 1.0;

/// The canary's share in percent.
const WEIGHT: u8 = 5;

/// Canary requests within which a bad one should be seen.
const WITHIN: u64 = 20_000;

/// Traffic of users who keep their arm.
#[derive(Debug, Clone)]
struct Users {
    draw: Draw,
    /// Of each group that has users: its number, its part of all requests, and the share of them that fails.
    groups: Vec<(u8, f64, f64)>,
    /// The canary fails so many times as often.
    times: f64,
}

impl Users {
    fn new(seed: u64, activity_sigma: f64, times: f64) -> Self {
        let mut draw = Draw::new(seed);
        let mut groups = vec![(0.0, 0.0); usize::from(group_of(BUCKETS)) + 1];
        for _ in 0..USERS {
            let (activity, rate) =
                (draw.log_normal(1.0, activity_sigma), draw.log_normal(ERRORS, ERRORS_SIGMA).min(0.5));
            if let Some(group) = groups.get_mut(usize::from(group_of(draw.below(BUCKETS)))) {
                *group = (group.0 + activity, group.1 + activity * rate);
            }
        }
        let whole: f64 = groups.iter().map(|(activity, _)| activity).sum();
        let group = |(number, (activity, bad)): (u8, (f64, f64))| (number, activity / whole, bad / activity);
        let groups = (0..).zip(groups).filter(|(_, (activity, _))| *activity > 0.0).map(group).collect();
        Self { draw, groups, times }
    }
}

impl World for Users {
    fn window(&mut self, share: f64, end: Timestamp) -> Batch {
        let weight = BasisPoints::from_percent((share * 100.0).round() as u8);
        let mut arms = [(0, 0, Vec::new()), (0, 0, Vec::new())];
        for &(group, part, rate) in &self.groups {
            let requests = self.draw.poisson(RPS * WINDOW.as_secs_f64() * part);
            if requests == 0 {
                continue;
            }
            let of_canary = has_canary(u64::from(group) * BUCKETS / (u64::from(group_of(BUCKETS)) + 1), weight);
            let rate = if of_canary { (rate * self.times).min(1.0) } else { rate };
            let errors = self.draw.binomial(requests, rate);
            let [canary, primary] = &mut arms;
            let arm = if of_canary { canary } else { primary };
            (arm.0, arm.1) = (arm.0 + requests, arm.1 + errors);
            arm.2.push((group, GroupCounts { judged: requests, errors }));
        }
        let [canary, primary] = arms.map(|(requests, errors, groups)| Counts {
            groups: groups.into_iter().collect(),
            ..counts(requests, errors)
        });
        batch(end, primary, canary)
    }
}

fn comparing(comparison: Comparison) -> JudgeConfig {
    JudgeConfig { comparison, ..shipped() }
}

/// Returns how many healthy canaries are rolled back, compared in this way.
pub fn healthy(runs: u64, activity_sigma: f64, comparison: Comparison) -> Tally {
    rolled_back(&watched(runs, &comparing(comparison), |seed| Users::new(seed, activity_sigma, 1.0)))
}

/// Returns after how many canary requests those were rolled back that fail five times as often, compared in this way; of
/// so many runs.
pub fn failing(runs: u64, activity_sigma: f64, comparison: Comparison) -> Vec<u64> {
    let config = comparing(comparison);
    let seen = each(runs, |seed| {
        let mut rollout = Rollout::new(Users::new(seed, activity_sigma, 5.0), config.clone());
        rollout.step(WEIGHT);
        rollout.watch(WITHIN).rolled_back
    });
    seen.into_iter().flatten().collect()
}

/// What becomes of canaries whose users keep their arm: healthy ones, and such as fail five times as often.
pub fn rows(effort: Effort) -> Vec<Line> {
    let rows = [1.0, 2.0].into_iter().flat_map(|activity_sigma| {
        let ways = [
            (Comparison::Randomised, "as if chance divided each request"),
            (Comparison::Affinity, "by groups of users"),
            (Comparison::Absolute, "by the hard guard alone"),
        ];
        ways.map(|(comparison, how)| {
            let false_ones = healthy(effort.of(500), activity_sigma, comparison);
            let runs = effort.of(200);
            let mut caught = failing(runs, activity_sigma, comparison);
            let many = caught.len();
            let half = if many == 0 { "-".to_owned() } else { quantile(&mut caught, 0.5).to_string() };
            let figure = format!(
                "healthy {false_ones}{}; failing 5 times as often: {many} of {runs} within {WITHIN} canary requests, half \
                 of these after {half}",
                above_alpha(false_ones),
            );
            let what = format!(
                "{USERS} users stay with their arm, log-sd {activity_sigma} of activity and {ERRORS_SIGMA} of errors \
                 (median 1 %), {REQUESTS} canary requests; compared {how}"
            );
            Line::shown("judge-false", what, figure)
        })
    });
    rows.collect()
}
