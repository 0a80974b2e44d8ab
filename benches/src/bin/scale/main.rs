//! What 10,000 canaries from files cost a real `wingbeat serve`: to start, when files change, at rest, in memory; and with 1,000
//! of them in rollouts, under 10,000 reports a second, how fast an abort is in force.
//!
//! CPU is that of all threads of the server. The canaries are on a hundred listeners, each for proxies of its own: a filter
//! counts 64 rollouts at a time.
//!
//! Usage: `scale [CANARIES [ROLLOUTS]]`.

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use wingbeat_benches::print;
use wingbeat_benches::site::Site;
use wingbeat_benches::table::Table;

use documents::{Change, Documents, Layout};

mod documents;
mod rollouts;

const CANARIES: usize = 10_000;
const ROLLOUTS: usize = 1_000;
/// Files that change one after the other: CPU times are shown in hundredths of a second.
const SINGLES: usize = 20;
/// Files that change at once.
const MANY: usize = 50;
/// Nothing is to be done, and that is measured, for so long.
const REST: Duration = Duration::from_secs(10);
/// After a change is shown, what is still done for it is done within this time: events are written, views are renewed.
const AFTER: Duration = Duration::from_millis(500);

#[expect(clippy::cast_precision_loss, reason = "small numbers")]
const fn float(number: usize) -> f64 {
    number as f64
}

/// What came of it. Figures are printed as they come: a run takes minutes.
#[derive(Debug, Default)]
struct Figures(Map<String, Value>);

impl Figures {
    fn note(&mut self, what: &str, figure: f64) -> std::io::Result<()> {
        self.0.insert(what.to_owned(), json!(figure));
        Table::default().note(what, &format!("{figure:.3}"))
    }
}

/// CPU that the server uses for what is done, beyond what it uses at rest.
struct Meter<'a> {
    site: &'a Site,
    cpu: Duration,
    began: Instant,
}

impl<'a> Meter<'a> {
    fn start(site: &'a Site) -> anyhow::Result<Self> {
        Ok(Self { site, cpu: site.cpu()?, began: Instant::now() })
    }

    /// Returns the share of a core that was used since.
    fn cores(&self) -> anyhow::Result<f64> {
        Ok((self.site.cpu()? - self.cpu).as_secs_f64() / self.began.elapsed().as_secs_f64())
    }

    /// Returns the milliseconds of CPU that were used since beyond what rest takes, which is a share of a core.
    fn beyond(&self, rest: f64) -> anyhow::Result<f64> {
        let used = (self.site.cpu()? - self.cpu).as_secs_f64();
        Ok((used - rest * self.began.elapsed().as_secs_f64()).max(0.0) * 1e3)
    }
}

async fn at_rest(site: &Site) -> anyhow::Result<f64> {
    let meter = Meter::start(site)?;
    tokio::time::sleep(REST).await;
    meter.cores()
}

/// Writes files anew in which these canaries begin a rollout. Returns when all of these show it, and what was done after that
/// is done.
async fn roll_out(site: &Site, documents: &mut Documents, canaries: &[usize], change: Change) -> anyhow::Result<()> {
    for (file, text) in documents.change(canaries, change) {
        site.write(&file, &text)?;
    }
    for canary in canaries {
        site.reaches(&documents::name(*canary), "Progressing").await?;
    }
    tokio::time::sleep(AFTER).await;
    Ok(())
}

/// Measures a server whose canaries are in so many files.
async fn files(canaries: usize, layout: Layout, figures: &mut Figures) -> anyhow::Result<()> {
    let mut documents = Documents::new(canaries, layout);
    let mut site = Site::prepare(&documents.all(), &[])?;
    let mut note = |what: &str, figure: f64| figures.note(&format!("{what}_{}", layout.name()), figure);
    let started = site.serve().await?;
    note("start_s", started.as_secs_f64())?;
    site.reaches(&documents::name(canaries - 1), "Initialized").await?;
    tokio::time::sleep(AFTER).await;
    note("start_cpu_ms", site.cpu()?.as_secs_f64() * 1e3)?;
    let rest = at_rest(&site).await?;
    note("idle_cores", rest)?;
    note("rss_mib", site.memory()?)?;
    let meter = Meter::start(&site)?;
    for canary in 0..SINGLES {
        roll_out(&site, &mut documents, &[canary * layout.canaries_a_file()], Change::Revision).await?;
    }
    note("one_file_cpu_ms", meter.beyond(rest)? / float(SINGLES))?;
    let many: Vec<usize> = (SINGLES..SINGLES + MANY).map(|file| file * layout.canaries_a_file()).collect();
    // Those in a rollout are not at rest.
    let rest = at_rest(&site).await?;
    let meter = Meter::start(&site)?;
    roll_out(&site, &mut documents, &many, Change::Revision).await?;
    note("many_files_cpu_ms", meter.beyond(rest)?)?;
    note("rss_after_mib", site.memory()?)?;
    Ok(())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args: Vec<usize> = std::env::args().skip(1).map(|arg| arg.parse()).collect::<Result<_, _>>()?;
    let (canaries, rollouts) = match args.as_slice() {
        [] => (CANARIES, ROLLOUTS),
        [canaries] => (*canaries, *canaries / 10),
        [canaries, rollouts] => (*canaries, *rollouts),
        _ => anyhow::bail!("usage: scale [CANARIES [ROLLOUTS]]"),
    };
    ensure!(
        canaries >= (SINGLES + MANY) * Layout::Bundles.canaries_a_file(),
        "there are to be 7,000 canaries at least"
    );
    ensure!(rollouts <= canaries, "there are more rollouts than canaries");
    let mut figures = Figures::default();
    figures.note("canaries", float(canaries))?;
    figures.note("rollouts", float(rollouts))?;
    for layout in [Layout::Files, Layout::Bundles] {
        files(canaries, layout, &mut figures).await?;
    }
    rollouts::measure(canaries, rollouts, &mut figures).await?;
    Ok(print(&Value::Object(figures.0))?)
}
