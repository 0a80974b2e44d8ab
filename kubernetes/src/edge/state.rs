//! State in a cluster: decisions in CanaryStates, by compare-and-swap; counts, evidence and events on the disk.
//!
//! ```text
//!  Commit ─► ClusterStore ─┬─► States ─► a CanaryState each, side by side
//!                          └─► disk, once those are written
//! ```
//!
//! A CanaryState is replaced only if it is what it was when it was read or written last. Who finds another one reads it: if a
//! later leader has written it, nothing is written any more; if somebody has edited it, what is wanted the next time is written
//! over that.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::{Map, Value, json};
use tokio::runtime::Handle;
use wingbeat_control::engine::cluster_lineage;
use wingbeat_control::store::{Entries, Store, StoreError, Write};
use wingbeat_controller::clock::Clock;
use wingbeat_core::id::CanaryName;
use wingbeat_core::time::Span;

use crate::canary_state::held::{Held, Update, last_writer};
use crate::canary_state::{Content, divide, is_record, key, name, object};
use crate::crds::Group;
use crate::edge::client::Connection;
use crate::failure::{CallError, Failure};
use crate::object::{list, text};
use crate::permit::Permits;
use crate::resource::{ObjectRef, Resource};
use crate::world::Kind;
use crate::writes::MANAGER;

/// CanaryStates that are written at a time. Others wait for one of them.
const MAX_UNDER_WAY: usize = 32;
/// Time for one call, if the permit lasts for that long. Then the commit is refused, and comes again.
const CALL_TIMEOUT: Span = Span::from_secs(5);
/// Time for one page of the list at the start.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);
/// Objects of one page of that list.
const PAGE_SIZE: u32 = 500;

/// The CanaryStates of a cluster, or of a namespace.
#[derive(Debug)]
pub struct States {
    connection: Connection,
    clock: Clock,
    permits: Permits,
    groups: Vec<Group>,
    namespace: Option<String>,
    /// Each behind a lock that is held while it is written.
    held: Mutex<BTreeMap<CanaryName, Locked>>,
}

/// What is known of a CanaryState, locked as long as it is written.
type Locked = Arc<tokio::sync::Mutex<Held>>;

/// What became of notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noted {
    /// They are in the object.
    Written,
    /// They will be, with the first record. Until then they are kept by this process alone.
    Pending,
}

impl States {
    /// Returns the states that belong to Canaries of these groups. Nothing is read yet.
    pub fn new(
        connection: Connection,
        clock: Clock,
        permits: Permits,
        groups: &[Group],
        namespace: Option<&str>,
    ) -> Self {
        let (groups, namespace) = (groups.to_vec(), namespace.map(str::to_owned));
        Self { connection, clock, permits, groups, namespace, held: Mutex::default() }
    }

    /// Reads all of them. Returns the engine's records; those that cannot be read are left out: see [`States::refused`].
    pub async fn load(&self) -> Result<Entries, StoreError> {
        let (mut found, mut entries, mut page) = (BTreeMap::new(), Entries::new(), String::new());
        loop {
            let path = Resource::CANARY_STATE.path(self.namespace.as_deref());
            let listed = self.connection.get(&format!("{path}?limit={PAGE_SIZE}{page}"), LIST_TIMEOUT).await;
            let listed = listed.map_err(|failure| unlisted(self.namespace.as_deref(), failure))?;
            for item in list(&listed, "/items") {
                let Some(name) = name(item) else { continue };
                let mut held = Held::default();
                held.set(item.clone());
                match &held.content {
                    Content::Decided(decision) => {
                        entries.insert(key(&name), decision.record.clone().into_bytes());
                    }
                    Content::Foreign { why } => {
                        tracing::error!(state = %object(&name), "the canary is left alone: {why}");
                    }
                    Content::Empty => {}
                }
                found.insert(name, Arc::new(tokio::sync::Mutex::new(held)));
            }
            match text(&listed, "/metadata/continue").filter(|token| !token.is_empty()) {
                Some(token) => page = format!("&continue={token}"),
                None => break,
            }
        }
        *self.all() = found;
        Ok(entries)
    }

    /// Returns what tells this cluster from all others: the UID of its namespace `kube-system`.
    pub async fn cluster(&self) -> Result<String, StoreError> {
        let namespace = ObjectRef::new(Resource::NAMESPACE, "", "kube-system");
        let object = self.connection.get(&namespace.path(), LIST_TIMEOUT).await;
        let object = object.map_err(|failure| unwritten("read", namespace, failure))?;
        Ok(text(&object, "/metadata/uid").unwrap_or_default().to_owned())
    }

    /// Returns the canaries that are left alone since their state cannot be read, and why.
    pub async fn refused(&self) -> BTreeMap<CanaryName, String> {
        let mut refused = BTreeMap::new();
        for (name, held) in self.every() {
            if let Content::Foreign { why } = &held.lock().await.content {
                refused.insert(name.clone(), format!("{}: {why}", object(&name)));
            }
        }
        refused
    }

    /// Returns the highest epoch that was written: the next leader's is above.
    pub async fn max_epoch(&self) -> Option<u64> {
        let mut max = None;
        for (_, held) in self.every() {
            if let Content::Decided(decision) = &held.lock().await.content {
                max = max.max(Some(decision.epoch));
            }
        }
        max
    }

    /// Returns what is kept of a canary beside its record, or will be with the next write.
    pub async fn notes(&self, name: &CanaryName) -> Map<String, Value> {
        let held = self.one(name);
        let held = held.lock().await;
        held.notes()
    }

    /// Keeps notes for the next write of this canary, which costs no call of its own; `null` takes one away.
    pub async fn stage(&self, name: &CanaryName, notes: &Map<String, Value>) {
        let held = self.one(name);
        let mut held = held.lock().await;
        held.pending.extend(notes.clone());
    }

    /// Writes notes beside the record at once, and what was staged with them.
    pub async fn note(&self, name: &CanaryName, notes: &Map<String, Value>) -> Result<Noted, StoreError> {
        let held = self.one(name);
        let mut held = held.lock().await;
        held.pending.extend(notes.clone());
        if held.content == Content::Empty {
            return Ok(Noted::Pending);
        }
        self.update(name, &mut held, &Update::Pending).await?;
        Ok(Noted::Written)
    }

    /// Takes what a watch shows of a state: nothing where it is gone. Of one that cannot be read, which nobody writes over, that is
    /// how somebody has put it right; all others are known by what was written to them.
    pub fn observed(&self, name: &CanaryName, object: Option<&Value>) {
        let held = self.all().get(name).cloned();
        // Whoever has it locked is about to find out.
        let Some(mut held) = held.as_ref().and_then(|held| held.try_lock().ok()) else { return };
        if !matches!(held.content, Content::Foreign { .. }) {
            return;
        }
        match object {
            Some(object) => held.set(object.clone()),
            None => held.clear(),
        }
    }

    /// Raises the epoch of these canaries to that of this leader: whatever an earlier one still writes is refused from then on.
    pub async fn raise(&self, names: &[CanaryName]) -> Result<(), StoreError> {
        all(names.iter().map(|name| self.write(name, Update::Epoch))).await
    }

    /// Writes records, or deletes them, side by side. Those that are as they should be cost no call. Returns the first failure,
    /// once all others are written.
    pub async fn commit(&self, records: &[(CanaryName, Option<Vec<u8>>)]) -> Result<(), StoreError> {
        let writes = records.iter().map(async |(name, record)| match record {
            Some(record) => self.write(name, Update::Record(record)).await,
            None => self.delete(name).await,
        });
        all(writes).await
    }

    async fn write(&self, name: &CanaryName, update: Update<'_>) -> Result<(), StoreError> {
        let held = self.one(name);
        let mut held = held.lock().await;
        self.update(name, &mut held, &update).await
    }

    async fn update(&self, name: &CanaryName, held: &mut Held, update: &Update<'_>) -> Result<(), StoreError> {
        let (epoch, _) = self.permit(name)?;
        let Some(wanted) = held.wanted(name, update, epoch)? else { return Ok(()) };
        if held.object.is_none() {
            self.create(name, held).await?;
        }
        // Without a Canary there is no state: it would go with it.
        let Some(mut next) = held.object.clone() else { return Ok(()) };
        if let Some(fields) = next.as_object_mut() {
            fields.insert("status".to_owned(), wanted.status());
        }
        let of = object(name);
        let (_, timeout) = self.permit(name)?;
        match self.connection.send("PUT", &format!("{}/status?fieldManager={MANAGER}", of.path()), &next, timeout).await
        {
            Ok(object) => {
                held.set(object);
                held.pending.clear();
                Ok(())
            }
            Err(failure) => Err(self.failed(&of, held, "written", failure).await),
        }
    }

    /// Creates the object of a canary, without status, unless there is no Canary that it could belong to.
    async fn create(&self, name: &CanaryName, held: &mut Held) -> Result<(), StoreError> {
        let Some(owner) = self.owner(name).await? else {
            tracing::debug!(canary = %name, "nothing is kept of it: it is deleted");
            return Ok(());
        };
        let of = object(name);
        let made = json!({
            "apiVersion": of.resource.api_version(),
            "kind": of.resource.kind,
            "metadata": {"namespace": of.namespace, "name": of.name, "ownerReferences": [owner]},
        });
        let (_, timeout) = self.permit(name)?;
        match self.connection.send("POST", &format!("{}?fieldManager={MANAGER}", of.collection()), &made, timeout).await
        {
            Ok(object) => {
                held.set(object);
                Ok(())
            }
            Err(failure) => {
                let error = self.failed(&of, held, "created", failure).await;
                // An earlier attempt may have made it, whose answer was lost. One that somebody has filled is a conflict.
                if held.object.is_some() && held.content == Content::Empty { Ok(()) } else { Err(error) }
            }
        }
    }

    /// Returns the reference to the Canary that a state goes with; nothing if there is none.
    async fn owner(&self, name: &CanaryName) -> Result<Option<Value>, StoreError> {
        for group in &self.groups {
            let canary = ObjectRef::new(Resource::of(Kind::Canary, *group), &name.namespace, &name.name);
            let (_, timeout) = self.permit(name)?;
            match self.connection.get(&canary.path(), timeout).await {
                Ok(object) => {
                    return Ok(Some(json!({
                        "apiVersion": canary.resource.api_version(),
                        "kind": canary.resource.kind,
                        "name": canary.name,
                        "uid": text(&object, "/metadata/uid"),
                        "controller": true,
                        "blockOwnerDeletion": false,
                    })));
                }
                Err(Failure::NotFound(_)) => {}
                Err(failure) => return Err(unwritten("read", canary, failure)),
            }
        }
        Ok(None)
    }

    async fn delete(&self, name: &CanaryName) -> Result<(), StoreError> {
        let held = self.one(name);
        let mut held = held.lock().await;
        if let Some(before) = &held.object {
            let of = object(name);
            let (epoch, timeout) = self.permit(name)?;
            held.decision(name, epoch)?;
            let version = text(before, "/metadata/resourceVersion");
            let preconditions = json!({"resourceVersion": version});
            let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": preconditions});
            match self.connection.send("DELETE", &of.path(), &options, timeout).await {
                Ok(_) | Err(Failure::NotFound(_)) => held.clear(),
                Err(failure) => return Err(self.failed(&of, &mut held, "deleted", failure).await),
            }
        }
        self.all().remove(name);
        Ok(())
    }

    /// Reads an object anew, after a failure that says, or may say, that it is not what it was. Returns what is to be said of
    /// the failure.
    async fn failed(&self, of: &ObjectRef, held: &mut Held, action: &'static str, failure: Failure) -> StoreError {
        let conflict = |by: String| StoreError::Conflict { object: of.to_string(), by };
        let deleted = || conflict("somebody who deleted it".to_owned());
        let is_conflict = match &failure {
            Failure::NotFound(_) => {
                held.clear();
                return if action == "written" { deleted() } else { unwritten(action, of.clone(), failure) };
            }
            Failure::Conflict(_) | Failure::Exists => true,
            // Of what has no answer it is not known whether it was done.
            Failure::Timeout | Failure::Unreachable(_) | Failure::Server { .. } => false,
            Failure::Forbidden(_)
            | Failure::Terminating
            | Failure::Invalid(_)
            | Failure::Gone
            | Failure::Throttled { .. }
            | Failure::NoPermit => return unwritten(action, of.clone(), failure),
        };
        let timeout = Duration::from_nanos(CALL_TIMEOUT.as_nanos());
        match self.connection.get(&of.path(), timeout).await {
            Ok(object) => {
                let by = last_writer(&object);
                held.set(object);
                if is_conflict { conflict(by) } else { unwritten(action, of.clone(), failure) }
            }
            Err(Failure::NotFound(_)) => {
                held.clear();
                deleted()
            }
            // What is held may be out of date, and the next attempt finds out.
            Err(_) => unwritten(action, of.clone(), failure),
        }
    }

    /// Returns epoch and time for a call, if this process leads.
    fn permit(&self, name: &CanaryName) -> Result<(u64, Duration), StoreError> {
        let now = self.clock.now();
        let permit = self.permits.at(now);
        let permit = permit.ok_or_else(|| unwritten("written", object(name), Failure::NoPermit))?;
        Ok((permit.epoch, Duration::from_nanos(permit.until.since(now).min(CALL_TIMEOUT).as_nanos())))
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<CanaryName, Locked>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn every(&self) -> Vec<(CanaryName, Locked)> {
        self.all().iter().map(|(name, held)| (name.clone(), held.clone())).collect()
    }

    fn one(&self, name: &CanaryName) -> Locked {
        self.all().entry(name.clone()).or_default().clone()
    }
}

/// Waits for all of them, some at a time. Returns the first failure.
async fn all(writes: impl Iterator<Item = impl Future<Output = Result<(), StoreError>>>) -> Result<(), StoreError> {
    let mut results = futures::stream::iter(writes).buffer_unordered(MAX_UNDER_WAY);
    let mut first = Ok(());
    while let Some(result) = results.next().await {
        first = first.and(result);
    }
    first
}

fn unwritten(action: &'static str, object: ObjectRef, failure: Failure) -> StoreError {
    let error = CallError { action, object, failure };
    StoreError::Object { object: error.object.to_string(), why: error.why() }
}

fn unlisted(namespace: Option<&str>, failure: Failure) -> StoreError {
    unwritten("read", ObjectRef::new(Resource::CANARY_STATE, namespace.unwrap_or_default(), "*"), failure)
}

/// State in a cluster, for the engine: records in CanaryStates, all else in another store.
pub struct ClusterStore {
    states: Arc<States>,
    installation: String,
    disk: Box<dyn Store>,
    runtime: Handle,
}

impl std::fmt::Debug for ClusterStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterStore").field("states", &self.states).finish_non_exhaustive()
    }
}

impl ClusterStore {
    /// Returns a store that makes its calls on this runtime. Its own calls must not come from there: they wait. The installation is
    /// what its replicas share, and no other installation in the cluster: the Lease.
    pub fn new(states: Arc<States>, installation: &ObjectRef, disk: Box<dyn Store>, runtime: Handle) -> Self {
        Self { states, installation: installation.to_string(), disk, runtime }
    }
}

impl Store for ClusterStore {
    fn load(&mut self) -> Result<Entries, StoreError> {
        let mut entries = self.disk.load()?;
        let records = self.runtime.block_on(self.states.load())?;
        // What an earlier run without a cluster left there is not of these canaries.
        entries.retain(|key, _| !is_record(key));
        entries.extend(records);
        let cluster = self.runtime.block_on(self.states.cluster())?;
        entries.extend(cluster_lineage(format!("{cluster}/{}", self.installation).as_bytes()));
        Ok(entries)
    }

    /// Records first: they are what else follows from. If the disk fails then, the commit comes again, and they cost no call.
    fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        let divided = divide(writes);
        if !divided.records.is_empty() {
            self.runtime.block_on(self.states.commit(&divided.records))?;
        }
        if divided.rest.is_empty() { Ok(()) } else { self.disk.commit(&divided.rest) }
    }

    fn awaits_commit(&self) -> bool {
        self.disk.awaits_commit()
    }
}
