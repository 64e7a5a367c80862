//! The least that a Pingora proxy can be: one peer, no routing, no counting, no log. What Tradewind costs beyond this is
//! what Tradewind adds.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use clap::{Parser, ValueEnum};
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::services::Service;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

/// A bare Pingora proxy on one thread.
#[derive(Parser)]
struct Args {
    /// Address to serve, such as 127.0.0.1:8080.
    #[arg(long)]
    listen: SocketAddr,
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
    /// A plain tokio multi-thread runtime with one worker.
    Tokio,
    /// Pingora's own server with threads = 1 and its default, a work-stealing runtime.
    Pingora,
    /// Pingora's own server with threads = 1 and work stealing off.
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
        threads: 1,
        work_stealing: !matches!(args.runtime, Runtime::PingoraNoSteal),
        upstream_keepalive_pool_size: args.keepalive,
        ..ServerConf::default()
    };
    match args.runtime {
        Runtime::Tokio => on_tokio(&args, Arc::new(conf))?,
        Runtime::Pingora | Runtime::PingoraNoSteal => on_pingora(&args, conf),
    }
    Ok(())
}

/// Serves until the process is killed.
fn on_tokio(args: &Args, conf: Arc<ServerConf>) -> std::io::Result<()> {
    let mut service = http_proxy_service(&conf, Bare { backend: args.backend });
    service.add_tcp(&args.listen.to_string());
    // The sender lives as long as the service: a dropped one would read as a shutdown.
    let (_shutdown, watch) = tokio::sync::watch::channel(false);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    // Spawned, because a future of `block_on` would accept on the main thread, a second one beside the worker.
    let serving = runtime.spawn(async move { service.start_service(None, watch, 1).await });
    runtime.block_on(serving).map_err(std::io::Error::other)
}

/// Serves until a signal ends the process.
fn on_pingora(args: &Args, conf: ServerConf) {
    let mut server = Server::new_with_opt_and_conf(None, conf);
    let mut service = http_proxy_service(&server.configuration, Bare { backend: args.backend });
    service.add_tcp(&args.listen.to_string());
    server.add_service(service);
    server.run_forever();
}
