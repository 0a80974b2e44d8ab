//! The scalers of a canary: that of its target, which is somebody's, and that of its primary, which is made.

use core::num::NonZeroU64;

use serde_json::Value;
use wingbeat_core::rollout::{Phase, State};

use super::around::Around;
use super::deployment::promoted;
use super::pods::replicas;
use super::record::Record;
use super::write::{Write, differs};
use crate::desire::{Scaling, Settings, Source, first_size, is_raised, primary_scaler_name, scaler_name};
use crate::object::text;
use crate::world::{Kind, ObjectKey};

/// The scalers of a canary, as they are.
#[derive(Debug, Default)]
pub(super) struct Scalers {
    of_target: Option<Value>,
    /// What has the name of the primary's, whosever it is.
    of_primary: Option<Value>,
}

/// What is to be done about the primary's scaler.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ScalerPlan {
    /// Nothing: there is none.
    Nothing,
    Write(Write),
    /// It is as this would make it: needed only where something else is on its way there.
    Settled(Write),
    /// Something is in its way.
    Blocked(Vec<String>),
}

impl Scalers {
    /// Returns what is there of those that the spec in force names.
    pub(super) fn of(around: &Around<'_>) -> Self {
        let named = |name: Option<&str>| around.get(Kind::HorizontalPodAutoscaler, name?);
        let canary = around.in_force;
        let of_primary = primary_scaler_name(canary);
        Self { of_target: named(scaler_name(canary)), of_primary: named(of_primary.as_deref()) }
    }

    /// Returns what has the name of the primary's.
    pub(super) const fn of_primary(&self) -> Option<&Value> {
        self.of_primary.as_ref()
    }

    /// Returns how many Pods the target is given for a rollout: as many as its scaler begins with or, without one, as many as the
    /// primary has.
    pub(super) fn first_size(&self, primary: Option<&Value>) -> u64 {
        let of_primary = || primary.map_or(1, |primary| replicas(primary).max(1));
        self.of_target.as_ref().map_or_else(of_primary, first_size)
    }

    /// Returns what is to be done so that the primary is scaled as the target was when the primary's revision was promoted.
    pub(super) fn plan(
        &self,
        canary: &Value,
        primary: &Value,
        state: &State,
        record: &mut Record,
        settings: &Settings,
    ) -> ScalerPlan {
        let Some(revision) = promoted(primary).map(|it| it.revision) else { return ScalerPlan::Nothing };
        let is_rolling = match &state.phase {
            Phase::Progressing(_) | Phase::Promoting(_) | Phase::Finalising { .. } => true,
            Phase::Initializing
            | Phase::Initialized { .. }
            | Phase::Waiting(_)
            | Phase::Succeeded { .. }
            | Phase::Failed { .. } => false,
        };
        let scaling = Scaling {
            canary,
            of_target: self.of_target.as_ref(),
            of_primary: self.of_primary.as_ref(),
            primary: text(primary, "/metadata/name").unwrap_or_default(),
            source: if record.scaler.as_ref() == Some(&revision) { Source::Copy } else { Source::Target },
            floor: NonZeroU64::new(replicas(primary)).filter(|_| is_rolling),
        };
        let wanted = match scaling.desired(settings) {
            Ok(Some(wanted)) => wanted,
            Ok(None) => {
                record.scaler = None;
                return ScalerPlan::Nothing;
            }
            Err(problems) => return ScalerPlan::Blocked(problems.iter().map(ToString::to_string).collect()),
        };
        let Some(key) = ObjectKey::of(Kind::HorizontalPodAutoscaler, &wanted) else { return ScalerPlan::Nothing };
        // What is applied without them takes them away.
        let has_behavior = |scaler: &Value| scaler.pointer("/spec/behavior").is_some();
        let is_left = |there: &Value| {
            (is_raised(there) && !is_raised(&wanted)) || (has_behavior(there) && !has_behavior(&wanted))
        };
        if self.of_primary.as_ref().is_none_or(|there| differs(&wanted, there) || is_left(there)) {
            ScalerPlan::Write(Write::Apply(key, wanted))
        } else {
            record.scaler = Some(revision);
            ScalerPlan::Settled(Write::Apply(key, wanted))
        }
    }
}
