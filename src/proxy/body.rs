//! The beginning of a request's body, read before its backend is chosen, and sent with every attempt.
//!
//! Pingora keeps up to 64 KiB of a body for a second attempt, and sends what it kept before it reads on. What it kept is all
//! that tells it that there is a body to send once the whole of it was read: so it must keep some of the last bytes, and
//! may keep others. Here all of what was read is kept, and put in the place of what Pingora kept of it.

use bytes::{Bytes, BytesMut};
use http::header;
use pingora_core::{Error, ErrorType, Result};
use pingora_proxy::Session;
use tokio::time::timeout;

use super::{
    peek::{Marks, Model, Scanner},
    table::Common,
};

/// What Pingora keeps for a second attempt at most (`BODY_BUF_LIMIT`). A longer body that was kept from its start is not kept.
const KEPT_MAX: usize = 64 * 1024;

/// Longest body that is read if the client does not say how long it is: with one more frame of HTTP/2 (16 KiB, the size that
/// Pingora leaves at the default) Pingora has still kept all of it. HTTP/1.1 ends such a body by itself, not with a chunk.
const UNSIZED_MAX: usize = KEPT_MAX - 16 * 1024;

/// What was read of a body.
#[derive(Default)]
pub(super) struct Peeked {
    held: Held,
    /// Whether that is the whole body.
    complete: bool,
    /// How many bytes from its start Pingora does not send by itself, in each attempt.
    missing: usize,
    /// The model that it asks for; `None` if it was not found, so also if the body is not complete.
    pub(super) model: Option<Model>,
    /// What else it says.
    marks: Marks,
    /// Whether it was sent in the attempt under way.
    sent: bool,
    /// Whether the client was told to go on, which had asked before it sent the body.
    pub(super) continued: bool,
}

/// Bytes as they come: nothing is copied as long as they are one piece.
#[derive(Default)]
struct Held {
    first: Bytes,
    joined: BytesMut,
}

impl Held {
    fn push(&mut self, piece: Bytes) {
        if self.len() == 0 {
            self.first = piece;
            return;
        }
        if self.joined.is_empty() {
            self.joined.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.joined.extend_from_slice(&piece);
    }

    fn len(&self) -> usize {
        self.first.len() + self.joined.len()
    }

    /// All of it, as one piece from then on.
    fn whole(&mut self) -> Bytes {
        if !self.joined.is_empty() {
            self.first = std::mem::take(&mut self.joined).freeze();
        }
        self.first.clone()
    }
}

impl Peeked {
    /// Reads the body up to the length of which that is done, to its end if it is not longer, and JSON or to be held in any case. A
    /// body that is known to be longer is not read at all.
    ///
    /// # Errors
    /// When the client breaks off or is silent, or what it sends is not valid HTTP.
    pub(super) async fn read(session: &mut Session, common: &Common, hold: bool) -> Result<Peeked> {
        let length = content_length(session);
        let mut peeked = Peeked::default();
        let len_max = common.body_peek_max;
        let len_max = length.map_or(len_max.min(UNSIZED_MAX), |_| len_max);
        if length.is_some_and(|length| length > len_max) {
            return Ok(peeked);
        }
        let downstream = session.as_downstream_mut();
        if expects_continue(downstream.req_header()) && !downstream.is_body_done() {
            downstream.write_continue_response().await.map_err(|e| e.into_down())?;
            peeked.continued = true;
        }
        let mut kept_from = None;
        let mut scanner = Scanner::default();
        let mut readable = true;
        while (readable || hold) && peeked.held.len() <= len_max && !downstream.is_body_done() {
            let read = peeked.held.len();
            if kept_from.is_none() && length.is_none_or(|length| length - read.min(length) <= KEPT_MAX) {
                downstream.enable_retry_buffering();
                kept_from = Some(read);
            }
            // Over HTTP/1.1 the connection has the same limit; Pingora has none for HTTP/2.
            let piece = timeout(common.silence_timeout, downstream.read_request_body()).await;
            let piece =
                piece.unwrap_or_else(|_| Error::e_explain(ErrorType::ReadTimedout, "a body stopped coming"));
            let Some(piece) = piece.map_err(|e| e.into_down())? else { break };
            readable = readable && scanner.feed(&piece);
            peeked.held.push(piece);
        }
        peeked.complete = downstream.is_body_done();
        let kept = downstream.get_retry_buffer().is_some();
        peeked.missing = kept_from.filter(|_| kept).unwrap_or(peeked.held.len());
        if peeked.complete {
            if !kept && peeked.held.len() > 0 {
                return Error::e_explain(ErrorType::InternalError, "the end of a body was read and not kept");
            }
            (peeked.model, peeked.marks) = scanner.finish();
        }
        Ok(peeked)
    }

    /// Whether the whole body is there.
    pub(super) fn is_whole(&self) -> bool {
        self.complete
    }

    /// All of what was read, as it is sent on.
    pub(super) fn bytes(&mut self) -> Bytes {
        self.held.whole()
    }

    /// Whether it names more than one model, so that a backend might take another one for it.
    pub(super) fn is_ambiguous(&self) -> bool {
        self.marks.models > 1
    }

    /// What its `user` is, as it is written.
    pub(super) fn user(&mut self) -> Option<Bytes> {
        let span = self.marks.user.clone()?;
        Some(self.held.whole().slice(span))
    }

    /// So many bytes of its prompt, or what there is.
    pub(super) fn prompt(&mut self, len: usize) -> Option<Bytes> {
        let begin = self.marks.prompt?;
        let whole = self.held.whole();
        Some(whole.slice(begin..whole.len().min(begin + len)))
    }

    /// The same for another request that is sent with it. Only of what is whole.
    pub(super) fn again(&mut self) -> Peeked {
        let held = Held { first: self.held.whole(), joined: BytesMut::new() };
        Peeked { held, complete: self.complete, continued: self.continued, ..Peeked::default() }
    }

    /// Another attempt begins.
    pub(super) fn rewind(&mut self) {
        self.sent = false;
    }

    /// There will be no other attempt: what was sent in this one is no longer needed.
    pub(super) fn forget(&mut self) {
        if self.sent {
            self.held = Held::default();
        }
    }

    /// Replaces the model. What is sent from now on has this JSON in its place; says how long the body then is.
    pub(super) fn rewrite(&mut self, json: &str) -> Option<usize> {
        let Model { span, .. } = self.model.take()?;
        let whole = self.held.whole();
        let mut body = BytesMut::with_capacity(whole.len() - span.len() + json.len());
        body.extend_from_slice(&whole[..span.start]);
        body.extend_from_slice(json.as_bytes());
        body.extend_from_slice(&whole[span.end..]);
        let len = body.len();
        self.held = Held { first: body.freeze(), joined: BytesMut::new() };
        Some(len)
    }

    /// Puts what was read before `body`, which is the first that Pingora sends in an attempt; leaves what follows as it is.
    pub(super) fn send(&mut self, body: &mut Option<Bytes>) {
        if std::mem::replace(&mut self.sent, true) || self.held.len() == 0 {
            return;
        }
        let whole = self.held.whole();
        if self.complete {
            *body = Some(whole);
            return;
        }
        let missing = whole.slice(..self.missing);
        match body {
            Some(next) if !next.is_empty() => {
                let mut joined = BytesMut::with_capacity(missing.len() + next.len());
                joined.extend_from_slice(&missing);
                joined.extend_from_slice(next);
                *body = Some(joined.freeze());
            }
            _ => *body = Some(missing),
        }
    }
}

fn content_length(session: &Session) -> Option<usize> {
    let length = session.req_header().headers.get(header::CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

fn expects_continue(head: &pingora_http::RequestHeader) -> bool {
    let expect = head.headers.get(header::EXPECT);
    expect.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}
