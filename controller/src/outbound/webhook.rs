//! Webhooks, as Flagger calls them.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::{Client, StatusCode};
use serde::Serialize;
use wingbeat_api::hook::Hook;
use wingbeat_core::foreign::ForeignText;
use wingbeat_core::rollout::Answer;

/// Longest body of an answer that is read; more is cut off.
const MAX_BODY_BYTES: usize = 64 * 1_024;
/// So many characters of an answer are repeated in an event; how many are cut off is said.
const MAX_EXCERPT_LEN: usize = 500;
/// First and longest pause before a retry; in between they double.
const RETRY_DELAYS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// More redirects than this are a loop.
const MAX_REDIRECTS: usize = 5;

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

/// Returns the client for questions that change nothing. It follows redirects on the same host only: who answers cannot
/// make the control plane call somewhere else.
pub fn client() -> Client {
    built(|attempt| {
        let came_from =
            attempt.previous().last().map(|url| (url.host_str().map(str::to_owned), url.port_or_known_default()));
        let goes_to = (attempt.url().host_str().map(str::to_owned), attempt.url().port_or_known_default());
        if attempt.previous().len() > MAX_REDIRECTS {
            attempt.error("too many redirects")
        } else if came_from == Some(goes_to) {
            attempt.follow()
        } else {
            attempt.error("it redirects to another host")
        }
    })
}

/// Returns the client for what is posted. It follows no redirect: most of them turn a POST into a GET, and that the page
/// behind it can be read is no consent.
#[expect(clippy::redundant_closure_for_method_calls, reason = "the method is of one lifetime of attempts, not of all")]
pub fn posting_client() -> Client {
    built(|attempt| attempt.stop())
}

fn built(
    redirect: impl Fn(reqwest::redirect::Attempt<'_>) -> reqwest::redirect::Action + Send + Sync + 'static,
) -> Client {
    Client::builder().redirect(reqwest::redirect::Policy::custom(redirect)).build().unwrap_or_default()
}

/// Asks a hook. Every try has the hook's timeout.
pub async fn ask(client: &Client, hook: &Hook, payload: &Payload) -> Answer {
    let mut pause = RETRY_DELAYS.0;
    let mut attempt = 0;
    loop {
        let said = once(client, hook, payload).await;
        let HookReply::Retryable(why) = said else { return said.into() };
        if attempt == hook.retries {
            let attempts = attempt.saturating_add(1);
            return Answer::Unknown(format!("POST {} giving up after {attempts} attempt(s): {why}", place(&hook.url)));
        }
        attempt = attempt.saturating_add(1);
        tokio::time::sleep(pause).await;
        pause = pause.saturating_mul(2).min(RETRY_DELAYS.1);
    }
}

/// What one attempt came to.
enum HookReply {
    Approved,
    Denied(String),
    /// Nothing that could be understood; asking again may help.
    Retryable(String),
}

impl From<HookReply> for Answer {
    fn from(said: HookReply) -> Self {
        match said {
            HookReply::Approved => Self::Passed,
            HookReply::Denied(why) => Self::Failed(why),
            HookReply::Retryable(why) => Self::Unknown(why),
        }
    }
}

async fn once(client: &Client, hook: &Hook, payload: &Payload) -> HookReply {
    let response = match client.post(&hook.url).timeout(hook.timeout).json(payload).send().await {
        Ok(response) => response,
        // The URL may hold secrets: it is not part of what is told.
        Err(error) => return HookReply::Retryable(cause(&error.without_url())),
    };
    let status = response.status();
    if matches!(status.as_u16(), 200..=202 | 204) {
        return HookReply::Approved;
    }
    // A body that breaks off is told as far as it came.
    let body = body(response, MAX_BODY_BYTES).await.map(|(body, _)| body).unwrap_or_default();
    let body = excerpt(&String::from_utf8_lossy(&body));
    let told = if body.is_empty() { status.to_string() } else { format!("{status}: {body}") };
    if status == StatusCode::TOO_MANY_REQUESTS || (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED) {
        return HookReply::Retryable(told);
    }
    let hint = if status.is_redirection() { ", and redirects of a POST are not followed" } else { "" };
    HookReply::Denied(format!("POST {} {told}{hint}", place(&hook.url)))
}

/// Returns what is repeated of an answer.
pub(super) fn excerpt(text: &str) -> String {
    ForeignText::new(text.trim(), MAX_EXCERPT_LEN).into_string()
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
    parts(url).map_or_else(|| "a URL that cannot be read".to_owned(), |(host, _)| host)
}

/// Returns scheme, host and path of a hook: its query and user may hold secrets.
fn place(url: &str) -> String {
    parts(url).map_or_else(|| "a URL that cannot be read".to_owned(), |(host, path)| excerpt(&format!("{host}{path}")))
}

fn parts(url: &str) -> Option<(String, String)> {
    let url = reqwest::Url::parse(url).ok()?;
    let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
    Some((format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default()), url.path().to_owned()))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use axum::Router;
    use axum::http::StatusCode as Status;
    use axum::response::Redirect;
    use axum::routing::post;

    use super::*;

    async fn server() -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = |status: Status, body: &'static str| post(move || async move { (status, body) });
        // Agrees every second time.
        let fickle = |status: Status| {
            let agrees = Arc::new(AtomicBool::new(false));
            post(move || {
                let answer = if agrees.fetch_not(Ordering::Relaxed) { Status::OK } else { status };
                async move { answer }
            })
        };
        let routes = Router::new()
            .route("/ok", answer(Status::OK, ""))
            .route("/accepted", answer(Status::ACCEPTED, ""))
            .route("/empty", answer(Status::NO_CONTENT, ""))
            .route("/partial", answer(Status::NON_AUTHORITATIVE_INFORMATION, "no"))
            .route("/halt", answer(Status::FORBIDDEN, "Forbidden"))
            .route("/broken", answer(Status::INTERNAL_SERVER_ERROR, "command hey failed:\n\u{1b}[31mno route"))
            .route("/unknown", answer(Status::NOT_IMPLEMENTED, "never"))
            .route("/busy", fickle(Status::SERVICE_UNAVAILABLE))
            .route("/never", fickle(Status::NOT_IMPLEMENTED))
            .route("/page", axum::routing::get(|| async { "<html>please log in</html>" }))
            .route("/found", post(|| async { (Status::FOUND, [("location", "/page")], "") }))
            .route("/near", post(|| async { Redirect::temporary("/ok") }))
            .route("/long", answer(Status::FORBIDDEN, Box::leak("x".repeat(2 * MAX_BODY_BYTES).into_boxed_str())))
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
        let (server, client) = (server().await, posting_client());
        let host = server.replace("user:secret@", "");
        let said = async |path: &str| ask(&client, &hook(format!("{server}{path}?token=hush")), &payload()).await;
        for path in ["/ok", "/accepted", "/empty"] {
            assert_eq!(said(path).await, Answer::Passed, "{path}");
        }
        let no = |path: &str, why: &str| Answer::Failed(format!("POST {host}{path} {why}"));
        assert_eq!(said("/halt").await, no("/halt", "403 Forbidden: Forbidden"));
        assert_eq!(said("/partial").await, no("/partial", "203 Non Authoritative Information: no"));
        assert_eq!(said("/unknown").await, no("/unknown", "501 Not Implemented: never"));
        let Answer::Unknown(why) = said("/broken").await else { panic!("a server's own error is no answer") };
        let told = "giving up after 1 attempt(s): 500 Internal Server Error: command hey failed:\\n\\u{1b}[31mno route";
        assert_eq!(why, format!("POST {host}/broken {told}"));
        let refused = ask(&client, &hook("http://me:hush@127.0.0.1:9/gate?hush".into()), &payload()).await;
        assert!(
            matches!(&refused, Answer::Unknown(why) if why.starts_with("POST http://127.0.0.1:9/gate giving up") && !why.contains("hush")),
            "{refused:?}"
        );
        let Answer::Failed(why) = said("/long").await else { panic!("it refuses") };
        assert!(why.len() < 2 * MAX_EXCERPT_LEN && why.ends_with(" more)"), "{why}");
    }

    #[tokio::test]
    async fn who_is_busy_is_asked_again_as_often_as_the_hook_says_and_who_refuses_is_not() {
        let (server, client) = (server().await, posting_client());
        let said = async |path: &str, retries: u32| {
            let hook = Hook { retries, ..hook(format!("{server}{path}")) };
            ask(&client, &hook, &payload()).await
        };
        assert_eq!(said("/busy", 1).await, Answer::Passed);
        let Answer::Unknown(why) = said("/busy", 0).await else { panic!("it was busy") };
        assert!(why.ends_with("/busy giving up after 1 attempt(s): 503 Service Unavailable"), "{why}");
        let Answer::Failed(why) = said("/never", 1).await else { panic!("it would agree if it was asked again") };
        assert!(why.ends_with("/never 501 Not Implemented"), "{why}");
    }

    /// The page that a POST is sent to may be one to log in (B20).
    #[tokio::test]
    async fn a_redirect_is_no_consent() {
        let (server, client) = (server().await, posting_client());
        for (path, status) in
            [("/found", "302 Found"), ("/near", "307 Temporary Redirect"), ("/far", "307 Temporary Redirect")]
        {
            let said = ask(&client, &hook(format!("{server}{path}")), &payload()).await;
            let Answer::Failed(why) = said else { panic!("{path}: {said:?}") };
            assert!(why.ends_with(&format!("{path} {status}, and redirects of a POST are not followed")), "{why}");
        }
    }

    #[tokio::test]
    async fn the_payload_is_flaggers() {
        let said = ask(&posting_client(), &hook(format!("{}/echo", server().await)), &payload()).await;
        let Answer::Failed(body) = said else { panic!("the server refuses with what it got") };
        assert_eq!(
            body.split_once("Request: ").unwrap_or_default().1,
            r#"{"name":"backend","namespace":"prod","phase":"Progressing","checksum":"85d557f47b","metadata":{"cmd":"true"}}"#
        );
    }
}
