//! The sense of the file: what fits the schema and still cannot work, and the step from the document to [`Settings`].

mod conditions;
mod costs;
mod listen;
mod load;
mod prices;
mod serving;
mod tenants;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    check::{Checked, KeyPath, dotted},
    faults::{Collector, Severity},
    files::{self, BadPair},
    leaf::{Text, show_duration},
    schema::{self, Document, OtlpSignal, TokenRef},
    settings::{Access, Admin, Listen, Location, Log, Otlp, Secret, Settings, Tls, Token},
};
use crate::model::{KeyPair, PolicyId, Share, Timestamp};

/// Where a relative path starts, for someone whose file was not found.
const PATH_HINT: &str = "relative paths start at the directory of this file";

/// Turns what of the document fits the schema into settings, and notes what is wrong with it. After an error, the
/// settings lack what it is about.
pub(super) fn settings(
    mut document: Document,
    checked: &Checked,
    dir: &Path,
    faults: &mut Collector<'_>,
) -> Settings {
    let mut rules = Rules { checked, dir, watched: Vec::new(), faults };
    let fees = rules.fees(&document.fees);
    rules.fill_defaults(&mut document);
    rules.fill_egress(&mut document, &fees);
    let effective = serde_json::to_value(&document).unwrap_or_default();
    let listen = rules.listen(&document.listen);
    let admin = rules.admin(&document.admin);
    rules.addresses(&listen, admin.listen);
    rules.loops(&document.backends.0, &listen, admin.listen);
    let state_dir = rules.state_dir(&document.state);
    let prices = rules.prices(&document.prices);
    let tick = document.control.tick.0;
    rules.within(&["control", "tick"], tick, Duration::from_millis(50)..=Duration::from_secs(60));
    let log = rules.log(&document.log);
    let otlp = document.telemetry.otlp.as_ref().map(|otlp| rules.otlp(otlp));
    let policies = rules.policies(&document);
    let conditions = rules.conditions(&document);
    let backends = document
        .backends
        .0
        .iter()
        .map(|(id, backend)| Arc::new(rules.backend(id.clone(), backend, &fees)))
        .collect();
    let routes = rules.routes(&document, &policies);
    let tenants = rules.tenants(&document);
    rules.totals(&document);
    rules.unused(&document);
    let effective = Arc::new(effective);
    let watched = rules.watched;
    let location = document.location.map(|schema::Location { cloud, region }| Location { cloud, region });
    Settings {
        listen,
        admin,
        state_dir,
        prices,
        fees,
        location,
        tick,
        log,
        otlp,
        backends,
        routes,
        tenants,
        rules: conditions,
        watched,
        effective,
    }
}

struct Rules<'a, 'text> {
    checked: &'a Checked,
    dir: &'a Path,
    /// Files of certificates, keys and secrets, which a reload takes up.
    watched: Vec<PathBuf>,
    faults: &'a mut Collector<'text>,
}

impl Rules<'_, '_> {
    fn fill_defaults(&mut self, document: &mut Document) {
        let listen = &mut document.listen;
        if listen.http.is_none() && listen.https.is_none() {
            listen.http = Some(Text(SocketAddr::from(([0, 0, 0, 0], 8080))));
        }
        let admin = &mut document.admin;
        if admin.listen.is_none() && admin.socket.is_none() {
            admin.listen = Some(Text(SocketAddr::from(([127, 0, 0, 1], 9901))));
        }
        for (_, backend) in &mut document.backends.0 {
            let interval = backend.probe.interval.0;
            backend.probe.timeout.get_or_insert(Text(interval.min(Duration::from_secs(2))));
        }
        let default: PolicyId = "default".parse().expect("`default` is a valid name");
        if !document.policies.0.iter().any(|(id, _)| *id == default) {
            document.policies.0.push((default, schema::Policy::default()));
        }
    }

    fn log(&mut self, log: &schema::Log) -> Log {
        let access = log.access.as_ref().map(|access| self.access(access));
        Log { format: log.format, level: log.level.0.0.clone(), access }
    }

    fn access(&mut self, access: &schema::Access) -> Access {
        if access.sample.0 == Share::ZERO {
            let hint = "take `log.access` out to write none";
            self.error(&["log", "access", "sample"], "found 0%, expected more".into(), Some(hint.into()));
        }
        let file = access.file.as_ref().map(|file| (file, self.dir.join(file)));
        if let Some((written, path)) = &file {
            let problem = match path.parent() {
                _ if path.is_dir() => Some("it is a directory"),
                Some(parent) if !parent.as_os_str().is_empty() && !parent.is_dir() => {
                    Some("there is no such directory")
                }
                _ => None,
            };
            if let Some(problem) = problem {
                let message = format!("the file `{written}`: {problem}");
                self.error(&["log", "access", "file"], message, Some(PATH_HINT.into()));
            }
        }
        Access { file: file.map(|(_, path)| path), sample: access.sample.0 }
    }

    fn admin(&mut self, admin: &schema::Admin) -> Admin {
        let listen = admin.listen.as_ref().map(|addr| addr.0);
        let tls = admin.tls.as_ref().map(|tls| self.key_pair(&["admin", "tls"], &tls.cert, &tls.key).0);
        let missing = missing(&[("tls", tls.is_none()), ("tokens", admin.tokens.is_empty())]);
        let exposed = listen.filter(|addr| !addr.ip().to_canonical().is_loopback());
        if let (Some(missing), Some(addr)) = (missing, exposed) {
            let message =
                format!("{addr} can be reached from other machines, but the admin API lacks {missing}");
            let hint = "listen on 127.0.0.1, or give `tls` and `tokens`";
            self.error(&["admin", "listen"], message, Some(hint.into()));
        }
        if listen.is_none() && tls.is_some() {
            let hint = "give `listen` an address, or take `tls` out";
            self.error(&["admin", "tls"], "the socket alone has no TLS".into(), Some(hint.into()));
        }
        let tokens = self.tokens(&admin.tokens);
        for (index, host) in admin.hosts.iter().enumerate() {
            let is_name =
                !host.is_empty() && host.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
            if !is_name {
                let hint = "write the name alone, without scheme and port: \"tradewind.example.com\"";
                let message = "it is not the name of a host".to_owned();
                self.error(&["admin", "hosts", &format!("[{index}]")], message, Some(hint.into()));
            }
        }
        let hosts = admin.hosts.iter().map(|host| host.to_ascii_lowercase()).collect();
        let socket = admin.socket.as_ref().map(|path| self.dir.join(path));
        Admin { listen, tls, hosts, socket, tokens }
    }

    fn otlp(&mut self, written: &schema::Otlp) -> Otlp {
        let mut headers = Vec::new();
        for (name, source) in written.headers.iter().flat_map(|headers| &headers.0) {
            match files::header_value(source, self.dir) {
                Ok(value) => headers.push((name.0.clone(), value)),
                Err(problem) => self.error(&["telemetry", "otlp", "headers", &name.0], problem, None),
            }
        }
        let range = Duration::from_secs(1)..=Duration::from_secs(3600);
        self.within(&["telemetry", "otlp", "interval"], written.interval.0, range);
        let sends = |signal| written.signals.contains(&signal);
        Otlp {
            endpoint: written.endpoint.0.0.clone(),
            protocol: written.protocol,
            traces: sends(OtlpSignal::Traces),
            logs: sends(OtlpSignal::Logs),
            metrics_every: sends(OtlpSignal::Metrics).then_some(written.interval.0),
            sample: written.sample.0,
            headers,
        }
    }

    fn tokens(&mut self, written: &[schema::Token]) -> Vec<Token> {
        let mut tokens: Vec<Token> = Vec::new();
        for (index, token) in written.iter().enumerate() {
            let path = ["admin", "tokens", &format!("[{index}]")];
            if tokens.iter().any(|other| other.name == token.name) {
                let message = format!("another token is named `{}`", token.name);
                let hint = "the journal could not tell them apart: give each its own name";
                self.error(&[&path[..], &["name"]].concat(), message, Some(hint.into()));
            }
            let at_value = [&path[..], &["value"]].concat();
            let hint = match &token.value {
                TokenRef { sha256: Some(_), .. } => {
                    "write what this prints: printf %s \"$TOKEN\" | sha256sum"
                }
                TokenRef { file: Some(file), .. } if !self.dir.join(file).exists() => PATH_HINT,
                TokenRef { file: Some(_), .. } => {
                    "the file must hold the secret alone, on one line, readable for this user"
                }
                _ => "set it for the process, to the secret alone",
            };
            match files::token(&token.value, self.dir) {
                Err(problem) => self.error(&at_value, problem, Some(hint.into())),
                Ok(digest) => {
                    if let Some(other) = tokens.iter().find(|other| other.digest == digest) {
                        let message = format!("the value is that of the token `{}` too", other.name);
                        self.error(&at_value, message, Some("give each token a value of its own".into()));
                    }
                    let expires = token.expires.as_ref().map(|at| at.0);
                    tokens.push(Token { name: token.name.clone(), role: token.role, digest, expires });
                }
            }
        }
        tokens
    }

    fn secret(&mut self, path: &[&str], source: &schema::SecretRef) -> Option<Secret> {
        let hint = match &source.file {
            Some(file) if !self.dir.join(file).exists() => PATH_HINT,
            Some(_) => "the file must hold the secret alone, on one line, readable for this user",
            None => "set it for the process, to the secret alone",
        };
        let secret = files::secret(source, self.dir);
        secret.map_err(|problem| self.error(path, problem, Some(hint.into()))).ok()
    }

    /// Two sockets cannot listen on one address.
    fn addresses(&mut self, listen: &Listen, admin: Option<SocketAddr>) {
        let mut taken: Vec<(&str, SocketAddr)> = Vec::new();
        for (name, path, addr) in listen::own(listen, admin) {
            let same = |other: &SocketAddr| {
                let ip = other.ip() == addr.ip() || other.ip().is_unspecified() || addr.ip().is_unspecified();
                addr.port() != 0 && other.port() == addr.port() && ip
            };
            if let Some((other, _)) = taken.iter().find(|(_, other)| same(other)) {
                self.error(path, format!("{addr} is taken by `{other}`"), Some("use another port".into()));
            }
            taken.push((name, addr));
        }
    }

    /// A certificate and its key, and the files that they are in: under the keys `cert` and `key` of a table.
    fn key_pair(&mut self, table: &[&str], cert: &str, key: &str) -> (Tls, Option<KeyPair>) {
        self.key_pair_at(&[table, &["cert"]].concat(), &[table, &["key"]].concat(), cert, key)
    }

    fn key_pair_at(
        &mut self,
        cert_path: &[&str],
        key_path: &[&str],
        cert: &str,
        key: &str,
    ) -> (Tls, Option<KeyPair>) {
        let files = Tls { name: cert.to_owned(), cert: self.file(cert), key: self.file(key) };
        match files::key_pair(cert, &files.cert, &files.key) {
            Ok(pair) => {
                if pair.expires < Timestamp::now() {
                    let problem = format!("the certificate in `{cert}` expired at {}", pair.expires);
                    self.warn(cert_path, &problem, Some("renew it".into()));
                }
                return (files, Some(pair));
            }
            Err(BadPair::Key(problem)) => self.file_error(key_path, key, &problem),
            Err(BadPair::Certificate(problem)) => {
                self.file_error(cert_path, cert, &problem);
                if let Err(problem) = files::open(&files.key) {
                    self.file_error(key_path, key, &problem);
                }
            }
        }
        (files, None)
    }

    /// Where a file that the configuration names is; noted as one that matters.
    fn file(&mut self, name: &str) -> PathBuf {
        let path = self.dir.join(name);
        self.watched.push(path.clone());
        path
    }

    fn state_dir(&mut self, state: &schema::State) -> PathBuf {
        let dir = self.dir.join(&state.dir);
        if dir.exists() && !dir.is_dir() {
            self.error(&["state", "dir"], format!("`{}` is there, but is not a directory", state.dir), None);
        }
        dir
    }

    fn within(&mut self, path: &[&str], found: Duration, range: std::ops::RangeInclusive<Duration>) {
        if !range.contains(&found) {
            let [found, min, max] = [found, *range.start(), *range.end()].map(show_duration);
            self.error(path, format!("found {found}, expected {min} to {max}"), None);
        }
    }

    fn file_error(&mut self, path: &[&str], file: &str, problem: &str) {
        let lost = !self.dir.join(file).exists();
        self.error(path, format!("the file `{file}`: {problem}"), lost.then(|| PATH_HINT.into()));
    }

    fn error(&mut self, path: &[&str], problem: String, hint: Option<String>) {
        self.note(Severity::Error, path, &problem, hint);
    }

    fn warn(&mut self, path: &[&str], problem: &str, hint: Option<String>) {
        self.note(Severity::Warning, path, problem, hint);
    }

    fn note(&mut self, severity: Severity, path: &[&str], problem: &str, hint: Option<String>) {
        let path = owned(path);
        let parent = &path[..path.len().saturating_sub(1)];
        if self.checked.tainted.contains(&path) || self.checked.tainted.contains(parent) {
            return;
        }
        let span = (1..=path.len()).rev().find_map(|len| self.checked.spans.get(&path[..len])).cloned();
        self.faults.add(severity, span, format!("{}: {problem}", dotted(&path)), hint);
    }

    fn at(&self, path: &[&str]) -> Option<std::ops::Range<usize>> {
        self.checked.spans.get(&owned(path)).cloned()
    }

    fn is_written(&self, path: &[&str]) -> bool {
        self.checked.spans.contains_key(&owned(path))
    }
}

fn owned(path: &[&str]) -> KeyPath {
    path.iter().map(|key| (*key).to_owned()).collect()
}

/// The keys that are missing, if any: `a` and `b`.
fn missing(keys: &[(&str, bool)]) -> Option<String> {
    let missing: Vec<String> =
        keys.iter().filter(|(_, missing)| *missing).map(|(key, _)| format!("`{key}`")).collect();
    (!missing.is_empty()).then(|| missing.join(" and "))
}
