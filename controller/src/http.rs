//! The HTTP API, health and metrics.
//!
//! Reading is open to whoever can reach the address. Commands are taken with the bearer token, or from
//! loopback where there is none, and never on behalf of a page of another origin. Requests for a host that this server
//! is not known by are refused: a page elsewhere whose name leads to this address (DNS rebinding) would
//! be of the same origin, and its reader's browser on the same machine.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::extract::{ConnectInfo, DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use futures::{Stream, StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio_stream::wrappers::BroadcastStream;
use wingbeat_api::RefusedFileView;
use wingbeat_control::view::{EventId, EventView, SummaryView};
use wingbeat_core::foreign::ForeignText;
use wingbeat_core::id::CanaryName;
use wingbeat_xds_server::server::equal_in_constant_time;

use crate::handle::Handle;
use crate::metrics;
use crate::verb::{Refusal, Verb};

pub use serve::{Bounds, serve, serve_waiting};

mod page;
mod serve;
mod tls;

/// Bytes of a request's body; more is answered with 413. A command has a hundred.
const MAX_BODY: usize = 16 * 1024;
/// Characters of a name that is repeated to who sent it.
const MAX_NAME_LEN: usize = 256;
/// Bytes of a command's id. They are stored.
const MAX_ID_LEN: usize = 128;
/// Readers of events at a time; more are answered with 503. Each may stay for as long as it likes.
const MAX_READERS: usize = 64;

/// Says what all of this is, to programs. A test holds it against what is answered.
const OPENAPI: &str = include_str!("openapi.json");

/// What the API is built on.
#[derive(Debug, Clone)]
pub struct Api {
    /// The running control plane.
    pub handle: Handle,
    /// Lets commands in. Without it, they come from loopback only.
    pub token: Option<Arc<str>>,
    /// Names by which this server is known, beside `localhost` and every IP address.
    pub hosts: Arc<[String]>,
    /// Room for readers of events.
    pub readers: Readers,
}

/// Room for those that follow events.
#[derive(Debug, Clone)]
pub struct Readers(Arc<Semaphore>);

impl Default for Readers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(MAX_READERS)))
    }
}

/// Who sent a request.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// Body of a command; the id makes repeating it harmless.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct CommandBody {
    /// Anything that is unique for this command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
}

/// Body of every answer that is not a success.
#[derive(Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What is wrong, for a person.
    pub error: String,
}

#[derive(Debug, Deserialize)]
struct ListQuery {
    #[serde(default)]
    summary: bool,
}

#[derive(Debug, Deserialize)]
struct EventsQuery {
    #[serde(default)]
    follow: bool,
    after: Option<String>,
    namespace: Option<String>,
    name: Option<String>,
}

/// Returns the routes of the API.
pub fn router(api: Api) -> Router {
    let hosts = api.hosts.clone();
    let routes = routes().into_iter().fold(Router::new(), |router, (path, route)| router.route(path, route));
    routes.layer(DefaultBodyLimit::max(MAX_BODY)).layer(from_fn_with_state(hosts, only_for_us)).with_state(api)
}

/// Returns the routes of a replica that waits to lead.
fn waiting_router() -> Router {
    let not_ready = || async { (StatusCode::SERVICE_UNAVAILABLE, "this replica does not lead") };
    Router::new().route("/healthz", get(|| async { "OK" })).route("/readyz", get(not_ready))
}

/// Refuses requests for other hosts.
async fn only_for_us(State(hosts): State<Arc<[String]>>, request: Request, next: Next) -> Response {
    // Health says nothing, and who asks may know this server by any name.
    if matches!(request.uri().path(), "/healthz" | "/readyz") {
        return next.run(request).await;
    }
    let named = request.headers().get(header::HOST).map(|host| host.to_str().unwrap_or_default());
    let host = request.uri().authority().map(axum::http::uri::Authority::as_str).or(named);
    match host.filter(|host| !is_ours(host, &hosts)) {
        None => next.run(request).await,
        Some(host) => {
            let name = ForeignText::new(without_port(host), MAX_NAME_LEN);
            let why = format!("this server is not known as {name}: start it with --allowed-hosts {name} if it is");
            failure(StatusCode::MISDIRECTED_REQUEST, why)
        }
    }
}

/// Returns true for a host that no page elsewhere can have: an IP address, `localhost`, or a name that was allowed.
fn is_ours(host: &str, allowed: &[String]) -> bool {
    let name = without_port(host);
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    address.parse::<IpAddr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    }
}

/// Healthy is a server whose engine decides: one that is not has to be started anew.
async fn healthy(State(api): State<Api>) -> Response {
    if api.handle.is_alive() {
        return "OK".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, "the engine has ended or hangs").into_response()
}

fn routes() -> [(&'static str, MethodRouter<Api>); 13] {
    [
        ("/", get(|asked: HeaderMap| async move { page::index(&asked) })),
        ("/page/{file}", get(page_file)),
        ("/healthz", get(healthy)),
        ("/readyz", get(ready)),
        ("/metrics", get(metrics_text)),
        ("/openapi.json", get(|| async { ([(header::CONTENT_TYPE, "application/json")], OPENAPI) })),
        ("/api/v1/canaries", get(list)),
        ("/api/v1/canaries/{namespace}/{name}", get(one)),
        ("/api/v1/canaries/{namespace}/{name}/rollouts", get(rollouts)),
        ("/api/v1/canaries/{namespace}/{name}/{verb}", post(command)),
        ("/api/v1/events", get(events)),
        ("/api/v1/refused-files", get(refused_files)),
        ("/api/v1/proxies", get(proxies)),
    ]
}

async fn ready(State(api): State<Api>) -> Response {
    if api.handle.status().ready {
        "OK".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "state is not rebuilt yet").into_response()
    }
}

async fn metrics_text(State(api): State<Api>) -> Response {
    match metrics::render(&api.handle.status(), api.handle.refused_peers(), api.handle.rollouts()) {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

async fn page_file(Path(name): Path<String>, asked: HeaderMap) -> Response {
    page::file(&name, &asked).unwrap_or_else(|| {
        let name = ForeignText::new(&name, MAX_NAME_LEN);
        failure(StatusCode::NOT_FOUND, format!("the page has no file {name}"))
    })
}

async fn list(State(api): State<Api>, Query(query): Query<ListQuery>) -> Response {
    let status = api.handle.status();
    if query.summary {
        return Json(status.canaries.values().map(|canary| SummaryView::of(canary)).collect::<Vec<_>>())
            .into_response();
    }
    Json(status.canaries.values().cloned().collect::<Vec<_>>()).into_response()
}

async fn rollouts(State(api): State<Api>, Path((namespace, name)): Path<(String, String)>) -> Response {
    match api.handle.rollouts_of(CanaryName::new(namespace, name)).await {
        Ok(rollouts) => Json(rollouts).into_response(),
        Err(refusal) => refused(&refusal),
    }
}

async fn refused_files(State(api): State<Api>) -> Json<Arc<[RefusedFileView]>> {
    Json(api.handle.status().refused_files.clone())
}

async fn proxies(State(api): State<Api>) -> Response {
    match api.handle.proxies().await {
        Ok(proxies) => Json(proxies).into_response(),
        Err(refusal) => refused(&refusal),
    }
}

async fn one(State(api): State<Api>, Path((namespace, name)): Path<(String, String)>) -> Response {
    match api.handle.status().canaries.get(&(namespace.clone(), name.clone())) {
        Some(canary) => Json(canary.clone()).into_response(),
        None => failure(StatusCode::NOT_FOUND, Refusal::NotFound(CanaryName::new(namespace, name)).to_string()),
    }
}

async fn command(
    State(api): State<Api>,
    ConnectInfo(Peer(peer)): ConnectInfo<Peer>,
    Path((namespace, name, verb)): Path<(String, String, String)>,
    headers: HeaderMap,
    body: Option<Json<CommandBody>>,
) -> Response {
    if let Err(why) = may_command(&headers, peer, api.token.as_deref()) {
        return failure(StatusCode::FORBIDDEN, why);
    }
    let Some(verb) = Verb::parse(&verb) else {
        let verbs = Verb::ALL.map(Verb::as_str).join(", ");
        let verb = ForeignText::new(&verb, MAX_NAME_LEN);
        return failure(StatusCode::NOT_FOUND, format!("there is no verb {verb}; there are {verbs}"));
    };
    let Some(id) = body.and_then(|Json(body)| body.id) else {
        return failure(StatusCode::BAD_REQUEST, "the body lacks an id: {\"id\": \"anything unique\"}".to_owned());
    };
    if id.is_empty() || id.len() > MAX_ID_LEN || !id.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        let why = format!("the id has to be 1 to {MAX_ID_LEN} printable ASCII characters: use a UUID");
        return failure(StatusCode::BAD_REQUEST, why);
    }
    match api.handle.command(CanaryName::new(namespace, name), verb, id).await {
        Ok(()) => Json(serde_json::json!({"done": verb.as_str()})).into_response(),
        Err(refusal) => refused(&refusal),
    }
}

fn refused(refusal: &Refusal) -> Response {
    let status = match refusal {
        Refusal::NotFound(_) => StatusCode::NOT_FOUND,
        Refusal::Conflict(_) => StatusCode::CONFLICT,
        Refusal::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    failure(status, refusal.to_string())
}

/// Returns why the sender of these headers may not command, if so.
fn may_command(headers: &HeaderMap, peer: SocketAddr, token: Option<&str>) -> Result<(), String> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(origin) = text(header::ORIGIN) {
        // A browser adds this to every POST: only the page of this very server may command.
        let host = text(header::HOST).unwrap_or_default();
        if origin.split_once("://").is_none_or(|(_, authority)| authority != host) {
            return Err(format!("a page of {origin} may not command this server"));
        }
    }
    let sent = text(header::AUTHORIZATION).and_then(|value| value.strip_prefix("Bearer "));
    match (token, sent) {
        (Some(token), Some(sent)) if equal_in_constant_time(token.as_bytes(), sent.as_bytes()) => Ok(()),
        (_, Some(_)) => Err("the bearer token is not the server's".to_owned()),
        // Behind an ingress or a port-forward, everybody comes from loopback.
        (Some(_), None) => {
            Err("commands need the server's bearer token: give it with --token or $WINGBEAT_TOKEN".to_owned())
        }
        (None, None) if peer.ip().to_canonical().is_loopback() => Ok(()),
        (None, None) => {
            Err("this server takes commands from its own machine only: it was started without a token".to_owned())
        }
    }
}

async fn events(State(api): State<Api>, Query(query): Query<EventsQuery>, headers: HeaderMap) -> Response {
    let had = query.had(&headers);
    if query.follow {
        let Ok(place) = api.readers.0.clone().try_acquire_owned() else {
            let why = format!("{MAX_READERS} readers follow events already: try again later");
            return failure(StatusCode::SERVICE_UNAVAILABLE, why);
        };
        // A reader that reads slowly holds references, and what is on its way to it.
        let (kept, live) = api.handle.events().retained_and_follow(had);
        let live = BroadcastStream::new(live).filter_map(async |event| event.ok());
        let events = stream::iter(kept).chain(live).filter_map(move |event| {
            let _until_it_leaves = &place;
            // A reader that fell behind goes on with what comes next.
            let event = query.wants(&event).then(|| to_sse(event));
            async move { event }
        });
        return Sse::new(endless(events)).keep_alive(KeepAlive::default()).into_response();
    }
    let events = api.handle.events().retained_after(had);
    Json(events.into_iter().filter(|event| query.wants(event)).collect::<Vec<_>>()).into_response()
}

fn endless(events: impl Stream<Item = Event>) -> impl Stream<Item = Result<Event, Infallible>> {
    events.map(Ok)
}

#[expect(clippy::needless_pass_by_value, reason = "mapped over values")]
fn to_sse(event: Arc<EventView>) -> Event {
    let data = serde_json::to_string(event.as_ref()).unwrap_or_default();
    Event::default().id(event.place().to_string()).data(data)
}

impl EventsQuery {
    /// Returns the event that a reader had last. One that comes back says so in a header; its address is as it was.
    fn had(&self, headers: &HeaderMap) -> Option<EventId> {
        let header = headers.get("last-event-id").and_then(|value| value.to_str().ok());
        header.or(self.after.as_deref()).and_then(|id| id.parse().ok())
    }

    fn wants(&self, event: &EventView) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| *namespace == event.namespace)
            && self.name.as_ref().is_none_or(|name| *name == event.name)
    }
}

fn failure(status: StatusCode, error: String) -> Response {
    (status, Json(ErrorBody { error })).into_response()
}

#[cfg(test)]
mod description;

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect()
    }

    #[test]
    fn commands_come_with_the_token_or_from_loopback_without_one() {
        let near: SocketAddr = "127.0.0.1:40000".parse().unwrap();
        let far: SocketAddr = "10.0.0.9:40000".parse().unwrap();
        let with = |token: &str| headers(&[(header::AUTHORIZATION, &format!("Bearer {token}"))]);
        assert!(may_command(&headers(&[]), near, None).is_ok());
        assert!(may_command(&headers(&[]), far, None).is_err());
        assert!(may_command(&headers(&[]), far, Some("secret")).is_err());
        // Behind an ingress, everybody is near.
        assert!(may_command(&headers(&[]), near, Some("secret")).is_err());
        assert!(may_command(&with("secret"), near, Some("secret")).is_ok());
        assert!(may_command(&with("secret"), near, None).is_err());
        assert!(may_command(&with("secret"), far, Some("secret")).is_ok());
        assert!(may_command(&with("guess!"), far, Some("secret")).is_err());
        assert!(may_command(&with("guess!"), near, Some("secret")).is_err());
    }

    #[test]
    fn only_names_that_no_page_elsewhere_can_have_are_ours() {
        let allowed = ["wingbeat.prod.svc".to_owned()];
        for host in [
            "127.0.0.1:8080",
            "127.0.0.1",
            "[::1]:8080",
            "[::1]",
            "localhost",
            "LOCALHOST:1",
            "10.0.0.9:80",
            "Wingbeat.prod.svc:8080",
        ] {
            assert!(is_ours(host, &allowed), "{host}");
        }
        for host in ["", "evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example:80"] {
            assert!(!is_ours(host, &allowed), "{host}");
        }
    }

    #[test]
    fn a_page_elsewhere_may_not_command() {
        let near: SocketAddr = "127.0.0.1:40000".parse().unwrap();
        let from = |origin: &str| headers(&[(header::ORIGIN, origin), (header::HOST, "127.0.0.1:8080")]);
        assert!(may_command(&from("http://127.0.0.1:8080"), near, None).is_ok());
        assert!(may_command(&from("https://elsewhere.example"), near, None).is_err());
        assert!(may_command(&from("null"), near, None).is_err());
    }
}
