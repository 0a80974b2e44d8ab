//! What is stored and what survives: full disks, restarts, other versions of the state.

use super::*;

#[test]
fn a_full_disk_freezes_steps_but_not_an_abort() {
    let mut world = World::new();
    world.store.set_full(true);
    world.rollout();
    assert_eq!(world.weight(), BasisPoints::ZERO, "what cannot be stored is not begun");
    let stored = |world: &mut World| {
        let board = world.engine.status(true, world.now);
        let view = board.canaries.values().next().unwrap().clone();
        view.conditions.iter().find(|condition| condition.kind == "Stored").map(|condition| condition.message.clone())
    };
    assert!(stored(&mut world).is_some_and(|why| why.contains("memory cannot be written")));
    world.store.set_full(false);
    world.now = world.now.plus(Span::from_millis(100));
    world.tick();
    assert_eq!(world.weight(), BasisPoints::from_percent(10));
    assert_eq!(stored(&mut world), None);
    world.store.set_full(true);
    world.engine.command(&name(), Command::Abort, "1", world.now).unwrap();
    assert_eq!(world.weight(), BasisPoints::ZERO);
    // Once there is room, it is stored, and a restart does not take it back.
    world.store.set_full(false);
    world.now = world.now.plus(Span::from_millis(100));
    world.tick();
    let mut world = world.restart();
    world.rollout();
    assert_eq!(world.phase(), "Failed");
}

#[test]
fn an_abort_that_could_not_be_stored_is_found_in_what_the_proxies_serve() {
    let mut world = World::new();
    world.rollout();
    world.store.set_full(true);
    world.engine.command(&name(), Command::Abort, "1", world.now).unwrap();
    // As long as it is not stored, the filters go on counting: requests show that it is served.
    let counting = |world: &World| {
        let host = &world.engine.model().hosts[0];
        (host.filter, matches!(host.split, Split::Single(_)), world.engine.canaries.owner("prod/backend/1").is_some())
    };
    assert_eq!(counting(&world), (true, true, true));
    let request = world.request();
    world.store.set_full(false);
    let mut stored = World { engine: world.engine, renderer: world.renderer, ..World::over(world.store.clone()) };
    stored.now = world.now.plus(Span::from_millis(50));
    let before = world.store.writes();
    world.store.crash(Some(Crash { at: before, after: false }));
    stored.tick();
    assert_eq!(counting(&stored), (false, true, false), "once it is stored, they rest");
    assert!(world.store.take_dead(), "but the process died before it was");
    world.store.crash(None);
    let mut world = World { engine: stored.engine, renderer: stored.renderer, ..world }.restart();
    world.rollout();
    assert_eq!(world.phase(), "Progressing");
    world.sequence += 1;
    let request = ReportRequest { sequence: world.sequence, ..request };
    let one = ClusterReport { started: 1, finished: 1, rev_started: 1, ..request.clusters[0].clone() };
    let mut outcomes = vec![0; Outcome::ALL.len()];
    outcomes[0] = 1;
    let request = ReportRequest { clusters: vec![ClusterReport { outcomes, latency: Vec::new(), ..one }], ..request };
    report(&mut world.engine, &request, world.now).unwrap();
    assert_eq!((world.phase(), world.weight()), ("Failed", BasisPoints::ZERO));
}

/// The usual canary and others.
fn with_others<'a>(revision: &str, others: impl IntoIterator<Item = &'a str>) -> DesiredState {
    let mut desired = desired_state(revision);
    for other in others {
        let mut config = desired.canaries[&name()].clone();
        let name = CanaryName::new("prod", other);
        let input = PlanInput { name: Some(name.clone()), target: other.into(), ..plan_input() };
        config.plan = Plan::try_new(&input).unwrap();
        config.service.hosts = vec![format!("{other}.local")];
        desired.canaries.insert(name, config);
    }
    desired
}

/// Three canaries, of which the usual one is the first by name.
fn setup_of_three(revision: &str) -> DesiredState {
    with_others(revision, ["second", "third"])
}

/// With many of them that are refused, some of which come first by name, the others wait for a turn or two.
#[test]
fn what_is_refused_of_many_canaries_holds_up_no_other() {
    let bad: Vec<String> = (0..40).map(|number| format!("a-bad-{number:02}")).collect();
    let setup = |revision: &str| with_others(revision, bad.iter().map(String::as_str).chain(["other"]));
    let pass = |world: &mut World| {
        for _ in 0..400 {
            world.now = world.now.plus(Span::from_millis(25));
            world.tick();
        }
    };
    let mut world = World::new();
    world.engine.configure(setup("1"), world.now);
    world.tick();
    world.store.refuse(Some("canary/prod/a-bad-".to_owned()));
    world.engine.configure(setup("2"), world.now);
    pass(&mut world);
    let others = [name(), CanaryName::new("prod", "other")];
    for number in 0..20 {
        for name in &others {
            let (verb, id) = if number % 2 == 0 { (Command::Pause, "a") } else { (Command::Resume, "b") };
            let before = world.now;
            while let Err(why) = world.engine.command(name, verb, &format!("{id}{number}"), world.now) {
                world.now = world.now.plus(Span::from_millis(10));
                world.tick();
                assert!(world.now.since(before) <= Span::from_millis(300), "{number} {name}: {why}");
            }
        }
    }
    // Then they are in a rollout, too, and all are aborted while none of these can be stored.
    world.store.refuse(None);
    pass(&mut world);
    world.store.refuse(Some("canary/prod/a-bad-".to_owned()));
    let all: Vec<CanaryName> = world.engine.canaries.all().keys().cloned().collect();
    for name in &all {
        world.engine.command(name, Command::Abort, "abort", world.now).unwrap();
    }
    pass(&mut world);
    assert_eq!(world.engine.canaries.unstored().count(), bad.len(), "those of the others are stored");
    // The disk was full, in truth: none waits for long once it is not.
    world.store.refuse(None);
    for _ in 0..100 {
        world.now = world.now.plus(Span::from_millis(10));
        world.tick();
    }
    assert_eq!(world.engine.canaries.unstored().count(), 0);
}

/// An object that a store refuses for ever, as an API server does with one that it finds invalid: the others go on, their
/// steps as fast as before and their aborts stored.
#[test]
fn what_is_refused_of_one_canary_holds_up_no_other() {
    let mut world = World::new();
    world.engine.configure(setup_of_three("1"), world.now);
    world.tick();
    world.store.refuse(Some("canary/prod/backend".to_owned()));
    world.engine.configure(setup_of_three("2"), world.now);
    let phases = |world: &World| -> Vec<&'static str> {
        world.engine.canaries.all().values().map(|canary| canary.state.phase.as_str()).collect()
    };
    let pass = |world: &mut World, holds: &dyn Fn(&World) -> bool| {
        let began = world.now;
        while !holds(world) {
            world.now = world.now.plus(Span::from_millis(10));
            world.tick();
            assert!(world.now.since(began) < Span::from_secs(1), "{:?}", phases(world));
        }
    };
    pass(&mut world, &|world| phases(world) == ["Initialized", "Progressing", "Progressing"]);
    let others = ["second", "third"].map(|name| CanaryName::new("prod", name));
    for number in 0..20 {
        world.now = world.now.plus(Span::from_millis(500));
        world.tick();
        for name in &others {
            let (verb, id) = if number % 2 == 0 { (Command::Pause, "a") } else { (Command::Resume, "b") };
            let before = world.now;
            // Somebody who is told that it cannot be stored asks again.
            while world.engine.command(name, verb, &format!("{id}{number}"), world.now).is_err() {
                world.now = world.now.plus(Span::from_millis(10));
                world.tick();
                assert!(world.now.since(before) <= Span::from_millis(100), "{number}");
            }
        }
    }
    // Once it is taken, it is stored soon; then it is refused again, with an abort.
    world.store.refuse(None);
    world.now = world.now.plus(Span::from_secs(1));
    pass(&mut world, &|world| phases(world) == ["Progressing"; 3]);
    world.store.refuse(Some("canary/prod/backend".to_owned()));
    for (number, name) in [name()].iter().chain(&others).enumerate() {
        world.engine.command(name, Command::Abort, &number.to_string(), world.now).unwrap();
    }
    assert_eq!(phases(&world), ["Failed"; 3], "all are served");
    pass(&mut world, &|world| world.engine.canaries.unstored().eq([&name()]));
    for _ in 0..100 {
        world.now = world.now.plus(Span::from_millis(50));
        world.tick();
    }
    world.store.refuse(None);
    world.now = world.now.plus(Span::from_secs(1));
    pass(&mut world, &|world| world.engine.canaries.unstored().next().is_none());
    let mut world = world.restart();
    world.engine.configure(setup_of_three("2"), world.now);
    assert_eq!(phases(&world), ["Failed"; 3]);
}

/// A fault that many share: each write takes its time, and the last abort waits for none.
#[test]
fn aborts_are_stored_together() {
    let mut world = World::new();
    for revision in ["1", "2"] {
        world.engine.configure(setup_of_three(revision), world.now);
        world.tick();
    }
    let names: Vec<CanaryName> = setup_of_three("2").canaries.into_keys().collect();
    for name in &names {
        world.engine.command(name, Command::Abort, "1", world.now).unwrap();
    }
    assert!(world.serve());
    world.engine.tick(world.now);
    assert_eq!(world.engine.canaries.unstored().count(), 0, "one round, whatever their number");
    let mut world = world.restart();
    world.engine.configure(setup_of_three("2"), world.now);
    let phases: Vec<&str> = names.iter().map(|name| world.engine.canaries.all()[name].state.phase.as_str()).collect();
    assert_eq!(phases, ["Failed"; 3]);
}

/// It is taken out of the configuration before its abort was stored.
#[test]
fn an_abort_is_stored_though_its_canary_is_gone() {
    for comes_back in [false, true] {
        let mut world = World::new();
        world.rollout();
        world.store.set_full(true);
        world.engine.command(&name(), Command::Abort, "1", world.now).unwrap();
        world.tick();
        world.engine.configure(DesiredState::default(), world.now);
        world.tick();
        if comes_back {
            world.engine.configure(desired_state("2"), world.now);
            world.tick();
        }
        world.store.set_full(false);
        world.now = world.now.plus(Span::from_secs(1));
        world.engine.tick(world.now);
        let mut world = world.restart();
        world.rollout();
        assert_eq!(world.phase(), "Failed", "{comes_back}");
    }
}

/// Flagger's pace needs no traffic to go on: until the proxies have shown what they serve, it does not.
#[test]
fn nothing_moves_before_the_proxies_have_shown_what_they_serve() {
    let mut world = World::over(Memory::default());
    for revision in ["1", "2"] {
        world.engine.configure(by_checks(revision), world.now);
    }
    for _ in 0..25 {
        world.traffic((90, 0), (10, 0));
    }
    let before = world.weight();
    assert!(!before.is_zero());
    world.store.set_full(true);
    world.engine.command(&name(), Command::Abort, "1", world.now).unwrap();
    let aborted = world.request();
    world.store.set_full(false);
    let mut world = world.restart();
    world.engine.configure(by_checks("2"), world.now);
    for _ in 0..20 {
        world.now = world.now.plus(Span::from_millis(100));
        world.tick();
    }
    // Threads of Envoy that serve nobody ask for the policy, and show nothing.
    let empty = ReportRequest { worker_id: 9, clusters: Vec::new(), ..world.request() };
    report(&mut world.engine, &empty, world.now).unwrap();
    world.tick();
    assert_eq!((world.engine.is_learning(), world.weight()), (true, before));
    let refused = world.engine.command(&name(), Command::Promote, "2", world.now).unwrap_err();
    assert!(refused.contains("try again in a second"), "{refused}");
    // Whoever has waited long enough goes on; the abort still shows when it comes.
    world.engine.stop_learning();
    let other = ReportRequest { worker_id: 9, sequence: world.sequence + 1, ..world.request() };
    report(&mut world.engine, &other, world.now).unwrap();
    for _ in 0..20 {
        world.now = world.now.plus(Span::from_millis(100));
        world.tick();
    }
    assert!(world.weight() > before, "{:?}", world.weight());
    world.sequence += 1;
    world.primary.0 += 5;
    let request = ReportRequest { sequence: world.sequence, ..world.request() };
    let rev = aborted.clusters[0].rev;
    let clusters = request.clusters.into_iter().map(|cluster| ClusterReport { rev, ..cluster }).collect();
    report(&mut world.engine, &ReportRequest { clusters, ..request }, world.now).unwrap();
    assert_eq!((world.phase(), world.weight()), ("Failed", BasisPoints::ZERO));
}

/// As many as are kept, the latest ones; what a full disk did not take is stored when there is room.
#[test]
fn events_outlive_the_process() {
    let event = |id: u64| EventView { id, message: format!("event {id}"), ..EventView::default() };
    let mut world = World::new();
    assert_eq!(world.engine.restored(), []);
    let events: Vec<EventView> = (1..=1_500).map(event).collect();
    world.engine.append(&events[..1_400], world.now);
    world.store.set_full(true);
    world.engine.append(&events[1_400..1_450], world.now);
    world.engine.append(&events[1_450..], world.now);
    // One that repeats is written again and again, and pushes no other out.
    for _ in 0..2_000 {
        world.engine.append(&events[1_499..], world.now);
    }
    world.store.set_full(false);
    // Not at once: each attempt takes its time.
    world.engine.append(&[], world.now.plus(Span::from_millis(999)));
    let mut early = Immediate::open(Box::new(world.store.clone()), [1; 32]).unwrap();
    assert_eq!(early.restored().last().map(|event| event.id), Some(1_400));
    world.engine.append(&[], world.now.plus(Span::from_secs(1)));
    let mut world = world.restart();
    let remembered = world.engine.restored();
    assert_eq!(remembered.len(), 1_000);
    assert_eq!(remembered, events[500..]);
}

#[test]
fn state_of_a_later_version_is_refused_by_name() {
    let mut store = Memory::default();
    let later = br#"{"version": 9, "content": {"anything": true}}"#;
    store.commit(&[Write::Put("canary/prod/backend".to_owned(), later.to_vec())]).unwrap();
    let refused = Immediate::open(Box::new(store.clone()), [1; 32]).unwrap_err().to_string();
    assert!(refused.contains("canary/prod/backend has version 9"), "{refused}");
    store.commit(&[Write::Put("canary/prod/backend".to_owned(), b"{".to_vec())]).unwrap();
    let damaged = Immediate::open(Box::new(store), [1; 32]).unwrap_err().to_string();
    assert!(damaged.contains("canary/prod/backend is damaged"), "{damaged}");
}

#[test]
fn state_of_the_version_before_is_read_and_its_evidence_left_aside() {
    let mut world = World::new();
    world.rollout();
    for _ in 0..20 {
        world.traffic((90, 0), (10, 0));
    }
    let aged = |(key, bytes): (&String, &Vec<u8>)| {
        let mut entry: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        entry["version"] = 1.into();
        if key.starts_with("evidence/") {
            entry["content"] = serde_json::json!({"judge": "of another shape"});
        }
        Write::Put(key.clone(), serde_json::to_vec(&entry).unwrap())
    };
    let entries: Vec<_> = world.store.load().unwrap().iter().map(aged).collect();
    assert!(entries.iter().any(|write| matches!(write, Write::Put(key, _) if key.starts_with("evidence/"))));
    world.store.commit(&entries).unwrap();
    let (before, mut world) = (world.weight(), world.restart());
    world.engine.configure(desired_state("2"), world.now);
    world.engine.stop_learning();
    assert_eq!((world.phase(), world.weight()), ("Progressing", before));
    assert_eq!(world.counted(), 0, "evidence is gathered anew");
}

/// Records that the program before this one has written: a rollout goes on from each of them.
#[test]
fn records_of_the_version_before_are_read() {
    let records: BTreeMap<String, serde_json::Value> = serde_json::from_str(include_str!("records-v2.json")).unwrap();
    assert_eq!(records.len(), 4);
    for (label, record) in records {
        let mut store = Memory::default();
        let bytes = serde_json::to_vec(&record).unwrap();
        store.commit(&[Write::Put("canary/prod/backend".to_owned(), bytes)]).unwrap();
        let mut world = World::over(store);
        let (revision, phase) = match label.as_str() {
            "progressing" => ("2", "Progressing"),
            "promoting" => ("2", "Promoting"),
            "succeeded" => ("2", "Succeeded"),
            "failed" => ("1", "Failed"),
            other => panic!("{other}"),
        };
        let input =
            PlanInput { step_weight: Some(20), max_weight: None, step_weight_promotion: Some(10), ..plan_input() };
        world.engine.configure(planned(revision, &input), world.now);
        assert_eq!(world.phase(), phase, "{label}");
        world.engine.stop_learning();
        if label == "promoting" {
            let mut shares = vec![world.weight().get() / 100];
            for _ in 0..30 {
                world.now = world.now.plus(Span::from_millis(500));
                world.tick();
                let share = world.weight().get() / 100;
                if shares.last() != Some(&share) {
                    shares.push(share);
                }
            }
            assert!(shares.windows(2).all(|pair| pair[1] == pair[0] + 10 || pair[1] == 0), "{shares:?}");
            assert_eq!(world.phase(), "Succeeded");
        }
    }
}
