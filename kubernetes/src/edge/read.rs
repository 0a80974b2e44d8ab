//! Reads of single objects, and lists of Pods: what a watch does not show. Whoever decided that something is to be read gets what
//! came of it.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::configs::{Part, Read, ReadFailure};
use crate::crds::Group;
use crate::edge::client::{Connection, METADATA};
use crate::failure::{CallError, Failure};
use crate::pod_status::{MAX_PODS, PodQuery};
use crate::resource::{ObjectRef, Resource};
use crate::world::ObjectKey;

/// Reads of objects that are under way at a time: 16. Others wait, each once.
const MAX_UNDER_WAY: usize = 16;
/// Lists of Pods begin this far apart: 100 ms. Where a thousand workloads are unready at once, the API server has other things to
/// do: the last of them says why after 100 s.
const LIST_INTERVAL: Duration = Duration::from_millis(100);
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

/// Reads objects, some at a time, and lists Pods at a pace of their own: none waits for the other kind. Dropping it ends what is
/// under way.
#[derive(Debug)]
pub(super) struct Reader {
    connection: Connection,
    objects: VecDeque<Read>,
    reading: JoinSet<Done>,
    pods: VecDeque<PodQuery>,
    listing: JoinSet<Done>,
    /// When the next list may begin.
    next_list: Instant,
}

impl Reader {
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            connection,
            objects: VecDeque::new(),
            reading: JoinSet::new(),
            pods: VecDeque::new(),
            listing: JoinSet::new(),
            next_list: Instant::now(),
        }
    }

    /// Takes what is to be read.
    pub(super) fn put(&mut self, reads: Vec<Read>, pods: Vec<PodQuery>) {
        self.objects.extend(reads);
        for query in pods {
            // One that was ready meanwhile, and is not again, keeps its place.
            let is_same = |queued: &&mut PodQuery| queued.canary == query.canary && queued.arm == query.arm;
            match self.pods.iter_mut().find(is_same) {
                Some(queued) => *queued = query,
                None => self.pods.push_back(query),
            }
        }
        self.start();
    }

    /// Waits for a read to end, and returns what came of it. For ever, while there is none. May be cancelled.
    pub(super) async fn next(&mut self) -> Done {
        loop {
            self.start();
            let ended = tokio::select! {
                Some(ended) = self.reading.join_next() => ended,
                Some(ended) = self.listing.join_next() => ended,
                () = tokio::time::sleep_until(self.next_list), if !self.pods.is_empty() => continue,
                else => std::future::pending().await,
            };
            // A call that panicked is none of ours: there is nothing in it that does.
            if let Ok(done) = ended {
                return done;
            }
        }
    }

    fn start(&mut self) {
        while self.reading.len() < MAX_UNDER_WAY
            && let Some(read) = self.objects.pop_front()
        {
            self.reading.spawn(read_object(self.connection.clone(), read));
        }
        let now = Instant::now();
        if now >= self.next_list
            && let Some(query) = self.pods.pop_front()
        {
            self.next_list = now + LIST_INTERVAL;
            self.listing.spawn(list_pods(self.connection.clone(), query));
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
