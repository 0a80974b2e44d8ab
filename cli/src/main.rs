//! The binary: `wingbeat --help`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod demo;
mod output;

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
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_env("WINGBEAT_LOG").unwrap_or_else(|_| "error".into()))
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(async {
            match cli.verb {
                Verb::Demo(args) => demo::run(args).await,
            }
        }),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            let _nobody_reads = output::complain(&format!("wingbeat: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
