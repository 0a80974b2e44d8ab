//! Certificates of a test.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};

/// Keys and certificates of one authority.
pub(super) struct Authority {
    pub(super) ca: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new() -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self { ca: CertifiedIssuer::self_signed(params, KeyPair::generate()?)? })
    }

    /// Returns certificate and key.
    pub(super) fn issue(&self, name: SanType) -> anyhow::Result<(String, String)> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![name];
        Ok((params.signed_by(&key, &self.ca)?.pem(), key.serialize_pem()))
    }

    /// The same, as files of these names.
    pub(super) fn files(&self, folder: &Path, file: &str, name: SanType) -> anyhow::Result<(String, String)> {
        let (certificate, key) = self.issue(name)?;
        let paths = [(format!("{file}.pem"), certificate), (format!("{file}.key"), key)].map(|(file, text)| {
            let path = folder.join(file);
            std::fs::write(&path, text)?;
            anyhow::Ok(path.display().to_string())
        });
        let [certificate, key] = paths;
        Ok((certificate?, key?))
    }
}
