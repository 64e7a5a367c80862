//! TLS from PEM files, which may be renewed.

use std::{io, path::Path, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_rustls::TlsAcceptor;

use crate::config::Tls;

/// The certificate that new connections get.
#[derive(Debug)]
pub struct Certificate(ArcSwap<ServerConfig>);

impl Certificate {
    /// The one in these files.
    ///
    /// # Errors
    /// When a file cannot be read, holds nothing of the kind expected, or the two do not belong together.
    pub fn new(files: &Tls) -> io::Result<Certificate> {
        config(files).map(|config| Certificate(ArcSwap::from(config)))
    }

    /// New connections get the one in these files from now on.
    ///
    /// # Errors
    /// As [`Certificate::new`]; then the one before stays.
    pub fn renew(&self, files: &Tls) -> io::Result<()> {
        self.0.store(config(files)?);
        Ok(())
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.load_full())
    }
}

fn config(files: &Tls) -> io::Result<Arc<ServerConfig>> {
    let certs = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| invalid(&files.cert, "a certificate", error))?;
    if certs.is_empty() {
        return Err(invalid(&files.cert, "a certificate", "the file holds none"));
    }
    let key = PrivateKeyDer::from_pem_file(&files.key)
        .map_err(|error| invalid(&files.key, "a private key", error))?;
    // The provider is named because linking a second one (through another crate) would make the default ambiguous.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(certs, key)
        .map_err(|error| invalid(&files.cert, "a certificate for the key of the admin API", error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn invalid(path: &Path, expected: &str, found: impl std::fmt::Display) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{}: expected {expected} in PEM: {found}", path.display()),
    )
}
