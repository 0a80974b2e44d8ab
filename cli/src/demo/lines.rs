//! The demo where there is no terminal: a line now and then.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use wingbeat_control::view::{ArmView, CanaryView};
use wingbeat_demo::scene::Sight;

/// One in so many views becomes a line: two a second.
const EVERY: u32 = 5;

/// Writes lines.
pub(crate) struct Lines {
    write: fn(&str) -> anyhow::Result<()>,
    views: AtomicU32,
    /// Of the last view. After the verdict the time stands, and so do the lines.
    last: Mutex<Option<Duration>>,
}

impl Lines {
    pub(crate) const fn new(write: fn(&str) -> anyhow::Result<()>) -> Self {
        Self { write, views: AtomicU32::new(0), last: Mutex::new(None) }
    }

    /// Returns what watches a scene and writes.
    pub(crate) fn spectator(self) -> impl Fn(Sight<'_>) + Sync {
        move |sight| {
            let line = match sight {
                Sight::Line(since, text) => event(since, text),
                Sight::View(since, view) => {
                    // A std mutex, never held across an await.
                    let before = self.last.lock().unwrap_or_else(PoisonError::into_inner).replace(since);
                    if before == Some(since) {
                        return;
                    }
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

/// Returns whom the canary is given: where rules say it, all who match, however many these are.
pub(super) fn share(view: &CanaryView) -> String {
    if view.strategy == "ab-testing" && view.weight > 0.0 {
        return "all who match".to_owned();
    }
    format!("{} %", view.weight)
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
    let status = format!("{} {}", view.phase, share(view));
    event(Some(since), &format!("{status}  primary {}  canary {}{evidence}", arm(&arms.primary), arm(&arms.canary)))
}

#[cfg(test)]
mod tests {
    use super::*;

    static WRITTEN: Mutex<Vec<String>> = Mutex::new(Vec::new());

    #[test]
    fn nothing_is_said_twice_when_the_time_stands() {
        let lines = Lines::new(|line| {
            WRITTEN.lock().unwrap().push(line.to_owned());
            Ok(())
        });
        let see = lines.spectator();
        let view = CanaryView { strategy: "ab-testing".into(), weight: 100.0, ..CanaryView::default() };
        let ended = CanaryView { weight: 0.0, phase: "Failed".into(), ..view.clone() };
        (0..=5).for_each(|tenth| see(Sight::View(Duration::from_millis(tenth * 100), &view)));
        (0..30).for_each(|_| see(Sight::View(Duration::from_millis(600), &ended)));
        let written = WRITTEN.lock().unwrap();
        assert_eq!(written.len(), 2, "{written:#?}");
        assert!(written.iter().all(|line| line.contains(" all who match ")), "{written:#?}");
        assert_eq!(
            (share(&ended).as_str(), share(&CanaryView { weight: 5.0, ..CanaryView::default() }).as_str()),
            ("0 %", "5 %")
        );
    }
}
