//! What hurts people in operation, at a real API server, a real kubelet and a real Envoy, with the controller in the role that it is
//! deployed with: of the acceptance lines A1 to A15, those that are about one Envoy's users.
//!
//! | line | what happens | what must not |
//! |---|---|---|
//! | A1 | a Canary is deleted, at rest and at 30 % | users fail, or it stays |
//! | A3 | its target or namespace goes first; definitions are applied again | it stays; something is lost or begins |
//! | A5 | Pods are slow to be ready, and to answer | users fail; a canary's Pod goes before its requests |
//! | A6 | somebody scales the canary away at 30 % | requests go there |
//! | A7 | the primary crashes, and a fix is applied | the fix waits for the primary |
//! | A8 | what is promoted cannot serve as the primary | users fail; the canary goes |
//! | A9 | the controller or Kubernetes is upgraded, targets get another size | a rollout begins |
//! | A10 | reads fail, and etcd is restarted | a rollout begins |
//! | A15 | steps do not meet the highest weight; a rollout is aborted | the share is above it, or comes back |
//!
//! Each has a cluster of its own. One that cannot be shown is a row that says why, and the others go on. Users send 1,000 requests a
//! second.
//!
//! `LINES` names those to be shown, like `A1,A6` (all). `CANARIES` says how many are at rest in A9 (20), `HICCUPS` for how many
//! seconds reads fail in A10 (60), and `REST` for how many nothing may come back after the abort of A15 (60).

use std::any::Any;
use std::io::Write as _;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use futures::FutureExt as _;
use wingbeat_benches::print;
use wingbeat_test_cluster::{Cluster, Options};

use report::Report;

mod admin;
mod at_rest;
mod audit;
mod broken_primary;
mod deletion;
mod drain;
mod failed_promotion;
mod faulty_api;
mod finalizer;
mod hiccups;
mod pods;
mod proxies;
mod report;
mod scaled_away;
mod scene;
mod weights;

/// Time for a line; some take minutes.
const LINE: Duration = Duration::from_mins(20);
/// Of what went wrong, so many characters are in a row: all of it is on standard error.
const SHOWN: usize = 300;

/// A line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    A1,
    A3,
    A5,
    A6,
    A7,
    A8,
    A9,
    A10,
    A15,
}

/// What comes of a line.
type Shown<'a> = Pin<Box<dyn Future<Output = anyhow::Result<()>> + 'a>>;

impl Line {
    const ALL: [Self; 9] = [Self::A1, Self::A3, Self::A5, Self::A6, Self::A7, Self::A8, Self::A9, Self::A10, Self::A15];

    const fn name(self) -> &'static str {
        match self {
            Self::A1 => "A1",
            Self::A3 => "A3",
            Self::A5 => "A5",
            Self::A6 => "A6",
            Self::A7 => "A7",
            Self::A8 => "A8",
            Self::A9 => "A9",
            Self::A10 => "A10",
            Self::A15 => "A15",
        }
    }

    /// Returns those that are asked for.
    fn asked() -> anyhow::Result<Vec<Self>> {
        let Ok(asked) = std::env::var("LINES") else { return Ok(Self::ALL.to_vec()) };
        let of = |name: &str| {
            let line = Self::ALL.into_iter().find(|line| line.name() == name.trim());
            line.with_context(|| {
                format!("LINES: there is no {name}, use some of {}", Self::ALL.map(Self::name).join(","))
            })
        };
        asked.split(',').map(of).collect()
    }

    /// Shows it in a cluster.
    fn show<'a>(self, cluster: &'a Arc<Cluster>, report: &'a mut Report) -> Shown<'a> {
        match self {
            Self::A1 => Box::pin(deletion::show(cluster, report)),
            Self::A3 => Box::pin(finalizer::show(cluster, report)),
            Self::A5 => Box::pin(drain::show(cluster, report)),
            Self::A6 => Box::pin(scaled_away::show(cluster, report)),
            Self::A7 => Box::pin(broken_primary::show(cluster, report)),
            Self::A8 => Box::pin(failed_promotion::show(cluster, report)),
            Self::A9 => Box::pin(at_rest::show(cluster, report)),
            Self::A10 => Box::pin(hiccups::show(cluster, report)),
            Self::A15 => Box::pin(weights::show(cluster, report)),
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut report = Report::default();
    for line in Line::asked()? {
        report.begin(line.name());
        // What tests share ends with a panic where something does not come.
        let ended = AssertUnwindSafe(shown(line, &mut report)).catch_unwind().await;
        let ended = ended.unwrap_or_else(|panic| Err(anyhow!("{}", text(panic.as_ref()))));
        if let Err(error) = ended {
            let text = format!("{error:#}");
            writeln!(std::io::stderr(), "{}: {text}", line.name())?;
            let first: String = text.lines().next().unwrap_or_default().chars().take(SHOWN).collect();
            report.row("it comes to its end", &first, "it does", false)?;
        }
    }
    Ok(print(&report.figures())?)
}

async fn shown(line: Line, report: &mut Report) -> anyhow::Result<()> {
    let cluster = Arc::new(Cluster::start(Options::default()).await?);
    let shown = tokio::time::timeout(LINE, line.show(&cluster, report)).await;
    shown.with_context(|| format!("not within {LINE:?}"))?
}

/// Returns what a panic says.
fn text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}
