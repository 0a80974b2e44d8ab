//! A canary that is good, and breaks.

use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;
use wingbeat_demo::load::Load;

use super::Gateway;

/// Within this time a broken canary has failed its last request, or it is not taken out.
const FAILS: Duration = Duration::from_mins(1);
/// After the last request that failed, none does for this time.
const QUIET: Duration = Duration::from_millis(1_500);
/// Time for a web service to answer what is not for users.
const ANSWER: Duration = Duration::from_secs(5);
/// A Pod that gets no request for this time gets none any more.
const IDLE: Duration = Duration::from_millis(500);

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
    ask(pod, "POST /answer/500").await.expect("it answers");
}

/// Has a Pod at this address answer everything a second later from now on.
pub async fn slow(pod: &str) {
    ask(pod, "POST /slow/1").await.expect("it answers");
}

/// Asks the web service of a Pod for what is not for users, as `GET /idle`, and returns the body of its answer.
pub async fn ask(pod: &str, request: &str) -> anyhow::Result<String> {
    let exchange = async {
        let mut connection = TcpStream::connect(pod).await?;
        let head = format!("{request} HTTP/1.1\r\nhost: web\r\nconnection: close\r\ncontent-length: 0\r\n\r\n");
        connection.write_all(head.as_bytes()).await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        anyhow::Ok(answer)
    };
    let answer = tokio::time::timeout(ANSWER, exchange).await.with_context(|| format!("{pod}: {request}"))??;
    let (_, body) = answer.split_once("\r\n\r\n").with_context(|| format!("{pod}: {request}: {answer:?}"))?;
    Ok(body.to_owned())
}

/// Returns when the last request came to one of these Pods: none does for half a second after it.
pub async fn last_request(pods: &[String]) -> Instant {
    let last = tokio::time::timeout(FAILS, until_last_request(pods)).await;
    last.expect("it gets no more requests")
}

async fn until_last_request(pods: &[String]) -> Instant {
    let mut poll = tokio::time::interval(Duration::from_millis(100));
    loop {
        poll.tick().await;
        let mut least = Duration::MAX;
        let now = Instant::now();
        for pod in pods {
            let idle = ask(pod, "GET /idle").await.expect("it answers").parse().expect("milliseconds");
            least = least.min(Duration::from_millis(idle));
        }
        if least >= IDLE {
            return now.checked_sub(least).unwrap_or(now);
        }
    }
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
