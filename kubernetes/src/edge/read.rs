//! Reads of single objects: what a watch of metadata does not show. Whoever decided that one is to be read gets what came of it.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;

use crate::configs::{Part, Read, ReadFailure};
use crate::crds::Group;
use crate::edge::client::{Connection, METADATA};
use crate::failure::{CallError, Failure};
use crate::resource::{ObjectRef, Resource};
use crate::world::ObjectKey;

/// Reads that are under way at a time: 16. Others wait, each object once.
const MAX_UNDER_WAY: usize = 16;
/// Time for one: 5 s. Then it has failed.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// What came of a read: the object, or nothing where there is none.
pub(super) type Done = (ObjectKey, Result<Option<Value>, ReadFailure>);

/// Reads objects, some at a time. Dropping it ends what is under way.
#[derive(Debug)]
pub(super) struct Reader {
    connection: Connection,
    waiting: VecDeque<Read>,
    under_way: JoinSet<Done>,
}

impl Reader {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, waiting: VecDeque::new(), under_way: JoinSet::new() }
    }

    /// Takes what is to be read.
    pub(super) fn put(&mut self, reads: Vec<Read>) {
        self.waiting.extend(reads);
        self.start();
    }

    /// Waits for a read to end, and returns what came of it. For ever, while there is none. May be cancelled.
    pub(super) async fn next(&mut self) -> Done {
        loop {
            self.start();
            match self.under_way.join_next().await {
                Some(Ok(done)) => {
                    self.start();
                    return done;
                }
                // A call that panicked is none of ours: there is nothing in it that does.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }

    fn start(&mut self) {
        while self.under_way.len() < MAX_UNDER_WAY {
            let Some(read) = self.waiting.pop_front() else { break };
            self.under_way.spawn(carry_out(self.connection.clone(), read));
        }
    }
}

async fn carry_out(connection: Connection, read: Read) -> Done {
    let Read { key, part } = read;
    let object = ObjectRef::new(Resource::of(key.kind, Group::Wingbeat), &key.namespace, &key.name);
    let result = match part {
        Part::Whole => connection.get(&object.path(), READ_TIMEOUT).await,
        Part::Metadata => connection.get_as(METADATA, &object.path(), READ_TIMEOUT).await,
    };
    let result = match result {
        Ok(object) => Ok(Some(object)),
        Err(Failure::NotFound(_)) => Ok(None),
        Err(failure) => {
            let is_transient = failure.is_transient();
            let error = CallError { action: "read", object, failure };
            tracing::debug!("{error}");
            Err(ReadFailure { why: error.to_string(), is_transient })
        }
    };
    (key, result)
}
