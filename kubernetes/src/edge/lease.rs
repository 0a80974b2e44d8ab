//! The election, carried out: reads and writes the Lease by a client of its own, which nothing else delays.

use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use wingbeat_controller::clock::Clock;

use crate::edge::client::Connection;
use crate::failure::Failure;
use crate::lease::{ATTEMPT_TIMEOUT, Action, Election};
use crate::permit::Permits;
use crate::resource::{ObjectRef, Resource};

/// Time to release the Lease when the process ends. Beyond, the next one waits for its duration.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(1);

/// How the election stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Leadership {
    /// Nobody leads, as far as is known: the Lease was not read yet, or not renewed in time.
    #[default]
    Waiting,
    /// Another replica does.
    Following {
        /// Which one.
        leader: String,
    },
    /// We do.
    Leading {
        /// How often the Lease had changed hands.
        epoch: u64,
    },
}

/// A running election.
#[derive(Debug)]
pub struct Elector {
    stop: watch::Sender<bool>,
    leadership: watch::Receiver<Leadership>,
    task: JoinHandle<()>,
}

impl Elector {
    /// Starts the part of this replica in the election for a Lease. The permit is set and taken away in `permits`.
    pub fn start(
        connection: Connection,
        clock: Clock,
        lease: &ObjectRef,
        election: Election,
        permits: Permits,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (told, leadership) = watch::channel(Leadership::default());
        let driver = Driver { connection, clock, lease: lease.clone(), permits, told };
        let task = tokio::spawn(driver.run(election, stopped));
        Self { stop, leadership, task }
    }

    /// Returns how the election stands, to be awaited.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Ends it at once and releases nothing, as a process ends that is killed.
    pub fn abort(self) {
        self.task.abort();
    }

    /// Ends the permit and releases the Lease, so that another one leads at once. Whoever writes should be through by now.
    pub async fn release(self) {
        let _ended = self.stop.send(true);
        let _ended = self.task.await;
    }
}

/// Returns the Lease of this name.
pub fn lease(namespace: &str, name: &str) -> ObjectRef {
    ObjectRef::new(Resource::LEASE, namespace, name)
}

struct Driver {
    connection: Connection,
    clock: Clock,
    lease: ObjectRef,
    permits: Permits,
    told: watch::Sender<Leadership>,
}

impl Driver {
    async fn run(self, mut election: Election, mut stopped: watch::Receiver<bool>) {
        let attempt = Duration::from_nanos(ATTEMPT_TIMEOUT.as_nanos());
        loop {
            self.publish(&election);
            let step = self.step(&mut election, attempt);
            let is_stopped = tokio::select! {
                () = step => false,
                // Whoever holds the election is gone, or wants it released.
                _ = stopped.changed() => true,
            };
            if is_stopped {
                break;
            }
        }
        self.permits.set(None);
        let released = election.release(self.clock.now());
        self.told.send_replace(Leadership::Waiting);
        if let Some(lease) = released
            && let Err(failure) = self.write("PUT", &lease, RELEASE_TIMEOUT).await
        {
            tracing::warn!(lease = %self.lease, ?failure, "not released: the next leader waits for its duration");
        }
    }

    /// Carries out what is due, or waits.
    async fn step(&self, election: &mut Election, attempt: Duration) {
        let sent = self.clock.now();
        let (action, result) = match election.action(sent) {
            Action::Wait(until) => {
                tokio::time::sleep_until(self.clock.deadline(until)).await;
                return;
            }
            Action::Read => {
                let read = match self.connection.get(&self.lease.path(), attempt).await {
                    Ok(lease) => Ok(Some(lease)),
                    Err(Failure::NotFound(_)) => Ok(None),
                    Err(failure) => Err(failure),
                };
                match read {
                    Ok(lease) => {
                        election.read(lease, self.clock.now());
                        return;
                    }
                    Err(failure) => ("read", Err(failure)),
                }
            }
            Action::Create(lease) => ("created", self.write("POST", &lease, attempt).await),
            Action::Update(lease) => ("renewed", self.write("PUT", &lease, attempt).await),
        };
        match result {
            Ok(lease) => election.written(lease, sent),
            Err(failure) => {
                tracing::debug!(lease = %self.lease, ?failure, "cannot be {action}");
                election.failed(&failure, self.clock.now());
            }
        }
    }

    async fn write(&self, method: &str, lease: &Value, timeout: Duration) -> Result<Value, Failure> {
        let uri = if method == "POST" { self.lease.collection() } else { self.lease.path() };
        self.connection.send(method, &uri, lease, timeout).await
    }

    /// Sets the permit, and says whether we lead where that has changed.
    fn publish(&self, election: &Election) {
        let permit = election.permit(self.clock.now());
        self.permits.set(permit);
        let leadership = match (permit, election.other()) {
            (Some(permit), _) => Leadership::Leading { epoch: permit.epoch },
            (None, Some(leader)) => Leadership::Following { leader: leader.to_owned() },
            (None, None) => Leadership::Waiting,
        };
        self.told.send_if_modified(|before| {
            let is_new = *before != leadership;
            if is_new {
                tracing::info!(lease = %self.lease, ?leadership, "election");
                *before = leadership;
            }
            is_new
        });
    }
}
