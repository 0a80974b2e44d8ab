//! `get`, `describe`, `watch`, `events` and the commands: what a person asks of a running server.

use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use futures::StreamExt as _;
use serde::de::DeserializeOwned;
use wingbeat_controller::handle::Verb;
use wingbeat_controller::http::{CommandBody, ErrorBody};
use wingbeat_controller::view::{ArmView, CanaryView, EventView, RefusedFileView};

use crate::output::{Format, Outcome, complain, emit, print, table};

/// Where the server is.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServerArgs {
    /// Address of the server's HTTP API
    #[arg(long, env = "WINGBEAT_SERVER", default_value = "http://127.0.0.1:8080", value_name = "URL")]
    server: String,
    /// Token for commands, where the server has one
    #[arg(long, env = "WINGBEAT_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
}

/// A canary by name.
#[derive(Debug, Clone)]
pub(crate) struct Name {
    namespace: String,
    name: String,
}

impl Name {
    /// Returns true if these are its parts.
    pub(crate) fn is(&self, namespace: &str, name: &str) -> bool {
        self.namespace == namespace && self.name == name
    }
}

impl std::str::FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            Some(_) | None => Err(format!("{text:?} is not of the form NAMESPACE/NAME, for example prod/backend")),
        }
    }
}

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
    let canaries = fetch(&args).await?;
    match args.output {
        Format::Text => print(&summary(&canaries, args.all_namespaces, true))?,
        Format::Json | Format::Yaml => emit(args.output, &canaries)?,
    }
    Ok(Outcome::Done)
}

/// Prints all that is known of the canaries, with their events.
pub(crate) async fn describe(args: ShowArgs) -> anyhow::Result<Outcome> {
    let canaries = fetch(&args).await?;
    if args.output != Format::Text {
        emit(args.output, &canaries)?;
        return Ok(Outcome::Done);
    }
    let client = Client::new(&args.server)?;
    if args.name.is_none() {
        let refused: Vec<RefusedFileView> = client.get("/api/v1/refused-files").await?;
        let problems = refused.iter().flat_map(|file| &file.errors);
        let problems: Vec<String> = problems.map(|problem| format!("  {problem}\n")).collect();
        let problems = problems.concat();
        if !problems.is_empty() {
            print(&format!("Refused Files (what they said before goes on):\n{problems}"))?;
        }
    }
    for canary in &canaries {
        let path = format!("/api/v1/events?namespace={}&name={}", canary.namespace, canary.name);
        let events: Vec<EventView> = client.get(&path).await?;
        print(&description(canary, &events))?;
    }
    Ok(Outcome::Done)
}

/// Prints a line whenever a canary changes, until interrupted; for scripts, events as they come.
pub(crate) async fn watch(args: ShowArgs) -> anyhow::Result<Outcome> {
    if args.output != Format::Text {
        if args.name.is_some() {
            // Who is not there has no events, and would be waited for in vain.
            fetch(&args).await?;
        }
        let ShowArgs { name, output, server, .. } = args;
        return events(EventsArgs { name, follow: true, output, server }).await;
    }
    let mut shown = std::collections::BTreeMap::new();
    let mut first = true;
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(250));
    loop {
        tick.tick().await;
        let canaries = fetch(&args).await?;
        let changed: Vec<CanaryView> = canaries
            .into_iter()
            .filter(|canary| {
                let now = (
                    canary.phase.clone(),
                    canary.weight.to_bits(),
                    canary.iterations,
                    canary.rev,
                    canary.failed_checks,
                );
                shown.insert((canary.namespace.clone(), canary.name.clone()), now.clone()) != Some(now)
            })
            .collect();
        if changed.is_empty() {
            continue;
        }
        print(&summary(&changed, args.all_namespaces, first))?;
        first = false;
    }
}

/// Prints events, oldest first.
pub(crate) async fn events(args: EventsArgs) -> anyhow::Result<Outcome> {
    let client = Client::new(&args.server)?;
    let mut query = if args.follow { "follow=true".to_owned() } else { String::new() };
    if let Some(name) = &args.name {
        query.extend(["&namespace=", &name.namespace, "&name=", &name.name]);
    }
    let path = format!("/api/v1/events?{query}");
    let show = |event: &EventView| match args.output {
        Format::Text => {
            let EventView { t, kind, namespace, name, .. } = event;
            print(&format!("{t}  {kind:<7}  {namespace}/{name}  {}\n", counted(event)))
        }
        Format::Json | Format::Yaml => emit(args.output, event),
    };
    if !args.follow {
        let events: Vec<EventView> = client.get(&path).await?;
        events.iter().try_for_each(show)?;
        return Ok(Outcome::Done);
    }
    let mut body = client.send(client.http.get(client.url(&path))).await?.bytes_stream();
    let mut buffer = Vec::new();
    while let Some(chunk) = body.next().await {
        buffer.extend_from_slice(&chunk.context("the server went away")?);
        while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = buffer.drain(..=end).collect();
            if let Some(data) = line.strip_prefix(b"data: ") {
                show(&serde_json::from_slice(data).context("the server sent an event that this version cannot read")?)?;
            }
        }
    }
    bail!("the server ended the stream")
}

/// Sends a command and says whether it was carried out.
pub(crate) async fn command(verb: Verb, args: CommandArgs) -> anyhow::Result<Outcome> {
    let client = Client::new(&args.server)?;
    let id = match args.id {
        Some(id) => id,
        None => random_id(),
    };
    let path = format!("/api/v1/canaries/{}/{}/{}", args.name.namespace, args.name.name, verb.as_str());
    let request = client.http.post(client.url(&path)).json(&CommandBody { id: Some(id) });
    let response = client.authorise(request).send().await.with_context(|| client.unreachable())?;
    if response.status().is_success() {
        print(&format!("{} {}/{}: done\n", verb.as_str(), args.name.namespace, args.name.name))?;
        return Ok(Outcome::Done);
    }
    let error =
        response.json::<ErrorBody>().await.map_or_else(|_| "the server gave no reason".to_owned(), |body| body.error);
    complain(&format!("{} {}/{}: {error}", verb.as_str(), args.name.namespace, args.name.name))?;
    Ok(Outcome::NotSo)
}

async fn fetch(args: &ShowArgs) -> anyhow::Result<Vec<CanaryView>> {
    let client = Client::new(&args.server)?;
    match &args.name {
        Some(name) => Ok(vec![client.get(&format!("/api/v1/canaries/{}/{}", name.namespace, name.name)).await?]),
        None => client.get("/api/v1/canaries").await,
    }
}

struct Client {
    http: reqwest::Client,
    server: String,
    token: Option<String>,
}

impl Client {
    fn new(args: &ServerArgs) -> anyhow::Result<Self> {
        let server = args.server.trim_end_matches('/');
        let server = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
        let http = reqwest::Client::builder().connect_timeout(std::time::Duration::from_secs(5)).build()?;
        Ok(Self { http, server, token: args.token.clone() })
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server)
    }

    fn unreachable(&self) -> String {
        format!("no answer from {}; is `wingbeat serve` running there? (--server, or $WINGBEAT_SERVER)", self.server)
    }

    fn authorise(&self, request: reqwest::RequestBuilder) -> reqwest::RequestBuilder {
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> anyhow::Result<reqwest::Response> {
        let response = self.authorise(request).send().await.with_context(|| self.unreachable())?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let error = response.json::<ErrorBody>().await.map_or_else(|_| status.to_string(), |body| body.error);
        Err(anyhow!(error))
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> anyhow::Result<T> {
        let response = self.send(self.http.get(self.url(path))).await?;
        response.json().await.context("the server's answer is not what this version expects")
    }
}

fn summary(canaries: &[CanaryView], all_namespaces: bool, with_header: bool) -> String {
    let mut rows = Vec::new();
    if with_header {
        rows.push(["NAMESPACE", "NAME", "STATUS", "WEIGHT", "LASTTRANSITIONTIME"].map(str::to_owned).to_vec());
    }
    rows.extend(canaries.iter().map(|canary| {
        vec![
            canary.namespace.clone(),
            canary.name.clone(),
            canary.phase.clone(),
            canary.weight.to_string(),
            canary.last_transition_time.clone(),
        ]
    }));
    if !all_namespaces {
        rows.iter_mut().for_each(|row| drop(row.remove(0)));
    }
    table(&rows)
}

/// Returns the text of an event, with how often it happened.
fn counted(event: &EventView) -> String {
    match event.count {
        0 | 1 => event.message.clone(),
        count => format!("{} (x{count} up to {})", event.message, event.last),
    }
}

fn description(canary: &CanaryView, events: &[EventView]) -> String {
    let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    let mut rows = vec![
        ("Name", canary.name.clone()),
        ("Namespace", canary.namespace.clone()),
        ("Target", canary.target.clone()),
        ("Phase", canary.phase.clone()),
        ("Canary Weight", canary.weight.to_string()),
        ("Failed Checks", canary.failed_checks.to_string()),
        ("Iterations", canary.iterations.to_string()),
        ("Primary", canary.primary_revision.clone()),
        ("Canary", or_none(&canary.canary_revision)),
        ("Judge", canary.mode.clone()),
    ];
    if let Some(verdict) = &canary.verdict {
        rows.push(("Verdict", verdict.kind.clone()));
        rows.push(("Because", verdict.reason.clone()));
        rows.push(("Compared", verdict.comparison.clone()));
    }
    if let Some(evidence) = &canary.evidence {
        rows.push(("Evidence", format!("{:.2} of {:.2}", evidence.harm, evidence.decisive)));
    }
    let shares = canary.alpha.shares.iter().map(|of| format!("{} {:.1} %", of.signal, of.share * 100.0));
    let shares: Vec<String> = shares.collect();
    if !shares.is_empty() {
        rows.push(("Alpha", format!("{} ({})", canary.alpha.total, shares.join(", "))));
    }
    if !canary.alpha.outside.is_empty() {
        rows.push(("Outside Alpha", canary.alpha.outside.join(", ")));
    }
    for (metric, value) in &canary.metrics {
        rows.push(("Metric", format!("{metric} {value}")));
    }
    let mut out = table(&rows.into_iter().map(|(name, value)| vec![format!("{name}:"), value]).collect::<Vec<_>>());
    let arms = canary.measured();
    out.push_str("Arms:\n");
    let header = ["", "REQUESTS", "ERRORS", "OVERDUE", "RATE/S", "P50", "P90", "P99"].map(str::to_owned).to_vec();
    out.push_str(&table(&[header, arm_row("primary", &arms.primary), arm_row("canary", &arms.canary)]));
    out.push_str("Conditions:\n");
    let conditions = canary.conditions.iter().map(|condition| {
        vec![
            format!("  {}", condition.kind),
            condition.status.clone(),
            condition.reason.clone(),
            condition.message.clone(),
        ]
    });
    out.push_str(&table(&conditions.collect::<Vec<_>>()));
    out.push_str("Events:\n");
    let events = events.iter().map(|event| vec![format!("  {}", event.kind), event.t.clone(), counted(event)]);
    out.push_str(&table(&events.collect::<Vec<_>>()));
    out
}

fn arm_row(name: &str, arm: &ArmView) -> Vec<String> {
    let ms = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}ms"));
    vec![
        format!("  {name}"),
        arm.requests.to_string(),
        arm.errors.to_string(),
        arm.overdue.to_string(),
        format!("{:.0}", arm.rate),
        ms(arm.p50_ms),
        ms(arm.p90_ms),
        ms(arm.p99_ms),
    ]
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
    fn columns_are_kubectls() {
        let canary = CanaryView {
            namespace: "prod".into(),
            name: "backend".into(),
            phase: "Progressing".into(),
            weight: 5.0,
            last_transition_time: "2026-11-23T10:00:00Z".into(),
            ..CanaryView::default()
        };
        insta::assert_snapshot!(summary(std::slice::from_ref(&canary), false, true), @r"
        NAME      STATUS        WEIGHT   LASTTRANSITIONTIME
        backend   Progressing   5        2026-11-23T10:00:00Z
        ");
        insta::assert_snapshot!(summary(&[canary], true, true), @r"
        NAMESPACE   NAME      STATUS        WEIGHT   LASTTRANSITIONTIME
        prod        backend   Progressing   5        2026-11-23T10:00:00Z
        ");
    }

    #[test]
    fn a_name_has_two_parts() {
        assert!("prod/backend".parse::<Name>().is_ok());
        for bad in ["backend", "/backend", "prod/", "a/b/c"] {
            assert!(bad.parse::<Name>().is_err(), "{bad}");
        }
    }
}
