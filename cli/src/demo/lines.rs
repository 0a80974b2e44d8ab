//! The demo where there is no terminal: a line now and then.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use wingbeat_controller::view::{ArmView, CanaryView};
use wingbeat_demo::scene::Sight;

/// One in so many views becomes a line: two a second.
const EVERY: u32 = 5;

/// Writes lines.
pub(crate) struct Lines {
    write: fn(&str) -> anyhow::Result<()>,
    views: AtomicU32,
}

impl Lines {
    pub(crate) const fn new(write: fn(&str) -> anyhow::Result<()>) -> Self {
        Self { write, views: AtomicU32::new(0) }
    }

    /// Returns what watches a scene and writes.
    pub(crate) fn spectator(self) -> impl Fn(Sight<'_>) + Sync {
        move |sight| {
            let line = match sight {
                Sight::Line(since, text) => event(since, text),
                Sight::View(since, view) => {
                    if !self.views.fetch_add(1, Ordering::Relaxed).is_multiple_of(EVERY) {
                        return;
                    }
                    line(since, view)
                }
            };
            // The scene goes on if nobody reads.
            let _nobody_reads = (self.write)(&line);
        }
    }
}

/// Returns an event with its time.
pub(super) fn event(since: Option<Duration>, text: &str) -> String {
    since.map_or_else(|| text.to_owned(), |since| format!("{:>8.3}s  {text}", since.as_secs_f64()))
}

fn line(since: Duration, view: &CanaryView) -> String {
    let arm = |arm: &ArmView| {
        let p99 = arm.p99_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"));
        let bad = arm.errors.saturating_add(arm.overdue);
        format!("{:>5.0}/s {bad:>4} bad of {:<6} p99 {p99}", arm.rate, arm.requests)
    };
    let arms = view.measured();
    let evidence = view
        .evidence
        .as_ref()
        .map_or_else(String::new, |evidence| format!("  evidence {:.1} of {:.1}", evidence.harm, evidence.decisive));
    let status = format!("{} {}%", view.phase, view.weight);
    event(Some(since), &format!("{status}  primary {}  canary {}{evidence}", arm(&arms.primary), arm(&arms.canary)))
}
