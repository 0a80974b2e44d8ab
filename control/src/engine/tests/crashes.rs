//! The control plane dies before and after each of its writes.

use super::*;

/// What a whole rollout came to, seen from the proxies.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Life {
    phase: &'static str,
    /// The shares that were served, without repeats.
    weights: Vec<u16>,
    writes: u64,
    crashed: bool,
}

/// A rollout from its start to its end, by a control plane that dies at one of its writes and comes back.
fn live(crash: Option<Crash>, broken_from: Option<u16>) -> Life {
    let mut world = World::new();
    let before = world.store.writes();
    world.store.crash(crash.map(|crash| Crash { at: before + crash.at, ..crash }));
    world.rollout();
    let (mut weights, mut crashed) = (Vec::new(), false);
    for _ in 0..4_000 {
        // What the dead one has sent to the proxies stays with them; the next one answers once it has learnt.
        if world.store.take_dead() {
            world.store.crash(None);
            crashed = true;
            world = world.restart();
            world.rollout();
        }
        let weight = world.weight().get() / 100;
        if weights.last() != Some(&weight) {
            weights.push(weight);
        }
        if matches!(world.phase(), "Succeeded" | "Failed") && !world.store.take_dead() {
            break;
        }
        let canary = u64::from(weight);
        let bad = if broken_from.is_some_and(|from| weight >= from) { canary } else { 0 };
        world.traffic((100 - canary, 0), (canary, bad));
    }
    Life { phase: world.phase(), weights, writes: world.store.writes() - before, crashed }
}

#[test]
fn crash_matrix() {
    let mut points = 0;
    for (broken_from, phase, shares) in
        [(None, "Succeeded", &[0, 10, 20, 30, 40, 50][..]), (Some(20), "Failed", &[0, 10, 20][..])]
    {
        let undisturbed = live(None, broken_from);
        assert_eq!(undisturbed.phase, phase);
        for at in 0..undisturbed.writes {
            for after in [false, true] {
                points += 1;
                let life = live(Some(Crash { at, after }), broken_from);
                assert!(life.crashed, "write {at} came about");
                assert_eq!(life.phase, phase, "killed at write {at}, completed: {after}: {life:?}");
                // The plan's shares in the plan's order: repeated, never skipped, never back once it ended.
                let (last, run) = life.weights.split_last().unwrap();
                let peak = run.iter().max().unwrap();
                assert!(run.windows(2).all(|pair| pair[1] <= pair[0] + 10), "{life:?}");
                assert_eq!((*last, *peak), (0, *shares.last().unwrap()), "{life:?}");
            }
        }
    }
    println!("crash matrix: {points} points, all converge");
    assert!(points > 50, "{points}");
}
