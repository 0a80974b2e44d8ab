//! The programs of a cluster: found, or built from their Go modules.
//!
//! The modules lie in `go/` with their `go.sum`: what is built is what was committed, wherever it is downloaded from.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::process::Command;

/// The version of Kubernetes: that of `go/kubernetes/go.mod`, and a folder below `target/kubernetes`.
pub const KUBERNETES: &str = "1.36.3";
/// The environment variable that names a folder with all programs, which are then taken as they are.
const ASSETS: &str = "KUBEBUILDER_ASSETS";
/// Time for one program to be built, modules being downloaded: minutes on two cores, more on a busy machine.
const BUILD_TIMEOUT: Duration = Duration::from_hours(1);
/// How often it is looked whether another process has built the programs.
const LOCK_INTERVAL: Duration = Duration::from_millis(500);
/// The packages that hold Kubernetes' version: clients refuse a server without one, and are known by theirs.
const VERSION_PACKAGES: [&str; 2] = ["k8s.io/component-base/version", "k8s.io/client-go/pkg/version"];
/// Installs charts. It is no part of a cluster: it is built by the test that needs it.
const HELM: Program = Program { name: "helm", module: "helm", package: "helm.sh/helm/v4/cmd/helm" };
/// What a cluster needs of the system: iproute2 and util-linux.
const SYSTEM_PROGRAMS: [&str; 4] = ["ip", "mount", "nsenter", "setpriv"];

/// A program and where it comes from.
struct Program {
    name: &'static str,
    /// A folder below `go`.
    module: &'static str,
    package: &'static str,
}

/// The one that takes longest comes first: others share what it consists of.
const PROGRAMS: [Program; 5] = [
    Program { name: "kube-apiserver", module: "kubernetes", package: "k8s.io/kubernetes/cmd/kube-apiserver" },
    Program {
        name: "kube-controller-manager",
        module: "kubernetes",
        package: "k8s.io/kubernetes/cmd/kube-controller-manager",
    },
    Program { name: "kubelet", module: "kubernetes", package: "k8s.io/kubernetes/cmd/kubelet" },
    Program { name: "kubectl", module: "kubernetes", package: "k8s.io/kubernetes/cmd/kubectl" },
    Program { name: "etcd", module: "etcd", package: "go.etcd.io/etcd/server/v3" },
];

/// The folder with the programs of a cluster.
#[derive(Debug, Clone)]
pub struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// Finds the programs, or builds those that are missing, which takes minutes, and says what it does.
    pub async fn ensure(say: &dyn Fn(&str)) -> anyhow::Result<Self> {
        if let Some(given) = given()? {
            return Ok(given);
        }
        let this = Self { folder: cache()? };
        if this.missing().is_empty() {
            return Ok(this);
        }
        go_runs().await?;
        std::fs::create_dir_all(&this.folder).with_context(|| format!("cannot create {}", this.folder.display()))?;
        let _lock = lock(&this.folder.join("lock")).await?;
        // Whoever had the lock may have built them.
        for program in this.missing() {
            say(&format!("building {} into {}", program.name, this.folder.display()));
            this.build(program).await.with_context(|| format!("cannot build {}", program.name))?;
        }
        Ok(this)
    }

    /// Fails where there can be no cluster, and says why: not Linux, not root, a program of the system is not there, or neither
    /// are the binaries nor what it takes to build them.
    pub async fn prerequisites() -> anyhow::Result<()> {
        if !cfg!(target_os = "linux") || !rustix::process::geteuid().is_root() {
            bail!("a cluster runs on Linux, as root");
        }
        for program in SYSTEM_PROGRAMS {
            let found = Command::new(program).arg("--version").stdin(Stdio::null()).output().await;
            found.with_context(|| format!("a cluster needs the program {program} (iproute2, util-linux)"))?;
        }
        if given()?.is_none() && !(Self { folder: cache()? }).missing().is_empty() {
            go_runs().await?;
        }
        Ok(())
    }

    /// Returns the folder that they are in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn missing(&self) -> Vec<&'static Program> {
        PROGRAMS.iter().filter(|program| !self.folder.join(program.name).is_file()).collect()
    }

    /// Returns helm. It is built if need be, which takes minutes.
    pub async fn helm(&self) -> anyhow::Result<PathBuf> {
        // A folder that was given may have it, and is not written to.
        let folders = [Self { folder: self.folder.clone() }, Self { folder: cache()? }];
        if let Some(found) = folders.iter().map(|of| of.folder.join(HELM.name)).find(|path| path.is_file()) {
            return Ok(found);
        }
        let [_, of] = folders;
        std::fs::create_dir_all(&of.folder).with_context(|| format!("cannot create {}", of.folder.display()))?;
        let _lock = lock(&of.folder.join("lock")).await?;
        let path = of.folder.join(HELM.name);
        if !path.is_file() {
            of.build(&HELM).await.context("cannot build helm")?;
        }
        Ok(path)
    }

    async fn build(&self, program: &Program) -> anyhow::Result<()> {
        // Built aside and moved into place: what is in the folder is whole.
        let aside = tempfile::tempdir_in(&self.folder)?;
        let built = aside.path().join(program.name);
        let mut go = go(program.module);
        go.args(["build", "-mod=readonly", "-trimpath", "-ldflags", &linker_flags()]);
        go.arg("-o").arg(&built).arg(program.package);
        let output = tokio::time::timeout(BUILD_TIMEOUT, go.output()).await;
        let output =
            output.with_context(|| format!("not within {BUILD_TIMEOUT:?}"))?.context("go cannot be started")?;
        if !output.status.success() {
            bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
        }
        std::fs::rename(&built, self.folder.join(program.name))?;
        Ok(())
    }
}

/// Returns the folder that the environment names. It is an error if a program is missing there.
fn given() -> anyhow::Result<Option<Binaries>> {
    let Some(folder) = std::env::var_os(ASSETS) else { return Ok(None) };
    let given = Binaries { folder: folder.into() };
    let missing: Vec<&str> = given.missing().iter().map(|program| program.name).collect();
    if !missing.is_empty() {
        bail!("{ASSETS} is {}, where there is no {}", given.folder.display(), missing.join(", no "));
    }
    Ok(Some(given))
}

/// Returns Go, to be run in a module.
fn go(module: &str) -> Command {
    let mut go = Command::new("go");
    go.current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("go").join(module));
    go.env("CGO_ENABLED", "0").env("GOWORK", "off").stdin(Stdio::null()).kill_on_drop(true);
    go
}

/// Fails if there is no Go, or none that can build the modules.
async fn go_runs() -> anyhow::Result<()> {
    let wanted = "Kubernetes is built from its Go modules: install Go 1.26 or later (https://go.dev/dl), or name a folder \
                  with the programs in KUBEBUILDER_ASSETS";
    // It reads go.mod, which names the version that is needed, and downloads nothing.
    let output = go("kubernetes").args(["list", "-m"]).output().await.context(wanted)?;
    if !output.status.success() {
        bail!("{wanted}; {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

/// Returns what is written into the programs.
fn linker_flags() -> String {
    let mut parts = KUBERNETES.split('.');
    let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let stamps = [
        ("gitVersion", format!("v{KUBERNETES}")),
        ("gitMajor", major.to_owned()),
        ("gitMinor", minor.to_owned()),
        ("gitTreeState", "clean".to_owned()),
    ];
    let of = |package: &str| stamps.each_ref().map(|(name, value)| format!(" -X {package}.{name}={value}")).concat();
    format!("-s -w{}", VERSION_PACKAGES.map(of).concat())
}

/// Waits until nobody else builds.
async fn lock(path: &Path) -> anyhow::Result<File> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let deadline = tokio::time::Instant::now() + BUILD_TIMEOUT;
    let mut interval = tokio::time::interval(LOCK_INTERVAL);
    loop {
        interval.tick().await;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if tokio::time::Instant::now() < deadline => {}
            Err(TryLockError::WouldBlock) => bail!("another process builds for longer than {BUILD_TIMEOUT:?}"),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
    }
}

/// Returns where the programs are kept: below cargo's target folder, in which this program lies.
fn cache() -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe().context("the program does not know where it lies")?;
    let target = program.ancestors().skip(1).find(|folder| folder.join("CACHEDIR.TAG").is_file());
    let target = target.with_context(|| format!("{} lies in no target folder of cargo's", program.display()))?;
    Ok(target.join("kubernetes").join(KUBERNETES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_modules() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("go");
        let modules = std::fs::read_to_string(folder.join("kubernetes/go.mod")).unwrap();
        assert!(modules.contains(&format!("require k8s.io/kubernetes v{KUBERNETES}\n")));
        for program in PROGRAMS.iter().chain([&HELM]) {
            let tools = std::fs::read_to_string(folder.join(program.module).join("tools.go")).unwrap();
            assert!(tools.contains(&format!("_ \"{}\"", program.package)), "{}", program.name);
        }
        for package in VERSION_PACKAGES {
            assert!(linker_flags().contains(&format!(" -X {package}.gitVersion=v1.36.3")));
        }
        assert!(linker_flags().contains("gitMajor=1 ") && linker_flags().contains("gitMinor=36 "));
    }

    #[tokio::test]
    async fn a_folder_is_locked_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let held = lock(&path).await.unwrap();
        let second = tokio::time::timeout(LOCK_INTERVAL, lock(&path)).await;
        assert!(second.is_err(), "it waits");
        drop(held);
        lock(&path).await.unwrap();
    }
}
