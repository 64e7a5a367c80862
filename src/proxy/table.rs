//! The routing table as the request path reads it: everything that can be prepared beforehand is.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use ahash::AHashMap;
use arc_swap::ArcSwap;
use http::{HeaderName, HeaderValue};
use parking_lot::Mutex;
use pingora_core::{
    protocols::{ALPN, TcpKeepalive},
    upstreams::peer::HttpPeer,
    utils::tls::{CertKey, WrappedX509, parse_x509},
};

use super::{
    conventions::provider_of,
    gate::Gate,
    matcher::{Asked, Matcher},
    pick::{Division, fingerprint},
    tenant::Guests,
};
use crate::{
    model::{
        Affinity, AuthSpec, AwsSigV4, Backend, BackendId, ClientCredentials, ClientLimits, Endpoint,
        HedgeSpec, LimitSpec, ModelPattern, Priority, Protocol, RetryOn, RetrySpec, Route, RouteId,
        RoutingTable, Timestamp, Trust,
    },
    signals::{
        budget::{Leave, RetryBudget},
        conventions::Active,
        credentials::{Badge, CredentialBoard},
        hedges::HedgeBudget,
        ledger::{ModelLedger, OTHER_MODELS},
        load::Tally,
        traces::Tracer,
        traffic::{Meter, Meters},
    },
    telemetry::access::AccessLog,
};

/// Longest wait for a TCP connection. Two SYNs are lost before it ends; a live cluster on another continent answers within
/// 0.3 s.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Longest wait for TCP and TLS together.
const TOTAL_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A host that is gone without a word (a machine taken away, a network cut) is noticed after about two minutes. The kernel
/// asks, and only on connections that are silent: a timer of our own on every read cost a twelfth of a request. A backend
/// that is alive and silent is left to the client's patience; probes keep new requests from it.
const KEEPALIVE: TcpKeepalive = TcpKeepalive {
    idle: Duration::from_secs(60),
    interval: Duration::from_secs(10),
    count: 6,
    user_timeout: Duration::from_secs(120),
};

/// How long an unused connection to a backend is kept; below the 60 s after which common load balancers close theirs.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(50);

/// A backend, ready to be connected to.
#[derive(Debug)]
pub struct Target {
    /// Its name.
    pub id: BackendId,
    /// What stands for it where requests are kept together.
    pub seed: u64,
    /// Its name as a header value.
    pub id_header: HeaderValue,
    /// What the `Host` header of its requests says.
    pub authority: HeaderValue,
    /// Where the reports of load go that its answers carry; `None` if none are read.
    pub tally: Option<Arc<Tally>>,
    /// How much it is asked at once, and who is at it; `None` for no limit.
    pub limit: Option<(LimitSpec, Arc<Gate>)>,
    /// What it is shown of who Tradewind is.
    pub auth: Option<Auth>,
    /// Whether what clients show of who they are is kept from it.
    pub strips_credentials: bool,
    /// Whose API for models it has, if its address says that.
    pub provider: Option<&'static str>,
    /// One for each address.
    peers: Box<[HttpPeer]>,
}

impl Target {
    /// How many addresses its name resolved to.
    pub fn addresses(&self) -> usize {
        self.peers.len()
    }

    /// How its requests are signed, if they are.
    pub fn signs(&self) -> Option<&AwsSigV4> {
        self.auth.as_ref()?.signs.as_ref()
    }

    /// A peer for a request; `turn` goes round the addresses. `None` if the backend has none.
    pub fn peer(&self, turn: usize) -> Option<Box<HttpPeer>> {
        match &*self.peers {
            [] => None,
            [only] => Some(Box::new(only.clone())),
            peers => Some(Box::new(peers[turn % peers.len()].clone())),
        }
    }
}

/// What a backend is shown of who Tradewind is.
#[derive(Debug)]
pub struct Auth {
    /// What it is shown now.
    pub badge: Arc<Badge>,
    /// How its requests are signed, if they are.
    pub signs: Option<AwsSigV4>,
}

/// A route, ready to be used.
#[derive(Debug)]
pub struct Lane {
    /// Its name.
    pub id: RouteId,
    /// How its requests are divided.
    pub division: Division,
    /// Counters for each backend, parallel to [`Table::targets`]; `None` for those that do not serve the route.
    meters: Box<[Option<Arc<Meter>>]>,
    /// Counters for answers that Tradewind gives itself.
    pub refused: Arc<Meter>,
    /// Models by the names that clients use, and those that backends know, as JSON and as a header's value; `None` if there
    /// are none.
    pub aliases: Option<AHashMap<String, Alias>>,
    /// When a request gets another attempt.
    pub retry: Retry,
    /// When a request is sent to a second backend; `None` for never.
    pub hedge: Option<Hedge>,
    /// Who of its requests may wait when backends are full, if they do not say so.
    pub priority: Priority,
    /// Longest silence of a backend.
    pub silence_timeout: Option<Duration>,
    /// What keeps requests at one backend.
    pub affinity: Option<Affinity>,
    /// The last journaled decision about it.
    pub decision: Option<Timestamp>,
    /// Whether a backend wants requests that are signed, so that their bodies are read first.
    pub signs: bool,
    /// What requests took, by the models that the configuration names; `None` if it names none.
    pub models: Option<Models>,
}

/// Counters by model. Clients name what they like: what the configuration does not name is counted as one.
#[derive(Debug)]
pub struct Models {
    named: AHashMap<String, Arc<ModelLedger>>,
    other: Arc<ModelLedger>,
}

impl Models {
    fn new(route: &Route, meters: &Meters) -> Option<Models> {
        let exact = route.matches.models.iter().filter_map(|model| match model {
            ModelPattern::Exact(name) => Some(name),
            ModelPattern::Prefix(_) => None,
        });
        let of = |name: &String| (name.clone(), meters.model(&route.id, name));
        let named: AHashMap<_, _> = exact.chain(route.aliases.keys()).map(of).collect();
        (!named.is_empty()).then(|| Models { named, other: meters.model(&route.id, OTHER_MODELS) })
    }

    /// The counters of a model; `None` if the request asks for none.
    pub fn of(&self, asked: Asked<'_>) -> Option<&Arc<ModelLedger>> {
        match asked {
            Asked::For(name) => Some(self.named.get(name).unwrap_or(&self.other)),
            Asked::Unknown | Asked::Nothing => None,
        }
    }
}

/// When a request gets another attempt.
#[derive(Debug)]
pub struct Retry {
    /// After it was not processed.
    pub connect: bool,
    /// After a broken connection.
    pub reset: bool,
    /// After silence.
    pub timeout: bool,
    /// After which statuses; mostly none.
    pub statuses: Box<[u16]>,
    /// Whether also if the method is not idempotent and a backend may have begun to work.
    pub inference: bool,
    /// How many at once.
    pub budget: Arc<RetryBudget>,
}

impl Retry {
    fn new(spec: &RetrySpec, budget: Arc<RetryBudget>) -> Retry {
        let after = |what| spec.on.contains(&what);
        Retry {
            connect: after(RetryOn::Connect),
            reset: after(RetryOn::Reset),
            timeout: after(RetryOn::Timeout),
            statuses: spec.on.iter().filter_map(|on| on.status()).collect(),
            inference: spec.inference,
            budget,
        }
    }
}

/// When a request is sent to a second backend beside the first.
#[derive(Debug)]
pub struct Hedge {
    spec: HedgeSpec,
    /// How many.
    pub budget: Arc<HedgeBudget>,
}

impl Hedge {
    fn new(spec: &HedgeSpec, budget: Arc<HedgeBudget>) -> Hedge {
        Hedge { spec: spec.clone(), budget }
    }

    /// After how long without an answer from a backend; `None` where that is not known yet.
    pub fn after(&self, meter: &Meter) -> Option<Duration> {
        let after = self.spec.after.or_else(|| meter.lateness.p95())?;
        Some(after.max(self.spec.at_least))
    }

    /// Counts a request towards the budget.
    pub fn earn(&self) {
        self.budget.earn(self.spec.budget.get());
    }
}

/// The name that backends know a model by.
#[derive(Debug)]
pub struct Alias {
    /// As it is.
    pub name: Arc<str>,
    /// In a body.
    pub json: String,
    /// In a header; `None` if no header can say it.
    pub header: Option<HeaderValue>,
}

impl Lane {
    /// The counters for a backend of this route.
    pub fn meter(&self, target: usize) -> &Arc<Meter> {
        self.meters[target].as_ref().unwrap_or(&self.refused)
    }

    /// Whether its requests go on without a look at their bodies.
    pub fn reads_nothing(&self) -> bool {
        let affinity_reads = self.affinity.as_ref().is_some_and(Affinity::is_in_body);
        self.aliases.is_none() && !self.retry.inference && !self.signs && !affinity_reads
    }

    /// Whether a backend has asked for no requests now.
    pub fn is_paused(&self, target: usize) -> bool {
        self.meter(target).is_paused()
    }

    /// Leave for another attempt, if the budget has room for it.
    pub fn grant_retry(&self) -> Option<Leave> {
        self.retry.budget.grant(self.meters.iter().flatten().map(|meter| meter.in_flight()).sum())
    }
}

/// What the request path reads.
#[derive(Debug)]
pub struct Table {
    /// Finds the lane of a request.
    pub matcher: Matcher,
    /// All routes.
    pub lanes: Box<[Lane]>,
    /// All backends.
    pub targets: Box<[Target]>,
    /// Counters for requests that match no route.
    pub unmatched: Arc<Meter>,
    /// What holds for all routes.
    pub common: Common,
}

/// What holds for all routes.
#[derive(Clone, Debug)]
pub struct Common {
    /// Whether answers name the backend.
    pub expose_routing: bool,
    /// Longest body that is read to find the model of a request, in bytes.
    pub body_peek_max: usize,
    /// Longest time for which nothing of such a body comes.
    pub silence_timeout: Duration,
    /// Header in which a client may name the model.
    pub model_header: HeaderName,
    /// Whose word is taken for whom a request is.
    pub trust: Trust,
    /// Says which requests have a span; `None` where nobody collects them.
    pub tracer: Option<Arc<Tracer>>,
    /// Whether answers are read for the tokens that they took.
    pub count_tokens: bool,
    /// Requests under way by the semantic conventions; `None` where nobody collects what is counted by those.
    pub active: Option<Arc<Active>>,
    /// What backends are shown of who Tradewind is.
    pub credentials: Arc<CredentialBoard>,
    /// Who may send requests; `None` if all may.
    pub guests: Option<Arc<Guests>>,
    /// Where requests are written down.
    pub access: Option<Arc<AccessLog>>,
}

impl Default for Common {
    fn default() -> Common {
        Common {
            expose_routing: false,
            body_peek_max: 1 << 20,
            silence_timeout: ClientLimits::default().silence_timeout,
            model_header: HeaderName::from_static("x-model"),
            trust: Trust::default(),
            tracer: None,
            count_tokens: true,
            active: None,
            credentials: Arc::default(),
            guests: None,
            access: None,
        }
    }
}

impl Table {
    /// A table in which nothing matches.
    pub fn empty(meters: &Meters) -> Table {
        Table {
            matcher: Matcher::default(),
            lanes: Box::default(),
            targets: Box::default(),
            unmatched: meters.get(None, None),
            common: Common::default(),
        }
    }

    fn new(plan: &RoutingTable, meters: &Meters, gates: &Gates, common: Common, before: &Table) -> Table {
        let targets: Box<[Target]> = plan
            .backends
            .iter()
            .map(|entry| target(&entry.backend, &entry.addresses, meters, gates, &common))
            .collect();
        let lanes = plan
            .routes
            .iter()
            .map(|entry| {
                let id = entry.route.id.clone();
                let mut own = vec![None; targets.len()];
                for (backend, _) in &entry.shares {
                    own[*backend] = Some(meters.get(Some(&id), Some(&targets[*backend].id)));
                }
                let division = Division::new(&entry.shares, &entry.failover, fastrand::u32(..));
                if let Some(lane) = before.lanes.iter().find(|lane| lane.id == id) {
                    division.continue_from(&lane.division);
                }
                let aliases = entry.route.aliases.iter();
                let aliases = aliases.map(|(alias, name)| (alias.clone(), Alias::new(name)));
                Lane {
                    division,
                    meters: own.into(),
                    refused: meters.get(Some(&id), None),
                    retry: Retry::new(&entry.route.retry, meters.budget(&id)),
                    hedge: entry.route.hedge.as_ref().map(|spec| Hedge::new(spec, meters.hedge_budget(&id))),
                    priority: entry.route.priority,
                    silence_timeout: entry.route.silence_timeout,
                    affinity: entry.route.affinity.clone(),
                    decision: entry.decision,
                    aliases: (!entry.route.aliases.is_empty()).then(|| aliases.collect()),
                    models: Models::new(&entry.route, meters),
                    signs: entry.shares.iter().any(|(backend, _)| targets[*backend].signs().is_some()),
                    id,
                }
            })
            .collect();
        Table {
            matcher: Matcher::new(plan.routes.iter().map(|entry| &entry.route.matches)),
            lanes,
            targets,
            unmatched: meters.get(None, None),
            common,
        }
    }
}

impl Alias {
    fn new(name: &str) -> Alias {
        Alias {
            name: name.into(),
            json: serde_json::Value::from(name).to_string(),
            header: HeaderValue::from_bytes(name.as_bytes()).ok(),
        }
    }
}

fn target(
    backend: &Backend,
    addresses: &[SocketAddr],
    meters: &Meters,
    gates: &Gates,
    common: &Common,
) -> Target {
    let guarded = common.guests.is_some();
    let header = |text: &str| {
        HeaderValue::from_str(text)
            .unwrap_or_else(|_| unreachable!("names and authorities are checked text: {text}"))
    };
    Target {
        seed: fingerprint(backend.id.as_str().as_bytes()),
        id: backend.id.clone(),
        id_header: header(backend.id.as_str()),
        authority: header(&backend.endpoint.authority()),
        provider: provider_of(&backend.endpoint.host),
        tally: backend.load.orca.then(|| meters.tally(&backend.id)),
        limit: backend.limit.clone().map(|limit| {
            let gate = gates.get(&backend.id);
            gate.resize(limit.max_in_flight);
            (limit, gate)
        }),
        strips_credentials: match backend.client_credentials {
            Some(ClientCredentials::Pass) => false,
            Some(ClientCredentials::Strip) => true,
            None => guarded || backend.auth.is_some(),
        },
        auth: backend.auth.as_ref().and_then(|spec| {
            let badge = common.credentials.badge(&backend.id)?;
            let signs = match spec {
                AuthSpec::AwsSigV4(spec) => Some(spec.clone()),
                _ => None,
            };
            Some(Auth { badge, signs })
        }),
        peers: addresses.iter().map(|address| peer(backend, *address)).collect(),
    }
}

fn peer(backend: &Backend, address: SocketAddr) -> HttpPeer {
    let Endpoint { tls, host, .. } = &backend.endpoint;
    // Without TLS the name is not used; an empty one is cheaper to clone for every request.
    let wanted = &backend.tls;
    let name = if *tls { wanted.server_name.as_ref().unwrap_or(host).clone() } else { String::new() };
    let mut peer = HttpPeer::new(address, *tls, name);
    let options = &mut peer.options;
    options.alpn = match (backend.protocol, tls) {
        (Protocol::Auto, true) => ALPN::H2H1,
        (Protocol::Auto, false) | (Protocol::Http1, _) => ALPN::H1,
        (Protocol::Http2, _) => ALPN::H2,
    };
    options.connection_timeout = Some(CONNECT_TIMEOUT);
    options.total_connection_timeout = Some(TOTAL_CONNECT_TIMEOUT);
    options.tcp_keepalive = Some(KEEPALIVE);
    options.idle_timeout = Some(POOL_IDLE_TIMEOUT);
    if !wanted.ca.is_empty() {
        options.ca = Some(wanted.ca.iter().map(|der| WrappedX509::new(der.clone(), parse_x509)).collect());
    }
    if *tls && let Some(pair) = &wanted.client {
        peer.client_cert_key = Some(Arc::new(CertKey::new(pair.chain.clone(), pair.key.clone())));
    }
    if *tls {
        // A connection that was verified by other certificates, or shown another, is another connection: Pingora looks only
        // at serial numbers.
        let mut hasher = DefaultHasher::new();
        wanted.ca.hash(&mut hasher);
        wanted.client.as_ref().map(|pair| (&pair.chain, &pair.key)).hash(&mut hasher);
        peer.group_key = hasher.finish();
    }
    peer
}

/// Replaces the table that requests read.
#[derive(Debug)]
pub struct Publisher {
    current: Arc<ArcSwap<Table>>,
    meters: Arc<Meters>,
    gates: Gates,
}

/// The gates of all backends that have a limit.
#[derive(Debug, Default)]
struct Gates(Mutex<HashMap<BackendId, Arc<Gate>>>);

impl Gates {
    fn get(&self, backend: &BackendId) -> Arc<Gate> {
        self.0.lock().entry(backend.clone()).or_default().clone()
    }
}

impl Publisher {
    /// The gates of backends that have, or had, a limit, sorted by name.
    pub fn gates(&self) -> Vec<(BackendId, Arc<Gate>)> {
        let mut all: Vec<_> =
            self.gates.0.lock().iter().map(|(id, gate)| (id.clone(), gate.clone())).collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    /// Starts with a table in which nothing matches.
    pub fn new(meters: Arc<Meters>) -> Publisher {
        let current = Arc::new(ArcSwap::from_pointee(Table::empty(&meters)));
        Publisher { current, meters, gates: Gates::default() }
    }

    /// What requests read.
    pub fn current(&self) -> Arc<ArcSwap<Table>> {
        self.current.clone()
    }

    /// The meters behind the table.
    pub fn meters(&self) -> &Arc<Meters> {
        &self.meters
    }

    /// Requests that arrive from now on see `plan`; those under way keep what they have.
    pub fn publish(&self, plan: &RoutingTable, common: Common) {
        let before = self.current.load();
        let table = Table::new(plan, &self.meters, &self.gates, common, &before);
        self.current.store(Arc::new(table));
    }
}
