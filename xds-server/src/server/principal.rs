//! Who a client is, by its certificate.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

/// Returns the name in a verified client certificate: its first URI (a SPIFFE ID), else its first DNS name, else its
/// common name.
pub(super) fn principal(certificates: Option<&[CertificateDer<'_>]>) -> Option<String> {
    let (_, certificate) = parse_x509_certificate(certificates?.first()?).ok()?;
    let names = certificate.subject_alternative_name().ok().flatten();
    let names = || names.iter().flat_map(|names| &names.value.general_names);
    let uri = names().find_map(|name| if let GeneralName::URI(uri) = name { Some((*uri).to_owned()) } else { None });
    let dns =
        names().find_map(|name| if let GeneralName::DNSName(dns) = name { Some((*dns).to_owned()) } else { None });
    let common_name = certificate.subject().iter_common_name().find_map(|name| Some(name.as_str().ok()?.to_owned()));
    uri.or(dns).or(common_name)
}

/// As which nodes each principal takes configuration at the moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Principals {
    streams: Arc<Mutex<BTreeMap<(String, String), usize>>>,
}

/// An open stream; it ends when dropped.
#[derive(Debug)]
pub(super) struct Speaker {
    principals: Principals,
    key: (String, String),
}

impl Principals {
    /// Notes a stream of this principal as this node.
    pub(super) fn enter(&self, principal: &str, node: &str) -> Speaker {
        let key = (principal.to_owned(), node.to_owned());
        *self.lock().entry(key.clone()).or_default() += 1;
        Speaker { principals: self.clone(), key }
    }

    /// Returns true if the principal has a stream as this node.
    pub(super) fn speaks_for(&self, principal: Option<&str>, node: &str) -> bool {
        principal.is_some_and(|principal| self.lock().contains_key(&(principal.to_owned(), node.to_owned())))
    }

    // A std mutex, never held across an await: one lookup is all there is.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, String), usize>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        let mut streams = self.principals.lock();
        if let Some(count) = streams.get_mut(&self.key) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                streams.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_speaks_for_the_nodes_of_its_open_streams() {
        let principals = Principals::default();
        let speaks = |who| principals.speaks_for(who, "edge-1");
        assert!(!speaks(Some("a")));
        let streams = [principals.enter("a", "edge-1"), principals.enter("a", "edge-1")];
        assert_eq!((speaks(Some("a")), speaks(Some("b")), speaks(None)), (true, false, false));
        let [first, second] = streams;
        drop(first);
        assert!(speaks(Some("a")), "another stream is open");
        drop(second);
        assert!(!speaks(Some("a")));
    }
}
