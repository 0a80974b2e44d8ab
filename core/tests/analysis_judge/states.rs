//! What the judge makes of modes, steps, checkpoints and nodes that say too much.

use super::*;

#[test]
fn users_of_different_kinds_are_not_compared() {
    let mut world = World::new(9, 1_000, 0.01, 0.03);
    let mut judge = Judge::new(JudgeConfig { comparison: Comparison::Absolute, ..JudgeConfig::default() });
    judge.step_started(percent(5), world.now);
    for _ in 0..1_000 {
        judge.observe(&world.tick());
    }
    let verdict = judge.assess(world.now, &Propagation::Effective).verdict;
    assert!(matches!(verdict, Verdict::Advance(_)), "{verdict:?}");
}

#[test]
fn warm_up_and_other_modes_leave_the_guard_only() {
    for (mode, warmup) in [(Mode::Sequential, true), (Mode::Guard, false)] {
        let run = |canary_rate| {
            let mut world = World::new(11, 1_000, 0.01, canary_rate);
            let mut judge = Judge::new(JudgeConfig { mode, ..JudgeConfig::default() });
            judge.step_started(percent(5), world.now);
            for _ in 0..300 {
                let mut batch = world.tick();
                batch.warmup = warmup;
                judge.observe(&batch);
            }
            judge.assess(world.now, &Propagation::Effective).verdict
        };
        assert!(matches!(run(1.0), Verdict::Rollback(_)));
        assert!(matches!(run(0.05), Verdict::Continue(_)));
    }
}

#[test]
fn shares_of_alpha_never_exceed_the_whole() {
    for mode in [Mode::Sequential, Mode::Guard, Mode::Thresholds] {
        for comparison in [Comparison::Randomised, Comparison::Absolute] {
            for error_limit in [None, Some(0.05)] {
                let config = JudgeConfig { mode, comparison, error_limit, ..JudgeConfig::default() };
                let whole: f64 = config.shares().iter().map(|(_, share)| share).sum();
                assert!(whole <= 1.0 + 1e-12);
            }
        }
    }
    let mut config = JudgeConfig::default();
    let single = config.decision_threshold();
    config.attempt = NonZeroU32::new(2);
    assert!((config.decision_threshold() - single - libm::log(6.0)).abs() < 1e-12);
}

#[test]
fn a_judge_goes_on_from_its_checkpoint_as_if_nothing_had_happened() {
    let mut world = World::new(21, 1_000, 0.01, 0.02);
    let mut judge = Judge::new(JudgeConfig::default());
    judge.step_started(percent(5), world.now);
    for tick in 0..200 {
        let batch = world.tick();
        judge.observe(&batch);
        if tick % 50 == 0 {
            let text = serde_json::to_string(&judge).unwrap();
            let restored: Judge = serde_json::from_str(&text).unwrap();
            let (now, propagation) = (world.now, Propagation::Effective);
            assert_eq!(restored.assess(now, &propagation), judge.assess(now, &propagation));
            judge = restored;
        }
    }
}

#[test]
fn evidence_of_safety_starts_anew_at_each_weight_and_harm_stays() {
    let mut world = World::new(31, 1_000, 0.05, 0.05);
    let mut judge = Judge::new(JudgeConfig { early_promotion: true, ..JudgeConfig::default() });
    judge.step_started(percent(5), world.now);
    for _ in 0..300 {
        judge.observe(&world.tick());
    }
    let before = judge.evidence();
    assert!(judge.assess(world.now, &Propagation::Effective).safe);
    judge.step_started(percent(10), world.now);
    let after = judge.evidence();
    assert!(!judge.assess(world.now, &Propagation::Effective).safe);
    assert!(before.errors.safe > 3.0 && after.errors.safe.abs() < 1e-9);
    assert!((before.errors.harm - after.errors.harm).abs() < 1e-12);
}

#[test]
fn a_fault_that_shows_under_load_is_never_taken_for_safe() {
    for seed in 0..200 {
        let mut world = World::new(seed, 1_000, 0.05, 0.05);
        let mut judge = Judge::new(JudgeConfig { early_promotion: true, ..JudgeConfig::default() });
        judge.step_started(percent(20), world.now);
        world.weight = 20;
        for _ in 0..100 {
            judge.observe(&world.tick());
        }
        assert!(judge.assess(world.now, &Propagation::Effective).safe);
        judge.step_started(percent(25), world.now);
        (world.weight, world.canary) = (25, 0.15);
        for _ in 0..50 {
            judge.observe(&world.tick());
            assert!(!judge.assess(world.now, &Propagation::Effective).safe, "seed {seed}");
        }
    }
}

#[test]
fn a_canary_that_has_everything_is_held_against_what_was_before() {
    let mut world = World::new(41, 400, 0.0, 0.0);
    let mut judge = Judge::new(JudgeConfig::default());
    world.weight = 50;
    judge.step_started(percent(50), world.now);
    for _ in 0..50 {
        judge.observe(&world.tick());
    }
    judge.step_started(percent(100), world.now);
    (world.weight, world.canary) = (100, 1.0);
    let mut seen = 0;
    loop {
        let batch = world.tick();
        seen += batch.judged.canary.finished;
        judge.observe(&batch);
        let assessed = judge.assess(world.now, &Propagation::Effective);
        match assessed.verdict {
            Verdict::Rollback(_) => break,
            Verdict::Advance(_) | Verdict::Continue(_) | Verdict::NoData(_) => assert!(seen < 200, "{assessed:?}"),
        }
        assert_eq!(assessed.comparison, Comparison::BeforeAfter);
    }
}

#[test]
fn a_broken_canary_without_any_primary_beside_it_is_found() {
    let mut judge = Judge::new(JudgeConfig::default());
    let now = Timestamp::from_millis(1_000_000);
    judge.step_started(percent(90), now);
    judge.observe(&batch(now, Counts::default(), counts(12, 12)));
    assert!(matches!(judge.assess(now, &Propagation::Effective).verdict, Verdict::NoData(_)), "12 are too few");
    judge.observe(&batch(now, Counts::default(), counts(10, 10)));
    assert!(matches!(judge.assess(now, &Propagation::Effective).verdict, Verdict::Rollback(_)));
    let mut judge = Judge::new(JudgeConfig::default());
    judge.step_started(percent(90), now);
    for _ in 0..1_000 {
        judge.observe(&batch(now, Counts::default(), counts(20, 8)));
    }
    assert!(
        matches!(judge.assess(now, &Propagation::Effective).verdict, Verdict::NoData(_)),
        "absence is no harm, and no success"
    );
}

/// What breaks when it has seen enough is not promoted on what came before: until the harm decides, nothing is moved.
#[test]
fn a_canary_that_breaks_at_the_end_of_its_step_is_held_until_that_is_decided() {
    for mode in [Mode::Sequential, Mode::Guard] {
        let mut judge = Judge::new(JudgeConfig { mode, ..JudgeConfig::default() });
        let mut now = Timestamp::from_millis(1_000_000);
        let mut pass = |judge: &mut Judge, canary: Counts| {
            now = now.plus(TICK);
            judge.observe(&batch(now, counts(8, 0), canary));
            judge.assess(now, &Propagation::Effective)
        };
        for _ in 0..1_000 {
            assert_eq!(pass(&mut judge, counts(8, 0)).doubt, None);
        }
        assert_eq!(matches!(pass(&mut judge, counts(8, 0)).verdict, Verdict::Advance(_)), mode == Mode::Sequential);
        let stalled = || Counts { started: 8, stalled: 8, ..Counts::default() };
        let held = (0..10).map_while(|_| {
            let assessed = pass(&mut judge, stalled());
            if matches!(assessed.verdict, Verdict::Rollback(_)) {
                return None;
            }
            assert_eq!(assessed.doubt, Some(Doubt::Harm), "{mode:?}: from the first window on");
            assert!(matches!(assessed.verdict, Verdict::Continue(_)), "{mode:?}");
            Some(())
        });
        let held = held.count();
        assert!((1..10).contains(&held), "{mode:?}: rolled back after {held} windows");
    }
    let mut judge = Judge::new(JudgeConfig { mode: Mode::Thresholds, ..JudgeConfig::default() });
    let now = Timestamp::from_millis(1_000_000);
    judge.observe(&batch(now, counts(8, 0), counts(8, 8)));
    assert_eq!(judge.assess(now, &Propagation::Effective).doubt, None, "checks alone decide");
}

/// One request a second, by chance at either arm; windows without any are not told. Returns when the canary is rolled
/// back. The judge is written down and read again now and then: what waits for the other arm is part of it.
fn at_one_request_a_second(seed: u64, rates: (f64, f64), seconds: u64) -> Option<u64> {
    let mut random = Random(seed);
    let start = Timestamp::from_millis(1_000_000);
    let mut judge = Judge::new(JudgeConfig::default());
    judge.step_started(percent(50), start);
    for second in 1..=seconds {
        let now = start.plus(Span::from_secs(second));
        let to_canary = random.uniform() < 0.5;
        let bad = u64::from(random.uniform() < if to_canary { rates.1 } else { rates.0 });
        let (primary, canary) =
            if to_canary { (Counts::default(), counts(1, bad)) } else { (counts(1, bad), Counts::default()) };
        judge.observe(&batch(now, primary, canary));
        if second % 7 == 0 {
            let text = serde_json::to_string(&judge).unwrap();
            let restored: Judge = serde_json::from_str(&text).unwrap();
            assert_eq!(restored, judge, "to the last bit");
            judge = restored;
        }
        if matches!(judge.assess(now, &Propagation::Effective).verdict, Verdict::Rollback(_)) {
            return Some(second);
        }
    }
    None
}

#[test]
fn at_one_request_a_second_a_broken_canary_is_found_and_a_healthy_one_is_not_blamed() {
    let taken = median((0..50).map(|seed| at_one_request_a_second(seed, (0.01, 1.0), 600).unwrap()).collect());
    assert!(taken <= 60, "{taken} s");
    for (seed, rate) in (100..120).zip([0.01, 0.2, 0.5, 0.8].into_iter().cycle()) {
        assert_eq!(at_one_request_a_second(seed, (rate, rate), 1_000), None, "seed {seed}, rate {rate}");
    }
}

#[test]
fn evidence_that_was_written_down_before_windows_waited_is_read() {
    let mut judge = Judge::new(JudgeConfig::default());
    judge.step_started(percent(50), Timestamp::from_millis(1_000_000));
    let mut written = serde_json::to_value(&judge).unwrap();
    assert!(written.as_object_mut().unwrap().remove("pairing").is_some());
    assert_eq!(serde_json::from_value::<Judge>(written).unwrap(), judge);
}

#[test]
fn harm_that_both_arms_share_holds_and_blames_nobody() {
    let mut world = World::new(43, 1_000, 0.001, 0.001);
    let mut judge = Judge::new(JudgeConfig { error_limit: Some(0.01), ..JudgeConfig::default() });
    world.weight = 0;
    for _ in 0..25 {
        judge.observe(&world.tick());
    }
    world.weight = 5;
    judge.step_started(percent(5), world.now);
    for _ in 0..100 {
        judge.observe(&world.tick());
    }
    (world.primary, world.canary) = (0.5, 0.5);
    for _ in 0..100 {
        judge.observe(&world.tick());
        let assessed = judge.assess(world.now, &Propagation::Effective);
        assert!(!matches!(assessed.verdict, Verdict::Rollback(_)), "{assessed:?}");
    }
    let assessed = judge.assess(world.now, &Propagation::Effective);
    assert!(matches!(&assessed.verdict, Verdict::Continue(why) if why.contains("both arms suffer")), "{assessed:?}");
    assert!(assessed.notices.iter().any(|notice| notice.about == NoticeSubject::SharedHarm));
}

/// A batch as several nodes report it: node 0 may lie, the others share what is true.
fn reported(judge: &mut Judge, end: Timestamp, honest: &(Counts, Counts), lie: Option<&(Counts, Counts)>) -> Batch {
    let mut windows = Windows::new();
    let name = CanaryName::new("prod", "backend");
    let arrived = end.minus(Span::from_millis(1));
    for node in 0..10 {
        let node_group = judge.node_group(&NodeId::new(format!("edge-{node}")), end);
        let (primary, canary) = lie.filter(|_| node == 0).unwrap_or(honest);
        windows.add(&name, node_group, Arm::Primary, Stratum::Judged, primary, arrived);
        windows.add(&name, node_group, Arm::Canary, Stratum::Judged, canary, arrived);
    }
    windows.close(end).remove(0).1
}

#[test]
fn no_single_node_decides() {
    let run = |honest: &(Counts, Counts), lie: Option<&(Counts, Counts)>| {
        let mut judge = Judge::new(JudgeConfig::default());
        let mut now = Timestamp::from_millis(1_000_000);
        judge.step_started(percent(5), now);
        for _ in 0..150 {
            now = now.plus(TICK);
            let batch = reported(&mut judge, now, honest, lie);
            judge.observe(&batch);
        }
        judge.assess(now, &Propagation::Effective)
    };
    let (healthy, broken) = ((counts(190, 0), counts(10, 0)), (counts(190, 0), counts(10, 10)));
    for lie in [broken.clone(), (counts(1_000_000, 0), counts(50_000, 50_000)), (counts(190, 0), counts(200, 60))] {
        let assessed = run(&healthy, Some(&lie));
        assert!(!matches!(assessed.verdict, Verdict::Rollback(_)), "{:?}", assessed.verdict);
        assert!(assessed.verdict.reason().contains("edge-0"), "{:?}", assessed.verdict);
        assert!(assessed.notices.iter().any(|notice| notice.about == NoticeSubject::OneNode));
    }
    for lie in [(counts(190, 0), counts(1_000_000, 0)), (counts(1_000_000, 1_000_000), counts(10, 0))] {
        let assessed = run(&broken, Some(&lie));
        assert!(matches!(assessed.verdict, Verdict::Rollback(_)), "one node cannot hide it: {:?}", assessed.verdict);
    }
    assert!(matches!(run(&broken, None).verdict, Verdict::Rollback(_)));
    assert!(!matches!(run(&healthy, None).verdict, Verdict::Rollback(_)));
}

#[test]
fn where_one_node_has_nearly_all_traffic_it_decides() {
    let mut judge = Judge::new(JudgeConfig::default());
    let start = Timestamp::from_millis(1_000_000);
    judge.step_started(percent(5), start);
    let mut now = start;
    loop {
        now = now.plus(TICK);
        let batch =
            reported(&mut judge, now, &(counts(5, 0), counts(0, 0)), Some(&(counts(1_900, 0), counts(100, 100))));
        judge.observe(&batch);
        if matches!(judge.assess(now, &Propagation::Effective).verdict, Verdict::Rollback(_)) {
            break;
        }
        assert!(now.since(start) < Span::from_secs(2), "{:?}", judge.assess(now, &Propagation::Effective));
    }
}

#[test]
fn harm_of_one_pod_beside_many_is_suspected_first() {
    let pods = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), PodCounts::default())).collect();
    let run = |canary_pods: &[&str], on_one_pod, canary_rate| {
        let mut world = World::new(47, 1_000, 0.01, canary_rate);
        let mut judge = Judge::new(JudgeConfig { on_one_pod, ..JudgeConfig::default() });
        judge.step_started(percent(5), world.now);
        let (mut suspected, start) = (None, world.now);
        for _ in 0..1_500 {
            let mut batch = world.tick();
            batch.judged.primary.pods = pods(&["a", "b", "c"]);
            batch.judged.canary.pods = pods(canary_pods);
            judge.observe(&batch);
            let assessed = judge.assess(world.now, &Propagation::Effective);
            if assessed.doubt == Some(Doubt::OnePod) && suspected.is_none() {
                suspected = Some(world.now.since(start));
            }
            if matches!(assessed.verdict, Verdict::Rollback(_)) {
                return (suspected, world.now.since(start));
            }
        }
        panic!("never rolled back")
    };
    let (suspected, ended) = run(&["x"], SinglePodPolicy::Suspect, 0.1);
    let suspected = suspected.unwrap();
    assert!(suspected < Span::from_secs(10) && ended.as_millis().abs_diff(suspected.as_millis() + 60_000) <= 400);
    assert_eq!(run(&["x", "y"], SinglePodPolicy::Suspect, 0.1).0, None, "two pods are no accident");
    assert_eq!(run(&["x"], SinglePodPolicy::Rollback, 0.1).0, None);
    let (_, ended) = run(&["x"], SinglePodPolicy::Suspect, 1.0);
    assert!(ended < Span::from_secs(1), "the hard guard does not wait");
}
