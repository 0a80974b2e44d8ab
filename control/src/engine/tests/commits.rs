//! Storing takes its time, fails, or dies on the way: before it is sent, between sent and confirmed, confirmed twice, refused,
//! and confirmed after 30 s, at every commit of a rollout.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::*;
use crate::immediate::Carrier;
use crate::store::StoreError;

/// What happens to a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The process dies before it is sent.
    KilledBeforeSent,
    /// It is stored, and the process dies before it knows.
    KilledBeforeConfirmed,
    ConfirmedTwice,
    /// Somebody else has changed what it changes: nothing of it is stored.
    Refused,
    /// It is stored, and confirmed 30 s later.
    ConfirmedLate,
    /// It is stored 30 s later.
    StoredLate,
}

const FAULTS: [Fault; 6] = [
    Fault::KilledBeforeSent,
    Fault::KilledBeforeConfirmed,
    Fault::ConfirmedTwice,
    Fault::Refused,
    Fault::ConfirmedLate,
    Fault::StoredLate,
];

const LATE: Span = Span::from_secs(30);
/// Steps that are stored of a rollout of five positions: one for each, and four for how it begins and ends.
const STEPS: u64 = 9;

/// Which commits a fault befalls, counted from the first one.
#[derive(Debug, Clone, Copy)]
enum Befalls {
    Only(u64),
    From(u64),
}

#[derive(Debug, Default)]
struct Seen {
    commits: u64,
    /// Those that hold a canary's state.
    steps: u64,
    dead: bool,
}

/// A way to the store on which a fault befalls some commits.
struct Faulty {
    store: Memory,
    fault: Option<(Befalls, Fault)>,
    /// Those on their way, in order: when they arrive, and what is still to be stored.
    late: VecDeque<(Timestamp, CommitId, Vec<Write>)>,
    seen: Arc<Mutex<Seen>>,
}

impl Carrier for Faulty {
    fn carry(&mut self, commits: Vec<Commit>, now: Timestamp) -> Vec<(CommitId, Result<(), StoreError>)> {
        let mut outcomes = Vec::new();
        let mut seen = self.seen.lock().unwrap();
        for commit in commits {
            let (id, writes) = (commit.id, commit.into_writes());
            let number = seen.commits;
            seen.commits += 1;
            let is_step = |write: &Write| matches!(write, Write::Put(key, _) if key.starts_with("canary/"));
            seen.steps += u64::from(writes.iter().any(is_step));
            let fault = self.fault.filter(|(befalls, _)| match befalls {
                Befalls::Only(only) => number == *only,
                Befalls::From(first) => number >= *first,
            });
            if seen.dead {
                continue;
            }
            match fault.map(|(_, fault)| fault) {
                // In order: nothing overtakes what is late.
                None if self.late.is_empty() => outcomes.push((id, self.store.commit(&writes))),
                None => self.late.push_back((now, id, writes)),
                Some(Fault::KilledBeforeSent) => seen.dead = true,
                Some(Fault::KilledBeforeConfirmed) => {
                    self.store.commit(&writes).unwrap();
                    seen.dead = true;
                }
                Some(Fault::ConfirmedTwice) => {
                    self.store.commit(&writes).unwrap();
                    outcomes.extend([(id, Ok(())), (id, Ok(()))]);
                }
                Some(Fault::Refused) => {
                    let (path, why) = ("memory".to_owned(), "somebody else has changed it".to_owned());
                    outcomes.push((id, Err(StoreError::Write { path, why })));
                }
                Some(Fault::ConfirmedLate) => {
                    self.store.commit(&writes).unwrap();
                    self.late.push_back((now.plus(LATE), id, Vec::new()));
                }
                Some(Fault::StoredLate) => self.late.push_back((now.plus(LATE), id, writes)),
            }
        }
        while self.late.front().is_some_and(|(at, ..)| *at <= now) && !seen.dead {
            let Some((_, id, writes)) = self.late.pop_front() else { break };
            outcomes.push((id, self.store.commit(&writes)));
        }
        outcomes
    }
}

/// What a whole rollout came to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Life {
    phase: &'static str,
    /// The shares that were served, without repeats.
    weights: Vec<u16>,
    commits: u64,
    /// Commits that hold the canary's state, if nobody dies.
    steps: u64,
    /// How long a canary that fails everything was served.
    bad: Span,
}

fn over(store: &Memory, fault: Option<(Befalls, Fault)>, seed: u8) -> (World, Arc<Mutex<Seen>>) {
    let seen = Arc::<Mutex<Seen>>::default();
    let carrier = Faulty { store: store.clone(), fault, late: VecDeque::new(), seen: seen.clone() };
    let engine = Engine::load(&mut store.clone(), [seed; 32]).unwrap();
    (World { engine: Immediate::over(engine, Box::new(carrier)), ..World::over(Memory::default()) }, seen)
}

/// A store in which a revision serves.
fn begun() -> Memory {
    let store = Memory::default();
    let (mut world, _) = over(&store, None, 0);
    world.engine.configure(desired_state("1"), world.now);
    world.tick();
    store
}

/// A rollout from its start to its end, on a way to the store with this fault.
fn live(fault: Option<(Befalls, Fault)>, broken_from: Option<u16>) -> Life {
    let store = begun();
    let (mut world, mut seen) = over(&store, fault, 1);
    world.rollout();
    let (mut weights, mut commits, mut bad) = (Vec::new(), 0, 0);
    for _ in 0..6_000 {
        if seen.lock().unwrap().dead {
            commits = seen.lock().unwrap().commits;
            let (mut next, after) = over(&store, None, 2);
            (next.now, next.sequence, next.primary, next.canary) =
                (world.now, world.sequence, world.primary, world.canary);
            (world, seen) = (next, after);
            world.rollout();
        }
        let weight = world.weight().get() / 100;
        if weights.last() != Some(&weight) {
            weights.push(weight);
        }
        let settled = !world.engine.commits.has(|_| true);
        if matches!(world.phase(), "Succeeded" | "Failed") && settled && !seen.lock().unwrap().dead {
            break;
        }
        let canary = u64::from(weight);
        let is_bad = broken_from.is_some_and(|from| weight >= from);
        bad += u64::from(is_bad);
        world.traffic((100 - canary, 0), (canary, if is_bad { canary } else { 0 }));
    }
    commits = commits.max(seen.lock().unwrap().commits);
    let steps = seen.lock().unwrap().steps;
    Life { phase: world.phase(), weights, commits, steps, bad: Span::from_millis(100 * bad) }
}

#[test]
fn every_fault_at_every_commit_converges() {
    let mut points = 0;
    for (broken_from, phase, peak) in [(None, "Succeeded", 50), (Some(20), "Failed", 20)] {
        let undisturbed = live(None, broken_from);
        assert_eq!(undisturbed.phase, phase, "{undisturbed:?}");
        for number in 0..undisturbed.commits {
            for fault in FAULTS {
                points += 1;
                let life = live(Some((Befalls::Only(number), fault)), broken_from);
                assert!(life.commits > number, "commit {number} came about: {life:?}");
                assert_eq!(life.phase, phase, "{fault:?} at commit {number}: {life:?}");
                let (last, run) = life.weights.split_last().unwrap();
                assert!(run.windows(2).all(|pair| pair[1] <= pair[0] + 10), "{fault:?} at {number}: {life:?}");
                let highest = run.iter().max().unwrap();
                assert!(*last == 0 && *highest <= peak, "{fault:?} at {number}: {life:?}");
                let is_dead = matches!(fault, Fault::KilledBeforeSent | Fault::KilledBeforeConfirmed);
                // Whoever starts anew has to see it anew. All others lose a window at most: a share may begin in the middle of one.
                let window = Span::from_millis(200);
                let most = undisturbed.bad.plus(if is_dead { undisturbed.bad } else { window });
                assert!(life.bad <= most, "{fault:?} at {number}: {life:?}, undisturbed {:?}", undisturbed.bad);
            }
        }
    }
    println!("commit protocol: {points} points, all converge");
    assert!(points > 150, "{points}");
}

/// What a restart finds out anew is not stored.
#[test]
fn a_position_costs_one_step() {
    let undisturbed = live(None, None);
    assert_eq!((undisturbed.phase, undisturbed.weights.as_slice()), ("Succeeded", &[10, 20, 30, 40, 50, 0][..]));
    assert_eq!(undisturbed.steps, STEPS, "{undisturbed:?}");
}

/// From some commit on each takes 30 s: what fails is out as soon as where storing takes no time.
#[test]
fn an_abort_is_published_before_anything_is_stored() {
    let undisturbed = live(None, Some(20));
    let (mut out, mut slow) = (0, 0);
    for first in 0..undisturbed.commits {
        for fault in [Fault::StoredLate, Fault::ConfirmedLate] {
            let life = live(Some((Befalls::From(first), fault)), Some(20));
            out += 1;
            slow += u64::from(!life.bad.is_zero());
            assert_eq!(life.phase, "Failed", "{fault:?} from {first}: {life:?}");
            assert!(life.bad <= undisturbed.bad, "{fault:?} from {first}: {life:?}, undisturbed {:?}", undisturbed.bad);
        }
    }
    println!(
        "storing takes 30 s: {out} rollouts, each out after {} ms as where it takes none",
        undisturbed.bad.as_millis()
    );
    assert!(slow > 10, "the canary was served in {slow} of {out}");
}

/// It takes its time, and the user goes on: what comes meanwhile is carried out after it, in order.
#[test]
fn commands_wait_for_what_is_being_stored_and_an_abort_does_not() {
    let store = begun();
    let (mut world, _) = over(&store, Some((Befalls::From(2), Fault::StoredLate)), 1);
    world.rollout();
    while world.weight().is_zero() {
        world.traffic((100, 0), (0, 0));
        assert!(world.sequence < 1_000, "it begins");
    }
    let engine = &mut *world.engine;
    let paused = engine.command(&name(), Command::Pause, "1", world.now);
    assert!(matches!(paused, Commanded::UnderWay(_)), "{paused:?}");
    for number in 0..MAX_WAITING_COMMANDS {
        let resumed = engine.command(&name(), Command::Resume, &format!("resume-{number}"), world.now);
        assert!(matches!(resumed, Commanded::UnderWay(_)), "{resumed:?}");
    }
    let refused = engine.command(&name(), Command::Pause, "too-many", world.now);
    assert!(matches!(refused, Commanded::Done(Err(_))), "{refused:?}");
    assert_eq!(engine.command(&name(), Command::Abort, "abort", world.now), Commanded::Done(Ok(())));
    assert_eq!((world.phase(), world.weight()), ("Failed", BasisPoints::ZERO), "whatever is under way");
    let replies = world.engine.replies();
    assert_eq!(replies.len(), MAX_WAITING_COMMANDS, "there is no rollout any more to resume: {replies:?}");
    world.engine.settle(world.now);
    world.now = world.now.plus(LATE);
    world.tick();
    let replies = world.engine.replies();
    assert!(matches!(&replies[..], [(_, Err(why))] if why.contains("rolled back")), "{replies:?}");
}

/// A canary is removed, or removed and added again, while its step is being stored.
#[test]
fn a_canary_may_go_while_its_step_is_being_stored() {
    for returns in [false, true] {
        let store = begun();
        let (mut world, _) = over(&store, Some((Befalls::From(0), Fault::StoredLate)), 1);
        world.rollout();
        world.engine.configure(DesiredState::default(), world.now);
        world.tick();
        if returns {
            world.engine.configure(desired_state("2"), world.now);
            world.tick();
        }
        world.now = world.now.plus(LATE);
        world.tick();
        world.now = world.now.plus(LATE);
        world.tick();
        let (mut world, _) = over(&store, None, 2);
        world.rollout();
        assert!(matches!(world.phase(), "Waiting" | "Progressing"), "{returns}: {}", world.phase());
    }
}

/// A disk that is full, or hangs, is not asked as fast as it answers.
#[test]
fn nothing_is_due_at_once_while_storing_fails_or_hangs() {
    for fault in [Fault::Refused, Fault::StoredLate] {
        for aborts in [false, true] {
            let (mut world, _) = over(&begun(), None, 1);
            if aborts {
                world.rollout();
                world.tick();
            }
            let (store, seen) = (Memory::default(), Arc::<Mutex<Seen>>::default());
            let fault = Some((Befalls::From(0), fault));
            world.engine.carry_by(Box::new(Faulty { store, fault, late: VecDeque::new(), seen: seen.clone() }));
            if aborts {
                world.engine.command(&name(), Command::Abort, "1", world.now).unwrap();
            } else {
                world.rollout();
            }
            for _ in 0..100 {
                world.now = world.now.plus(Span::from_micros(100));
                world.tick();
            }
            let next = world.engine.next_timeout(world.now);
            assert!(next > world.now, "{fault:?}, aborts: {aborts}");
            let commits = seen.lock().unwrap().commits;
            assert!(commits <= 3, "{fault:?}, aborts: {aborts}: {commits} commits in 10 ms");
        }
    }
}

/// The disk hangs from some commit on, what fails is out, and the process dies: the next one finds the abort in what the
/// proxies show, whether the step that it took the place of reached the disk or not.
#[test]
fn an_abort_in_place_of_a_step_is_found_after_a_kill() {
    let mut found = 0;
    for first in 0..live(None, Some(20)).commits {
        for fault in [Fault::StoredLate, Fault::ConfirmedLate] {
            for restarted in [false, true] {
                let store = begun();
                let (mut world, _) = over(&store, None, 1);
                world.rollout();
                let fault_at = if restarted {
                    // The first step after a restart leaves more revs out.
                    (0..3).for_each(|_| drop(world.traffic((90, 0), (10, 0))));
                    let (mut next, _) = over(&store, Some((Befalls::From(first), fault)), 2);
                    (next.now, next.sequence, next.primary, next.canary) =
                        (world.now, world.sequence, world.primary, world.canary);
                    world = next;
                    world.rollout();
                    0
                } else {
                    world.engine.carry_by(Box::new(Faulty {
                        store: store.clone(),
                        fault: Some((Befalls::From(first), fault)),
                        late: VecDeque::new(),
                        seen: Arc::default(),
                    }));
                    first
                };
                for _ in 0..300 {
                    let weight = world.weight().get() / 100;
                    let canary = u64::from(weight);
                    // Good until the next step is on its way to the disk.
                    let is_held = world.engine.canaries.all()[&name()].proposed.is_some();
                    world.traffic((100 - canary, 0), (canary, if is_held { canary } else { 0 }));
                    if world.phase() == "Failed" {
                        break;
                    }
                }
                if world.phase() != "Failed" {
                    continue;
                }
                found += 1;
                let request = world.request();
                let rev = request.clusters[0].rev;
                let (mut next, _) = over(&store, None, 3);
                next.now = world.now.plus(Span::from_millis(500));
                next.rollout();
                let mend = format!("{fault:?} from {first}, restarted: {restarted}, at {fault_at}, rev {rev}");
                assert!(next.engine.is_learning() || next.weight().is_zero(), "{mend}");
                let one = |cluster: &ClusterReport| ClusterReport {
                    started: cluster.started + 1,
                    finished: cluster.finished + 1,
                    outcomes: cluster.outcomes.iter().enumerate().map(|(at, n)| n + u64::from(at == 0)).collect(),
                    rev_started: cluster.rev_started + 1,
                    ..cluster.clone()
                };
                let clusters = vec![one(&request.clusters[0]), request.clusters[1].clone()];
                let request = ReportRequest { sequence: request.sequence + 1, clusters, ..request };
                report(&mut next.engine, &request, next.now).unwrap();
                next.tick();
                assert_eq!((next.phase(), next.weight()), ("Failed", BasisPoints::ZERO), "{mend}");
            }
        }
    }
    println!("killed with an abort that is not stored: {found} times, each found");
    assert!(found > 20, "{found}");
}
