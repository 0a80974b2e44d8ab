//! A/B tests: whom the filters mark, and from when they are counted.

use super::*;

/// The wanted revision goes to insiders only.
pub(super) fn by_rules(revision: &str) -> DesiredState {
    let plan = Plan::try_new(&PlanInput {
        name: Some(name()),
        target: "backend".into(),
        interval: Some(Span::from_secs(1)),
        matches: true,
        iterations: Some(3),
        ..PlanInput::default()
    });
    let regex = StringMatch { regex: Some(".*insider.*".to_owned()), ..StringMatch::default() };
    let entry = EntryInput { headers: [("cookie".to_owned(), regex)].into(), ..EntryInput::default() };
    let rules = Rules { served: Entries::default(), canary: Entries::try_new(&[entry]).unwrap() };
    let mut desired = desired_state(revision);
    let config = desired.canaries.get_mut(&name()).unwrap();
    config.plan = plan.unwrap();
    config.judge.comparison = Comparison::Absolute;
    config.audience = Targeting::Rules { rules, holdback: BasisPoints::ZERO };
    desired
}

/// Runs an A/B test up to its switch: before it, matching requests are measured at the primary for an interval.
fn switched(world: &mut World) -> String {
    let mut version = 0;
    for _ in 0..30 {
        world.now = world.now.plus(Span::from_millis(100));
        world.sequence += 1;
        world.primary.0 += 50;
        let known = ReportRequest { policy_version: version, automaton_format: AUTOMATON_FORMAT, ..world.request() };
        let response = report(&mut world.engine, &known, world.now).unwrap();
        if let Some(policy) = response.policy {
            version = policy.version;
            let divisions = convert::policy::divisions(&policy).unwrap();
            assert!(matches!(&divisions[..], [(_, Assignment::Rules { holdback: BasisPoints::FULL, .. })]));
        }
        world.tick();
        if let Split::Header { value, .. } = world.engine.model().hosts[0].split.clone() {
            return value;
        }
    }
    panic!("the test does not begin: {:?}", world.engine.model().hosts[0].split);
}

#[test]
fn an_ab_test_counts_from_when_every_worker_knows_the_rules() {
    let mut world = World::new();
    world.engine.configure(by_rules("1"), world.now);
    world.engine.configure(by_rules("2"), world.now);
    world.tick();
    let token = switched(&mut world);
    let report = |world: &mut World, worker_id, version, format| {
        world.now = world.now.plus(Span::from_millis(100));
        world.sequence += 1;
        world.canary.0 += 50;
        let request = ReportRequest { worker_id, policy_version: version, automaton_format: format, ..world.request() };
        let response = report(&mut world.engine, &request, world.now).unwrap();
        world.tick();
        let board = world.engine.status(true, world.now);
        let view = board.canaries.values().next().unwrap().clone();
        (response.policy, view.verdict.clone().map(|verdict| (verdict.kind, verdict.reason)).unwrap_or_default())
    };
    // A filter that runs other automata is told what to count, and no rules.
    let (plain, (kind, why)) = report(&mut world, 2, 0, AUTOMATON_FORMAT + 1);
    let plain = plain.unwrap();
    assert_eq!((plain.hosts.len(), plain.clusters.len(), kind.as_str()), (0, 2, "no-data"));
    assert_eq!(why, "not flowing: filters that do not have the rules for the present routes yet: edge-1");
    let (same, _) = report(&mut world, 2, plain.version, AUTOMATON_FORMAT + 1);
    assert_eq!(same, None, "nor is it told again");
    // The right one gets them, once.
    let (policy, (kind, _)) = report(&mut world, 2, plain.version, AUTOMATON_FORMAT);
    let policy = policy.unwrap();
    let shares: Vec<_> = policy.clusters.iter().map(|cluster| (cluster.arm, cluster.client_share)).collect();
    assert_eq!(shares, [(0, 0), (1, 4)], "no client may decide for all who match");
    let read = convert::policy::divisions(&policy).unwrap();
    assert!(
        matches!(&read[..], [(host, Assignment::Rules { token: sent, .. })] if host == "prod/backend" && *sent == token)
    );
    assert_eq!(kind, "no-data");
    let (none, (kind, why)) = report(&mut world, 2, policy.version, AUTOMATON_FORMAT);
    assert!(none.is_none() && kind != "no-data", "{why}");
    // Another worker comes without: the clock stands until it has them, or is gone.
    let (_, (kind, _)) = report(&mut world, 3, 0, AUTOMATON_FORMAT);
    assert_eq!(kind, "no-data");
    let (_, (kind, _)) = report(&mut world, 3, policy.version, AUTOMATON_FORMAT);
    assert_ne!(kind, "no-data");
}

#[test]
fn filters_keep_cohorts_only_for_a_rollout_that_may_be_cut_short() {
    let policy = |world: &mut World| {
        world.sequence += 1;
        let request = ReportRequest { automaton_format: AUTOMATON_FORMAT, ..world.request() };
        report(&mut world.engine, &request, world.now).unwrap().policy.unwrap()
    };
    let early = |revision| {
        let mut desired = desired_state(revision);
        let config = desired.canaries.get_mut(&name()).unwrap();
        config.judge = JudgeConfig { early_promotion: true, ..JudgeConfig::default() };
        desired
    };
    let mut world = World::new();
    world.rollout();
    let ordinary = policy(&mut world);
    assert!(!ordinary.cohorts);
    for cluster in &ordinary.clusters {
        let told = (cluster.canary.as_str(), cluster.overdue_ms, cluster.slow_us);
        assert_eq!(told, ("prod/backend", 1_000, 5_000), "nothing is known of the primary yet");
        assert_eq!(cluster.client_share, 0, "where chance divides, clients are alike in both arms");
    }
    let mut world = World::over(Memory::default());
    world.engine.configure(early("1"), world.now);
    world.tick();
    assert!(!policy(&mut world).cohorts, "no rollout");
    world.engine.configure(early("2"), world.now);
    world.tick();
    assert!(policy(&mut world).cohorts);
}

/// Who knows everything but the random numbers cannot forge an arm header; a restart, which draws others, keeps it.
#[test]
fn the_arm_header_is_a_secret_that_survives() {
    let token = |world: &World| {
        let split = world.engine.model().hosts[0].split.clone();
        let Split::Header { value, .. } = split else { panic!("{split:?}") };
        value
    };
    let begin = |random: u8| {
        let mut world = World::over(Memory::default());
        world.engine = Immediate::open(Box::new(world.store.clone()), [random; 32]).unwrap();
        for revision in ["1", "2"] {
            world.engine.configure(by_rules(revision), world.now);
        }
        world.tick();
        let token = switched(&mut world);
        (world, token)
    };
    let (world, before) = begin(7);
    assert_ne!(before, begin(8).1);
    let mut world = world.restart();
    world.engine.configure(by_rules("2"), world.now);
    assert_eq!(token(&world), before);
}
