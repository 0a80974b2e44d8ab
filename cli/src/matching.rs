//! `wingbeat match`.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;

use anyhow::Context as _;
use base64::Engine as _;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use wingbeat_controller::document::{CanaryDocument, Set};
use wingbeat_controller::setup::Audience;
use wingbeat_core::matching::request::Request;

use crate::client::Name;
use crate::files;
use crate::output::{Outcome, Wrong, complain, say};

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
    let set = Set::of(&files::read(std::slice::from_ref(&args.canary))?);
    if let Some(first) = set.report.errors.first() {
        return Err(Wrong(first.to_string()).into());
    }
    let mut canaries = set
        .canaries()
        .filter(|(canary, _)| args.name.as_ref().is_none_or(|name| name.is(&canary.namespace, &canary.name)));
    let (Some((_, document)), None) = (canaries.next(), canaries.next()) else {
        let why = format!("{} has not exactly one such Canary: name it with --name", args.canary.display());
        return Err(Wrong(why).into());
    };
    let mut as_expected = true;
    let mut bad = false;
    for (number, request) in (1_u64..).zip(requests(args)?) {
        match request {
            Ok(request) => {
                let taken = take(document, args.weight, &request);
                as_expected &= args.expect.is_none_or(|arm| arm == taken.arm);
                say(&serde_json::to_string(&taken)?)?;
            }
            Err(error) => {
                complain(&format!("line {number}: {error}"))?;
                bad = true;
            }
        }
    }
    Ok(match (bad, as_expected) {
        (true, _) => Outcome::BadInput,
        (false, true) => Outcome::Done,
        (false, false) => Outcome::NotSo,
    })
}

fn take(document: &CanaryDocument, weight: Option<u8>, request: &Request) -> Taken {
    let primary = Taken { arm: Arm::Primary, rule: None };
    match &document.audience {
        // Shares: only the ends are certain, and in between most take the primary.
        Audience::Chance | Audience::Users(_) if weight == Some(100) => Taken { arm: Arm::Canary, rule: None },
        Audience::Chance | Audience::Users(_) => primary,
        Audience::Rules { .. } if weight == Some(0) => primary,
        Audience::Rules { rules, .. } => match rules.first_match(request) {
            Some(rule) => Taken { arm: Arm::Canary, rule: Some(rule) },
            None => primary,
        },
    }
}

type Parsed = Result<Request, String>;

fn requests(args: &Args) -> anyhow::Result<Vec<Parsed>> {
    let Some(path) = &args.requests else {
        let headers = args.header.iter().map(|header| {
            let (name, value) =
                header.split_once(':').ok_or_else(|| Wrong(format!("--header {header:?} has no colon")))?;
            Ok((name.trim().to_owned(), value.trim().as_bytes().to_vec()))
        });
        let headers = headers.collect::<Result<Vec<_>, Wrong>>()?;
        return Ok(vec![Ok(Request { headers, ..plain() })]);
    };
    let file = std::fs::File::open(path).map_err(|error| Wrong(format!("cannot read {}: {error}", path.display())))?;
    let mut requests = Vec::new();
    for line in BufReader::new(file).lines() {
        let line = line.with_context(|| format!("cannot read {}", path.display()))?;
        if !line.trim().is_empty() {
            requests.push(parse(&line));
        }
    }
    Ok(requests)
}

fn parse(line: &str) -> Parsed {
    let sent: Sent = serde_json::from_str(line).map_err(|error| error.to_string())?;
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
