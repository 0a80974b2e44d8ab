//! What one client may say against a canary that not chance but a rule gives it (P12).
//!
//! Between such arms nothing is compared that would show that the client, and not the canary, is what differs: somebody
//! who calls one slow page again and again, or gives up every request, would decide for everybody. So of each address a
//! few hangs count, and no more, unless more of its connections hang at once than one browser opens: then many clients
//! are behind it, as behind a gateway.
//!
//! Shares are of one rollout, as evidence is: what clients said of an attempt before, or of another canary, takes
//! nothing away from them.
//!
//! A gateway that brings its clients over few connections of HTTP/2 is one client: a browser has as many streams on
//! one, and leaves them all at once. That the primary answers the same address tells them apart no better, since one
//! user calls both arms where a rule goes by path, or by a cookie of some paths. Behind such a gateway, Envoy has to be
//! told whose requests these are (`xffNumTrustedHops`), or some who match are held back: then all hangs count.

/// Nanoseconds after which a client's share in a rollout is there again. Evidence adds up over a rollout, and so would
/// the shares of shorter periods.
const PERIOD_NS: u64 = 600_000_000_000;
/// Browsers open at most so many connections to one host. More that hang at once are not one client's.
const CONNECTIONS: usize = 6;
/// Addresses that are told apart in one rollout. With more than that, each further one shares the bound of one of
/// these: however many a client has, it has no more than all of them.
const MAX_ADDRESSES: usize = 64;

/// Clients whose requests to one canary hung lately, in one rollout. Few: looking through them costs less code and time
/// than a tree.
#[derive(Debug, Default)]
pub struct Clients(Vec<Client>);

#[derive(Debug)]
struct Client {
    host: String,
    /// When the period began, and hangs that have counted in it.
    since_ns: u64,
    counted: u32,
    /// The latest hangs, each of another connection.
    latest: [Hang; CONNECTIONS],
}

/// A request that hung, on the connection from this port.
#[derive(Debug, Clone, Copy, Default)]
struct Hang {
    port: u64,
    from_ns: u64,
    until_ns: u64,
}

impl Clients {
    /// Returns true if a hang counts, of a request that came from `address` (host and port) and began at `from_ns`.
    pub fn admit(&mut self, address: &str, share: u32, from_ns: u64, now: u64) -> bool {
        let (host, port) = address.rsplit_once(':').unwrap_or((address, ""));
        let host = client_of(host);
        let hang = Hang { port: port.parse().unwrap_or_default(), from_ns, until_ns: now };
        if let Some(client) = self.0.iter_mut().find(|client| client.host == host) {
            return client.admit(hang, share);
        }
        if self.0.len() >= MAX_ADDRESSES {
            self.0.retain(|client| now.saturating_sub(client.since_ns) < PERIOD_NS);
        }
        if self.0.len() < MAX_ADDRESSES {
            let mut client = Client { host: host.to_owned(), since_ns: now, counted: 0, latest: Default::default() };
            // Its first hang counts: nobody has a share of nothing.
            client.admit(hang, share);
            self.0.push(client);
            return true;
        }
        let at = usize::from(slot_of(host)) % MAX_ADDRESSES;
        self.0.get_mut(at).is_some_and(|client| client.admit(hang, share))
    }
}

/// Returns whose address this is: of IPv6, one client has a whole network of 64 bits.
fn client_of(host: &str) -> &str {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.contains('.') {
        return host;
    }
    let network = host.split_once("::").map_or(host, |(network, _)| network);
    let end = network.match_indices(':').nth(3).map_or(network.len(), |(end, _)| end);
    network.get(..end).unwrap_or(network)
}

/// Returns a number that spreads addresses.
fn slot_of(host: &str) -> u8 {
    host.bytes().fold(0, |sum: u8, byte| sum.wrapping_mul(31).wrapping_add(byte))
}

impl Client {
    fn admit(&mut self, hang: Hang, share: u32) -> bool {
        let now = hang.until_ns;
        if now.saturating_sub(self.since_ns) >= PERIOD_NS {
            (self.since_ns, self.counted) = (now, 0);
        }
        // It began while all of the latest on other connections were under way.
        let meets =
            |held: &Hang| held.port != hang.port && held.from_ns <= hang.from_ns && hang.from_ns < held.until_ns;
        let crowd = self.latest.iter().all(meets);
        // Streams of one connection hang together: it takes its own place, or else the oldest one's.
        let place = |held: &&mut Hang| if held.port == hang.port { 0 } else { held.until_ns };
        if let Some(held) = self.latest.iter_mut().min_by_key(place) {
            *held = hang;
        }
        let counts = crowd || self.counted < share;
        if !crowd && counts {
            self.counted = self.counted.saturating_add(1);
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Requests of `connections` at a time from one address, each given up after 300 ms by another connection.
    fn counted(connections: u64, seconds: u64) -> usize {
        let mut clients = Clients::default();
        let each = 300 * MS / connections;
        let hangs = (0..seconds * 1_000 * MS / each).map(|n| (n, n * each));
        hangs.filter(|(n, from)| clients.admit(&format!("10.0.0.1:{n}"), 4, *from, from + 300 * MS)).count()
    }

    #[test]
    fn one_client_has_its_share_and_a_crowd_counts() {
        assert_eq!(counted(1, 9), 4, "200 requests, one after the other");
        assert_eq!(counted(6, 9), 4, "a browser");
        assert_eq!(counted(1, 610), 8, "its share is there again");
        assert!(counted(20, 2) > 120, "{}", counted(20, 2));
    }

    #[test]
    fn streams_of_one_connection_are_one_client() {
        let mut clients = Clients::default();
        let counted = (0..100).filter(|n| clients.admit("[::1]:4000", 4, *n, 300 * MS + n)).count();
        assert_eq!(counted, 4);
    }

    #[test]
    fn addresses_are_bounded_and_forgotten() {
        let mut clients = Clients::default();
        for round in 1..3_u64 {
            let now = round * PERIOD_NS * 2;
            let hosts = (0..1_000).map(|client| format!("10.0.{}.{}:1", client / 250, client % 250));
            let counted = hosts.filter(|host| clients.admit(host, 1, now, now)).count();
            assert_eq!((counted, clients.0.len()), (MAX_ADDRESSES, MAX_ADDRESSES), "no more than all shares");
            assert!(!clients.admit("10.0.0.3:1", 1, now, now));
        }
    }

    /// Whoever has one address of IPv6 has all of its network.
    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let mut clients = Clients::default();
        let counted = |clients: &mut Clients, address: &str| clients.admit(address, 1, 0, 1);
        let addresses = (0..99).map(|host| format!("[2001:db8:0:7::{host:x}]:4000"));
        assert_eq!(addresses.filter(|address| counted(&mut clients, address)).count(), 1);
        assert!(counted(&mut clients, "[2001:db8:0:8::1]:4000"));
        assert!(counted(&mut clients, "[::ffff:10.0.0.1]:4000") && counted(&mut clients, "[::ffff:10.0.0.2]:4000"));
    }
}
