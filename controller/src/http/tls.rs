//! HTTP over TLS, with the certificate that Envoys are shown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use tokio_rustls::server::TlsStream;
use wingbeat_xds_server::server::Tls;

/// Who takes longer to agree on keys is let go.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Handshakes at a time: who connects beyond them waits.
const HANDSHAKES: usize = 256;

type Connection = (TlsStream<TcpStream>, SocketAddr);

/// Accepts connections, each after its handshake. None waits for the handshake of another.
#[derive(Debug)]
pub struct Https {
    address: SocketAddr,
    connections: mpsc::Receiver<Connection>,
}

impl Https {
    /// Begins to accept. Must be called on a tokio runtime.
    pub fn start(mut listener: TcpListener, tls: &Tls) -> std::io::Result<Self> {
        let acceptor = TlsAcceptor::from(Arc::new(config(tls).map_err(std::io::Error::other)?));
        let address = listener.local_addr()?;
        let (accepted, connections) = mpsc::channel(HANDSHAKES);
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
        tokio::spawn(async move {
            while let Ok(permit) = handshakes.clone().acquire_owned().await {
                if accepted.is_closed() {
                    return;
                }
                let (stream, peer) = Listener::accept(&mut listener).await;
                let (acceptor, accepted) = (acceptor.clone(), accepted.clone());
                tokio::spawn(async move {
                    let agreed = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
                    drop(permit);
                    if let Ok(Ok(stream)) = agreed {
                        // Nobody takes it once the server has ended.
                        let _ended = accepted.send((stream, peer)).await;
                    }
                });
            }
        });
        Ok(Self { address, connections })
    }
}

impl Listener for Https {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> Connection {
        match self.connections.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        Ok(self.address)
    }
}

fn config(tls: &Tls) -> Result<ServerConfig, rustls::Error> {
    let unreadable = |error: pem::Error| rustls::Error::General(error.to_string());
    let chain = CertificateDer::pem_slice_iter(&tls.certificate).collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    let key = PrivateKeyDer::from_pem_slice(&tls.key).map_err(unreadable)?;
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
}
