//! Sockets and threads of the request path: bind, serve, drain.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use pingora_core::{apps::HttpServerApp, server::configuration::ServerConf};
use pingora_proxy::http_proxy;
use tokio::{runtime::Runtime, sync::watch, time::Instant};

use super::{
    door::{Door, Reception, Scheme, serve::LAST_REQUEST},
    handler::Handler,
    hedge::Pair,
    pick::ATTEMPTS_MAX,
    table::Publisher,
};
use crate::signals::traffic::Meters;

/// Idle connections to backends that are kept for reuse, over all backends.
const POOLED_CONNECTIONS_MAX: usize = 4096;

/// How often a draining process looks whether the last request has ended: short against any stream, so that the exit is
/// not noticeably later than it.
const DRAIN_POLL: Duration = Duration::from_millis(10);

/// Time for the last bytes of the last answer to leave the process after it was counted as finished.
const FLUSH: Duration = Duration::from_millis(20);

/// Where to listen and with what.
#[derive(Debug)]
pub struct FrontOptions {
    /// Plain text: HTTP/1.1 and h2c.
    pub http: Option<TcpListener>,
    /// TLS: HTTP/1.1 and HTTP/2 by ALPN.
    pub https: Option<TcpListener>,
    /// What holds for connections.
    pub door: Arc<Door>,
    /// Threads that serve requests.
    pub threads: usize,
}

/// The request path, running on threads of its own: whatever the rest of the process does, these only serve.
pub struct Front {
    // `Some` until the front is closed; a runtime must not be dropped where others may be waiting.
    runtime: Option<Runtime>,
    stop: watch::Sender<bool>,
    meters: Arc<Meters>,
    door: Arc<Door>,
    http: Option<SocketAddr>,
    https: Option<SocketAddr>,
}

impl Front {
    /// Starts serving by what `publisher` publishes.
    ///
    /// # Errors
    /// When threads cannot be started, or a socket cannot be used.
    pub fn start(publisher: &Publisher, options: FrontOptions) -> io::Result<Front> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(options.threads)
            .thread_name("tradewind-data")
            .enable_all()
            .build()?;
        let conf = ServerConf {
            max_retries: ATTEMPTS_MAX,
            threads: options.threads,
            upstream_keepalive_pool_size: POOLED_CONNECTIONS_MAX,
            ..ServerConf::default()
        };
        let pair = Pair::default();
        let proxy = Arc::new(http_proxy(&Arc::new(conf), Handler::new(publisher.current(), pair.clone())));
        pair.knows(&proxy);
        let (stop, stopped) = watch::channel(false);
        let reception = Reception::new(options.door.clone(), proxy.clone(), stopped.clone());
        let accept = |listener: Option<TcpListener>, scheme| -> io::Result<Option<SocketAddr>> {
            let Some(listener) = listener else { return Ok(None) };
            listener.set_nonblocking(true)?;
            let address = listener.local_addr()?;
            let _within = runtime.enter();
            let listener = tokio::net::TcpListener::from_std(listener)?;
            runtime.spawn(reception.clone().accept(listener, scheme));
            Ok(Some(address))
        };
        let http = accept(options.http, Scheme::Http)?;
        let https = accept(options.https, Scheme::Https)?;
        let mut stopped = stopped;
        runtime.spawn(async move {
            // Answers say from then on that their connections end.
            if stopped.wait_for(|stop| *stop).await.is_ok() {
                proxy.http_cleanup().await;
            }
        });
        let (meters, door) = (publisher.meters().clone(), options.door);
        Ok(Front { runtime: Some(runtime), stop, meters, door, http, https })
    }

    /// The plain-text address in use.
    pub fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// The address for TLS in use.
    pub fn https(&self) -> Option<SocketAddr> {
        self.https
    }

    /// Accepts nothing more, and returns when the last request under way has ended or `deadline` has passed. Idle connections
    /// get a moment for a last request. Says how many requests were cut off.
    pub async fn drain(mut self, deadline: Duration) -> u64 {
        self.stop.send_replace(true);
        let begun = Instant::now();
        let cut_off = loop {
            let in_flight = self.meters.in_flight();
            if begun.elapsed() >= deadline {
                break in_flight;
            }
            let nobody_waits = self.door.open() == 0 || begun.elapsed() >= LAST_REQUEST;
            if in_flight == 0 && nobody_waits {
                tokio::time::sleep(FLUSH).await;
                // A request that had just been read when the drain began may have entered meanwhile.
                if self.meters.in_flight() == 0 {
                    break 0;
                }
            }
            tokio::time::sleep(DRAIN_POLL).await;
        };
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
        cut_off
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
