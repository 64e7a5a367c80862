//! TLS from PEM files, which may be renewed.

use std::{io, path::Path, sync::Arc};

use arc_swap::ArcSwap;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_rustls::TlsAcceptor;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{config::Tls, model::Timestamp};

/// The certificate that new connections get.
#[derive(Debug)]
pub struct Certificate(ArcSwap<Served>);

/// A certificate in use.
#[derive(Debug)]
struct Served {
    config: Arc<ServerConfig>,
    name: String,
    expires: Timestamp,
}

impl Certificate {
    /// The one in these files.
    ///
    /// # Errors
    /// When a file cannot be read, holds nothing of the kind expected, or the two do not belong together.
    pub fn new(files: &Tls) -> io::Result<Certificate> {
        served(files).map(|served| Certificate(ArcSwap::from_pointee(served)))
    }

    /// New connections get the one in these files from now on.
    ///
    /// # Errors
    /// As [`Certificate::new`]; then the one before stays.
    pub fn renew(&self, files: &Tls) -> io::Result<()> {
        self.0.store(Arc::new(served(files)?));
        Ok(())
    }

    /// The file of the one in use, as the configuration names it, and when it ceases to be valid.
    pub fn expiry(&self) -> (String, Timestamp) {
        let served = self.0.load();
        (served.name.clone(), served.expires)
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.0.load().config.clone())
    }
}

fn served(files: &Tls) -> io::Result<Served> {
    let certs = CertificateDer::pem_file_iter(&files.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| invalid(&files.cert, "a certificate", error))?;
    let Some(leaf) = certs.first() else {
        return Err(invalid(&files.cert, "a certificate", "the file holds none"));
    };
    let (_, leaf) =
        X509Certificate::from_der(leaf).map_err(|error| invalid(&files.cert, "a certificate", error))?;
    let expires = Timestamp::from_second(leaf.validity().not_after.timestamp()).unwrap_or(Timestamp::MAX);
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
    Ok(Served { config: Arc::new(config), name: files.name.clone(), expires })
}

fn invalid(path: &Path, expected: &str, found: impl std::fmt::Display) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        format!("{}: expected {expected} in PEM: {found}", path.display()),
    )
}
