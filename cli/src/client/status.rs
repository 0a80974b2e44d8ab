//! `wingbeat status`: how a rollout stands and, for scripts, how it ended.

use std::time::Duration;

use serde_json::Value;
use wingbeat_control::view::CanaryView;

use super::api::{Client, lenient};
use super::args::{Name, POLL_INTERVAL, ServerArgs};
use super::follow::Outage;
use crate::demo::duration;
use crate::output::{Format, Outcome, complain, emit, print_line};

/// Which rollout, and how long it is waited for.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    /// The canary
    #[arg(value_name = "NAMESPACE/NAME")]
    name: Name,
    /// Waits until the rollout is over, at most for so long; 0, or no time: however long it takes. Ends with 0 if it was
    /// promoted, 1 if it failed, was rolled back or taken back, 3 if it is not over
    #[arg(
        long,
        value_name = "TIMEOUT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "0",
        value_parser = duration
    )]
    wait: Option<Duration>,
    /// The revision that is rolled out: without it, whatever is on its way, and a change that was written a moment ago may
    /// not have been seen yet
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// text, json or yaml
    #[arg(short, long, default_value = "text")]
    output: Format,
    #[command(flatten)]
    server: ServerArgs,
}

/// Prints how a rollout stands; with `--wait`, each time that it is another way, until it is over.
pub(crate) async fn status(args: StatusArgs) -> anyhow::Result<Outcome> {
    let client = Client::new(&args.server)?;
    let mut rollout = Rollout { expected: args.revision.clone(), judged: None };
    let Some(timeout) = args.wait else {
        let canary = lint(&client, &args.name).await?;
        let view = known(&canary)?;
        show(&args, &canary, &line(&view))?;
        return Ok(rollout.stands(&view).outcome());
    };
    let over = follow(&client, &args, rollout);
    if timeout.is_zero() {
        return over.await;
    }
    match tokio::time::timeout(timeout, over).await {
        Ok(outcome) => outcome,
        Err(_) => {
            complain(&format!("not over within {timeout:?}"))?;
            Ok(Outcome::NotInTime)
        }
    }
}

async fn follow(client: &Client, args: &StatusArgs, mut rollout: Rollout) -> anyhow::Result<Outcome> {
    let (mut outage, mut shown) = (Outage::default(), String::new());
    let mut tick = tokio::time::interval(POLL_INTERVAL);
    loop {
        tick.tick().await;
        let canary = match lint(client, &args.name).await {
            Ok(canary) => canary,
            Err(error) => {
                outage.outlast(error, "its rollout may go on").await?;
                continue;
            }
        };
        outage.over();
        let view = known(&canary)?;
        let stands = rollout.stands(&view);
        let line = line(&view);
        if line != shown && (args.output == Format::Text || stands != Standing::Open) {
            show(args, &canary, &line)?;
            shown = line;
        }
        if stands != Standing::Open {
            return Ok(stands.outcome());
        }
    }
}

async fn lint(client: &Client, name: &Name) -> anyhow::Result<Value> {
    client.get(&format!("/api/v1/canaries/{}/{}", name.namespace, name.name)).await
}

fn known(canary: &Value) -> anyhow::Result<CanaryView> {
    match lenient(canary) {
        (Some(view), _) => Ok(view),
        (None, told) => anyhow::bail!("the server is of another version ({})", told.unwrap_or_default()),
    }
}

fn show(args: &StatusArgs, canary: &Value, line: &str) -> anyhow::Result<()> {
    match args.output {
        Format::Text => print_line(line),
        Format::Json | Format::Yaml => emit(args.output, canary),
    }
}

/// Returns how a rollout stands, for a person.
fn line(canary: &CanaryView) -> String {
    let CanaryView { namespace, name, phase, weight, primary_revision, .. } = canary;
    let of_canary = canary.canary_revision.as_ref().filter(|revision| *revision != primary_revision);
    let promoted = canary.conditions.iter().find(|condition| condition.kind == "Promoted");
    let ended = promoted.filter(|condition| condition.status == "False").map(|condition| condition.message.as_str());
    let judged = canary.verdict.as_ref().filter(|_| canary.is_judged()).map(|verdict| verdict.reason.as_str());
    let revisions = match of_canary {
        Some(revision) => format!("revision {revision} at {weight} %, {primary_revision} is the primary"),
        None => format!("revision {primary_revision}"),
    };
    let why = ended.or(judged).map(|why| format!(": {why}")).unwrap_or_default();
    format!("{namespace}/{name} {phase}, {revisions}{why}")
}

/// How a rollout stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It is on its way, or has not begun.
    Open,
    /// Its revision is the primary.
    Promoted,
    /// It failed, was rolled back, or its revision is not asked for any more.
    NotPromoted,
}

impl Standing {
    const fn outcome(self) -> Outcome {
        match self {
            Self::Open => Outcome::NotInTime,
            Self::Promoted => Outcome::Done,
            Self::NotPromoted => Outcome::Unmet,
        }
    }
}

/// A rollout, as it is seen time and again.
#[derive(Debug, Default)]
struct Rollout {
    /// The revision that has to become the primary; `None` for whatever is on its way.
    expected: Option<String>,
    /// The revision that was under judgement when it was seen last.
    judged: Option<String>,
}

impl Rollout {
    fn stands(&mut self, canary: &CanaryView) -> Standing {
        let primary = &canary.primary_revision;
        match canary.phase.as_str() {
            "Initialized" | "Succeeded" => match (&self.expected, &self.judged) {
                (Some(expected), _) if expected == primary => Standing::Promoted,
                // It was on its way, and something else serves.
                (Some(expected), Some(judged)) if expected == judged => Standing::NotPromoted,
                (Some(_), _) => Standing::Open,
                (None, Some(judged)) if judged != primary => Standing::NotPromoted,
                (None, _) => Standing::Promoted,
            },
            "Failed" => match &self.expected {
                Some(expected) if canary.canary_revision.as_ref() != Some(expected) => Standing::Open,
                Some(_) | None => Standing::NotPromoted,
            },
            _ => {
                let before = self.judged.take();
                self.judged = canary.canary_revision.clone().or_else(|| before.clone());
                // It was on its way, and another one took its place.
                let is_replaced = self.expected.is_some() && before == self.expected && self.judged != before;
                if is_replaced { Standing::NotPromoted } else { Standing::Open }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(phase: &str, primary: &str, canary: Option<&str>) -> CanaryView {
        CanaryView {
            namespace: "prod".to_owned(),
            name: "backend".to_owned(),
            phase: phase.to_owned(),
            primary_revision: primary.to_owned(),
            canary_revision: canary.map(str::to_owned),
            ..CanaryView::default()
        }
    }

    #[test]
    fn a_rollout_is_over_when_its_revision_serves_or_will_not() {
        use Standing::{NotPromoted, Open, Promoted};
        // Expected revision, what is seen in turn, and how it stands after the last of them.
        for (expected, seen, stands) in [
            (None, &[("Initialized", "1", None)][..], Promoted),
            (None, &[("Progressing", "1", Some("2"))], Open),
            (None, &[("Progressing", "1", Some("2")), ("Finalising", "2", None)], Open),
            (None, &[("Progressing", "1", Some("2")), ("Finalising", "2", None), ("Succeeded", "2", None)], Promoted),
            (None, &[("Progressing", "1", Some("2")), ("Failed", "1", Some("2"))], NotPromoted),
            (None, &[("Waiting", "1", Some("2")), ("Initialized", "1", None)], NotPromoted),
            // Another revision took its place.
            (
                None,
                &[("Progressing", "1", Some("2")), ("Progressing", "1", Some("3")), ("Succeeded", "3", None)],
                Promoted,
            ),
            // It has not begun.
            (Some("2"), &[("Initialized", "1", None)], Open),
            (Some("2"), &[("Failed", "1", Some("3"))], Open),
            (Some("2"), &[("Succeeded", "2", None)], Promoted),
            (Some("2"), &[("Failed", "1", Some("2"))], NotPromoted),
            (Some("2"), &[("Progressing", "1", Some("2")), ("Succeeded", "1", None)], NotPromoted),
            (Some("2"), &[("Progressing", "1", Some("3")), ("Succeeded", "3", None)], Open),
            (Some("2"), &[("Progressing", "1", Some("2")), ("Progressing", "1", Some("3"))], NotPromoted),
            (
                Some("2"),
                &[("Progressing", "1", Some("2")), ("Finalising", "2", None), ("Succeeded", "2", None)],
                Promoted,
            ),
            // Of another version.
            (None, &[("Resting", "1", None)], Open),
        ] {
            let mut rollout = Rollout { expected: expected.map(str::to_owned), judged: None };
            let last =
                seen.iter().map(|(phase, primary, canary)| rollout.stands(&view(phase, primary, *canary))).last();
            assert_eq!(last, Some(stands), "{expected:?} {seen:?}");
        }
    }

    #[test]
    fn a_line_says_what_serves_and_what_does_not() {
        assert_eq!(line(&view("Succeeded", "2", Some("2"))), "prod/backend Succeeded, revision 2");
        let progressing = CanaryView { weight: 12.5, ..view("Progressing", "1", Some("2")) };
        assert_eq!(line(&progressing), "prod/backend Progressing, revision 2 at 12.5 %, 1 is the primary");
    }
}
