//! What the controller writes into objects, and nobody else.

use serde_json::{Value, json};

/// What Flagger calls the phases of a rollout. Terminated is never written; it is there since Flagger has it.
const PHASES: [&str; 12] = [
    "",
    "Initializing",
    "Initialized",
    "Waiting",
    "Progressing",
    "WaitingPromotion",
    "Promoting",
    "Finalising",
    "Succeeded",
    "Failed",
    "Terminating",
    "Terminated",
];

/// Returns the schema of `status` of a kind.
pub(super) fn of_kind(kind: &str) -> Value {
    match kind {
        "Canary" => of_canary(),
        "CanaryState" => of_canary_state(),
        _ => json!({
            "type": "object",
            "description": "What came of it.",
            "properties": {"observedGeneration": observed_generation(), "conditions": conditions()},
        }),
    }
}

fn text(doc: &str) -> Value {
    json!({"type": "string", "description": doc})
}

fn whole(doc: &str) -> Value {
    json!({"type": "integer", "format": "int64", "minimum": 0, "description": doc})
}

/// Counts that Flagger writes too, as numbers, and not below zero only by intent.
fn number(doc: &str) -> Value {
    json!({"type": "number", "description": doc})
}

fn time(doc: &str) -> Value {
    json!({"type": "string", "format": "date-time", "description": doc})
}

fn opaque(doc: &str) -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true, "description": doc})
}

fn observed_generation() -> Value {
    whole(
        "The generation of the spec that is in force. Behind metadata.generation, a later one was refused: see conditions.",
    )
}

fn conditions() -> Value {
    json!({
        "type": "array",
        "description": "How it stands. Of a Canary, Promoted is Flagger's.",
        "items": {
            "type": "object",
            "required": ["type", "status", "reason"],
            "properties": {
                "type": text("What it is about."),
                "status": text("True, False or Unknown."),
                "reason": text("Why, in a word."),
                "message": text("Why, and what to do."),
                "observedGeneration": whole("The generation of the spec that it is about."),
                "lastTransitionTime": time("When status changed."),
                "lastUpdateTime": time("When anything of it changed."),
            },
        },
    })
}

/// What Flagger's scripts and dashboards read.
fn of_canary() -> Value {
    json!({
        "type": "object",
        "description": "How the rollout stands.",
        "properties": {
            "phase": {"type": "string", "enum": PHASES, "description": "Where the rollout is."},
            "canaryWeight": number("Percent of requests that the canary gets."),
            "failedChecks": number("Failed checks of this rollout."),
            "iterations": number("Intervals of this A/B test or blue/green rollout."),
            "trackedConfigs": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "Checksums of ConfigMaps and Secrets of the target, like configmap/settings.",
            },
            "lastAppliedSpec": text("The hash of the target's newest Pod template."),
            "lastPromotedSpec": text("The hash of the Pod template that was promoted last."),
            "lastTransitionTime": time("When the status changed."),
            "sessionAffinityCookie": text("The cookie of this rollout's canary."),
            "primarySessionAffinityCookie": text("The cookie of this rollout's primary."),
            "previousSessionAffinityCookie": text("The cookie of the rollout before."),
            "observedGeneration": observed_generation(),
            "conditions": conditions(),
        },
    })
}

/// Written by compare-and-swap on the object's version.
fn of_canary_state() -> Value {
    json!({
        "type": "object",
        "description": "Written before anything is done that follows from it.",
        "required": ["format", "epoch", "record"],
        "properties": {
            "format": {
                "type": "integer", "format": "int64", "minimum": 1,
                "description": "The form of record. A controller reads its own and the one before; a canary with another is left alone.",
            },
            "epoch": whole("How often the lease had changed hands when this was written. A leader of a lower one writes no more."),
            // An API server keeps numbers beyond 64 bits with a sign as floats.
            "record": text("The rollout as the controller keeps it, as JSON. Not for people; its form changes with format."),
            "acceptedGeneration": whole("The generation of acceptedSpec."),
            "acceptedSpec": opaque("The last spec without errors. It stays in force while a later one is refused."),
            "fence": {
                "type": "object",
                "description": "The target as it was when its revision was taken: the same fence, the same revision.",
                "required": ["uid", "generation"],
                "properties": {
                    "uid": text("metadata.uid."),
                    "generation": whole("metadata.generation."),
                    "replicaSet": text("The annotation deployment.kubernetes.io/revision; of a DaemonSet, the newest ControllerRevision."),
                    "revision": text("The revision of the target's Pod template."),
                    "hash": text("The hash of that template today, which an upgrade may change where the revision stays."),
                    "configs": contents(),
                },
            },
            "promoted": {
                "type": "object",
                "description": "The primary as it runs the revision that serves.",
                "properties": {
                    "revision": text("Its revision."),
                    "template": opaque("The primary's Pod template."),
                    "configs": contents(),
                },
            },
            "candidate": {
                "type": "object",
                "description": "What is under judgement: it is promoted as it was, whatever the target asks for by then.",
                "properties": {
                    "revision": text("Its revision."),
                    "template": opaque("The target's Pod template."),
                    "configs": contents(),
                },
            },
            "scaledFor": text("The rollout and phase that the target was scaled for, which is done once."),
            "startedWith": text("What was in ConfigMaps and Secrets when the target's Pods started, as a hash: they read it then."),
            "scaler": text("The primary's revision with which its scaler was copied, which is done once."),
            "commanded": text("The command that was answered last, as the annotation has it: it acts once."),
            "entry": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "The selector of the Service that was there before, which it is given back.",
            },
            "deletion": {
                "type": "object",
                "description": "How far the Canary's deletion is.",
                "properties": {
                    "sinceMillis": whole("When it was seen first, in milliseconds since 1970 by the controller's clock."),
                    "stage": text("Waits for the target, Leads to it, or GivenUp: the primary goes on to serve."),
                },
            },
            "sized": {
                "type": "object",
                "description": "The primary that was given its size, which is done once.",
                "properties": {
                    "uid": text("Which object it is."),
                    "replicas": {
                        "type": "integer",
                        "minimum": 0,
                        "description": "How many Pods it had when its template was kept last. One that is made anew has as many.",
                    },
                },
            },
        },
    })
}

fn contents() -> Value {
    json!({
        "type": "object",
        "additionalProperties": {"type": "string"},
        "description": "What was in the ConfigMaps and Secrets of its template: a checksum of each, absent, or untracked.",
    })
}
