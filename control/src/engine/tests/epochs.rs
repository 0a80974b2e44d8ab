//! Counts belong to the rollout that they were made in.

use super::*;

impl World {
    /// Fails the canary until it is out.
    fn fail(&mut self) {
        for _ in 0..10 {
            self.traffic((90, 0), (10, 10));
        }
        assert_eq!(self.phase(), "Failed");
    }

    /// A filter counts every rollout from zero.
    fn counts_anew(&mut self) {
        (self.primary, self.canary) = ((0, 0), (0, 0));
    }

    fn retry(&mut self, id: &str) {
        self.engine.command(&name(), Command::Retry, id, self.now).unwrap();
        self.tick();
    }

    fn stored(&mut self, prefix: &str) -> usize {
        self.store.load().unwrap().keys().filter(|key| key.starts_with(prefix)).count()
    }
}

/// Sends healthy traffic to a rollout that has counted nothing yet.
fn counts_only_its_own(world: &mut World) {
    for _ in 0..30 {
        world.traffic((90, 0), (10, 0));
    }
    world.now = world.now.plus(Span::from_millis(400));
    world.tick();
    assert_eq!((world.phase(), world.counted()), ("Progressing", 300));
}

/// A worker was cut off while attempt 1 failed, or the server was restarted: what it counted comes in attempt 2.
#[test]
fn what_an_earlier_attempt_counted_is_not_charged_to_the_next() {
    let mut world = World::new();
    world.rollout();
    world.fail();
    let late = ReportRequest { worker_id: 77, sequence: 40, ..world.request() };
    let mut world = world.restart();
    world.rollout();
    world.retry("1");
    world.counts_anew();
    let reply = report(&mut world.engine, &late, world.now).unwrap();
    assert_eq!(reply.durable, 40, "nobody needs it, and it need not be sent again");
    counts_only_its_own(&mut world);
}

/// The last window of attempt 1 is not over when attempt 2 begins.
#[test]
fn an_open_window_ends_with_its_rollout() {
    let mut world = World::new();
    world.rollout();
    world.fail();
    for attempt in 0..5 {
        world.retry(&attempt.to_string());
        world.counts_anew();
        // Fails at once, and is taken back by hand before anyone has judged it.
        world.canary = (50, 50);
        world.sequence += 1;
        let request = world.request();
        report(&mut world.engine, &request, world.now).unwrap();
        world.engine.command(&name(), Command::Abort, &format!("abort-{attempt}"), world.now).unwrap();
    }
    world.retry("last");
    world.counts_anew();
    counts_only_its_own(&mut world);
}

/// The same, and the process dies before the next checkpoint: what was written down last is of attempt 1.
#[test]
fn a_window_that_was_written_down_open_is_not_charged_to_the_next_attempt() {
    let mut world = World::new();
    world.rollout();
    world.traffic((90, 0), (10, 0));
    world.now = world.now.plus(Span::from_secs(2));
    // Written down at once, with its window open.
    world.canary = (60, 50);
    world.sequence += 1;
    let request = world.request();
    report(&mut world.engine, &request, world.now).unwrap();
    world.tick();
    assert_eq!(world.engine.windows.open().len(), 1);
    world.engine.command(&name(), Command::Abort, "abort", world.now).unwrap();
    world.tick();
    world.retry("again");
    let mut world = world.restart();
    world.rollout();
    world.counts_anew();
    counts_only_its_own(&mut world);
}

#[test]
fn a_report_of_an_epoch_that_never_was_is_left_out_and_counted() {
    let mut world = World::new();
    world.rollout();
    world.traffic((90, 0), (10, 0));
    let mut forged = ReportRequest { worker_id: 5, ..world.request() };
    forged.clusters.iter_mut().for_each(|cluster| cluster.epoch ^= 1);
    forged.clusters.push(ClusterReport { cluster: "prod/other/1".to_owned(), ..forged.clusters[0].clone() });
    // What it says besides is not even looked at.
    forged.clusters[0].outcomes = vec![1; 99];
    report(&mut world.engine, &forged, world.now).unwrap();
    assert_eq!((world.engine.ledger.workers(), world.left_out()), (1, 3));
}

#[test]
fn two_thousand_rollouts_leave_as_much_behind_as_ten() {
    let mut world = World::new();
    world.rollout();
    let mut sizes = Vec::new();
    for rollout in 1..=2_000 {
        world.fail();
        world.now = world.now.plus(Span::from_secs(2));
        world.tick();
        if rollout == 10 || rollout == 2_000 {
            let entries = world.store.load().unwrap();
            let bytes: usize =
                entries.iter().filter(|(key, _)| !key.starts_with("canary/")).map(|(_, it)| it.len()).sum();
            sizes.push((entries.len(), bytes, world.engine.ledger.workers()));
            assert_eq!((world.stored("evidence/"), world.stored("ledger/")), (0, 0));
        }
        world.retry(&rollout.to_string());
        world.counts_anew();
    }
    assert_eq!(sizes[0], sizes[1]);
}

/// 5,000 Envoys come and go during one rollout.
#[test]
fn envoys_that_are_gone_slow_nobody_down_and_leave_the_disk() {
    let mut world = World::new();
    world.rollout();
    for gone in 0..5_000 {
        let request = ReportRequest { worker_id: 1_000 + gone, node_id: format!("gone-{gone}"), ..world.request() };
        report(&mut world.engine, &request, world.now).unwrap();
    }
    assert_eq!(world.traffic((90, 0), (10, 0)).next_tick_ms, 2_633);
    for _ in 0..700 {
        world.now = world.now.plus(Span::from_millis(900));
        world.traffic((90, 0), (10, 0));
    }
    let tick = world.traffic((90, 0), (10, 0)).next_tick_ms;
    assert_eq!((tick, world.engine.ledger.workers()), (100, 1));
    world.now = world.now.plus(Span::from_secs(2));
    world.traffic((90, 0), (10, 0));
    assert_eq!(world.stored("ledger/"), 1);
}

/// The entries of workers are gone or damaged while the evidence is there: nothing is counted twice.
#[test]
fn where_what_is_held_of_workers_was_lost_nothing_is_doubled() {
    for damaged in [None, Some(b"{".to_vec())] {
        let mut world = World::new();
        world.rollout();
        for _ in 0..30 {
            world.traffic((90, 0), (10, 0));
        }
        let keys: Vec<String> =
            world.store.load().unwrap().into_keys().filter(|key| key.starts_with("ledger/")).collect();
        assert_eq!(keys.len(), 1);
        let writes: Vec<Write> = match &damaged {
            Some(bytes) => keys.into_iter().map(|key| Write::Put(key, bytes.clone())).collect(),
            // As an earlier version left it.
            None => keys.into_iter().map(Write::Delete).chain([Write::Put("ledger".into(), b"{}".to_vec())]).collect(),
        };
        world.store.commit(&writes).unwrap();
        let before = world.counted();
        let mut world = world.restart();
        world.rollout();
        world.engine.stop_learning();
        world.tick();
        let after = world.counted();
        assert!(after <= before && after >= before - 120, "{before} {after}: what was not written down is missing");
        for _ in 0..10 {
            world.traffic((90, 0), (10, 0));
        }
        world.now = world.now.plus(Span::from_secs(1));
        world.tick();
        assert_eq!(world.counted(), after + 90, "its first report sets the counts and adds nothing");
    }
}

#[test]
fn evidence_that_is_damaged_is_left_aside_and_the_rest_starts() {
    let mut world = World::new();
    world.rollout();
    for _ in 0..30 {
        world.traffic((90, 0), (10, 0));
    }
    let null = br#"{"version": 3, "content": {"rollout": 1, "judge": null}}"#;
    world.store.commit(&[Write::Put("evidence/prod/backend".into(), null.to_vec())]).unwrap();
    world.store.commit(&[Write::Put("windows".into(), b"not json".to_vec())]).unwrap();
    let mut world = world.restart();
    world.rollout();
    assert_eq!((world.phase(), world.weight()), ("Progressing", BasisPoints::from_percent(10)));
}

#[test]
fn a_step_does_not_end_on_counts_that_lack_something() {
    let mut world = World::new();
    world.rollout();
    // Few hide nothing that is looked for.
    world.uncounted = 3;
    for _ in 0..600 {
        if world.weight() > BasisPoints::from_percent(10) {
            break;
        }
        world.traffic((90, 0), (10, 0));
    }
    let weight = world.weight();
    assert_eq!(weight, BasisPoints::from_percent(20));
    world.uncounted = 7_000;
    for _ in 0..600 {
        world.traffic((80, 0), (20, 0));
    }
    let view = world.engine.status(true, world.now).canaries.values().next().unwrap().clone();
    let verdict = view.verdict.clone().unwrap();
    assert_eq!((world.weight(), verdict.kind.as_str()), (weight, "no-data"));
    assert!(verdict.reason.starts_with("7000 requests were not counted at edge-1:"), "{}", verdict.reason);
    world.fail();
    // What one rollout lacked is not said of the next.
    world.retry("again");
    assert_eq!(
        world.engine.canaries.all()[&name()].uncounted().to_string().split(':').next(),
        Some("0 requests were not counted")
    );
}

/// Nothing but the evidence was written for a while, and the clock is set back before the next start: the evidence is not yet
/// to come.
#[test]
fn what_is_stored_tells_its_own_time() {
    let mut world = World::new();
    world.rollout();
    let began = world.now;
    for _ in 0..60 {
        world.traffic((90, 0), (10, 0));
    }
    let last = world.now;
    assert!(last > began.plus(Span::from_secs(2)), "time has passed");
    let world = world.restart();
    assert!(
        world.engine.latest_stored().plus(Span::from_secs(1)) >= last,
        "at most the last second is not written down"
    );
}
