//! Tests against the real Envoy: see `tests/tests`. Their names begin with `real_envoy_`, so that the fast run can leave
//! them out. Here is what they share.
#![expect(clippy::expect_used, reason = "tests")]

pub mod by_name;
pub mod chart;
pub mod control;
pub mod etcd_away;
pub mod fleet;
pub mod gateway;
pub mod kills;
pub mod lab;
pub mod names;
pub mod rig;
pub mod rollouts;
pub mod takeover;

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use wingbeat_demo::envoy::Envoy;

/// What came back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// The status, if there was one.
    pub status: Option<u16>,
    /// The revision that answered.
    pub revision: Option<String>,
}

/// Sends the bytes of a request on a connection of its own. It has to ask for the connection's end.
pub async fn send(entry: SocketAddr, request: &[u8]) -> Answer {
    let mut connection = TcpStream::connect(entry).await.expect("Envoy accepts");
    connection.write_all(request).await.expect("Envoy reads");
    let mut answer = Vec::new();
    let _reset = connection.read_to_end(&mut answer).await;
    let text = String::from_utf8_lossy(&answer);
    let mut lines = text.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let revision = lines.find_map(|line| line.strip_prefix("x-revision: ").map(str::to_owned));
    Answer { status, revision }
}

/// Returns what an Envoy says of its configuration, as it is on the wire; `query` says of which part.
pub async fn config(envoy: &Envoy, query: &str) -> String {
    let admin = envoy.admin().expect("an administration interface");
    let request = format!("GET /config_dump{query} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    let mut connection = TcpStream::connect(admin).await.expect("Envoy accepts");
    connection.write_all(request.as_bytes()).await.expect("Envoy reads");
    let mut dump = Vec::new();
    connection.read_to_end(&mut dump).await.expect("Envoy answers");
    String::from_utf8_lossy(&dump).into_owned()
}

/// Reads the head of a request without a body, as an upstream does. None if the connection ends before.
pub async fn request_head(connection: &mut TcpStream) -> Option<String> {
    let mut held = Vec::new();
    while !held.ends_with(b"\r\n\r\n") {
        let mut more = [0; 4_096];
        match connection.read(&mut more).await {
            Ok(read @ 1..) => held.extend_from_slice(more.get(..read).unwrap_or_default()),
            Ok(0) | Err(_) => return None,
        }
    }
    Some(String::from_utf8_lossy(&held).into_owned())
}

/// Longest time to wait for what has to come.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until something holds, half a minute at most.
pub async fn reached(holds: impl Fn() -> bool) {
    let mut poll = tokio::time::interval(Duration::from_millis(5));
    let wait = async {
        while !holds() {
            poll.tick().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("it comes to hold");
}
