//! What people read of every scene of the demo, through a real Envoy: the events and the sentence at the end, and that its
//! numbers show what it claims.
#![expect(clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::Mutex;
use std::time::Duration;

use wingbeat_demo::names::{CANARY, PRIMARY};
use wingbeat_demo::scene::{Outcome, Scenario, Scene, Sight};
use wingbeat_test_support::reasons::{numbers, supports_its_claim};

/// What the canary of the scene `latency` is late by: less than what makes a request overdue, or it would hang.
const LATE: Duration = Duration::from_millis(100);

fn scene(scenario: Scenario) -> Scene {
    Scene {
        scenario,
        rps: 400,
        weight: if scenario == Scenario::Promote { 50 } else { 10 },
        canary_errors: 1.0,
        primary_errors: 0.0,
        latency: LATE,
        patience: None,
        fault_after: Duration::from_secs(2),
        max_duration: Duration::from_mins(1),
        seed: 6,
        envoy: None,
    }
}

/// Plays a scene. Returns what became of it, and its events.
async fn play(scenario: Scenario) -> (Outcome, Vec<String>) {
    let told = Mutex::new(Vec::new());
    let spectator = |sight: Sight<'_>| match sight {
        Sight::Line(Some(_), text) => told.lock().expect("not poisoned").push(text.to_owned()),
        Sight::Line(None, _) => {}
        // Whoever serves in the end: what is counted of the revisions stays theirs.
        Sight::View(_, view) => {
            assert_eq!((view.primary_revision.as_str(), view.canary_revision.as_deref()), (PRIMARY, Some(CANARY)));
        }
    };
    let played = scene(scenario).play(wingbeat::FILTER, &spectator).await.expect("the scene is played to its end");
    (played, told.into_inner().expect("not poisoned"))
}

/// Returns a text with `N` for its numbers and `T` for lengths of time, which differ from run to run.
fn without_numbers(text: &str) -> String {
    let text = text.replace("none of", "0 of");
    let words = text.split(' ').map(|word| {
        let number = word.trim_end_matches([',', ':', ';', ')']);
        let digits = number.trim_start_matches('(');
        let is_number =
            !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || c == '.' || c == ',' || c == '/');
        if is_number { word.replacen(digits, "N", 1) } else { word.to_owned() }
    });
    let text = words.collect::<Vec<_>>().join(" ");
    text.replace("N ms", "T").replace("N s ", "T ").replace("N s,", "T,")
}

/// Returns what is told of a scene, each kind of event once. Whether it was held for a while depends on the machine, and so
/// does what is said of latencies of a healthy canary.
fn words(events: &[String], reason: &str) -> String {
    let mut lines: Vec<String> =
        events.iter().filter(|text| !text.starts_with("Halt ")).map(|text| without_numbers(text)).collect();
    lines.dedup();
    let reason = reason.split("; one that takes").next().unwrap_or_default();
    lines.push(format!("= {}", without_numbers(reason)));
    lines.join("\n")
}

/// Returns true if the numbers of the last sentence show what became of the scene.
fn shows(scenario: Scenario, reason: &str) -> bool {
    match scenario {
        Scenario::Errors | Scenario::Latency | Scenario::Hang | Scenario::Stall | Scenario::Ab => {
            reason.strip_prefix("Canary analysis failed: ").is_some_and(supports_its_claim)
        }
        Scenario::Promote => {
            // Requests and errors of the canary, errors and requests of the primary, what would have been caught.
            let told = numbers(reason);
            told.len() >= 5 && told[0] > 0.0 && told[3] > 0.0 && told[4] > told[1] && told[4] > told[2]
        }
        Scenario::NoTraffic => numbers(reason) == [10.0],
    }
}

/// What scenes may be told by. Where two signals are as fast as each other, either speaks.
const GOLDEN: &str = include_str!("golden/scenes.txt");

#[tokio::test(flavor = "multi_thread")]
async fn real_envoy_every_scene_is_told_by_numbers_that_show_it() {
    for scenario in Scenario::ALL {
        let (played, events) = play(scenario).await;
        assert!(played.as_it_should, "{played:?}");
        assert!(shows(scenario, &played.reason), "{}: {}", scenario.as_str(), played.reason);
        if let Some(last) = events.iter().find_map(|text| text.strip_prefix("Rolling back backend.demo ")) {
            assert!(played.reason.ends_with(last), "the event says what the headline does: {last}; {}", played.reason);
        }
        let told = format!("[{}]\n{}", scenario.as_str(), words(&events, &played.reason));
        assert!(GOLDEN.trim_end().split("\n\n").any(|may| may == told), "not in golden/scenes.txt:\n{told}");
    }
}

#[test]
fn every_scene_has_its_words() {
    for scenario in Scenario::ALL {
        assert!(GOLDEN.contains(&format!("[{}]\n", scenario.as_str())), "{scenario:?}");
    }
}

#[test]
fn numbers_that_do_not_show_it_are_found() {
    for (scenario, reason, shown) in [
        (
            Scenario::Errors,
            "Canary analysis failed: the canary fails 9.0 % of 90 requests, the primary 0.0 % of 810",
            true,
        ),
        (
            Scenario::Errors,
            "Canary analysis failed: the canary fails 0.0 % of 90 requests, the primary 0.0 % of 810",
            false,
        ),
        (Scenario::Errors, "the canary fails 9.0 % of 90 requests, the primary 0.0 % of 810", false),
        (
            Scenario::Promote,
            "no decisive harm in 90 canary requests (0.0 % errors; primary 0.1 % of 810): a canary that fails 1.0 % would",
            true,
        ),
        (
            Scenario::Promote,
            "no decisive harm in 90 canary requests (2.0 % errors; primary 0.1 % of 810): a canary that fails 1.0 % would",
            false,
        ),
    ] {
        assert_eq!(shows(scenario, reason), shown, "{reason}");
    }
}
