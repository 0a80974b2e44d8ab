//! Files as `wingbeat serve` follows them: emptied, deleted and replaced in all the ways in which people and systems do it.
#![expect(clippy::expect_used, reason = "tests")]

use std::cell::Cell;
use std::ffi::OsStr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use wingbeat_api::files::GRACE;
use wingbeat_test_support::server::{Server, run, until};

const PROGRAM: &str = env!("CARGO_BIN_EXE_wingbeat");

/// A folder of documents, and a state.
struct Site(tempfile::TempDir);

impl Site {
    fn new() -> Self {
        let site = Self(tempfile::tempdir().expect("a folder"));
        std::fs::create_dir(site.path("conf")).expect("a folder");
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn config(&self) -> PathBuf {
        self.path("conf")
    }

    /// Replaces a file, as editors do.
    fn write(&self, name: &str, text: &str) {
        let next = self.path("next");
        std::fs::write(&next, text).expect("the file is written");
        std::fs::rename(next, self.path(name)).expect("the file is replaced");
    }

    fn serve(&self) -> Server {
        Server::start(PROGRAM, self.args())
    }

    fn args(&self) -> Vec<PathBuf> {
        let ports = ["--listen-xds", "127.0.0.1:0", "--listen-http", "127.0.0.1:0", "--config"].map(PathBuf::from);
        ports.into_iter().chain([self.config(), PathBuf::from("--state"), self.path("state")]).collect()
    }
}

/// The documents of the example, whose workload asks for a revision.
fn documents(revision: &str) -> String {
    let text = std::fs::read_to_string(format!("{}/../deploy/examples/backend.yaml", env!("CARGO_MANIFEST_DIR")));
    text.expect("an example").replace("revision: \"1.4.0\"", &format!("revision: \"{revision}\""))
}

/// The same of another canary, at another port.
fn others() -> String {
    documents("1.4.0")
        .replace("name: backend", "name: other")
        .replace("backend.local", "other.local")
        .replace("name: public", "name: other")
        .replace("listeners: [public]", "listeners: [other]")
        .replace("port: 10000", "port: 10001")
}

async fn initialized(server: &Server) {
    until("the first revision serves", || server.phase() == "Initialized").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_vanishes_is_missed_before_it_is_removed() {
    let site = Site::new();
    site.write("conf/a.yaml", &documents("1.4.0"));
    let server = site.serve();
    initialized(&server).await;
    let missed = || server.condition("Accepted").is_some_and(|told| told.contains("is in no file any more"));
    let file = site.path("conf/a.yaml");
    let (empty, delete) =
        (|| std::fs::write(&file, "").expect("written"), || std::fs::remove_file(&file).expect("deleted"));
    for vanish in [&empty as &dyn Fn(), &delete] {
        vanish();
        until("it is missed", missed).await;
        assert_eq!(server.phase(), "Initialized", "and goes on");
        site.write("conf/a.yaml", &documents("1.4.0"));
        until("it is back", || server.condition("Accepted").is_none()).await;
        assert_eq!(server.phase(), "Initialized");
    }
    assert!(!server.said().contains("is removed: it is in no file"), "{}", server.said());
    delete();
    until("it is missed", missed).await;
    until("it stays away, and goes", || server.canary().is_none()).await;
    let said = server.said();
    assert!(said.contains("Canary backend.prod is removed: it is in no file"), "{said}");
    assert!(said.contains("backend.prod is not configured any more"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_means_a_removal_says_so_by_a_signal() {
    let site = Site::new();
    site.write("conf/a.yaml", &documents("1.4.0"));
    let server = site.serve();
    initialized(&server).await;
    std::fs::remove_file(site.path("conf/a.yaml")).expect("it is there");
    until("it is missed", || server.condition("Accepted").is_some()).await;
    let began = Instant::now();
    let sent = Command::new("kill").args(["-HUP", &server.pid().to_string()]).status();
    assert!(sent.expect("kill is there").success());
    until("it goes", || server.canary().is_none()).await;
    assert!(began.elapsed() < Duration::from_nanos(GRACE.as_nanos()), "{:?}", began.elapsed());
}

/// What was refused because of the state is taken once the state allows it. Nobody writes the file again.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_that_rests_on_the_state_is_looked_at_again() {
    let site = Site::new();
    site.write("conf/a.yaml", &documents("1.4.0"));
    let server = site.serve();
    initialized(&server).await;
    site.write("conf/a.yaml", &documents("1.4.1"));
    until("a rollout begins", || server.phase() == "Progressing").await;
    let without = documents("1.4.0")
        .replace("    \"1.4.1\": {endpoints: [\"127.0.0.1:9002\"]}\n", "")
        .replace("  targetRef", "  suspend: true\n  targetRef");
    site.write("conf/a.yaml", &without);
    until("it is refused", || server.condition("Accepted").is_some_and(|told| told.contains("which is suspended")))
        .await;
    assert_eq!(server.client(&["abort", "prod/backend"]).0, Some(0));
    until("it is taken", || server.condition("Accepted").is_none() && server.condition("Suspended").is_some()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_wrong_at_the_start_is_what_it_was_before() {
    let site = Site::new();
    site.write("conf/a.yaml", &documents("1.4.0"));
    site.write("conf/b.yaml", &others());
    let server = site.serve();
    let both = |server: &Server| server.client(&["get", "-A"]).1.matches("Initialized").count() == 2;
    until("both serve", || both(&server)).await;
    drop(server);
    site.write("conf/a.yaml", "kind: [");
    site.write("conf/new.yaml", "kind: {");
    let server = site.serve();
    until("both serve again", || both(&server)).await;
    let told = server.condition("Accepted").expect("the first one is refused");
    assert!(told.contains("a.yaml:2:1: this is no YAML that can be read"), "{told}");
    assert!(server.said().contains("new.yaml:2:1: this is no YAML that can be read"), "{}", server.said());
    // And it is followed as ever.
    site.write("conf/a.yaml", &documents("1.4.1"));
    until("what is mended is taken", || server.phase() == "Progressing").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_file_that_is_wrong_at_the_start_is_left_out() {
    let site = Site::new();
    site.write("conf/a.yaml", &documents("1.4.0"));
    site.write("conf/b.yaml", "kind: [");
    let server = site.serve();
    initialized(&server).await;
    assert!(server.said().contains("b.yaml:2:1: this is no YAML that can be read"), "{}", server.said());
    drop(server);
    // Where nothing at all can be served, it does not pretend to.
    std::fs::remove_dir_all(site.path("state")).expect("a state");
    std::fs::remove_file(site.path("conf/a.yaml")).expect("a file");
    let output = run(PROGRAM, [OsStr::new("serve")].into_iter().chain(site.args().iter().map(|arg| arg.as_os_str())));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("there is nothing else to serve"), "{said}");
}

/// As the kubelet mounts a ConfigMap, and changes it: all files at once, by a link to a folder.
#[tokio::test(flavor = "multi_thread")]
async fn a_mounted_config_map_is_followed() {
    let site = Site::new();
    let put = |version: &str, text: &str| {
        let folder = site.path(&format!("conf/..{version}"));
        std::fs::create_dir(&folder).expect("a folder");
        std::fs::write(folder.join("a.yaml"), text).expect("written");
        symlink(format!("..{version}"), site.path("conf/..data_tmp")).expect("a link");
        std::fs::rename(site.path("conf/..data_tmp"), site.path("conf/..data")).expect("replaced");
    };
    put("1", &documents("1.4.0"));
    symlink("..data/a.yaml", site.path("conf/a.yaml")).expect("a link");
    let server = site.serve();
    initialized(&server).await;
    put("2", &documents("1.4.1"));
    std::fs::remove_dir_all(site.path("conf/..1")).expect("a folder");
    until("the change is taken", || server.phase() == "Progressing").await;
    put("3", "kind: [");
    std::fs::remove_dir_all(site.path("conf/..2")).expect("a folder");
    until("the next one too", || server.condition("Accepted").is_some()).await;
    assert!(!server.said().contains("is in no file"), "{}", server.said());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_into_another_folder_is_followed() {
    let site = Site::new();
    std::fs::create_dir(site.path("other")).expect("a folder");
    site.write("other/real", &documents("1.4.0"));
    symlink("../other/link", site.path("conf/a.yaml")).expect("a link");
    symlink("real", site.path("other/link")).expect("a link");
    let server = site.serve();
    initialized(&server).await;
    site.write("other/real", &documents("1.4.1"));
    until("the change is taken", || server.phase() == "Progressing").await;
    std::fs::write(site.path("other/wrong"), "kind: [").expect("written");
    symlink("wrong", site.path("other/next")).expect("a link");
    std::fs::rename(site.path("other/next"), site.path("other/link")).expect("replaced");
    until("the link is followed too", || server.condition("Accepted").is_some()).await;
}

/// A folder is read though it is never quiet, and though it holds what cannot be read.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_folder_is_read() {
    let site = Site::new();
    site.write("conf/a.yaml", &documents("1.4.0"));
    let made = Command::new("mkfifo").arg(site.path("conf/pipe.yaml")).status();
    assert!(made.expect("mkfifo is there").success());
    std::fs::create_dir(site.path("conf/more")).expect("a folder");
    let server = site.serve();
    initialized(&server).await;
    for told in ["pipe.yaml: is no regular file", "conf/more: this folder in a folder is not read"] {
        until(told, || server.said().contains(told)).await;
    }
    let is_over = Arc::new(AtomicBool::new(false));
    let busy = {
        let (folder, is_over) = (site.config(), is_over.clone());
        tokio::spawn(async move {
            let mut pace = tokio::time::interval(Duration::from_millis(5));
            while !is_over.load(Ordering::Relaxed) {
                pace.tick().await;
                for name in ["busy.log", "busy.yaml"] {
                    std::fs::write(folder.join(name), "kind: Other\n").expect("written");
                }
            }
        })
    };
    site.write("conf/a.yaml", &documents("1.4.1"));
    until("the change is taken", || server.phase() == "Progressing").await;
    is_over.store(true, Ordering::Relaxed);
    busy.await.expect("it ends");
}

/// That the files are read is no change of them.
#[tokio::test(flavor = "multi_thread")]
async fn at_rest_nothing_is_read() {
    let site = Site::new();
    site.write("conf/a.yaml", &documents("1.4.0"));
    let server = site.serve();
    initialized(&server).await;
    let read = || {
        let io = std::fs::read_to_string(format!("/proc/{}/io", server.pid())).expect("it runs");
        io.lines().find_map(|line| line.strip_prefix("rchar: ")?.parse::<u64>().ok()).expect("a number")
    };
    // How often in a row, some 50 ms apart, as much was read as before.
    let same = Cell::new((0, 0));
    until("it rests for a second", || {
        let (before, times) = same.get();
        let now = read();
        same.set((now, if now == before { times + 1 } else { 0 }));
        times >= 20
    })
    .await;
}

/// The folder itself is replaced.
#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_replaced_is_followed() {
    let site = Site::new();
    site.write("conf/a.yaml", &documents("1.4.0"));
    let server = site.serve();
    initialized(&server).await;
    std::fs::remove_dir_all(site.config()).expect("a folder");
    until("it is told", || server.said().contains("conf: cannot be read")).await;
    assert_eq!(server.phase(), "Initialized");
    std::fs::create_dir(site.config()).expect("a folder");
    site.write("conf/a.yaml", &documents("1.4.1"));
    until("the new one is read", || server.phase() == "Progressing").await;
    std::fs::rename(site.config(), site.path("old")).expect("moved away");
    std::fs::create_dir(site.config()).expect("a folder");
    site.write("conf/a.yaml", "kind: [");
    until("and followed", || server.condition("Accepted").is_some()).await;
}

fn check(path: &Path) -> (Option<i32>, String) {
    let output = run(PROGRAM, [OsStr::new("check"), path.as_os_str()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    (output.status.code(), said)
}

#[test]
fn check_says_what_it_did_not_read() {
    let site = Site::new();
    let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: {}\n";
    site.write("conf/a.yaml", &format!("{}---\n{deployment}", documents("1.4.0")));
    site.write("conf/kustomization.yaml", "resources: [a.yaml]\n");
    std::fs::create_dir(site.path("conf/more")).expect("a folder");
    let (code, said) = check(&site.config());
    assert_eq!(code, Some(0), "{said}");
    let lines: Vec<&str> = said.lines().collect();
    let [deployment, kustomization, more, right] = lines.as_slice() else { panic!("{said}") };
    assert!(deployment.contains("a.yaml:2") && deployment.contains("Deployment of apps/v1 is no document"), "{said}");
    assert!(kustomization.contains("kustomization.yaml:1:1: what has neither apiVersion nor kind"), "{said}");
    assert!(more.contains("more: this folder in a folder is not read"), "{said}");
    assert_eq!(*right, "1 file is right, 2 documents of others were not read");
    let (code, said) = check(&site.path("conf/kustomization.yaml"));
    assert!(
        code == Some(2) && said.ends_with("there is no document of Wingbeat, 1 document of others was not read\n"),
        "{said}"
    );
}
