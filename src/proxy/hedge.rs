//! A second request beside a first one that is late: the client gets the first answer of the two.
//!
//! Pingora asks one backend at a time. So each of the two runs as a request of its own within the client's (a subrequest), through
//! the same phases as any other, with a context and a place in the counters of its own; what it answers comes here piece by piece, and
//! nothing of it goes to the client before it has won. The other one is dropped where it stands: with it go its connection
//! or stream, its place at the backend, and its part in what is under way.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Version, header};
use pingora_core::{
    Error, ErrorType, Result,
    protocols::http::{HttpTask, subrequest::server::SubrequestHandle},
};
use pingora_http::ResponseHeader;
use pingora_proxy::{HttpProxy, Session, Subrequest, SubrequestSpawner, subrequest};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};

use super::{
    context::{Context, Unserved},
    gate::Pass,
    grpc,
    handler::Handler,
    incoming::host_of,
    table::{Lane, Table},
};
use crate::signals::{
    hedges::HedgeOutcome,
    traffic::{Meter, RetryReason},
};

/// What Pingora is told that the body of a subrequest is: in its place the whole one is sent, in every attempt.
const PLACEHOLDER: Bytes = Bytes::from_static(b"-");

/// Pieces of an answer that are written together, if so many are there: as many as Pingora keeps.
const TOGETHER_MAX: usize = 4;

/// Nobody asks this backend.
const NOWHERE: usize = usize::MAX;

/// The proxy by which requests are sent twice: it is known only once it is made, and holds the handler that needs it.
#[derive(Clone, Default)]
pub struct Pair(Arc<OnceLock<Weak<HttpProxy<Handler>>>>);

impl Pair {
    /// Requests are sent by this proxy from now on.
    pub fn knows(&self, proxy: &Arc<HttpProxy<Handler>>) {
        // A second one would be a second front, which has a pair of its own.
        let _ = self.0.set(Arc::downgrade(proxy));
    }

    fn spawner(&self) -> Option<SubrequestSpawner> {
        let proxy: Arc<dyn Subrequest + Send + Sync> = self.0.get()?.upgrade()?;
        Some(SubrequestSpawner::new(proxy))
    }
}

/// A place for the first request, and when a second one is sent.
pub(super) struct Seat {
    target: usize,
    pass: Option<Pass>,
    after: Duration,
}

/// Where the two requests for an answer are.
struct Race {
    at: [AtomicUsize; 2],
    /// Who has no more to say than was said.
    ended: [Notify; 2],
    /// Whose answer it is.
    won: [Notify; 2],
}

/// One of two requests for an answer.
pub(super) struct Entrant {
    race: Arc<Race>,
    /// 0 for the first.
    number: usize,
    /// Where it goes at first.
    seat: Option<(usize, Option<Pass>)>,
    /// Whether the client speaks HTTP/2.
    pub(super) http2: bool,
    /// Body bytes from the client.
    pub(super) bytes_received: u64,
}

impl Entrant {
    pub(super) fn is_second(&self) -> bool {
        self.number == 1
    }

    pub(super) fn take_seat(&mut self) -> Option<(usize, Option<Pass>)> {
        self.seat.take()
    }

    pub(super) fn is_at(&self, target: usize) {
        self.race.at[self.number].store(target, Relaxed);
    }

    /// At its end: waits until it has won. One that loses is dropped before: it shall not be counted as what the client was given.
    pub(super) async fn has_won(&self) {
        self.race.ended[self.number].notify_one();
        self.race.won[self.number].notified().await;
    }

    /// Whether the other of the two is at this backend.
    pub(super) fn asks_already(&self, target: usize) -> bool {
        self.race.at[1 - self.number].load(Relaxed) == target
    }
}

/// The context of a subrequest, if this is one.
///
/// # Errors
/// None that would be expected: when a header cannot be set.
pub(super) fn entered(session: &mut Session) -> Result<Option<Context>> {
    let Some(given) = session.subrequest_ctx.as_mut().and_then(|given| given.user_ctx_mut()) else {
        return Ok(None);
    };
    let Some(mut ctx) = given.downcast_mut::<Option<Context>>().and_then(Option::take) else {
        return Ok(None);
    };
    let len = ctx.peeked.as_mut().map_or(0, |peeked| peeked.bytes().len());
    let head = session.req_header_mut();
    head.remove_header(&header::TRANSFER_ENCODING);
    if len > 0 {
        head.insert_header(header::CONTENT_LENGTH, PLACEHOLDER.len())?;
        ctx.rewritten = Some(len);
    } else if head.headers.contains_key(header::CONTENT_LENGTH) {
        head.insert_header(header::CONTENT_LENGTH, 0)?;
    }
    Ok(Some(ctx))
}

impl Context {
    /// A place for the request at a backend, if it is one that may be sent to a second one should that be late; `None` if it is not.
    ///
    /// # Errors
    /// When all backends have as much as they may have, or the client leaves while it waits.
    pub(super) async fn seat(&self, session: &mut Session) -> std::result::Result<Option<Seat>, Unserved> {
        let Some((table, lane)) = &self.found else { return Ok(None) };
        let lane = &table.lanes[*lane];
        let Some(hedge) = &lane.hedge else { return Ok(None) };
        if !self.may_be_doubled(session) {
            return Ok(None);
        }
        hedge.earn();
        let Some(target) = self.next_target() else { return Ok(None) };
        let Some(after) = hedge.after(lane.meter(target)) else { return Ok(None) };
        let (target, pass) = self.admit(target, session).await?;
        let after = hedge.after(lane.meter(target)).unwrap_or(after);
        Ok(Some(Seat { target, pass, after }))
    }

    /// Whether two backends may work on it, and all of it is there to be sent twice. Calls of gRPC and what becomes another protocol are
    /// conversations.
    fn may_be_doubled(&self, session: &mut Session) -> bool {
        let has_all = self.peeked.as_ref().map(|peeked| peeked.is_whole());
        self.may_repeat(session)
            && has_all.unwrap_or_else(|| session.as_downstream_mut().is_body_empty())
            && !session.is_upgrade_req()
            && !grpc::is_asked_for(session.req_header())
    }
}

/// A request of the two, under way.
struct Runner {
    run: Pin<Box<dyn Future<Output = ()> + Send>>,
    handle: SubrequestHandle,
    race: Arc<Race>,
    number: usize,
    /// Whether there is nothing left of it to be done.
    done: bool,
    /// What it has answered so far.
    held: Vec<HttpTask>,
    /// Whether that is an answer which the client shall get though another may come; `None` while there is none.
    answered: Option<bool>,
}

impl Runner {
    /// The next piece of its answer; `None` at its end. It does its work while it is waited for.
    async fn next(&mut self) -> Option<HttpTask> {
        loop {
            tokio::select! {
                biased;
                piece = self.handle.rx.recv() => return piece,
                () = &mut self.run, if !self.done => self.done = true,
            }
        }
    }

    /// Waits for the first byte of its answer: some servers send the head when they take a request in.
    async fn answer(&mut self) {
        while self.answered.is_none() {
            let piece = tokio::select! {
                biased;
                piece = self.handle.rx.recv() => piece,
                () = &mut self.run, if !self.done => {
                    self.done = true;
                    continue;
                }
                // The last it said may have come in the same moment.
                () = self.race.ended[self.number].notified() => {
                    let piece = self.handle.rx.try_recv().ok();
                    if piece.is_some() {
                        self.race.ended[self.number].notify_one();
                    }
                    piece
                }
            };
            self.answered = match &piece {
                None => Some(false),
                // What comes before an answer says nothing about who wins.
                Some(HttpTask::Header(head, _)) if head.status.is_informational() => continue,
                Some(HttpTask::Header(head, end)) => (*end || !is_good(head)).then(|| is_good(head)),
                Some(HttpTask::Body(bytes, end)) => {
                    (*end || bytes.as_ref().is_some_and(|bytes| !bytes.is_empty())).then_some(true)
                }
                Some(_) => Some(true),
            };
            self.held.extend(piece);
        }
    }

    /// What it has answered since, for one write.
    async fn pieces(&mut self) -> Option<Vec<HttpTask>> {
        let mut pieces = std::mem::take(&mut self.held);
        if pieces.is_empty() {
            pieces.push(self.next().await?);
        }
        while pieces.len() < TOGETHER_MAX
            && let Ok(piece) = self.handle.rx.try_recv()
        {
            pieces.push(piece);
        }
        Some(pieces)
    }

    /// Lets it come to its end, so that it is counted.
    async fn finish(&mut self) {
        if !self.done {
            (&mut self.run).await;
        }
    }

    /// Tells it that the client has left, and lets it come to its end.
    async fn abandon(self) {
        let Runner { run, handle, race, number, done, .. } = self;
        drop(handle);
        race.won[number].notify_one();
        if !done {
            run.await;
        }
    }
}

/// Whether an answer ends the race: not if it says that the backend cannot serve, while the other one may.
fn is_good(head: &ResponseHeader) -> bool {
    !head.status.is_server_error() && head.status != http::StatusCode::TOO_MANY_REQUESTS
}

impl Handler {
    /// Sends the request to a backend, to a second one if that is late, and passes on what answers first. `false` if it was not sent.
    ///
    /// # Errors
    /// When the client leaves, or the answer breaks off.
    pub(super) async fn race(&self, session: &mut Session, ctx: &mut Context, seat: Seat) -> Result<bool> {
        let Some((table, lane)) = ctx.found.clone() else { return Ok(false) };
        let lane = &table.lanes[lane];
        // A draining process waits until all of its answer is written.
        let _under_way = table.unmatched.under_way();
        let race = Arc::new(Race {
            at: [AtomicUsize::new(seat.target), AtomicUsize::new(NOWHERE)],
            ended: Default::default(),
            won: Default::default(),
        });
        let started = Instant::now();
        let first = Entrant::new(&race, 0, (seat.target, seat.pass), session);
        let Some(mut first) = self.start(session, ctx.again(first))? else { return Ok(false) };
        ctx.handed_over = true;
        let mut second: Option<(Runner, &Arc<Meter>)> = None;
        let (mut late, mut due) = (pin!(sleep(seat.after)), true);
        loop {
            tokio::select! {
                biased;
                () = first.answer(), if first.answered.is_none() => {}
                () = answer_of(&mut second) => {}
                () = late.as_mut(), if due && first.answered.is_none() => {
                    due = false;
                    second = self.second(session, ctx, &table, lane, &race)?;
                }
                left = session.downstream_session.read_body_or_idle(true) => {
                    if let Some((second, at)) = second {
                        at.hedges.add(HedgeOutcome::Lost);
                        drop(second);
                    }
                    first.abandon().await;
                    return Err(left.err().unwrap_or_else(|| Error::new(ErrorType::ConnectionClosed)).into_down());
                }
            }
            let other = second.as_ref().map(|(second, _)| second.answered);
            match (first.answered, other) {
                (Some(true), _) | (Some(false), None | Some(Some(false))) => break,
                (_, Some(Some(true))) => break,
                _ => {}
            }
        }
        let winner = match second {
            None => first,
            Some((second, at)) if first.answered == Some(true) || second.answered != Some(true) => {
                at.hedges.add(if second.answered.is_some() {
                    HedgeOutcome::Failed
                } else {
                    HedgeOutcome::Lost
                });
                note_failure(&second, at);
                drop(second);
                first
            }
            Some((second, at)) => {
                at.hedges.add(HedgeOutcome::Won);
                let at = lane.meter(race.at[0].load(Relaxed));
                if first.answered.is_none() {
                    // It would have taken longer still: were that left out, one that is slow would look fast.
                    at.first_byte.record(started.elapsed());
                }
                note_failure(&first, at);
                // Now, not when the answer has ended: nobody asks for what it would say, and it holds a place at its backend.
                drop(first);
                second
            }
        };
        deliver(session, winner).await
    }

    /// Sends the request once more, to another backend that can take it. `None`, and counted, if there is none or too many were sent.
    fn second<'l>(
        &self,
        session: &mut Session,
        ctx: &mut Context,
        table: &Table,
        lane: &'l Lane,
        race: &Arc<Race>,
    ) -> Result<Option<(Runner, &'l Arc<Meter>)>> {
        let first_at = race.at[0].load(Relaxed);
        let not_sent = |why| {
            lane.meter(first_at).hedges.add(why);
            Ok(None)
        };
        let Some((target, pass)) = self.other_seat(table, lane, first_at) else {
            return not_sent(HedgeOutcome::NoBackend);
        };
        if !lane.hedge.as_ref().is_some_and(|hedge| hedge.budget.spend()) {
            return not_sent(HedgeOutcome::OverBudget);
        }
        race.at[1].store(target, Relaxed);
        let mut own = ctx.again(Entrant::new(race, 1, (target, pass), session));
        own.pass_over(first_at);
        Ok(self.start(session, own)?.map(|runner| (runner, lane.meter(target))))
    }

    /// A place at the best other backend that may serve now, asks for no pause and has one free.
    fn other_seat(&self, table: &Table, lane: &Lane, first_at: usize) -> Option<(usize, Option<Pass>)> {
        let now = self.table.load();
        let now_lane = now.lanes.iter().find(|other| other.id == lane.id)?;
        let may_serve = |target: usize| {
            let id = &table.targets[target].id;
            now_lane.division.failover().iter().any(|other| now.targets[*other].id == *id)
        };
        let others = lane.division.failover().iter().copied().filter(|target| {
            *target != first_at
                && table.targets[*target].addresses() > 0
                && !lane.is_paused(*target)
                && may_serve(*target)
        });
        others
            .filter_map(|target| match &table.targets[target].limit {
                None => Some((target, None)),
                Some((_, gate)) => gate.enter().map(|pass| (target, Some(pass))),
            })
            .next()
    }

    /// A subrequest with this context; `None` when there is no proxy to run it.
    fn start(&self, session: &mut Session, mut ctx: Context) -> Result<Option<Runner>> {
        let (Some(spawner), Some(entrant)) = (self.pair.spawner(), &ctx.entrant) else { return Ok(None) };
        let (race, number) = (entrant.race.clone(), entrant.number);
        let has_body = ctx.peeked.as_mut().is_some_and(|peeked| !peeked.bytes().is_empty());
        let given = subrequest::Ctx::builder()
            .body_mode(subrequest::BodyMode::ExpectBody)
            .user_ctx(Box::new(Some(ctx)))
            .build();
        // It is written down as HTTP/1.1 and read again.
        let head = session.req_header_mut();
        let version = head.version;
        if version == Version::HTTP_2 {
            if let Some(host) = host_of(head) {
                head.insert_header(header::HOST, host)?;
            }
            head.set_version(Version::HTTP_11);
        }
        let (prepared, handle) = spawner.create_subrequest(session.as_downstream(), given);
        session.req_header_mut().set_version(version);
        if has_body {
            // There is room for the first piece.
            let _ = handle.tx.try_send(HttpTask::Body(Some(PLACEHOLDER), true));
        }
        let run = Box::pin(prepared.run());
        Ok(Some(Runner { run, handle, race, number, done: false, held: Vec::new(), answered: None }))
    }
}

impl Entrant {
    fn new(race: &Arc<Race>, number: usize, seat: (usize, Option<Pass>), session: &Session) -> Entrant {
        Entrant {
            race: race.clone(),
            number,
            seat: Some(seat),
            http2: session.is_http2(),
            bytes_received: session.as_ref().body_bytes_read() as u64,
        }
    }
}

/// Waits for the answer of the second request; for ever if there is none, or it was heard.
async fn answer_of(second: &mut Option<(Runner, &Arc<Meter>)>) {
    match second {
        Some((second, _)) if second.answered.is_none() => second.answer().await,
        _ => std::future::pending().await,
    }
}

/// Counts what a backend answered in vain as an attempt, and as one that it failed unless it only has too much to do.
fn note_failure(runner: &Runner, at: &Meter) {
    if runner.answered == Some(false)
        && let Some(HttpTask::Header(head, _)) = runner.held.first()
    {
        at.retried(RetryReason::Status, head.status != http::StatusCode::TOO_MANY_REQUESTS);
    }
}

/// Passes an answer on, as the client takes it.
///
/// # Errors
/// When the client leaves, or the answer breaks off.
async fn deliver(session: &mut Session, mut winner: Runner) -> Result<bool> {
    if session.is_process_shutting_down() {
        session.set_keepalive(None);
    }
    winner.race.won[winner.number].notify_one();
    let mut whole = false;
    while !whole {
        let written = tokio::select! {
            biased;
            pieces = winner.pieces() => match pieces {
                Some(pieces) => session.write_response_tasks(pieces).await,
                None => break,
            },
            left = session.downstream_session.read_body_or_idle(true) => {
                Err(left.err().unwrap_or_else(|| Error::new(ErrorType::ConnectionClosed)))
            }
        };
        match written {
            Ok(end) => whole = end,
            Err(left) => {
                winner.abandon().await;
                return Err(left.into_down());
            }
        }
    }
    winner.finish().await;
    if whole {
        return Ok(true);
    }
    let broken = winner.handle.subreq_proxy_error.try_recv();
    Err(broken.unwrap_or_else(|_| Error::new_up(ErrorType::ConnectionClosed)))
}
