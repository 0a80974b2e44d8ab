//! Writes: the only file that changes objects, but for the Lease and CanaryStates, which are written by compare-and-swap.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use wingbeat_controller::clock::Clock;
use wingbeat_core::time::Span;

use crate::edge::client::Connection;
use crate::failure::Failure;
use crate::object::text;
use crate::permit::Permits;
use crate::writes::{Accepted, JITTER_PARTS, Job, Queue, Report, Write};

/// Calls that are under way at a time. Others wait; the API server's own limits are wider.
const MAX_UNDER_WAY: usize = 32;
/// Time for one call, if the permit lasts for that long. Then it is tried again.
const CALL_TIMEOUT: Span = Span::from_secs(5);

/// Hands writes over to a task that carries them out. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Writer {
    shared: Arc<Shared>,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Notify,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Writer {
    /// Starts the task. What came of each write is handed to `report`, which must not block. Aborting the task ends what is
    /// under way; the API server may carry it out all the same.
    pub fn start(
        connection: Connection,
        clock: Clock,
        permits: Permits,
        report: impl Fn(Report) + Send + Sync + 'static,
    ) -> (Self, JoinHandle<()>) {
        let writer = Self { shared: Arc::default(), clock };
        let task = tokio::spawn(run(writer.clone(), connection, permits, report));
        (writer, task)
    }

    /// Takes a write. It returns at once.
    pub fn put(&self, write: Write) -> Accepted {
        let accepted = self.shared.queue().put(write, self.clock.now());
        self.shared.changed.notify_one();
        accepted
    }

    /// Forgets what waits, as who leads no longer does.
    pub fn clear(&self) {
        self.shared.queue().clear();
    }

    /// Returns how many writes wait or are under way.
    pub fn len(&self) -> usize {
        self.shared.queue().len()
    }

    /// Returns true if none does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What came of a call.
type Done = (Job, Result<Option<String>, Failure>);

async fn run(writer: Writer, connection: Connection, permits: Permits, report: impl Fn(Report)) {
    let (shared, clock) = (writer.shared, writer.clock);
    let mut calls: JoinSet<Done> = JoinSet::new();
    loop {
        let (jobs, due) = {
            let mut queue = shared.queue();
            let free = MAX_UNDER_WAY.saturating_sub(calls.len());
            (queue.take(clock.now(), free), queue.next_due().filter(|_| free > 0))
        };
        for job in jobs {
            let (connection, permits) = (connection.clone(), permits.clone());
            calls.spawn(async move {
                let result = carry_out(&connection, clock, &permits, &job.write).await;
                (job, result)
            });
        }
        let due = async {
            match due {
                Some(due) => tokio::time::sleep_until(clock.deadline(due)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shared.changed.notified() => {}
            () = due => {}
            Some(done) = calls.join_next() => {
                // A call that panicked is none of ours: there is nothing in it that does.
                let Ok((job, result)) = done else { continue };
                let jitter = getrandom::u64().map_or(0, |random| random % JITTER_PARTS);
                let came = shared.queue().done(&job, result, clock.now(), jitter);
                if let Some(came) = came {
                    report(came);
                }
            }
        }
    }
}

/// Makes a call, if the permit lasts for it. Returns the object's version since.
async fn carry_out(
    connection: &Connection,
    clock: Clock,
    permits: &Permits,
    write: &Write,
) -> Result<Option<String>, Failure> {
    let request = write.request();
    // Nothing is between this and the call that takes its time.
    let now = clock.now();
    let Some(permit) = permits.at(now) else { return Err(Failure::NoPermit) };
    let timeout = Duration::from_nanos(permit.until.since(now).min(CALL_TIMEOUT).as_nanos());
    let call = connection.call(request.method, &request.uri, request.content_type, request.body, timeout);
    let object = call.await?;
    Ok(text(&object, "/metadata/resourceVersion").map(str::to_owned))
}
