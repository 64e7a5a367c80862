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

/// So much longer for each stream that is open: a hundred pages are three seconds behind, and cost no more than thirty.
const SPACING_EACH: Duration = Duration::from_millis(20);

/// Something is sent after this time at the latest, so that proxies keep the connection and a vanished client is noticed.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// How soon a browser asks again after the stream broke, in milliseconds.
const RETRY_MS: u64 = 2_000;

/// Pieces of a stream that may wait for a slow client; then the next one waits too, and what was skipped is not sent.
const PIECES: usize = 2;

/// The streams that are open, what they tell, and when they all end.
#[derive(Clone, Debug)]
pub(super) struct Events {
    places: Arc<Semaphore>,
    news: watch::Receiver<u64>,
    stopped: watch::Receiver<bool>,
}

impl Events {
    /// Streams of the numbers in `revisions` that end once `stopped` is true. Within a runtime.
    pub(super) fn new(revisions: watch::Receiver<u64>, stopped: watch::Receiver<bool>) -> Events {
        let places = Arc::new(Semaphore::new(STREAMS_MAX));
        let (sender, news) = watch::channel(*revisions.borrow());
        tokio::spawn(pace(revisions, sender, places.clone(), stopped.clone()));
        Events { places, news, stopped }
    }

    /// A stream, the present number at once.
    pub(super) fn stream(&self) -> Response {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            return Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too_many_streams",
                format!("There are {STREAMS_MAX} streams of events already; ask `GET /v1/status` now and then instead."),
            )
            .into_response();
        };
        let (sender, body) = Channel::<Bytes, std::convert::Infallible>::new(PIECES);
        tokio::spawn(follow(sender, self.clone(), place));
        let mut response = Response::new(Body::new(body));
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        // nginx would hold events back until a buffer is full.
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        response
    }
}

/// Passes the numbers on, not too often, and to all streams at the same moment: that wakes the threads once for all of them.
async fn pace(
    mut revisions: watch::Receiver<u64>,
    news: watch::Sender<u64>,
    places: Arc<Semaphore>,
    mut stopped: watch::Receiver<bool>,
) {
    let pass_on = async {
        while revisions.changed().await.is_ok() {
            news.send_replace(*revisions.borrow_and_update());
            let open = STREAMS_MAX.saturating_sub(places.available_permits()) as u32;
            tokio::time::sleep(SPACING + SPACING_EACH * open).await;
        }
    };
    tokio::select! {
        _ = stopped.wait_for(|stop| *stop) => {}
        () = pass_on => {}
    }
}

async fn follow(mut sender: Sender<Bytes>, events: Events, _place: OwnedSemaphorePermit) {
    let Events { mut news, mut stopped, .. } = events;
    let mut next = format!("retry: {RETRY_MS}\n\n{}", event(*news.borrow_and_update()));
    loop {
        // An error means that the client is gone.
        tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            sent = sender.send_data(Bytes::from(next)) => if sent.is_err() { return },
        }
        next = tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => return,
            changed = news.changed() => match changed {
                Ok(()) => event(*news.borrow_and_update()),
                Err(_) => return,
            },
            () = tokio::time::sleep(HEARTBEAT) => ": still here\n\n".to_owned(),
        };
    }
}

fn event(revision: u64) -> String {
    format!("event: picture\nid: {revision}\ndata: {{\"revision\": {revision}}}\n\n")
}
