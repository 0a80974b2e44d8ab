//! A canary that is good, and breaks.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;
use wingbeat_demo::load::Load;

use super::Gateway;

/// Within this time a broken canary has failed its last request, or it is not taken out.
const FAILS: Duration = Duration::from_mins(1);
/// After the last request that failed, none does for this time.
const QUIET: Duration = Duration::from_millis(1_500);

impl Gateway {
    /// Returns the addresses of the target's Pods with this version.
    pub async fn canaries(&self, version: &str) -> Vec<String> {
        let path = format!(
            "{{range .items[?(@.spec.containers[0].image==\"wingbeat.test/web:{version}\")]}}{{.status.podIP}} {{end}}"
        );
        let args = ["get", "pods", "--selector=app=backend", &format!("--output=jsonpath={path}")];
        self.kubectl(&args).await.split_whitespace().map(|address| format!("{address}:8080")).collect()
    }
}

/// Has a Pod at this address answer everything with 500 from now on.
pub async fn fail(pod: &str) {
    let mut connection = TcpStream::connect(pod).await.expect("it is reached");
    let head = "POST /answer/500 HTTP/1.1\r\nhost: web\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    connection.write_all(head.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.expect("it answers");
    assert!(answer.starts_with("HTTP/1.1"), "{pod}: {answer:?}");
}

/// Returns when the last request failed: none does for a second and a half after it.
pub async fn last_failure(users: &Load, before: usize) -> Instant {
    let last = tokio::time::timeout(FAILS, until_last_failure(users, before)).await;
    last.expect("requests fail, and then none does any more")
}

async fn until_last_failure(users: &Load, before: usize) -> Instant {
    let (mut failed, mut last) = (before, Instant::now());
    let mut poll = tokio::time::interval(Duration::from_millis(1));
    loop {
        poll.tick().await;
        let now = users.tally().failed.len();
        if now > failed {
            (failed, last) = (now, Instant::now());
        } else if failed > before && last.elapsed() > QUIET {
            return last;
        }
    }
}
