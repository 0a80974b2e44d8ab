//! Network and mount namespaces of a thread, and how others get into them.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use tokio::process::Command;

/// The address of the node, and what the API server says that it can be reached at.
pub const NODE_ADDRESS: &str = "10.244.255.1";
/// The addresses of Pods. All of them are addresses of the namespace: any process in it can listen at them.
pub const POD_NETWORK: &str = "10.244.0.0/16";

/// What has no place of its own below the folder that kubelet is given: its log links, and the socket of devices. In the
/// namespace, each is an empty folder.
const PRIVATE_FOLDERS: [&str; 2] = ["/var/log", "/var/lib/kubelet"];

/// A network namespace. It is there as long as the thread that made it, or a process in it.
#[derive(Debug, Clone)]
pub struct Namespace {
    path: PathBuf,
}

impl Namespace {
    /// Gives the calling thread a network and mounts of its own; all processes that it starts have them, too. The thread must
    /// be one that nothing else runs on.
    pub(crate) async fn create() -> anyhow::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!("a cluster needs root: kubelet mounts volumes, and Pods have addresses of their own");
        }
        system::unshare().context("cannot make a network of its own (in a container, this needs CAP_SYS_ADMIN)")?;
        run(&["mount", "--make-rprivate", "/"]).await?;
        for folder in PRIVATE_FOLDERS {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot create {folder}"))?;
            run(&["mount", "-t", "tmpfs", "wingbeat", folder]).await?;
        }
        run(&["ip", "link", "set", "lo", "up"]).await?;
        run(&["ip", "address", "add", &format!("{NODE_ADDRESS}/32"), "dev", "lo"]).await?;
        run(&["ip", "route", "add", "local", POD_NETWORK, "dev", "lo"]).await?;
        Ok(Self { path: system::network_of_this_thread() })
    }

    /// Returns the file that stands for it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the calling thread into it, for good. A runtime of a single thread that is entered before it connects talks to
    /// the cluster as a Pod does.
    pub fn enter(&self) -> anyhow::Result<()> {
        system::enter(&self.path)
    }

    /// Returns a program that will run in it.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        let mut net = std::ffi::OsString::from("--net=");
        net.push(&self.path);
        command.arg(net).arg("--").arg(program);
        command
    }
}

#[cfg(target_os = "linux")]
mod system {
    use std::fs::File;
    use std::os::fd::AsFd as _;
    use std::path::{Path, PathBuf};

    use anyhow::Context as _;
    use rustix::thread::{LinkNameSpaceType, UnshareFlags};

    #[expect(unsafe_code, reason = "unsafe only where it divides the table of descriptors")]
    pub(super) fn unshare() -> anyhow::Result<()> {
        // SAFETY: `UnshareFlags::FILES` is not among the flags.
        Ok(unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET | UnshareFlags::NEWNS) }?)
    }

    pub(super) fn network_of_this_thread() -> PathBuf {
        let (process, thread) = (std::process::id(), rustix::thread::gettid().as_raw_nonzero());
        format!("/proc/{process}/task/{thread}/ns/net").into()
    }

    pub(super) fn enter(path: &Path) -> anyhow::Result<()> {
        let file = File::open(path).with_context(|| format!("the cluster is gone: {}", path.display()))?;
        rustix::thread::move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("cannot enter {}", path.display()))
    }
}

/// Elsewhere the crate builds, and says that there can be no cluster.
#[cfg(not(target_os = "linux"))]
mod system {
    use std::path::{Path, PathBuf};

    pub(super) fn unshare() -> anyhow::Result<()> {
        anyhow::bail!("a cluster runs on Linux")
    }

    pub(super) fn network_of_this_thread() -> PathBuf {
        PathBuf::new()
    }

    pub(super) fn enter(_: &Path) -> anyhow::Result<()> {
        anyhow::bail!("a cluster runs on Linux")
    }
}

/// Runs one of the system's programs to its success.
async fn run(line: &[&str]) -> anyhow::Result<()> {
    let (program, args) = line.split_first().context("a command has a program")?;
    let output = Command::new(program).args(args).output().await;
    let output = output.with_context(|| format!("{program} cannot be started: it is of util-linux or iproute2"))?;
    if !output.status.success() {
        bail!("{}: {}", line.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
