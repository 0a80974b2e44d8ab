//! Carries questions and messages out, away from the engine's thread.

use std::collections::BTreeMap;

use reqwest::Client;
use tokio::runtime::Handle as Tokio;
use tokio::task::AbortHandle;
use wingbeat_api::alert_provider::Channel;
use wingbeat_api::hook::Hook;
use wingbeat_control::call::{Call, CallTarget};
use wingbeat_control::view::EventView;
use wingbeat_core::id::CanaryName;
use wingbeat_core::rollout::{Alert, Answer, Ticket};

use super::alert::{self, Field};
use super::delivery::{Delivery, DeliveryQueues};
use super::prometheus;
use super::webhook::{self, Payload};

/// Goes out on a runtime of its own accord; what comes back is told by a callback.
#[derive(Debug, Clone)]
pub struct Messenger {
    tokio: Tokio,
    /// For questions that change nothing.
    client: Client,
    /// For hooks, which are posted to.
    posting: Client,
    deliveries: DeliveryQueues,
}

/// What came of a question.
#[derive(Debug, Clone, PartialEq)]
pub struct Answered {
    /// Whose rollout it is.
    pub canary: CanaryName,
    /// The question.
    pub ticket: Ticket,
    /// The answer.
    pub answer: Answer,
    /// The metric that was measured, and its value.
    pub measured: Option<(String, f64)>,
}

impl Messenger {
    /// Returns a messenger that works on this runtime.
    pub fn new(tokio: Tokio) -> Self {
        let posting = webhook::posting_client();
        Self {
            deliveries: DeliveryQueues::new(tokio.clone(), posting.clone()),
            tokio,
            client: webhook::client(),
            posting,
        }
    }

    /// Asks. The callback must not block. Returns what ends the question: a hook may be asked again for hours, and nobody
    /// may want to know any more.
    pub fn ask(&self, call: Call, answered: impl FnOnce(Answered) + Send + 'static) -> AbortHandle {
        let (client, posting) = (self.client.clone(), self.posting.clone());
        let asking = self.tokio.spawn(async move {
            let Call { canary, ticket, target, turn: _ } = call;
            let (answer, measured) = match target {
                CallTarget::Hook { hook, phase, checksum } => {
                    let (name, namespace) = (canary.name.to_string(), canary.namespace.to_string());
                    let payload = Payload { name, namespace, phase, checksum, metadata: hook.metadata.clone() };
                    (webhook::ask(&posting, &hook, &payload).await, None)
                }
                CallTarget::Prometheus(query) => {
                    let found = prometheus::ask(&client, &query).await;
                    let measured = found.as_ref().ok().map(|value| (query.metric.clone(), *value));
                    (prometheus::judge(&canary, &query, found), measured)
                }
            };
            answered(Answered { canary, ticket, answer, measured });
        });
        asking.abort_handle()
    }

    /// Tells an event hook what happened. Its own metadata cannot override that.
    pub fn send_event(&self, hook: Hook, phase: String, checksum: String, event: &EventView, at_ms: u64) {
        let mut metadata: BTreeMap<String, String> = hook.metadata.clone();
        metadata.insert("eventMessage".to_owned(), event.message.clone());
        metadata.insert("eventType".to_owned(), event.kind.clone());
        metadata.insert("timestamp".to_owned(), at_ms.to_string());
        let (name, namespace) = (event.name.clone(), event.namespace.clone());
        let payload = Payload { name, namespace, phase, checksum, metadata };
        self.deliveries.push(Delivery::Event { hook, payload });
    }

    /// Sends an alert, once.
    pub fn alert(&self, channel: &Channel, canary: &CanaryName, alert: &Alert, fields: &[Field]) {
        let body = alert::body(channel, &canary.namespace, &canary.name, alert, fields);
        self.deliveries.push(Delivery::Alert {
            canary: canary.clone(),
            url: alert::target(channel),
            token: channel.token.clone(),
            body,
        });
    }
}
