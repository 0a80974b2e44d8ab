//! Delivers events to event hooks, and alerts to channels: those of a canary in order, one at a time, and what is not taken in
//! time is given up. A hook or channel that hangs holds back nobody but its canary's own messages.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::Client;
use serde_json::Value;
use tokio::runtime::Handle as Tokio;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use wingbeat_api::hook::Hook;
use wingbeat_core::id::CanaryName;
use wingbeat_core::rollout::Answer;

use super::webhook::{self, Payload};

/// Messages of a canary that wait for a hook or channel. Beyond, the newest are not delivered; the log of events has them all
/// the same.
const CAPACITY: usize = 256;
/// Attempts beyond the first that an event is worth, whatever the hook's `retries`: others wait behind it.
const MAX_RETRIES: u32 = 3;
/// An alert that is not taken within this time is given up.
const ALERT_TIMEOUT: Duration = Duration::from_secs(5);
/// A queue without messages for so long is removed, until there is one again.
const IDLE: Duration = Duration::from_mins(1);

/// A message on its way.
#[derive(Debug)]
pub(super) enum Delivery {
    /// An event, to a hook.
    Event { hook: Hook, payload: Payload },
    /// An alert, to where a channel takes it.
    Alert { canary: CanaryName, url: String, token: Option<String>, body: Value },
}

impl Delivery {
    fn key(&self) -> Key {
        match self {
            Self::Event { hook, payload } => Key {
                canary: CanaryName::new(payload.namespace.as_str(), payload.name.as_str()),
                url: hook.url.clone(),
            },
            Self::Alert { canary, url, .. } => Key { canary: canary.clone(), url: url.clone() },
        }
    }

    async fn send(self, client: &Client, alert_timeout: Duration) {
        match self {
            Self::Event { hook, payload } => {
                let hook = Hook { retries: hook.retries.min(MAX_RETRIES), ..hook };
                match webhook::ask(client, &hook, &payload).await {
                    Answer::Passed => {}
                    Answer::Failed(why) | Answer::Unknown(why) | Answer::TooFew(why) => {
                        tracing::warn!(why, "an event is not delivered to its hook");
                    }
                }
            }
            Self::Alert { canary, url, token, body } => {
                let post = client.post(&url).timeout(alert_timeout).json(&body);
                let post = if let Some(token) = token { post.bearer_auth(token) } else { post };
                let sent = post.send().await;
                let host = webhook::shown(&url);
                match sent {
                    Ok(response) if response.status().is_success() => {}
                    Ok(response) => tracing::warn!(%canary, host, status = %response.status(), "an alert was refused"),
                    Err(error) => {
                        tracing::warn!(%canary, host, error = %error.without_url(), "an alert could not be sent");
                    }
                }
            }
        }
    }
}

/// Whose messages a queue holds, and where they go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    canary: CanaryName,
    url: String,
}

/// The queues, each with a task that empties it.
#[derive(Debug, Clone)]
pub(super) struct DeliveryQueues {
    tokio: Tokio,
    client: Client,
    /// A queue is removed after so long without messages.
    idle: Duration,
    alert_timeout: Duration,
    queues: Arc<Mutex<Queues>>,
}

type Queues = BTreeMap<Key, mpsc::Sender<Delivery>>;

impl DeliveryQueues {
    pub(super) fn new(tokio: Tokio, client: Client) -> Self {
        Self { tokio, client, idle: IDLE, alert_timeout: ALERT_TIMEOUT, queues: Arc::default() }
    }

    /// Adds a message to its queue.
    pub(super) fn push(&self, delivery: Delivery) {
        let key = delivery.key();
        let mut queues = self.lock();
        let delivery = if let Some(queue) = queues.get(&key) {
            match queue.try_send(delivery) {
                Ok(()) => return,
                Err(TrySendError::Full(_)) => {
                    let (canary, host) = (&key.canary, webhook::shown(&key.url));
                    tracing::warn!(%canary, host, "a hook or channel is too slow: a message is not delivered");
                    return;
                }
                // Its task ended with the runtime that it was on.
                Err(TrySendError::Closed(delivery)) => delivery,
            }
        } else {
            delivery
        };
        let (queue, deliveries) = mpsc::channel(CAPACITY);
        let _fits = queue.try_send(delivery);
        queues.insert(key.clone(), queue);
        self.tokio.spawn(self.clone().deliver(key, deliveries));
    }

    async fn deliver(self, key: Key, mut deliveries: mpsc::Receiver<Delivery>) {
        loop {
            let Ok(Some(delivery)) = tokio::time::timeout(self.idle, deliveries.recv()).await else {
                let mut queues = self.lock();
                // Who adds something holds the lock.
                if deliveries.is_empty() {
                    queues.remove(&key);
                    return;
                }
                continue;
            };
            delivery.send(&self.client, self.alert_timeout).await;
        }
    }

    // A std mutex, never held across an await.
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const PATIENCE: Duration = Duration::from_mins(1);

    fn event(name: &str, url: &str, number: usize) -> Delivery {
        let hook = Hook { url: url.to_owned(), timeout: PATIENCE, retries: 1_000, metadata: BTreeMap::new() };
        let (name, namespace, phase) = (name.to_owned(), "prod".to_owned(), number.to_string());
        let payload = Payload { name, namespace, phase, checksum: String::new(), metadata: BTreeMap::new() };
        Delivery::Event { hook, payload }
    }

    fn alert(name: &str, url: &str, number: usize) -> Delivery {
        let (canary, body) = (CanaryName::new("prod", name), json!({"phase": number.to_string()}));
        Delivery::Alert { canary, url: url.to_owned(), token: None, body }
    }

    fn key(name: &str, url: &str) -> Key {
        Key { canary: CanaryName::new("prod", name), url: url.to_owned() }
    }

    async fn listener() -> (TcpListener, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        (listener, url)
    }

    async fn accept(listener: &TcpListener) -> TcpStream {
        tokio::time::timeout(PATIENCE, listener.accept()).await.expect("somebody comes").unwrap().0
    }

    /// Answers a POST, and returns the number in it.
    async fn answer(mut stream: TcpStream) -> usize {
        let mut heard = String::new();
        let mut bytes = [0; 4_096];
        while !heard.ends_with('}') {
            let read = tokio::time::timeout(PATIENCE, stream.read(&mut bytes)).await.expect("it is said").unwrap();
            assert_ne!(read, 0, "{heard}");
            heard.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        }
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await.unwrap();
        let (_, body) = heard.split_once("\r\n\r\n").unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        body["phase"].as_str().unwrap().parse().unwrap()
    }

    #[tokio::test]
    async fn a_token_goes_with_its_message() {
        let (listener, url) = listener().await;
        let queues = DeliveryQueues::new(Tokio::current(), webhook::posting_client());
        let (canary, token) = (CanaryName::new("prod", "backend"), Some("s3cr3t".to_owned()));
        queues.push(Delivery::Alert { canary, url, token, body: json!({"phase": "1"}) });
        let (mut stream, mut heard, mut bytes) = (accept(&listener).await, String::new(), [0; 4_096]);
        while !heard.ends_with('}') {
            let read = tokio::time::timeout(PATIENCE, stream.read(&mut bytes)).await.expect("it is said").unwrap();
            assert_ne!(read, 0, "{heard}");
            heard.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        }
        assert!(heard.contains("authorization: Bearer s3cr3t\r\n"), "{heard}");
    }

    /// One canary's hook or channel takes connections and never answers; another's, at the same place, gets everything, in
    /// order.
    #[tokio::test]
    async fn one_that_hangs_holds_one_connection_and_nobody_else() {
        for message in [event, alert] {
            let (listener, url) = listener().await;
            let queues = DeliveryQueues::new(Tokio::current(), webhook::posting_client());
            let queues = DeliveryQueues { alert_timeout: PATIENCE, ..queues };
            for number in 0..2 * CAPACITY {
                queues.push(message("hangs", &url, number));
            }
            let held = accept(&listener).await;
            for number in 0..20 {
                queues.push(message("good", &url, number));
            }
            for number in 0..20 {
                assert_eq!(answer(accept(&listener).await).await, number);
            }
            let more = tokio::time::timeout(Duration::from_millis(200), listener.accept()).await;
            assert!(more.is_err(), "the others wait behind the first");
            drop(held);
            // What waited is delivered; what did not fit is not.
            let waiting = queues.lock()[&key("hangs", &url)].clone();
            assert!(waiting.capacity() <= 1, "{}", waiting.capacity());
        }
    }

    #[tokio::test]
    async fn queues_without_messages_are_removed() {
        let queues = DeliveryQueues::new(Tokio::current(), webhook::posting_client());
        let queues = DeliveryQueues { idle: Duration::from_millis(10), ..queues };
        let (listener, url) = listener().await;
        let key = key("backend", &url);
        for number in 0..3 {
            queues.push(event("backend", &url, number));
            assert!(queues.lock().contains_key(&key));
            assert_eq!(answer(accept(&listener).await).await, number);
            let mut poll = tokio::time::interval(Duration::from_millis(1));
            let gone = async {
                while queues.lock().contains_key(&key) {
                    poll.tick().await;
                }
            };
            tokio::time::timeout(PATIENCE, gone).await.unwrap();
        }
    }
}
