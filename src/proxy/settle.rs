//! What a request came to, once it has ended: its tokens, its cost, its line in the access log.

use arc_swap::ArcSwap;
use http::{Method, header};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use super::{
    context::Context,
    incoming::is_json,
    table::Table,
    usage::{Kind, Reader},
};
use crate::{
    model::Timestamp,
    signals::{ledger::Tokens, traffic::Outcome},
    telemetry::access::{Entry, in_ms},
};

/// How the content type of server-sent events begins.
const SSE: &[u8] = b"text/event-stream";

/// Whether an answer is a stream of events.
pub(super) fn is_events(response: &ResponseHeader) -> bool {
    let kind = response.headers.get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| {
        kind.as_bytes().get(..SSE.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(SSE))
    })
}

/// How an answer is read for its tokens; `None` if it is none that has them: all inference is a POST that succeeds with JSON or
/// events.
fn kind_of(request: &RequestHeader, response: &ResponseHeader) -> Option<Kind> {
    if request.method != Method::POST || !response.status.is_success() {
        return None;
    }
    let packed = response.headers.contains_key(header::CONTENT_ENCODING);
    match (is_events(response), is_json(&response.headers)) {
        (false, false) => None,
        _ if packed => Some(Kind::Packed),
        (true, _) => Some(Kind::Events),
        (_, true) => Some(Kind::Json),
    }
}

impl Context {
    /// An answer begins.
    pub(super) fn begin_reading(&mut self, request: &RequestHeader, response: &ResponseHeader) {
        let counts = self.found.as_ref().is_some_and(|(table, _)| table.common.count_tokens);
        self.usage = match counts {
            true => kind_of(request, response).map(|kind| Box::new(Reader::new(kind))),
            false => None,
        };
    }

    /// Adds up what the request took, and writes it down.
    pub(super) fn settle(&self, table: &ArcSwap<Table>, session: &Session, outcome: &Outcome, broken: bool) {
        let tokens = self.usage.as_ref().map(|usage| usage.finish(outcome.bytes_received));
        let mut usd = None;
        if let Some(attempt) = &self.attempt {
            usd = attempt.meter.rate.usd(tokens.as_ref());
            attempt.meter.ledger.add(tokens.as_ref(), usd);
            if let Some(model) = &self.model {
                model.ledger.add(tokens.as_ref(), usd);
            }
            self.note_inference(session.req_header(), attempt, outcome, tokens.as_ref());
            if let Some(guest) = &self.guest {
                guest.settle(tokens.as_ref(), usd);
            }
        }
        let access = match &self.found {
            Some((table, _)) => table.common.access.clone(),
            None => table.load().common.access.clone(),
        };
        if let Some(access) = access.filter(|access| access.wants()) {
            access.note(self.entry(session, outcome, tokens, usd, broken));
        }
    }

    fn entry(
        &self,
        session: &Session,
        outcome: &Outcome,
        tokens: Option<Tokens>,
        usd: Option<f64>,
        broken: bool,
    ) -> Entry {
        let head = session.req_header();
        let client = session.client_addr().and_then(|address| address.as_inet());
        let broken = broken && outcome.code < 500 && session.response_written().is_some();
        Entry {
            time: Timestamp::now(),
            request_id: self.request_id().to_owned(),
            client: client.map(|client| client.ip()),
            tenant: self.guest.as_ref().map(|guest| guest.tenant.id.clone()),
            method: head.method.as_str().to_owned(),
            path: Entry::path_of(head.uri.path()),
            protocol: match self.entrant.as_ref().map_or(session.is_http2(), |entrant| entrant.http2) {
                true => "HTTP/2.0",
                false => "HTTP/1.1",
            },
            route: self.lane().map(|lane| lane.id.clone()),
            model: self.model.as_ref().map(|model| model.model.clone()),
            backend: self.target().map(|target| target.id.clone()),
            attempts: self.attempts,
            status: outcome.code,
            error: self.refusal.map(|refusal| refusal.code()).or(broken.then_some("broken_off")),
            first_byte_ms: self.attempt.as_ref().and_then(|attempt| attempt.first_byte).map(in_ms),
            duration_ms: in_ms(outcome.duration),
            bytes_received: outcome.bytes_received,
            bytes_sent: outcome.bytes_sent,
            input_tokens: tokens.map(|tokens| tokens.input),
            output_tokens: tokens.map(|tokens| tokens.output),
            tokens: tokens.map(|tokens| if tokens.reported { "reported" } else { "estimated" }),
            usd,
        }
    }
}
