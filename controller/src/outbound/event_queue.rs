//! Delivers events to event hooks: those of a canary in order, one at a time, and what a hook does not take in time is given
//! up. A hook that hangs holds back nobody but its canary's own events.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::Client;
use tokio::runtime::Handle as Tokio;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use wingbeat_core::rollout::Answer;

use super::webhook::{self, Hook, Payload};

/// Events of a canary that wait for a hook. Beyond, the newest are not delivered; the log of events has them all the same.
const CAPACITY: usize = 256;
/// Attempts beyond the first that an event is worth, whatever the hook's `retries`: others wait behind it.
const MOST_RETRIES: u32 = 3;
/// A queue without events for so long is removed, until there is one again.
const IDLE: Duration = Duration::from_mins(1);

/// An event on its way to a hook.
#[derive(Debug)]
pub(super) struct Delivery {
    pub(super) hook: Hook,
    pub(super) payload: Payload,
}

/// The queues, each with a task that empties it.
#[derive(Debug, Clone)]
pub(super) struct EventQueues {
    tokio: Tokio,
    client: Client,
    /// A queue is removed after so long without events.
    idle: Duration,
    queues: Arc<Mutex<Queues>>,
}

/// By namespace and name of the canary, and URL of the hook.
type Queues = BTreeMap<[String; 3], mpsc::Sender<Delivery>>;

impl EventQueues {
    pub(super) fn new(tokio: Tokio, client: Client) -> Self {
        Self { tokio, client, idle: IDLE, queues: Arc::default() }
    }

    /// Adds an event to its queue.
    pub(super) fn push(&self, delivery: Delivery) {
        let Payload { name, namespace, .. } = &delivery.payload;
        let key = [namespace.clone(), name.clone(), delivery.hook.url.clone()];
        let mut queues = self.lock();
        let delivery = if let Some(queue) = queues.get(&key) {
            match queue.try_send(delivery) {
                Ok(()) => return,
                Err(TrySendError::Full(_)) => {
                    let [namespace, name, url] = &key;
                    let hook = webhook::shown(url);
                    tracing::warn!(
                        canary = name,
                        namespace,
                        hook,
                        "an event hook is too slow: an event is not delivered"
                    );
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

    async fn deliver(self, key: [String; 3], mut deliveries: mpsc::Receiver<Delivery>) {
        loop {
            let Ok(Some(Delivery { hook, payload })) = tokio::time::timeout(self.idle, deliveries.recv()).await else {
                let mut queues = self.lock();
                // Who adds something holds the lock.
                if deliveries.is_empty() {
                    queues.remove(&key);
                    return;
                }
                continue;
            };
            let hook = Hook { retries: hook.retries.min(MOST_RETRIES), ..hook };
            match webhook::ask(&self.client, &hook, &payload).await {
                Answer::Passed => {}
                Answer::Failed(why) | Answer::Unknown(why) | Answer::TooFew(why) => {
                    tracing::warn!(why, "an event is not delivered to its hook");
                }
            }
        }
    }

    // A std mutex, never held across an await.
    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const PATIENCE: Duration = Duration::from_mins(1);

    fn delivery(name: &str, url: &str, number: usize) -> Delivery {
        let hook = Hook { url: url.to_owned(), timeout: PATIENCE, retries: 1_000, metadata: BTreeMap::new() };
        let (name, namespace, phase) = (name.to_owned(), "prod".to_owned(), number.to_string());
        Delivery {
            hook,
            payload: Payload { name, namespace, phase, checksum: String::new(), metadata: BTreeMap::new() },
        }
    }

    fn key(name: &str, url: &str) -> [String; 3] {
        ["prod".to_owned(), name.to_owned(), url.to_owned()]
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
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        body["phase"].as_str().unwrap().parse().unwrap()
    }

    /// One canary's hook takes connections and never answers; another's, at the same place, is told everything, in order.
    #[tokio::test]
    async fn a_hook_that_hangs_holds_one_connection_and_nobody_else() {
        let (listener, url) = listener().await;
        let queues = EventQueues::new(Tokio::current(), webhook::posting_client());
        for number in 0..2 * CAPACITY {
            queues.push(delivery("hangs", &url, number));
        }
        let held = accept(&listener).await;
        for number in 0..20 {
            queues.push(delivery("good", &url, number));
        }
        for number in 0..20 {
            assert_eq!(answer(accept(&listener).await).await, number);
        }
        let more = tokio::time::timeout(Duration::from_millis(200), listener.accept()).await;
        assert!(more.is_err(), "the others wait behind the first");
        drop(held);
        // What waited is told; what did not fit is not.
        let waiting = queues.lock()[&key("hangs", &url)].clone();
        assert!(waiting.capacity() <= 1, "{}", waiting.capacity());
    }

    #[tokio::test]
    async fn hooks_that_are_told_nothing_are_forgotten() {
        let queues = EventQueues::new(Tokio::current(), webhook::posting_client());
        let queues = EventQueues { idle: Duration::from_millis(10), ..queues };
        let (listener, url) = listener().await;
        let key = key("backend", &url);
        for number in 0..3 {
            queues.push(delivery("backend", &url, number));
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
