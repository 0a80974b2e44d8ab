//! What is kept of a canary beside the engine's record: it is found again in its `CanaryState`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use wingbeat_core::id::Revision;
use wingbeat_core::rollout::{Phase, State};
use wingbeat_core::time::Timestamp;

use super::pods::{has_pods, template_of};
use crate::configs::{Content, Contents};
use crate::fence::{Fence, FencedRevision, TargetVersion};
use crate::object::{number, put, text};

/// What is kept of a canary.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Record {
    /// The last spec without errors.
    pub(super) accepted: Option<Accepted>,
    /// The target's revision, with what it was taken from.
    pub(super) fence: Option<FencedRevision>,
    /// The primary's template as it runs, while it is the one that serves: "back" exists in every phase (P27).
    pub(super) promoted: Option<Template>,
    /// The target's template, while it is under judgement: what passed is promoted, whatever the target asks for by then.
    pub(super) candidate: Option<Template>,
    /// What the target was scaled for last, which is done once (P33).
    pub(super) scaled_for: Option<String>,
    /// The command that was answered last: it acts once.
    pub(super) commanded: Option<String>,
    /// The primary that was given its size, which is done once, too.
    pub(super) sized: Option<Size>,
    /// The primary's revision with which its scaler was copied, which is done once.
    pub(super) scaler: Option<Revision>,
    /// What was in ConfigMaps and Secrets when the target's Pods started, as [`Contents::digest`] has it: they read it then.
    pub(super) started_with: Option<String>,
    /// What the Service of the target's name chose before it led to the primary, of one that was there before.
    pub(super) entry: Option<Value>,
    /// How far the Canary's deletion is.
    pub(super) deletion: Option<Deletion>,
}

/// How far the deletion of a Canary is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deletion {
    /// When it was seen first.
    pub(super) since: Timestamp,
    pub(super) stage: Stage,
}

/// Who serves after a Canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// The target, once it is ready.
    Waits,
    /// The target, which was ready and has the requests.
    Leads,
    /// The primary: the target did not become ready in time.
    GivenUp,
}

impl Stage {
    /// All of them.
    const ALL: [Self; 3] = [Self::Waits, Self::Leads, Self::GivenUp];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Waits => "Waits",
            Self::Leads => "Leads",
            Self::GivenUp => "GivenUp",
        }
    }
}

/// A primary that was given its size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Size {
    /// Which object it is: one that somebody deletes is made anew with this size.
    pub(super) uid: String,
    /// How many Pods it had when its template was kept last.
    pub(super) replicas: u64,
}

/// A spec without errors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Accepted {
    pub(super) generation: u64,
    pub(super) spec: Value,
}

/// A Pod template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    pub(super) revision: Revision,
    /// As a Deployment has it.
    pub(super) pods: Value,
    /// What is in the ConfigMaps and Secrets that the target's refers to: a primary's refers to copies of these.
    pub(super) configs: Contents,
}

impl Record {
    /// Reads what a `CanaryState` holds. What is missing, or none of ours, is not known.
    pub(super) fn read(state: &Value) -> Self {
        let accepted = || {
            let generation = number(state, "/status/acceptedGeneration")?;
            Some(Accepted { generation, spec: state.pointer("/status/acceptedSpec")?.clone() })
        };
        let fence = || {
            let of = |field: &str| text(state, &format!("/status/fence/{field}"));
            Some(FencedRevision {
                fence: Fence {
                    uid: of("uid")?.to_owned(),
                    generation: number(state, "/status/fence/generation")?,
                    replica_set: of("replicaSet").map(str::to_owned),
                },
                revision: Revision::new(of("revision")?),
                hash: Revision::new(of("hash")?),
                configs: Contents::read(state.pointer("/status/fence/configs")),
            })
        };
        Self {
            accepted: accepted(),
            fence: fence(),
            promoted: Template::read(state, "/status/promoted"),
            candidate: Template::read(state, "/status/candidate"),
            scaled_for: text(state, "/status/scaledFor").map(str::to_owned),
            commanded: text(state, "/status/commanded").map(str::to_owned),
            sized: text(state, "/status/sized/uid")
                .zip(number(state, "/status/sized/replicas"))
                .map(|(uid, replicas)| Size { uid: uid.to_owned(), replicas }),
            entry: state.pointer("/status/entry").filter(|it| !it.is_null()).cloned(),
            deletion: Deletion::read(state),
            scaler: text(state, "/status/scaler").map(Revision::new),
            started_with: text(state, "/status/startedWith").map(str::to_owned),
        }
    }

    /// Returns it as fields of the status. What is not there any more is null, for a merge.
    pub(super) fn to_json(&self) -> Value {
        let fence = self.fence.as_ref().map(|fenced| {
            let FencedRevision { fence: Fence { uid, generation, replica_set }, revision, hash, configs } = fenced;
            let mut fence = Map::from_iter([
                ("uid".to_owned(), json!(uid)),
                ("generation".to_owned(), json!(generation)),
                ("revision".to_owned(), json!(revision.as_str())),
                ("hash".to_owned(), json!(hash.as_str())),
            ]);
            put(&mut fence, "replicaSet", replica_set.as_ref().map(|it| json!(it)));
            put(&mut fence, "configs", configs.to_json());
            Value::Object(fence)
        });
        json!({
            "acceptedGeneration": self.accepted.as_ref().map(|accepted| accepted.generation),
            "acceptedSpec": self.accepted.as_ref().map(|accepted| accepted.spec.clone()),
            "fence": fence,
            "promoted": self.promoted.as_ref().map(Template::to_json),
            "candidate": self.candidate.as_ref().map(Template::to_json),
            "scaledFor": self.scaled_for,
            "commanded": self.commanded,
            "entry": self.entry,
            "deletion": self.deletion.map(|Deletion { since, stage }| {
                json!({"sinceMillis": since.as_millis(), "stage": stage.as_str()})
            }),
            "sized": self.sized.as_ref().map(|Size { uid, replicas }| json!({"uid": uid, "replicas": replicas})),
            "scaler": self.scaler.as_ref().map(Revision::as_str),
            "startedWith": self.started_with,
        })
    }

    /// Returns true if the target was scaled down after a rollout, and not up again.
    pub(super) fn was_scaled_down(&self) -> bool {
        self.scaled_for.as_deref().is_some_and(|transition| transition.ends_with("/zero"))
    }

    /// Takes the target as it is, with what is in the ConfigMaps and Secrets that its template refers to.
    pub(super) fn follow(
        &mut self,
        target: &Value,
        version: TargetVersion,
        configs: &BTreeMap<String, Option<Content>>,
    ) {
        let before = self.fence.clone();
        let now = FencedRevision::follow(before.clone(), version, template_of(target), configs);
        let is_same_pods = before.as_ref().is_some_and(|before| {
            before.fence.uid == now.fence.uid && before.fence.replica_set == now.fence.replica_set && has_pods(target)
        });
        // What is tracked from now on was read before, too.
        let was_known = before
            .as_ref()
            .is_some_and(|before| before.revision == now.revision && before.configs.digest() == self.started_with);
        if !is_same_pods || was_known {
            self.started_with = now.configs.digest();
        }
        self.fence = Some(now);
    }

    /// Returns true if the target's Pods have read another ConfigMap or Secret than is there now.
    pub(super) fn has_outdated_pods(&self) -> bool {
        self.fence.as_ref().is_some_and(|fence| fence.configs.digest() != self.started_with)
    }

    /// Notes that a primary was given its size; of one of which that is known, nothing.
    pub(super) fn note_size(&mut self, uid: &str, replicas: u64) {
        if self.sized.as_ref().is_none_or(|sized| sized.uid != uid) {
            self.sized = Some(Size { uid: uid.to_owned(), replicas });
        }
    }

    /// Keeps the templates that a state needs, as far as they are to be had: of the workloads, as they are; and with a
    /// primary's how many Pods it has.
    pub(super) fn keep_templates(
        &mut self,
        state: &State,
        target: &Template,
        primary: Option<&Template>,
        size: Option<u64>,
    ) {
        // In a promotion, the primary runs what is not promoted yet.
        if let (Some(serves), Some(runs)) = (state.primary(), primary)
            && runs.revision == *serves
            && self.promoted.as_ref().is_none_or(|kept| kept.revision != *serves)
        {
            self.promoted = Some(runs.clone());
            if let (Some(sized), Some(replicas)) = (&mut self.sized, size.filter(|replicas| *replicas > 0)) {
                sized.replicas = replicas;
            }
        }
        let under_judgement = match &state.phase {
            Phase::Waiting(_) | Phase::Progressing(_) | Phase::Promoting(_) => state.canary(),
            Phase::Initializing
            | Phase::Initialized { .. }
            | Phase::Finalising { .. }
            | Phase::Succeeded { .. }
            | Phase::Failed { .. } => None,
        };
        match under_judgement {
            None => self.candidate = None,
            Some(canary) if target.revision == *canary && !self.has_candidate(canary) => {
                self.candidate = Some(target.clone());
            }
            // What could not be read at first.
            Some(canary) if target.revision == *canary => {
                if let Some(kept) = &mut self.candidate {
                    kept.configs.clone_from(&target.configs);
                }
            }
            Some(_) => {}
        }
    }

    /// Returns what is in the ConfigMaps and Secrets of a revision, as far as that is known.
    pub(super) fn configs_of(&self, revision: &Revision) -> Contents {
        let kept = [&self.candidate, &self.promoted].into_iter().flatten().find(|kept| kept.revision == *revision);
        let fenced = self.fence.as_ref().filter(|fence| fence.revision == *revision);
        kept.map(|kept| &kept.configs).or_else(|| fenced.map(|fence| &fence.configs)).cloned().unwrap_or_default()
    }

    pub(super) fn has_candidate(&self, revision: &Revision) -> bool {
        self.candidate.as_ref().is_some_and(|kept| kept.revision == *revision)
    }

    pub(super) fn has_promoted(&self, revision: &Revision) -> bool {
        self.promoted.as_ref().is_some_and(|kept| kept.revision == *revision)
    }
}

impl Deletion {
    fn read(state: &Value) -> Option<Self> {
        let since = Timestamp::from_millis(number(state, "/status/deletion/sinceMillis")?);
        let stage = text(state, "/status/deletion/stage")?;
        Some(Self { since, stage: Stage::ALL.into_iter().find(|it| it.as_str() == stage)? })
    }
}

impl Template {
    fn read(state: &Value, pointer: &str) -> Option<Self> {
        let kept = state.pointer(pointer)?;
        let (revision, template) = (Revision::new(text(kept, "/revision")?), kept.get("template")?.clone());
        Some(Self { revision, pods: template, configs: Contents::read(kept.get("configs")) })
    }

    fn to_json(&self) -> Value {
        json!({"revision": self.revision.as_str(), "template": self.pods, "configs": self.configs.to_json()})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_found_again() {
        let configs = Contents::read(Some(&json!({"configmap/a": "01", "secret/b": "absent"})));
        let template = |revision: &str| Template {
            revision: Revision::new(revision),
            pods: json!({"spec": {"a": 1}}),
            configs: configs.clone(),
        };
        let fence = Fence { uid: "u".into(), generation: 3, replica_set: Some("2".into()) };
        let full = Record {
            accepted: Some(Accepted { generation: 4, spec: json!({"targetRef": {}}) }),
            fence: Some(FencedRevision {
                fence,
                revision: Revision::new("r"),
                hash: Revision::new("h"),
                configs: configs.clone(),
            }),
            promoted: Some(template("p")),
            candidate: Some(template("c")),
            scaled_for: Some("2/up".into()),
            commanded: Some("abort/1".into()),
            sized: Some(Size { uid: "p".into(), replicas: 3 }),
            entry: Some(json!({"app": "backend"})),
            deletion: Some(Deletion { since: Timestamp::from_millis(7), stage: Stage::Leads }),
            scaler: Some(Revision::new("p")),
            started_with: Some("01".into()),
        };
        for record in [full, Record::default()] {
            assert_eq!(Record::read(&json!({"status": record.to_json()})), record);
        }
        assert_eq!(Record::read(&json!({"status": {"fence": 7, "promoted": []}})), Record::default());
    }
}
