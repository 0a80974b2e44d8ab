//! Waiting for something to hold, with a bound, and with words for what was waited for.

use std::time::Duration;

use anyhow::bail;

use crate::process::Process;

/// How often it is looked whether something holds.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Waits until something is there, and no longer than this. A process that ends meanwhile ends the wait; what it wrote last is
/// part of the error, as it is when time is up.
pub(crate) async fn until<T>(
    what: &str,
    bound: Duration,
    process: &mut Process,
    mut poll: impl AsyncFnMut() -> Option<T>,
) -> anyhow::Result<T> {
    let mut interval = tokio::time::interval(POLL_INTERVAL);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let deadline = tokio::time::Instant::now() + bound;
    while tokio::time::Instant::now() < deadline {
        interval.tick().await;
        if let Some(status) = process.ended()? {
            bail!("{} ended ({status}) before {what}; its log ends with:\n{}", process.name(), process.tail());
        }
        // One answer that never comes is no reason to wait for ever.
        if let Ok(Some(found)) = tokio::time::timeout_at(deadline, poll()).await {
            return Ok(found);
        }
    }
    bail!("{what}: not within {bound:?}; the log of {} ends with:\n{}", process.name(), process.tail())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[tokio::test]
    async fn a_wait_ends_and_says_what_for() {
        let logs = tempfile::tempdir().unwrap();
        let start = |name, args: &[&str]| {
            let args = args.iter().map(|arg| (*arg).to_owned()).collect::<Vec<_>>();
            Process::start(name, Path::new("/bin"), logs.path(), args).unwrap()
        };
        let second = Duration::from_secs(1);
        let mut running = start("sleep", &["1000"]);
        let mut count = 0;
        let found = until("three", second * 30, &mut running, async || {
            count += 1;
            (count == 3).then_some(count)
        });
        assert_eq!(found.await.unwrap(), 3);
        let never = until("it holds", POLL_INTERVAL, &mut running, async || None::<()>).await.unwrap_err();
        assert!(never.to_string().starts_with("it holds: not within 50ms; the log of sleep"), "{never}");
        let hangs =
            until("it answers", POLL_INTERVAL, &mut running, async || std::future::pending::<Option<()>>().await);
        assert!(hangs.await.is_err());
        running.kill().await;
        let mut ended = start("ls", &["/no/such/folder"]);
        let ended = until("it holds", second * 30, &mut ended, async || None::<()>).await.unwrap_err().to_string();
        assert!(ended.contains("before it holds") && ended.contains("/no/such/folder"), "{ended}");
    }
}
