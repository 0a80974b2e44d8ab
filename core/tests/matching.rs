//! Matching: one corpus of rows, and the guide's patterns against an engine that backtracks.

use wingbeat_core::matching::pattern::Regex;
use wingbeat_core::matching::rule::Entries;
use wingbeat_test_support::corpus::{self, Row};

#[test]
fn corpus() {
    let rows = corpus::rows();
    assert!(rows.len() >= 57, "{} rows", rows.len());
    for Row { name, rules, request, rule } in rows {
        let entries = Entries::try_new(&rules).unwrap_or_else(|errors| unreachable_errors(&name, &errors));
        assert_eq!(entries.first_match(&request), rule, "{name}");
    }
}

#[expect(clippy::panic, reason = "tests")]
fn unreachable_errors(name: &str, errors: &[impl std::fmt::Display]) -> Entries {
    panic!("{name}: {}", errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
}

const GUIDE: [&str; 4] = [
    r"^(?!.*Chrome)(?=.*\bSafari\b).*$",
    r"^(.*?;)?(type=insider)(;.*)?$",
    r".*Firefox.*",
    r"^(.*?;)?\s*(canary=always)(;.*)?$",
];

#[test]
fn the_guides_patterns_agree_with_an_engine_that_backtracks() {
    let mut agents = Vec::new();
    for system in [
        "Macintosh; Intel Mac OS X 10_15_7",
        "X11; Linux x86_64",
        "Windows NT 10.0; Win64; x64",
        "iPhone; CPU iPhone OS 17_0 like Mac OS X",
        "Linux; Android 14; Pixel 8",
    ] {
        for browser in [
            "Safari/605.1.15",
            "Chrome/120.0.0.0 Safari/537.36",
            "Firefox/121.0",
            "CriOS/120.0 Mobile Safari/604.1",
            "Edg/120.0",
            "OPR/106",
            "SafariBot",
            "Chromium/119 Safari/537",
        ] {
            for version in
                ["", "Version/17.1 ", "HeadlessChrome/1 ", "Gecko/20100101 ", "like Gecko ", "\tMobile/15E148 "]
            {
                agents.push(format!("Mozilla/5.0 ({system}) AppleWebKit/605.1.15 {version}{browser}"));
            }
        }
    }
    assert!(agents.len() >= 200, "{}", agents.len());
    // ASCII only: the oracle's `\b` and `.` know letters beyond it, ours are bytes.
    // A generator without randomness of its own: every piece in every order that a counter gives.
    let pieces = [
        "Safari",
        "Chrome",
        "Firefox",
        "type=insider",
        ";",
        " ",
        "; ",
        "canary=always",
        "x",
        "\n",
        "type=",
        "_",
        "Saf",
        "\t",
    ];
    let mut state = 1_u64;
    for _ in 0..10_000 {
        let mut text = String::new();
        for _ in 0..state % 7 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let place = usize::try_from((state >> 33) % 14).expect("small");
            text.push_str(pieces.get(place).expect("a piece"));
        }
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        agents.push(text);
    }
    for pattern in GUIDE {
        let ours = Regex::compile(pattern).expect("the guide's pattern");
        let theirs = fancy_regex::Regex::new(&format!(r"^(?:{pattern})\z")).expect("the guide's pattern");
        assert!(ours.size() < 8 * 1_024, "{pattern}: {}", ours.size());
        for text in &agents {
            let expected = theirs.is_match(text).expect("it ends");
            assert_eq!(ours.matches(text.as_bytes()), expected, "{pattern} on {text:?}");
        }
    }
}

#[test]
fn an_explosion_is_found_out_quickly() {
    let before = on_cpu().unwrap();
    let why = Regex::compile("(a|b)*a(a|b){20}").expect_err("too many cases");
    let took = std::time::Duration::from_nanos(on_cpu().unwrap() - before);
    println!("(a|b)*a(a|b){{20}} refused after {took:?}: {why}");
    assert!(took.as_millis() < 100, "{took:?}");
}

/// Returns for how many nanoseconds this thread has run on a CPU: what else the machine does is no cost of ours.
fn on_cpu() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    stat.split(' ').next()?.parse().ok()
}
