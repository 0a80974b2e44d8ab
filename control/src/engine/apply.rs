//! Steps of a canary: stored first, then adopted, then told. Aborts are adopted first; what a restart would find out anew is not
//! stored.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use wingbeat_api::desired_state::CanaryConfig;
use wingbeat_core::id::CanaryName;
use wingbeat_core::rollout::{Command, Effect, Event, Severity, State, recovery, step};
use wingbeat_core::time::Timestamp;
use wingbeat_xds_server::lineage::Adoption;

use crate::engine::canary::Canary;
use crate::engine::commit::{Checkpointed, Commanded, MAX_WAITING_COMMANDS, Proposal, Purpose, Recovery};
use crate::engine::pending::{CommandTicket, CommitId, Proposed, WaitingCommand};
use crate::engine::persisted::{PersistedCanary, entry, evidence_key};
use crate::engine::unready_record::UnreadyRecord;
use crate::engine::{Engine, RolloutAlert, status};
use crate::rollout_end::RolloutEnd;
use crate::store::StoreError;

/// What came of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fed {
    /// What followed from it is adopted; perhaps nothing did.
    Adopted,
    /// What follows from it is being stored.
    Proposed,
    /// A step before is being stored: nothing followed, and who feeds it feeds it again.
    Held,
    /// A command makes no sense, or nothing can be stored.
    Refused(String),
}

/// Whether what is adopted is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durability {
    Stored,
    Unstored,
}

/// A command that leads to a step.
struct Ordered {
    /// The ids of commands, with its own.
    commands: VecDeque<String>,
    ticket: CommandTicket,
    /// Told once it is carried out.
    text: Option<String>,
}

impl Engine {
    /// Takes one canary a step further.
    pub(super) fn apply(&mut self, name: &CanaryName, event: &Event, now: Timestamp) -> Fed {
        self.apply_with(name, event, None, now)
    }

    fn apply_with(&mut self, name: &CanaryName, event: &Event, ordered: Option<Ordered>, now: Timestamp) -> Fed {
        let Some(canary) = self.canaries.get(name).filter(|canary| !canary.is_held_from(event)) else {
            return Fed::Adopted;
        };
        // What is being stored may be what a restart finds: no other routes have its rev.
        let from = match canary.proposed {
            Some(Proposed { rev, .. }) => Cow::Owned(State { rev: rev.max(canary.state.rev), ..canary.state.clone() }),
            None => Cow::Borrowed(&canary.state),
        };
        let stepped = step(&canary.config.plan, &from, event, now);
        // Where the step that is being stored leaves nothing that an abort could go back to, a restart would not look for one.
        let aborts = recovery::may_abort_unstored(&canary.state, &stepped.state)
            && canary.proposed.is_none_or(|proposed| proposed.may_be_aborted);
        if canary.proposed.is_some() && !aborts {
            return Fed::Held;
        }
        let refused = stepped.effects.iter().find_map(|effect| match effect {
            Effect::Refuse(why) => Some(why.clone()),
            Effect::Emit(..) | Effect::Alert(_) => None,
        });
        if let Some(why) = refused {
            return Fed::Refused(why);
        }
        let is_same = stepped.state == *from;
        let mut effects = stepped.effects;
        let (commands, ticket) = match ordered {
            Some(Ordered { commands, ticket, text }) => {
                effects.extend(text.map(|text| Effect::Emit(Severity::Normal, text)));
                (Some(commands), Some(ticket))
            }
            None => (None, None),
        };
        if is_same {
            // Most events: each window of each canary is one.
            let is_due = canary.unready_record.is_due(now) && ticket.is_none() && canary.proposed.is_none();
            let record = is_due.then(|| canary.record());
            self.carry_out(name, effects, now);
            return match record {
                Some(record) => {
                    let proposal = Proposal { canary: name.clone(), record, effects: Vec::new(), command: None };
                    self.propose(proposal, now)
                }
                None => Fed::Adopted,
            };
        }
        // Facts change more often than what follows from them. A text that a restart finds out anew may be told once more.
        let is_told_alone = effects.iter().all(|effect| matches!(effect, Effect::Emit(..)));
        if is_told_alone
            && commands.is_none()
            && let Some(unready_record) = canary.unready_record.after(&from, &stepped.state, now)
        {
            self.canaries.change(name, |canary| {
                canary.unready_record = unready_record;
                canary.adopt(stepped.state, now);
            });
            self.mark_due(name);
            self.carry_out(name, effects, now);
            return Fed::Adopted;
        }
        let commands = commands.unwrap_or_else(|| canary.commands.clone());
        let events = canary.step_events(&effects, stepped.state.rollout, now);
        let record = PersistedCanary { events, ..canary.record_of(stepped.state, commands) };
        if aborts {
            // It is served at once, and stored by a later tick: a disk may hang.
            let superseded = canary.proposed;
            self.adopt(name, record, effects, Durability::Unstored, now);
            if let Some(Proposed { id, .. }) = superseded {
                self.settle(name, id, now);
            }
            return Fed::Adopted;
        }
        self.propose(Proposal { canary: name.clone(), record, effects, command: ticket }, now)
    }

    /// Hands a step in, to be adopted once it is stored. What cannot be written down is not begun.
    pub(super) fn propose(&mut self, proposal: Proposal, now: Timestamp) -> Fed {
        let name = proposal.canary.clone();
        if let Some(error) = self.commits.refuse(now).or_else(|| self.commits.refuse_of(&name, now)) {
            return Fed::Refused(error.to_string());
        }
        let entry = match entry(&name, &proposal.record) {
            Ok(entry) => entry,
            Err(error) => return Fed::Refused(error.to_string()),
        };
        let state = &proposal.record.state;
        let (rev, may_be_aborted) = (state.rev, state.may_be_aborted_unstored());
        let id = self.commits.put(Purpose::Step(Box::new(proposal)), vec![entry]);
        self.canaries.change(&name, |canary| canary.proposed = Some(Proposed { id, rev, may_be_aborted }));
        Fed::Proposed
    }

    /// Takes it that a commit was carried out. Told twice, it follows once.
    pub fn committed(&mut self, id: CommitId, now: Timestamp) {
        let Some((purpose, recovery)) = self.commits.committed(id) else { return };
        self.note(recovery);
        match purpose {
            Purpose::Note => {}
            Purpose::Step(proposal) => self.stored(id, *proposal, now),
            Purpose::Aborts(aborts) => self.aborts_are_stored(aborts),
            Purpose::Checkpoint(written) => self.checkpointed(&written),
            Purpose::Events(_) => self.event_journal.stored(),
            Purpose::Texts(_) => self.texts.stored(),
        }
    }

    /// Takes it that a commit was not carried out: nothing of it is stored.
    pub fn refused(&mut self, id: CommitId, error: StoreError, now: Timestamp) {
        let Some((purpose, recovery)) = self.commits.refused(id, error.clone(), now) else { return };
        self.note(recovery);
        match purpose {
            Purpose::Note => {}
            // They are handed in again by a later tick.
            Purpose::Aborts(aborts) => {
                self.commits.note_refused_aborts(&aborts);
                if let [(name, _)] = &aborts[..]
                    && self.canaries.get(name).is_some()
                {
                    self.commits.back_off(name, error, now);
                }
            }
            Purpose::Step(proposal) => {
                let Proposal { canary: name, record, command, .. } = *proposal;
                self.canaries.change(&name, |canary| {
                    canary.unready_record = canary.unready_record.refused(&record.state);
                });
                if let Some(ticket) = command {
                    self.commits.reply(ticket, Err(error.to_string()));
                }
                if self.canaries.get(&name).is_some() {
                    self.commits.back_off(&name, error, now);
                }
                self.settle(&name, id, now);
            }
            Purpose::Checkpoint(written) => {
                let Checkpointed { obsolete, unconfigured, .. } = *written;
                self.obsolete.extend(obsolete);
                self.unconfigured.not_written(unconfigured, |name| self.canaries.get(name).is_some());
                self.reported_since_checkpoint = true;
            }
            Purpose::Events(writes) => self.event_journal.not_stored(writes, now),
            Purpose::Texts(writes) => self.texts.not_stored(writes, now),
        }
    }

    /// Tells it when storing fails, and when it works again.
    fn note(&mut self, recovery: Recovery) {
        match recovery {
            Recovery::None => return,
            Recovery::Failed => {
                let error = self.commits.failure().map(ToString::to_string).unwrap_or_default();
                tracing::error!(error, "nothing can be stored: no step is begun, aborts are served");
            }
            Recovery::Recovered => tracing::warn!("states can be stored again"),
        }
        self.views.all_are_stale();
    }

    /// Adopts a step that is stored, unless an abort took its place.
    fn stored(&mut self, id: CommitId, proposal: Proposal, now: Timestamp) {
        let Proposal { canary: name, record, effects, command } = proposal;
        self.commits.end_backoff(&name);
        match self.canaries.get(&name) {
            Some(canary) if canary.proposed.is_some_and(|proposed| proposed.id == id) => {
                self.adopt(&name, record, effects, Durability::Stored, now);
                if let Some(ticket) = command {
                    self.commits.reply(ticket, Ok(()));
                }
            }
            Some(_) | None => {
                // Should it be configured again, this is what is stored of it.
                self.unconfigured.overwrite(&name, record);
                if let Some(ticket) = command {
                    let why = format!("{name} was rolled back or removed meanwhile");
                    self.commits.reply(ticket, Err(why));
                }
            }
        }
        self.settle(&name, id, now);
    }

    /// Takes over what is stored, or an abort that is to be.
    fn adopt(
        &mut self,
        name: &CanaryName,
        record: PersistedCanary,
        effects: Vec<Effect>,
        durability: Durability,
        now: Timestamp,
    ) {
        let Some(canary) = self.canaries.get(name) else { return };
        let end = canary.end_by(&record.state, now);
        let was_judged = canary.is_judged();
        let has_ended = canary.state.has_rollout() && !record.state.has_rollout();
        let before = canary.is_counted().then(|| canary.epoch());
        // That proxies have routes of another state may have shown since.
        let adoption = match (canary.adoption, record.adoption) {
            (Adoption::Contested, Adoption::Open) => Adoption::Contested,
            (_, adoption) => adoption,
        };
        if let Some(end) = end {
            self.ended.push(RolloutEnd::of(&canary.config.plan, end));
        }
        self.canaries.change(name, |canary| {
            canary.unstored = durability == Durability::Unstored;
            canary.commands = record.commands;
            canary.events = record.events;
            canary.unready_record = UnreadyRecord::Stored;
            canary.first_rev = record.first_rev;
            canary.adoption = adoption;
            if canary.state != record.state {
                canary.adopt(record.state, now);
            }
        });
        self.follow_epoch(name, before);
        if has_ended {
            self.keep_chart(name);
        }
        if was_judged && self.canaries.get(name).is_some_and(|canary| !canary.is_judged()) {
            // No evidence is kept of a rollout that is over.
            self.records.release();
            self.obsolete.insert(evidence_key(name));
        }
        self.mark_due(name);
        self.note_standing(name);
        self.stale_policies.note(name);
        self.carry_out(name, effects, now);
    }

    fn carry_out(&mut self, name: &CanaryName, effects: Vec<Effect>, now: Timestamp) {
        for effect in effects {
            match effect {
                Effect::Emit(severity, text) => self.emit(name, severity, text, now),
                Effect::Alert(alert) => self.alerts.push(RolloutAlert { canary: name.clone(), alert }),
                // The command is answered with it.
                Effect::Refuse(_) => {}
            }
        }
    }

    /// Does what waited for a step to be stored: what was written meanwhile, and commands.
    fn settle(&mut self, name: &CanaryName, id: CommitId, now: Timestamp) {
        self.canaries.change(name, |canary| {
            canary.proposed = canary.proposed.filter(|proposed| proposed.id != id);
        });
        let Some(canary) = self.canaries.measure(name).filter(|canary| canary.proposed.is_none()) else { return };
        if let Some(config) = canary.rewritten.take() {
            self.reconfigure(name, config, now);
            self.mark_due(name);
        }
        if let Some((ticket, answer)) = self.canaries.measure(name).and_then(|canary| canary.waiting_answer.take()) {
            self.answer(name, ticket, answer, now);
        }
        if let Some(canary) = self.canaries.measure(name).filter(|canary| canary.proposed.is_none())
            && std::mem::take(&mut canary.adoption_unstored)
            && let Ok(entry) = entry(name, &canary.record())
        {
            self.commits.put(Purpose::Note, vec![entry]);
        }
        while let Some(canary) = self.canaries.measure(name).filter(|canary| canary.proposed.is_none())
            && let Some(WaitingCommand { command, id, ticket }) = canary.waiting_commands.pop_front()
        {
            if let Some(answer) = self.order(name, command, &id, ticket, now) {
                self.commits.reply(ticket, answer);
            }
        }
    }

    /// Has what is written of a canary in force from now on, as far as it can be; later, if a step under what was written
    /// before is being stored.
    pub(super) fn reconfigure(&mut self, name: &CanaryName, config: Arc<CanaryConfig>, now: Timestamp) {
        let Some(canary) = self.canaries.measure(name) else { return };
        if canary.proposed.is_some() {
            // No step depends on where the revisions are: pods come and go while a disk hangs.
            let revisions = config.workload.revisions.clone();
            canary.rewritten = Some(config);
            self.canaries.move_revisions(name, revisions);
            return;
        }
        canary.rewritten = None;
        let suspended = config.plan.is_suspended() && !canary.config.plan.is_suspended();
        if canary.is_in_policy() {
            self.stale_policies.note(name);
        }
        let waiting = self.canaries.configure(name, config);
        if !waiting.is_empty() {
            let text = status::held_back(name, &waiting);
            self.emit(name, Severity::Warning, text, now);
        }
        if suspended {
            self.emit(name, Severity::Normal, "skipping canary run as object is suspended", now);
        }
    }

    /// Carries a command out, once per id, also across restarts. The error says why it cannot be.
    pub fn command(&mut self, name: &CanaryName, command: Command, id: &str, now: Timestamp) -> Commanded {
        let ticket = self.commits.ticket();
        match self.order(name, command, id, ticket, now) {
            Some(answer) => Commanded::Done(answer),
            None => Commanded::UnderWay(ticket),
        }
    }

    /// Returns the answers to commands that were under way, and forgets them.
    pub fn replies(&mut self) -> Vec<(CommandTicket, Result<(), String>)> {
        self.commits.replies()
    }

    /// Carries a command out. Returns the answer, if it is known already.
    fn order(
        &mut self,
        name: &CanaryName,
        command: Command,
        id: &str,
        ticket: CommandTicket,
        now: Timestamp,
    ) -> Option<Result<(), String>> {
        let Some(canary) = self.canaries.get(name) else { return Some(Err(format!("there is no canary {name}"))) };
        if canary.knows(id) {
            return Some(Ok(()));
        }
        if self.is_learning() && command != Command::Abort {
            return Some(Err("the server is finding out what the proxies serve: try again in a second".to_owned()));
        }
        let fed = match approved_by(command, canary, name) {
            Approval::None => {
                let text = told_of(command, name);
                let ordered = Ordered { commands: canary.commands_with(id), ticket, text };
                self.apply_with(name, &Event::Command(command), Some(ordered), now)
            }
            Approval::Refused(why) => return Some(Err(why)),
            Approval::Given(_) if canary.proposed.is_some() => Fed::Held,
            Approval::Given(text) => {
                let effects = vec![Effect::Emit(Severity::Normal, text)];
                let record = PersistedCanary {
                    commands: canary.commands_with(id),
                    adoption: Adoption::Adopted,
                    events: canary.step_events(&effects, canary.state.rollout, now),
                    ..canary.record()
                };
                self.propose(Proposal { canary: name.clone(), record, effects, command: Some(ticket) }, now)
            }
        };
        match fed {
            Fed::Adopted => Some(Ok(())),
            Fed::Proposed => None,
            Fed::Refused(why) => Some(Err(why)),
            Fed::Held => {
                let canary = self.canaries.measure(name)?;
                if canary.waiting_commands.len() >= MAX_WAITING_COMMANDS {
                    let why = format!(
                        "{MAX_WAITING_COMMANDS} commands of {name} wait for the state to be stored: try again later"
                    );
                    return Some(Err(why));
                }
                canary.waiting_commands.push_back(WaitingCommand { command, id: id.to_owned(), ticket });
                None
            }
        }
    }
}

/// What a command comes to on a canary whose proxies have routes of another state.
enum Approval {
    /// The same as on any other.
    None,
    /// Nothing.
    Refused(String),
    /// These routes may take the place of the others. The text tells it.
    Given(String),
}

fn approved_by(command: Command, canary: &Canary, name: &CanaryName) -> Approval {
    if !canary.is_contested() {
        return Approval::None;
    }
    match command {
        Command::Approve => Approval::Given(format!(
            "Approved {name} by command: {} is its primary at all proxies",
            status::would_serve(canary)
        )),
        Command::Promote | Command::Retry => Approval::Refused(status::unadopted(canary)),
        Command::Pause | Command::Resume | Command::Abort => Approval::None,
    }
}

/// Returns what is told of a command that was carried out. What an abort does tells it.
fn told_of(command: Command, name: &CanaryName) -> Option<String> {
    match command {
        Command::Abort => None,
        Command::Pause => Some(format!("Paused {name} by command")),
        Command::Resume => Some(format!("Resumed {name} by command")),
        Command::Approve => Some(format!("Approved {name} by command")),
        Command::Promote => Some(format!("Skipping the remaining steps of {name} by command")),
        Command::Retry => Some(format!("Retrying {name} by command")),
    }
}
