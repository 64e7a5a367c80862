//! The demo's own clients: chat requests over real sockets, at the pace of recorded ones, every answer verified.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{
    net::TcpStream,
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use super::{
    tally::{Answered, Tally, Totals},
    trace::Trace,
    verify::{StreamCheck, whole_answer},
};

/// A request that takes longer has failed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of an answer that is no success is shown with the reason.
const EXCERPT_BYTES: usize = 160;
/// Largest answer that is read in one piece.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// What the clients do.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Where they connect.
    pub target: SocketAddr,
    /// The model they ask for.
    pub model: String,
    /// Most requests at a time. A request for which no worker is free is sent late.
    pub workers: usize,
    /// When requests are sent, and how long their answers are.
    pub trace: Trace,
    /// Recorded seconds that pass in one second.
    pub speed: f64,
    /// One in so many recorded tokens is asked for.
    pub tokens_divisor: u32,
    /// One in so many answers is asked for in one piece, the others as streams.
    pub whole_one_in: u64,
}

/// Clients at work.
#[derive(Debug)]
pub struct Clients {
    tally: Arc<Tally>,
    stop: watch::Sender<bool>,
    workers: JoinSet<()>,
}

impl Clients {
    /// Starts sending.
    pub fn start(workload: Workload) -> Clients {
        let (stop, stopped) = watch::channel(false);
        let tally = Arc::new(Tally::new());
        let plan =
            Arc::new(Plan { workload, start: Instant::now(), next: AtomicU64::new(0), tally: tally.clone() });
        let mut workers = JoinSet::new();
        for _ in 0..plan.workload.workers {
            workers.spawn(work(plan.clone(), stopped.clone()));
        }
        Clients { tally, stop, workers }
    }

    /// What they saw so far.
    pub fn totals(&self) -> Totals {
        self.tally.totals()
    }

    /// Sends nothing new, waits for what is under way, and says what came out.
    pub async fn stop(&mut self) -> Totals {
        self.stop.send_replace(true);
        while let Some(ended) = self.workers.join_next().await {
            if let Err(error) = ended {
                self.tally.record(Err(format!("a client of the demo broke: {error}")));
            }
        }
        self.tally.totals()
    }
}

struct Plan {
    workload: Workload,
    start: Instant,
    next: AtomicU64,
    tally: Arc<Tally>,
}

/// One request to send.
#[derive(Clone, Copy)]
struct Job {
    due: Instant,
    stream: bool,
    tokens: u32,
}

impl Plan {
    /// Takes the next request off the recording. Requests are in the order of their time, so whoever is free waits for the
    /// earliest one that nobody waits for.
    fn take(&self) -> Job {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let recorded = self.workload.trace.request(number);
        Job {
            due: self.start + recorded.offset.div_f64(self.workload.speed),
            stream: !(number + 1).is_multiple_of(self.workload.whole_one_in),
            tokens: recorded.output_tokens.div_ceil(self.workload.tokens_divisor).max(1),
        }
    }

    fn request(&self, job: Job) -> Request<Full<Bytes>> {
        let mut body = json!({
            "model": self.workload.model,
            "messages": [{ "role": "user", "content": "Where does the wind blow today?" }],
            "max_completion_tokens": job.tokens,
            "stream": job.stream,
        });
        if job.stream {
            body["stream_options"] = json!({ "include_usage": true });
        }
        let mut request = Request::new(Full::new(Bytes::from(body.to_string())));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = http::Uri::from_static("/v1/chat/completions");
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        if let Ok(host) = self.workload.target.to_string().parse() {
            headers.insert(header::HOST, host);
        }
        request
    }
}

async fn work(plan: Arc<Plan>, mut stopped: watch::Receiver<bool>) {
    let mut connection = None;
    loop {
        let job = plan.take();
        tokio::select! {
            // The sender lives as long as the workers, so an error cannot come before the stop.
            _ = stopped.wait_for(|stop| *stop) => return,
            () = sleep_until(job.due) => {}
        }
        let outcome = match timeout(REQUEST_TIMEOUT, send(&plan, job, &mut connection)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!("no complete answer within {} s", REQUEST_TIMEOUT.as_secs())),
        };
        if outcome.is_err() {
            connection = None;
        }
        plan.tally.record(outcome);
    }
}

type Connection = SendRequest<Full<Bytes>>;

async fn send(plan: &Plan, job: Job, connection: &mut Option<Connection>) -> Result<Answered, String> {
    let sent = Instant::now();
    let response = request(plan, job, connection).await?;
    if response.status() != StatusCode::OK {
        return Err(refused(response).await);
    }
    if job.stream { read_stream(response, job, sent).await } else { read_whole(response, job).await }
}

/// Sends the request on the connection there is, or on a new one.
async fn request(
    plan: &Plan,
    job: Job,
    connection: &mut Option<Connection>,
) -> Result<Response<Incoming>, String> {
    if let Some(open) = connection
        && open.ready().await.is_ok()
    {
        match open.try_send_request(plan.request(job)).await {
            Ok(response) => return Ok(response),
            // The server closed the idle connection before the request was written: every HTTP client sends it anew.
            Err(error) if error.message().is_some() => {}
            Err(error) => return Err(format!("the connection broke: {}", error.into_error())),
        }
    }
    let open = connection.insert(connect(plan.workload.target).await?);
    open.send_request(plan.request(job)).await.map_err(|e| format!("the connection broke: {e}"))
}

async fn connect(target: SocketAddr) -> Result<Connection, String> {
    let stream = TcpStream::connect(target).await.map_err(|e| format!("no connection: {e}"))?;
    stream.set_nodelay(true).map_err(|e| format!("no connection: {e}"))?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|e| format!("no connection: {e}"))?;
    // Ends with its sender; what goes wrong with it is told to the request that it carries.
    tokio::spawn(connection);
    Ok(sender)
}

async fn read_stream(response: Response<Incoming>, job: Job, sent: Instant) -> Result<Answered, String> {
    let mut body = response.into_body();
    let mut check = StreamCheck::default();
    let mut first_token = None;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| format!("the stream broke after {} tokens: {e}", check.tokens()))?;
        if let Some(data) = frame.data_ref() {
            check.push(data)?;
            if check.tokens() > 0 {
                first_token.get_or_insert_with(|| sent.elapsed());
            }
        }
    }
    check.finish(job.tokens)?;
    Ok(Answered { streamed_tokens: check.tokens(), first_token })
}

async fn read_whole(response: Response<Incoming>, job: Job) -> Result<Answered, String> {
    let body = http_body_util::Limited::new(response.into_body(), ANSWER_BYTES_MAX)
        .collect()
        .await
        .map_err(|e| format!("the answer broke: {e}"))?;
    whole_answer(&body.to_bytes(), job.tokens)?;
    Ok(Answered { streamed_tokens: 0, first_token: None })
}

async fn refused(response: Response<Incoming>) -> String {
    let status = response.status();
    let body = http_body_util::Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let text = body.map(|b| b.to_bytes()).unwrap_or_default();
    let excerpt = String::from_utf8_lossy(&text[..text.len().min(EXCERPT_BYTES)]).into_owned();
    format!("status {status}: {excerpt}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::cluster::{Cluster, ClusterSpec, Latency};

    fn quick() -> ClusterSpec {
        let latency = |ms| Latency { median: Duration::from_millis(ms), spread: 0.2 };
        ClusterSpec {
            model: "m".into(),
            network: latency(1),
            first_token: latency(2),
            per_token: Latency { median: Duration::from_micros(100), spread: 0.0 },
        }
    }

    fn workload(target: SocketAddr, model: &str) -> Workload {
        let rows: String = (0..50).map(|n| format!("{},1,40\n", f64::from(n) * 0.1)).collect();
        Workload {
            target,
            model: model.into(),
            workers: 8,
            trace: Trace::parse(&format!("offset_seconds,prompt_tokens,output_tokens\n{rows}"))
                .expect("valid"),
            speed: 20.0,
            tokens_divisor: 8,
            whole_one_in: 5,
        }
    }

    async fn totals_when(clients: &Clients, reached: impl Fn(&Totals) -> bool) {
        let waiting = async {
            while !reached(&clients.totals()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(20), waiting).await.expect("the clients get on");
    }

    #[tokio::test]
    async fn clients_and_cluster_agree_on_what_was_served() {
        let cluster = Cluster::start(quick(), 1).await.expect("a free port");
        let mut clients = Clients::start(workload(cluster.address(), "m"));
        totals_when(&clients, |totals| totals.served >= 60).await;
        let totals = clients.stop().await;
        assert_eq!(totals.failures, Default::default());
        assert_eq!(cluster.served().requests(), totals.served);
        assert_eq!(cluster.served().tokens(), totals.served * 5);
        let whole = totals.served - totals.streamed_tokens / 5;
        assert!(whole > 0 && totals.streamed_tokens > whole * 5, "{totals:?}");
        assert!(totals.first_token_p50 >= Some(Duration::from_millis(2)), "{totals:?}");
    }

    #[tokio::test]
    async fn a_refusal_counts_as_failed_with_its_reason() {
        let cluster = Cluster::start(quick(), 1).await.expect("a free port");
        let mut clients = Clients::start(workload(cluster.address(), "another"));
        totals_when(&clients, |totals| totals.failed >= 3).await;
        let totals = clients.stop().await;
        assert_eq!(totals.served, 0);
        let reason = totals.failures.keys().next().expect("a reason");
        assert!(reason.starts_with("status 404 Not Found") && reason.contains("another"), "{reason}");
    }

    #[tokio::test]
    async fn a_cluster_that_goes_away_is_noticed() {
        let mut spec = quick();
        spec.per_token = Latency { median: Duration::from_secs(60), spread: 0.0 };
        let cluster = Cluster::start(spec, 1).await.expect("a free port");
        let mut clients = Clients::start(workload(cluster.address(), "m"));
        // A second token is a minute away.
        tokio::time::timeout(Duration::from_secs(20), async {
            while cluster.served().begun() < 8 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("streams begin");
        drop(cluster);
        totals_when(&clients, |totals| totals.failed >= 8).await;
        let totals = clients.stop().await;
        assert_eq!(totals.served, 0);
        assert!(totals.failures.keys().any(|r| r.starts_with("the stream broke")), "{:?}", totals.failures);
    }
}
