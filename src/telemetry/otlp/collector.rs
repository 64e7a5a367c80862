//! The conversation with a collector: one POST for each batch.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::{
    logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse},
    metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse},
    trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
};
use parking_lot::Mutex;
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

/// From a line in the log about what was rejected to the next one.
const COMPLAINT_PAUSE: Duration = Duration::from_secs(60);

/// Longest part of what a collector says that is logged, in characters.
const COMPLAINT_LEN_MAX: usize = 512;

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

    /// What a collector says of it that took it, but not all of it; `None` if it took all, or says nothing that can be read.
    fn reservation(&self, protocol: OtlpProtocol, answer: &[u8]) -> Option<Reservation> {
        let (rejected, why) = match protocol {
            OtlpProtocol::Json => in_json(answer)?,
            OtlpProtocol::Protobuf => match self {
                Payload::Traces(_) => {
                    let said = ExportTraceServiceResponse::decode(answer).ok()?.partial_success?;
                    (said.rejected_spans, said.error_message)
                }
                Payload::Metrics(_) => {
                    let said = ExportMetricsServiceResponse::decode(answer).ok()?.partial_success?;
                    (said.rejected_data_points, said.error_message)
                }
                Payload::Logs(_) => {
                    let said = ExportLogsServiceResponse::decode(answer).ok()?.partial_success?;
                    (said.rejected_log_records, said.error_message)
                }
            },
        };
        let rejected = u64::try_from(rejected).unwrap_or(0);
        (rejected > 0 || !why.is_empty()).then_some(Reservation { rejected, why })
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

/// What a collector did not take of what it took.
#[derive(Debug, PartialEq)]
struct Reservation {
    /// How many pieces; 0 for a mere warning.
    rejected: u64,
    /// In its words.
    why: String,
}

/// How many were rejected, and why. Collectors write 64 bits as a text, as the JSON of protocol buffers has it, or as a number.
fn in_json(answer: &[u8]) -> Option<(i64, String)> {
    let answer: serde_json::Value = serde_json::from_slice(answer).ok()?;
    let said = answer.get("partialSuccess")?;
    let counts = ["rejectedSpans", "rejectedDataPoints", "rejectedLogRecords"];
    let count = counts.iter().find_map(|name| said.get(name));
    let count = count.and_then(|count| count.as_i64().or_else(|| count.as_str()?.parse().ok()));
    let why = said.get("errorMessage").and_then(|why| why.as_str());
    Some((count.unwrap_or(0), why.unwrap_or_default().to_owned()))
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
    /// When it was last told what it rejects, by the name of that: one that rejects something rejects it in every batch.
    complained: [Mutex<Option<Instant>>; 3],
}

impl Collector {
    pub(super) fn new(settings: &Otlp) -> Collector {
        let tls = settings.endpoint.endpoint.tls.then(connector);
        Collector {
            settings: settings.clone(),
            tls,
            failing: Default::default(),
            complained: Default::default(),
        }
    }

    /// Sends it and counts what became of its `count` pieces. Returns in time whatever the collector does.
    pub(super) async fn deliver(&self, payload: Payload, count: u64, counts: &ExportCounts) {
        let (which, what) = match payload {
            Payload::Traces(_) => (0, "spans"),
            Payload::Metrics(_) => (1, "metrics"),
            Payload::Logs(_) => (2, "log records"),
        };
        let failing = &self.failing[which];
        let outcome = timeout(EXPORT_TIME_MAX, self.post(&payload)).await;
        let outcome =
            outcome.unwrap_or_else(|_| Err(format!("no answer within {} s", EXPORT_TIME_MAX.as_secs())));
        let endpoint = &self.settings.endpoint;
        match outcome {
            Ok(answer) => {
                if failing.swap(false, Relaxed) {
                    tracing::info!(%endpoint, "the collector takes {what} again");
                }
                let reservation = payload.reservation(self.settings.protocol, &answer);
                let rejected = reservation.as_ref().map_or(0, |said| said.rejected.min(count));
                counts.exported.fetch_add(count - rejected, Relaxed);
                counts.rejected.fetch_add(rejected, Relaxed);
                if let Some(said) = reservation {
                    self.complain(which, what, &said, count);
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

    /// Says what it rejects, once in a while.
    fn complain(&self, which: usize, what: &str, said: &Reservation, count: u64) {
        let mut last = self.complained[which].lock();
        if last.is_some_and(|at| at.elapsed() < COMPLAINT_PAUSE) {
            return;
        }
        *last = Some(Instant::now());
        let (endpoint, rejected) = (&self.settings.endpoint, said.rejected);
        let why: String = said.why.chars().take(COMPLAINT_LEN_MAX).collect();
        match rejected {
            0 => tracing::warn!(%endpoint, "the collector took all {what}, and warns: {why}"),
            _ => tracing::warn!(
                %endpoint,
                "the collector rejected {rejected} of {count} {what}: {why}; they are dropped and counted, and this is said once a minute"
            ),
        }
    }

    /// Sends it; gives the answer of a collector that took it.
    async fn post(&self, payload: &Payload) -> Result<Bytes, String> {
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
) -> Result<Bytes, String> {
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let exchange = async {
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        let said =
            Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map(|said| said.to_bytes());
        match status.is_success() {
            // It has taken it, whatever became of its answer.
            true => Ok(said.unwrap_or_default()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_rejected_is_read_from_any_collector() {
        let read = |protocol, answer: &[u8]| Payload::Logs(Default::default()).reservation(protocol, answer);
        let some = |rejected, why: &str| Some(Reservation { rejected, why: why.into() });
        for (answer, expected) in [
            (r#"{"partialSuccess":{"rejectedLogRecords":"3","errorMessage":"too old"}}"#, some(3, "too old")),
            (r#"{"partialSuccess":{"rejectedLogRecords":3}}"#, some(3, "")),
            (r#"{"partialSuccess":{"errorMessage":"old format"}}"#, some(0, "old format")),
            (r#"{"partialSuccess":{"rejectedLogRecords":-1}}"#, None),
            (r#"{"partialSuccess":{}}"#, None),
            (r#"{"partialSuccess":null}"#, None),
            ("{}", None),
            ("", None),
            ("ok", None),
        ] {
            assert_eq!(read(OtlpProtocol::Json, answer.as_bytes()), expected, "{answer}");
        }
        // Field 1 is a message of the count (1) and the text (2).
        assert_eq!(read(OtlpProtocol::Protobuf, b"\x0a\x06\x08\x03\x12\x02no"), some(3, "no"));
        assert_eq!(read(OtlpProtocol::Protobuf, b"\x0a\x00"), None);
        assert_eq!(read(OtlpProtocol::Protobuf, b""), None);
        assert_eq!(read(OtlpProtocol::Protobuf, b"\xff"), None);
    }
}
