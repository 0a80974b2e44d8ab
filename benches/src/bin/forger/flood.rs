//! Reports at full rate, and what they leave behind.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinSet;
use tokio::time::Instant;
use wingbeat_benches::table::Table;
use wingbeat_proto::v1::ReportRequest;
use wingbeat_test_support::simulation::draw::Draw;

use crate::{Access, Forger, LANES, Lie, SEED, Stage, TOKEN, Truth, canaries, document, lies, name, says};

/// Reports as fast as it can, and looks at what is left behind.
pub(super) async fn flood(table: &mut Table, access: Access, minutes: f64) -> anyhow::Result<()> {
    let mut stage = Stage::build(access, 3).await?;
    // In the middle of rollouts: what it reports is of rollouts that there are.
    for (truth, lie) in canaries() {
        let new = stage.services.get(&truth).context("there is one")?.address();
        stage
            .site
            .write(&name(truth, lie), &document(&name(truth, lie), 2, stage.old.address(), new, &stage.listeners))?;
    }
    stage.site.reaches(&name(Truth::Healthy, Lie::Plain), "Progressing").await?;
    // Who starts in the middle of rollouts first finds out what the proxies serve, whoever reports.
    let restarted = stage.site.restart().await?.as_secs_f64();
    let (memory, stored) = (stage.site.memory()?, stage.site.stored()?);
    let (ends, mut lying) = (Arc::<AtomicBool>::default(), JoinSet::new());
    let token = (access == Access::Token).then_some(TOKEN);
    let forger = Forger::connect(stage.site.xds(), stage.tls.clone(), token).await?;
    for lane in 0..LANES {
        let (forger, ends) = (forger.clone(), ends.clone());
        let mut draw = Draw::new(SEED + u64::try_from(lane)?);
        lying.spawn(async move {
            let mut clusters = Vec::new();
            for tick in 1.. {
                if tick % 500 == 1 {
                    let counted = forger.clusters().await;
                    // Of rollouts that are over, it goes on to lie.
                    if !counted.is_empty() {
                        clusters = counted;
                    }
                }
                let place = usize::try_from(draw.below(7)).unwrap_or_default();
                let lie = Lie::ALL.get(place).copied().unwrap_or(Lie::Plain);
                let entries = lies(lie, &clusters, tick, &mut draw);
                let worker = draw.below(u64::MAX >> 1);
                let report = says(lie, entries, worker, tick, &mut draw);
                // Each time another worker of another boot.
                forger.report(ReportRequest { boot_id: draw.below(u64::MAX), ..report }).await;
                if ends.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
    }
    let (began, mut most) = (Instant::now(), 0.0_f64);
    let mut poll = tokio::time::interval(Duration::from_secs(1));
    while began.elapsed().as_secs_f64() < minutes * 60.0 {
        poll.tick().await;
        most = most.max(stage.site.memory()?);
    }
    ends.store(true, Ordering::Relaxed);
    while lying.join_next().await.is_some() {}
    let stored_after = stage.site.stored()?;
    let restarted_after = stage.site.restart().await?.as_secs_f64();
    let taken = forger.taken.load(Ordering::Relaxed);
    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    let rate = taken as f64 / began.elapsed().as_secs_f64();
    let cell = format!("{}, {minutes} minutes of reports at full rate", access.name());
    table.row(&cell, &format!("{taken} taken, {rate:.0} a second"), "> 100 a second", rate > 100.0)?;
    // A source has at most 4,096 workers in the ledger, whatever it says.
    let bounds = [
        ("resident memory", "MiB", memory, most, memory + 200.0),
        ("state folder", "KiB", stored, stored_after, stored + 64.0 * 1_024.0),
        ("time of a restart", "s", restarted, restarted_after, restarted + 1.0),
    ];
    for (what, unit, before, after, bound) in bounds {
        let holds = after <= bound;
        table.row(
            &format!("{cell}: {what}"),
            &format!("{before:.2} {unit} before, {after:.2} {unit} after"),
            &format!("≤ {bound:.2} {unit}"),
            holds,
        )?;
    }
    Ok(())
}
