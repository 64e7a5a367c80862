//! What is known about a request on its way: where it belongs, what was tried, what is left to try.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use http::{HeaderValue, header};
use pingora_core::{Error, ErrorType, Result, upstreams::peer::HttpPeer};
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::{
    answers::Refusal,
    body::Peeked,
    gate::Pass,
    hedge::Entrant,
    incoming::{Incoming, may_name_model, priority},
    matcher::{Found, Request as _},
    pick::ATTEMPTS_MAX,
    signing,
    table::{Alias, Lane, Table, Target},
    tenant::Guest,
    usage,
};
use crate::signals::{
    budget::Leave,
    conventions::{Ongoing, Way},
    credentials::Shown,
    ledger::ModelLedger,
    traces::Begun,
    traffic::{RetryReason, UnderWay},
};

/// What is known about a request under way.
pub struct Context {
    pub(super) started: Instant,
    pub(super) request_id: HeaderValue,
    /// The table as it was when the request arrived, and the route's place in it.
    pub(super) found: Option<(Arc<Table>, usize)>,
    pub(super) position: u32,
    /// What the requests are alike in that are kept at one backend with it.
    pub(super) key: Option<u64>,
    tried: [usize; ATTEMPTS_MAX],
    /// Leave for the next attempt, where it takes a part of the retry budget.
    leave: Option<Leave>,
    /// Whether an answer was thrown away for another attempt.
    pub(super) replaced: bool,
    pub(super) attempts: usize,
    pub(super) attempt: Option<Attempt>,
    pub(super) refusal: Option<Refusal>,
    /// What of the body was read to find the route; on the heap, since few requests have it.
    pub(super) peeked: Option<Box<Peeked>>,
    /// The length of the body, if it is sent on with another one.
    pub(super) rewritten: Option<usize>,
    /// Its span; on the heap, since few requests have one.
    pub(super) span: Option<Box<Begun>>,
    /// What the requests for its model took; `None` if it asks for none, or its route names none.
    pub(super) model: Option<Arc<ModelLedger>>,
    /// Who asks, where that is known.
    pub(super) guest: Option<Arc<Guest>>,
    /// Reads the tokens of the answer; on the heap, since only answers of models have it.
    pub(super) usage: Option<Box<usage::Reader>>,
    /// What it is one of, if two may be under way for the same answer; on the heap, since few are.
    pub(super) entrant: Option<Box<Entrant>>,
    /// Whether others ask for the answer in its place, and count it.
    pub(super) handed_over: bool,
    /// How it came; `None` where nobody collects what is counted by that.
    pub(super) way: Option<Way>,
    /// Counts it as under way there.
    pub(super) active: Option<Ongoing>,
}

/// What the requests for its model took.
fn model_of(lane: &Lane, request: &Incoming<'_>) -> Option<Arc<ModelLedger>> {
    lane.models.as_ref()?.of(request.model()).cloned()
}

/// A request at a backend. Counted as under way until it is dropped.
pub(super) struct Attempt {
    target: usize,
    pub(super) meter: UnderWay,
    /// What the backend is shown of who Tradewind is.
    shown: Option<Arc<Shown>>,
    /// Its place at a backend that has a limit.
    _pass: Option<Pass>,
    /// Its part of the retry budget, if it takes one.
    _leave: Option<Leave>,
    started: Instant,
    /// The backend itself answered with a server error.
    pub(super) failed: bool,
    /// How long the backend took to its first byte, if it came.
    pub(super) first_byte: Option<Duration>,
}

impl Attempt {
    /// Notes the first byte when it comes, not when the answer has ended: a slow backend shows at once, however long its
    /// answers. A failure is often fast, and says nothing about how long an answer takes.
    pub(super) fn note_first_byte(&mut self) {
        if self.first_byte.is_none() {
            let elapsed = self.started.elapsed();
            self.first_byte = Some(elapsed);
            if !self.failed {
                self.meter.first_byte.record(elapsed);
            }
        }
    }
}

/// Why a request is not at a backend.
pub(super) enum Unserved {
    /// It is told so.
    Refused(Refusal),
    /// Its client has left while it waited for a place.
    ClientLeft(Box<Error>),
}

impl From<Refusal> for Unserved {
    fn from(refusal: Refusal) -> Unserved {
        Unserved::Refused(refusal)
    }
}

/// Ends when the client has left, with what told so. Not while its body may still come over HTTP/1.1: that would be read here.
async fn client_left(session: &mut Session) -> Box<Error> {
    let downstream = session.as_downstream_mut();
    if !downstream.is_http2() && !downstream.is_body_done() {
        return std::future::pending().await;
    }
    let left = downstream.read_body_or_idle(true).await.err();
    left.unwrap_or_else(|| Error::new(ErrorType::ConnectionClosed)).into_down()
}

impl Context {
    /// A request that has just arrived.
    pub(super) fn new() -> Context {
        Context {
            started: Instant::now(),
            request_id: HeaderValue::from_static(""),
            found: None,
            position: 0,
            key: None,
            tried: [0; ATTEMPTS_MAX],
            leave: None,
            replaced: false,
            attempts: 0,
            attempt: None,
            refusal: None,
            peeked: None,
            rewritten: None,
            span: None,
            model: None,
            guest: None,
            usage: None,
            entrant: None,
            handed_over: false,
            way: None,
            active: None,
        }
    }

    /// A request for the same answer, sent in the place of this one.
    pub(super) fn again(&mut self, entrant: Entrant) -> Context {
        Context {
            started: self.started,
            request_id: self.request_id.clone(),
            found: self.found.clone(),
            position: self.position,
            key: self.key,
            peeked: self.peeked.as_mut().map(|peeked| Box::new(peeked.again())),
            rewritten: self.rewritten,
            span: self.span.clone(),
            model: self.model.clone(),
            guest: self.guest.clone(),
            way: self.way,
            entrant: Some(Box::new(entrant)),
            ..Context::new()
        }
    }

    /// Takes a backend as tried: it is asked already.
    pub(super) fn pass_over(&mut self, target: usize) {
        self.tried[self.attempts] = target;
        self.attempts += 1;
    }

    pub(super) fn lane(&self) -> Option<&Lane> {
        self.found.as_ref().map(|(table, lane)| &table.lanes[*lane])
    }

    /// The lane of a request. Its body is read if a model decides, may have to be replaced, or must be known in any case.
    pub(super) async fn find_lane(
        &mut self,
        table: &Table,
        session: &mut Session,
        must_know: bool,
    ) -> Result<Option<usize>> {
        let request = Incoming::new(session.req_header(), &table.common);
        let found = match table.matcher.find(&request) {
            Some(Found::Route(lane)) if table.lanes[lane].reads_nothing() && !must_know => {
                self.model = model_of(&table.lanes[lane], &request);
                return Ok(Some(lane));
            }
            None => return Ok(None),
            found => found,
        };
        // To send a request again it must be there as a whole, be it JSON or not.
        let holds = match found {
            Some(Found::Route(lane)) => table.lanes[lane].retry.inference,
            _ => false,
        };
        // Where the model decides, it is not known yet whether one signs.
        let signs = match found {
            Some(Found::Route(lane)) => table.lanes[lane].signs,
            _ => table.lanes.iter().any(|lane| lane.signs),
        };
        let holds = holds || signs;
        if may_name_model(session.req_header())
            || (holds && (signs || !session.req_header().method.is_idempotent()))
        {
            // Counted as under way, so that a draining process waits for it.
            let _under_way = table.unmatched.under_way();
            let peeked = Peeked::read(session, &table.common, holds).await?;
            self.peeked = Some(Box::new(peeked));
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
        self.model = model_of(&table.lanes[lane], &request);
        Ok(Some(lane))
    }

    /// Replaces the model in the body by the name that backends know.
    pub(super) fn apply_alias(&mut self, lane: &Lane) {
        if let (Some(peeked), Some(aliases)) = (&mut self.peeked, &lane.aliases)
            && let Some(alias) = peeked.model.as_ref().and_then(|model| aliases.get(&model.name))
        {
            self.rewritten = peeked.rewrite(&alias.json);
        }
    }

    pub(super) fn target(&self) -> Option<&Target> {
        let (table, _) = self.found.as_ref()?;
        self.attempt.as_ref().map(|attempt| &table.targets[attempt.target])
    }

    fn tried(&self) -> &[usize] {
        &self.tried[..self.attempts]
    }

    /// The backend for the next attempt: by the shares at first, then the best that was not tried. One that asked for no
    /// requests is passed over while there is another. A backend with several addresses may be tried again at another one when
    /// there is no other backend.
    fn choose(&self, table: &Table, lane: &Lane) -> Option<usize> {
        let asked = |target: usize| self.entrant.as_ref().is_some_and(|entrant| entrant.asks_already(target));
        let willing = |target: usize| !lane.is_paused(target) && !asked(target);
        if self.attempts == 0 {
            let kept = self.key.and_then(|key| {
                let load = |target: usize| lane.meter(target).in_flight();
                lane.division.at_key(key, |target| table.targets[target].seed, load)
            });
            let first = kept.or_else(|| lane.division.at(self.position))?;
            if willing(first) {
                return Some(first);
            }
            return lane
                .division
                .next_untried(&[first], willing)
                .filter(|other| willing(*other))
                .or(Some(first));
        }
        lane.division.next_untried(self.tried(), willing).or_else(|| {
            let last = *self.tried().last()?;
            (self.attempts < table.targets[last].addresses()).then_some(last)
        })
    }

    /// Gives up the attempt under way. Says whether another one may be made.
    ///
    /// The budget is for what a backend was asked. A connection that was not made has cost nobody anything, and when a
    /// backend has just gone, all that was on its way to it fails so at once.
    pub(super) fn give_up(&mut self, reason: RetryReason) -> bool {
        let possible = self.attempt.is_some()
            && !self.entrant.as_ref().is_some_and(|entrant| entrant.is_second())
            && self.attempts < ATTEMPTS_MAX
            && self.next_target().is_some();
        let Some(lane) = self.lane().filter(|_| possible) else { return false };
        let leave = match reason {
            RetryReason::Connect => None,
            _ => match lane.grant_retry() {
                None => return false,
                leave => leave,
            },
        };
        // Without another one it stays: it is the one whose backend failed the request.
        if let Some(attempt) = self.attempt.take() {
            attempt.meter.retried(reason, reason != RetryReason::Status || attempt.failed);
        }
        self.leave = leave;
        true
    }

    /// Begins the next attempt at its backend; gives an address of it.
    ///
    /// # Errors
    /// When no backend may serve, or all that may have as much as they may have, or the client leaves while it waits.
    pub(super) async fn begin_attempt(&mut self, session: &mut Session) -> Result<Box<HttpPeer>, Unserved> {
        let (target, pass) = match self.entrant.as_mut().and_then(|entrant| entrant.take_seat()) {
            Some(seat) => seat,
            None => self.admit(self.next_target().ok_or(Refusal::NothingEligible)?, session).await?,
        };
        if let Some(entrant) = &self.entrant {
            entrant.is_at(target);
        }
        let (table, lane) = self.found.as_ref().ok_or(Refusal::NothingEligible)?;
        if table.targets[target].signs().is_some()
            && !self.peeked.as_ref().is_some_and(|peeked| peeked.is_whole())
        {
            return Err(Refusal::TooLarge.into());
        }
        let shown = table.targets[target].auth.as_ref().map(|auth| auth.badge.shown());
        if let Some(Shown::Nothing(_)) = shown.as_deref() {
            return Err(Refusal::NothingEligible.into());
        }
        let lane = &table.lanes[*lane];
        // The low bits of the position spread independently of the high ones, which chose the backend.
        let turn = (self.position & 0xffff) as usize + self.attempts;
        let mut peer = table.targets[target].peer(turn).ok_or(Refusal::NothingEligible)?;
        if let Some(timeout) = lane.silence_timeout {
            peer.options.read_timeout = Some(timeout);
        }
        if let Some(peeked) = &mut self.peeked {
            peeked.rewind();
        }
        let meter = lane.meter(target).under_way();
        // A wait for a place is not the backend's time.
        let started = if self.attempts == 0 && pass.is_none() { self.started } else { Instant::now() };
        self.tried[self.attempts] = target;
        self.attempts += 1;
        self.attempt = Some(Attempt {
            target,
            meter,
            shown,
            _pass: pass,
            _leave: self.leave.take(),
            started,
            failed: false,
            first_byte: None,
        });
        Ok(peer)
    }

    /// A place at this backend, or at the best other one that has one free; else the next that is free at this one.
    ///
    /// # Errors
    /// When too many wait for one, or it takes too long, or the client leaves.
    pub(super) async fn admit(
        &self,
        target: usize,
        session: &mut Session,
    ) -> Result<(usize, Option<Pass>), Unserved> {
        let Some((table, lane)) = &self.found else { return Err(Refusal::NothingEligible.into()) };
        let lane = &table.lanes[*lane];
        let Some((limit, gate)) = &table.targets[target].limit else { return Ok((target, None)) };
        if let Some(pass) = gate.enter() {
            return Ok((target, Some(pass)));
        }
        let others = lane.division.failover().iter().copied().filter(|other| {
            *other != target
                && !self.tried().contains(other)
                && !lane.is_paused(*other)
                && table.targets[*other].addresses() > 0
        });
        for other in others {
            let Some((_, gate)) = &table.targets[other].limit else { return Ok((other, None)) };
            if let Some(pass) = gate.enter() {
                return Ok((other, Some(pass)));
            }
        }
        // Counted as under way, so that a draining process waits for it.
        let _under_way = lane.refused.under_way();
        let priority = priority(session.req_header()).unwrap_or(lane.priority);
        tokio::select! {
            biased;
            pass = gate.wait(limit, priority) => Ok((target, Some(pass.ok_or(Refusal::Overloaded)?))),
            left = client_left(session) => Err(Unserved::ClientLeft(left)),
        }
    }

    /// Whether the request may be sent again though a backend may have begun to work on it, and there is all to send.
    pub(super) fn may_repeat(&self, session: &Session) -> bool {
        let Some(lane) = self.lane() else { return false };
        let held = match &self.peeked {
            Some(peeked) => peeked.is_whole(),
            None => session.req_header().method.is_idempotent(),
        };
        (session.req_header().method.is_idempotent() || (lane.retry.inference && held))
            && !session.as_ref().retry_buffer_truncated()
    }

    /// The next attempt's backend, if there is one that can be connected to.
    pub(super) fn next_target(&self) -> Option<usize> {
        let (table, lane) = self.found.as_ref()?;
        let target = self.choose(table, &table.lanes[*lane])?;
        (table.targets[target].addresses() > 0).then_some(target)
    }

    /// Replaces the model that a header names.
    pub(super) fn rename_model(&self, request: &mut RequestHeader) -> Result<()> {
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

    /// Shows the backend who Tradewind is. Last of all changes to the head, since a signature covers it.
    pub(super) fn show_credentials(&mut self, request: &mut RequestHeader) -> Result<()> {
        let Some(attempt) = &self.attempt else { return Ok(()) };
        let Some(shown) = attempt.shown.clone() else { return Ok(()) };
        match &*shown {
            Shown::Nothing(_) => Err(signing::unshown()),
            Shown::Header(value) => request.insert_header(header::AUTHORIZATION, value.clone()),
            Shown::Aws(credentials) => {
                let body = self.peeked.as_mut().map(|peeked| peeked.bytes()).unwrap_or_default();
                let target = self.target().ok_or_else(signing::unshown)?;
                let spec = target.signs().ok_or_else(signing::unshown)?;
                let authority = target.authority.to_str().unwrap_or_default();
                signing::sign(request, authority, &body, spec, credentials, SystemTime::now())
            }
        }
    }

    pub(super) fn request_id(&self) -> &str {
        self.request_id.to_str().unwrap_or_default()
    }
}
