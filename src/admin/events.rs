//! `GET /v1/events`: tells a page that there is something new to fetch, as server-sent events.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use http_body_util::channel::{Channel, Sender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::problem::Problem;

/// Streams at a time: with these, three quarters of all connections are still free for calls and probes.
const STREAMS_MAX: usize = 128;

/// Time between two events at least: people do not read faster.
const SPACING: Duration = Duration::from_secs(1);

/// Something is sent after this time at the latest, so that proxies keep the connection and a vanished client is noticed.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How soon a browser asks again after the stream broke, in milliseconds.
const RETRY_MS: u64 = 2_000;

/// Pieces of a stream that may wait for a slow client; then the next one waits too, and what was skipped is not sent.
const PIECES: usize = 2;

/// The streams that are open, and when they all end.
#[derive(Clone, Debug)]
pub(super) struct Events {
    places: Arc<Semaphore>,
    stopped: watch::Receiver<bool>,
}

impl Events {
    /// Streams that end once `stopped` is true.
    pub(super) fn new(stopped: watch::Receiver<bool>) -> Events {
        Events { places: Arc::new(Semaphore::new(STREAMS_MAX)), stopped }
    }

    /// A stream of the numbers in `revisions`, the present one at once.
    pub(super) fn stream(&self, revisions: watch::Receiver<u64>) -> Response {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            return Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too_many_streams",
                format!("There are {STREAMS_MAX} streams of events already; ask `GET /v1/status` now and then instead."),
            )
            .into_response();
        };
        let (sender, body) = Channel::<Bytes, std::convert::Infallible>::new(PIECES);
        tokio::spawn(follow(sender, revisions, self.stopped.clone(), place));
        let mut response = Response::new(Body::new(body));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        // nginx would hold events back until a buffer is full.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        response
    }
}

async fn follow(
    mut sender: Sender<Bytes>,
    mut revisions: watch::Receiver<u64>,
    mut stopped: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
) {
    let mut next = format!("retry: {RETRY_MS}\n\n{}", event(*revisions.borrow_and_update()));
    loop {
        // An error means that the client is gone.
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            sent = sender.send_data(Bytes::from(next)) => if sent.is_err() { return },
        }
        let news = async {
            tokio::time::sleep(SPACING).await;
            revisions.changed().await
        };
        next = tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            changed = news => match changed {
                Ok(()) => event(*revisions.borrow_and_update()),
                Err(_) => return,
            },
            () = tokio::time::sleep(HEARTBEAT) => ": still here\n\n".to_owned(),
        };
    }
}

fn event(revision: u64) -> String {
    format!("event: picture\nid: {revision}\ndata: {{\"revision\": {revision}}}\n\n")
}
