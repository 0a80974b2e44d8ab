//! The binary: `wingbeat --help`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use wingbeat_controller::verb::Verb as Command;

use crate::log::Form;

mod bootstrap;
mod check;
mod client;
mod completion;
mod controller;
mod crds;
mod daemon;
mod demo;
mod files;
mod log;
mod manual;
mod matching;
mod names;
mod output;
mod plan;
mod release;
mod replay;
mod schema;
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
    /// Runs the control plane of a Kubernetes cluster
    Controller(controller::Args),
    /// Lets Canaries of a cluster go, and leaves what serves: before the controller is taken away
    ///
    /// Primaries and Services belong to nobody after that, and the finalizer that holds each Canary is taken off: Canaries and
    /// their definitions can be deleted, and nothing that serves goes with them. Stop the controller first: one that runs takes
    /// them over again.
    Release(release::Args),
    /// Prints an Envoy's bootstrap
    Bootstrap(bootstrap::Args),
    /// Says everything that is wrong with documents
    Check(check::Args),
    /// Says which arm requests would take, and by which rule
    Match(matching::Args),
    /// Says before a rollout how long it takes, and what is caught how soon
    Plan(plan::Args),
    /// Runs the judge over a recording
    Replay(replay::Args),
    /// Lists canaries
    #[command(after_help = "Example: wingbeat get -A")]
    Get(client::ShowArgs),
    /// Shows everything about canaries
    #[command(after_help = "Example: wingbeat describe prod/backend")]
    Describe(client::ShowArgs),
    /// Lists canaries whenever they change
    #[command(after_help = "Example: wingbeat watch prod/backend --output json")]
    Watch(client::ShowArgs),
    /// Lists events
    #[command(after_help = "Example: wingbeat events prod/backend --follow")]
    Events(client::EventsArgs),
    /// Says how a rollout stands; with --wait, how it ended
    #[command(after_help = "Example: wingbeat status prod/backend --wait=10m --revision 1.4.1")]
    Status(client::StatusArgs),
    /// Prints the JSON schema of documents, for editors
    Schema(schema::Args),
    /// Prints the CustomResourceDefinitions of a cluster, for kubectl
    Crds(crds::Args),
    /// Prints completions for a shell
    #[command(after_help = "Example: wingbeat completion bash > /etc/bash_completion.d/wingbeat")]
    Completion(completion::Args),
    /// Writes man pages, one for each verb, into a folder
    #[command(after_help = "Example: wingbeat man /usr/local/share/man/man1")]
    Man(manual::Args),
    /// Lists proxies: what each holds, refuses and reports
    #[command(after_help = "Example: wingbeat proxies --output json")]
    Proxies(client::ProxiesArgs),
    /// Freezes the share of a canary; harm is still acted on
    #[command(after_help = "Example: wingbeat pause prod/backend")]
    Pause(client::CommandArgs),
    /// Ends a pause
    #[command(after_help = "Example: wingbeat resume prod/backend")]
    Resume(client::CommandArgs),
    /// Opens the gate that waits
    #[command(after_help = "Example: wingbeat approve prod/backend")]
    Approve(client::CommandArgs),
    /// Ends a rollout: back to the primary
    #[command(after_help = "Example: wingbeat abort prod/backend --id incident-17")]
    Abort(client::CommandArgs),
    /// Skips the remaining steps of a rollout, not readiness
    #[command(after_help = "Example: wingbeat promote prod/backend")]
    Promote(client::CommandArgs),
    /// Starts a failed rollout again
    #[command(after_help = "Example: wingbeat retry prod/backend")]
    Retry(client::CommandArgs),
}

/// A server tells what it does; other verbs say what they have to say themselves.
fn begin_log(verb: &Verb) {
    if let Verb::Serve(serve::Args { log_format, .. }) = verb {
        log::begin(Form::of(*log_format, false), "info");
    } else if let Verb::Controller(controller::Args { log_format, flagger_api, .. }) = verb {
        log::begin(Form::of(*log_format, *flagger_api), "info");
    } else {
        log::begin(Form::Text, "error");
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    begin_log(&cli.verb);
    if let Verb::Serve(_) | Verb::Controller(_) = cli.verb {
        daemon::allocator::configure();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(async {
            match cli.verb {
                Verb::Demo(args) => demo::run(args).await,
                Verb::Serve(args) => serve::run(args).await,
                Verb::Controller(args) => controller::run(args).await,
                Verb::Release(args) => release::run(args).await,
                Verb::Bootstrap(args) => bootstrap::run(args),
                Verb::Check(args) => check::run(&args).await,
                Verb::Match(args) => matching::run(&args),
                Verb::Plan(args) => plan::run(&args),
                Verb::Replay(args) => replay::run(&args),
                Verb::Get(args) => client::get(args).await,
                Verb::Describe(args) => client::describe(args).await,
                Verb::Watch(args) => client::watch(args).await,
                Verb::Events(args) => client::events(args).await,
                Verb::Proxies(args) => client::proxies(args).await,
                Verb::Status(args) => client::status(args).await,
                Verb::Schema(args) => schema::print(&args),
                Verb::Crds(args) => crds::print(&args),
                Verb::Completion(args) => completion::print::<Cli>(&args),
                Verb::Man(args) => manual::write::<Cli>(&args),
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
        Err(error) if error.is::<output::Unread>() => output::Unread::exit_code(),
        Err(error) => {
            let _nobody_reads = output::complain(&format!("wingbeat: {error:#}"));
            if error.is::<output::Wrong>() { output::Outcome::BadInput.into() } else { ExitCode::FAILURE }
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    /// Divides a line as a shell does, as far as examples need it.
    fn words(line: &str) -> Vec<String> {
        let parts = line.split('\'').enumerate();
        let words = parts.flat_map(|(place, part)| {
            if place % 2 == 1 { vec![part.to_owned()] } else { part.split_whitespace().map(str::to_owned).collect() }
        });
        // What is printed goes to a file.
        words.take_while(|word| word != ">").collect()
    }

    fn walk(command: &clap::Command, path: &str) {
        for verb in command.get_subcommands() {
            let path = format!("{path} {}", verb.get_name());
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            let example = help.lines().find_map(|line| line.strip_prefix("Example: "));
            let example = example.unwrap_or_else(|| panic!("{path} --help shows no example"));
            assert!(example.starts_with(&format!("{path} ")), "{path}: {example}");
            if let Err(error) = Cli::try_parse_from(words(example)) {
                panic!("{path}: its example is wrong: {error}");
            }
            walk(verb, &path);
        }
    }

    #[test]
    fn the_help_of_every_verb_shows_an_example_that_is_right() {
        let command = Cli::command();
        assert!(command.get_subcommands().count() > 10);
        walk(&command, "wingbeat");
    }

    /// What people copy from pages is understood.
    #[test]
    fn commands_in_pages_are_right() {
        let mut found = 0;
        for page in ["README.md", "docs/documents.md", "docs/tutorial.md", "docs/operating.md"] {
            let text = std::fs::read_to_string(format!("{}/../{page}", env!("CARGO_MANIFEST_DIR"))).unwrap();
            let blocks = text.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("console\n"));
            for line in blocks.flat_map(str::lines) {
                let line = line.replace("cargo run --release --", "wingbeat");
                let command = [" &", " > ", " 2> "]
                    .into_iter()
                    .filter_map(|end| Some(line.split_once(end)?.0))
                    .min_by_key(|it| it.len());
                let command = command.unwrap_or(&line);
                if command.starts_with("wingbeat ") {
                    found += 1;
                    if let Err(error) = Cli::try_parse_from(words(command)) {
                        panic!("{page}: {command}: {error}");
                    }
                }
            }
        }
        assert!(found > 25, "{found} commands");
    }
}
