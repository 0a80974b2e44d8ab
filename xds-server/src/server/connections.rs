//! Connections of one port: so many and no more, and none that does nothing for long.
//!
//! A connection is *waiting* until it has sent a whole request, and again once that is answered; in between it is *busy*.
//! Where there is no room, one that waits makes way: of the same host if that has more connections than there is room for
//! others, else of the host that has most. So whoever opens connections and sends half of a request pushes out its own.
//!
//! Who speaks TLS to a port in plain text, or the reverse, is found by the first byte and told: at both ends it looks as
//! if nobody were there.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future as _;
use std::io::{Error, ErrorKind, Result};
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, Sleep};
use tonic::transport::server::Connected;

/// A peer that takes nothing of what is sent to it for so long is let go.
const STALLED: Duration = Duration::from_mins(1);
/// How often it is looked who waits for too long.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);
/// After an error of the listener: it says the same again at once, where descriptors are scarce.
const AFTER_ERROR: Duration = Duration::from_millis(50);

/// The first byte of TLS: a handshake.
const HANDSHAKE: u8 = 0x16;

/// What a port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Plain text.
    Plain,
    /// TLS.
    Tls,
}

/// Is told of each peer that speaks something else than its port: whose address it is, and the mend.
#[derive(Clone)]
pub struct OnMismatch(Arc<MismatchCallback>);

type MismatchCallback = dyn Fn(IpAddr, &str) + Send + Sync;

/// What a port takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections at a time. Beyond them, one that waits is closed for each new one.
    pub most: usize,
    /// A connection that has sent no whole request for so long is closed.
    pub waiting: Duration,
}

/// The connections of a port.
#[derive(Debug, Clone)]
pub struct Connections {
    limits: Limits,
    wire: Wire,
    on_mismatch: OnMismatch,
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    latest: u64,
    entries: BTreeMap<u64, Entry>,
    hosts: BTreeMap<IpAddr, Host>,
    /// When it was looked last who waits for too long.
    expired: Option<Instant>,
}

#[derive(Debug)]
struct Entry {
    host: IpAddr,
    /// Requests that are being answered.
    busy: usize,
    since: Instant,
    /// Dropped to hang up.
    _hang_up: oneshot::Sender<()>,
}

#[derive(Debug, Default)]
struct Host {
    all: usize,
    /// Those that wait, the one that has done so for longest first.
    waiting: BTreeSet<(Instant, u64)>,
}

/// A connection that was taken.
#[derive(Debug)]
pub struct Connection {
    io: TcpStream,
    remote: Remote,
    hung_up: oneshot::Receiver<()>,
    first_byte: FirstByte,
    /// Runs while the peer takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

/// Whether a peer has said anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FirstByte {
    Awaited,
    Received,
}

/// The other end of a connection.
#[derive(Debug, Clone)]
pub struct Remote {
    address: SocketAddr,
    number: u64,
    connections: Connections,
}

/// A request that is being answered, until dropped.
#[derive(Debug)]
pub struct Busy(Remote);

impl Connections {
    /// Returns a port without any.
    pub fn new(limits: Limits, wire: Wire, on_mismatch: OnMismatch) -> Self {
        Self { limits, wire, on_mismatch, table: Arc::default() }
    }

    /// Takes the next connection.
    pub async fn accept(&self, listener: &TcpListener) -> Connection {
        let mut expire = tokio::time::interval_at(Instant::now() + EXPIRE_EVERY, EXPIRE_EVERY);
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((io, address)) => {
                        // Without it, what is sent last waits for the acknowledgement of what was sent before.
                        let _unsupported = io.set_nodelay(true);
                        if let Some(connection) = self.admit(io, address) {
                            return connection;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection cannot be taken");
                        self.lock().make_way(None);
                        tokio::time::sleep(AFTER_ERROR).await;
                    }
                },
                now = expire.tick() => self.lock().expire(now, self.limits.waiting),
            }
        }
    }

    fn admit(&self, io: TcpStream, address: SocketAddr) -> Option<Connection> {
        let now = Instant::now();
        let mut table = self.lock();
        // Where many come, nothing else finds the time to.
        if table.expired.is_none_or(|last| now.duration_since(last) >= EXPIRE_EVERY) {
            table.expire(now, self.limits.waiting);
        }
        let (number, hung_up) = table.admit(host(address.ip()), self.limits.most, now)?;
        drop(table);
        let remote = Remote { address, number, connections: self.clone() };
        Some(Connection { io, remote, hung_up, first_byte: FirstByte::Awaited, stalled: None })
    }

    // A std mutex, never held across an await: look-ups in maps are all there is.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns whom an address belongs to: a host has a whole network of IPv6 to itself.
fn host(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)).into()
        }
        address @ (IpAddr::V4(_) | IpAddr::V6(_)) => address,
    }
}

impl Wire {
    /// Returns what is wrong with a peer that begins with this byte, and the mend.
    fn mismatch(self, first: u8) -> Option<&'static str> {
        match (self, first == HANDSHAKE) {
            (Self::Plain, false) | (Self::Tls, true) => None,
            (Self::Plain, true) => Some(
                "it speaks TLS to a port in plain text: start the server with --tls-cert and --tls-key, or let the peer \
                 speak plain text (a bootstrap without --tls-ca, http:// instead of https://)",
            ),
            (Self::Tls, false) => Some(
                "it speaks plain text to a port with TLS: let the peer speak TLS (wingbeat bootstrap --tls-ca, https:// \
                 instead of http://), or start the server without --tls-cert",
            ),
        }
    }
}

impl OnMismatch {
    /// Returns what calls this. It must not block.
    pub fn new(tell: impl Fn(IpAddr, &str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }
}

impl std::fmt::Debug for OnMismatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnMismatch").finish_non_exhaustive()
    }
}

impl Table {
    /// Makes room for one more and notes it. Nothing if there is none: all others are busy.
    fn admit(&mut self, host: IpAddr, most: usize, now: Instant) -> Option<(u64, oneshot::Receiver<()>)> {
        let own = self.hosts.get(&host).map_or(0, |held| held.all);
        let left = most.saturating_sub(self.entries.len());
        if own >= left {
            let whose = (own > 0).then_some(host);
            if !self.make_way(whose) {
                return None;
            }
        }
        self.latest = self.latest.wrapping_add(1);
        let (hang_up, hung_up) = oneshot::channel();
        self.entries.insert(self.latest, Entry { host, busy: 0, since: now, _hang_up: hang_up });
        let held = self.hosts.entry(host).or_default();
        held.all = held.all.saturating_add(1);
        held.waiting.insert((now, self.latest));
        Some((self.latest, hung_up))
    }

    /// Closes the connection of a host, or of the one that has most, that has waited for longest. Returns false if none
    /// waits.
    fn make_way(&mut self, host: Option<IpAddr>) -> bool {
        let heaviest = || {
            let waiting = self.hosts.iter().filter(|(_, held)| !held.waiting.is_empty());
            waiting.max_by_key(|(_, held)| held.all).map(|(host, _)| *host)
        };
        let oldest = host.or_else(heaviest).and_then(|host| self.hosts.get(&host)?.waiting.first().copied());
        oldest.is_some_and(|(_, number)| self.remove(number))
    }

    /// Closes those that have waited for longer than this.
    fn expire(&mut self, now: Instant, longest: Duration) {
        self.expired = Some(now);
        let old = |(since, _): &&(Instant, u64)| now.duration_since(*since) >= longest;
        let old: Vec<u64> = self
            .hosts
            .values()
            .flat_map(|held| held.waiting.iter().take_while(old))
            .map(|(_, number)| *number)
            .collect();
        for number in old {
            self.remove(number);
        }
    }

    /// Forgets a connection, and hangs up if it is still there.
    fn remove(&mut self, number: u64) -> bool {
        let Some(entry) = self.entries.remove(&number) else { return false };
        if let Some(held) = self.hosts.get_mut(&entry.host) {
            held.all = held.all.saturating_sub(1);
            held.waiting.remove(&(entry.since, number));
            if held.all == 0 {
                self.hosts.remove(&entry.host);
            }
        }
        true
    }

    fn begin(&mut self, number: u64) {
        let Some(entry) = self.entries.get_mut(&number) else { return };
        entry.busy = entry.busy.saturating_add(1);
        if let Some(held) = self.hosts.get_mut(&entry.host) {
            held.waiting.remove(&(entry.since, number));
        }
    }

    fn end(&mut self, number: u64, now: Instant) {
        let Some(entry) = self.entries.get_mut(&number) else { return };
        entry.busy = entry.busy.saturating_sub(1);
        if entry.busy == 0 {
            entry.since = now;
            self.hosts.entry(entry.host).or_default().waiting.insert((now, number));
        }
    }
}

impl Connection {
    /// Returns the other end.
    pub const fn remote(&self) -> &Remote {
        &self.remote
    }

    fn has_hung_up(&mut self, context: &mut Context<'_>) -> bool {
        Pin::new(&mut self.hung_up).poll(context).is_ready()
    }

    /// Fails if the peer takes nothing for too long.
    fn watch<T>(&mut self, context: &mut Context<'_>, written: Poll<Result<T>>) -> Poll<Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALLED)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(Error::new(ErrorKind::TimedOut, "the peer takes nothing")))
    }
}

impl Remote {
    /// Returns its address.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Notes that a request of it has come as a whole.
    pub fn busy(&self) -> Busy {
        self.connections.lock().begin(self.number);
        Busy(self.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.connections.lock().end(self.0.number, Instant::now());
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.remote.connections.lock().remove(self.remote.number);
    }
}

impl Connected for Connection {
    type ConnectInfo = Remote;

    fn connect_info(&self) -> Remote {
        self.remote.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        if self.has_hung_up(context) {
            return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.io).poll_read(context, buffer);
        if let (FirstByte::Awaited, Some(first)) = (self.first_byte, buffer.filled().get(before)) {
            self.first_byte = FirstByte::Received;
            let Connections { wire, on_mismatch, .. } = &self.remote.connections;
            if let Some(mend) = wire.mismatch(*first) {
                on_mismatch.0(self.remote.address.ip(), mend);
            }
        }
        read
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(context, slices);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    /// Who opens many and sends nothing pushes out its own.
    #[test]
    fn whoever_takes_much_makes_way_for_others() {
        let mut table = Table::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let (busy, _kept) = table.admit(address(1), 8, at(0)).unwrap();
        table.begin(busy);
        let mut greedy: Vec<_> = (1..=4).map(|second| table.admit(address(2), 8, at(second)).unwrap()).collect();
        let hung_up =
            |held: &mut (u64, oneshot::Receiver<()>)| held.1.try_recv() == Err(oneshot::error::TryRecvError::Closed);
        assert_eq!(greedy.iter_mut().map(hung_up).collect::<Vec<_>>(), [false; 4]);
        for second in 5..50 {
            greedy.push(table.admit(address(2), 8, at(second)).unwrap());
        }
        assert_eq!(greedy.iter_mut().filter_map(|held| (!hung_up(held)).then_some(())).count(), 4);
        // Somebody new finds room, and what is busy stays.
        let mut new = table.admit(address(3), 8, at(60)).unwrap();
        assert!(!hung_up(&mut new) && table.entries.contains_key(&busy));
        for host in 4..50 {
            assert!(table.admit(address(host), 8, at(61)).is_some(), "somebody else waits");
        }
        assert!(table.entries.len() <= 8 && table.entries.contains_key(&busy));
        // Where all are busy there is no room.
        let all: Vec<u64> = table.entries.keys().copied().collect();
        all.iter().for_each(|number| table.begin(*number));
        assert!(table.admit(address(99), all.len(), at(62)).is_none());
    }

    #[test]
    fn who_waits_too_long_is_let_go() {
        let mut table = Table::default();
        let start = Instant::now();
        let (idle, _idle) = table.admit(address(1), 8, start).unwrap();
        let (working, _working) = table.admit(address(1), 8, start).unwrap();
        table.begin(working);
        table.expire(start + Duration::from_secs(9), Duration::from_secs(10));
        assert_eq!(table.entries.len(), 2);
        table.expire(start + Duration::from_secs(10), Duration::from_secs(10));
        assert_eq!(table.entries.keys().copied().collect::<Vec<_>>(), [working]);
        assert!(!table.remove(idle));
        table.end(working, start + Duration::from_secs(11));
        table.expire(start + Duration::from_secs(20), Duration::from_secs(10));
        assert_eq!(table.entries.len(), 1, "it has waited for 9 s since it was answered");
        table.expire(start + Duration::from_secs(21), Duration::from_secs(10));
        assert!(table.entries.is_empty() && table.hosts.is_empty(), "nothing is kept");
    }
}
