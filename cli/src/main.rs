//! The binary: `wingbeat --help`.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use wingbeat_controller::handle::Verb as Command;

mod bootstrap;
mod check;
mod client;
mod demo;
mod files;
mod matching;
mod names;
mod output;
mod replay;
mod serve;

/// Progressive delivery judged in the data path.
#[derive(Debug, Parser)]
#[command(name = "wingbeat", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Shows the main job: a broken canary leaves a real Envoy in under a second
    Demo(demo::Args),
    /// Runs the control plane for plain Envoys, from files
    Serve(serve::Args),
    /// Prints an Envoy's bootstrap
    Bootstrap(bootstrap::Args),
    /// Says everything that is wrong with documents
    Check(check::Args),
    /// Says which arm requests would take, and by which rule
    Match(matching::Args),
    /// Runs the judge over a recording
    Replay(replay::Args),
    /// Lists canaries
    Get(client::ShowArgs),
    /// Shows everything about canaries
    Describe(client::ShowArgs),
    /// Lists canaries whenever they change
    Watch(client::ShowArgs),
    /// Lists events
    Events(client::EventsArgs),
    /// Freezes the share of a canary; harm is still acted on
    Pause(client::CommandArgs),
    /// Ends a pause
    Resume(client::CommandArgs),
    /// Opens the gate that waits
    Approve(client::CommandArgs),
    /// Ends a rollout: back to the primary
    Abort(client::CommandArgs),
    /// Skips the remaining steps of a rollout, not readiness
    Promote(client::CommandArgs),
    /// Starts a failed rollout again
    Retry(client::CommandArgs),
}

/// A server tells what it does; other verbs say what they have to say themselves.
fn begin_log(verb: &Verb) {
    let (format, level) =
        if let Verb::Serve(args) = verb { (args.log_format, "info") } else { (serve::LogFormat::Text, "error") };
    let filter = EnvFilter::try_from_env("WINGBEAT_LOG").unwrap_or_else(|_| level.into());
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    match format {
        serve::LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).init(),
        serve::LogFormat::Json => log.json().flatten_event(true).init(),
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    begin_log(&cli.verb);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(async {
            match cli.verb {
                Verb::Demo(args) => demo::run(args).await,
                Verb::Serve(args) => serve::run(args).await,
                Verb::Bootstrap(args) => bootstrap::run(args),
                Verb::Check(args) => check::run(&args).await,
                Verb::Match(args) => matching::run(&args),
                Verb::Replay(args) => replay::run(&args),
                Verb::Get(args) => client::get(args).await,
                Verb::Describe(args) => client::describe(args).await,
                Verb::Watch(args) => client::watch(args).await,
                Verb::Events(args) => client::events(args).await,
                Verb::Pause(args) => client::command(Command::Pause, args).await,
                Verb::Resume(args) => client::command(Command::Resume, args).await,
                Verb::Approve(args) => client::command(Command::Approve, args).await,
                Verb::Abort(args) => client::command(Command::Abort, args).await,
                Verb::Promote(args) => client::command(Command::Promote, args).await,
                Verb::Retry(args) => client::command(Command::Retry, args).await,
            }
        }),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            let _nobody_reads = output::complain(&format!("wingbeat: {error:#}"));
            if error.is::<output::Wrong>() { output::Outcome::BadInput.into() } else { ExitCode::FAILURE }
        }
    }
}
