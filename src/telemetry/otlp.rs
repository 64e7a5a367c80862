//! Sends spans to a collector, as OTLP over HTTP in JSON, which every collector takes: away from the request path, in batches, and
//! without a second attempt. What a collector does not take is counted and gone.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::mpsc::Receiver,
    task::JoinHandle,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use crate::{
    config::Otlp,
    model::{Endpoint, Url},
    signals::traces::{Attribute, Span, SpanCounts, Tracer},
};

/// Spans in a request to the collector.
const BATCH_LEN: usize = 512;

/// How long the first span of a batch waits for others.
const LINGER: Duration = Duration::from_secs(1);

/// A collector that has not answered within this time has not taken them.
const EXPORT_TIME_MAX: Duration = Duration::from_secs(10);

/// Longest answer of a collector that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Where collectors take spans, below the endpoint.
const PATH: &str = "/v1/traces";

/// What sends spans, for as long as there are tracers that make them.
pub struct Exporter {
    /// What it was made by.
    pub settings: Otlp,
    /// Makes spans.
    pub tracer: Arc<Tracer>,
    /// Ends once no tracer is left and all that waited was sent.
    pub task: JoinHandle<()>,
}

impl Exporter {
    /// Starts it, within a runtime.
    pub fn start(settings: &Otlp, counts: Arc<SpanCounts>) -> Exporter {
        let (tracer, spans) = Tracer::new(settings.sample, counts.clone());
        let task = tokio::spawn(export(settings.clone(), spans, counts));
        Exporter { settings: settings.clone(), tracer: Arc::new(tracer), task }
    }
}

async fn export(settings: Otlp, mut spans: Receiver<Span>, counts: Arc<SpanCounts>) {
    let mut was_good = true;
    loop {
        let mut batch = Vec::new();
        let Some(first) = spans.recv().await else { return };
        batch.push(first);
        let fill =
            async { while batch.len() < BATCH_LEN && spans.recv_many(&mut batch, BATCH_LEN).await > 0 {} };
        // A batch that is not full is sent all the same.
        let _ = timeout(LINGER, fill).await;
        let body = Bytes::from(encode(&batch).to_string());
        let count = batch.len() as u64;
        let outcome = timeout(EXPORT_TIME_MAX, post(&settings, body)).await;
        let outcome =
            outcome.unwrap_or_else(|_| Err(format!("no answer within {} s", EXPORT_TIME_MAX.as_secs())));
        match outcome {
            Ok(()) => {
                counts.exported.fetch_add(count, Relaxed);
                if !was_good {
                    tracing::info!(endpoint = %settings.endpoint, "the collector takes spans again");
                }
                was_good = true;
            }
            Err(why) => {
                counts.failed.fetch_add(count, Relaxed);
                // Once, not for every batch of an outage.
                if was_good {
                    tracing::warn!(endpoint = %settings.endpoint, "the collector takes no spans: {why}; they are dropped and counted");
                }
                was_good = false;
            }
        }
    }
}

async fn post(settings: &Otlp, body: Bytes) -> Result<(), String> {
    let Url { endpoint: Endpoint { tls, host, port }, path } = &settings.endpoint;
    let mut request = Request::builder()
        .method(Method::POST)
        .uri(format!("{}{PATH}", path.trim_end_matches('/')))
        .header(header::HOST, settings.endpoint.endpoint.authority())
        .header(header::USER_AGENT, concat!("tradewind/", env!("CARGO_PKG_VERSION")))
        .header(header::CONTENT_TYPE, "application/json");
    for (name, secret) in &settings.headers {
        let name: HeaderName = name.parse().map_err(|_| format!("`{name}` is not the name of a header"))?;
        let mut value = HeaderValue::from_str(secret.expose())
            .map_err(|_| format!("the value of `{name}` fits no header"))?;
        value.set_sensitive(true);
        request = request.header(name, value);
    }
    let request = request.body(Full::from(body)).map_err(|error| error.to_string())?;
    let stream = TcpStream::connect((host.as_str(), *port)).await.map_err(|error| error.to_string())?;
    if !tls {
        return converse(stream, request).await;
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.clone()).map_err(|error| error.to_string())?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|error| error.to_string())?;
    converse(stream, request).await
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

/// A request to a collector, in the JSON form of OTLP: ids in hexadecimal, 64-bit numbers as texts.
fn encode(spans: &[Span]) -> Value {
    let resource = [
        ("service.name", Attribute::Text("tradewind".into())),
        ("service.version", Attribute::Text(env!("CARGO_PKG_VERSION").into())),
    ];
    json!({ "resourceSpans": [{
        "resource": { "attributes": attributes(&resource) },
        "scopeSpans": [{
            "scope": { "name": "tradewind", "version": env!("CARGO_PKG_VERSION") },
            "spans": spans.iter().map(span).collect::<Vec<_>>(),
        }],
    }] })
}

fn span(span: &Span) -> Value {
    let start = span.started_at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut json = json!({
        "traceId": format!("{:032x}", span.trace_id),
        "spanId": format!("{:016x}", span.span_id),
        "name": span.name,
        // SPAN_KIND_SERVER
        "kind": 2,
        "startTimeUnixNano": start.as_nanos().to_string(),
        "endTimeUnixNano": (start + span.duration).as_nanos().to_string(),
        "attributes": attributes(&span.attributes),
        // STATUS_CODE_ERROR, or unset
        "status": { "code": if span.failed { 2 } else { 0 } },
    });
    if let Some(parent) = span.parent {
        json["parentSpanId"] = format!("{parent:016x}").into();
    }
    json
}

fn attributes(attributes: &[(&'static str, Attribute)]) -> Value {
    let encoded = attributes.iter().map(|(key, value)| {
        let value = match value {
            Attribute::Text(text) => json!({ "stringValue": text }),
            Attribute::Number(number) => json!({ "intValue": number.to_string() }),
            Attribute::Seconds(seconds) => json!({ "doubleValue": seconds }),
        };
        json!({ "key": key, "value": value })
    });
    encoded.collect()
}
