//! Ports of loopback for listeners that others open: Envoy, or a control plane that is started again.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

/// A port that nobody is given who asks for a free one. Whoever names it may listen there, as Envoy and tokio do: with
/// `SO_REUSEPORT` or `SO_REUSEADDR`. As nobody listens here, all connections are theirs. Dropping it gives it back.
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    _socket: TcpSocket,
}

impl Port {
    /// Takes a free port.
    pub fn hold() -> std::io::Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseaddr(true)?;
        socket.set_reuseport(true)?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        Ok(Self { address: socket.local_addr()?, _socket: socket })
    }

    /// Returns the address of the port.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    #[tokio::test]
    async fn only_who_names_a_held_port_gets_it() {
        let port = Port::hold().unwrap();
        assert!(TcpStream::connect(port.address()).await.is_err(), "nobody listens");
        for _ in 0..3 {
            let socket = TcpSocket::new_v4().unwrap();
            let without = socket.bind(port.address());
            assert_eq!(without.map_err(|error| error.kind()), Err(std::io::ErrorKind::AddrInUse));
            let listener = TcpListener::bind(port.address()).await.unwrap();
            let (connected, accepted) = tokio::join!(TcpStream::connect(port.address()), listener.accept());
            assert!(connected.is_ok() && accepted.is_ok());
        }
        let mut held = Vec::new();
        for _ in 0..1_000 {
            let other = Port::hold().unwrap();
            assert_ne!(other.address(), port.address());
            held.push(other);
        }
    }
}
