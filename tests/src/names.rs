//! A server of names that answers when it is told to.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::net::UdpSocket;
use tokio::sync::watch;

/// Bytes before the question of a message, by RFC 1035.
const HEADER: usize = 12;
/// A question for addresses of IPv4.
const A: [u8; 4] = [0, 1, 0, 1];

/// Knows every name as 127.0.0.1, once it answers.
#[derive(Debug)]
pub struct Names {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
    answers: watch::Sender<bool>,
}

impl Names {
    /// Starts one that takes questions and does not answer yet.
    pub async fn start() -> Self {
        let socket = Arc::new(UdpSocket::bind(("127.0.0.1", 0)).await.expect("a port"));
        let address = socket.local_addr().expect("an address");
        let (answers, held) = watch::channel(false);
        let asked = Arc::<AtomicUsize>::default();
        let count = asked.clone();
        tokio::spawn(async move {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question).await {
                count.fetch_add(1, Ordering::Relaxed);
                let Some(answer) = question.get(..length).and_then(answer) else { continue };
                let (socket, mut held) = (socket.clone(), held.clone());
                tokio::spawn(async move {
                    if held.wait_for(|answers| *answers).await.is_ok() {
                        let _gone = socket.send_to(&answer, from).await;
                    }
                });
            }
        });
        Self { address, asked, answers }
    }

    /// Returns how often a name was asked for.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Answers what was asked, and what will be.
    pub fn answer(&self) {
        self.answers.send_replace(true);
    }

    /// Returns the part of a bootstrap by which Envoy asks here.
    pub fn resolver(&self) -> Value {
        let address = json!({"address": self.address.ip().to_string(), "port_value": self.address.port()});
        json!({
            "name": "envoy.network.dns_resolver.cares",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig",
                "resolvers": [{"socket_address": address}],
            },
        })
    }
}

/// Returns the answer to a question: an address of IPv4, and none of another kind.
fn answer(question: &[u8]) -> Option<Vec<u8>> {
    let id = question.get(..2)?;
    let name = question.get(HEADER..)?.iter().position(|byte| *byte == 0)?;
    let asked = question.get(HEADER..HEADER + name + 5)?;
    let is_known = asked.ends_with(&A);
    let counts = [0, 1, 0, u8::from(is_known), 0, 0, 0, 0];
    let mut answer = [id, &[0x81, 0x80], &counts, asked].concat();
    if is_known {
        // The name of the question, the kind, a minute to live, four bytes of address.
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    Some(answer)
}
