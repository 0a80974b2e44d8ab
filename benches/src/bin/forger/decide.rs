//! What a forger decides.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use wingbeat_benches::table::Table;

use crate::{Cell, LONGEST, Lie, Moment, ROUND, Stage, Truth};

fn with(ended: &BTreeMap<(Truth, Lie), String>, truth: Truth, is: impl Fn(&str) -> bool) -> Vec<&'static str> {
    ended.iter().filter(|((it, _), phase)| *it == truth && is(phase)).map(|((_, lie), _)| lie.name()).collect()
}

fn shown(lies: &[&str]) -> String {
    if lies.is_empty() { "0".to_owned() } else { format!("{} ({})", lies.len(), lies.join(", ")) }
}

/// Lies about rollouts of all truths, and looks at how they end.
pub(super) async fn decide(table: &mut Table, cell: Cell) -> anyhow::Result<()> {
    let Cell { access, honest, moment } = cell;
    let stage = Stage::build(access, honest).await?;
    let ended = stage.play(moment).await?;
    let promoted = |phase: &str| !matches!(phase, "Progressing" | "Failed");
    let all = Lie::ALL.len();
    let cell = cell.name();
    let taken = stage.forger.taken.load(Ordering::Relaxed);
    let broken = with(&ended, Truth::Broken, promoted);
    table.row(
        &format!("{cell}: broken canaries promoted"),
        &format!("{} of {all}; {taken} reports of the forger taken", shown(&broken)),
        "0",
        broken.is_empty() && (moment == Moment::Never || taken >= ROUND),
    )?;
    let fifth = with(&ended, Truth::Fifth, promoted);
    let (what, figure) = (format!("{cell}: canaries with 20 % errors promoted"), format!("{} of {all}", shown(&fifth)));
    table.row(&what, &figure, "0", fifth.is_empty())?;
    let healthy = with(&ended, Truth::Healthy, |phase| phase == "Failed");
    let mut reason = String::new();
    if let Some(lie) = healthy.first() {
        let canary = stage.site.canary(&format!("{}-{lie}", Truth::Healthy.name())).await?.unwrap_or_default();
        let told = canary.get("conditions").map(ToString::to_string).unwrap_or_default();
        reason = format!("; {lie}: {told}");
    }
    let (what, figure) =
        (format!("{cell}: healthy canaries rolled back"), format!("{} of {all}{reason}", shown(&healthy)));
    if honest >= 3 || moment == Moment::Never {
        table.row(&what, &figure, "0", healthy.is_empty())?;
    } else {
        table.note(&what, &figure)?;
    }
    let still = with(&ended, Truth::Broken, |phase| phase == "Progressing");
    let held = with(&ended, Truth::Healthy, |phase| phase == "Progressing");
    table.note(
        &format!("{cell}: after {} s still in the rollout", LONGEST.as_secs()),
        &format!("broken {}, healthy {}", shown(&still), shown(&held)),
    )?;
    if moment == Moment::Never {
        let fine = with(&ended, Truth::Healthy, |phase| phase == "Succeeded");
        let gone = with(&ended, Truth::Broken, |phase| phase == "Failed");
        let figure = format!("{} and {} of {all}", fine.len(), gone.len());
        let holds = fine.len() == all && gone.len() == all;
        table.row(&format!("{cell}: healthy promoted, broken rolled back"), &figure, "all", holds)?;
    }
    Ok(())
}
