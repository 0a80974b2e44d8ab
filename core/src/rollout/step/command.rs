//! Commands, and why they are refused.

use alloc::format;

use super::super::event::{AlertLevel, Command};
use super::super::state::{Phase, Progress, Promotion, Waiting};
use super::TransitionBuilder;
use super::refusal::refusal;

impl TransitionBuilder<'_> {
    pub(super) fn command_in_progress(&mut self, command: Command, mut progress: Progress) {
        match command {
            Command::Pause if !progress.paused => progress.paused = true,
            Command::Resume if progress.paused => progress.paused = false,
            Command::Abort => {
                self.fail("aborted by command", AlertLevel::Warn, "Rolling back by command.");
                return;
            }
            Command::Approve if progress.gate.is_some() => {
                progress.approved = progress.gate.take();
                progress.round.stage = super::super::round::Stage::Over;
                progress.round.due = self.now;
            }
            Command::Promote if progress.unready.is_none() => {
                self.promote(progress, false);
                return;
            }
            Command::Pause | Command::Resume | Command::Approve | Command::Promote | Command::Retry => {
                self.refuse(refusal(self.plan, &Phase::Progressing(progress), command));
                return;
            }
        }
        self.state.phase = Phase::Progressing(progress);
    }

    pub(super) fn command_while_waiting(&mut self, command: Command, waiting: Waiting) {
        match command {
            Command::Approve => self.confirmed(waiting.primary, waiting.canary, waiting.attempt),
            Command::Abort => self.fail("aborted by command", AlertLevel::Warn, "Rolling back by command."),
            Command::Pause | Command::Resume | Command::Promote | Command::Retry => {
                self.refuse(refusal(self.plan, &Phase::Waiting(waiting), command));
            }
        }
    }

    pub(super) fn abort_promotion(&mut self, promotion: &Promotion) {
        if promotion.intact {
            self.fail("aborted by command", AlertLevel::Warn, "Rolling back by command.");
        } else {
            let name = self.plan.name();
            self.refuse(format!("{name} is Promoting: its primary is already being replaced, there is no way back"));
        }
    }
}
