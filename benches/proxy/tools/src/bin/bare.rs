//! The least that a Pingora proxy can be: one peer, no routing, no counting, no log. What Tradewind costs beyond this is
//! what Tradewind adds.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use clap::{Parser, ValueEnum};
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::services::{Service, listening};
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{HttpProxy, ProxyHttp, Session, http_proxy_service};

/// A bare Pingora proxy.
#[derive(Parser)]
struct Args {
    /// Address to serve, such as 127.0.0.1:8080.
    #[arg(long)]
    listen: SocketAddr,
    /// Address to serve over TLS, with HTTP/2 and HTTP/1.1 by ALPN.
    #[arg(long, requires = "cert", requires = "key")]
    tls_listen: Option<SocketAddr>,
    /// File with the certificate in PEM.
    #[arg(long)]
    cert: Option<PathBuf>,
    /// File with its private key in PEM.
    #[arg(long)]
    key: Option<PathBuf>,
    /// Worker threads.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Address of the one backend.
    #[arg(long)]
    backend: SocketAddr,
    /// What runs the proxy's tasks.
    #[arg(long, value_enum, default_value_t = Runtime::Tokio)]
    runtime: Runtime,
    /// Idle backend connections to keep. More than the clients' connections, so that none is closed between requests.
    #[arg(long, default_value_t = 1024)]
    keepalive: usize,
}

#[derive(Clone, Copy, ValueEnum)]
enum Runtime {
    /// A plain tokio multi-thread runtime.
    Tokio,
    /// Pingora's own server with its default, a work-stealing runtime.
    Pingora,
    /// Pingora's own server with work stealing off.
    PingoraNoSteal,
}

struct Bare {
    backend: SocketAddr,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> pingora_core::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.backend, false, String::new())))
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args = Args::parse();
    let conf = ServerConf {
        threads: args.threads,
        work_stealing: !matches!(args.runtime, Runtime::PingoraNoSteal),
        upstream_keepalive_pool_size: args.keepalive,
        ..ServerConf::default()
    };
    match args.runtime {
        Runtime::Tokio => on_tokio(&args, Arc::new(conf))?,
        Runtime::Pingora | Runtime::PingoraNoSteal => on_pingora(&args, conf)?,
    }
    Ok(())
}

/// The proxy with its one or two addresses.
fn proxy(
    args: &Args,
    conf: &Arc<ServerConf>,
) -> pingora_core::Result<listening::Service<HttpProxy<Bare, ()>>> {
    let mut service = http_proxy_service(conf, Bare { backend: args.backend });
    service.add_tcp(&args.listen.to_string());
    if let (Some(listen), Some(cert), Some(key)) = (args.tls_listen, &args.cert, &args.key) {
        let mut settings = TlsSettings::intermediate(&cert.to_string_lossy(), &key.to_string_lossy())?;
        settings.enable_h2();
        service.add_tls_with_settings(&listen.to_string(), None, settings);
    }
    Ok(service)
}

/// Serves until the process is killed.
fn on_tokio(args: &Args, conf: Arc<ServerConf>) -> Result<(), Box<dyn std::error::Error>> {
    let mut service = proxy(args, &conf)?;
    // The sender lives as long as the service: a dropped one would read as a shutdown.
    let (_shutdown, watch) = tokio::sync::watch::channel(false);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(args.threads).enable_all().build()?;
    // Spawned, because a future of `block_on` would accept on the main thread, one more beside the workers.
    let serving = runtime.spawn(async move { service.start_service(None, watch, 1).await });
    Ok(runtime.block_on(serving)?)
}

/// Serves until a signal ends the process.
fn on_pingora(args: &Args, conf: ServerConf) -> pingora_core::Result<()> {
    let mut server = Server::new_with_opt_and_conf(None, conf);
    let service = proxy(args, &server.configuration)?;
    server.add_service(service);
    server.run_forever()
}
