//! HTTP over TLS, with the certificate that Envoys are shown.

use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use wingbeat_xds_server::server::Tls;

/// Returns what connections agree on keys with.
pub(super) fn config(tls: &Tls) -> Result<ServerConfig, rustls::Error> {
    let unreadable = |error: pem::Error| rustls::Error::General(error.to_string());
    let chain = CertificateDer::pem_slice_iter(&tls.certificate).collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    let key = PrivateKeyDer::from_pem_slice(&tls.key).map_err(unreadable)?;
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
}
