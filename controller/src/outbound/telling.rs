//! Tells event hooks what happened: each canary's in order, one event at a time, and what a hook does not take in time is
//! given up. A hook that hangs holds back nobody but its canary's own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::Client;
use tokio::runtime::Handle as Tokio;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use wingbeat_core::rollout::Answer;

use super::webhook::{self, Hook, Payload};

/// Events of a canary that wait for a hook. Beyond, the newest are not told; they are in the log of events all the same.
const MOST_WAITING: usize = 256;
/// Attempts beyond the first that an event is worth, whatever the hook's `retries`: others wait behind it.
const MOST_RETRIES: u32 = 3;
/// What is kept of a hook goes after so long without anything to tell.
const IDLE: Duration = Duration::from_mins(1);

/// What a hook is to be told.
#[derive(Debug)]
pub(super) struct Telling {
    pub(super) hook: Hook,
    pub(super) payload: Payload,
}

/// What hooks are to be told, by canary and place.
#[derive(Debug, Clone)]
pub(super) struct Tellings {
    tokio: Tokio,
    client: Client,
    /// After so long without anything to tell, a hook is forgotten until there is something again.
    idle: Duration,
    waiting: Arc<Mutex<Waiting>>,
}

/// By namespace, name and URL.
type Waiting = BTreeMap<[String; 3], mpsc::Sender<Telling>>;

impl Tellings {
    pub(super) fn new(tokio: Tokio, client: Client) -> Self {
        Self { tokio, client, idle: IDLE, waiting: Arc::default() }
    }

    /// Has a hook told, after what it is to be told already.
    pub(super) fn put(&self, telling: Telling) {
        let Payload { name, namespace, .. } = &telling.payload;
        let key = [namespace.clone(), name.clone(), telling.hook.url.clone()];
        let mut waiting = self.lock();
        let telling = if let Some(hook) = waiting.get(&key) {
            match hook.try_send(telling) {
                Ok(()) => return,
                Err(TrySendError::Full(_)) => {
                    let [namespace, name, url] = &key;
                    let hook = webhook::shown(url);
                    tracing::warn!(canary = name, namespace, hook, "an event hook is too slow: an event is not told");
                    return;
                }
                // Its task ended with the runtime that it was on.
                Err(TrySendError::Closed(telling)) => telling,
            }
        } else {
            telling
        };
        let (hook, tellings) = mpsc::channel(MOST_WAITING);
        let _fits = hook.try_send(telling);
        waiting.insert(key.clone(), hook);
        self.tokio.spawn(self.clone().tell(key, tellings));
    }

    async fn tell(self, key: [String; 3], mut tellings: mpsc::Receiver<Telling>) {
        loop {
            let Ok(Some(Telling { hook, payload })) = tokio::time::timeout(self.idle, tellings.recv()).await else {
                let mut waiting = self.lock();
                // Who puts something in holds the lock.
                if tellings.is_empty() {
                    waiting.remove(&key);
                    return;
                }
                continue;
            };
            let hook = Hook { retries: hook.retries.min(MOST_RETRIES), ..hook };
            match webhook::ask(&self.client, &hook, &payload).await {
                Answer::Passed => {}
                Answer::Failed(why) | Answer::Unknown(why) | Answer::TooFew(why) => {
                    tracing::warn!(why, "an event hook was not told");
                }
            }
        }
    }

    // A std mutex, never held across an await.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const PATIENCE: Duration = Duration::from_mins(1);

    fn telling(name: &str, url: &str, number: usize) -> Telling {
        let hook = Hook { url: url.to_owned(), timeout: PATIENCE, retries: 1_000, metadata: BTreeMap::new() };
        let (name, namespace, phase) = (name.to_owned(), "prod".to_owned(), number.to_string());
        Telling {
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
        let tellings = Tellings::new(Tokio::current(), webhook::posting_client());
        for number in 0..2 * MOST_WAITING {
            tellings.put(telling("hangs", &url, number));
        }
        let held = accept(&listener).await;
        for number in 0..20 {
            tellings.put(telling("good", &url, number));
        }
        for number in 0..20 {
            assert_eq!(answer(accept(&listener).await).await, number);
        }
        let more = tokio::time::timeout(Duration::from_millis(200), listener.accept()).await;
        assert!(more.is_err(), "the others wait behind the first");
        drop(held);
        // What waited is told; what did not fit is not.
        let waiting = tellings.lock()[&key("hangs", &url)].clone();
        assert!(waiting.capacity() <= 1, "{}", waiting.capacity());
    }

    #[tokio::test]
    async fn hooks_that_are_told_nothing_are_forgotten() {
        let tellings = Tellings::new(Tokio::current(), webhook::posting_client());
        let tellings = Tellings { idle: Duration::from_millis(10), ..tellings };
        let (listener, url) = listener().await;
        let key = key("backend", &url);
        for number in 0..3 {
            tellings.put(telling("backend", &url, number));
            assert!(tellings.lock().contains_key(&key));
            assert_eq!(answer(accept(&listener).await).await, number);
            let mut poll = tokio::time::interval(Duration::from_millis(1));
            let gone = async {
                while tellings.lock().contains_key(&key) {
                    poll.tick().await;
                }
            };
            tokio::time::timeout(PATIENCE, gone).await.unwrap();
        }
    }
}
