//! Whether a target's Pod template changed.
//!
//! A hash alone does not say: defaults that an API server adds, or a hash that an upgrade of ours computes otherwise, would
//! start a rollout of every canary. So what counts is whether the cluster has made a new ReplicaSet. The Deployment's
//! controller writes the number of the newest one into an annotation; that of a template that went back is raised too.
//!
//! | target | newest ReplicaSet | generation | observed | hash | then |
//! |---|---|---|---|---|---|
//! | another one | | | | | [`Moved`](Outcome::Moved) to the hash |
//! | same | another one | | | | `Moved` to the hash |
//! | same | first one | | | same | [`Kept`](Outcome::Kept) |
//! | same | first one | | | another | `Moved` to the hash |
//! | same | same | same | | | `Kept` |
//! | same | same | moved | | same | `Kept` |
//! | same | same | moved | yes | another | `Kept`: replicas or defaults moved, or the target is paused |
//! | same | same | moved | no | another | [`Pending`](Outcome::Pending) |
//!
//! Where one write changes template and replicas, the controller first scales and says that it observed the generation, and
//! makes the ReplicaSet after that. What is kept then has the new hash with the old revision, and moves as soon as the
//! annotation does: the second row asks nothing of the hash.

use std::collections::BTreeMap;

use serde_json::Value;
use wingbeat_core::id::Revision;

use crate::configs::{Content, Contents};
use crate::object::{number, text};

/// Where a Deployment's controller says which ReplicaSet is the newest.
const NEWEST: &str = "deployment.kubernetes.io/revision";

/// What the cluster says of a target's template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.generation`.
    pub generation: u64,
    /// The newest ReplicaSet; nothing where there is none yet.
    pub replica_set: Option<String>,
}

/// A target, as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetVersion {
    /// What the cluster says of it.
    pub fence: Fence,
    /// Whether its controller has seen this generation.
    pub is_observed: bool,
    /// The hash of its template.
    pub hash: Revision,
}

/// A target's revision, with what it was taken from.
///
/// Beside it, and whatever became of the template, stands what was in the ConfigMaps and Secrets that it refers to: see
/// [`FencedRevision::follow`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FencedRevision {
    /// What the cluster said.
    pub fence: Fence,
    /// The revision: the hash of the template when it was new.
    pub revision: Revision,
    /// The hash of the template since.
    pub hash: Revision,
    /// What was in the ConfigMaps and Secrets that it refers to.
    pub configs: Contents,
}

/// What became of a revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is the same one. If this is another value than before, it is to be written down.
    Kept(FencedRevision),
    /// The template is another one, whose revision may be that of one before.
    Moved(FencedRevision),
    /// It cannot be said yet: the target's controller has not seen it.
    Pending,
}

impl TargetVersion {
    /// Reads a Deployment; nothing if it is not one of an API server.
    pub fn read(target: &Value, hash: Revision) -> Option<Self> {
        let generation = number(target, "/metadata/generation")?;
        let newest = target.pointer("/metadata/annotations").and_then(|all| all.get(NEWEST)).and_then(Value::as_str);
        Some(Self {
            fence: Fence {
                uid: text(target, "/metadata/uid")?.to_owned(),
                generation,
                replica_set: newest.map(str::to_owned),
            },
            is_observed: number(target, "/status/observedGeneration").is_some_and(|observed| observed >= generation),
            hash,
        })
    }

    /// Returns its revision where nothing is known of it.
    pub fn first(self) -> FencedRevision {
        let configs = Contents::default();
        FencedRevision { fence: self.fence, revision: self.hash.clone(), hash: self.hash, configs }
    }
}

impl FencedRevision {
    /// Returns what became of it in a target.
    pub fn observe(&self, now: TargetVersion) -> Outcome {
        let kept = |now: TargetVersion| {
            let (revision, configs) = (self.revision.clone(), self.configs.clone());
            Outcome::Kept(Self { fence: now.fence, revision, hash: now.hash, configs })
        };
        if now.fence.uid != self.fence.uid {
            return Outcome::Moved(now.first());
        }
        let is_known = now.hash == self.hash;
        match (&self.fence.replica_set, &now.fence.replica_set) {
            (Some(before), Some(newest)) if before != newest => Outcome::Moved(now.first()),
            (None, Some(_)) if !is_known => Outcome::Moved(now.first()),
            _ if now.fence.generation == self.fence.generation || is_known || now.is_observed => kept(now),
            _ => Outcome::Pending,
        }
    }
}

impl FencedRevision {
    /// Takes a target as it is, with what is in the ConfigMaps and Secrets that its template refers to; nothing: that cannot be
    /// said, and is no change. Neither is what was not known before: a controller that tracks more than the one before it
    /// starts no rollout.
    pub fn follow(
        before: Option<Self>,
        now: TargetVersion,
        template: &Value,
        configs: &BTreeMap<String, Option<Content>>,
    ) -> Self {
        let (mut fenced, is_new) = match before {
            None => (now.first(), true),
            Some(before) => match before.observe(now) {
                Outcome::Kept(kept) => (kept, false),
                Outcome::Moved(moved) => (Self { configs: before.configs, ..moved }, true),
                Outcome::Pending => return before,
            },
        };
        fenced.configs.retain(configs);
        let is_changed = fenced.configs.take(configs);
        if is_new || is_changed {
            fenced.revision = fenced.configs.revision(template);
        }
        fenced
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn version(uid: &str, generation: u64, replica_set: Option<&str>, is_observed: bool, hash: &str) -> TargetVersion {
        let fence = Fence { uid: uid.into(), generation, replica_set: replica_set.map(str::to_owned) };
        TargetVersion { fence, is_observed, hash: Revision::new(hash) }
    }

    fn before() -> FencedRevision {
        let now = version("u", 5, Some("2"), true, "a");
        FencedRevision { revision: Revision::new("r"), ..now.first() }
    }

    /// Every cell: same or another target, same or another ReplicaSet, same or later generation, observed or not, same or
    /// another hash.
    #[test]
    fn every_cell_of_the_table() {
        let mut cells = 0;
        for uid in ["u", "v"] {
            for replica_set in ["2", "3"] {
                for generation in [5, 6] {
                    for is_observed in [true, false] {
                        for hash in ["a", "b"] {
                            let now = version(uid, generation, Some(replica_set), is_observed, hash);
                            let kept = FencedRevision { revision: Revision::new("r"), ..now.clone().first() };
                            let expected = match (uid, replica_set, generation, is_observed, hash) {
                                ("v", ..) | (_, "3", ..) => Outcome::Moved(now.clone().first()),
                                (_, _, 6, false, "b") => Outcome::Pending,
                                _ => Outcome::Kept(kept),
                            };
                            assert_eq!(before().observe(now.clone()), expected, "{now:?}");
                            cells += 1;
                        }
                    }
                }
            }
        }
        assert_eq!(cells, 32);
    }

    #[test]
    fn the_first_replica_set_is_no_change() {
        let made = version("u", 1, None, false, "a").first();
        assert_eq!(made.revision, Revision::new("a"));
        let now = version("u", 1, Some("1"), true, "a");
        let Outcome::Kept(kept) = made.observe(now.clone()) else { panic!("it is the same template") };
        assert_eq!(kept, now.first());
        let changed = version("u", 2, Some("1"), true, "b");
        assert_eq!(made.observe(changed.clone()), Outcome::Moved(changed.first()));
        // It may lose its annotation to somebody who writes all of them.
        assert!(matches!(before().observe(version("u", 5, None, true, "a")), Outcome::Kept(_)));
    }

    /// 0 → 3 replicas, the defaulted object applied, another hash of the same template: none of them is a rollout.
    #[test]
    fn neither_scaling_nor_defaults_nor_an_upgrade_change_a_revision() {
        let mut known = before();
        for now in [
            version("u", 6, Some("2"), false, "a"),
            version("u", 6, Some("2"), true, "a"),
            version("u", 7, Some("2"), true, "defaulted"),
            version("u", 7, Some("2"), true, "of another release"),
        ] {
            let Outcome::Kept(kept) = known.observe(now.clone()) else { panic!("{now:?}") };
            assert_eq!((&kept.revision, &kept.hash), (&Revision::new("r"), &now.hash));
            known = kept;
        }
        let Outcome::Moved(moved) = known.observe(version("u", 8, Some("3"), true, "b")) else { panic!("a change") };
        assert_eq!(moved.revision, Revision::new("b"));
    }

    /// The controller scales first, and makes the ReplicaSet after it said that it had seen the generation.
    #[test]
    fn a_change_that_comes_with_replicas_is_not_missed() {
        let Outcome::Kept(known) = before().observe(version("u", 6, Some("2"), true, "b")) else { panic!("not yet") };
        let made = version("u", 6, Some("3"), true, "b");
        assert_eq!(known.observe(made.clone()), Outcome::Moved(made.first()));
    }

    #[test]
    fn what_is_kept_again_is_the_same_value() {
        let Outcome::Kept(kept) = before().observe(version("u", 5, Some("2"), true, "a")) else { panic!("the same") };
        assert_eq!(kept, before());
    }

    #[test]
    fn a_deployment_is_read_as_an_api_server_gives_it() {
        let mut target = json!({
            "metadata": {"uid": "u", "generation": 5, "annotations": {"deployment.kubernetes.io/revision": "2"}},
            "status": {"observedGeneration": 5},
        });
        let read = |target: &Value| TargetVersion::read(target, Revision::new("a"));
        assert_eq!(read(&target), Some(version("u", 5, Some("2"), true, "a")));
        *target.pointer_mut("/status/observedGeneration").unwrap() = json!(4);
        assert_eq!(read(&target), Some(version("u", 5, Some("2"), false, "a")));
        assert_eq!(read(&json!({"metadata": {"uid": "u", "generation": 1}})), Some(version("u", 1, None, false, "a")));
        assert_eq!(read(&json!({"metadata": {"uid": "u"}})), None);
    }
}
