//! Who is at the other end of a connection, as which nodes it may speak, and whose source it is.
//!
//! ```text
//!  certificate ─► Peer::Certified ─► its names, or the lines of a NodeList ─► may it be this node?
//!  address ─────► Peer::Uncertified ─► loopback, token, or told so ────────► may it report?
//!  either ──────► Peer::source ─► one source before the judge, however many nodes it names
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use tokio_rustls::rustls::pki_types::CertificateDer;
use wingbeat_core::foreign::ForeignText;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

/// Characters of a certificate's name that are shown.
const MAX_NAMES_LISTED: usize = 256;

/// Who a peer is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Peer {
    /// It showed a certificate that the authority of clients has signed.
    Certified(Certificate),
    /// It showed none; its connection comes from this address.
    Uncertified(IpAddr),
}

/// The names in a verified certificate: at least one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Certificate {
    /// Its first URI (a SPIFFE ID), else its first DNS name, else its common name.
    principal: String,
    /// The alternative names; the common name where there are none.
    names: Vec<String>,
}

impl Certificate {
    /// Returns the names in a verified certificate; nothing if it names nobody.
    pub(super) fn read(certificates: &[CertificateDer<'_>]) -> Option<Self> {
        let (_, certificate) = parse_x509_certificate(certificates.first()?).ok()?;
        let names = certificate.subject_alternative_name().ok().flatten();
        let general_names = || names.iter().flat_map(|names| &names.value.general_names);
        let uris = general_names().filter_map(|name| if let GeneralName::URI(uri) = name { Some(*uri) } else { None });
        let hosts =
            general_names().filter_map(|name| if let GeneralName::DNSName(dns) = name { Some(*dns) } else { None });
        let mut names: Vec<String> = uris.chain(hosts).map(str::to_owned).collect();
        if names.is_empty() {
            names.extend(
                certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok()).map(str::to_owned),
            );
        }
        Self::new(names)
    }

    /// Returns a certificate with these names, the first of which is its principal.
    pub fn new(names: Vec<String>) -> Option<Self> {
        Some(Self { principal: names.first()?.clone(), names })
    }

    /// Returns whom it names first.
    pub fn principal(&self) -> &str {
        &self.principal
    }
}

impl Peer {
    /// Returns whom its certificate names, if it has one.
    pub fn principal(&self) -> Option<&str> {
        match self {
            Self::Certified(certificate) => Some(certificate.principal()),
            Self::Uncertified(_) => None,
        }
    }

    /// Returns whose source its reports as a node are. One principal is one source, and so is one host, whatever nodes they
    /// say they are: a service account may have many pods, and a host may invent any number. On this machine everybody is
    /// trusted, and each node has its own.
    pub fn source(&self, node: &str) -> String {
        match self {
            Self::Certified(certificate) => certificate.principal.clone(),
            Self::Uncertified(address) => match address.to_canonical() {
                address if address.is_loopback() => node.to_owned(),
                IpAddr::V4(address) => address.to_string(),
                // A host has a whole network of these to itself.
                IpAddr::V6(address) => format!("{}/64", network(address)),
            },
        }
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Certified(certificate) => ForeignText::new(&certificate.principal, MAX_NAMES_LISTED).fmt(f),
            Self::Uncertified(address) => address.fmt(f),
        }
    }
}

const fn network(address: Ipv6Addr) -> Ipv6Addr {
    Ipv6Addr::from_bits(address.to_bits() & !(u64::MAX as u128))
}

/// What a word of a line begins with that binds `node.cluster`.
const CLUSTER: &str = "cluster=";

/// Which nodes principals may be besides those that their certificates name, and of which clusters.
///
/// A line for each principal: its name, the ids of the nodes that it may be, and their clusters behind `cluster=`; both may end
/// in `*`. Where a line has no ids, they are the names in the certificate; where it has no clusters, any will do. What follows
/// `#` is left out.
/// ```text
/// spiffe://cluster.local/ns/prod/sa/edge  sidecar~*  cluster=edge
/// edge.example                            edge-1 edge-2
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeList {
    principals: BTreeMap<String, Nodes>,
}

/// What a principal may be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Nodes {
    ids: Vec<Pattern>,
    clusters: Vec<Pattern>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Exact(String),
    Prefix(String),
}

impl Pattern {
    /// Returns a pattern; `None` if it has a `*` before its end.
    fn parse(text: &str) -> Option<Self> {
        let stem = text.strip_suffix('*').unwrap_or(text);
        let pattern = if stem.len() < text.len() { Self::Prefix } else { Self::Exact };
        (!stem.contains('*')).then(|| pattern(stem.to_owned()))
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == name,
            Self::Prefix(prefix) => name.starts_with(prefix),
        }
    }
}

/// A line of a list of nodes that cannot be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}:1: {why}")]
pub struct WrongLine {
    line: usize,
    why: String,
}

impl NodeList {
    /// Reads a list. The error is every line that is wrong.
    pub fn parse(text: &str) -> Result<Self, Vec<WrongLine>> {
        let (mut principals, mut wrong) = (BTreeMap::<String, Nodes>::new(), Vec::new());
        for (line, text) in (1..).zip(text.lines()) {
            let mut words = text.split('#').next().unwrap_or_default().split_whitespace().peekable();
            let Some(principal) = words.next() else { continue };
            let mut refuse = |why: String| wrong.push(WrongLine { line, why });
            if words.peek().is_none() {
                let principal = ForeignText::new(principal, MAX_NAMES_LISTED);
                refuse(format!("{principal} is no node: name at least one, or * for all"));
            }
            for word in words {
                if word == CLUSTER {
                    refuse(format!("{word} names no cluster: write it without a space, like {CLUSTER}edge"));
                    continue;
                }
                let (text, is_cluster) = word.strip_prefix(CLUSTER).map_or((word, false), |cluster| (cluster, true));
                let Some(pattern) = Pattern::parse(text) else {
                    let word = ForeignText::new(word, MAX_NAMES_LISTED);
                    refuse(format!("{word} has a * in the middle: only the end of a name can be left open"));
                    continue;
                };
                let nodes = principals.entry(principal.to_owned()).or_default();
                if is_cluster { &mut nodes.clusters } else { &mut nodes.ids }.push(pattern);
            }
        }
        if wrong.is_empty() { Ok(Self { principals }) } else { Err(wrong) }
    }

    /// Returns why this peer may not be this node of this cluster, if it may not. One without a certificate may be any:
    /// nobody says who it is, and it has one source.
    pub fn refuses(&self, peer: &Peer, node: &str, cluster: &str) -> Option<String> {
        let Peer::Certified(certificate) = peer else { return None };
        let listed = self.principals.get(&certificate.principal);
        let matches = |patterns: &[Pattern], name: &str| patterns.iter().any(|pattern| pattern.matches(name));
        let listed_ids = listed.filter(|nodes| !nodes.ids.is_empty());
        let is_its_node = match listed_ids {
            Some(nodes) => matches(&nodes.ids, node),
            None => certificate.names.iter().any(|name| name == node),
        };
        let is_its_cluster = listed.is_none_or(|nodes| nodes.clusters.is_empty() || matches(&nodes.clusters, cluster));
        let shown = |name| ForeignText::new(name, MAX_NAMES_LISTED);
        let (principal, node, cluster) = (shown(&certificate.principal), shown(node), shown(cluster));
        if !is_its_node {
            let mend = match listed_ids {
                Some(_) => format!("add {node} to the line of {principal} in the file of --nodes"),
                None => {
                    let names: Vec<String> =
                        certificate.names.iter().take(3).map(|name| shown(name).into_string()).collect();
                    format!(
                        "its certificate names {}: let node.id be that, or add a line \"{principal} {node}\" to the file of \
                         --nodes",
                        names.join(", ")
                    )
                }
            };
            return Some(format!("{principal} is not node {node}; {mend}"));
        }
        (!is_its_cluster).then(|| {
            if cluster.as_str().is_empty() {
                return format!(
                    "{principal} says no node.cluster, and its line in the file of --nodes asks for one: see wingbeat \
                     bootstrap --cluster"
                );
            }
            format!(
                "{principal} is no node of cluster {cluster}; add {CLUSTER}{cluster} to the line of {principal} in the file of \
                 --nodes, or let node.cluster be one that is there"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certified(names: &[&str]) -> Peer {
        Peer::Certified(Certificate::new(names.iter().map(ToString::to_string).collect()).unwrap())
    }

    #[test]
    fn a_certificate_speaks_for_the_nodes_that_it_names() {
        let peer = certified(&["spiffe://mesh/edge", "edge-1", "edge-2"]);
        let list = NodeList::default();
        for (node, refused) in [
            ("edge-1", false),
            ("edge-2", false),
            ("spiffe://mesh/edge", false),
            ("edge-3", true),
            ("edge", true),
            ("", true),
        ] {
            assert_eq!(list.refuses(&peer, node, "any").is_some(), refused, "{node}");
        }
        let why = list.refuses(&peer, "edge\n3", "any").unwrap();
        assert_eq!(
            why,
            "spiffe://mesh/edge is not node edge\\n3; its certificate names spiffe://mesh/edge, edge-1, edge-2: let node.id be \
             that, or add a line \"spiffe://mesh/edge edge\\n3\" to the file of --nodes"
        );
        assert_eq!(list.refuses(&Peer::Uncertified([10, 0, 0, 9].into()), "edge-3", "any"), None);
    }

    #[test]
    fn a_list_says_which_nodes_a_principal_is() {
        let text = "# edges\nspiffe://mesh/edge sidecar~* router~10.0.0.7  # and no other\n\nall.example *\n";
        let list = NodeList::parse(text).unwrap();
        let edge = certified(&["spiffe://mesh/edge", "edge-1"]);
        for (peer, node, refused) in [
            (&edge, "sidecar~10.0.0.9~shop.prod", false),
            (&edge, "router~10.0.0.7", false),
            (&edge, "router~10.0.0.77", true),
            // The list says all of it.
            (&edge, "edge-1", true),
            (&certified(&["all.example"]), "anything", false),
            (&certified(&["other.example"]), "other.example", false),
            (&certified(&["other.example"]), "sidecar~1", true),
        ] {
            assert_eq!(list.refuses(peer, node, "any").is_some(), refused, "{peer} {node}");
        }
        let why = list.refuses(&edge, "edge-1", "any").unwrap();
        assert_eq!(
            why,
            "spiffe://mesh/edge is not node edge-1; add edge-1 to the line of spiffe://mesh/edge in the file of --nodes"
        );
    }

    #[test]
    fn a_list_says_of_which_clusters_the_nodes_of_a_principal_are() {
        let text = "spiffe://mesh/edge edge-* cluster=edge cluster=canary-*\nshop.example cluster=shop\n";
        let list = NodeList::parse(text).unwrap();
        let (edge, shop) = (certified(&["spiffe://mesh/edge"]), certified(&["shop.example", "shop-1"]));
        for (peer, node, cluster, refused) in [
            (&edge, "edge-1", "edge", false),
            (&edge, "edge-1", "canary-7", false),
            (&edge, "edge-1", "shop", true),
            (&edge, "edge-1", "", true),
            (&edge, "shop-1", "edge", true),
            // Its ids are the names in its certificate.
            (&shop, "shop-1", "shop", false),
            (&shop, "shop-1", "edge", true),
            (&shop, "shop-2", "shop", true),
            (&certified(&["other.example"]), "other.example", "shop", false),
            (&Peer::Uncertified([10, 0, 0, 9].into()), "shop-1", "edge", false),
        ] {
            assert_eq!(list.refuses(peer, node, cluster).is_some(), refused, "{peer} {node} {cluster}");
        }
        assert_eq!(
            list.refuses(&edge, "edge-1", "shop").unwrap(),
            "spiffe://mesh/edge is no node of cluster shop; add cluster=shop to the line of spiffe://mesh/edge in the file of \
             --nodes, or let node.cluster be one that is there"
        );
        assert_eq!(
            list.refuses(&edge, "edge-1", "").unwrap(),
            "spiffe://mesh/edge says no node.cluster, and its line in the file of --nodes asks for one: see wingbeat bootstrap \
             --cluster"
        );
    }

    #[test]
    fn every_wrong_line_is_named() {
        let wrong = NodeList::parse("edge.example\n\na b*c d\na cluster=*b\na cluster= edge\n").unwrap_err();
        let wrong: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        assert_eq!(
            wrong,
            [
                "1:1: edge.example is no node: name at least one, or * for all",
                "3:1: b*c has a * in the middle: only the end of a name can be left open",
                "4:1: cluster=*b has a * in the middle: only the end of a name can be left open",
                "5:1: cluster= names no cluster: write it without a space, like cluster=edge"
            ]
        );
    }

    /// However many nodes it names.
    #[test]
    fn a_principal_has_one_voice_and_so_has_a_host() {
        let sources = |peer: &Peer| -> std::collections::BTreeSet<String> {
            ["edge-1", "edge-2", "edge-3"].map(|node| peer.source(node)).into()
        };
        let address = |text: &str| Peer::Uncertified(text.parse().unwrap());
        for (peer, expected) in [
            (certified(&["spiffe://mesh/edge"]), &["spiffe://mesh/edge"][..]),
            (address("10.0.0.9"), &["10.0.0.9"]),
            (address("::ffff:10.0.0.9"), &["10.0.0.9"]),
            (address("2001:db8:1:2:3:4:5:6"), &["2001:db8:1:2::/64"]),
            // Several Envoys on this machine.
            (address("127.0.0.1"), &["edge-1", "edge-2", "edge-3"]),
            (address("::1"), &["edge-1", "edge-2", "edge-3"]),
            (address("::ffff:127.0.0.1"), &["edge-1", "edge-2", "edge-3"]),
        ] {
            assert_eq!(sources(&peer), expected.iter().map(ToString::to_string).collect(), "{peer}");
        }
        assert_eq!(address("2001:db8:1:2::7").source("a"), address("2001:db8:1:2:ffff::8").source("b"));
    }
}
