//! The judge of a canary, and what it is told to go by.

use std::num::NonZeroU32;
use std::sync::Arc;

use wingbeat_core::analysis::judge::{Judge, JudgeConfig};

use crate::engine::canary::Canary;

impl Canary {
    /// Returns the judge of the rollout. It takes kilobytes, and most canaries are at rest: it is made for the first thing that
    /// there is to judge.
    pub(super) fn judge(&mut self) -> &mut Judge {
        let judge = self.judge.take().unwrap_or_else(|| Arc::new(Judge::new(self.judge_config())));
        Arc::make_mut(self.judge.insert(judge))
    }

    /// Returns what the judge goes by, of this attempt.
    pub(super) fn judge_config(&self) -> JudgeConfig {
        if let Some(judge) = &self.judge {
            return judge.config().clone();
        }
        let config = self.config.judge.clone();
        JudgeConfig { attempt: config.attempt.or_else(|| NonZeroU32::new(self.state.attempt())), ..config }
    }
}
