//! Reads of single objects, and lists of Pods: what a watch does not show. Whoever decided that something is to be read gets what
//! came of it.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;

use crate::configs::{Part, Read, ReadFailure};
use crate::crds::Group;
use crate::edge::client::{Connection, METADATA};
use crate::failure::{CallError, Failure};
use crate::pod_status::{MAX_PODS, PodQuery};
use crate::resource::{ObjectRef, Resource};
use crate::world::ObjectKey;

/// Reads that are under way at a time: 16. Others wait, each once.
const MAX_UNDER_WAY: usize = 16;
/// Time for one: 5 s. Then it has failed.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// What came of a read.
#[derive(Debug)]
pub(super) enum Done {
    /// The object, or nothing where there is none.
    Object(ObjectKey, Result<Option<Value>, ReadFailure>),
    /// The list.
    Pods(PodQuery, Result<Value, ReadFailure>),
}

#[derive(Debug)]
enum Waiting {
    Object(Read),
    Pods(PodQuery),
}

/// Reads objects, some at a time. Dropping it ends what is under way.
#[derive(Debug)]
pub(super) struct Reader {
    connection: Connection,
    waiting: VecDeque<Waiting>,
    under_way: JoinSet<Done>,
}

impl Reader {
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, waiting: VecDeque::new(), under_way: JoinSet::new() }
    }

    /// Takes what is to be read.
    pub(super) fn put(&mut self, reads: Vec<Read>, pods: Vec<PodQuery>) {
        self.waiting.extend(reads.into_iter().map(Waiting::Object));
        self.waiting.extend(pods.into_iter().map(Waiting::Pods));
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
            let connection = self.connection.clone();
            match self.waiting.pop_front() {
                Some(Waiting::Object(read)) => self.under_way.spawn(read_object(connection, read)),
                Some(Waiting::Pods(query)) => self.under_way.spawn(list_pods(connection, query)),
                None => break,
            };
        }
    }
}

async fn read_object(connection: Connection, read: Read) -> Done {
    let Read { key, part } = read;
    let object = ObjectRef::new(Resource::of(key.kind, Group::Wingbeat), &key.namespace, &key.name);
    let result = match part {
        Part::Whole => connection.get(&object.path(), READ_TIMEOUT).await,
        Part::Metadata => connection.get_as(METADATA, &object.path(), READ_TIMEOUT).await,
    };
    let result = match result {
        Ok(object) => Ok(Some(object)),
        Err(Failure::NotFound(_)) => Ok(None),
        Err(failure) => Err(failed(object, failure)),
    };
    Done::Object(key, result)
}

async fn list_pods(connection: Connection, query: PodQuery) -> Done {
    let pods = ObjectRef::new(Resource::POD, &query.canary.namespace, "*");
    // Letters, digits and these are what keys and values of labels consist of.
    let selector = query.selector.replace('=', "%3D").replace(',', "%2C").replace('/', "%2F");
    let path = format!("{}?labelSelector={selector}&limit={MAX_PODS}", pods.collection());
    let result = connection.get(&path, READ_TIMEOUT).await;
    Done::Pods(query, result.map_err(|failure| failed(pods, failure)))
}

fn failed(object: ObjectRef, failure: Failure) -> ReadFailure {
    let is_transient = failure.is_transient();
    let error = CallError { action: "read", object, failure };
    tracing::debug!("{error}");
    ReadFailure { why: error.to_string(), is_transient }
}
