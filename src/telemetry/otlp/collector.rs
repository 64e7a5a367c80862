//! The conversation with a collector: one POST for each batch.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest,
    trace::v1::ExportTraceServiceRequest,
};
use prost::Message;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{
    config::{Otlp, OtlpProtocol},
    model::{Endpoint, Url},
    signals::traces::ExportCounts,
};

/// A collector that has not answered within this time has not taken it.
const EXPORT_TIME_MAX: Duration = Duration::from_secs(10);

/// Longest answer of a collector that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What is sent.
pub(super) enum Payload {
    Traces(ExportTraceServiceRequest),
    Metrics(ExportMetricsServiceRequest),
    Logs(ExportLogsServiceRequest),
}

impl Payload {
    /// Where collectors take it, below the endpoint.
    fn path(&self) -> &'static str {
        match self {
            Payload::Traces(_) => "/v1/traces",
            Payload::Metrics(_) => "/v1/metrics",
            Payload::Logs(_) => "/v1/logs",
        }
    }

    fn encode(&self, protocol: OtlpProtocol) -> Result<Bytes, String> {
        let bytes = match (protocol, self) {
            (OtlpProtocol::Protobuf, Payload::Traces(message)) => message.encode_to_vec(),
            (OtlpProtocol::Protobuf, Payload::Metrics(message)) => message.encode_to_vec(),
            (OtlpProtocol::Protobuf, Payload::Logs(message)) => message.encode_to_vec(),
            (OtlpProtocol::Json, Payload::Traces(message)) => json(message)?,
            (OtlpProtocol::Json, Payload::Metrics(message)) => json(message)?,
            (OtlpProtocol::Json, Payload::Logs(message)) => json(message)?,
        };
        Ok(bytes.into())
    }
}

fn json(message: &impl serde::Serialize) -> Result<Vec<u8>, String> {
    serde_json::to_vec(message).map_err(|error| error.to_string())
}

/// A collector.
pub(super) struct Collector {
    settings: Otlp,
    /// How it is spoken to over TLS, or why it cannot be; `None` for a plain one.
    tls: Option<Result<TlsConnector, String>>,
    /// Whether it does not take something, by the name of that: an outage is one line, not one for every batch.
    failing: [AtomicBool; 3],
}

impl Collector {
    pub(super) fn new(settings: &Otlp) -> Collector {
        let tls = settings.endpoint.endpoint.tls.then(connector);
        Collector { settings: settings.clone(), tls, failing: Default::default() }
    }

    /// Sends it and counts what became of its `count` pieces. Returns in time whatever the collector does.
    pub(super) async fn deliver(&self, payload: Payload, count: u64, counts: &ExportCounts) {
        let (failing, what) = match payload {
            Payload::Traces(_) => (&self.failing[0], "spans"),
            Payload::Metrics(_) => (&self.failing[1], "metrics"),
            Payload::Logs(_) => (&self.failing[2], "log records"),
        };
        let outcome = timeout(EXPORT_TIME_MAX, self.post(&payload)).await;
        let outcome =
            outcome.unwrap_or_else(|_| Err(format!("no answer within {} s", EXPORT_TIME_MAX.as_secs())));
        let endpoint = &self.settings.endpoint;
        match outcome {
            Ok(()) => {
                counts.exported.fetch_add(count, Relaxed);
                if failing.swap(false, Relaxed) {
                    tracing::info!(%endpoint, "the collector takes {what} again");
                }
            }
            Err(why) => {
                counts.failed.fetch_add(count, Relaxed);
                if !failing.swap(true, Relaxed) {
                    tracing::warn!(%endpoint, "the collector takes no {what}: {why}; they are dropped and counted");
                }
            }
        }
    }

    async fn post(&self, payload: &Payload) -> Result<(), String> {
        let Url { endpoint: Endpoint { host, port, .. }, path } = &self.settings.endpoint;
        let kind = match self.settings.protocol {
            OtlpProtocol::Protobuf => "application/x-protobuf",
            OtlpProtocol::Json => "application/json",
        };
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}{}", path.trim_end_matches('/'), payload.path()))
            .header(header::HOST, self.settings.endpoint.endpoint.authority())
            .header(header::USER_AGENT, concat!("tradewind/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, kind);
        for (name, secret) in &self.settings.headers {
            let name: HeaderName =
                name.parse().map_err(|_| format!("`{name}` is not the name of a header"))?;
            let mut value = HeaderValue::from_str(secret.expose())
                .map_err(|_| format!("the value of `{name}` fits no header"))?;
            value.set_sensitive(true);
            request = request.header(name, value);
        }
        let body = payload.encode(self.settings.protocol)?;
        let request = request.body(Full::from(body)).map_err(|error| error.to_string())?;
        let connected = TcpStream::connect((host.as_str(), *port)).await;
        let stream = connected.map_err(|error| error.to_string())?;
        let Some(connector) = &self.tls else { return converse(stream, request).await };
        let name = ServerName::try_from(host.clone()).map_err(|error| error.to_string())?;
        let stream = connector.clone()?.connect(name, stream).await.map_err(|error| error.to_string())?;
        converse(stream, request).await
    }
}

/// By the certificates that the system trusts.
fn connector() -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Full<Bytes>>,
) -> Result<(), String> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let said =
            Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map(|said| said.to_bytes());
        match status.is_success() {
            true => Ok(()),
            false => {
                Err(format!("it answered {status}: {}", String::from_utf8_lossy(&said.unwrap_or_default())))
            }
        }
    };
    let (mut connection, mut exchange) = (std::pin::pin!(connection), std::pin::pin!(exchange));
    tokio::select! {
        outcome = &mut exchange => outcome,
        _ = &mut connection => exchange.await,
    }
}
