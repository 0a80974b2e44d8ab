//! Webhooks, as Flagger calls them.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde::Serialize;
use wingbeat_core::rollout::Answer;

/// Longest body of an answer that is read; more is cut off.
const LONGEST_BODY: usize = 64 * 1_024;
/// First and longest pause before a retry; in between they double.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// More redirects than this are a loop.
const MOST_REDIRECTS: usize = 5;

/// A hook of the spec.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// Where it is.
    pub url: String,
    /// Longest time for one attempt.
    pub timeout: Duration,
    /// Attempts beyond the first, on connection errors, 429 and most 5xx.
    pub retries: u32,
    /// Goes along.
    pub metadata: BTreeMap<String, String>,
}

/// What a hook is sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Payload {
    /// Name of the canary.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Flagger's name for the phase.
    pub phase: String,
    /// Stays the same as long as the revision does.
    pub checksum: String,
    /// The hook's own, and for events what happened.
    pub metadata: BTreeMap<String, String>,
}

/// Returns the client that all calls go through. It follows redirects on the same host only: a hook cannot make the
/// control plane call somewhere else.
pub fn client() -> Client {
    let same_host = reqwest::redirect::Policy::custom(|attempt| {
        let came_from =
            attempt.previous().last().map(|url| (url.host_str().map(str::to_owned), url.port_or_known_default()));
        let goes_to = (attempt.url().host_str().map(str::to_owned), attempt.url().port_or_known_default());
        if attempt.previous().len() > MOST_REDIRECTS {
            attempt.error("too many redirects")
        } else if came_from == Some(goes_to) {
            attempt.follow()
        } else {
            attempt.error("it redirects to another host")
        }
    });
    Client::builder().redirect(same_host).build().unwrap_or_default()
}

/// Asks a hook. Every try has the hook's timeout.
pub async fn ask(client: &Client, hook: &Hook, payload: &Payload) -> Answer {
    let mut pause = PAUSES.0;
    let mut attempt = 0;
    loop {
        let said = once(client, hook, payload).await;
        let Said::Again(why) = said else { return said.into() };
        if attempt == hook.retries {
            let attempts = attempt.saturating_add(1);
            return Answer::Unknown(format!("POST {} giving up after {attempts} attempt(s){why}", shown(&hook.url)));
        }
        attempt = attempt.saturating_add(1);
        tokio::time::sleep(pause).await;
        pause = pause.saturating_mul(2).min(PAUSES.1);
    }
}

/// What one attempt came to.
enum Said {
    Yes,
    No(String),
    /// Nothing that could be understood; asking again may help.
    Again(String),
}

impl From<Said> for Answer {
    fn from(said: Said) -> Self {
        match said {
            Said::Yes => Self::Passed,
            Said::No(why) => Self::Failed(why),
            Said::Again(why) => Self::Unknown(why),
        }
    }
}

async fn once(client: &Client, hook: &Hook, payload: &Payload) -> Said {
    let response = match client.post(&hook.url).timeout(hook.timeout).json(payload).send().await {
        Ok(response) => response,
        // The URL may hold secrets: it is not part of what is told.
        Err(error) => return Said::Again(format!(": {}", cause(&error.without_url()))),
    };
    let status = response.status();
    if matches!(status.as_u16(), 200..=202 | 204) {
        return Said::Yes;
    }
    // A body that breaks off is told as far as it came.
    let body = body(response, LONGEST_BODY).await.map(|(body, _)| body).unwrap_or_default();
    let body = String::from_utf8_lossy(&body).trim().to_owned();
    if status == StatusCode::TOO_MANY_REQUESTS || (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED) {
        return Said::Again(String::new());
    }
    Said::No(if body.is_empty() { status.to_string() } else { body })
}

/// Returns the first bytes of an answer, and whether these are all.
pub(super) async fn body(mut response: reqwest::Response, longest: usize) -> Result<(Vec<u8>, bool), reqwest::Error> {
    let mut read = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        read.extend_from_slice(&chunk);
        if read.len() > longest {
            read.truncate(longest);
            return Ok((read, false));
        }
    }
    Ok((read, true))
}

/// Returns the innermost cause: the outer ones only say that a request failed.
pub(super) fn cause(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Returns scheme and host of a URL: path, query and user may hold secrets.
pub(super) fn shown(url: &str) -> String {
    reqwest::Url::parse(url).map_or_else(
        |_| "a URL that cannot be read".to_owned(),
        |url| {
            let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
            format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
        },
    )
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::StatusCode as Status;
    use axum::response::Redirect;
    use axum::routing::post;

    use super::*;

    async fn server() -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = |status: Status, body: &'static str| post(move || async move { (status, body) });
        let routes = Router::new()
            .route("/ok", answer(Status::OK, ""))
            .route("/accepted", answer(Status::ACCEPTED, ""))
            .route("/empty", answer(Status::NO_CONTENT, ""))
            .route("/partial", answer(Status::NON_AUTHORITATIVE_INFORMATION, "no"))
            .route("/halt", answer(Status::FORBIDDEN, "Forbidden"))
            .route("/broken", answer(Status::INTERNAL_SERVER_ERROR, "secret"))
            .route("/unknown", answer(Status::NOT_IMPLEMENTED, "never"))
            .route("/near", post(|| async { Redirect::temporary("/ok") }))
            .route("/far", post(|| async { Redirect::temporary("http://127.0.0.1:9/ok") }))
            .route("/echo", post(|body: String| async move { (Status::BAD_REQUEST, body) }));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        format!("http://user:secret@{address}")
    }

    fn hook(url: String) -> Hook {
        Hook { url, timeout: Duration::from_secs(5), retries: 0, metadata: BTreeMap::new() }
    }

    fn payload() -> Payload {
        Payload {
            name: "backend".into(),
            namespace: "prod".into(),
            phase: "Progressing".into(),
            checksum: "85d557f47b".into(),
            metadata: BTreeMap::from([("cmd".into(), "true".into())]),
        }
    }

    #[tokio::test]
    async fn what_counts_as_yes_no_and_nothing() {
        let (server, client) = (server().await, client());
        let said = async |path: &str| ask(&client, &hook(format!("{server}{path}")), &payload()).await;
        for path in ["/ok", "/accepted", "/empty", "/near"] {
            assert_eq!(said(path).await, Answer::Passed, "{path}");
        }
        assert_eq!(said("/halt").await, Answer::Failed("Forbidden".into()));
        assert_eq!(said("/partial").await, Answer::Failed("no".into()));
        assert_eq!(said("/unknown").await, Answer::Failed("never".into()));
        let Answer::Unknown(why) = said("/broken").await else { panic!("a server's own error is no answer") };
        assert!(why.ends_with("giving up after 1 attempt(s)") && !why.contains("secret"), "{why}");
        let Answer::Unknown(why) = said("/far").await else { panic!("other hosts are not called") };
        assert!(why.contains("another host"), "{why}");
        let refused = ask(&client, &hook("http://127.0.0.1:9/token".into()), &payload()).await;
        assert!(matches!(&refused, Answer::Unknown(why) if !why.contains("token")), "{refused:?}");
    }

    #[tokio::test]
    async fn the_payload_is_flaggers() {
        let Answer::Failed(body) = ask(&client(), &hook(format!("{}/echo", server().await)), &payload()).await else {
            panic!("the server refuses with what it got")
        };
        assert_eq!(
            body,
            r#"{"name":"backend","namespace":"prod","phase":"Progressing","checksum":"85d557f47b","metadata":{"cmd":"true"}}"#
        );
    }
}
