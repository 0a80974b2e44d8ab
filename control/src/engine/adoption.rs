//! Whether this state may take over proxies that have routes of another one (ADR 9).

use wingbeat_core::id::CanaryName;
use wingbeat_core::rollout::{Event, Phase, Severity, State};
use wingbeat_core::time::Timestamp;
use wingbeat_xds_server::client_event::{ClientEvent, ClientEventKind};
use wingbeat_xds_server::lineage::{Adoption, Lineage};

use crate::engine::canary::Canary;
use crate::engine::commit::Purpose;
use crate::engine::persisted::entry;
use crate::engine::{Engine, status};

/// Returns a canary's adoption in its next state. A rollout that ends in this state was decided here, by what proxies showed
/// of it; one that was held for another state's routes was not.
pub(super) const fn adoption_in(now: Adoption, next: &State) -> Adoption {
    match (now, &next.phase) {
        (
            Adoption::Open,
            Phase::Promoting(_) | Phase::Finalising { .. } | Phase::Succeeded { .. } | Phase::Failed { .. },
        ) => Adoption::Adopted,
        (
            Adoption::Open,
            Phase::Initializing | Phase::Initialized { .. } | Phase::Waiting(_) | Phase::Progressing(_),
        )
        | (Adoption::Adopted | Adoption::Contested, _) => now,
    }
}

impl Canary {
    /// Returns true while nothing may move: some proxy has routes of it from another state.
    pub(super) fn is_contested(&self) -> bool {
        self.adoption == Adoption::Contested
    }

    /// Returns true for what would move a rollout that may not move. What can only take the canary's traffic away may.
    pub(super) fn is_held_from(&self, event: &Event) -> bool {
        let moves = match event {
            Event::Revision(_) => !matches!(self.state.phase, Phase::Initializing),
            Event::Answer(..) => true,
            // Facts say that it is held.
            Event::Tick(_) | Event::Command(_) | Event::RevObserved(_) => false,
        };
        moves && self.is_contested()
    }
}

impl Engine {
    /// Returns the lineage of the state.
    pub const fn lineage(&self) -> Lineage {
        self.lineage
    }

    /// Takes it that a proxy has routes of another state: those of canaries of which no rollout has ended here are not
    /// taken over before somebody says so.
    pub(super) fn contest(&mut self, news: &ClientEvent, now: Timestamp) {
        let ClientEventKind::Foreign(hosts) = &news.what else { return };
        if self.clients.may_not_report(news.stream) {
            // It is held by itself, and may claim what it likes.
            tracing::warn!(node = news.node, "an Envoy that may not report came with routes of another state");
            return;
        }
        for host in hosts {
            let Some((namespace, name)) = host.split_once('/') else { continue };
            let name = CanaryName::new(namespace, name);
            let Some(canary) = self.canaries.get(&name).filter(|canary| canary.adoption == Adoption::Open) else {
                continue;
            };
            let text = format!("Envoy {} came with routes of another state. {}", news.node, status::unadopted(canary));
            self.change_adoption(&name, Adoption::Contested);
            // Where it cannot be stored, proxies that come with such routes say it again after a restart.
            match self.canaries.measure(&name) {
                // After the step that is being stored, and not over it.
                Some(canary) if canary.proposed.is_some() => canary.adoption_unstored = true,
                Some(canary) => {
                    if let Ok(entry) = entry(&name, &canary.record()) {
                        self.commits.put(Purpose::Note, vec![entry]);
                    }
                }
                None => {}
            }
            self.emit(&name, Severity::Warning, text, now);
        }
    }

    fn change_adoption(&mut self, name: &CanaryName, adoption: Adoption) {
        self.canaries.change(name, |canary| canary.adoption = adoption);
        self.mark_due(name);
    }
}
