//! What is recorded of a rollout, and what a replay of it comes to.

use super::*;

/// Replays what was recorded, from the lines as they are in files. Returns the last verdict and the lines.
fn replayed(recorded: Vec<JudgedWindow>) -> (String, usize) {
    let config = JudgeConfig { attempt: Some(std::num::NonZeroU32::MIN), ..JudgeConfig::default() };
    let mut replay = Replay::new(config);
    let mut last = String::new();
    let lines = recorded.len();
    for recorded in recorded {
        let text = serde_json::to_string(&recorded.line).unwrap();
        let row = replay.step(&serde_json::from_str(&text).unwrap()).unwrap();
        last = format!("{}: {}", row.verdict, row.reason);
    }
    (last, lines)
}

/// Returns what the judge said last of a rollout.
fn said(world: &World) -> String {
    let assessed = world.engine.canaries.all()[&name()].assessed.as_ref().unwrap();
    format!("{}: {}", assessed.verdict.as_str(), assessed.verdict.reason())
}

#[test]
fn a_recording_comes_to_the_verdict_of_the_rollout() {
    for (errors, ends) in [(3, "Failed"), (0, "Succeeded")] {
        let mut world = World::new();
        world.engine.record();
        world.rollout();
        for _ in 0..3_000 {
            let canary = u64::from(world.weight().get() / 100);
            world.traffic((100 - canary, 1), (canary, errors.min(canary)));
            if world.phase() == ends {
                break;
            }
        }
        assert_eq!(world.phase(), ends);
        let (last, lines) = replayed(world.engine.recorded());
        assert_eq!(last, said(&world), "{ends}");
        assert!(lines > 1 && last.starts_with(if errors > 0 { "rollback" } else { "advance" }), "{lines}: {last}");
    }
}

/// A killed control plane goes on with the evidence that it wrote down; what it hands out to be recorded is that, too.
#[test]
fn a_recording_has_nothing_twice_after_a_restart() {
    let mut world = World::new();
    world.engine.record();
    world.rollout();
    let mut all = Vec::new();
    for _ in 0..25 {
        world.traffic((90, 1), (10, 0));
        all.extend(world.engine.recorded());
    }
    let before = all.len();
    let held = world.engine.recorded_to_the_end().len();
    assert!(before > 0 && held > 0, "{before} handed out, {held} not written down");
    let mut world = world.restart();
    world.engine.record();
    world.engine.configure(desired_state("2"), world.now);
    world.engine.stop_learning();
    for _ in 0..200 {
        world.traffic((90, 1), (10, 3));
        if world.phase() == "Failed" {
            break;
        }
    }
    let after = world.engine.recorded();
    assert!(after.iter().all(|recorded| recorded.resumed));
    all.extend(after);
    assert!(all.windows(2).all(|pair| pair[0].line.t_ms < pair[1].line.t_ms));
    assert_eq!(replayed(all).0, said(&world));
}

/// The recordings as files are, by canary and rollout. Each is in order of time, and taken as it is.
fn files(recorded: Vec<JudgedWindow>) -> Vec<(CanaryName, RolloutId, String)> {
    let mut files: BTreeMap<(CanaryName, RolloutId), Vec<JudgedWindow>> = BTreeMap::new();
    recorded.into_iter().for_each(|line| files.entry((line.canary.clone(), line.rollout)).or_default().push(line));
    let files = files.into_iter().map(|((canary, rollout), lines)| (canary, rollout, replayed(lines).0));
    files.collect()
}

/// What ends a rollout.
type End = fn(&mut World);

/// Requests that were on their way are reported, and windows end, after whatever ended the rollout.
#[test]
fn a_recording_has_nothing_twice_however_its_rollout_ends() {
    let ends: [(&str, End); 5] = [
        ("rollback", |world| drop(world.traffic((90, 0), (10, 10)))),
        ("abort", |world| world.engine.command(&name(), Command::Abort, "1", world.now).unwrap()),
        ("promote", |world| world.engine.command(&name(), Command::Promote, "1", world.now).unwrap()),
        ("taken back", |world| world.engine.configure(desired_state("1"), world.now)),
        ("a third revision", |world| {
            let mut next = desired_state("3");
            let workload = &mut next.canaries.get_mut(&name()).unwrap().workload;
            workload.revisions.insert(Revision::new("3"), vec![("127.0.0.1".to_owned(), 3)]);
            world.engine.configure(next, world.now);
        }),
    ];
    for (end, act) in ends {
        let mut world = World::new();
        world.engine.record();
        world.rollout();
        (0..7).for_each(|_| drop(world.traffic((90, 1), (10, 0))));
        act(&mut world);
        (0..25).for_each(|_| drop(world.traffic((90, 1), (10, 10))));
        world.engine.command(&name(), Command::Abort, "2", world.now).unwrap_or_default();
        world.engine.command(&name(), Command::Retry, "3", world.now).unwrap_or_default();
        (0..25).for_each(|_| drop(world.traffic((90, 1), (10, 0))));
        let files = files(world.engine.recorded_to_the_end());
        assert!(!files.is_empty(), "{end}");
    }
}

/// Two canaries at the same proxies, over restarts at any moment.
#[test]
fn each_canary_has_a_recording_of_its_own() {
    let other = CanaryName::new("prod", "other");
    let both = |revision: &str| {
        let mut both = desired_state(revision);
        let mut second = both.canaries[&name()].clone();
        second.plan =
            Plan::try_new(&PlanInput { name: Some(other.clone()), target: "other".into(), ..plan_input() }).unwrap();
        second.service.hosts = vec!["other.local".into()];
        both.canaries.insert(other.clone(), second);
        both
    };
    let mut world = World::over(Memory::default());
    world.engine.configure(both("1"), world.now);
    world.tick();
    world.engine.record();
    world.engine.configure(both("2"), world.now);
    world.tick();
    let mut all = Vec::new();
    for round in 1..=60 {
        // The other one is used half as much, and fails now and then.
        let mut request = world.request();
        let state = &world.engine.canaries.all()[&other];
        let (rev, epoch) = (state.state.rev.get(), state.epoch().get());
        let of_other: Vec<ClusterReport> = request
            .clusters
            .iter()
            .map(|cluster| ClusterReport {
                cluster: cluster.cluster.replace("backend", "other"),
                rev,
                epoch,
                ..cluster.clone()
            })
            .collect();
        request.clusters.extend(of_other);
        world.sequence += 1;
        request.sequence = world.sequence;
        report(&mut world.engine, &request, world.now).unwrap();
        world.traffic((90, 1), (10, u64::from(round % 5 == 0)));
        if round % 13 == 0 {
            all.extend(world.engine.recorded());
            world = world.restart();
            world.engine.record();
            world.engine.configure(both("2"), world.now);
            world.engine.stop_learning();
            world.tick();
        }
    }
    all.extend(world.engine.recorded_to_the_end());
    let files = files(all);
    let names: BTreeSet<&CanaryName> = files.iter().map(|(canary, ..)| canary).collect();
    assert_eq!(names, BTreeSet::from([&name(), &other]), "{files:?}");
}

#[test]
fn what_is_not_recorded_is_told_once_and_shown() {
    let mut world = World::new();
    world.rollout();
    world.engine.take_events();
    let loss = |windows| {
        let loss = RecordingLoss { rollout: RolloutId::new(1), windows, why: "no room".to_owned() };
        BTreeMap::from([(name(), loss)])
    };
    let condition = |world: &mut World| {
        let board = world.engine.status(true, world.now);
        let view = board.canaries.values().next().unwrap().clone();
        view.conditions.iter().find(|condition| condition.kind == "Recorded").map(|condition| condition.message.clone())
    };
    for windows in 1..=3 {
        world.engine.not_recorded(loss(windows), world.now);
    }
    let told: Vec<String> = world.engine.take_events().into_iter().map(|told| told.text).collect();
    assert_eq!(told, ["Recording of backend.prod fails and the rollout goes on: no room"]);
    let shown = condition(&mut world).unwrap();
    assert_eq!(shown, "3 windows of the rollout are not in its recording: no room");
    world.engine.not_recorded(BTreeMap::new(), world.now);
    assert_eq!(condition(&mut world), None);
}
