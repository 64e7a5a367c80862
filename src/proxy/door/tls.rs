//! How TLS is terminated: which certificate a client gets, and which it must show.

use std::{collections::HashMap, io, sync::Arc};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{ClientHello, ProducesTickets, ResolvesServerCert, WebPkiClientVerifier},
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};

use crate::model::{KeyPair, TlsSpec};

/// TLS as new connections get it.
#[derive(Debug)]
pub(super) struct Tls {
    pub(super) spec: TlsSpec,
    pub(super) config: Arc<ServerConfig>,
}

impl Tls {
    /// `before` is what it replaces: clients go on with the sessions that they have, unless others may come in now.
    ///
    /// # Errors
    /// When a key does not fit its certificate, or a certificate cannot be read. The configuration has checked both.
    pub(super) fn new(spec: &TlsSpec, before: Option<&Tls>) -> io::Result<Tls> {
        let provider = Arc::new(ring::default_provider());
        let versions = if spec.only_tls13 { &[&TLS13][..] } else { &[&TLS13, &TLS12] };
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .map_err(io::Error::other)?;
        let builder = match client_roots(&spec.client_ca)? {
            None => builder.with_no_client_auth(),
            Some(roots) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider.clone());
                let verifier =
                    if spec.client_auth_required { verifier } else { verifier.allow_unauthenticated() };
                builder.with_client_cert_verifier(verifier.build().map_err(io::Error::other)?)
            }
        };
        let certificates = Certificates::new(&spec.pairs, &provider)?;
        let mut config = builder.with_cert_resolver(Arc::new(certificates));
        // Without an agreement there is no connection; curl offers 1.0 alone when it is to speak that.
        config.alpn_protocols = [&b"h2"[..], b"http/1.1", b"http/1.0"].map(<[u8]>::to_vec).into();
        config.ticketer = tickets(spec, before)?;
        Ok(Tls { spec: spec.clone(), config: Arc::new(config) })
    }
}

/// What makes and reads session tickets. Who resumes a session shows no certificate, so tickets do not outlive a change of what
/// must be shown.
fn tickets(spec: &TlsSpec, before: Option<&Tls>) -> io::Result<Arc<dyn ProducesTickets>> {
    let asks = |spec: &TlsSpec| (spec.client_auth_required, spec.client_ca.clone());
    match before.filter(|before| asks(&before.spec) == asks(spec)) {
        Some(before) => Ok(before.config.ticketer.clone()),
        None => ring::Ticketer::new().map_err(io::Error::other),
    }
}

fn client_roots(ca: &[Vec<u8>]) -> io::Result<Option<Arc<RootCertStore>>> {
    if ca.is_empty() {
        return Ok(None);
    }
    let mut roots = RootCertStore::empty();
    for der in ca {
        roots.add(CertificateDer::from(der.as_slice())).map_err(io::Error::other)?;
    }
    Ok(Some(Arc::new(roots)))
}

/// Certificates by the names that they are for.
#[derive(Debug)]
struct Certificates {
    /// Names without, and under `*.`, with their first label.
    by_name: HashMap<String, Vec<Arc<CertifiedKey>>>,
    default: Arc<CertifiedKey>,
}

impl Certificates {
    fn new(pairs: &[KeyPair], provider: &CryptoProvider) -> io::Result<Certificates> {
        let mut by_name: HashMap<String, Vec<Arc<CertifiedKey>>> = HashMap::new();
        let mut default = None;
        for pair in pairs {
            let chain = pair.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
            let key = PrivateKeyDer::try_from(pair.key.clone()).map_err(io::Error::other)?;
            let certified = CertifiedKey::from_der(chain, key, provider);
            let certified =
                Arc::new(certified.map_err(|error| io::Error::other(format!("{}: {error}", pair.file)))?);
            default.get_or_insert_with(|| certified.clone());
            for name in &pair.names {
                by_name.entry(name.clone()).or_default().push(certified.clone());
            }
        }
        let default = default.ok_or_else(|| io::Error::other("TLS without a certificate"))?;
        Ok(Certificates { by_name, default })
    }

    /// Those for a name, the exact ones before those with a wildcard.
    fn of(&self, name: &str) -> impl Iterator<Item = &Arc<CertifiedKey>> {
        let parent = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        let wild = parent.and_then(|pattern| self.by_name.get(&pattern));
        self.by_name.get(name).into_iter().chain(wild).flatten()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        // rustls has the name in lower case.
        let mut fitting = hello.server_name().into_iter().flat_map(|name| self.of(name));
        let first = fitting.next();
        // Of an RSA and an ECDSA certificate for one name, the one that the client can verify.
        let signs = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(hello.signature_schemes()).is_some();
        let best = first.into_iter().chain(fitting).find(signs).or(first);
        Some(best.unwrap_or(&self.default).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    fn pair(file: &str, names: &[&str]) -> KeyPair {
        let made = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
        KeyPair {
            file: file.into(),
            chain: vec![made.cert.der().to_vec()],
            key: made.signing_key.serialize_der(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            expires: Timestamp::UNIX_EPOCH,
        }
    }

    fn spec(client_ca: Vec<Vec<u8>>) -> TlsSpec {
        TlsSpec { pairs: vec![pair("a", &["a"])], only_tls13: false, client_ca, client_auth_required: true }
    }

    #[test]
    fn exact_names_come_before_wildcards_of_one_label() {
        let pairs = [pair("first", &[]), pair("wild", &["*.example.com"]), pair("exact", &["a.example.com"])];
        let all = Certificates::new(&pairs, &ring::default_provider()).unwrap();
        let found = |name| {
            let index = |key: &Arc<CertifiedKey>| {
                pairs.iter().position(|pair| pair.chain[0] == key.cert[0].as_ref()).unwrap()
            };
            all.of(name).map(index).collect::<Vec<_>>()
        };
        assert_eq!(found("a.example.com"), [2, 1]);
        assert_eq!(found("b.example.com"), [1]);
        assert_eq!(found("b.a.example.com"), [] as [usize; 0]);
        assert_eq!(found("example.com"), [] as [usize; 0]);
    }

    #[test]
    fn tickets_end_with_a_change_of_what_clients_must_show() {
        let ca = || vec![pair("ca", &[]).chain.remove(0)];
        let (open, one) = (Tls::new(&spec(Vec::new()), None).unwrap(), Tls::new(&spec(ca()), None).unwrap());
        let same = |a: &Tls, b: &Tls| Arc::ptr_eq(&a.config.ticketer, &b.config.ticketer);
        let renewed = Tls::new(&spec(Vec::new()), Some(&open)).unwrap();
        assert!(same(&open, &renewed));
        assert!(!same(&one, &Tls::new(&spec(Vec::new()), Some(&one)).unwrap()));
        assert!(!same(&one, &Tls::new(&spec(ca()), Some(&one)).unwrap()));
        let mut optional = one.spec.clone();
        optional.client_auth_required = false;
        assert!(!same(&one, &Tls::new(&optional, Some(&one)).unwrap()));
    }
}
