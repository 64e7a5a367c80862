//! Sockets and threads of the request path: bind, serve, drain.

use std::{
    io,
    net::{SocketAddr, TcpListener},
    os::fd::IntoRawFd,
    sync::Arc,
    time::Duration,
};

use pingora_core::{
    listeners::tls::TlsSettings,
    server::{Fds, configuration::ServerConf},
    services::{Service as _, listening::Service},
};
use pingora_proxy::http_proxy;
use tokio::{runtime::Runtime, sync::watch};

use super::{handler::Handler, pick::ATTEMPTS_MAX, sniff::Sniffer, table::Publisher};
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
    /// TLS with certificate and key files (PEM): HTTP/1.1 and HTTP/2 by ALPN.
    pub https: Option<(TcpListener, std::path::PathBuf, std::path::PathBuf)>,
    /// Threads that serve requests.
    pub threads: usize,
}

/// The request path, running on threads of its own: whatever the rest of the process does, these only serve.
pub struct Front {
    // `Some` until the front is closed; a runtime must not be dropped where others may be waiting.
    runtime: Option<Runtime>,
    stop: watch::Sender<bool>,
    meters: Arc<Meters>,
    http: Option<SocketAddr>,
}

impl Front {
    /// Starts serving by what `publisher` publishes.
    ///
    /// # Errors
    /// When threads cannot be started, or a certificate or key cannot be used.
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
        let proxy = http_proxy(&Arc::new(conf), Handler::new(publisher.current()));
        let mut service = Service::new("tradewind".into(), Sniffer::new(proxy));

        // Sockets are bound before, where a failure can be told, and handed over by their address.
        let mut sockets = Fds::new();
        let http = options.http.map(|listener| hand_over(&mut sockets, listener)).transpose()?;
        if let Some(address) = http {
            service.add_tcp(&address.to_string());
        }
        if let Some((listener, cert, key)) = options.https {
            let mut tls = TlsSettings::intermediate(&cert.to_string_lossy(), &key.to_string_lossy())
                .map_err(|e| io::Error::new(io::ErrorKind::InvalidInput, e.to_string()))?;
            tls.enable_h2();
            let address = hand_over(&mut sockets, listener)?;
            service.add_tls_with_settings(&address.to_string(), None, tls);
        }

        let (stop, stopped) = watch::channel(false);
        let sockets = Arc::new(parking_lot::Mutex::new(sockets));
        runtime.spawn(async move { service.start_service(Some(sockets), stopped, 1).await });
        Ok(Front { runtime: Some(runtime), stop, meters: publisher.meters().clone(), http })
    }

    /// The plain-text address in use.
    pub fn http(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Accepts nothing more, closes idle connections, and returns when the last request under way has ended or `deadline`
    /// has passed. Says how many were cut off.
    pub async fn drain(mut self, deadline: Duration) -> u64 {
        self.stop.send_replace(true);
        let end = tokio::time::Instant::now() + deadline;
        let cut_off = loop {
            let in_flight = self.meters.in_flight();
            if tokio::time::Instant::now() >= end {
                break in_flight;
            }
            if in_flight == 0 {
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

fn hand_over(sockets: &mut Fds, listener: TcpListener) -> io::Result<SocketAddr> {
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    sockets.add(address.to_string(), listener.into_raw_fd());
    Ok(address)
}
