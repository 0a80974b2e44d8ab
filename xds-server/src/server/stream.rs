//! One stream of xDS: feeds its session until the client leaves.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::body::Body;
use envoy_types::pb::envoy::config::core::v3::{ControlPlane, Node};
use envoy_types::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue};
use prost::Message;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Status, Streaming};
use tonic_prost::ProstDecoder;
use wingbeat_core::foreign::ForeignText;

use crate::client_event::{ClientEvent, ClientEventKind};
use crate::kind::Kind;
use crate::lineage::Lineage;
use crate::publisher::Publisher;
use crate::server::access::Cause;
use crate::server::budget::Budget;
use crate::server::gate::{Gate, peer_of};
use crate::server::identity::Peer;
use crate::server::intake::Intake;
use crate::server::service_names;
use crate::server::shares::{Share, Shares};
use crate::server::wire::{self, Answers, Field, Pieces};
use crate::session::{self, Changes, Dialect, Names, ResumeCache, Session};

/// Bytes of a request of xDS. A stream ends with a larger one. It says most where a client of delta comes back: it asks
/// for the endpoints of all clusters, and says which version of each it holds. Of 40,000 with names of 60 bytes, these
/// are 6.4 MB; Envoy's node message is 61 KB.
const MAX_REQUEST: usize = 8 * 1024 * 1024;

/// Streams at a time: 10,000 nodes, each with a stream for every type.
const MAX_STREAMS: usize = 60_000;
/// Bytes of a resource's name. A stream that asks for a longer one is ended.
const MAX_NAME: usize = 1_024;
/// Bytes of all names that a stream asks for, with what it takes to keep them, or says that it holds. One that goes beyond
/// is ended. Enough for a client of delta that comes back with 40,000 clusters: it names each three times, of 60 bytes these
/// are 7.2 MB, and as much is kept.
const MAX_NAMED: usize = 2 * MAX_REQUEST;
/// The same of all streams. Nobody may have more than is left for all others.
const MAX_NAMED_TOTAL: usize = 256 * 1024 * 1024;
/// Characters of what a client says of a refusal.
const MAX_ERROR_LEN: usize = 1_024;
/// A client says who it is within this time.
const FIRST_REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Responses that wait for a client that reads slowly: one a type is outstanding, so it never needs more.
const QUEUE: usize = Kind::ALL.len();

/// The discovery services.
pub(super) struct Discovery<I> {
    store: Publisher,
    gate: Gate<I>,
    memory: ResumeCache,
    streams: Shares,
    named: Shares,
    /// Number of the latest stream.
    latest: AtomicU64,
}

impl<I: Intake> Discovery<I> {
    pub(super) fn new(store: Publisher, gate: Gate<I>) -> Self {
        let (streams, named) = (Shares::new(MAX_STREAMS), Shares::new(MAX_NAMED_TOTAL));
        Self { store, gate, memory: ResumeCache::default(), streams, named, latest: AtomicU64::new(0) }
    }

    /// Opens a stream of one type, or of all.
    pub(super) fn open<M: Dialogue>(
        &self,
        only: Option<Kind>,
        request: http::Request<Body>,
    ) -> Result<http::Response<Body>, Status> {
        let (head, body) = request.into_parts();
        let peer = peer_of(&head.extensions)?;
        // Those on this machine share with each other.
        let owner = peer.source("");
        let full = || {
            let why = format!("{peer} has as many streams as are left for all others: close some, or come again later");
            self.gate.refuse(&peer, (Cause::Share, Status::resource_exhausted(why)))
        };
        let (stream, named) = self.streams.take(&owner, 1).zip(self.named.take(&owner, 0)).ok_or_else(full)?;
        let (responses, answers) = mpsc::channel(QUEUE);
        let number = self.latest.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        let open = Open {
            store: self.store.clone(),
            gate: self.gate.clone(),
            memory: self.memory.clone(),
            peer,
            headers: head.headers,
            only,
            number,
            responses,
            named,
            held: 0,
            budget: Budget::default(),
            _stream: stream,
        };
        let requests = Streaming::new_request(ProstDecoder::default(), body, None, Some(MAX_REQUEST));
        tokio::spawn(open.converse::<M>(requests));
        let mut response = http::Response::new(Body::new(Answers::new(answers)));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        Ok(response)
    }
}

/// A stream that was opened.
struct Open<I> {
    store: Publisher,
    gate: Gate<I>,
    memory: ResumeCache,
    peer: Peer,
    headers: HeaderMap,
    only: Option<Kind>,
    number: u64,
    responses: mpsc::Sender<Result<Pieces, Status>>,
    named: Share,
    /// Bytes of the names that it came with.
    held: usize,
    /// What it may ask.
    budget: Budget,
    _stream: Share,
}

impl<I: Intake> Open<I> {
    /// Converses until the client leaves, or says what it must not say.
    async fn converse<M: Dialogue>(mut self, mut requests: Streaming<M>) {
        let Ok(Ok(Some(mut first))) = tokio::time::timeout(FIRST_REQUEST_TIMEOUT, requests.message()).await else {
            return;
        };
        let node = first.node();
        if let Some(refused) = self.gate.access.refuses_node(&self.peer, &node.id, &node.cluster) {
            let _gone = self.responses.try_send(Err(self.gate.refuse(&self.peer, refused)));
            return;
        }
        let heard = self.gate.access.refuses_reports(&self.peer, &self.headers).is_none();
        let source = heard.then(|| self.peer.source(&node.id));
        let intake = self.gate.intake.clone();
        let number = self.number;
        let tell = |what| intake.news(ClientEvent { node: node.id.clone(), stream: number, what });
        let service = service_names::name(self.only);
        tracing::info!(node = node.id, stream = number, peer = %self.peer, service, "Envoy connected");
        tell(ClientEventKind::Connected { source, node_cluster: node.cluster.clone() });
        let mut session =
            Session::new(M::DIALECT).with_resume_cache(self.memory.clone()).of_lineage(self.store.lineage());
        let ended = self.feed(&mut session, &node.cluster, first, &mut requests, &tell).await;
        if let Err(status) = ended {
            tracing::warn!(node = node.id, stream = number, error = status.message(), "Envoy's stream is ended");
            // Nobody there to hear it is fine.
            let _gone = self.responses.try_send(Err(status));
        }
        tracing::info!(node = node.id, stream = number, "Envoy disconnected");
        tell(ClientEventKind::Left);
    }

    async fn feed<M: Dialogue>(
        &mut self,
        session: &mut Session,
        node_cluster: &str,
        first: M,
        requests: &mut Streaming<M>,
        tell: &impl Fn(ClientEventKind),
    ) -> Result<(), Status> {
        let began = Instant::now();
        let mut served = self.store.watch();
        let known = served.borrow_and_update().clone();
        // Nobody wants anything yet.
        let _nothing = known.map(|views| session.snapshot(&views.of_node(node_cluster), began.elapsed()));
        let mut due = self.react(session, first, began, tell)?;
        loop {
            tell_changes(session.take_changes(), tell);
            for response in due.drain(..) {
                if self.responses.send(Ok(M::write(response, self.store.lineage())?)).await.is_err() {
                    return Ok(());
                }
            }
            let expiry = session.expires().and_then(|expiry| began.checked_add(expiry));
            let opens = began.checked_add(self.budget.opens()).unwrap_or(began);
            let is_early = opens > Instant::now();
            tokio::select! {
                request = next(requests, opens) => match request {
                    Ok(Some(request)) => {
                        if is_early {
                            self.slow();
                        }
                        due = self.react(session, request, began, tell)?;
                    }
                    Ok(None) | Err(_) => return Ok(()),
                },
                changed = served.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    let views = served.borrow_and_update().clone();
                    if let Some(views) = views {
                        due = session.snapshot(&views.of_node(node_cluster), began.elapsed());
                        due.extend(session.follow(&views, began.elapsed()));
                    }
                }
                () = until(expiry) => due = session.expire(began.elapsed()),
            }
        }
    }

    /// Notes that a request had to wait.
    fn slow(&self) {
        let why = format!("stream {} asks more than one may: it is read slower", self.number);
        self.gate.refuse(&self.peer, (Cause::Rate, Status::resource_exhausted(why)));
    }

    fn react<M: Dialogue>(
        &mut self,
        session: &mut Session,
        request: M,
        began: Instant,
        tell: &impl Fn(ClientEventKind),
    ) -> Result<Vec<session::Response>, Status> {
        let (type_url, request) = request.read();
        self.budget.spend(request.names.lengths().count(), began.elapsed());
        // "type_url": implied where a service has one type.
        let kind = if type_url.is_empty() { self.only } else { Kind::from_type_url(&type_url) };
        let Some(kind) = kind.filter(|kind| self.only.is_none_or(|only| only == *kind)) else {
            let type_url = ForeignText::new(&type_url, MAX_NAME);
            tracing::debug!(stream = self.number, %type_url, "asked for a type that is not served");
            return Ok(Vec::new());
        };
        let too_much = |why: String| Status::resource_exhausted(why);
        if let Some(length) = request.names.lengths().find(|length| *length > MAX_NAME) {
            return Err(too_much(format!("a resource's name has {length} bytes, at most {MAX_NAME} are taken")));
        }
        let reaction = session.request(kind, &request, began.elapsed()).map_err(|error| too_much(error.to_string()))?;
        self.held = self.held.saturating_add(request.names.held());
        let named = session.named().saturating_add(self.held);
        if named > MAX_NAMED || !self.named.grow_to(named) {
            return Err(too_much(format!("the names have {named} bytes, more than there is room for: ask for fewer")));
        }
        if let Some(nack) = reaction.nack {
            tell(ClientEventKind::Refused(nack));
        }
        if let Some(kind) = reaction.settled {
            tell(ClientEventKind::Settled(kind));
        }
        Ok(reaction.responses)
    }
}

/// Returns the next request, not before this time. What comes earlier waits on the connection.
async fn next<M>(requests: &mut Streaming<M>, opens: Instant) -> Result<Option<M>, Status> {
    tokio::time::sleep_until(opens).await;
    requests.message().await
}

/// Resolves at this time, if there is one.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

fn tell_changes(changes: Changes, tell: &impl Fn(ClientEventKind)) {
    for (kind, names) in changes.refused {
        tell(ClientEventKind::Refuses(kind, names));
    }
    if let Some(hosts) = changes.foreign {
        tell(ClientEventKind::Foreign(hosts));
    }
    if let Some(clusters) = changes.overdue {
        tell(ClientEventKind::Overdue(clusters));
    }
}

/// A dialect as it is on the wire.
pub(super) trait Dialogue: Message + Default + 'static {
    /// The dialect.
    const DIALECT: Dialect;
    /// Takes the node out of the first request.
    fn node(&mut self) -> Node;
    /// Returns the type's URL, and the rest for the session.
    fn read(self) -> (String, session::Request);
    /// Returns a response as it is sent, made from this state.
    fn write(response: session::Response, lineage: Lineage) -> Result<Pieces, Status>;
}

impl Dialogue for DiscoveryRequest {
    const DIALECT: Dialect = Dialect::StateOfTheWorld;

    fn node(&mut self) -> Node {
        self.node.take().unwrap_or_default()
    }

    fn read(self) -> (String, session::Request) {
        let request = session::Request {
            names: Names::All { names: self.resource_names, version: self.version_info },
            nonce: self.response_nonce,
            error: self.error_detail.map(|status| ForeignText::new(&status.message, MAX_ERROR_LEN).into_string()),
        };
        (self.type_url, request)
    }

    fn write(response: session::Response, lineage: Lineage) -> Result<Pieces, Status> {
        let resources = response.resources.iter().map(|resource| Field::packed(response.kind, resource));
        let resources: Vec<Field> = resources.collect();
        let fields = DiscoveryResponse {
            version_info: lineage.mark(response.version),
            type_url: response.kind.type_url().to_owned(),
            nonce: response.nonce,
            control_plane: Some(control_plane()),
            ..DiscoveryResponse::default()
        };
        wire::message(&fields, &resources)
    }
}

impl Dialogue for DeltaDiscoveryRequest {
    const DIALECT: Dialect = Dialect::Delta;

    fn node(&mut self) -> Node {
        self.node.take().unwrap_or_default()
    }

    fn read(self) -> (String, session::Request) {
        let mut initial: Vec<(String, String)> = self.initial_resource_versions.into_iter().collect();
        initial.sort();
        let request = session::Request {
            names: Names::Change {
                subscribe: self.resource_names_subscribe,
                unsubscribe: self.resource_names_unsubscribe,
                initial,
            },
            nonce: self.response_nonce,
            error: self.error_detail.map(|status| ForeignText::new(&status.message, MAX_ERROR_LEN).into_string()),
        };
        (self.type_url, request)
    }

    fn write(response: session::Response, lineage: Lineage) -> Result<Pieces, Status> {
        let resources = response.resources.iter().map(|resource| Field::versioned(response.kind, resource, lineage));
        let resources: Vec<Field> = resources.collect();
        let fields = DeltaDiscoveryResponse {
            system_version_info: lineage.mark(response.version),
            type_url: response.kind.type_url().to_owned(),
            removed_resources: response.removed,
            nonce: response.nonce,
            control_plane: Some(control_plane()),
            ..DeltaDiscoveryResponse::default()
        };
        wire::message(&fields, &resources)
    }
}

fn control_plane() -> ControlPlane {
    ControlPlane { identifier: concat!("wingbeat/", env!("CARGO_PKG_VERSION")).to_owned() }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::version::Version;

    /// Who comes back in delta says most: what it asks for, and what it holds. It would be refused each time.
    #[test]
    fn what_a_client_with_40_000_clusters_says_is_not_too_much() {
        /// Bytes of the message that says which Envoy it is, with a list of its extensions.
        const NODE: usize = 61 * 1024;
        let version = Lineage::default().mark(Version::of([&b"content"[..]]));
        let names: Vec<String> = (0..40_000).map(|number| format!("{number:060}")).collect();
        let held: HashMap<String, String> = names.iter().map(|name| (name.clone(), version.clone())).collect();
        let clusters = DeltaDiscoveryRequest { initial_resource_versions: held, ..DeltaDiscoveryRequest::default() };
        let endpoints = DeltaDiscoveryRequest { resource_names_subscribe: names, ..clusters.clone() };
        let mut session = Session::new(Dialect::Delta);
        let mut held = 0;
        for (kind, request) in [(Kind::Cluster, clusters), (Kind::Endpoints, endpoints)] {
            assert!(request.encoded_len() + NODE <= MAX_REQUEST, "{} bytes", request.encoded_len());
            let (_, request) = request.read();
            assert_eq!(session.request(kind, &request, Duration::ZERO).unwrap().responses, []);
            held += request.names.held();
        }
        assert!(session.named() + held <= MAX_NAMED, "{} and {held} bytes", session.named());
    }
}
