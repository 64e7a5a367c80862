//! A cluster that serves no model: a small HTTP server that answers like an OpenAI-compatible one, with latency of its own.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::answer::{Answer, ChatRequest, TokenStream};

/// Largest request body: more than the demo's clients send, and less than what could fill the memory.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Most connections at a time; the proxy keeps far fewer.
const CONNECTIONS_MAX: usize = 1_000;
/// A client that does not finish its request header in this time is let go.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// A synthetic latency: log-normal around its median.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Latency {
    /// Half of the draws are below.
    pub median: Duration,
    /// Standard deviation of the logarithm; 0 for always the median.
    pub spread: f64,
}

impl Latency {
    /// One draw, between a fifth and five times the median.
    pub fn draw(&self, rng: &mut fastrand::Rng) -> Duration {
        // Box and Muller; 1 - f64() is never 0.
        let radius = (-2.0 * (1.0 - rng.f64()).ln()).sqrt();
        let normal = radius * (std::f64::consts::TAU * rng.f64()).cos();
        self.median.mul_f64((self.spread * normal).exp().clamp(0.2, 5.0))
    }
}

/// How a cluster behaves. All of it is synthetic.
#[derive(Clone, Debug)]
pub struct ClusterSpec {
    /// The one model that it serves.
    pub model: String,
    /// Added to every answer: the way there and back.
    pub network: Latency,
    /// From the arrival of a chat request to its first token.
    pub first_token: Latency,
    /// From one token to the next.
    pub per_token: Latency,
}

/// What a cluster has done so far.
#[derive(Debug, Default)]
pub struct Served {
    begun: AtomicU64,
    requests: AtomicU64,
    tokens: AtomicU64,
}

impl Served {
    /// Chat requests whose answer has begun, whether it ended or not.
    pub fn begun(&self) -> u64 {
        self.begun.load(Ordering::Relaxed)
    }

    /// Chat requests answered to the last byte.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Tokens in those answers.
    pub fn tokens(&self) -> u64 {
        self.tokens.load(Ordering::Relaxed)
    }

    /// Counts one answer that is complete.
    pub(super) fn count(&self, tokens: u32) {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.tokens.fetch_add(u64::from(tokens), Ordering::Relaxed);
    }
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

struct Shared {
    spec: ClusterSpec,
    seed: u64,
    arrived: AtomicU64,
    served: Arc<Served>,
}

/// A running cluster. It ends, with all its connections, when dropped.
#[derive(Debug)]
pub struct Cluster {
    address: SocketAddr,
    served: Arc<Served>,
    // Dropping the set aborts the task that accepts, and with it the connections.
    _tasks: JoinSet<()>,
}

impl Cluster {
    /// Serves on a free port of the loopback interface. The same `seed` gives the n-th request the same answer and latency.
    pub async fn start(spec: ClusterSpec, seed: u64) -> io::Result<Cluster> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let served = Arc::new(Served::default());
        let shared = Arc::new(Shared { spec, seed, arrived: AtomicU64::new(0), served: served.clone() });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, shared));
        Ok(Cluster { address, served, _tasks: tasks })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it has done so far.
    pub fn served(&self) -> &Served {
        &self.served
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(serve_connection(stream, shared.clone()));
            }
            // Out of file descriptors, most likely: those of ended connections come back in a moment.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn serve_connection(stream: TcpStream, shared: Arc<Shared>) {
    // Without this, tokens would wait for each other in the kernel; if it cannot be set, they merely do.
    let _ = stream.set_nodelay(true);
    let service = service_fn(|request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(respond(request, &shared).await) }
    });
    // An error here is a client that went away: nothing is owed to it.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn respond(request: Request<Incoming>, shared: &Shared) -> Response<Body> {
    // A stream of numbers of its own for each request, so that what one draws does not depend on how others interleave.
    let number = shared.arrived.fetch_add(1, Ordering::Relaxed);
    let mut rng = fastrand::Rng::with_seed(shared.seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    tokio::time::sleep(shared.spec.network.draw(&mut rng)).await;

    match (request.method(), request.uri().path()) {
        (&Method::GET, "/health") => json_response(StatusCode::OK, &json!({ "status": "ok" })),
        (&Method::GET, "/v1/models") => json_response(StatusCode::OK, &models(&shared.spec.model)),
        (&Method::POST, "/v1/chat/completions") => match read_chat(request, &shared.spec.model).await {
            Ok(chat) => complete(chat, shared, rng).await,
            Err(refusal) => refusal.into_response(),
        },
        (_, "/health" | "/v1/models" | "/v1/chat/completions") => {
            let message = format!("{} is not allowed here", request.method());
            Refusal { status: StatusCode::METHOD_NOT_ALLOWED, param: None, message }.into_response()
        }
        (method, path) => {
            let message = format!("Invalid URL ({method} {path})");
            Refusal { status: StatusCode::NOT_FOUND, param: None, message }.into_response()
        }
    }
}

async fn complete(chat: ChatRequest, shared: &Shared, mut rng: fastrand::Rng) -> Response<Body> {
    shared.served.begun.fetch_add(1, Ordering::Relaxed);
    let first_token = shared.spec.first_token.draw(&mut rng);
    let mut answer = Answer::new(&chat, &shared.spec.model, rng);
    if chat.stream {
        // Headers go out with the first token, as from a server that generates before it answers.
        tokio::time::sleep(first_token).await;
        let body = TokenStream::new(answer, shared.spec.per_token, shared.served.clone());
        let mut response = Response::new(body.boxed_unsync());
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        return response;
    }
    let pauses = (1..answer.tokens()).map(|_| answer.pause(shared.spec.per_token)).sum::<Duration>();
    tokio::time::sleep(first_token + pauses).await;
    let response = json_response(StatusCode::OK, &answer.whole());
    shared.served.count(answer.tokens());
    response
}

async fn read_chat(request: Request<Incoming>, model: &str) -> Result<ChatRequest, Refusal> {
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await.map_err(|error| {
        let too_large = error.is::<LengthLimitError>();
        Refusal {
            status: if too_large { StatusCode::PAYLOAD_TOO_LARGE } else { StatusCode::BAD_REQUEST },
            param: None,
            message: match too_large {
                true => format!("The request body has more than {BODY_BYTES_MAX} bytes"),
                false => format!("The request body could not be read: {error}"),
            },
        }
    })?;
    ChatRequest::parse(&body.to_bytes(), model)
}

fn models(model: &str) -> Value {
    json!({
        "object": "list",
        "data": [{ "id": model, "object": "model", "created": 0, "owned_by": "tradewind-demo" }],
    })
}

fn json_response(status: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A request that is not served, in the shape of the OpenAI API's errors.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) param: Option<&'static str>,
    pub(super) message: String,
}

impl Refusal {
    fn into_response(self) -> Response<Body> {
        let code = match self.status {
            StatusCode::NOT_FOUND if self.param == Some("model") => Some("model_not_found"),
            _ => None,
        };
        let error = json!({
            "message": self.message,
            "type": "invalid_request_error",
            "param": self.param,
            "code": code,
        });
        json_response(self.status, &json!({ "error": error }))
    }
}
