//! A cluster to look at: `cargo xtask kube`.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use wingbeat_test_cluster::{Binaries, Cluster, Options};

#[derive(Debug, Parser)]
#[command(name = "wingbeat-test-cluster", about = "A real Kubernetes without containers")]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Says why there can be no cluster here, if so
    Check,
    /// Builds the programs, and nothing else
    Build,
    /// Starts a cluster and keeps it until Ctrl-C; done if no verb is named
    Up {
        /// An image and the program of its containers: `IMAGE=PATH`
        #[arg(long = "image", value_parser = image)]
        images: Vec<(String, PathBuf)>,
        /// Gives Pods the token of their service account
        #[arg(long)]
        account_tokens: bool,
    },
    /// Runs a command in the network of the cluster that was started last, with its kubeconfig
    Exec {
        /// The command and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

fn main() -> ExitCode {
    let verb = Cli::parse().verb.unwrap_or(Verb::Up { images: Vec::new(), account_tokens: false });
    // The thread that starts the cluster's programs is another one: this one only waits.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.context("no runtime").and_then(|runtime| runtime.block_on(run(verb)));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _nobody_reads = writeln!(std::io::stderr().lock(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(verb: Verb) -> anyhow::Result<()> {
    match verb {
        Verb::Check => Binaries::prerequisites().await,
        Verb::Build => build_all().await,
        Verb::Up { images, account_tokens } => up(images, account_tokens).await,
        Verb::Exec { command } => exec(&command).await,
    }
}

fn image(text: &str) -> Result<(String, PathBuf), String> {
    let (image, program) = text.split_once('=').ok_or("it is IMAGE=PATH")?;
    Ok((image.to_owned(), program.into()))
}

fn say(text: &str) {
    let _nobody_reads = writeln!(std::io::stdout().lock(), "{text}");
}

/// Builds the programs of a cluster, and those that tests run in one.
async fn build_all() -> anyhow::Result<()> {
    let helm = build().await?.helm().await?;
    say(&format!("helm: {}", helm.display()));
    Ok(())
}

async fn build() -> anyhow::Result<Binaries> {
    let binaries = Binaries::ensure(&say).await?;
    say(&format!("programs: {}", binaries.folder().display()));
    Ok(binaries)
}

async fn up(images: Vec<(String, PathBuf)>, has_account_tokens: bool) -> anyhow::Result<()> {
    let mut options = Options { has_account_tokens, ..Options::default() };
    for (image, program) in images {
        let program = program.canonicalize().with_context(|| format!("there is no {}", program.display()))?;
        options.images = options.images.with(&image, program);
    }
    // Whoever ends this meanwhile ends what it has started: all of it dies with the thread that started it.
    Binaries::prerequisites().await?;
    let binaries = build().await?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let cluster = tokio::select! {
        started = Cluster::start(options) => started?,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    };
    let (file, namespace) = (running(&binaries)?, cluster.namespace().path().display());
    let described = json!({
        "namespace": cluster.namespace().path(),
        "kubeconfig": cluster.kubeconfig(),
        "programs": binaries.folder(),
    });
    std::fs::write(&file, described.to_string()).with_context(|| format!("cannot write {}", file.display()))?;
    say(&format!("kubeconfig: {}", cluster.kubeconfig().display()));
    say("in another shell: cargo xtask kube exec -- kubectl get pods --all-namespaces");
    say(&format!("or a shell in its network: nsenter --net={namespace} -- $SHELL"));
    say("Ctrl-C ends it");
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    let _was_replaced = std::fs::remove_file(&file);
    cluster.stop()
}

async fn exec(line: &[String]) -> anyhow::Result<()> {
    let binaries = Binaries::ensure(&say).await?;
    let file = running(&binaries)?;
    let none = "no cluster runs: start one by cargo xtask kube";
    let text = std::fs::read_to_string(&file).context(none)?;
    let described: Value = serde_json::from_str(&text).with_context(|| format!("{} is broken", file.display()))?;
    let path = |name: &str| described.get(name).and_then(Value::as_str).map(PathBuf::from).context(none);
    let (namespace, kubeconfig) = (path("namespace")?, path("kubeconfig")?);
    if !namespace.exists() {
        bail!("{none}");
    }
    let (program, args) = line.split_first().context("no command")?;
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::env::join_paths([path("programs")?].into_iter().chain(std::env::split_paths(&paths)))?;
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", namespace.display())).arg("--").arg(program).args(args);
    Err(command.env("KUBECONFIG", kubeconfig).env("PATH", paths).exec()).context("nsenter is of util-linux")
}

/// Returns the file that describes the cluster that was started last.
fn running(binaries: &Binaries) -> anyhow::Result<PathBuf> {
    let parent = Path::new(binaries.folder()).parent().context("the programs lie in a folder")?;
    Ok(parent.join("running.json"))
}
