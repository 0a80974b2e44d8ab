//! A running `wingbeat serve`, as an operating system knows it: a process with arguments, signals and limits.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// A running `wingbeat serve`. Killed when dropped, without warning.
#[derive(Debug)]
pub struct Server {
    program: &'static str,
    process: Child,
    /// Address of the HTTP API.
    pub http: String,
    /// Address for Envoys.
    pub xds: SocketAddr,
    said: Arc<Mutex<String>>,
    /// Holds the state where the arguments name no folder.
    _states: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Server {
    /// Starts the program with these arguments of `serve`, and waits until it listens.
    pub fn start(program: &'static str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        Self::start_within(program, "", args)
    }

    /// The same within limits, which a shell sets before: `ulimit -n 1024;`.
    pub fn start_within(
        program: &'static str,
        limits: &str,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Self {
        let states = tempfile::tempdir().expect("a folder");
        // A write beyond the limit of a file's size is to fail, as on a full disk, and not to end the process.
        let mut process = Command::new("sh")
            .args(["-c", &format!("{limits} trap '' XFSZ; exec \"$0\" serve \"$@\""), program])
            .args(args)
            .env("XDG_STATE_HOME", states.path())
            .env_remove("STATE_DIRECTORY")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let said = Arc::<Mutex<String>>::default();
        let (lines, heard) = (BufReader::new(process.stderr.take().expect("standard error")), said.clone());
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let mut heard = heard.lock().expect("not poisoned");
                heard.push_str(&line);
                heard.push('\n');
            }
        });
        let mut line = String::new();
        let stdout = process.stdout.take().expect("standard output");
        BufReader::new(stdout).read_line(&mut line).expect("a first line");
        let addresses: Value = serde_json::from_str(&line)
            .unwrap_or_else(|error| panic!("{error}: {line:?}; {}", said.lock().expect("not poisoned")));
        let text = |name: &str| addresses.get(name).and_then(Value::as_str).expect("an address").to_owned();
        let (http, xds) = (text("http"), text("xds").parse().expect("an address"));
        Self { program, process, http, xds, said, _states: states }
    }

    /// Kills it without warning; it is gone when this returns.
    pub fn kill(&mut self) {
        let _gone = self.process.kill();
        let _gone = self.process.wait();
    }

    /// Returns what it wrote to standard error so far.
    pub fn said(&self) -> String {
        self.said.lock().expect("not poisoned").clone()
    }

    /// Returns the id of its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Lets each of its writes to a file fail from now on, or none of them.
    pub fn fill_disk(&self, full: bool) {
        let limit = if full { "--fsize=0:" } else { "--fsize=unlimited:" };
        let set = Command::new("prlimit").args(["--pid", &self.pid().to_string(), limit]).status();
        assert!(set.expect("prlimit, of util-linux, is there").success());
    }

    /// Returns its resident memory, in KiB.
    pub fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
        line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number")
    }

    /// Runs a verb of a client. Returns the exit code and all that it wrote.
    pub fn client(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = run(self.program, args.iter().chain(&["--server", &self.http]));
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), said)
    }

    /// Returns the first canary as `get` shows it.
    pub fn canary(&self) -> Option<Value> {
        let (code, said) = self.client(&["get", "--output", "json"]);
        let all: Value = (code == Some(0)).then(|| serde_json::from_str(&said).expect("get prints JSON"))?;
        all.as_array()?.first().cloned()
    }

    /// Returns its phase; nothing if the server does not answer.
    pub fn phase(&self) -> String {
        self.canary().and_then(|canary| Some(canary.get("phase")?.as_str()?.to_owned())).unwrap_or_default()
    }

    /// Returns the message of one of its conditions.
    pub fn condition(&self, kind: &str) -> Option<String> {
        let canary = self.canary()?;
        let conditions = canary.get("conditions")?.as_array()?;
        let found = conditions.iter().find(|condition| condition.get("type").and_then(Value::as_str) == Some(kind))?;
        found.get("message")?.as_str().map(str::to_owned)
    }
}

/// Runs a program to its end.
pub fn run(program: &str, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
    Command::new(program).args(args).output().expect("the program runs")
}

/// Waits until something holds, two minutes at most.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    let mut poll = tokio::time::interval(Duration::from_millis(50));
    let wait = async {
        while !holds() {
            poll.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_mins(2), wait).await.unwrap_or_else(|_| panic!("{what}: it never came about"));
}
