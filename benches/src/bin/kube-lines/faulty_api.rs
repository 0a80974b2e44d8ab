//! An API server that has hiccups: a proxy before the real one, which answers every third read of ConfigMaps and Secrets itself,
//! with 500 and 429 in turn. All else goes through, watches too, as it comes.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use anyhow::{Context as _, bail};
use reqwest::header::{CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING};
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::scene::put;

/// Of so many reads, one fails.
const EVERY: u64 = 3;
/// The longest head of a request, in bytes.
const MAX_HEAD: usize = 64 * 1_024;

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct FaultyApi {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    client: Client,
    server: String,
    is_faulty: AtomicBool,
    reads: AtomicU64,
    failed: AtomicU64,
}

/// What is asked.
struct Request {
    method: Method,
    path: String,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Vec<u8>,
}

impl FaultyApi {
    /// Opens one before the API server of a kubeconfig, in JSON, which leads to it from then on. It has no hiccups yet.
    pub(crate) async fn before(kubeconfig: &mut Value) -> anyhow::Result<Self> {
        let cluster = kubeconfig.pointer("/clusters/0/cluster").context("a cluster")?;
        let server = cluster.get("server").and_then(Value::as_str).context("an API server")?.to_owned();
        let certificate = cluster.get("certificate-authority").and_then(Value::as_str).context("a certificate")?;
        let certificate = reqwest::Certificate::from_pem_bundle(&std::fs::read(Path::new(certificate))?)?;
        let client = Client::builder().tls_certs_only(certificate).build()?;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        put(kubeconfig, "/clusters/0", "cluster", json!({"server": format!("http://{address}")}))?;
        let shared = Arc::new(Shared {
            client,
            server,
            is_faulty: AtomicBool::new(false),
            reads: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        });
        let served = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let shared = served.clone();
                tokio::spawn(async move {
                    // Whoever asks may go at any time.
                    let _ended = shared.serve(connection).await;
                });
            }
        });
        Ok(Self { address, shared, task })
    }

    /// Begins with hiccups, or ends them.
    pub(crate) fn fail(&self, is_faulty: bool) {
        self.shared.is_faulty.store(is_faulty, Ordering::Relaxed);
    }

    /// Returns how many reads there were while it had hiccups, and how many of them failed.
    pub(crate) fn reads(&self) -> (u64, u64) {
        (self.shared.reads.load(Ordering::Relaxed), self.shared.failed.load(Ordering::Relaxed))
    }

    /// Returns where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for FaultyApi {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    /// Answers requests of a connection, one after the other.
    async fn serve(&self, mut connection: TcpStream) -> anyhow::Result<()> {
        connection.set_nodelay(true)?;
        let mut read = Vec::new();
        while let Some(request) = receive(&mut connection, &mut read).await? {
            if let Some(code) = self.hiccup(&request) {
                connection.write_all(refusal(code).as_bytes()).await?;
                continue;
            }
            let call = self.client.request(request.method, format!("{}{}", self.server, request.path));
            let call = request.headers.into_iter().fold(call, |call, (name, value)| call.header(name, value));
            pass(call.body(request.body).send().await?, &mut connection).await?;
        }
        Ok(())
    }

    /// Returns what a request is refused with, if it is.
    fn hiccup(&self, request: &Request) -> Option<u16> {
        let path = request.path.split('?').next().unwrap_or_default();
        let is_read = request.method == Method::GET
            && path.split('/').any(|part| part == "configmaps" || part == "secrets")
            && self.is_faulty.load(Ordering::Relaxed);
        if !is_read || !(self.reads.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(EVERY) {
            return None;
        }
        let failed = self.failed.fetch_add(1, Ordering::Relaxed);
        Some(if failed.is_multiple_of(2) { 500 } else { 429 })
    }
}

/// Reads a request; nothing where the connection ends before.
async fn receive(connection: &mut TcpStream, read: &mut Vec<u8>) -> anyhow::Result<Option<Request>> {
    let end = loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if read.len() > MAX_HEAD {
            bail!("the head of a request has no end");
        }
        if connection.read_buf(read).await? == 0 {
            return Ok(None);
        }
    };
    let rest = read.split_off(end);
    let head = String::from_utf8(std::mem::replace(read, rest))?;
    let mut lines = head.lines();
    let mut first = lines.next().unwrap_or_default().split(' ');
    let (method, path) = first.next().zip(first.next()).context("a request line")?;
    let (mut headers, mut length) = (Vec::new(), 0);
    for (name, value) in lines.filter_map(|line| line.split_once(": ")) {
        let name: HeaderName = name.parse()?;
        match name.as_str() {
            "content-length" => length = value.parse()?,
            "transfer-encoding" => bail!("{method} {path} is sent in pieces"),
            // Of this connection alone.
            "host" | "connection" => {}
            _ => headers.push((name, value.parse()?)),
        }
    }
    while read.len() < length {
        if connection.read_buf(read).await? == 0 {
            return Ok(None);
        }
    }
    let rest = read.split_off(length);
    let body = std::mem::replace(read, rest);
    Ok(Some(Request { method: method.parse()?, path: path.to_owned(), headers, body }))
}

/// Passes an answer on, piece by piece.
async fn pass(mut answer: Response, connection: &mut TcpStream) -> anyhow::Result<()> {
    let status = answer.status();
    let mut head = format!("HTTP/1.1 {} {}\r\n", status.as_u16(), status.canonical_reason().unwrap_or_default());
    let own = |name: &HeaderName| *name == CONTENT_LENGTH || *name == TRANSFER_ENCODING || name == "connection";
    for (name, value) in answer.headers().iter().filter(|(name, _)| !own(name)) {
        write!(head, "{name}: {}\r\n", value.to_str()?)?;
    }
    head.push_str("transfer-encoding: chunked\r\n\r\n");
    connection.write_all(head.as_bytes()).await?;
    while let Some(piece) = answer.chunk().await? {
        if !piece.is_empty() {
            let framed = [format!("{:x}\r\n", piece.len()).as_bytes(), &piece, b"\r\n"].concat();
            connection.write_all(&framed).await?;
        }
    }
    Ok(connection.write_all(b"0\r\n\r\n").await?)
}

/// Returns an answer as an API server refuses.
fn refusal(code: u16) -> String {
    let (reason, message) = match code {
        429 => ("TooManyRequests", "the server has received too many requests and has asked us to try again later"),
        _ => ("InternalError", "an error on the server has prevented the request from succeeding"),
    };
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    });
    let body = status.to_string();
    format!(
        "HTTP/1.1 {code} {reason}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}
