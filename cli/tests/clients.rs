//! The verbs of clients, against servers that are slow, of another version, away for a while, or say nonsense.
#![expect(clippy::expect_used, reason = "tests")]

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tempfile::TempDir;
use wingbeat_test_support::server::{Server, run, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_wingbeat");

/// Runs a verb against a server. Returns the exit code, standard output and standard error.
fn ask(server: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let output = run(PROGRAM, args.iter().chain(&["--server", server]));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Starts a verb and collects its lines, until dropped.
struct Running {
    process: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Running {
    fn start(server: &str, args: &[&str]) -> Self {
        let mut process = Command::new(PROGRAM)
            .args(args)
            .args(["--server", server])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let (lines, said) = (Arc::<Mutex<Vec<String>>>::default(), process.stdout.take().expect("standard output"));
        let collected = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(said).lines().map_while(Result::ok) {
                collected.lock().expect("not poisoned").push(line);
            }
        });
        Self { process, lines }
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().expect("not poisoned").clone()
    }

    /// Returns how many lines hold this.
    fn count(&self, text: &str) -> usize {
        self.lines().iter().filter(|line| line.contains(text)).count()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.process.kill();
        let _ended = self.process.wait();
    }
}

/// A server of a later version, and one whose canaries are partly nonsense.
async fn strange() -> String {
    let canary =
        |name: &str| json!({"namespace": "prod", "name": name, "phase": "Progressing", "weight": 5.0, "rev": 3});
    let mut endless = canary("endless");
    endless.as_object_mut().expect("an object").insert("metrics".into(), json!({"lag": null, "slow": "+Inf"}));
    let mut later = canary("later");
    let fields = later.as_object_mut().expect("an object");
    fields.extend([("phase".into(), "Levitating".into()), ("mood".into(), json!({"good": [1]}))]);
    fields.insert("evidence".into(), json!({"harm": "none", "decisive": null}));
    let event = |message: Value| json!({"id": 1, "t": "T", "type": "Normal", "namespace": "prod", "name": "a", "message": message, "reason": "Synced"});
    let events = json!([event("first".into()), event(json!(["odd"])), event("last".into())]);
    let canaries = json!([canary("a"), endless, later, canary("z"), "nonsense"]);
    let routes = Router::new()
        .route("/api/v1/canaries", get(async || Json(canaries)))
        .route("/api/v1/events", get(async || Json(events)))
        .route("/api/v1/refused-files", get(async || Json(json!([{"file": 7}]))));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_canary_says_hides_no_other() {
    let server = strange().await;
    let (code, out, err) = ask(&server, &["get"]);
    assert_eq!((code, out.lines().count()), (Some(0), 6), "{out}{err}");
    for shown in ["endless   Progressing", "later     Levitating", "z         Progressing", "?         ?"] {
        assert!(out.contains(shown), "{shown} is not in\n{out}");
    }
    assert_eq!(err.lines().count(), 2, "{err}");
    assert!(err.contains("prod/later is not shown in full, the server is of another version (evidence: "), "{err}");
    // As the server says it, what this version does not know among it.
    let (code, out, err) = ask(&server, &["get", "--output", "json"]);
    let all: Vec<Value> = serde_json::from_str(&out).expect("a list");
    assert_eq!((code, all.len(), err.as_str()), (Some(0), 5, ""));
    assert_eq!(all.get(2).and_then(|later| later.pointer("/mood/good/0")), Some(&json!(1)));
    let (code, out, err) = ask(&server, &["describe"]);
    assert_eq!(code, Some(0), "{err}");
    for shown in ["lag NaN", "slow +Inf", "Levitating", "first", "last"] {
        assert!(out.contains(shown), "{shown} is not in\n{out}");
    }
    let (code, out, _) = ask(&server, &["events"]);
    assert_eq!((code, out.lines().count()), (Some(0), 3), "{out}");
    assert!(out.contains("first") && out.contains("odd") && out.contains("last"), "{out}");
    let watching = Running::start(&server, &["watch", "--output", "json"]);
    until("each is printed", || watching.lines().len() == 5).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_hangs_is_given_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let server = listener.local_addr().expect("an address").to_string();
    for args in
        [&["get"][..], &["describe"], &["watch"], &["events"], &["events", "-f"], &["abort", "prod/a", "--id", "7"]]
    {
        let (code, out, err) = ask(&server, &[args, &["--request-timeout", "200ms"]].concat());
        assert_eq!((code, out.as_str()), (Some(1), ""), "{args:?}: {err}");
        assert!(err.contains("within 200ms: the server is there and hangs"), "{args:?}: {err}");
        assert_eq!(err.contains("acts once however often it is sent with --id 7"), args.contains(&"abort"), "{err}");
    }
}

/// As after `wingbeat events | head -1`.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_who_reads_is_no_error() {
    let server = strange().await;
    let example = format!("{}/../deploy/examples/backend.yaml", env!("CARGO_MANIFEST_DIR"));
    for args in
        [&["events", "--server", &server][..], &["get", "--server", &server], &["check", &example], &["bootstrap"]]
    {
        // Nobody reads from the beginning on: a program may be done before a pipe is closed.
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = Command::new(PROGRAM).args(args).stdout(writer).stderr(Stdio::piped()).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        let said: Vec<&str> = said.lines().filter(|line| !line.contains("another version")).collect();
        assert_eq!((output.status.code(), said.as_slice()), (Some(141), &[][..]), "{args:?}");
    }
}

fn documents(revision: &str) -> String {
    let example = format!("{}/../deploy/examples/backend.yaml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(example).expect("an example");
    text.replace("revision: \"1.4.0\"", &format!("revision: \"{revision}\""))
}

fn serve(folder: &Path, http: &str) -> Server {
    serve_within("", folder, http)
}

fn serve_within(limits: &str, folder: &Path, http: &str) -> Server {
    let (config, state) =
        (folder.join("canary.yaml").display().to_string(), folder.join("state").display().to_string());
    let args = ["--listen-xds", "127.0.0.1:0", "--listen-http", http, "--config", &config, "--state", &state];
    Server::start_within(PROGRAM, limits, args)
}

/// A server whose first revision serves, and its folder.
async fn initialized() -> (TempDir, Server) {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("canary.yaml"), documents("1.4.0")).expect("a file");
    let server = serve(folder.path(), "127.0.0.1:0");
    until("it serves", || server.phase() == "Initialized").await;
    (folder, server)
}

/// glibc reads its settings before `main`: a server is started anew with them, under the same id.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[test]
fn a_server_sets_the_allocator_unless_its_user_did() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("canary.yaml"), documents("1.4.0")).expect("a file");
    let unset = "unset GLIBC_TUNABLES;";
    for (limits, expected) in [
        // glibc divides the text where it lies, at each colon.
        (unset, Some("GLIBC_TUNABLES=glibc.malloc.tcache_count=0\0glibc.malloc.mmap_threshold=")),
        ("export GLIBC_TUNABLES=glibc.malloc.arena_max=8;", Some("GLIBC_TUNABLES=glibc.malloc.arena_max=8\0")),
        // Somebody took the settings away from one that was started anew: it is not started again.
        (&format!("{unset} export WINGBEAT_STARTED_ANEW=1;"), None),
    ] {
        let server = serve_within(limits, folder.path(), "127.0.0.1:0");
        let environment = std::fs::read(format!("/proc/{}/environ", server.pid())).expect("it runs");
        let environment = String::from_utf8_lossy(&environment).replace(':', "\0");
        match expected {
            Some(expected) => assert!(environment.contains(expected), "{limits} {environment}"),
            None => assert!(!environment.contains("GLIBC_TUNABLES"), "{limits} {environment}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_that_is_not_there_is_an_error() {
    let (_folder, server) = initialized().await;
    for args in [
        &["get", "prod/nobody"][..],
        &["describe", "prod/nobody"],
        &["watch", "prod/nobody"],
        &["watch", "prod/nobody", "--output", "json"],
        &["events", "prod/nobody"],
        &["events", "prod/nobody", "--follow"],
        &["abort", "prod/nobody"],
    ] {
        let (code, out, err) = ask(&server.http, args);
        assert_eq!((code, out.as_str()), (Some(1), ""), "{args:?}: {err}");
        assert!(err.contains("there is no canary prod/nobody"), "{args:?}: {err}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_goes_on_over_a_restart_with_nothing_twice() {
    let (folder, server) = initialized().await;
    let http = server.http.clone();
    let events = Running::start(&http, &["events", "prod/backend", "--follow"]);
    let states = Running::start(&http, &["watch", "prod/backend", "--output", "json"]);
    until("the events are there", || events.count("Initialization done!") == 1).await;
    std::fs::write(folder.path().join("canary.yaml"), documents("1.4.1")).expect("a file");
    until("a rollout is on", || events.count("New revision detected!") == 1).await;
    drop(server);
    let server = serve(folder.path(), &http);
    until("commands are taken", || server.client(&["pause", "prod/backend"]).0 == Some(0)).await;
    until("what came after is there", || events.count("Paused backend.prod by command") == 1).await;
    let lines = events.lines();
    for told in ["Initialization done!", "New revision detected!", "Paused backend.prod by command"] {
        assert_eq!(events.count(told), 1, "{told}: {lines:#?}");
    }
    until("the pause is watched", || states.count(r#""paused":true"#) > 0).await;
    // States, and no events: each has what an event has, too.
    for line in states.lines() {
        let state: Value = serde_json::from_str(&line).expect("an object a line");
        for field in ["t", "type", "reason", "message", "namespace", "name", "phase"] {
            assert!(state.get(field).is_some_and(Value::is_string), "{field}: {line}");
        }
        assert!(state.get("weight").is_some_and(Value::is_number), "{line}");
    }
}

/// Exit codes are for scripts: 0 promoted, 1 not, 3 not yet.
#[tokio::test(flavor = "multi_thread")]
async fn status_ends_as_the_rollout_does() {
    let (folder, server) = initialized().await;
    let status = |more: &[&str]| {
        let (code, out, err) = ask(&server.http, &[&["status", "prod/backend"], more].concat());
        (code.expect("it ends by itself"), out, err)
    };
    assert_eq!(status(&[]), (0, "prod/backend Initialized, revision 1.4.0\n".to_owned(), String::new()));
    // It has not begun.
    assert_eq!(status(&["--revision", "1.4.1"]).0, 3);
    std::fs::write(folder.path().join("canary.yaml"), documents("1.4.1")).expect("a file");
    let (code, out, err) = status(&["--wait=2s", "--revision", "1.4.1"]);
    assert_eq!((code, err.as_str()), (3, "not over within 2s\n"), "{out}");
    assert!(out.contains("prod/backend Progressing, revision 1.4.1 at "), "{out}");
    assert_eq!(server.client(&["abort", "prod/backend"]).0, Some(0));
    let (code, out, _) = status(&["--wait", "--revision", "1.4.1"]);
    assert!(code == 1 && out.contains("prod/backend Failed, revision 1.4.1 at 0 %, 1.4.0 is the primary: "), "{out}");
    assert_eq!(server.client(&["retry", "prod/backend"]).0, Some(0));
    assert_eq!(server.client(&["promote", "prod/backend"]).0, Some(0));
    let (code, out, err) = status(&["--wait=1m", "--output", "json"]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let shown: Value = serde_json::from_str(&out).expect("one JSON value");
    assert_eq!((&shown["phase"], &shown["primary_revision"]), (&json!("Succeeded"), &json!("1.4.1")));
}
