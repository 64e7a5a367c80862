//! The phases of a request.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use pingora_core::{
    Error, ErrorSource, ErrorType, Result, RetryType, modules::http::HttpModules, upstreams::peer::HttpPeer,
};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use super::{
    answers::{Connection, Refusal},
    body::Peeked,
    incoming::{Incoming, X_REQUEST_ID, host_of, may_name_model, request_id},
    matcher::Found,
    pick::ATTEMPTS_MAX,
    table::{Alias, Lane, Table, Target},
};
use crate::signals::{
    load::{ORCA_HEADER, ORCA_HEADER_BIN, ORCA_REQUEST_HEADER},
    traffic::{Meter, Outcome, RetryReason},
};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_TRADEWIND_BACKEND: HeaderName = HeaderName::from_static("x-tradewind-backend");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const LOAD_REPORT: HeaderName = HeaderName::from_static(ORCA_HEADER);
const LOAD_REPORT_BIN: HeaderName = HeaderName::from_static(ORCA_HEADER_BIN);
const LOAD_REPORT_WISH: HeaderName = HeaderName::from_static(ORCA_REQUEST_HEADER);

/// The status by which a request is counted whose client left before it was answered (nginx's convention).
const CLIENT_LEFT: u16 = 499;

/// Serves requests by the table.
pub struct Handler {
    table: Arc<ArcSwap<Table>>,
}

impl Handler {
    /// Serves by whatever `table` holds when a request arrives.
    pub fn new(table: Arc<ArcSwap<Table>>) -> Handler {
        Handler { table }
    }
}

/// What is known about a request under way.
pub struct Context {
    started: Instant,
    request_id: HeaderValue,
    /// The table as it was when the request arrived, and the route's place in it.
    found: Option<(Arc<Table>, usize)>,
    position: u32,
    tried: [usize; ATTEMPTS_MAX],
    attempts: usize,
    attempt: Option<Attempt>,
    refusal: Option<Refusal>,
    /// What of the body was read to find the route; on the heap, since few requests have it.
    peeked: Option<Box<Peeked>>,
    /// The length of the body, if it is sent on with another one.
    rewritten: Option<usize>,
}

/// A request at a backend. Counted as under way until it is dropped.
struct Attempt {
    target: usize,
    meter: Arc<Meter>,
    started: Instant,
    /// The backend itself answered with a server error.
    failed: bool,
    first_byte: Option<Duration>,
}

impl Attempt {
    /// Notes the first byte when it comes, not when the answer has ended: a slow backend shows at once, however long its
    /// answers. A failure is often fast, and says nothing about how long an answer takes.
    fn note_first_byte(&mut self) {
        if self.first_byte.is_none() {
            let elapsed = self.started.elapsed();
            self.first_byte = Some(elapsed);
            if !self.failed {
                self.meter.first_byte.record(elapsed);
            }
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.meter.leave();
    }
}

impl Context {
    fn lane(&self) -> Option<&Lane> {
        self.found.as_ref().map(|(table, lane)| &table.lanes[*lane])
    }

    /// The lane of a request. Its body is read if a model decides, or may have to be replaced.
    async fn find_lane(&mut self, table: &Table, session: &mut Session) -> Result<Option<usize>> {
        let found = match table.matcher.find(&Incoming::new(session.req_header(), &table.common)) {
            Some(Found::Route(lane)) if table.lanes[lane].aliases.is_none() => return Ok(Some(lane)),
            None => return Ok(None),
            found => found,
        };
        if may_name_model(session.req_header()) {
            self.peeked = Some(Box::new(Peeked::read(session, table.common.body_peek_max).await?));
        }
        let model = self.peeked.as_ref().and_then(|peeked| peeked.model.as_ref());
        let request = Incoming::new(session.req_header(), &table.common).with_body(model);
        let lane = match found {
            Some(Found::DependsOnModel) => match table.matcher.find(&request) {
                Some(Found::Route(lane)) => lane,
                _ => return Ok(None),
            },
            Some(Found::Route(lane)) => lane,
            None => return Ok(None),
        };
        if let (Some(peeked), Some(aliases)) = (&mut self.peeked, &table.lanes[lane].aliases)
            && let Some(alias) = peeked.model.as_ref().and_then(|model| aliases.get(&model.name))
        {
            self.rewritten = peeked.rewrite(&alias.json);
        }
        Ok(Some(lane))
    }

    fn target(&self) -> Option<&Target> {
        let (table, _) = self.found.as_ref()?;
        self.attempt.as_ref().map(|attempt| &table.targets[attempt.target])
    }

    fn tried(&self) -> &[usize] {
        &self.tried[..self.attempts]
    }

    /// The backend for the next attempt: by the shares at first, then the best that was not tried; a backend with several
    /// addresses may be tried again at another one when there is no other backend.
    fn choose(&self, table: &Table, lane: &Lane) -> Option<usize> {
        if self.attempts == 0 {
            return lane.division.at(self.position);
        }
        lane.division.next_untried(self.tried()).or_else(|| {
            let last = *self.tried().last()?;
            (self.attempts < table.targets[last].addresses()).then_some(last)
        })
    }

    /// Gives up the attempt under way. Says whether another one may be made.
    fn give_up(&mut self, reason: RetryReason) -> bool {
        let Some(attempt) = self.attempt.take() else { return false };
        let another = self.attempts < ATTEMPTS_MAX && self.next_target().is_some();
        if another {
            attempt.meter.retried(reason);
        } else {
            // The last attempt stays: it is the one whose backend failed the request.
            self.attempt = Some(attempt);
        }
        another
    }

    /// The next attempt's backend, if there is one that can be connected to.
    fn next_target(&self) -> Option<usize> {
        let (table, lane) = self.found.as_ref()?;
        let target = self.choose(table, &table.lanes[*lane])?;
        (table.targets[target].addresses() > 0).then_some(target)
    }

    /// The next attempt's backend, an address of it, and its counters.
    fn next_peer(&self) -> Option<(usize, Box<HttpPeer>, Arc<Meter>)> {
        let (table, lane) = self.found.as_ref()?;
        let target = self.next_target()?;
        // The low bits of the position spread independently of the high ones, which chose the backend.
        let turn = (self.position & 0xffff) as usize + self.attempts;
        Some((target, table.targets[target].peer(turn)?, table.lanes[*lane].meter(target).clone()))
    }

    /// Replaces the model that a header names.
    fn rename_model(&self, request: &mut RequestHeader) -> Result<()> {
        let Some((table, lane)) = &self.found else { return Ok(()) };
        let (Some(aliases), name) = (&table.lanes[*lane].aliases, &table.common.model_header) else {
            return Ok(());
        };
        let known = request.headers.get(name).and_then(|named| named.to_str().ok());
        match known.and_then(|named| aliases.get(named)) {
            Some(Alias { header: Some(model), .. }) => request.insert_header(name, model.clone()),
            Some(Alias { header: None, .. }) => {
                request.remove_header(name);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn request_id(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }
}

#[async_trait]
impl ProxyHttp for Handler {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context {
            started: Instant::now(),
            request_id: HeaderValue::from_static(""),
            found: None,
            position: 0,
            tried: [0; ATTEMPTS_MAX],
            attempts: 0,
            attempt: None,
            refusal: None,
            peeked: None,
            rewritten: None,
        }
    }

    // Responses pass through as they are: no compression module, so none is asked for every chunk.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        ctx.request_id = request_id(session.req_header());
        let table = self.table.load_full();
        let refusal = match ctx.find_lane(&table, session).await? {
            None => Refusal::NoRoute,
            Some(lane) => {
                ctx.position = table.lanes[lane].division.next_position();
                ctx.found = Some((table, lane));
                if ctx.next_target().is_some() {
                    return Ok(false);
                }
                Refusal::NothingEligible
            }
        };
        // Answered here, the connection stays usable: what is left of the request's body is read and thrown away.
        refusal.answer(session, ctx.request_id(), Connection::Keep).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, _session: &mut Session, ctx: &mut Context) -> Result<Box<HttpPeer>> {
        let Some((target, peer, meter)) = ctx.next_peer() else {
            ctx.refusal = Some(Refusal::NothingEligible);
            return Err(Error::new(ErrorType::HTTPStatus(Refusal::NothingEligible.status())));
        };
        if let Some(peeked) = &mut ctx.peeked {
            peeked.rewind();
        }
        meter.enter();
        ctx.tried[ctx.attempts] = target;
        ctx.attempts += 1;
        let started = if ctx.attempts == 1 { ctx.started } else { Instant::now() };
        ctx.attempt = Some(Attempt { target, meter, started, failed: false, first_byte: None });
        Ok(peer)
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        // What a client says about proxies before us is not to be believed without knowing them.
        match host_of(request) {
            Some(host) => request.insert_header(X_FORWARDED_HOST, host)?,
            None => drop(request.remove_header(&X_FORWARDED_HOST)),
        }
        if let Some(client) = session.client_addr().and_then(|address| address.as_inet()) {
            request.insert_header(X_FORWARDED_FOR, client.ip().to_string())?;
        }
        let tls = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        request.insert_header(X_FORWARDED_PROTO, if tls { "https" } else { "http" })?;
        request.remove_header(&header::FORWARDED);
        request.insert_header(X_REQUEST_ID, ctx.request_id.clone())?;
        if ctx.peeked.as_ref().is_some_and(|peeked| peeked.continued) {
            request.remove_header(&header::EXPECT);
        }
        if let Some(len) = ctx.rewritten
            && request.headers.contains_key(header::CONTENT_LENGTH)
        {
            request.insert_header(header::CONTENT_LENGTH, len)?;
        }
        ctx.rename_model(request)?;
        if let Some(target) = ctx.target() {
            request.insert_header(header::HOST, target.authority.clone())?;
            if target.tally.is_some() {
                request.insert_header(LOAD_REPORT_WISH, HeaderValue::from_static("TEXT"))?;
            }
        }
        Ok(())
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        _end_of_stream: bool,
        ctx: &mut Context,
    ) -> Result<()> {
        if let Some(peeked) = &mut ctx.peeked {
            peeked.send(body);
        }
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        // 1xx answers come before the answer.
        if response.status.is_informational() && response.status != http::StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        if let Some(attempt) = ctx.attempt.as_mut() {
            attempt.failed = response.status.is_server_error();
        }
        if let Some(peeked) = &mut ctx.peeked {
            // No other attempt is made once a backend has answered.
            peeked.forget();
        }
        if let Some(tally) = ctx.target().and_then(|target| target.tally.as_ref()) {
            if let Some(report) = response.headers.get(&LOAD_REPORT) {
                tally.note(report.as_bytes());
                // How full a cluster is, is nobody's business outside.
                response.remove_header(&LOAD_REPORT);
            }
            response.remove_header(&LOAD_REPORT_BIN);
        }
        response.insert_header(X_REQUEST_ID, ctx.request_id.clone())?;
        let exposed = ctx.found.as_ref().is_some_and(|(table, _)| table.common.expose_routing);
        if exposed && let Some(target) = ctx.target() {
            response.insert_header(X_TRADEWIND_BACKEND, target.id_header.clone())?;
            let ms = ctx.started.elapsed().as_secs_f64() * 1e3;
            response.append_header(SERVER_TIMING, format!("backend;desc={};dur={ms:.1}", target.id))?;
        }
        Ok(())
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        ctx: &mut Context,
    ) -> Result<Option<Duration>> {
        if let Some(attempt) = ctx.attempt.as_mut()
            && (end_of_stream || body.as_ref().is_some_and(|bytes| !bytes.is_empty()))
        {
            attempt.note_first_byte();
        }
        Ok(None)
    }

    fn fail_to_connect(
        &self,
        _session: &mut Session,
        _peer: &HttpPeer,
        ctx: &mut Context,
        mut e: Box<Error>,
    ) -> Box<Error> {
        let another = ctx.give_up(RetryReason::Connect);
        if !another {
            let late = matches!(e.etype(), ErrorType::ConnectTimedout | ErrorType::TLSHandshakeTimedout);
            ctx.refusal = Some(if late { Refusal::Timeout } else { Refusal::Unreachable });
        }
        e.set_retry(another);
        e
    }

    fn error_while_proxy(
        &self,
        peer: &HttpPeer,
        session: &mut Session,
        e: Box<Error>,
        ctx: &mut Context,
        _client_reused: bool,
    ) -> Box<Error> {
        let mut e = e.more_context(format!("backend at {peer}"));
        // Refused before it was processed: HTTP/2 REFUSED_STREAM, or GOAWAY below this stream. Pingora marks these, and with
        // another type also connections that broke the protocol, whose requests may have been processed.
        let refused = matches!(e.retry, RetryType::Decided(true)) && *e.etype() == ErrorType::H2Error;
        let idempotent = session.req_header().method.is_idempotent();
        let clean = begun(session).is_none()
            && !session.as_ref().retry_buffer_truncated()
            && *e.esource() != ErrorSource::Downstream;
        let another = clean
            && (refused || idempotent)
            && ctx.give_up(if refused { RetryReason::Refused } else { RetryReason::Broken });
        e.set_retry(another);
        e
    }

    async fn fail_to_proxy(&self, session: &mut Session, e: &Error, ctx: &mut Context) -> FailToProxy {
        // Once an answer has begun there is nothing left to say: the connection is closed without the end of the body (or
        // the stream reset), so the client sees that the answer is not complete.
        if let Some(begun) = begun(session) {
            return FailToProxy { error_code: begun.status.as_u16(), can_reuse_downstream: false };
        }
        let refusal = ctx.refusal.unwrap_or_else(|| refusal_of(e));
        if *e.esource() == ErrorSource::Downstream && refusal == Refusal::Internal {
            return FailToProxy { error_code: 0, can_reuse_downstream: false };
        }
        ctx.refusal = Some(refusal);
        if ctx.request_id.is_empty() {
            ctx.request_id = request_id(session.req_header());
        }
        if let Err(error) = refusal.answer(session, ctx.request_id(), Connection::Close).await {
            tracing::debug!(%error, "the client left before it could be told of an error");
        }
        FailToProxy { error_code: refusal.status(), can_reuse_downstream: false }
    }

    async fn logging(&self, session: &mut Session, e: Option<&Error>, ctx: &mut Context) {
        let code = match begun(session) {
            Some(response) => response.status.as_u16(),
            None => CLIENT_LEFT,
        };
        let by_client = e.is_some_and(|e| *e.esource() == ErrorSource::Downstream);
        let outcome = Outcome {
            code,
            failed: (e.is_some() && !by_client) || code >= 500,
            duration: ctx.started.elapsed(),
            bytes_received: session.as_ref().body_bytes_read() as u64,
            bytes_sent: session.as_ref().body_bytes_sent() as u64,
        };
        match (&ctx.attempt, ctx.lane()) {
            (Some(attempt), _) => attempt.meter.finish(&outcome),
            (None, Some(lane)) => lane.refused.finish(&outcome),
            (None, None) => self.table.load().unmatched.finish(&outcome),
        }
        if let Some(error) = e {
            let (route, backend) = (ctx.lane().map(|l| &l.id), ctx.target().map(|t| &t.id));
            tracing::debug!(%error, ?route, ?backend, code, request_id = ctx.request_id(), "a request failed");
        }
        ctx.attempt = None;
    }

    // Failures are counted by route, backend and code; a line for each would fill the disk in the very hour of an outage.
    fn suppress_error_log(&self, _session: &Session, _ctx: &Context, _error: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _session: &Session,
        _ctx: &Context,
        _error: &Error,
        _context: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}

/// The answer to the client, once it has begun. Interim answers (100 Continue, 103 Early Hints) only come before it.
fn begun(session: &Session) -> Option<&ResponseHeader> {
    session.response_written().filter(|header| {
        !header.status.is_informational() || header.status == http::StatusCode::SWITCHING_PROTOCOLS
    })
}

/// What to tell the client about an error that no phase has named yet.
fn refusal_of(e: &Error) -> Refusal {
    match (e.esource(), e.etype()) {
        (_, ErrorType::HTTPStatus(400)) => Refusal::BadRequest,
        (ErrorSource::Upstream, _) => Refusal::Broken,
        (ErrorSource::Downstream, ErrorType::InvalidHTTPHeader) => Refusal::BadRequest,
        _ => Refusal::Internal,
    }
}
