//! TLS for `wss://` and the media host: an authority of our own and a server certificate.
//!
//! Both are made at the first start and kept in the network's folder, so that a separate client
//! process can trust the authority. Media is asked for at WhatsApp's own host names by some clients,
//! therefore the certificate names them too.

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The names under which clients reach the network.
pub const NAMES: [&str; 5] = [
    "localhost",
    "127.0.0.1",
    "::1",
    "mmg.whatsapp.net",
    "web.whatsapp.com",
];

const AUTHORITY: &str = "authority.pem";
const SERVER: &str = "server.pem";
const SERVER_KEY: &str = "server.key.pem";

/// TLS that cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("a certificate cannot be made")]
    Make(#[from] rcgen::Error),
    #[error("a certificate file cannot be read or written")]
    File(#[from] io::Error),
    #[error("the certificates in the folder are damaged")]
    Damaged(#[from] rustls::pki_types::pem::Error),
    #[error("the certificates in the folder do not fit together")]
    Tls(#[from] rustls::Error),
}

/// The authority that clients trust and the server's own certificate, as PEM.
#[derive(Clone)]
pub struct Certificates {
    authority: String,
    server: String,
    server_key: String,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

impl Certificates {
    /// Makes an authority and lets it sign a server certificate. The authority's key is forgotten.
    pub fn generate() -> Result<Self, CertificateError> {
        let mut authority = CertificateParams::new(Vec::<String>::new())?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        authority.not_before = date_time_ymd(2024, 1, 1);
        authority.not_after = date_time_ymd(2124, 1, 1);
        authority.distinguished_name.push(
            DnType::CommonName,
            "Simulated WhatsApp network, test authority",
        );
        let authority_key = KeyPair::generate()?;
        let authority_pem = authority.self_signed(&authority_key)?.pem();
        let issuer = Issuer::new(authority, authority_key);

        let mut server = CertificateParams::new(NAMES.map(str::to_owned).to_vec())?;
        server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        server.use_authority_key_identifier_extension = true;
        server.not_before = date_time_ymd(2024, 1, 1);
        server.not_after = date_time_ymd(2124, 1, 1);
        server
            .distinguished_name
            .push(DnType::CommonName, "Simulated WhatsApp network");
        let server_key = KeyPair::generate()?;
        let server_pem = server.signed_by(&server_key, &issuer)?.pem();
        Ok(Self {
            authority: authority_pem,
            server: server_pem,
            server_key: server_key.serialize_pem(),
        })
    }

    /// Takes the certificates from `folder`, or makes them and leaves them there.
    pub fn load_or_generate(folder: &Path) -> Result<Self, CertificateError> {
        let read = |name: &str| match fs::read_to_string(folder.join(name)) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        if let (Some(authority), Some(server), Some(server_key)) =
            (read(AUTHORITY)?, read(SERVER)?, read(SERVER_KEY)?)
        {
            return Ok(Self {
                authority,
                server,
                server_key,
            });
        }
        let made = Self::generate()?;
        write_secret(&folder.join(SERVER_KEY), made.server_key.as_bytes())?;
        fs::write(folder.join(SERVER), &made.server)?;
        fs::write(folder.join(AUTHORITY), &made.authority)?;
        Ok(made)
    }

    /// The authority's certificate, for clients to trust.
    pub fn authority_pem(&self) -> &str {
        &self.authority
    }

    /// The settings for the server's side of TLS.
    pub fn server_config(&self) -> Result<Arc<ServerConfig>, CertificateError> {
        let chain = CertificateDer::pem_slice_iter(self.server.as_bytes())
            .collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(self.server_key.as_bytes())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// Writes a file that only its owner may read.
pub(crate) fn write_secret(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_kept_and_usable() {
        let folder = tempfile::tempdir().unwrap();
        let first = Certificates::load_or_generate(folder.path()).unwrap();
        let second = Certificates::load_or_generate(folder.path()).unwrap();
        assert_eq!(first.authority_pem(), second.authority_pem());
        assert_eq!(first.server, second.server);
        second.server_config().unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn keys_are_for_their_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        Certificates::load_or_generate(folder.path()).unwrap();
        let mode = fs::metadata(folder.path().join(SERVER_KEY))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0);
    }
}
