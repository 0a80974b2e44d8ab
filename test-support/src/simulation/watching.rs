//! Healthy canaries, watched for as long as the promise speaks of.

use wingbeat_core::analysis::judge::JudgeConfig;

use crate::simulation::line::{Tally, each};
use crate::simulation::rollout::{Rollout, Watched, World};
/// Canary requests of each rollout: 1,000 s at 1,000 requests a second, of which the canary has 5 %.
pub const REQUESTS: u64 = 50_000;

/// The promise: so many rollouts of healthy canaries are rolled back.
pub const ALPHA: f64 = 0.001;

/// Returns what became of healthy canaries in these worlds.
pub fn watched<W: World>(runs: u64, config: &JudgeConfig, world: impl Fn(u64) -> W + Sync) -> Vec<Watched> {
    each(runs, |seed| {
        let mut rollout = Rollout::new(world(seed), config.clone());
        rollout.step(5);
        rollout.watch(REQUESTS)
    })
}

/// Returns how many were rolled back.
pub fn rolled_back(watched: &[Watched]) -> Tally {
    Tally::of(&watched.iter().map(|one| one.rolled_back.is_some()).collect::<Vec<_>>())
}

/// Says by how much a rate is above α, where it surely is.
pub fn above_alpha(tally: Tally) -> String {
    let (low, _) = tally.interval();
    if low > ALPHA { format!(", {:.0} × α", tally.rate() / ALPHA) } else { String::new() }
}
