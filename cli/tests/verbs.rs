//! Verbs that need no server, as a script runs them.
#![expect(clippy::expect_used, reason = "tests")]

use std::process::Command;

use serde_json::Value;

fn wingbeat(args: &[&str]) -> (Option<i32>, String, String) {
    // Nothing is left in the folders of who runs the tests.
    let states = tempfile::tempdir().expect("a folder");
    let mut program = Command::new(env!("CARGO_BIN_EXE_wingbeat"));
    let output = program.args(args).env("XDG_STATE_HOME", states.path()).output().expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn example(name: &str) -> String {
    format!("{}/../deploy/examples/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// All of them, and beside each other: no two want one address.
#[test]
fn check_takes_the_examples() {
    let folder = std::fs::read_dir(example("")).expect("a folder");
    let mut files: Vec<String> = folder.map(|entry| entry.expect("an entry").path().display().to_string()).collect();
    files.sort();
    for name in ["backend.yaml", "gated.yaml", "insiders.yaml"] {
        assert!(files.iter().any(|file| file.ends_with(name)), "{name} is not in {files:?}");
    }
    let args: Vec<&str> = std::iter::once("check").chain(files.iter().map(String::as_str)).collect();
    let (code, out, err) = wingbeat(&args);
    assert_eq!((code, out, err.as_str()), (Some(0), format!("{} files are right\n", files.len()), ""));

    let texts = files.iter().map(|file| std::fs::read_to_string(file).expect("a text")).collect::<String>();
    let listeners = texts.lines().filter_map(|line| line.strip_prefix("spec: {address: 127.0.0.1, port: "));
    let endpoints = texts.lines().filter_map(|line| line.split_once("endpoints: [")).map(|(_, rest)| rest);
    let endpoints = endpoints.flat_map(|rest| rest.split(['"', ']'])).filter_map(|it| it.strip_prefix("127.0.0.1:"));
    let ports: Vec<&str> = listeners.map(|rest| rest.trim_end_matches('}')).chain(endpoints).collect();
    assert!(ports.len() >= 3 * files.len(), "each has a listener and two revisions: {ports:?}");
    let distinct: std::collections::BTreeSet<_> = ports.iter().collect();
    assert_eq!(distinct.len(), ports.len(), "{ports:?}");
}

#[test]
fn check_tells_of_every_file_that_it_cannot_read_and_reads_the_others() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("bad.yaml"), "kind: [").expect("a file");
    std::fs::write(path("bytes.yaml"), [0xff, 0xfe, 0x00]).expect("a file");
    std::fs::create_dir(path("empty")).expect("a folder");
    let (code, _, err) =
        wingbeat(&["check", &path("missing.yaml"), &path("bytes.yaml"), &path("empty"), &path("bad.yaml")]);
    assert_eq!(code, Some(2));
    for (name, told) in [
        (
            "missing.yaml",
            "cannot be read (No such file or directory (os error 2)), name a file or folder that is there",
        ),
        ("bytes.yaml", "cannot be read (stream did not contain valid UTF-8), write it in UTF-8"),
        ("empty", "this folder has no .yaml or .yml file"),
        ("bad.yaml:2:1", "this is no YAML that can be read"),
    ] {
        assert!(err.contains(&format!("{}: {told}", path(name))), "{name}: {told} is not in\n{err}");
    }
    assert_eq!(err.lines().count(), 4, "{err}");
}

#[test]
fn check_asks_whether_endpoints_have_addresses() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("named.yaml");
    let text = std::fs::read_to_string(example("backend.yaml")).expect("an example");
    std::fs::write(&file, text.replace("127.0.0.1:9002", "nowhere.invalid:9002")).expect("a file");
    let (code, _, err) = wingbeat(&["check", &file.display().to_string()]);
    assert!(code == Some(2) && err.contains("endpoints[0]: nowhere.invalid does not resolve ("), "{err}");
}

/// Flagger's documents are for another server, and looked at all the same.
#[test]
fn flaggers_documents_are_checked_matched_and_replayed() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    for (version, analysis) in [("v1alpha3", "canaryAnalysis"), ("v1beta1", "analysis")] {
        let text = format!(
            r#"
apiVersion: flagger.app/{version}
kind: Canary
metadata: {{name: frontend, namespace: prod}}
spec:
  targetRef: {{apiVersion: apps/v1, kind: Deployment, name: frontend}}
  service: {{port: 9898, gateways: [public], hosts: ["*"], retries: {{attempts: 3, perTryTimeout: 1s}}}}
  {analysis}:
    interval: 10s
    threshold: 10
    iterations: 10
    match: [{{headers: {{cookie: {{regex: "^(.*?;)?(type=insider)(;.*)?$"}}}}}}]
    metrics: [{{name: request-success-rate, threshold: 99, interval: 1m}}]
"#
        );
        std::fs::write(path("canary.yaml"), text).expect("a file");
        let (code, out, err) = wingbeat(&["check", &path("canary.yaml")]);
        assert_eq!((code, out.as_str()), (Some(0), "1 file is right\n"), "{err}");
        assert!(err.contains("warning: ") && err.contains("Deployment is not what this server has"), "{err}");
        let canary = path("canary.yaml");
        let insider = ["match", "--canary", &canary, "--header", "cookie: type=insider", "--expect", "canary"];
        assert_eq!(wingbeat(&insider).0, Some(0));
        std::fs::write(
            path("recorded.jsonl"),
            r#"{"t_ms":1000,"weight":5.0,"primary":{"requests":95,"errors":0},"canary":{"requests":5,"errors":0}}"#,
        )
        .expect("a file");
        let (code, out, err) = wingbeat(&["replay", &path("recorded.jsonl"), "--canary", &canary]);
        assert!(code == Some(0) && out.contains("\"verdict\""), "{out}{err}");
    }
}

#[test]
fn check_tells_mistakes_by_their_place() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("bad.yaml");
    let text = std::fs::read_to_string(example("backend.yaml")).expect("an example");
    std::fs::write(&file, text.replace("stepWeight: 5", "stepWeight: 500, stepweight: 5")).expect("a file");
    let name = file.display().to_string();
    let (code, _, err) = wingbeat(&["check", &name]);
    assert_eq!(code, Some(2));
    assert_eq!(err.lines().count(), 2, "{err}");
    let (code, out, _) = wingbeat(&["check", "--output", "json", &name]);
    let report: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!(code, Some(2));
    let first = report.get("errors").and_then(|errors| errors.get(0)).expect("an error");
    assert_eq!(first.get("field").and_then(Value::as_str), Some("spec.analysis.stepWeight"));
    assert_eq!(first.get("line").and_then(Value::as_u64), Some(22));
}

#[test]
fn replay_judges_a_recording_and_goes_on_after_bad_lines() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("recorded.jsonl");
    let mut lines: Vec<String> = (1..=10)
        .map(|n| {
            format!(
                r#"{{"t_ms":{},"weight":5.0,"primary":{{"requests":950,"errors":0}},"canary":{{"requests":50,"errors":50}}}}"#,
                n * 1_000
            )
        })
        .collect();
    lines.insert(
        1,
        r#"{"t_ms":1,"weight":500,"primary":{"requests":1,"errors":2},"canary":{"requests":0,"errors":0}}"#.into(),
    );
    lines.insert(1, "no JSON".into());
    std::fs::write(&file, lines.join("\n")).expect("a file");
    let (code, out, err) = wingbeat(&["replay", &file.display().to_string()]);
    assert_eq!((code, err.as_str()), (Some(2), ""));
    let rows: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(rows.len(), 12);
    assert_eq!(rows.iter().filter(|row| row.get("error").is_some()).count(), 2);
    let last = rows.last().expect("rows");
    assert_eq!(last.get("verdict").and_then(Value::as_str), Some("rollback"));
    assert_eq!(last.get("first").and_then(|first| first.get("t_ms")).and_then(Value::as_u64), Some(1_000));
}

#[test]
fn bootstrap_prints_what_envoy_reads() {
    let (code, out, _) = wingbeat(&["bootstrap", "--node", "edge-1", "--xds", "[::1]:18000"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("id: \"edge-1\"") && out.contains("port_value: 18000"), "{out}");
    let (code, _, err) = wingbeat(&["bootstrap", "--xds", "nowhere"]);
    assert!(code == Some(2) && err.contains("write host:port"), "{err}");
}

#[test]
fn serve_refuses_what_is_wrong_before_it_begins() {
    let (code, _, err) = wingbeat(&["serve", "--config", &example("backend.yaml"), "--listen-xds", "0.0.0.0:0"]);
    assert!(code == Some(2) && err.contains("--allow-plaintext"), "{err}");
    let (code, _, err) = wingbeat(&["serve", "--config", &example("backend.yaml"), "--listen-http", "0.0.0.0:0"]);
    assert!(code == Some(2) && err.contains("--listen-http 0.0.0.0:0 would serve plain text beyond"), "{err}");
    let (code, _, err) = wingbeat(&["demo", "--weight", "100"]);
    assert!(code == Some(2) && err.contains("nothing to compare the canary with"), "{err}");
    let (code, _, err) = wingbeat(&["serve", "--config", "missing.yaml"]);
    assert!(code == Some(2) && err.contains("missing.yaml: cannot be read ("), "{err}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let (code, _, err) = wingbeat(&["serve", "--config", &example("backend.yaml"), "--listen-xds", &address]);
    assert!(code == Some(1) && err.contains(&format!("cannot listen on {address}")), "{err}");
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("state.redb"), "something else").expect("a file");
    let state = folder.path().display().to_string();
    let (code, _, err) = wingbeat(&["serve", "--config", &example("backend.yaml"), "--state", &state]);
    assert!(code == Some(2) && err.contains("move it away"), "{err}");
}

#[test]
fn match_says_which_arm_and_by_which_rule() {
    let folder = tempfile::tempdir().expect("a folder");
    let canary = folder.path().join("canary.yaml");
    let text = std::fs::read_to_string(example("backend.yaml")).expect("an example");
    let rules = r"iterations: 10, match: [
      {headers: {user-agent: {regex: '^(?!.*Chrome)(?=.*\bSafari\b).*$'}}},
      {headers: {cookie: {regex: '^(.*?;)?(type=insider)(;.*)?$'}}}]}";
    std::fs::write(&canary, text.replace("maxWeight: 50, stepWeight: 5}", rules)).expect("a file");
    let canary = canary.display().to_string();
    let requests = folder.path().join("requests.jsonl");
    std::fs::write(
        &requests,
        r#"{"headers":[["user-agent","Version/17 Safari/605"]]}
{"headers":[["Cookie","type=insider"]]}
{"headers":[["cookie",{"base64":"/w=="}]]}
{"path":"/x"}
"#,
    )
    .expect("a file");
    let requests = requests.display().to_string();
    let (code, out, _) = wingbeat(&["match", "--canary", &canary, "--requests", &requests]);
    let expected = [
        r#"{"arm":"canary","rule":0}"#,
        r#"{"arm":"canary","rule":1}"#,
        r#"{"arm":"primary","rule":null}"#,
        r#"{"arm":"primary","rule":null}"#,
    ];
    assert_eq!((code, out.lines().collect::<Vec<_>>()), (Some(0), expected.to_vec()));
    let (code, out, _) = wingbeat(&["match", "--canary", &canary, "--requests", &requests, "--output", "text"]);
    let expected = "\
ARM       RULE   REQUEST
canary    0      GET / user-agent: Version/17 Safari/605
canary    1      GET / Cookie: type=insider
primary   -      GET / cookie: \u{fffd}
primary   -      GET /x
";
    assert_eq!((code, out.as_str()), (Some(0), expected));
    std::fs::write(&requests, b"{}\n\n{\"paht\": 1}\n\xff\n").expect("a file");
    let (code, out, err) = wingbeat(&["match", "--canary", &canary, "--requests", &requests]);
    assert_eq!((code, out.lines().count()), (Some(2), 1));
    let told: Vec<&str> = err.lines().collect();
    assert!(
        matches!(told.as_slice(), [a, b] if a.starts_with(&format!("{requests}:3: column 7: unknown field `paht`"))
        && b.starts_with(&format!("{requests}:4: this is no UTF-8"))),
        "{err}"
    );
    let insider = ["match", "--canary", &canary, "--header", "cookie: type=insider", "--expect", "canary"];
    assert_eq!(wingbeat(&insider).0, Some(0));
    assert_eq!(wingbeat(&[&insider[..], &["--weight", "0"]].concat()).0, Some(1));
    assert_eq!(wingbeat(&["check", &canary]).0, Some(0));
}

#[test]
fn a_pattern_that_cannot_be_run_is_told_by_its_field() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("canary.yaml");
    let text = std::fs::read_to_string(example("backend.yaml")).expect("an example");
    let rules = r#"iterations: 10, match: [{headers: {user-agent: {regex: "\bSafari"}}}]}"#;
    std::fs::write(&file, text.replace("maxWeight: 50, stepWeight: 5}", rules)).expect("a file");
    let (code, _, err) = wingbeat(&["check", &file.display().to_string()]);
    assert_eq!(code, Some(2));
    assert!(err.contains("spec.analysis.match[0].headers.user-agent.regex: holds a backspace"), "{err}");
}

#[test]
fn plan_says_what_a_rollout_will_be_like() {
    let backend = example("backend.yaml");
    let plan = |more: &[&str]| wingbeat(&[&["plan", &backend, "--rps", "2000", "--error-rate", "1%"], more].concat());
    let (code, out, err) = plan(&["--output", "json"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let told: Value = serde_json::from_str(&out).expect("JSON");
    assert!(told.get("healthy_duration_ms").and_then(Value::as_u64).is_some_and(|millis| millis > 10_000), "{told}");
    let detect = told.get("detect").and_then(Value::as_array).expect("regressions");
    let numbers =
        |field: &str| -> Vec<f64> { detect.iter().filter_map(|one| one.get(field).and_then(Value::as_f64)).collect() };
    assert_eq!(
        (numbers("error_rate"), numbers("latency_factor")),
        (vec![0.02, 0.03, 0.05, 0.1, 1.0], vec![1.2, 1.5, 2.0])
    );
    for field in ["error_rate", "latency_factor", "detect_p50_ms", "detect_p90_ms", "missed"] {
        assert!(detect.iter().all(|one| one.get(field).is_some()), "{field}: null, or a number");
    }
    assert_eq!(plan(&["--output", "json"]).1, out, "the same question has the same answer");
    let (code, out, _) = plan(&["--name", "prod/backend"]);
    assert_eq!(code, Some(0));
    assert!(out.contains("A healthy canary is promoted within") && out.contains("is caught within"), "{out}");
}

#[test]
fn plan_refuses_absurd_traffic_by_its_flag() {
    let backend = example("backend.yaml");
    let usual = [("--rps", "1000"), ("--error-rate", "1%"), ("--latency-ms", "20,100")];
    for (flag, value, mend) in [
        ("--rps", "0", "use one above 0"),
        ("--rps", "-5", "use one above 0"),
        ("--rps", "inf", "use one above 0"),
        ("--rps", "NaN", "use one above 0"),
        ("--error-rate", "101%", "like 1%"),
        ("--error-rate", "-1%", "like 1%"),
        ("--error-rate", "5", "like 1%"),
        ("--latency-ms", "100,20", "write the median first"),
        ("--latency-ms", "20", "like 20,100"),
        ("--latency-ms", "0,100", "above 0"),
        ("--latency-ms", "-1,100", "above 0"),
        ("--latency-ms", "20,inf", "at most"),
    ] {
        let flags = usual.into_iter().flat_map(|(other, usual)| [other, if other == flag { value } else { usual }]);
        let args: Vec<&str> = ["plan", &backend].into_iter().chain(flags).collect();
        let (code, _, err) = wingbeat(&args);
        assert!(code == Some(2) && err.contains(flag) && err.contains(mend), "{flag} {value}: {code:?} {err}");
    }
    let (code, _, err) = wingbeat(&["plan", &backend, "--rps", "1", "--error-rate", "1%", "--name", "prod/other"]);
    assert!(code == Some(2) && err.contains("--name"), "{err}");
}

#[test]
fn replay_accounts_for_lines_that_are_no_text_or_have_no_end() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("recorded.jsonl");
    let good = r#"{"t_ms":1000,"weight":5.0,"primary":{"requests":95,"errors":0},"canary":{"requests":5,"errors":0}}"#;
    let endless = vec![b'['; 17 * 1_024 * 1_024];
    let lines: [&[u8]; 4] = [b"\xff\xfe", &endless, b"", good.as_bytes()];
    std::fs::write(&file, lines.join(&b'\n')).expect("a file");
    let (code, out, _) = wingbeat(&["replay", &file.display().to_string()]);
    let rows: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let bad = |row: &Value| row.get("error").is_some().then(|| row.get("line").and_then(Value::as_u64));
    assert_eq!(rows.iter().map(bad).collect::<Vec<_>>(), [Some(Some(1)), Some(Some(2)), None]);
    assert_eq!(code, Some(2));
}

#[test]
fn serve_refuses_a_folder_for_recordings_that_cannot_be_written() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "").expect("a file");
    let record = file.display().to_string();
    let (code, _, err) = wingbeat(&["serve", "--config", &example("backend.yaml"), "--record", &record]);
    assert!(code == Some(2) && err.contains("--record") && err.contains("is there room on the disk"), "{err}");
}

#[test]
fn shells_and_man_know_every_verb() {
    let (code, out, _) = wingbeat(&["completion", "bash"]);
    assert_eq!(code, Some(0));
    let folder = tempfile::tempdir().expect("a folder");
    let (code, ..) = wingbeat(&["man", &folder.path().display().to_string()]);
    assert_eq!(code, Some(0));
    for verb in ["demo", "serve", "status", "proxies", "promote"] {
        assert!(
            out.contains(&format!("wingbeat__{verb}")) || out.contains(&format!("wingbeat__subcmd__{verb}")),
            "{verb}"
        );
        let page = std::fs::read_to_string(folder.path().join(format!("wingbeat-{verb}.1"))).expect("a page");
        assert!(page.contains(".SH SYNOPSIS"), "{page}");
    }
    assert!(folder.path().join("wingbeat.1").exists());
}
