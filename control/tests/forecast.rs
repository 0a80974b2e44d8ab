//! What `plan` says is what the simulations of the judge say, and where there is nothing to say it says that.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use wingbeat_api::Set;
use wingbeat_api::desired_state::CanaryConfig;
use wingbeat_control::forecast::{Forecast, ForecastAssumptions, ForecastDetection, forecast};
use wingbeat_test_support::simulation::line::{Tally, each, quantile};
use wingbeat_test_support::simulation::missed::{End, roll_out};
use wingbeat_test_support::simulation::rollout::{Rollout, shipped};
use wingbeat_test_support::simulation::traffic::{Answers, Traffic};

const BACKEND: &str = include_str!("../../deploy/examples/backend.yaml");
const STEPS: &str = "maxWeight: 50, stepWeight: 5}";

/// 1,000 requests a second, of which 1 % fail.
const USUAL: ForecastAssumptions = ForecastAssumptions { rps: 1_000.0, error_rate: 0.01, latency_ms: None };

/// The canary of the example, with another analysis.
fn managed(analysis: &str) -> CanaryConfig {
    let text = BACKEND.replace("threshold: 2, maxWeight: 50, stepWeight: 5}", &format!("threshold: 2, {analysis}"));
    assert!(text.contains(analysis), "the example has another analysis than this test knows");
    let set = Set::of(&BTreeMap::from([("canary.yaml".to_owned(), text)]));
    assert_eq!(set.report.errors, []);
    set.desired_state(None).canaries.into_values().next().unwrap()
}

fn of_errors(told: &Forecast, rate: f64) -> &ForecastDetection {
    let is_it = |detect: &&ForecastDetection| detect.error_rate.is_some_and(|other| (other - rate).abs() < 1e-9);
    told.detect.iter().find(is_it).unwrap()
}

fn of_latency(told: &Forecast, times: f64) -> &ForecastDetection {
    let is_it = |detect: &&ForecastDetection| detect.latency_factor.is_some_and(|other| (other - times).abs() < 1e-9);
    told.detect.iter().find(is_it).unwrap()
}

fn notes(told: &Forecast) -> String {
    told.notes.join("\n")
}

fn sees_nothing(detect: &ForecastDetection) -> bool {
    detect.detect_p50_ms.is_none() && detect.detect_p90_ms.is_none() && detect.missed.is_none()
}

/// The worlds of `docs/simulations.md` have the judge alone, with a primary that it has known for ten seconds; the forecast
/// has the whole machine, which looks every 100 ms and waits for the share to flow. So times may differ by a sixth, or by
/// a second, and shares by what chance does among some hundred rollouts.
#[test]
fn the_forecast_of_the_example_is_that_of_the_simulations() {
    let close = |what: &str, told: Option<u64>, simulated: u64| {
        let told = told.unwrap_or_else(|| panic!("{what}: nothing is told, and {simulated} ms simulated"));
        println!("{what}: {told} ms, simulated {simulated} ms");
        assert!(told.abs_diff(simulated) <= (simulated / 6).max(1_000), "{what}: {told} ms, simulated {simulated} ms");
    };
    let told = forecast(&managed(STEPS), &USUAL);
    assert_eq!(told.detect.iter().filter_map(|detect| detect.error_rate).count(), 5);
    for (rate, median, late) in [(0.05, true, true), (0.1, true, true), (1.0, true, true), (0.02, false, false)] {
        let ends = each(200, |seed| {
            let traffic = Traffic::new(seed, 1_000.0, Answers::failing(0.01), Answers::failing(rate));
            roll_out(&mut Rollout::new(traffic, shipped()))
        });
        let took = |end: &End| if let End::RolledBack(span) = end { span.as_millis() } else { u64::MAX };
        let mut millis: Vec<u64> = ends.iter().map(took).collect();
        let detect = of_errors(&told, rate);
        if median {
            close(&format!("{rate}, half"), detect.detect_p50_ms, quantile(&mut millis, 0.5));
        }
        if late {
            close(&format!("{rate}, 9 of 10"), detect.detect_p90_ms, quantile(&mut millis, 0.9));
        }
        let promoted: Vec<bool> = ends.iter().map(|end| matches!(end, End::Promoted(_))).collect();
        let missed = Tally::of(&promoted).rate();
        println!("{rate}: missed {:?}, simulated {missed}", detect.missed);
        // Chance alone moves such a share by 5 % at most, and seeds are fixed.
        assert!((detect.missed.unwrap() - missed).abs() <= 0.1, "{rate}: {:?}, simulated {missed}", detect.missed);
    }
    let healthy = each(200, |seed| {
        let traffic = Traffic::new(seed, 1_000.0, Answers::failing(0.01), Answers::failing(0.01));
        roll_out(&mut Rollout::new(traffic, shipped()))
    });
    let took = |end: &End| if let End::Promoted(span) = end { span.as_millis() } else { u64::MAX };
    let mut millis: Vec<u64> = healthy.iter().map(took).collect();
    close("healthy", told.healthy_duration_ms, quantile(&mut millis, 0.5));
    assert_eq!(told, forecast(&managed(STEPS), &USUAL), "the same question has the same answer");
}

#[test]
fn latency_is_told_where_it_is_known() {
    let left_out = forecast(&managed(STEPS), &USUAL);
    assert!(sees_nothing(of_latency(&left_out, 2.0)) && notes(&left_out).contains("--latency-ms"), "{left_out:?}");
    let told = forecast(&managed(STEPS), &ForecastAssumptions { latency_ms: Some((20.0, 100.0)), ..USUAL });
    let twice = of_latency(&told, 2.0);
    assert!(twice.missed.unwrap() <= 0.1 && twice.detect_p90_ms.unwrap() < 60_000, "{twice:?}");
    // That much is tolerated.
    assert!(of_latency(&told, 1.2).missed.unwrap() > 0.9, "{told:?}");
    assert!(told.healthy_rolled_back <= 1 && told.healthy_duration_ms.is_some());
}

/// Half of the traffic, and a canary that fails all of it: a guard that compares alone was too late, and no check held it.
#[test]
fn the_guard_alone_stops_a_canary_that_fails_everything() {
    for analysis in ["stepWeights: [25, 50], judge: {mode: guard}}", "stepWeights: [50], judge: {mode: guard}}"] {
        let told = forecast(&managed(analysis), &ForecastAssumptions { rps: 50.0, error_rate: 0.0, latency_ms: None });
        let broken = of_errors(&told, 1.0);
        assert!(broken.rollouts >= 100 && broken.missed == Some(0.0), "{broken:?}");
        assert!(broken.detect_p90_ms.unwrap() <= 5_000, "{broken:?}");
        assert_eq!(told.healthy_rolled_back, 0);
        assert!(told.steps.iter().all(|step| step.canary_requests >= 55), "{told:?}");
    }
}

#[test]
fn too_little_traffic_is_told_by_the_step_that_takes_long() {
    let told = forecast(&managed(STEPS), &ForecastAssumptions { rps: 1.0, ..USUAL });
    let first = told.steps.first().unwrap();
    assert!(first.duration_ms > 3_600_000, "{told:?}");
    assert!(told.steps.iter().all(|step| step.canary_requests >= 20 || step.duration_ms == 0), "minRequests: {told:?}");
    assert!(told.healthy_rollouts >= 10);
}

#[test]
fn what_nothing_looks_at_is_told_as_that() {
    let skipped = BACKEND.replace("spec:\n  targetRef", "spec:\n  skipAnalysis: true\n  targetRef");
    let set = Set::of(&BTreeMap::from([("canary.yaml".to_owned(), skipped)]));
    let skipped = forecast(set.desired_state(None).canaries.values().next().unwrap(), &USUAL);
    assert!(skipped.detect.iter().all(sees_nothing) && notes(&skipped).contains("skipAnalysis"), "{skipped:?}");
    assert!(skipped.healthy_duration_ms.is_some_and(|millis| millis <= 1_000), "{skipped:?}");

    let suspended = BACKEND.replace("spec:\n  targetRef", "spec:\n  suspend: true\n  targetRef");
    let set = Set::of(&BTreeMap::from([("canary.yaml".to_owned(), suspended)]));
    let suspended = forecast(set.desired_state(None).canaries.values().next().unwrap(), &USUAL);
    assert!(suspended.detect.iter().all(sees_nothing) && suspended.healthy_duration_ms.is_none(), "{suspended:?}");

    // Flagger's checks, and none is configured.
    let blind = forecast(&managed("maxWeight: 50, stepWeight: 10, judge: {mode: thresholds}}"), &USUAL);
    assert!(blind.detect.iter().all(sees_nothing) && notes(&blind).contains("nothing looks at errors"), "{blind:?}");
    assert!(blind.healthy_duration_ms.is_some_and(|millis| (6_000..12_000).contains(&millis)), "{blind:?}");

    let users = forecast(
        &managed("maxWeight: 50, stepWeight: 10, affinity: {cookie: uid}}"),
        &ForecastAssumptions { latency_ms: Some((20.0, 100.0)), ..USUAL },
    );
    assert!(sees_nothing(of_latency(&users, 2.0)) && notes(&users).contains("affinity"), "{users:?}");
    assert!(of_errors(&users, 1.0).detect_p90_ms.is_some());
}

/// Those held back have users like the others: the canary is compared with them, in errors and in latency.
#[test]
fn a_holdback_makes_an_ab_test_see_as_much_as_a_weight() {
    let rules = "iterations: 3, match: [{headers: {cookie: {regex: \".*insider.*\"}}}]";
    let usual = ForecastAssumptions { latency_ms: Some((20.0, 100.0)), ..USUAL };
    let told = forecast(&managed(&format!("{rules}, holdback: 20%}}")), &usual);
    assert!(of_latency(&told, 2.0).missed.unwrap() <= 0.1 && of_errors(&told, 0.05).missed.unwrap() <= 0.1, "{told:?}");
    let without = forecast(&managed(&format!("{rules}}}")), &usual);
    assert!(sees_nothing(of_latency(&without, 2.0)) && notes(&without).contains("holdback"), "{without:?}");
}

#[test]
fn every_shape_of_rollout_has_an_answer() {
    let checks =
        "judge: {mode: guard}, metrics: [{name: request-success-rate, interval: 1s, thresholdRange: {min: 90}}]}";
    for analysis in [
        "stepWeights: [1, 10, 60]}".to_owned(),
        "maxWeight: 50, stepWeight: 25, mirror: true}".to_owned(),
        "iterations: 3}".to_owned(),
        "iterations: 3, match: [{headers: {cookie: {regex: \".*insider.*\"}}}]}".to_owned(),
        format!("maxWeight: 50, stepWeight: 10, {checks}"),
        "maxWeight: 50, stepWeight: 10, webhooks: [{name: stop, type: rollback, url: \"http://127.0.0.1:1/\"}]}"
            .to_owned(),
    ] {
        let told = forecast(&managed(&analysis), &USUAL);
        println!("{analysis}\n{told:?}");
        assert!(told.healthy_duration_ms.is_some_and(|millis| millis >= 3_000), "{analysis}: {told:?}");
        assert_eq!(told.healthy_rolled_back, 0, "{analysis}: {told:?}");
        let broken = of_errors(&told, 1.0);
        assert!(broken.missed.is_some_and(|missed| missed < 0.01), "{analysis}: {told:?}");
        assert!(broken.detect_p50_ms <= told.healthy_duration_ms, "{analysis}: {told:?}");
    }
}
