//! What is known of the ConfigMaps and Secrets that somebody depends on, and what of them is to be read.
//!
//! A watch says that one is another one; a read, what is in it. Those on which nobody depends are not kept. What is kept of one
//! is its checksum, its owner and whether it is tracked: its values only between the read and the writes that follow from it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use wingbeat_core::id::CanaryName;
use wingbeat_core::time::{Span, Timestamp};

use super::content::{Content, checksum};
use super::{CHECKSUM_ANNOTATION, TRACKING_ANNOTATION};
use crate::object::{is_true, list, text};
use crate::world::{Kind, ObjectKey};

/// After a read failed for the first time, it is tried again this much later, and the time doubles: 1 s.
const FIRST_BACKOFF: Span = Span::from_secs(1);
/// What the time doubles to: 32 s. An API server that is back, and a role that was mended, are found within it.
const MAX_BACKOFF: Span = Span::from_secs(32);
/// A failure that may pass by itself is shown once it has happened this often in a row, which is after 7 s.
const SHOWN_FAILURES: u32 = 4;
/// Types of Secrets that are people's configuration, as Flagger has them; others belong to machines.
const TYPES: [&str; 4] = ["Opaque", "kubernetes.io/basic-auth", "kubernetes.io/ssh-auth", "kubernetes.io/tls"];

/// How much of an object is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Whose it is, and what it says is in it.
    Metadata,
    /// All of it.
    Whole,
}

/// Something to be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    /// The object.
    pub key: ObjectKey,
    /// How much of it.
    pub part: Part,
}

/// Why something could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadFailure {
    /// For people: the object, the reason and the mend.
    pub why: String,
    /// Whether it may pass though nobody mends anything.
    pub is_transient: bool,
}

/// See the module's documentation. As large as what Canaries depend on.
#[derive(Debug, Default)]
pub struct Tracker {
    entries: BTreeMap<ObjectKey, Entry>,
    wanted: BTreeMap<CanaryName, BTreeMap<ObjectKey, Part>>,
    /// What is to be read, each once, and when.
    due: BTreeSet<(Timestamp, ObjectKey)>,
    /// Which copies Canaries have that may not be there yet.
    holders: BTreeMap<ObjectKey, CanaryName>,
    /// What was read since [`Tracker::forget_data`].
    fresh: BTreeMap<ObjectKey, Value>,
}

#[derive(Debug)]
struct Entry {
    users: BTreeMap<CanaryName, Part>,
    known: Known,
    /// The version that was observed last.
    version: Option<String>,
    /// When it is to be read, and how much of it.
    due: Option<(Timestamp, Part)>,
    reading: Option<Part>,
    /// Whether a watch has seen it since that began.
    is_observed: bool,
    failures: u32,
    failure: Option<ReadFailure>,
}

/// What is known of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Known {
    Unknown,
    Absent,
    There(There),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct There {
    /// The uid of its controller.
    owner: Option<String>,
    /// The checksum of what is in it, as far as it was read.
    checksum: Option<String>,
    /// The same, as it says itself.
    promised: Option<String>,
    is_tracked: bool,
}

/// What is known of an object that a template refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source<'a> {
    /// It is being read for the first time.
    Pending,
    /// It cannot be read; a failure that lasts is shown.
    Unknown(Option<&'a str>),
    /// It is not there.
    Absent,
    /// This is in it.
    Known(Content),
}

/// What has the name of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Copied<'a> {
    /// It is not known yet.
    Pending,
    /// There is nothing, and nobody else is about to make something.
    Absent,
    /// It is the Canary's, and holds data of this checksum.
    Owned(Option<&'a str>),
    /// It is somebody else's.
    Foreign,
}

impl Tracker {
    /// Notes what a Canary depends on from now on, and how much of each it has to know.
    pub(crate) fn depend(&mut self, canary: &CanaryName, wanted: BTreeMap<ObjectKey, Part>) {
        let before = self.wanted.get(canary);
        if before == Some(&wanted) || (before.is_none() && wanted.is_empty()) {
            return;
        }
        let before = self.wanted.remove(canary).unwrap_or_default();
        for key in before.keys().filter(|key| !wanted.contains_key(*key)) {
            self.leave(canary, key);
        }
        for (key, part) in &wanted {
            let entry = self.entries.entry(key.clone()).or_insert_with(Entry::new);
            entry.users.insert(canary.clone(), *part);
            let is_read = match &entry.known {
                Known::Unknown => entry.reading.is_some_and(|reading| reading >= *part),
                Known::Absent => true,
                Known::There(there) => *part == Part::Metadata || there.checksum.is_some(),
            };
            if !is_read {
                self.plan(key, *part, Timestamp::EPOCH);
            }
        }
        self.holders.retain(|key, holder| holder != canary || wanted.contains_key(key));
        if !wanted.is_empty() {
            self.wanted.insert(canary.clone(), wanted);
        }
    }

    /// Forgets a Canary.
    pub(crate) fn forget(&mut self, canary: &CanaryName) {
        self.depend(canary, BTreeMap::new());
    }

    fn leave(&mut self, canary: &CanaryName, key: &ObjectKey) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.users.remove(canary);
        if entry.users.is_empty() {
            if let Some((at, _)) = entry.due {
                self.due.remove(&(at, key.clone()));
            }
            self.entries.remove(key);
        }
    }

    /// Has something read, no later than this, unless it is being read already.
    fn plan(&mut self, key: &ObjectKey, part: Part, at: Timestamp) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        let (at, part) = entry.due.map_or((at, part), |(due, planned)| (due.min(at), planned.max(part)));
        if let Some((before, _)) = entry.due.replace((at, part)) {
            self.due.remove(&(before, key.clone()));
        }
        if entry.reading.is_none() {
            self.due.insert((at, key.clone()));
        }
    }

    /// Takes an object's metadata, as a watch has it. Returns who is concerned at once; what is in it is to be read first.
    pub(crate) fn apply(&mut self, key: &ObjectKey, object: &Value) -> BTreeSet<CanaryName> {
        let Some(entry) = self.entries.get_mut(key) else { return BTreeSet::new() };
        let version = text(object, "/metadata/resourceVersion").map(str::to_owned);
        if entry.version == version && entry.known != Known::Absent {
            return BTreeSet::new();
        }
        entry.version = version;
        entry.is_observed = true;
        let part = entry.part();
        // What was in it before counts until it is read.
        let checksum = match &entry.known {
            Known::There(there) if part == Part::Whole => there.checksum.clone(),
            Known::There(_) | Known::Unknown | Known::Absent => None,
        };
        match part {
            Part::Whole => {
                self.plan(key, part, Timestamp::EPOCH);
                BTreeSet::new()
            }
            Part::Metadata => {
                entry.known = Known::There(There { checksum, ..There::read(object) });
                self.users(key)
            }
        }
    }

    /// Takes it that an object is gone. Returns who is concerned.
    pub(crate) fn delete(&mut self, key: &ObjectKey) -> BTreeSet<CanaryName> {
        let Some(entry) = self.entries.get_mut(key) else { return BTreeSet::new() };
        (entry.known, entry.version, entry.is_observed) = (Known::Absent, None, true);
        (entry.failures, entry.failure) = (0, None);
        if let Some((at, _)) = entry.due.take() {
            self.due.remove(&(at, key.clone()));
        }
        self.users(key)
    }

    /// Returns what is to be read by now.
    pub(crate) fn take_due(&mut self, now: Timestamp) -> Vec<Read> {
        let mut reads = Vec::new();
        while let Some((at, _)) = self.due.first() {
            if *at > now {
                break;
            }
            let Some((_, key)) = self.due.pop_first() else { break };
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            let Some((_, part)) = entry.due.take() else { continue };
            (entry.reading, entry.is_observed) = (Some(part), false);
            reads.push(Read { key, part });
        }
        reads
    }

    /// Returns when something is to be read next.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes what was read; nothing: it is not there. Returns who is concerned.
    pub(crate) fn take(
        &mut self,
        key: &ObjectKey,
        result: Result<Option<Value>, ReadFailure>,
        now: Timestamp,
    ) -> BTreeSet<CanaryName> {
        let Some(entry) = self.entries.get_mut(key) else { return BTreeSet::new() };
        let Some(part) = entry.reading.take() else { return BTreeSet::new() };
        match result {
            Ok(object) => {
                (entry.failures, entry.failure) = (0, None);
                let version = object.as_ref().and_then(|it| text(it, "/metadata/resourceVersion")).map(str::to_owned);
                // Where it changed while it was read, this may be what it was before.
                if entry.is_observed && entry.version != version {
                    let planned = entry.due.map_or(part, |(_, planned)| planned.max(part));
                    entry.due = Some((Timestamp::EPOCH, planned));
                } else {
                    let _is_this = entry.due.take_if(|(_, planned)| *planned <= part);
                }
                entry.version = version;
                entry.known = match &object {
                    None => Known::Absent,
                    Some(object) => Known::There(There {
                        checksum: (part == Part::Whole).then(|| checksum(object)),
                        ..There::read(object)
                    }),
                };
                if let (Some(object), Part::Whole) = (object, part) {
                    self.fresh.insert(key.clone(), object);
                }
            }
            Err(failure) => {
                entry.failures = entry.failures.saturating_add(1);
                entry.failure = Some(failure);
                let doublings = entry.failures.saturating_sub(1).min(10);
                let at = now.plus(FIRST_BACKOFF.times(1_u64 << doublings).min(MAX_BACKOFF));
                entry.due = Some((at, part));
            }
        }
        if let Some((at, _)) = self.entries.get(key).and_then(|entry| entry.due) {
            self.due.insert((at, key.clone()));
        }
        self.users(key)
    }

    /// Forgets values that were read.
    pub(crate) fn forget_data(&mut self) {
        self.fresh.clear();
    }

    /// Returns an object with its data, if it was just read and has this checksum; else it is to be read.
    pub(crate) fn data(&mut self, key: &ObjectKey, wanted: &str) -> Option<Value> {
        let fresh = self.fresh.get(key).filter(|object| checksum(object) == wanted).cloned();
        if fresh.is_none() && self.entries.get(key).is_some_and(|entry| entry.reading != Some(Part::Whole)) {
            // Where a read of it has failed, the next one waits.
            let waits = self.entries.get(key).is_some_and(|entry| entry.failures > 0 && entry.due.is_some());
            if !waits {
                self.plan(key, Part::Whole, Timestamp::EPOCH);
            }
        }
        fresh
    }

    /// Has all of an object read at this time, though it is known what is in it.
    pub(crate) fn reread(&mut self, key: &ObjectKey, at: Timestamp) {
        let Some(entry) = self.entries.get(key) else { return };
        if entry.known != Known::Unknown && entry.due.is_none() && entry.reading.is_none() {
            self.plan(key, Part::Whole, at);
        }
    }

    fn users(&self, key: &ObjectKey) -> BTreeSet<CanaryName> {
        self.entries.get(key).map(|entry| entry.users.keys().cloned().collect()).unwrap_or_default()
    }

    /// Returns what is known of an object that a template refers to.
    pub(crate) fn source(&self, key: &ObjectKey) -> Source<'_> {
        let Some(entry) = self.entries.get(key) else { return Source::Pending };
        match &entry.known {
            Known::Unknown if entry.failures == 0 => Source::Pending,
            Known::Absent => Source::Absent,
            Known::There(There { is_tracked: false, .. }) => Source::Known(Content::Untracked),
            Known::There(There { checksum: Some(checksum), .. }) => Source::Known(Content::Checksum(checksum.clone())),
            Known::Unknown | Known::There(There { checksum: None, .. }) => Source::Unknown(entry.shown()),
        }
    }

    /// Returns why an object cannot be read, once that lasts.
    pub(crate) fn failure(&self, key: &ObjectKey) -> Option<&str> {
        self.entries.get(key)?.shown()
    }

    /// Returns what has the name of a Canary's copy.
    pub(crate) fn copied(&self, key: &ObjectKey, canary: &CanaryName, uid: &str) -> Copied<'_> {
        let is_anothers = self.holders.get(key).is_some_and(|holder| holder != canary);
        let Some(entry) = self.entries.get(key) else { return Copied::Pending };
        match &entry.known {
            Known::Unknown => Copied::Pending,
            Known::Absent if is_anothers => Copied::Foreign,
            Known::Absent => Copied::Absent,
            Known::There(there) if there.owner.as_deref() == Some(uid) => {
                Copied::Owned(there.checksum.as_deref().or(there.promised.as_deref()))
            }
            Known::There(_) => Copied::Foreign,
        }
    }

    /// Notes that a Canary is to have a copy, before it is there.
    pub(crate) fn hold(&mut self, key: &ObjectKey, canary: &CanaryName) {
        self.holders.entry(key.clone()).or_insert_with(|| canary.clone());
    }

    /// Returns the version of an object, as far as it is known.
    pub(crate) fn version(&self, key: &ObjectKey) -> Option<&str> {
        self.entries.get(key)?.version.as_deref()
    }
}

impl Entry {
    const fn new() -> Self {
        Self {
            users: BTreeMap::new(),
            known: Known::Unknown,
            version: None,
            due: None,
            reading: None,
            is_observed: false,
            failures: 0,
            failure: None,
        }
    }

    /// Returns how much of it somebody has to know.
    fn part(&self) -> Part {
        self.users.values().copied().max().unwrap_or(Part::Metadata)
    }

    fn shown(&self) -> Option<&str> {
        let failure = self.failure.as_ref()?;
        (!failure.is_transient || self.failures >= SHOWN_FAILURES).then_some(failure.why.as_str())
    }
}

impl There {
    /// Reads what is kept of an object.
    fn read(object: &Value) -> Self {
        let references = list(object, "/metadata/ownerReferences");
        let controller = references.iter().find(|reference| is_true(reference, "/controller"));
        let annotation =
            |key: &str| object.pointer("/metadata/annotations").and_then(|all| all.get(key)).and_then(Value::as_str);
        let is_off = annotation(TRACKING_ANNOTATION).is_some_and(|value| value.starts_with("disable"));
        let is_configuration = text(object, "/type").is_none_or(|kind| TYPES.contains(&kind));
        Self {
            owner: controller.and_then(|it| text(it, "/uid")).map(str::to_owned),
            checksum: None,
            promised: annotation(CHECKSUM_ANNOTATION).map(str::to_owned),
            is_tracked: !is_off && is_configuration,
        }
    }
}

/// Returns the metadata of an object without what may hold values of a Secret, as what was applied last does.
pub(crate) fn tidy(kind: Kind, mut object: Value) -> Value {
    if !kind.is_config() {
        return object;
    }
    if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.retain(|key, _| key == CHECKSUM_ANNOTATION || key == TRACKING_ANNOTATION);
    }
    object
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new(Kind::ConfigMap, "prod", name)
    }

    fn canary(name: &str) -> CanaryName {
        CanaryName::new("prod", name)
    }

    fn object(version: &str, color: &str) -> Value {
        json!({"metadata": {"name": "a", "namespace": "prod", "resourceVersion": version}, "data": {"color": color}})
    }

    fn tracking(part: Part) -> Tracker {
        let mut tracker = Tracker::default();
        tracker.depend(&canary("one"), BTreeMap::from([(key("a"), part)]));
        assert_eq!(tracker.take_due(NOW), [Read { key: key("a"), part }]);
        tracker
    }

    fn known(color: &str) -> Source<'static> {
        Source::Known(Content::Checksum(checksum(&object("", color))))
    }

    #[test]
    fn each_version_is_read_once() {
        let mut tracker = tracking(Part::Whole);
        assert_eq!(tracker.source(&key("a")), Source::Pending);
        assert_eq!(tracker.take(&key("a"), Ok(Some(object("1", "blue"))), NOW), BTreeSet::from([canary("one")]));
        assert_eq!((tracker.source(&key("a")), tracker.next_due()), (known("blue"), None));
        // The list of a watch that begins later, and one more canary that depends on it.
        assert_eq!(tracker.apply(&key("a"), &object("1", "")), BTreeSet::new());
        tracker.depend(&canary("two"), BTreeMap::from([(key("a"), Part::Whole)]));
        assert_eq!(tracker.take_due(NOW), []);
        // However often it changes before it is read.
        for version in ["2", "3"] {
            assert_eq!(tracker.apply(&key("a"), &object(version, "")), BTreeSet::new(), "it is read first");
        }
        assert_eq!(tracker.source(&key("a")), known("blue"), "what is not read is no change");
        assert_eq!(tracker.take_due(NOW).len(), 1);
        let both = BTreeSet::from([canary("one"), canary("two")]);
        assert_eq!(tracker.take(&key("a"), Ok(Some(object("3", "green"))), NOW), both);
        assert_eq!((tracker.source(&key("a")), tracker.next_due()), (known("green"), None));
    }

    #[test]
    fn what_changes_while_it_is_read_is_reread_unless_that_was_it() {
        for (read, reads) in [("2", 0), ("1", 1)] {
            let mut tracker = tracking(Part::Whole);
            tracker.apply(&key("a"), &object("2", ""));
            assert_eq!(tracker.take_due(NOW), [], "it is being read");
            tracker.take(&key("a"), Ok(Some(object(read, "blue"))), NOW);
            assert_eq!(tracker.take_due(NOW).len(), reads, "{read}");
        }
        for part in [Part::Whole, Part::Metadata] {
            let mut tracker = tracking(part);
            tracker.delete(&key("a"));
            tracker.take(&key("a"), Ok(Some(object("1", "blue"))), NOW);
            assert_eq!(tracker.take_due(NOW), [Read { key: key("a"), part }]);
            tracker.take(&key("a"), Ok(None), NOW);
            assert_eq!((tracker.source(&key("a")), tracker.next_due()), (Source::Absent, None));
        }
    }

    #[test]
    fn a_failure_is_shown_once_it_lasts_and_tried_later_and_later() {
        let failure = |is_transient| ReadFailure { why: "why".into(), is_transient };
        let (mut tracker, mut now) = (tracking(Part::Whole), NOW);
        for (wait, shown) in [(1, false), (2, false), (4, false), (8, true), (16, true), (32, true), (32, true)] {
            tracker.take(&key("a"), Err(failure(true)), now);
            assert_eq!(tracker.source(&key("a")), Source::Unknown(shown.then_some("why")));
            assert_eq!(tracker.next_due(), Some(now.plus(Span::from_secs(wait))));
            now = now.plus(Span::from_secs(wait));
            assert_eq!(tracker.take_due(now).len(), 1);
        }
        tracker.take(&key("a"), Ok(Some(object("1", "blue"))), now);
        assert_eq!((tracker.source(&key("a")), tracker.failure(&key("a"))), (known("blue"), None));
        let mut tracker = tracking(Part::Whole);
        tracker.take(&key("a"), Err(failure(false)), NOW);
        assert_eq!(tracker.failure(&key("a")), Some("why"), "nobody mends it before it is told");
    }

    #[test]
    fn a_copy_is_seen_by_its_metadata() {
        let mut tracker = tracking(Part::Metadata);
        tracker.take(&key("a"), Ok(None), NOW);
        assert_eq!(tracker.copied(&key("a"), &canary("one"), "u"), Copied::Absent);
        // Who wants it first has it, before it is there.
        tracker.hold(&key("a"), &canary("one"));
        assert_eq!(tracker.copied(&key("a"), &canary("two"), "v"), Copied::Foreign);
        let owners = json!([{"uid": "v", "controller": false}, {"uid": "u", "controller": true}]);
        let copy = json!({"metadata": {
            "resourceVersion": "2", "ownerReferences": owners, "annotations": {"wingbeat.dev/checksum": "01"},
        }});
        assert_eq!(tracker.apply(&key("a"), &copy), BTreeSet::from([canary("one")]));
        assert_eq!(tracker.copied(&key("a"), &canary("one"), "u"), Copied::Owned(Some("01")));
        assert_eq!(tracker.copied(&key("a"), &canary("two"), "v"), Copied::Foreign);
        assert_eq!((tracker.next_due(), tracker.version(&key("a"))), (None, Some("2")));
    }

    #[test]
    fn nothing_is_kept_of_what_nobody_needs() {
        let mut tracker = tracking(Part::Whole);
        tracker.take(&key("a"), Ok(Some(object("1", "blue"))), NOW);
        let data = |tracker: &mut Tracker| tracker.data(&key("a"), &checksum(&object("", "blue")));
        assert!(data(&mut tracker).is_some());
        tracker.forget_data();
        assert_eq!(data(&mut tracker), None);
        assert_eq!(tracker.take_due(NOW), [Read { key: key("a"), part: Part::Whole }], "it is read for who needs it");
        tracker.hold(&key("a"), &canary("one"));
        tracker.forget(&canary("one"));
        assert_eq!(tracker.take(&key("a"), Ok(Some(object("1", "blue"))), NOW), BTreeSet::new());
        assert!(tracker.entries.is_empty() && tracker.wanted.is_empty() && tracker.holders.is_empty());
        assert!(tracker.fresh.is_empty() && tracker.due.is_empty());
        assert_eq!(tracker.apply(&key("a"), &object("2", "")), BTreeSet::new());
        assert_eq!(tracker.next_due(), None);
    }

    #[test]
    fn values_in_annotations_are_left_out() {
        let annotations =
            json!({"kubectl.kubernetes.io/last-applied-configuration": "{\"data\":{}}", "wingbeat.dev/checksum": "01"});
        let secret = json!({"metadata": {"name": "a", "annotations": annotations}});
        let kept = json!({"metadata": {"name": "a", "annotations": {"wingbeat.dev/checksum": "01"}}});
        assert_eq!(tidy(Kind::Secret, secret.clone()), kept);
        assert_eq!(tidy(Kind::Service, secret.clone()), secret);
    }
}
