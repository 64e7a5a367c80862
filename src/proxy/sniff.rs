//! Tells HTTP/1.1 from HTTP/2 on a plain connection by its first bytes.
//!
//! Pingora can do that too, but waits for as many bytes as an HTTP/2 preface has, without a time limit: a request shorter
//! than those 24 bytes (`OPTIONS / HTTP/1.0`, HAProxy's default health check) would never be answered.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use pingora_core::{
    apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp},
    protocols::{Stream, http::ServerSession, http::v2::server::H2Options},
    server::ShutdownWatch,
};
use pingora_proxy::HttpProxy;

use super::handler::Handler;

/// How an HTTP/2 connection begins: with what would be a request of a method `PRI`, which no HTTP/1.1 client sends (RFC
/// 9113, 3.4 and 11.6).
const PREFACE_START: &[u8; 3] = b"PRI";

/// How long a new connection may stay silent; as long as Pingora waits for a request on it afterwards.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Serves both versions by one proxy, and so by one pool of connections to backends.
pub(super) struct Sniffer {
    http1: Arc<Version>,
    h2c: Arc<Version>,
}

impl Sniffer {
    pub(super) fn new(proxy: HttpProxy<Handler>) -> Sniffer {
        let proxy = Arc::new(proxy);
        let version = |h2c: bool| {
            let mut options = HttpServerOptions::default();
            options.h2c = h2c;
            Arc::new(Version { proxy: proxy.clone(), options })
        };
        Sniffer { http1: version(false), h2c: version(true) }
    }
}

#[async_trait]
impl ServerApp for Sniffer {
    async fn process_new(self: &Arc<Self>, mut stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        // Over TLS the handshake has agreed on the version.
        if stream.get_ssl_digest().is_some() {
            return self.http1.process_new(stream, shutdown).await;
        }
        let mut start = [0; PREFACE_START.len()];
        match tokio::time::timeout(SILENCE_MAX, stream.try_peek(&mut start)).await {
            Ok(Ok(true)) if start == *PREFACE_START => self.h2c.process_new(stream, shutdown).await,
            Ok(Ok(_)) => self.http1.process_new(stream, shutdown).await,
            // Closed or silent: there is nobody to answer.
            Ok(Err(_)) | Err(_) => None,
        }
    }

    async fn cleanup(&self) {
        self.http1.http_cleanup().await;
    }
}

/// The proxy, told which version a plain connection speaks.
struct Version {
    proxy: Arc<HttpProxy<Handler>>,
    options: HttpServerOptions,
}

#[async_trait]
impl HttpServerApp for Version {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        self.proxy.process_new_http(session, shutdown).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.proxy.h2_options()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }

    async fn http_cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}
