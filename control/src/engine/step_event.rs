//! What a step has to tell, as it is stored with it.

use serde::{Deserialize, Serialize};
use wingbeat_core::foreign::ForeignText;
use wingbeat_core::id::RolloutId;
use wingbeat_core::rollout::{Effect, Severity};
use wingbeat_core::time::{Span, Timestamp};

/// Characters of an event's text; the rest is cut off.
pub(super) const MAX_EVENT_LEN: usize = 4_096;
/// Who goes on with a canary tells events of its last steps that are not older than this: 1 min. Another replica leads after 15 s;
/// older ones are lost where they were not written.
const RETOLD_WITHIN: Span = Span::from_secs(60);

/// Events of a canary's latest steps that are stored with it: 8. Older ones were told.
pub(super) const MAX_STEP_EVENTS: usize = 8;

/// An event of a step. Who is killed before it is written leaves it to the next leader.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StepEvent {
    /// The rollout that it is of: the next one may have begun since.
    #[serde(default)]
    pub(super) rollout: RolloutId,
    pub(super) at: Timestamp,
    pub(super) severity: Severity,
    pub(super) text: String,
}

impl StepEvent {
    /// Returns true if it may not have been told.
    pub(super) fn is_recent(&self, now: Timestamp) -> bool {
        now.since(self.at) < RETOLD_WITHIN
    }

    /// Returns what effects of a step tell that leads to this rollout.
    pub(super) fn of(effects: &[Effect], rollout: RolloutId, now: Timestamp) -> Vec<Self> {
        let event = |effect: &Effect| match effect {
            Effect::Emit(severity, text) => {
                // Some of it are the words of hooks, metrics and proxies.
                let text = ForeignText::new(text, MAX_EVENT_LEN).into_string();
                Some(Self { rollout, at: now, severity: *severity, text })
            }
            Effect::Alert(_) | Effect::Refuse(_) => None,
        };
        effects.iter().filter_map(event).collect()
    }
}
