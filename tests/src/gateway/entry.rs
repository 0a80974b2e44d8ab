//! Where Envoys connect to the control plane: at one address, whoever leads, as at a Service.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// An address that leads to the replica that is ready. Connections stay where they lead, as at a Service: whoever is behind one
/// and does not answer any more is for the client to notice.
#[derive(Debug)]
pub struct Entry {
    address: SocketAddr,
    leader: watch::Sender<Option<SocketAddr>>,
    task: JoinHandle<()>,
}

impl Entry {
    /// Opens one that leads nowhere yet.
    pub async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (leader, ready) = watch::channel(None);
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let Some(leader) = *ready.borrow() else { continue };
                tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(leader).await else { return };
                    // Either side may go at any time.
                    let _ended = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { address, leader, task }
    }

    /// Returns the address.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets new connections lead there.
    pub fn lead_to(&self, leader: SocketAddr) {
        self.leader.send_replace(Some(leader));
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.task.abort();
    }
}
