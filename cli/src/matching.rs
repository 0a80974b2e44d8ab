//! `wingbeat match`.

use std::io::{BufRead as _, BufReader, IsTerminal as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use base64::Engine as _;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use wingbeat_api::CanaryDocument;
use wingbeat_api::desired_state::Targeting;
use wingbeat_core::matching::request::Request;

use crate::check::lint;
use crate::client::Name;
use crate::output::{Format, Outcome, Wrong, complain, emit, print, table};

/// Of a request, so much is shown in a row.
const MAX_REQUEST_LEN: usize = 100;

/// Which requests, and whose rules.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: wingbeat match --canary canary.yaml --header 'cookie: type=insider' --expect canary")]
pub(crate) struct Args {
    /// A file with the Canary and its Workload
    #[arg(long, value_name = "FILE")]
    canary: PathBuf,
    /// Which one, if the file has several
    #[arg(long, value_name = "NAMESPACE/NAME")]
    name: Option<Name>,
    /// Percent of traffic that the canary has; without it, an A/B test is on and other rollouts are not
    #[arg(long, value_name = "W", value_parser = clap::value_parser!(u8).range(0..=100))]
    weight: Option<u8>,
    /// A header of the request; may be given several times
    #[arg(long, value_name = "'k: v'")]
    header: Vec<String>,
    /// Requests, one a line of JSON: method, path, authority, and headers as pairs of name and value
    #[arg(long, value_name = "FILE.jsonl")]
    requests: Option<PathBuf>,
    /// Ends with 1 if any request takes the other arm
    #[arg(long, value_enum)]
    expect: Option<Arm>,
    /// text, json or yaml; without it, text for a terminal and json for others
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Arm {
    Canary,
    Primary,
}

#[derive(Debug, Serialize)]
struct Taken {
    arm: Arm,
    rule: Option<usize>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    method: Option<String>,
    path: Option<String>,
    authority: Option<String>,
    scheme: Option<String>,
    #[serde(default)]
    headers: Vec<(String, HeaderValue)>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum HeaderValue {
    Text(String),
    Bytes { base64: String },
}

/// Prints a line per request.
pub(crate) fn run(args: &Args) -> anyhow::Result<Outcome> {
    let Some(set) = lint(&args.canary)? else { return Ok(Outcome::BadInput) };
    let mut canaries = set
        .canaries()
        .filter(|(canary, _)| args.name.as_ref().is_none_or(|name| name.is(&canary.namespace, &canary.name)));
    let (Some((_, document)), None) = (canaries.next(), canaries.next()) else {
        let why = format!("{} has not exactly one such Canary: name it with --name", args.canary.display());
        return Err(Wrong(why).into());
    };
    let mut as_expected = true;
    let mut bad = false;
    let format =
        args.output.unwrap_or_else(|| if std::io::stdout().is_terminal() { Format::Text } else { Format::Json });
    let mut rows = vec![["ARM", "RULE", "REQUEST"].map(str::to_owned).to_vec()];
    for (number, request) in requests(args)? {
        match request {
            Ok(request) => {
                let taken = take(document, args.weight, &request);
                as_expected &= args.expect.is_none_or(|arm| arm == taken.arm);
                match format {
                    Format::Text => rows.push(row(&taken, &request)),
                    Format::Json | Format::Yaml => emit(format, &taken)?,
                }
            }
            Err(error) => {
                let file = args.requests.as_deref().unwrap_or_else(|| Path::new("--header")).display();
                complain(&format!("{file}:{number}: {error}"))?;
                bad = true;
            }
        }
    }
    if format == Format::Text {
        print(&table(&rows))?;
    }
    Ok(match (bad, as_expected) {
        (true, _) => Outcome::BadInput,
        (false, true) => Outcome::Done,
        (false, false) => Outcome::Unmet,
    })
}

fn take(document: &CanaryDocument, weight: Option<u8>, request: &Request) -> Taken {
    let primary = Taken { arm: Arm::Primary, rule: None };
    match &document.audience {
        // Shares: only the ends are certain, and in between most take the primary.
        Targeting::Chance | Targeting::Users(_) if weight == Some(100) => Taken { arm: Arm::Canary, rule: None },
        Targeting::Served(entries) if weight == Some(100) && entries.first_match(request).is_some() => {
            Taken { arm: Arm::Canary, rule: None }
        }
        Targeting::Chance | Targeting::Users(_) | Targeting::Served(_) => primary,
        Targeting::Rules { .. } if weight == Some(0) => primary,
        Targeting::Rules { rules, .. } => match rules.first_match(request) {
            Some(rule) => Taken { arm: Arm::Canary, rule: Some(rule) },
            None => primary,
        },
    }
}

fn row(taken: &Taken, request: &Request) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).escape_debug().to_string();
    let arm = match taken.arm {
        Arm::Canary => "canary",
        Arm::Primary => "primary",
    };
    let rule = taken.rule.map_or_else(|| "-".to_owned(), |rule| rule.to_string());
    let headers = request.headers.iter().map(|(name, value)| format!(" {name}: {};", text(value)));
    let line = format!("{} {}{}", text(&request.method), text(&request.path), headers.collect::<String>());
    vec![arm.to_owned(), rule, line.trim_end_matches(';').chars().take(MAX_REQUEST_LEN).collect()]
}

type Parsed = Result<Request, String>;

/// Returns the requests, each with its line.
fn requests(args: &Args) -> anyhow::Result<Vec<(u64, Parsed)>> {
    let Some(path) = &args.requests else {
        let headers = args.header.iter().map(|header| {
            let (name, value) =
                header.split_once(':').ok_or_else(|| Wrong(format!("--header {header:?} has no colon")))?;
            Ok((name.trim().to_owned(), value.trim().as_bytes().to_vec()))
        });
        let headers = headers.collect::<Result<Vec<_>, Wrong>>()?;
        return Ok(vec![(1, Ok(Request { headers, ..plain() }))]);
    };
    let file = std::fs::File::open(path).map_err(|error| Wrong(format!("cannot read {}: {error}", path.display())))?;
    let mut requests = Vec::new();
    for (number, line) in (1..).zip(BufReader::new(file).split(b'\n')) {
        let line = line.with_context(|| format!("cannot read {}", path.display()))?;
        let line = String::from_utf8(line).map_err(|_| "this is no UTF-8, write other bytes as base64".to_owned());
        if line.as_ref().map_or(true, |line| !line.trim().is_empty()) {
            requests.push((number, line.and_then(|line| parse(&line))));
        }
    }
    Ok(requests)
}

fn parse(line: &str) -> Parsed {
    let sent: Sent = serde_json::from_str(line).map_err(|error| {
        let text = error.to_string();
        // The line within a line is always the first one.
        let why = text.split(" at line ").next().unwrap_or_default();
        format!(
            "column {}: {why}; write an object like {{\"path\": \"/\", \"headers\": [[\"name\", \"value\"]]}}",
            error.column()
        )
    })?;
    let mut headers = Vec::new();
    for (name, value) in sent.headers {
        let value = match value {
            HeaderValue::Text(text) => text.into_bytes(),
            HeaderValue::Bytes { base64 } => {
                let decoded = base64::engine::general_purpose::STANDARD.decode(base64);
                decoded.map_err(|error| format!("headers.{name}: {error}"))?
            }
        };
        headers.push((name, value));
    }
    let or = |text: Option<String>, otherwise: Vec<u8>| text.map_or(otherwise, String::into_bytes);
    let Request { method, path, scheme, authority, .. } = plain();
    Ok(Request {
        method: or(sent.method, method),
        path: or(sent.path, path),
        scheme: or(sent.scheme, scheme),
        authority: or(sent.authority, authority),
        headers,
    })
}

/// What a request is unless it says otherwise.
fn plain() -> Request {
    Request { method: b"GET".to_vec(), path: b"/".to_vec(), scheme: b"http".to_vec(), ..Request::default() }
}
