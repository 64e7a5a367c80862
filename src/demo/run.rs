//! One run of the demo, from the first socket to the summary.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval, timeout_at},
};

use super::{
    clients::{Clients, Workload},
    cluster::Cluster,
    ledger::Ledger,
    moves::{Move, Moves},
    scenario::{
        self, CLUSTERS, MODEL, PRICES_CSV, PRICES_FILE, REQUESTS_CSV, REQUESTS_SPEED, ROUTE, TOKENS_DIVISOR,
        Window,
    },
    screen::Screen,
    summary::Summary,
    tally::Totals,
    trace::Trace,
    view::{self, ClusterState, Frame},
    workspace::Workspace,
};
use crate::{
    admin::Desk,
    admin::views::Status,
    config,
    control::{Control, serve},
    model::{RouteId, Timestamp},
    store::{JournalQuery, journal::QUERY_ENTRIES_MAX},
};

/// From one look at the product to the next: prices and shares move a little in that time, even at demo speed.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Without a terminal, a line is printed so often.
const LINE_EVERY: Duration = Duration::from_secs(5);
/// The product must be ready by then: it needs one probe of each cluster, and one decision.
const READY_WITHIN: Duration = Duration::from_secs(20);
/// Most requests at a time. Some 10 are under way at the recorded pace.
const WORKERS: usize = 64;
/// One answer in so many is asked for in one piece.
const WHOLE_ONE_IN: u64 = 10;

/// What the user may choose.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// How long the clients send.
    pub duration: Duration,
    /// Recorded seconds that pass in one second; by default what replays the whole recording in `duration`.
    pub speed: Option<f64>,
    /// Port of the front door on loopback; 0 for a free one.
    pub port: u16,
    /// Port of the admin API on loopback; 0 for a free one.
    pub admin_port: u16,
    /// For the latencies and answers of the clusters.
    pub seed: u64,
    /// Whether colours are wanted on a terminal.
    pub colour: bool,
}

/// Why a demo could not start or go on: one sentence for the user.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DemoError(String);

fn because<E: std::fmt::Display>(what: &'static str) -> impl Fn(E) -> DemoError {
    move |error| DemoError(format!("the demo cannot {what}: {error}"))
}

/// Runs the demo until its time is over or it is interrupted (SIGINT, SIGTERM), and says what came out. Interrupted again,
/// it does not wait for what is under way.
///
/// # Errors
/// When it could not start (a port is taken, no room for temporary files), or the product did not become ready.
pub async fn run(options: Options) -> Result<Summary, DemoError> {
    let mut interruption = Interruption::listen().map_err(because("listen for signals"))?;
    let clusters = start_clusters(options.seed).await.map_err(because("start its clusters"))?;
    let window = Window::recorded();
    let speed = options.speed.unwrap_or(window.length().as_secs_f64() / options.duration.as_secs_f64());
    let workspace = Workspace::create().map_err(because("make a directory"))?;
    let path = write_files(&workspace, &options, &clusters, speed).map_err(because("write its files"))?;
    let loaded = config::load(&path).map_err(because("load its own configuration"))?;

    // The replay of prices begins when the product starts.
    let replay = Replay { window, speed, began: Instant::now(), began_at: Timestamp::now() };
    let running =
        serve::start(loaded.settings, Some(path), None).await.map_err(because("start Tradewind"))?;
    let ready = tokio::select! {
        () = interruption.wait() => None,
        ready = wait_ready(&running.control) => Some(ready),
    };
    let http = running.http.ok_or_else(|| DemoError("the demo has no front door".to_owned()))?;
    let admin = running.admin.ok_or_else(|| DemoError("the demo has no admin API".to_owned()))?;
    let mut session = Session::new(&options, replay, running.control.clone(), http, admin);
    let worked = match ready {
        None => Ok(Totals::default()),
        Some(Err(error)) => Err(error),
        Some(Ok(())) => session.work(&clusters, &mut interruption).await,
    };
    tokio::select! {
        () = interruption.wait() => {}
        _ = running.drain() => {}
    }
    session.finish(worked?, &clusters).await
}

async fn start_clusters(seed: u64) -> std::io::Result<Vec<Cluster>> {
    let mut clusters = Vec::new();
    for (number, cluster) in (1..).zip(CLUSTERS) {
        clusters.push(Cluster::start(cluster.spec(), seed.wrapping_mul(31).wrapping_add(number)).await?);
    }
    Ok(clusters)
}

fn write_files(
    workspace: &Workspace,
    options: &Options,
    clusters: &[Cluster],
    speed: f64,
) -> std::io::Result<std::path::PathBuf> {
    let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let backends: Vec<_> = clusters.iter().map(Cluster::address).collect();
    let text =
        scenario::configuration(loopback(options.port), loopback(options.admin_port), &backends, speed);
    workspace.write(PRICES_FILE, PRICES_CSV)?;
    workspace.write("tradewind.toml", &text)
}

async fn wait_ready(control: &Control) -> Result<(), DemoError> {
    let deadline = Instant::now() + READY_WITHIN;
    let mut looks = interval(Duration::from_millis(20));
    let mut why = String::new();
    loop {
        if timeout_at(deadline, looks.tick()).await.is_err() {
            let within = READY_WITHIN.as_secs();
            return Err(DemoError(format!("Tradewind did not become ready within {within} s: {why}")));
        }
        match control.ready() {
            Ok(()) => return Ok(()),
            Err(reason) => why = reason,
        }
    }
}

fn workload(target: SocketAddr) -> Result<Workload, DemoError> {
    Ok(Workload {
        target,
        model: MODEL.to_owned(),
        workers: WORKERS,
        trace: Trace::parse(REQUESTS_CSV).map_err(because("read its own data"))?,
        speed: REQUESTS_SPEED,
        tokens_divisor: TOKENS_DIVISOR,
        whole_one_in: WHOLE_ONE_IN,
    })
}

/// How recorded time follows real time.
#[derive(Clone, Copy)]
struct Replay {
    window: Window,
    speed: f64,
    began: Instant,
    began_at: Timestamp,
}

impl Replay {
    fn now(&self) -> Timestamp {
        self.window.at(self.began.elapsed(), self.speed)
    }

    fn at(&self, real: Timestamp) -> Timestamp {
        let elapsed = Duration::try_from(real.duration_since(self.began_at)).unwrap_or_default();
        self.window.at(elapsed, self.speed)
    }
}

/// What is known while the demo runs.
struct Session {
    replay: Replay,
    duration: Duration,
    colour: bool,
    control: Arc<Control>,
    http: SocketAddr,
    admin: SocketAddr,
    began: Instant,
    began_recorded: Timestamp,
    ended: Option<(Duration, Timestamp)>,
    states: Vec<ClusterState>,
    ledger: Ledger,
    journal: Moves,
    moves: Vec<(Timestamp, Move)>,
}

impl Session {
    fn new(
        options: &Options,
        replay: Replay,
        control: Arc<Control>,
        http: SocketAddr,
        admin: SocketAddr,
    ) -> Session {
        Session {
            replay,
            duration: options.duration,
            colour: options.colour,
            control,
            http,
            admin,
            began: Instant::now(),
            began_recorded: replay.now(),
            ended: None,
            states: Vec::new(),
            ledger: Ledger::new(CLUSTERS.len(), replay.speed),
            journal: Moves::default(),
            moves: Vec::new(),
        }
    }

    /// Lets the clients work until it is enough, and says what they saw.
    async fn work(
        &mut self,
        clusters: &[Cluster],
        interruption: &mut Interruption,
    ) -> Result<Totals, DemoError> {
        let mut clients = Clients::start(workload(self.http)?);
        let watched = self.watch(&clients, clusters, interruption).await;
        tokio::select! {
            () = interruption.wait() => {}
            _ = clients.stop() => {}
        }
        watched.map(|()| clients.totals())
    }

    /// Looks at the product, keeps the accounts and shows what happens, until time is over or the user has seen enough.
    async fn watch(
        &mut self,
        clients: &Clients,
        clusters: &[Cluster],
        interruption: &mut Interruption,
    ) -> Result<(), DemoError> {
        let mut resized = signal(SignalKind::window_change()).map_err(because("listen for signals"))?;
        let mut show = Show::open(self);
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = self.began + self.duration;
        let outcome = loop {
            tokio::select! {
                () = interruption.wait() => break Ok(()),
                () = tokio::time::sleep_until(end) => break Ok(()),
                _ = resized.recv() => show.resized(),
                _ = looks.tick() => {
                    let status = self.look(clusters);
                    if let Err(error) = self.read_journal().await {
                        break Err(error);
                    }
                    show.frame(self, &status, &clients.totals());
                }
            }
        };
        self.ended = Some((self.began.elapsed(), self.replay.now()));
        outcome
    }

    /// One look at what the admin API shows, and one entry in the ledger.
    fn look(&mut self, clusters: &[Cluster]) -> Status {
        let status = self.control.status();
        self.states = view::clusters(ROUTE, &status, &self.control.prices());
        self.enter(clusters);
        status
    }

    fn enter(&mut self, clusters: &[Cluster]) {
        let served: Vec<_> = clusters.iter().map(|cluster| cluster.served().requests()).collect();
        let cost = |name: &str| self.states.iter().find(|state| state.name == name)?.usd_per_1k;
        let costs: Vec<_> = CLUSTERS.iter().map(|cluster| cost(cluster.name)).collect();
        self.ledger.enter(&served, &costs);
    }

    async fn read_journal(&mut self) -> Result<(), DemoError> {
        let query = JournalQuery {
            route: Some(ROUTE.parse::<RouteId>().map_err(because("name its route"))?),
            kind: None,
            since: self.journal.unread_since(),
            until: None,
            limit: QUERY_ENTRIES_MAX,
        };
        let control = self.control.clone();
        let entries = tokio::task::spawn_blocking(move || control.journal(&query))
            .await
            .map_err(because("read the journal"))?
            .map_err(because("read the journal"))?;
        self.journal.read(&entries).map_err(because("follow the decisions"))?;
        let known = self.moves.len();
        let new = self.journal.list()[known..].iter().map(|made| (self.replay.at(made.at), made.clone()));
        self.moves.extend(new);
        Ok(())
    }

    /// The last entries, and the summary.
    async fn finish(mut self, totals: Totals, clusters: &[Cluster]) -> Result<Summary, DemoError> {
        self.enter(clusters);
        self.read_journal().await?;
        let (ran, until) = self.ended.unwrap_or((Duration::ZERO, self.began_recorded));
        Ok(Summary {
            ran,
            speed: self.replay.speed,
            recorded: (self.began_recorded, until),
            totals,
            moves: self.moves,
            ledger: self.ledger,
        })
    }
}

/// Where what happens is shown: redrawn in place on a terminal, line by line on standard error otherwise.
enum Show {
    Screen(Screen),
    Lines { next: Instant, moves: usize },
}

impl Show {
    fn open(session: &Session) -> Show {
        match Screen::open() {
            Some(screen) => Show::Screen(screen),
            None => {
                eprintln!(
                    "dashboard http://{}/, front door http://{}/v1/chat/completions",
                    session.admin, session.http
                );
                Show::Lines { next: Instant::now(), moves: 0 }
            }
        }
    }

    fn resized(&mut self) {
        if let Show::Screen(screen) = self {
            screen.resized();
        }
    }

    fn frame(&mut self, session: &Session, status: &Status, totals: &Totals) {
        let route = status.routes.iter().find(|route| route.route.as_str() == ROUTE);
        let frame = Frame {
            recorded_at: session.replay.now(),
            speed: session.replay.speed,
            elapsed: session.began.elapsed(),
            duration: session.duration,
            demand_rps: route.map_or(0.0, |route| route.demand_rps),
            totals,
            clusters: &session.states,
            reason: route.map_or("", |route| &route.reason),
            warnings: &status.warnings,
            moves: &session.moves,
            http: session.http,
            admin: session.admin,
        };
        match self {
            Show::Screen(screen) => screen.show(&view::draw(&frame, screen.columns(), session.colour)),
            Show::Lines { next, moves } => {
                for (at, made) in &session.moves[*moves..] {
                    eprintln!("{}", view::move_line(*at, made));
                }
                *moves = session.moves.len();
                if Instant::now() >= *next {
                    *next += LINE_EVERY;
                    eprintln!("{}", view::line(&frame));
                }
            }
        }
    }
}

/// The user wants it to end.
struct Interruption {
    interrupt: Signal,
    terminate: Signal,
}

impl Interruption {
    fn listen() -> std::io::Result<Interruption> {
        Ok(Interruption {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Returns at the next such signal.
    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
