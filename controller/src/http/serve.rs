//! The HTTP port: connections with a bound and a time for everything, in plain text or over TLS.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::Response;
use http_body_util::BodyExt as _;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;
use wingbeat_xds_server::server::{
    Cause, Connections, Intake as _, Limits, OnMismatch, Peer as Client, RefusalLog, Remote, Tls, Wire,
};

use super::{Api, Peer, failure, router, tls, waiting_router};

/// Bytes of a request's headers; more is answered with 431.
const MAX_HEADERS: usize = 16 * 1024;

/// What the port takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Connections at a time. Beyond them, one that waits is closed for each new one.
    pub most: usize,
    /// Keys are agreed on and a request's headers have come within this time, or the connection is closed; also between
    /// two requests.
    pub headers: Duration,
    /// A request that is not there within this time, its body included, is answered with 408. What follows the headers of
    /// an answer, as events do, takes as long as it takes.
    pub answer: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { most: 1_024, headers: Duration::from_secs(10), answer: Duration::from_secs(30) }
    }
}

/// Serves the API until the future is dropped.
pub async fn serve(listener: &TcpListener, tls: Option<&Tls>, bounds: Bounds, api: Api) -> std::io::Result<()> {
    let handle = api.handle.clone();
    serve_routes(listener, tls, bounds, router(api), move || handle.refused(Cause::Tls)).await
}

/// Serves health alone until the future is dropped, while another replica leads: it lives, and is not ready.
pub async fn serve_waiting(listener: &TcpListener, tls: Option<&Tls>, bounds: Bounds) -> std::io::Result<()> {
    serve_routes(listener, tls, bounds, waiting_router(), || {}).await
}

async fn serve_routes(
    listener: &TcpListener,
    tls: Option<&Tls>,
    bounds: Bounds,
    routes: axum::Router,
    refused: impl Fn() + Send + Sync + 'static,
) -> std::io::Result<()> {
    let acceptor = tls.map(tls::config).transpose().map_err(std::io::Error::other)?;
    let acceptor = acceptor.map(|config| TlsAcceptor::from(Arc::new(config)));
    let wire = if acceptor.is_some() { Wire::Tls } else { Wire::Plain };
    let log = RefusalLog::default();
    let on_mismatch = OnMismatch::new(move |address, mend| {
        refused();
        let _unlogged = log.note(Cause::Tls, &Client::Uncertified(address.to_canonical()), mend);
    });
    let limits = Limits { most: bounds.most, waiting: bounds.headers + bounds.answer };
    let connections = Connections::new(limits, wire, on_mismatch);
    loop {
        let connection = connections.accept(listener).await;
        let (remote, routes, acceptor) = (connection.remote().clone(), routes.clone(), acceptor.clone());
        tokio::spawn(async move {
            match acceptor {
                None => talk(connection, remote, routes, bounds).await,
                Some(acceptor) => {
                    if let Ok(Ok(secured)) = tokio::time::timeout(bounds.headers, acceptor.accept(connection)).await {
                        talk(secured, remote, routes, bounds).await;
                    }
                }
            }
        });
    }
}

/// Answers what comes on one connection.
async fn talk<S>(stream: S, remote: Remote, routes: axum::Router, bounds: Bounds)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (remote, routes) = (remote.clone(), routes.clone());
        async move {
            Ok::<_, std::convert::Infallible>(answer(request.map(Body::new), &remote, routes, bounds.answer).await)
        }
    });
    let mut protocol = http1::Builder::new();
    protocol.timer(TokioTimer::new()).header_read_timeout(bounds.headers).max_buf_size(MAX_HEADERS);
    // Whoever breaks off or breaks the rules is gone.
    let _gone = protocol.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(mut request: Request, remote: &Remote, routes: axum::Router, within: Duration) -> Response {
    request.extensions_mut().insert(axum::extract::ConnectInfo(Peer(remote.address())));
    let answered = tokio::time::timeout(within, routes.oneshot(request)).await;
    let late =
        || failure(StatusCode::REQUEST_TIMEOUT, format!("the request was not there within {} s", within.as_secs()));
    let response = match answered {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => late(),
    };
    // Until then it makes way for others: who sends headers may never send the body.
    let busy = remote.busy();
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            // Until the last of it is sent.
            let _answering = &busy;
            frame
        }))
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use wingbeat_api::desired_state::DesiredState;
    use wingbeat_control::engine::Engine;
    use wingbeat_control::store::Entries;
    use wingbeat_control::store::memory::Memory;

    use super::*;
    use crate::http::Readers;
    use crate::runtime::Runtime;

    /// A port with room for so many connections.
    async fn port(bounds: Bounds) -> (Runtime, std::net::SocketAddr) {
        let engine = Engine::open(&Entries::default(), [1; 32]).unwrap();
        let runtime = Runtime::start(
            engine,
            Box::new(Memory::default()),
            DesiredState::default(),
            wingbeat_xds_server::publisher::Publisher::default(),
        )
        .unwrap();
        let api =
            Api { handle: runtime.handle().clone(), token: None, hosts: Arc::default(), readers: Readers::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { serve(&listener, None, bounds, api).await });
        (runtime, address)
    }

    async fn health(address: std::net::SocketAddr) -> String {
        let mut connection = TcpStream::connect(address).await.unwrap();
        connection.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        answer
    }

    /// Half requests push out each other, and nobody else.
    #[tokio::test]
    async fn half_requests_leave_room_for_whole_ones() {
        let (_runtime, address) = port(Bounds { most: 16, ..Bounds::default() }).await;
        let mut half = Vec::new();
        for number in 0..100 {
            let mut connection = TcpStream::connect(address).await.unwrap();
            let begun = if number % 2 == 0 { "" } else { "GET /healthz HTTP/1.1\r\nhost: localh" };
            connection.write_all(begun.as_bytes()).await.unwrap();
            half.push(connection);
        }
        for _ in 0..20 {
            assert!(health(address).await.starts_with("HTTP/1.1 200"));
        }
        let mut open = 0;
        for mut connection in half {
            let read = tokio::time::timeout(Duration::from_millis(100), connection.read(&mut [0; 16])).await;
            open += usize::from(read.is_err());
        }
        assert!(open <= 16, "{open} are still open");
    }

    /// Nobody stays for ever without a request, or with a body that does not come.
    #[tokio::test]
    async fn who_sends_nothing_is_let_go() {
        let short = Duration::from_millis(300);
        let (_runtime, address) = port(Bounds { headers: short, answer: short, ..Bounds::default() }).await;
        let command =
            "POST /api/v1/canaries/a/b/abort HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
        for (sent, answered) in [
            (String::new(), ""),
            ("GET / HT".to_owned(), ""),
            (format!("{command}content-length: 10\r\n\r\n{{"), "HTTP/1.1 408"),
        ] {
            let mut connection = TcpStream::connect(address).await.unwrap();
            connection.write_all(sent.as_bytes()).await.unwrap();
            let mut answer = String::new();
            let read = tokio::time::timeout(Duration::from_secs(5), connection.read_to_string(&mut answer)).await;
            assert!(read.is_ok(), "{sent:?}: it is still open");
            assert!(answer.starts_with(answered) && answer.is_empty() == answered.is_empty(), "{sent:?}: {answer:?}");
        }
    }
}
