//! `get`, `describe`, `watch`, `events`, `status` and the commands: what a person asks of a running server.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::Value;
use wingbeat_api::RefusedFileView;
use wingbeat_control::view::EventView;
use wingbeat_controller::verb::Verb;

use crate::output::{Format, Outcome, complain, emit, print};

pub(crate) use proxies::{ProxiesArgs, proxies};
pub(crate) use status::{StatusArgs, status};

use api::{Client, Refused, lenient};
use args::POLL_INTERVAL;
pub(crate) use args::{Name, ServerArgs};
use follow::Outage;
use shown::{description, known, summary};

mod api;
mod args;
mod follow;
mod proxies;
mod shown;
mod status;

/// A canary is printed anew when one of these fields is another one.
const CHANGES: [&str; 7] = ["phase", "weight", "iterations", "rev", "failed_checks", "paused", "conditions"];

/// Which canaries, and how they are shown.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    /// The canary; all of them if left out
    #[arg(value_name = "NAMESPACE/NAME")]
    name: Option<Name>,
    /// Shows the namespace of each
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// text, json or yaml
    #[arg(short, long, default_value = "text")]
    output: Format,
    #[command(flatten)]
    server: ServerArgs,
}

/// Which canary's events.
#[derive(Debug, Args)]
pub(crate) struct EventsArgs {
    /// The canary; all of them if left out
    #[arg(value_name = "NAMESPACE/NAME")]
    name: Option<Name>,
    /// Goes on with events as they come
    #[arg(short, long)]
    follow: bool,
    /// text, json or yaml
    #[arg(short, long, default_value = "text")]
    output: Format,
    #[command(flatten)]
    server: ServerArgs,
}

/// A command to one canary.
#[derive(Debug, Args)]
pub(crate) struct CommandArgs {
    /// The canary
    #[arg(value_name = "NAMESPACE/NAME")]
    name: Name,
    /// Makes repeating the command harmless; random if left out
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Prints the canaries as a table, a line each.
pub(crate) async fn get(args: ShowArgs) -> anyhow::Result<Outcome> {
    let client = Client::new(&args.server)?;
    let canaries = canaries(&client, args.name.as_ref()).await?;
    match args.output {
        Format::Text => print(&summary(&known(&canaries)?, args.all_namespaces, true))?,
        Format::Json | Format::Yaml => emit(args.output, &canaries)?,
    }
    Ok(Outcome::Done)
}

/// Prints all that is known of the canaries, with their events.
pub(crate) async fn describe(args: ShowArgs) -> anyhow::Result<Outcome> {
    let client = Client::new(&args.server)?;
    let canaries = canaries(&client, args.name.as_ref()).await?;
    if args.output != Format::Text {
        emit(args.output, &canaries)?;
        return Ok(Outcome::Done);
    }
    if args.name.is_none() {
        print(&refused_files(&client.list("/api/v1/refused-files").await?))?;
    }
    for canary in &known(&canaries)? {
        let path = format!("/api/v1/events?namespace={}&name={}", canary.namespace, canary.name);
        let events = client.list(&path).await?;
        let events: Vec<EventView> = events.iter().filter_map(|event| lenient(event).0).collect();
        print(&description(canary, &events))?;
    }
    Ok(Outcome::Done)
}

fn refused_files(files: &[Value]) -> String {
    let files = files.iter().filter_map(|file| lenient::<RefusedFileView>(file).0);
    let problems: Vec<String> = files.flat_map(|file| file.errors).map(|problem| format!("  {problem}\n")).collect();
    match problems.concat() {
        none if none.is_empty() => none,
        problems => format!("Refused Files (what they said before goes on):\n{problems}"),
    }
}

/// Prints the canaries, and each again whenever it changes, until interrupted.
pub(crate) async fn watch(args: ShowArgs) -> anyhow::Result<Outcome> {
    let client = Client::new(&args.server)?;
    let (mut outage, mut shown, mut first) = (Outage::default(), BTreeMap::new(), true);
    let mut tick = tokio::time::interval(POLL_INTERVAL);
    loop {
        tick.tick().await;
        let canaries = match canaries(&client, args.name.as_ref()).await {
            Ok(canaries) => canaries,
            Err(error) => {
                outage.outlast(error, "changes are shown when it is back").await?;
                continue;
            }
        };
        outage.over();
        let changed: Vec<Value> = canaries
            .into_iter()
            .filter(|canary| {
                let now: Vec<Option<Value>> = CHANGES.iter().map(|field| canary.get(field).cloned()).collect();
                let key = ["namespace", "name"].map(|field| canary.get(field).map(Value::to_string));
                shown.insert(key, now.clone()).as_ref() != Some(&now)
            })
            .collect();
        match args.output {
            _ if changed.is_empty() => continue,
            Format::Text => print(&summary(&known(&changed)?, args.all_namespaces, first))?,
            Format::Json | Format::Yaml => changed.iter().try_for_each(|state| emit(args.output, &told(state)))?,
        }
        first = false;
    }
}

/// Returns a state with what an event has, too: those who read events read states as well.
fn told(state: &Value) -> Value {
    let mut state = state.clone();
    let Some(fields) = state.as_object_mut() else { return state };
    let conditions = fields.get("conditions").and_then(Value::as_array);
    let promoted = conditions.into_iter().flatten().find(|condition| condition.get("type") == Some(&"Promoted".into()));
    let of = |field| promoted.and_then(|condition| condition.get(field)).cloned().unwrap_or_default();
    let kind = if of("status") == "False" { "Warning" } else { "Normal" };
    let (reason, message) = (of("reason"), of("message"));
    let since = fields.get("last_transition_time").cloned().unwrap_or_default();
    for (field, value) in [("t", since), ("type", kind.into()), ("reason", reason), ("message", message)] {
        fields.entry(field).or_insert(value);
    }
    state
}

/// Prints events, oldest first.
pub(crate) async fn events(args: EventsArgs) -> anyhow::Result<Outcome> {
    let client = Client::new(&args.server)?;
    let of_one = args.name.as_ref().map(|name| format!("&namespace={}&name={}", name.namespace, name.name));
    let of_one = of_one.unwrap_or_default();
    let show = |event: &Value| match args.output {
        Format::Text => match lenient::<EventView>(event).0 {
            Some(event) => print(&shown::line(&event)),
            // Of another version, and shown all the same.
            None => print(&format!("{event}\n")),
        },
        Format::Json | Format::Yaml => emit(args.output, event),
    };
    let events = client.list(&format!("/api/v1/events?follow=false{of_one}")).await?;
    if events.is_empty() && args.name.is_some() {
        // There are no events of a canary that is not there, and there never will be.
        canaries(&client, args.name.as_ref()).await?;
    }
    if !args.follow {
        events.iter().try_for_each(show)?;
        return Ok(Outcome::Done);
    }
    let show = |event: &[u8]| match serde_json::from_slice(event) {
        Ok(event) => show(&event),
        Err(error) => complain(&format!("wingbeat: the server sent an event that is no JSON ({error})")),
    };
    follow::follow(&client, &format!("/api/v1/events?follow=true{of_one}"), show).await?;
    Ok(Outcome::Done)
}

/// Sends a command and says whether it was carried out.
pub(crate) async fn command(verb: Verb, args: CommandArgs) -> anyhow::Result<Outcome> {
    let client = Client::new(&args.server)?;
    let id = args.id.unwrap_or_else(random_id);
    let what = format!("{} {}/{}", verb.as_str(), args.name.namespace, args.name.name);
    match client.command(&args.name, verb, &id).await {
        Ok(()) => {
            print(&format!("{what}: done\n"))?;
            return Ok(Outcome::Done);
        }
        Err(refused) if refused.is::<Refused>() => complain(&format!("{what}: {refused}"))?,
        // It may have been carried out.
        Err(error) => complain(&format!("{what}: {error:#}; it acts once however often it is sent with --id {id}"))?,
    }
    Ok(Outcome::Unmet)
}

/// Returns the canaries as the server shows them: the one of this name, or all.
async fn canaries(client: &Client, name: Option<&Name>) -> anyhow::Result<Vec<Value>> {
    match name {
        Some(name) => Ok(vec![client.get(&format!("/api/v1/canaries/{}/{}", name.namespace, name.name)).await?]),
        None => client.list("/api/v1/canaries").await,
    }
}

/// Unique among the commands of a person or a script.
fn random_id() -> String {
    use std::hash::{BuildHasher as _, Hasher as _};
    // Every one is seeded by the system.
    format!("{:016x}", std::collections::hash_map::RandomState::new().build_hasher().finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_two_parts() {
        assert!("prod/backend".parse::<Name>().is_ok());
        for bad in ["backend", "/backend", "prod/", "a/b/c"] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }
}
