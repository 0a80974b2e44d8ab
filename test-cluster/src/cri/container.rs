//! A container: a process, and how it ended.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tonic::Status;

use crate::cri::log::Log;
use crate::cri::mounts;
use crate::cri::v1::{ContainerConfig, ContainerState};

/// Time for a process group to be gone that was sent SIGKILL. One that hangs in the kernel is left to it.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);
/// What a shell adds to a signal to make an exit code of it.
const SIGNALLED: i32 = 128;

/// What a program is told that shall listen at all addresses.
const EVERYWHERE: &str = "0.0.0.0";

/// Where a container is on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Created,
    Running { since: i64, group: Pid },
    Exited { since: i64, at: i64, code: i32 },
}

impl Phase {
    /// Returns its name in the interface.
    pub(super) const fn state(self) -> ContainerState {
        match self {
            Self::Created => ContainerState::ContainerCreated,
            Self::Running { .. } => ContainerState::ContainerRunning,
            Self::Exited { .. } => ContainerState::ContainerExited,
        }
    }
}

/// A container.
#[derive(Debug)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) sandbox: String,
    pub(super) config: ContainerConfig,
    pub(super) created: i64,
    pub(super) log_path: PathBuf,
    program: PathBuf,
    address: Ipv4Addr,
    hostname: String,
    phase: watch::Sender<Phase>,
}

/// What a container is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) id: String,
    pub(super) sandbox: String,
    pub(super) config: ContainerConfig,
    /// The log folder of its sandbox.
    pub(super) logs: PathBuf,
    pub(super) program: PathBuf,
    pub(super) address: Ipv4Addr,
    pub(super) hostname: String,
}

impl Container {
    /// Makes a container that does not run yet.
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { id, sandbox, config, logs, program, address, hostname } = parts;
        let log_path = logs.join(&config.log_path);
        let phase = watch::Sender::new(Phase::Created);
        Self { id, sandbox, config, created: now(), log_path, program, address, hostname, phase }
    }

    /// Returns where it is.
    pub(super) fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    /// Starts its process, and a task that notes its end.
    pub(super) fn start(self: &Arc<Self>) -> Result<(), Status> {
        if self.phase() != Phase::Created {
            return Err(Status::failed_precondition(format!("container {} was started before", self.id)));
        }
        let (program, args) = match self.config.command.split_first() {
            Some((program, args)) => (Path::new(program), args),
            None => (self.program.as_path(), &[][..]),
        };
        let mut command = self.environment(program);
        // All Pods share a network: each has its own address there, and none has all of them.
        let address = self.address.to_string();
        let own = self.config.args.iter().map(|arg| arg.replace(EVERYWHERE, &address));
        command.args(args).args(own).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| Status::internal(format!("no process: {error}")))?;
        let group = group_of(&child)?;
        let log = Log::open(&self.log_path);
        if let Some(stream) = child.stdout.take() {
            tokio::spawn(log.clone().copy(stream, "stdout"));
        }
        if let Some(stream) = child.stderr.take() {
            tokio::spawn(log.copy(stream, "stderr"));
        }
        let since = now();
        self.phase.send_replace(Phase::Running { since, group });
        tokio::spawn(self.clone().reap(child, since, group));
        Ok(())
    }

    async fn reap(self: Arc<Self>, mut child: Child, since: i64, group: Pid) {
        let code = child.wait().await.map_or(SIGNALLED, exit_code);
        // As with a container: what its first process started ends with it.
        let _gone = rustix::process::kill_process_group(group, Signal::KILL);
        self.phase.send_replace(Phase::Exited { since, at: now(), code });
    }

    /// Asks it to end and kills it after this time. Returns once it has ended.
    pub(super) async fn stop(&self, grace: Duration) -> Result<(), Status> {
        let Phase::Running { group, .. } = self.phase() else { return Ok(()) };
        if !grace.is_zero() {
            // As in a container, it is the first process that is asked.
            let _gone = rustix::process::kill_process(group, Signal::TERM);
            if self.ended_within(grace).await {
                return Ok(());
            }
        }
        let _gone = rustix::process::kill_process_group(group, Signal::KILL);
        if self.ended_within(KILL_TIMEOUT).await {
            return Ok(());
        }
        Err(Status::deadline_exceeded(format!("container {} does not end", self.id)))
    }

    async fn ended_within(&self, time: Duration) -> bool {
        let mut phase = self.phase.subscribe();
        let ended = phase.wait_for(|phase| matches!(phase, Phase::Exited { .. }));
        tokio::time::timeout(time, ended).await.is_ok_and(|ended| ended.is_ok())
    }

    /// Runs a command beside its process, to its end.
    pub(super) async fn run(&self, line: &[String], bound: Duration) -> Result<Output, Status> {
        let Phase::Running { .. } = self.phase() else {
            return Err(Status::failed_precondition(format!("container {} does not run", self.id)));
        };
        let (program, args) = line.split_first().ok_or_else(|| Status::invalid_argument("no command"))?;
        let failed = |error| Status::internal(format!("{program}: {error}"));
        let mut command = self.environment(Path::new(program));
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().map_err(failed)?;
        let group = group_of(&child)?;
        if let Ok(output) = tokio::time::timeout(bound, child.wait_with_output()).await {
            return output.map_err(failed);
        }
        let _gone = rustix::process::kill_process_group(group, Signal::KILL);
        Err(Status::deadline_exceeded(format!("{program}: not within {bound:?}")))
    }

    /// Returns a program with the container's environment, in a process group of its own.
    fn environment(&self, program: &Path) -> Command {
        let mut command = mounts::within(&self.config.mounts, program);
        command.env_clear().process_group(0);
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        let image = self.config.image.as_ref().map(name_of).unwrap_or_default();
        command.env("POD_IP", self.address.to_string()).env("HOSTNAME", &self.hostname).env("IMAGE", image);
        command.envs(self.config.envs.iter().map(|env| (&env.key, &env.value)));
        if !self.config.working_dir.is_empty() {
            command.current_dir(&self.config.working_dir);
        }
        command
    }
}

/// Returns the process group of a process that leads one.
fn group_of(child: &Child) -> Result<Pid, Status> {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    group.ok_or_else(|| Status::internal("a process without an id"))
}

/// Returns an image's name as the Pod has it.
pub(super) fn name_of(image: &crate::cri::v1::ImageSpec) -> &str {
    if image.user_specified_image.is_empty() { &image.image } else { &image.user_specified_image }
}

/// Returns the time, in nanoseconds since 1970.
pub(super) fn now() -> i64 {
    i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX)
}

fn exit_code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().unwrap_or_else(|| SIGNALLED + status.signal().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::v1::{KeyValue, Mount};

    fn container(folder: &Path, command: &[&str], args: &[&str]) -> Arc<Container> {
        let strings = |all: &[&str]| all.iter().map(|part| (*part).to_owned()).collect();
        let config = ContainerConfig {
            command: strings(command),
            args: strings(args),
            envs: vec![KeyValue { key: "GREETING".to_owned(), value: "hello".to_owned() }],
            log_path: "0.log".to_owned(),
            ..ContainerConfig::default()
        };
        Arc::new(Container::new(Parts {
            id: "c".to_owned(),
            sandbox: "s".to_owned(),
            config,
            logs: folder.to_owned(),
            program: "echo".into(),
            address: Ipv4Addr::new(10, 244, 1, 1),
            hostname: "pod".to_owned(),
        }))
    }

    async fn code(container: &Container) -> i32 {
        assert!(container.ended_within(Duration::from_secs(30)).await, "{:?}", container.phase());
        let Phase::Exited { code, since, at } = container.phase() else { panic!("it has ended") };
        assert!(container.created <= since && since <= at);
        code
    }

    async fn until(holds: impl Fn() -> bool) {
        let mut poll = tokio::time::interval(Duration::from_millis(5));
        let wait = async {
            while !holds() {
                poll.tick().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), wait).await.expect("it comes about");
    }

    #[tokio::test]
    async fn a_container_is_the_images_program_or_the_pods() {
        let folder = tempfile::tempdir().unwrap();
        let image = container(folder.path(), &[], &["an argument"]);
        assert_eq!(image.phase().state(), ContainerState::ContainerCreated);
        image.start().unwrap();
        assert!(image.start().is_err(), "once");
        assert_eq!(code(&image).await, 0);
        let pod = container(folder.path(), &["sh", "-c", "exit $((${#GREETING} + ${#POD_IP}))"], &[]);
        pod.start().unwrap();
        assert_eq!(code(&pod).await, 5 + 10);
        assert!(pod.run(&["true".to_owned()], KILL_TIMEOUT).await.is_err(), "it has ended");
    }

    #[tokio::test]
    async fn volumes_are_at_their_paths_for_the_container_only() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), "secret\n").unwrap();
        // In folders that are there, and in one that is not.
        let paths = ["/etc/wingbeat-test/tls", "/etc/wingbeat-test/ca", "/var/lib/wingbeat-test"];
        let line = "test -s /etc/passwd && for path; do cat $path; done";
        let files = paths.map(|path| format!("{path}/key"));
        let args: Vec<&str> = files.iter().map(String::as_str).collect();
        let mut of = Arc::into_inner(container(folder.path(), &["sh", "-c", line, "sh"], &args)).unwrap();
        let host_path = folder.path().display().to_string();
        let mount = |path: &str| Mount { container_path: path.to_owned(), host_path: host_path.clone() };
        of.config.mounts = paths.map(mount).into();
        let of = Arc::new(of);
        of.start().unwrap();
        let code = code(&of).await;
        let log = || std::fs::read_to_string(&of.log_path).unwrap();
        until(|| log().matches("secret").count() == 3).await;
        assert_eq!(code, 0, "{}", log());
        assert!(paths.iter().all(|path| !Path::new(path).exists()));
    }

    #[tokio::test]
    async fn an_address_for_everything_is_the_pods() {
        let folder = tempfile::tempdir().unwrap();
        let of = container(folder.path(), &[], &["--listen=0.0.0.0:80"]);
        of.start().unwrap();
        assert_eq!(code(&of).await, 0);
        until(|| std::fs::read_to_string(&of.log_path).unwrap().ends_with("--listen=10.244.1.1:80\n")).await;
    }

    #[tokio::test]
    async fn who_does_not_end_is_killed_with_all_that_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let polite = container(folder.path(), &["sleep", "1000"], &[]);
        polite.start().unwrap();
        polite.stop(Duration::from_secs(30)).await.unwrap();
        assert_eq!(code(&polite).await, SIGNALLED + 15);
        let deaf = container(folder.path(), &["sh", "-c", "trap '' TERM; echo deaf; sleep 1000 & wait"], &[]);
        deaf.start().unwrap();
        until(|| std::fs::read_to_string(&deaf.log_path).unwrap().ends_with("deaf\n")).await;
        let Phase::Running { group, .. } = deaf.phase() else { panic!("it runs") };
        deaf.stop(Duration::from_millis(1)).await.unwrap();
        assert_eq!(code(&deaf).await, SIGNALLED + 9);
        until(|| rustix::process::test_kill_process_group(group).is_err()).await;
    }

    #[tokio::test]
    async fn a_command_runs_beside_the_process() {
        let folder = tempfile::tempdir().unwrap();
        let running = container(folder.path(), &["sleep", "1000"], &[]);
        running.start().unwrap();
        let line = |text: &str| ["sh", "-c", text].map(str::to_owned);
        let output = running.run(&line("echo $GREETING; exit 3"), Duration::from_secs(30)).await.unwrap();
        assert_eq!((output.stdout.as_slice(), output.status.code()), (&b"hello\n"[..], Some(3)));
        // What it has started ends with it.
        let pid = folder.path().join("pid");
        let started = line(&format!("sleep 1000 & echo $! > {}; wait", pid.display()));
        let id = || std::fs::read_to_string(&pid).ok()?.trim().parse().ok().and_then(Pid::from_raw);
        // On a busy machine a second may be over before the shell has begun.
        for seconds in [1, 30] {
            let late = running.run(&started, Duration::from_secs(seconds)).await.unwrap_err();
            assert_eq!(late.code(), tonic::Code::DeadlineExceeded);
            if id().is_some() {
                break;
            }
        }
        let started = id().expect("it began");
        until(|| rustix::process::test_kill_process(started).is_err()).await;
        running.stop(Duration::ZERO).await.unwrap();
        assert_eq!(code(&running).await, SIGNALLED + 9);
    }
}
