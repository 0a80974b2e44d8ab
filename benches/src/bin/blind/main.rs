//! Canaries that fail every request: under what was once not seen, and under what chance draws.
//!
//! `cells` has everything under which such a canary was once not rolled back, each beside a healthy twin; `search` draws
//! spec, mode, fleet, history and fault. Everything runs through real Envoys. `DRAWS` says how many are drawn (0: only the
//! cells), `SEED` which: the draws of one round are repeated by the seed that it prints, on Envoys that are new.

use std::time::Duration;

use serde_json::json;
use wingbeat_benches::{asked, print};

mod cells;
mod search;

/// A broken canary is out within this time of the fault, or of the first request that meets it.
const BOUND: Duration = Duration::from_secs(3);
/// Draws where nothing else is said.
const DRAWS: u64 = 200;

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let draws = asked("DRAWS").unwrap_or(DRAWS);
    let only = std::env::var("CELL").ok();
    // Whoever names a seed wants to see what it draws.
    let cells = if asked("SEED").is_none() { cells::play(only.as_deref()).await? } else { cells::Found::default() };
    let draws = if only.is_some() { 0 } else { draws };
    let drawn = search::play(draws).await?;
    Ok(print(&json!({
        "cells": cells.cells,
        "cells_that_failed": cells.failed,
        "cells_slowest_ms": cells.slowest.map(millis),
        "seed": drawn.seed,
        "draws": drawn.draws,
        "broken": drawn.broken,
        "broken_median_ms": drawn.median.map(millis),
        "broken_slowest_ms": drawn.slowest.map(millis),
        "broken_late": drawn.late,
        "broken_promoted": drawn.promoted,
        "healthy": drawn.healthy,
        "healthy_rolled_back": drawn.rolled_back,
        "void": drawn.void,
    }))?)
}
