//! Simulated rollouts with the real judge, in small numbers. `cargo xtask simulate` runs the large ones.
#![expect(clippy::print_stdout, reason = "figures are for people")]

use wingbeat_test_support::simulation::fleet::Forgery;
use wingbeat_test_support::simulation::{
    Line, detection, growth, healthy, late, low_traffic, missed, past, recordings, scale,
};

/// Fails if a figure is out of its bound; shows all.
fn assert_holds(lines: &[Line]) {
    for line in lines {
        println!("{line}");
    }
    assert!(lines.iter().all(|line| line.holds), "{lines:#?}");
}

#[test]
fn healthy_canaries_are_not_rolled_back() {
    assert_holds(&[healthy::independent(56)]);
}

#[test]
fn what_makes_arms_differ_by_itself_does_not_roll_back() {
    for remedied in
        [healthy::burst(6, 0.01, 5.0), healthy::cold_pools(4), healthy::cold_start(6), healthy::matched_users(6)]
    {
        assert_eq!((remedied.off.hits, remedied.on.hits), (remedied.off.runs, 0), "{remedied:?}");
    }
}

#[test]
fn regressions_are_seen_as_soon_as_in_the_reference() {
    assert_holds(&[
        detection::errors(400, &detection::PLAIN, 0.01, 0.02, 1_565),
        detection::errors(400, &detection::SHIPPED, 0.01, 0.05, 300),
        detection::slower(60, 1.5, detection::NO_TAIL, 0.1, 300),
        detection::safe(400, 0.01, 2.0, 1_035),
        detection::fast(60, 0.9, 0.25, 400),
    ]);
}

#[test]
fn bad_canaries_are_not_promoted() {
    assert_holds(&[
        missed::failing(30, 1_000.0, (0.01, 0.05), 5.0),
        missed::slow(20, 1_000.0),
        missed::healthy(10, 1_000.0),
        missed::under_load(10, 0.05),
        missed::censored(6, 1.0),
    ]);
}

#[test]
fn many_proxies_are_as_good_as_one_and_a_liar_decides_nothing() {
    let mut lines = scale::fleets(12, 0.1, &[1_000]);
    lines.push(scale::healthy(2, 1_000, 0.05));
    // In seed 95, one of the trials with the forger crosses before the others do.
    lines.push(scale::accused(94..97, Forgery::CanaryFails));
    lines.push(scale::hidden(3, Forgery::CanaryPerfect, 1.0));
    assert_holds(&lines);
}

#[test]
fn traffic_that_grows_in_a_large_fleet_blames_nobody() {
    assert_holds(&[growth::growing(4, &growth::ONE_STEP), growth::loaded(4), growth::delayed(24, 0.1)]);
}

#[test]
fn what_was_before_a_fault_delays_nobody() {
    assert_holds(&past::after_outages(5, 0.05));
    assert_holds(&past::after_outages(5, 1.0));
}

#[test]
fn what_other_judges_have_let_pass_is_flagged() {
    assert_holds(&recordings::kayenta());
    assert_holds(&recordings::other_answers());
    assert_holds(&[recordings::hidden_by_retries(10), recordings::another_zone(4), recordings::far_away(4)]);
}

#[test]
fn a_fault_that_begins_late_owes_nothing_to_the_health_before() {
    assert_holds(&[late::bare(100, 0.2, 60), late::with_floor(100, 0.05, 1_130), late::everything(8, 0.2, 110)]);
}

#[test]
fn little_traffic_is_enough_for_a_broken_canary_and_none_for_no_verdict() {
    assert_holds(&[
        low_traffic::broken(30),
        low_traffic::broken_behind_a_worker(10),
        low_traffic::healthy(10, 0.8),
        low_traffic::outages(10, (3.0, 60.0)),
        low_traffic::outages(10, (120.0, 1_200.0)),
        low_traffic::behind_a_load_tester(10),
        low_traffic::blamed_for_a_load_tester(5),
        low_traffic::stuck_on_old_routes(),
        low_traffic::stuck_on_a_weight(),
    ]);
    assert_holds(&low_traffic::absent());
}
