//! The phases of a request.

use std::{net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header};
use pingora_core::{
    Error, ErrorSource, ErrorType, Result, RetryType, modules::http::HttpModules, upstreams::peer::HttpPeer,
};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session};

use super::{
    answers::{self, Connection, Refusal},
    context::{Context, Unserved},
    conventions::way_of,
    forwarded::{self, Origin},
    grpc,
    hedge::{self, Pair},
    incoming::{X_REQUEST_ID, host_of, request_id},
    settle::is_events,
    strict,
    table::Table,
    tenant::CREDENTIALS,
};
use crate::signals::{
    load::{ORCA_HEADER, ORCA_HEADER_BIN, ORCA_REQUEST_HEADER},
    traffic::{CLIENT_LEFT, Outcome, RetryReason},
};

const X_TRADEWIND_BACKEND: HeaderName = HeaderName::from_static("x-tradewind-backend");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const LOAD_REPORT: HeaderName = HeaderName::from_static(ORCA_HEADER);
const LOAD_REPORT_BIN: HeaderName = HeaderName::from_static(ORCA_HEADER_BIN);
const LOAD_REPORT_WISH: HeaderName = HeaderName::from_static(ORCA_REQUEST_HEADER);

/// Longest time for which a backend's `Retry-After` keeps requests from it: a slip of the unit must not take it out for hours.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Serves requests by the table.
pub struct Handler {
    pub(super) table: Arc<ArcSwap<Table>>,
    pub(super) pair: Pair,
}

impl Handler {
    /// Serves by whatever `table` holds when a request arrives. Where `pair` knows no proxy, no request is sent to two backends.
    pub fn new(table: Arc<ArcSwap<Table>>, pair: Pair) -> Handler {
        Handler { table, pair }
    }
}

#[async_trait]
impl ProxyHttp for Handler {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::new()
    }

    // Responses pass through as they are: no compression module, so none is asked for every chunk.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, ctx: &mut Context) -> Result<bool> {
        if let Some(own) = hedge::entered(session)? {
            *ctx = own;
            return Ok(false);
        }
        ctx.request_id = request_id(session.req_header());
        let table = self.table.load_full();
        if let Some(active) = &table.common.active {
            let way = way_of(session);
            ctx.active = Some(active.enter(way));
            ctx.way = Some(way);
        }
        if !strict::is_sound(session) {
            ctx.refusal = Some(Refusal::BadRequest);
            Refusal::BadRequest.answer(session, ctx.request_id(), Connection::Close).await?;
            return Ok(true);
        }
        let received = ctx.receive(table, session).await?;
        ctx.begin_span(session.req_header());
        let (refusal, wait) = match received {
            Ok(()) if ctx.next_target().is_some() => match ctx.seat(session).await {
                Ok(None) => return Ok(false),
                Ok(Some(seat)) => return self.race(session, ctx, seat).await,
                Err(Unserved::Refused(refusal)) => (refusal, None),
                Err(Unserved::ClientLeft(left)) => return Err(left),
            },
            Ok(()) => (Refusal::NothingEligible, None),
            Err(refused) => refused,
        };
        ctx.refusal = Some(refusal);
        // Answered here, the connection stays usable: what is left of the request's body is read and thrown away.
        let guest = ctx.guest.as_deref();
        refusal.answer_to(session, ctx.request_id(), Connection::Keep, guest, wait).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, session: &mut Session, ctx: &mut Context) -> Result<Box<HttpPeer>> {
        ctx.begin_attempt(session).await.map_err(|unserved| match unserved {
            Unserved::Refused(refusal) => {
                ctx.refusal = Some(refusal);
                Error::new(ErrorType::HTTPStatus(refusal.status()))
            }
            Unserved::ClientLeft(left) => left,
        })
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        let origin = Origin {
            peer: peer_of(session),
            host: host_of(request),
            tls: session.digest().is_some_and(|digest| digest.ssl_digest.is_some()),
        };
        if let Some((table, _)) = &ctx.found {
            forwarded::introduce(request, origin, &table.common.trust)?;
        }
        request.insert_header(X_REQUEST_ID, ctx.request_id.clone())?;
        // A whole URL is how clients ask a proxy; what is behind this one is asked for a path.
        if !matches!(request.raw_path(), [b'/', ..] | b"*") {
            request.set_uri(request.uri.clone());
        }
        if ctx.peeked.as_ref().is_some_and(|peeked| peeked.continued) {
            request.remove_header(&header::EXPECT);
        }
        if let Some(len) = ctx.rewritten
            && request.headers.contains_key(header::CONTENT_LENGTH)
        {
            request.insert_header(header::CONTENT_LENGTH, len)?;
        }
        if request.method == Method::POST && ctx.guest.as_ref().is_some_and(|guest| guest.is_metered()) {
            request.remove_header(&header::ACCEPT_ENCODING);
        }
        ctx.rename_model(request)?;
        ctx.pass_span(request)?;
        if let Some(target) = ctx.target() {
            if target.strips_credentials {
                CREDENTIALS.iter().for_each(|name| drop(request.remove_header(name)));
            }
            request.insert_header(header::HOST, target.authority.clone())?;
            if target.tally.is_some() {
                request.insert_header(LOAD_REPORT_WISH, HeaderValue::from_static("TEXT"))?;
            }
        }
        ctx.show_credentials(request)
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
        session: &mut Session,
        response: &mut ResponseHeader,
        ctx: &mut Context,
    ) -> Result<()> {
        // 1xx answers come before the answer.
        if response.status.is_informational() && response.status != http::StatusCode::SWITCHING_PROTOCOLS {
            return Ok(());
        }
        if session.is_process_shutting_down() {
            session.set_keepalive(None);
        }
        if response.status == http::StatusCode::SWITCHING_PROTOCOLS {
            // What follows is no body: its silence says nothing.
            session.set_read_timeout(None);
        }
        if let Some(attempt) = ctx.attempt.as_mut() {
            attempt.failed = response.status.is_server_error();
        }
        if !response.status.is_success() {
            self.another_try(session, response, ctx)?;
        }
        ctx.begin_reading(session.req_header(), response);
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
        if let Some(guest) = &ctx.guest {
            guest.tell(response)?;
        }
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
        if let (Some(usage), Some(piece)) = (&mut ctx.usage, body) {
            usage.feed(piece);
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
        let another = ctx.lane().is_some_and(|lane| lane.retry.connect) && ctx.give_up(RetryReason::Connect);
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
        if std::mem::take(&mut ctx.replaced) {
            e.set_retry(true);
            return e;
        }
        if begun(session).is_some() || *e.esource() == ErrorSource::Downstream {
            e.set_retry(false);
            return e;
        }
        // Refused before it was processed: HTTP/2 REFUSED_STREAM, or GOAWAY below this stream. Pingora marks these, and with
        // another type also connections that broke the protocol, whose requests may have been processed.
        let refused = matches!(e.retry, RetryType::Decided(true)) && *e.etype() == ErrorType::H2Error;
        let reason = match e.etype() {
            _ if refused => RetryReason::Refused,
            ErrorType::ReadTimedout => RetryReason::Timeout,
            _ => RetryReason::Broken,
        };
        if reason == RetryReason::Timeout {
            ctx.refusal = Some(Refusal::Timeout);
        }
        let wanted = ctx.lane().is_some_and(|lane| match reason {
            RetryReason::Refused => lane.retry.connect && !session.as_ref().retry_buffer_truncated(),
            RetryReason::Timeout => lane.retry.timeout && ctx.may_repeat(session),
            _ => lane.retry.reset && ctx.may_repeat(session),
        });
        let another = wanted && ctx.give_up(reason);
        if another {
            ctx.refusal = None;
        }
        e.set_retry(another);
        e
    }

    async fn fail_to_proxy(&self, session: &mut Session, e: &Error, ctx: &mut Context) -> FailToProxy {
        // Once an answer has begun there is nothing left to say: the connection is closed without the end of the body (or
        // the stream reset), so the client sees that the answer is not complete.
        if let Some(begun) = begun(session) {
            let (error_code, events) = (begun.status.as_u16(), takes_events(begun));
            if *e.esource() == ErrorSource::Upstream {
                ctx.attempt.iter().for_each(|attempt| attempt.meter.broke_off());
                let told = if ctx.entrant.is_some() {
                    // Whoever passes the answer on tells the client.
                    Ok(())
                } else if events {
                    answers::break_off(session, e).await
                } else if grpc::is_asked_for(session.req_header()) {
                    answers::break_off_call(session, e).await
                } else {
                    Ok(())
                };
                if let Err(error) = told {
                    tracing::debug!(%error, "the client left before it could be told of an error");
                }
            }
            return FailToProxy { error_code, can_reuse_downstream: false };
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
        // What came behind the request ends the connection now.
        session.set_pipelining_enabled(false);
        if ctx.handed_over {
            return;
        }
        if let Some(entrant) = &ctx.entrant {
            entrant.has_won().await;
        }
        // A refusal counts as what it is: calls of gRPC are told of it in an answer of 200.
        let code = match begun(session) {
            Some(response) => ctx.refusal.map_or(response.status.as_u16(), Refusal::status),
            None => CLIENT_LEFT,
        };
        let by_client = e.is_some_and(|e| *e.esource() == ErrorSource::Downstream);
        let outcome = Outcome {
            code,
            failed: (e.is_some() && !by_client) || code >= 500,
            duration: ctx.started.elapsed(),
            bytes_received: match &ctx.entrant {
                Some(entrant) => entrant.bytes_received,
                None => session.as_ref().body_bytes_read() as u64,
            },
            bytes_sent: session.as_ref().body_bytes_sent() as u64,
        };
        ctx.end_span(session, &outcome);
        let now;
        let meter = match (&ctx.attempt, ctx.lane()) {
            (Some(attempt), _) => &*attempt.meter,
            (None, Some(lane)) => &*lane.refused,
            (None, None) => {
                now = self.table.load();
                &*now.unmatched
            }
        };
        meter.finish(&outcome);
        if let Some(way) = ctx.way {
            meter.conventional.finish(way, &outcome);
        }
        ctx.settle(&self.table, session, &outcome, e.is_some());
        if let Some(error) = e {
            let (route, backend) = (ctx.lane().map(|l| &l.id), ctx.target().map(|t| &t.id));
            let client = ctx.found.as_ref().and_then(|(table, _)| {
                let headers = &session.req_header().headers;
                Some(forwarded::client(headers, peer_of(session)?, &table.common.trust))
            });
            tracing::debug!(%error, ?route, ?backend, ?client, code, request_id = ctx.request_id(), "a request failed");
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

impl Handler {
    /// What the answer of a backend that did not serve a request asks for: no more requests for a while, or another attempt.
    ///
    /// # Errors
    /// When there is to be another attempt, in place of this answer.
    fn another_try(&self, session: &Session, response: &ResponseHeader, ctx: &mut Context) -> Result<()> {
        let status = response.status.as_u16();
        let (Some(lane), Some(attempt)) = (ctx.lane(), &ctx.attempt) else { return Ok(()) };
        if matches!(status, 429 | 503)
            && let Some(time) = retry_after(response)
        {
            attempt.meter.pause(time);
        }
        if lane.retry.statuses.contains(&status)
            && ctx.may_repeat(session)
            && ctx.give_up(RetryReason::Status)
        {
            ctx.replaced = true;
            return Err(Error::new_up(ErrorType::HTTPStatus(status)));
        }
        Ok(())
    }
}

/// Who is at the other end of the connection, or whom its PROXY header named.
fn peer_of(session: &Session) -> Option<IpAddr> {
    session.client_addr().and_then(|address| address.as_inet()).map(|address| address.ip())
}

/// How long a backend asks to be left alone, if it says so in seconds.
fn retry_after(response: &ResponseHeader) -> Option<Duration> {
    let seconds = response.headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(PAUSE_MAX)).filter(|time| !time.is_zero())
}

/// Whether one more event can be written to an answer that broke off: it is a stream of events of no stated length.
fn takes_events(response: &ResponseHeader) -> bool {
    is_events(response)
        && !response.headers.contains_key(header::CONTENT_LENGTH)
        && !response.headers.contains_key(header::CONTENT_ENCODING)
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
