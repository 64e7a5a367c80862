//! Asks the admin API of a running Tradewind.

use std::{path::PathBuf, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
};
use tokio_rustls::TlsConnector;

use super::{Failure, table};

/// Longest answer read: the longest honest one is the journal's, which the server bounds to a few MiB.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Where a token is looked for without `--token-file`. An argument would be visible to all users of the machine.
const TOKEN_VARIABLE: &str = "TRADEWIND_TOKEN";

/// Which Tradewind is asked, and how.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Admin API")]
pub(super) struct AdminArgs {
    /// Address of the admin API, or of its socket: unix:PATH
    #[arg(
        long,
        value_name = "URL",
        env = "TRADEWIND_ADMIN",
        default_value = "http://127.0.0.1:9901",
        global = true
    )]
    pub(super) admin: String,

    /// File with the token to present; without it, the variable TRADEWIND_TOKEN is used if set
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) token_file: Option<PathBuf>,

    /// PEM file with the certificate that an https address must chain to; without it, the system's roots
    #[arg(long, value_name = "FILE", global = true)]
    pub(super) admin_ca: Option<PathBuf>,

    /// Print the API's answer as JSON
    #[arg(long, global = true)]
    pub(super) json: bool,

    /// How long to wait for the answer
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration, global = true)]
    pub(super) timeout: Duration,
}

/// `"500ms"`, `"10s"`, `"2m"`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|span| Duration::try_from(span).ok())
        .filter(|span| !span.is_zero())
        .ok_or_else(|| "expected a duration above zero such as \"500ms\", \"10s\" or \"2m\"".into())
}

/// An answer of the API.
#[derive(Debug)]
pub(super) struct Answer {
    /// Its status.
    pub(super) status: StatusCode,
    /// Its body.
    pub(super) body: Bytes,
}

/// The part of a problem document (RFC 9457) that people read.
#[derive(Deserialize)]
struct ProblemDocument {
    detail: String,
    #[serde(default)]
    faults: Vec<ProblemFault>,
}

/// A fault of the configuration, as `tradewind check` would say it.
#[derive(Deserialize)]
struct ProblemFault {
    file: String,
    line: usize,
    column: usize,
    severity: String,
    message: String,
    hint: Option<String>,
}

impl ProblemDocument {
    /// The sentence, and a line for every fault.
    fn in_words(&self) -> String {
        let mut text = table::printable(&self.detail);
        for fault in &self.faults {
            let ProblemFault { file, line, column, severity, message, hint } = fault;
            // A fault of no single place has no line.
            let place = if *line > 0 { format!("{file}:{line}:{column}") } else { file.clone() };
            text += &format!("\n{}", table::printable(&format!("{place}: {severity}: {message}")));
            text += &hint
                .as_ref()
                .map_or_else(String::new, |hint| format!("\n    hint: {}", table::printable(hint)));
        }
        text
    }
}

impl AdminArgs {
    /// A call without a body, and its answer read as `T`.
    ///
    /// # Errors
    /// `Unreachable` when there is no answer, or one with a status of 500 or more; `Input` when the call is refused.
    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
    ) -> Result<Reply<T>, Failure> {
        self.reply(self.ask(method, path, None).await?)
    }

    /// A POST with a JSON body, and its answer read as `T`.
    ///
    /// # Errors
    /// As [`AdminArgs::call`].
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl serde::Serialize,
    ) -> Result<Reply<T>, Failure> {
        let body = serde_json::to_vec(body)
            .map_err(|error| Failure::Input(format!("the request cannot be written as JSON: {error}")))?;
        self.reply(self.ask(Method::POST, path, Some(body)).await?)
    }

    /// A GET that needs no token, with whatever status it answers: for `/livez` and `/readyz`.
    ///
    /// # Errors
    /// `Unreachable` when there is no answer.
    pub(super) async fn probe(&self, path: &str) -> Result<Answer, Failure> {
        let target = self.target(path)?;
        self.within_timeout(self.exchange(&target, Method::GET, None, None)).await
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Answer, Failure> {
        let target = self.target(path)?;
        let token = self.token()?;
        if token.is_some() && !target.tls && !target.loopback() {
            return Err(Failure::Input(format!(
                "the token would travel unencrypted to {}: use an https address, or a tunnel that ends on this machine",
                self.admin
            )));
        }
        self.within_timeout(self.exchange(&target, method, body, token)).await
    }

    fn reply<T: DeserializeOwned>(&self, answer: Answer) -> Result<Reply<T>, Failure> {
        if answer.status.is_success() {
            let value = serde_json::from_slice(&answer.body).map_err(|error| {
                Failure::Unreachable(format!(
                    "{} gave an answer that this version does not understand ({error}): is it the admin API of \
                     Tradewind {}?",
                    self.admin,
                    env!("CARGO_PKG_VERSION")
                ))
            })?;
            return Ok(Reply { value, body: answer.body });
        }
        let sentence = match serde_json::from_slice::<ProblemDocument>(&answer.body) {
            Ok(problem) => problem.in_words(),
            Err(_) => format!("{} answered {}: is it the admin API of Tradewind?", self.admin, answer.status),
        };
        let hint = match answer.status {
            StatusCode::UNAUTHORIZED => format!(" Here: `--token-file FILE` or {TOKEN_VARIABLE}."),
            _ => String::new(),
        };
        let sentence = format!("{sentence}{hint}");
        Err(if answer.status.is_server_error() {
            Failure::Unreachable(sentence)
        } else {
            Failure::Input(sentence)
        })
    }

    fn target(&self, path: &str) -> Result<Target, Failure> {
        if let Some(socket) = self.admin.strip_prefix("unix:") {
            let (host, authority) = ("localhost".to_owned(), "localhost".to_owned());
            let socket = Some(PathBuf::from(socket));
            return Ok(Target { tls: false, port: 0, authority, path: path.to_owned(), host, socket });
        }
        let wrong = || {
            Failure::Input(format!(
                "`{}` is not the address of an admin API: expected http://HOST:PORT, https://HOST:PORT or unix:PATH",
                self.admin
            ))
        };
        let uri: Uri = self.admin.parse().map_err(|_| wrong())?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().filter(|a| !a.as_str().contains('@')).ok_or_else(wrong)?;
        if uri.query().is_some() {
            return Err(wrong());
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Target {
            tls,
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            authority: authority.to_string(),
            path: format!("{}{path}", uri.path().trim_end_matches('/')),
            host,
            socket: None,
        })
    }

    fn token(&self) -> Result<Option<String>, Failure> {
        let (text, origin) = match &self.token_file {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    Failure::Input(format!("the token file {} cannot be read: {error}", path.display()))
                })?;
                (text, format!("the token file {}", path.display()))
            }
            None => match std::env::var(TOKEN_VARIABLE) {
                Ok(text) if !text.trim().is_empty() => (text, format!("the variable {TOKEN_VARIABLE}")),
                _ => return Ok(None),
            },
        };
        let token = text.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Failure::Input(format!(
                "{origin} does not hold a token: expected one line of visible ASCII characters"
            )));
        }
        Ok(Some(token.to_owned()))
    }

    async fn within_timeout(
        &self,
        exchange: impl Future<Output = Result<Answer, Failure>>,
    ) -> Result<Answer, Failure> {
        tokio::time::timeout(self.timeout, exchange).await.unwrap_or_else(|_| {
            Err(Failure::Unreachable(format!(
                "{} did not answer within {:?}: raise --timeout, or look at the log of `tradewind run`",
                self.admin, self.timeout
            )))
        })
    }

    async fn exchange(
        &self,
        target: &Target,
        method: Method,
        body: Option<Vec<u8>>,
        token: Option<String>,
    ) -> Result<Answer, Failure> {
        let unreachable = |error: std::io::Error| {
            Failure::Unreachable(format!(
                "there is no connection to the admin API at {}: {error}. Is `tradewind run` up, and is this its \
                 `[admin] listen`? `--admin URL` or TRADEWIND_ADMIN names another address",
                self.admin
            ))
        };
        let request = request(target, method, body, token)
            .map_err(|error| Failure::Input(format!("the request cannot be written: {error}")))?;
        let broken = |error: Box<dyn std::error::Error + Send + Sync>| {
            Failure::Unreachable(format!(
                "the connection to {} broke before the answer was complete: {error}",
                self.admin
            ))
        };
        if let Some(socket) = &target.socket {
            let stream = UnixStream::connect(socket).await.map_err(unreachable)?;
            return converse(stream, request).await.map_err(broken);
        }
        let stream = TcpStream::connect((target.host.as_str(), target.port)).await.map_err(unreachable)?;
        let answer = if target.tls {
            let name = ServerName::try_from(target.host.clone())
                .map_err(|error| Failure::Input(format!("`{}`: {error}", target.host)))?;
            let connector = TlsConnector::from(Arc::new(self.tls_config()?));
            let stream = connector.connect(name, stream).await.map_err(|error| {
                Failure::Unreachable(format!(
                    "there is no trusted TLS connection to {}: {error}. `--admin-ca FILE` names the certificate to \
                     trust",
                    self.admin
                ))
            })?;
            converse(stream, request).await
        } else {
            converse(stream, request).await
        };
        answer.map_err(broken)
    }

    fn tls_config(&self) -> Result<ClientConfig, Failure> {
        let mut roots = RootCertStore::empty();
        match &self.admin_ca {
            Some(path) => {
                let wrong = |error: String| {
                    Failure::Input(format!(
                        "{} is not a PEM file with a certificate: {error}",
                        path.display()
                    ))
                };
                let certs = CertificateDer::pem_file_iter(path)
                    .and_then(Iterator::collect::<Result<Vec<_>, _>>)
                    .map_err(|error| wrong(error.to_string()))?;
                if certs.is_empty() {
                    return Err(wrong("it holds none".into()));
                }
                for cert in certs {
                    roots.add(cert).map_err(|error| wrong(error.to_string()))?;
                }
            }
            None => {
                // Certificates that cannot be used are passed over: the rest of the system's roots are still good.
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::Input(format!("TLS cannot be set up: {error}")))?;
        Ok(config.with_root_certificates(roots).with_no_client_auth())
    }
}

/// An answer that was understood.
#[derive(Debug)]
pub(super) struct Reply<T> {
    /// The answer.
    pub(super) value: T,
    body: Bytes,
}

impl<T> Reply<T> {
    /// The answer as the API gave it, indented; fields that this version does not know are kept.
    pub(super) fn json(&self) -> String {
        let pretty = serde_json::from_slice::<serde_json::Value>(&self.body)
            .and_then(|value| serde_json::to_string_pretty(&value));
        format!("{}\n", pretty.unwrap_or_else(|_| String::from_utf8_lossy(&self.body).into_owned()))
    }

    /// The same on one line.
    pub(super) fn json_line(&self) -> String {
        let value = serde_json::from_slice::<serde_json::Value>(&self.body).unwrap_or_default();
        format!("{value}\n")
    }
}

/// Where a call goes.
struct Target {
    /// In place of host and port.
    socket: Option<PathBuf>,
    tls: bool,
    host: String,
    port: u16,
    authority: String,
    path: String,
}

impl Target {
    /// Whether what is sent stays on this machine.
    fn loopback(&self) -> bool {
        let address =
            self.host.parse::<std::net::IpAddr>().map(|address| address.to_canonical().is_loopback());
        address.unwrap_or_else(|_| self.host.eq_ignore_ascii_case("localhost"))
    }
}

fn request(
    target: &Target,
    method: Method,
    body: Option<Vec<u8>>,
    token: Option<String>,
) -> Result<Request<Full<Bytes>>, http::Error> {
    let mut builder = Request::builder()
        .method(method)
        .uri(&target.path)
        .header(header::HOST, &target.authority)
        .header(header::USER_AGENT, concat!("tradewind/", env!("CARGO_PKG_VERSION")));
    if body.is_some() {
        builder = builder.header(header::CONTENT_TYPE, "application/json");
    }
    if let Some(token) = token {
        let mut value = HeaderValue::try_from(format!("Bearer {token}"))?;
        value.set_sensitive(true);
        builder = builder.header(header::AUTHORIZATION, value);
    }
    builder.body(Full::from(body.unwrap_or_default()))
}

/// Sends a request on a fresh connection and reads the whole answer.
async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Full<Bytes>>,
) -> Result<Answer, Box<dyn std::error::Error + Send + Sync>> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await?.to_bytes();
        Ok(Answer { status, body })
    };
    let mut connection = std::pin::pin!(connection);
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        // The connection may end together with the answer, which is then already here.
        _ = &mut connection => exchange.await,
    }
}

/// A name as one segment of a path.
pub(super) fn segment(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

/// A path with those parameters that have a value.
pub(super) fn query(path: &str, parameters: &[(&str, Option<String>)]) -> String {
    let given = parameters.iter().filter_map(|(name, value)| value.as_ref().map(|value| (name, value)));
    let pairs: Vec<String> = given.map(|(name, value)| format!("{name}={}", segment(value))).collect();
    if pairs.is_empty() { path.to_owned() } else { format!("{path}?{}", pairs.join("&")) }
}

#[cfg(test)]
mod tests;
