//! Connections: accepts them, limits them, ends them.

use std::{future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::Router;
use hyper::{
    Request,
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{
    Desk, Options, calls,
    events::Events,
    guard::{Guard, Peer},
};

/// Connections at a time. People, scrapers and probes need a few; more wait in the listener's queue.
const CONNECTIONS_MAX: usize = 512;

/// A request's head must be complete within this time, counted from the end of the last answer: it also ends idle
/// connections, so that few hold all the places.
const HEAD_TIME_MAX: Duration = Duration::from_secs(10);

/// A TLS handshake must be complete within this time.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);

/// A connection is asked to end after this time, and is closed when it has not ended a grace later: a client that never
/// reads its answer would keep it forever.
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(600);

/// What calls under way get to finish, at shutdown and at the end of a connection's time.
const GRACE: Duration = Duration::from_secs(5);

/// Pause after a failed accept: the usual cause, no free file descriptor, does not go away by asking at once.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Longest head of a request in bytes, many times what any client of this API sends. hyper needs at least 8 KiB.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Serves the API on `listener`, if there is one, and on the socket of the options until `shutdown` completes, then lets calls under way finish for a few seconds.
///
/// # Errors
/// When the listener is reachable from elsewhere without tokens and TLS.
/// A connection that fails is logged and does not end the service.
pub async fn serve(
    listener: Option<std::net::TcpListener>,
    options: Options,
    desk: Arc<dyn Desk>,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    let listener = listener.map(|listener| {
        refuse_exposed(listener.local_addr()?, &options)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    let listener = listener.transpose()?;
    let (stop, stopped) = watch::channel(false);
    let guard = Guard::new(options.tokens, options.hosts, options.tls.is_some(), desk.clone());
    let revisions = desk.revisions();
    let app = calls::router(desk, guard, Events::new(revisions, stopped.clone()));
    let socket = options.socket.map(|socket| local_listener(&socket)).transpose()?;

    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            (stream, from, place) = accept(listener.as_ref(), &places) => {
                let from = Peer::Address(from.ip());
                let connection = Connection { app: app.clone(), from, stopped: stopped.clone(), _place: place };
                connections.spawn(connection.run(stream, options.tls.as_ref().map(|tls| tls.acceptor())));
            }
            (stream, place) = accept_local(socket.as_ref(), &places) => {
                let (from, stopped) = (Peer::Socket, stopped.clone());
                let connection = Connection { app: app.clone(), from, stopped, _place: place };
                connections.spawn(connection.speak(stream));
            }
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    // Nobody listening means that no connection is left.
    let _ = stop.send(true);
    let all_ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all_ended).await.is_err() {
        tracing::warn!("admin API: calls were still under way at the end of the grace time and were cut off");
    }
    Ok(())
}

/// The configuration refuses this too; here it is refused whatever came through there.
fn refuse_exposed(local: SocketAddr, options: &Options) -> io::Result<()> {
    if local.ip().to_canonical().is_loopback() || (!options.tokens.load().is_empty() && options.tls.is_some())
    {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!(
            "the admin API on {local} can be reached from other machines: it needs tokens and TLS, or a loopback address"
        ),
    ))
}

/// The next connection, once there is a place for it; never, without a listener.
async fn accept(
    listener: Option<&TcpListener>,
    places: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, Option<OwnedSemaphorePermit>) {
    let Some(listener) = listener else { return std::future::pending().await };
    loop {
        let place = place(places).await;
        match listener.accept().await {
            Ok((stream, from)) => return (stream, from, place),
            Err(error) => not_accepted(&error).await,
        }
    }
}

/// The same over the Unix socket; never, where there is none.
async fn accept_local(
    listener: Option<&UnixListener>,
    places: &Arc<Semaphore>,
) -> (UnixStream, Option<OwnedSemaphorePermit>) {
    let Some(listener) = listener else { return std::future::pending().await };
    loop {
        // Asked for once there is somebody: a place that is held by who waits would be one less for the others.
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place(places).await),
            Err(error) => not_accepted(&error).await,
        }
    }
}

/// A place for a connection, once there is one. The semaphore is never closed, so one always comes.
async fn place(places: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
    places.clone().acquire_owned().await.ok()
}

async fn not_accepted(error: &io::Error) {
    tracing::warn!(%error, "admin API: a connection could not be accepted");
    tokio::time::sleep(ACCEPT_RETRY).await;
}

fn local_listener(socket: &std::os::unix::net::UnixListener) -> io::Result<UnixListener> {
    let socket = socket.try_clone()?;
    socket.set_nonblocking(true)?;
    UnixListener::from_std(socket)
}

/// One connection, and the place it takes.
struct Connection {
    app: Router,
    from: Peer,
    stopped: watch::Receiver<bool>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Connection {
    async fn run(self, stream: TcpStream, acceptor: Option<TlsAcceptor>) {
        // Without it the last part of an answer waits for the client's delayed acknowledgement. Failing that is only slow.
        let _ = stream.set_nodelay(true);
        let Some(acceptor) = acceptor else { return self.speak(stream).await };
        let mut stopped = self.stopped.clone();
        let handshake = tokio::time::timeout(HANDSHAKE_TIME_MAX, acceptor.accept(stream));
        let outcome = tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            outcome = handshake => outcome,
        };
        match outcome {
            Ok(Ok(stream)) => self.speak(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, "admin API: TLS handshake failed"),
            Err(_) => tracing::debug!("admin API: TLS handshake took too long"),
        }
    }

    async fn speak(mut self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let (app, from) = (TowerToHyperService::new(self.app), self.from);
        let app = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(from);
            app.call(request)
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIME_MAX)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), app);
        let mut connection = pin!(connection);
        tokio::select! {
            outcome = connection.as_mut() => return log_end(outcome),
            _ = self.stopped.wait_for(|stop| *stop) => {}
            () = tokio::time::sleep(CONNECTION_TIME_MAX) => {}
        }
        connection.as_mut().graceful_shutdown();
        if let Ok(outcome) = tokio::time::timeout(GRACE, connection).await {
            log_end(outcome);
        }
    }
}

/// Clients that vanish are everyday life, not a fault of ours.
fn log_end(outcome: Result<(), hyper::Error>) {
    if let Err(error) = outcome {
        tracing::debug!(%error, "admin API: a connection ended with an error");
    }
}
