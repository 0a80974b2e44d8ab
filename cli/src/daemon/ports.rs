//! The ports of a control plane: where Envoys and people come in, and who may.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use wingbeat_controller::handle::Handle;
use wingbeat_controller::http::{self, Api, Readers};
use wingbeat_xds_server::publisher::Publisher as Snapshots;
use wingbeat_xds_server::server::{self, Access, AnonymousReports, NodeList, Security, Tls};

use super::room::Room;
use crate::output::{Wrong, print_line};

/// Where the control plane is reached, and by whom.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(crate) struct Args {
    /// Where Envoys connect, for xDS and reports
    #[arg(long, default_value = "127.0.0.1:18000", value_name = "ADDR")]
    listen_xds: SocketAddr,
    /// Where the HTTP API, metrics and health are; beyond this machine over TLS, with the certificate of --tls-cert
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDR")]
    listen_http: SocketAddr,
    /// Lets commands in, and reports from other machines: whoever shows it. Without it, commands come from this machine only
    #[arg(long, env = "WINGBEAT_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    token: Option<String>,
    /// Names that the HTTP API answers to, beside localhost and IP addresses
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    allowed_hosts: Vec<String>,
    /// The certificate that Envoys are shown: a PEM file
    #[arg(long, requires = "tls_key", value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Its key: a PEM file
    #[arg(long, requires = "tls_cert", value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// Who signs the certificates of Envoys: a PEM file. With it, only Envoys with a certificate are served, and each only
    /// as a node that its certificate names: node.id is its URI or DNS name, or is listed in --nodes
    #[arg(long, requires = "tls_cert", value_name = "FILE")]
    client_ca: Option<PathBuf>,
    /// Which other nodes the principals of certificates are, and of which clusters: a file with lines like
    /// `spiffe://example.com/edge edge-* cluster=edge`, read at the start
    #[arg(long, requires = "client_ca", value_name = "FILE")]
    nodes: Option<PathBuf>,
    /// Takes reports from other machines without a certificate and without the token: whoever reaches the port decides
    #[arg(long, conflicts_with = "client_ca")]
    allow_anonymous_reports: bool,
    /// Serves plain text beyond this machine
    #[arg(long, conflicts_with = "tls_cert")]
    allow_plaintext: bool,
}

/// The ports, as they will be.
#[derive(Debug)]
pub(crate) struct Ports {
    listen_xds: SocketAddr,
    listen_http: SocketAddr,
    token: Option<Arc<str>>,
    hosts: Arc<[String]>,
    tls: Option<Tls>,
    access: Access,
    room: Room,
}

/// The servers behind the ports. Dropping it has Envoys let go.
#[derive(Debug)]
pub(crate) struct Servers {
    xds: JoinHandle<anyhow::Result<()>>,
    http: JoinHandle<anyhow::Result<()>>,
    _stop_xds: oneshot::Sender<()>,
}

impl Ports {
    /// Reads what the arguments name, or says what is wrong with it.
    pub(crate) fn of(args: &Args) -> anyhow::Result<Self> {
        let (tls, access) = (tls(args)?, access(args)?);
        let room = Room::make();
        for (option, address) in [("--listen-xds", args.listen_xds), ("--listen-http", args.listen_http)] {
            if tls.is_none() && !args.allow_plaintext && !address.ip().is_loopback() {
                let why = format!(
                    "{option} {address} would serve plain text beyond this machine: add --tls-cert and --tls-key, or --allow-plaintext"
                );
                return Err(Wrong(why).into());
            }
        }
        Ok(Self {
            listen_xds: args.listen_xds,
            listen_http: args.listen_http,
            token: args.token.as_deref().map(Arc::from),
            hosts: args.allowed_hosts.clone().into(),
            tls,
            access,
            room,
        })
    }

    pub(crate) async fn bind_xds(&self) -> anyhow::Result<TcpListener> {
        bind(self.listen_xds).await
    }

    pub(crate) async fn bind_http(&self) -> anyhow::Result<TcpListener> {
        bind(self.listen_http).await
    }

    /// Tells programs where they are, on standard output, and people in the log.
    pub(crate) fn announce(&self, xds: &TcpListener, http: &TcpListener) -> anyhow::Result<()> {
        let (xds, http) = (xds.local_addr()?, http.local_addr()?);
        print_line(&serde_json::json!({"xds": xds.to_string(), "http": http.to_string()}).to_string())?;
        tracing::info!(%xds, %http, tls = self.tls.is_some(), version = env!("CARGO_PKG_VERSION"), "listening");
        Ok(())
    }

    /// Serves Envoys and the HTTP API.
    pub(crate) fn serve(
        &self,
        xds: TcpListener,
        http: Arc<TcpListener>,
        snapshots: Snapshots,
        handle: &Handle,
    ) -> Servers {
        let (stop, stopped) = oneshot::channel::<()>();
        let secured = self.http_tls().cloned();
        let room = self.room;
        let security = Security { tls: self.tls.clone(), access: self.access.clone(), limits: room.xds() };
        let intake = Arc::new(handle.clone());
        let xds = tokio::spawn(async move {
            let stopped = async {
                let _stopped = stopped.await;
            };
            server::serve(xds, security, snapshots, intake, stopped).await.context("the xDS server ended")
        });
        let (token, hosts) = (self.token.clone(), self.hosts.clone());
        let api = Api { handle: handle.clone(), token, hosts, readers: Readers::default() };
        let http = tokio::spawn(async move {
            http::serve(&http, secured.as_ref(), room.http(), api).await.context("the HTTP server ended")
        });
        Servers { xds, http, _stop_xds: stop }
    }

    /// Serves health alone, until the future is dropped.
    pub(crate) async fn serve_waiting(&self, http: &TcpListener) -> std::io::Result<()> {
        http::serve_waiting(http, self.http_tls(), self.room.http()).await
    }

    /// Returns what secures the HTTP port, where it is reached from other machines.
    fn http_tls(&self) -> Option<&Tls> {
        self.tls.as_ref().filter(|_| !self.listen_http.ip().is_loopback())
    }
}

impl Servers {
    /// Waits until one of them has ended, which it does not by itself.
    pub(crate) async fn ended(&mut self) -> anyhow::Result<()> {
        tokio::select! {
            ended = &mut self.xds => ended?,
            ended = &mut self.http => ended?,
        }
    }
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}: choose another port, or 0"))
}

/// Reads who may do what.
fn access(args: &Args) -> anyhow::Result<Access> {
    let anonymous = if args.allow_anonymous_reports { AnonymousReports::Taken } else { AnonymousReports::Refused };
    let nodes = match &args.nodes {
        None => NodeList::default(),
        Some(path) => {
            let text =
                std::fs::read_to_string(path).map_err(|error| Wrong(format!("--nodes {}: {error}", path.display())))?;
            match NodeList::parse(&text) {
                Ok(nodes) => nodes,
                Err(wrong) => {
                    let lines: Vec<String> = wrong.iter().map(|line| format!("{}:{line}", path.display())).collect();
                    return Err(Wrong(lines.join("\n")).into());
                }
            }
        }
    };
    let far = !args.listen_xds.ip().is_loopback();
    if far && args.client_ca.is_none() && args.token.is_none() && anonymous == AnonymousReports::Refused {
        tracing::warn!(
            "reports from other machines are refused: nothing says who sends them; add --client-ca, or --token, or \
             --allow-anonymous-reports"
        );
    }
    Ok(Access { nodes, token: args.token.as_deref().map(Arc::from), anonymous })
}

/// Reads the certificates.
fn tls(args: &Args) -> anyhow::Result<Option<Tls>> {
    let (Some(certificate), Some(key)) = (&args.tls_cert, &args.tls_key) else { return Ok(None) };
    let read = |option: &str, path: &PathBuf| {
        let pem = std::fs::read(path).map_err(|error| Wrong(format!("{option} {}: {error}", path.display())))?;
        if pem.windows(b"-----BEGIN ".len()).any(|window| window == b"-----BEGIN ") {
            return Ok(pem);
        }
        Err(Wrong(format!("{option} {}: this is no PEM file, it has no -----BEGIN line", path.display())))
    };
    let tls = Tls {
        certificate: read("--tls-cert", certificate)?,
        key: read("--tls-key", key)?,
        client_ca: args.client_ca.as_ref().map(|path| read("--client-ca", path)).transpose()?,
    };
    let fits = tls.check();
    fits.map_err(|why| Wrong(format!("--tls-cert {} and its key cannot be used: {why}", certificate.display())))?;
    Ok(Some(tls))
}
