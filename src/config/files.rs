//! Other files that a configuration names. Errors say what is wrong with the file; the caller says which and where.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read},
    path::Path,
    sync::mpsc,
    thread,
    time::Duration,
};

use rustls::{
    RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::{
    schema::{SecretRef, TokenRef},
    settings::Secret,
};
use crate::model::{Digest, KeyPair, Timestamp};

/// Largest certificate or key file: the bundle of every public root is a quarter of this.
const PEM_LEN_MAX: u64 = 1 << 20;

/// A file that takes longer to open is on a mount that hangs.
const OPEN_TIME: Duration = Duration::from_secs(2);

/// Largest secret: HTTP servers take no longer header.
const SECRET_LEN_MAX: u64 = 8 << 10;

/// The whole file, if it is not longer than `len_max` bytes.
pub(super) fn read(path: &Path, len_max: u64) -> Result<Vec<u8>, String> {
    let file = open(path)?;
    let mut bytes = Vec::new();
    // One byte more than is allowed shows that there is more, also where nothing states a length.
    file.take(len_max + 1).read_to_end(&mut bytes).map_err(|error| in_words(&error))?;
    if bytes.len() as u64 > len_max {
        return Err(format!("it is longer than {len_max} bytes"));
    }
    Ok(bytes)
}

/// Opens the file, which must not be a directory.
pub(super) fn open(path: &Path) -> Result<File, String> {
    let file = File::open(path).map_err(|error| in_words(&error))?;
    match file.metadata() {
        Ok(metadata) if metadata.is_dir() => Err("it is a directory".into()),
        Ok(_) => Ok(file),
        Err(error) => Err(in_words(&error)),
    }
}

/// Whether a file that is read later can be opened; `None` if that is not known in time, as on a mount whose server is gone.
pub(super) fn can_be_opened(path: &Path) -> Option<Result<(), String>> {
    let (tried, outcome) = mpsc::channel();
    let path = path.to_owned();
    let attempt = move || {
        // A pipe would be waited for until somebody writes to it.
        let special = fs::metadata(&path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir());
        let opened = if special { Err("it is no regular file".into()) } else { open(&path).map(drop) };
        // Who asked may have waited long enough.
        let _ = tried.send(opened);
    };
    match thread::Builder::new().name("tradewind-open".into()).spawn(attempt) {
        Ok(_) => outcome.recv_timeout(OPEN_TIME).ok(),
        Err(error) => Some(Err(in_words(&error))),
    }
}

fn in_words(error: &std::io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => "there is no such file".into(),
        ErrorKind::PermissionDenied => "permission denied".into(),
        _ => error.to_string(),
    }
}

/// The certificates in a PEM file, at least one, and all of them readable.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = read(path, PEM_LEN_MAX)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let certificates = certificates.map_err(|error| format!("it is not valid PEM: {error}"))?;
    if certificates.is_empty() {
        return Err("it holds no certificate in PEM".into());
    }
    for (index, certificate) in certificates.iter().enumerate() {
        X509Certificate::from_der(certificate)
            .map_err(|_| format!("its certificate {} is none (X.509)", index + 1))?;
    }
    Ok(certificates)
}

/// As [`certificates`], of those that may vouch for others.
pub(super) fn authorities(path: &Path) -> Result<Vec<Vec<u8>>, String> {
    let certificates = certificates(path)?;
    let mut store = RootCertStore::empty();
    for certificate in &certificates {
        store.add(certificate.clone()).map_err(|error| format!("it cannot vouch for others: {error}"))?;
    }
    Ok(certificates.iter().map(|certificate| certificate.to_vec()).collect())
}

/// The private key in a PEM file, which must fit `certificates`.
fn key(path: &Path, certificates: Vec<CertificateDer<'static>>) -> Result<PrivateKeyDer<'static>, String> {
    let pem = read(path, PEM_LEN_MAX)?;
    let key = PrivateKeyDer::from_pem_slice(&pem).map_err(|_| "it holds no private key in PEM".to_owned())?;
    CertifiedKey::from_der(certificates, key.clone_key(), &ring::default_provider())
        .map_err(|error| format!("it is not the key of the certificate: {error}"))?;
    Ok(key)
}

/// What is wrong with a certificate and its key.
#[derive(Debug)]
pub(super) enum BadPair {
    Certificate(String),
    Key(String),
}

/// The certificate at `cert` with its key; `file` is its name for those who know the configuration.
pub(super) fn key_pair(file: &str, cert: &Path, key_file: &Path) -> Result<KeyPair, BadPair> {
    let chain = certificates(cert).map_err(BadPair::Certificate)?;
    let key = key(key_file, chain.clone()).map_err(BadPair::Key)?;
    // It was read a moment ago.
    let (_, leaf) =
        X509Certificate::from_der(&chain[0]).map_err(|error| BadPair::Certificate(error.to_string()))?;
    let alternatives = leaf.subject_alternative_name().ok().flatten();
    let names = alternatives.iter().flat_map(|all| &all.value.general_names);
    let names = names.filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    Ok(KeyPair {
        file: file.to_owned(),
        names: names.collect(),
        expires: Timestamp::from_second(leaf.validity().not_after.timestamp()).unwrap_or(Timestamp::MAX),
        key: key.secret_der().to_vec(),
        chain: chain.iter().map(|certificate| certificate.to_vec()).collect(),
    })
}

/// The digest of a token; `dir` is what a relative file is relative to.
pub(super) fn token(source: &TokenRef, dir: &Path) -> Result<Digest, String> {
    let TokenRef { env, file, sha256 } = source;
    match sha256 {
        Some(hex) => {
            Digest::from_hex(hex).ok_or_else(|| "it is not a SHA-256: expected 64 hexadecimal digits".into())
        }
        None => {
            let value = secret(&SecretRef { env: env.clone(), file: file.clone() }, dir)?;
            Ok(Digest::of(value.expose().as_bytes()))
        }
    }
}

/// Reads a secret; `dir` is what a relative file is relative to.
pub(super) fn secret(source: &SecretRef, dir: &Path) -> Result<Secret, String> {
    let (value, origin) = read_secret(source, dir)?;
    // Nothing else can travel in an Authorization header behind its scheme.
    match value.chars().all(|c| c.is_ascii_graphic()) {
        true => Ok(Secret::new(&value, &origin)),
        false => {
            Err(format!("the secret holds a space, a control character or a letter outside ASCII ({origin})"))
        }
    }
}

/// The whole value of a header: `Bearer KEY`.
pub(super) fn header_value(source: &SecretRef, dir: &Path) -> Result<Secret, String> {
    let (value, origin) = read_secret(source, dir)?;
    let valid = value.trim() == value && value.chars().all(|c| c == ' ' || c.is_ascii_graphic());
    match valid {
        true => Ok(Secret::new(&value, &origin)),
        false => Err(format!(
            "the secret holds a control character, a letter outside ASCII, or a space around it ({origin})"
        )),
    }
}

/// A secret without the line end at its end, and where it is from. Never empty.
fn read_secret(source: &SecretRef, dir: &Path) -> Result<(String, String), String> {
    let (value, origin) = match (&source.env, &source.file) {
        (Some(name), _) => match std::env::var(name) {
            Ok(value) => (value, format!("env {name}")),
            Err(std::env::VarError::NotPresent) => {
                return Err(format!("the environment variable {name} is not set"));
            }
            Err(_) => return Err(format!("the environment variable {name} is not UTF-8")),
        },
        (None, Some(file)) => {
            let bytes = read(&dir.join(file), SECRET_LEN_MAX)
                .map_err(|error| format!("the file `{file}`: {error}"))?;
            let text = String::from_utf8(bytes).map_err(|_| format!("the file `{file}`: it is not UTF-8"))?;
            (text, format!("file {file}"))
        }
        (None, None) => return Err("neither `env` nor `file` is given".into()),
    };
    match value.trim_end_matches(['\r', '\n']) {
        "" => Err(format!("the secret is empty ({origin})")),
        value => Ok((value.to_owned(), origin)),
    }
}
