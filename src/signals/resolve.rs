//! Which addresses a backend's name has now.
//!
//! The operating system's resolver does not tell how long an answer may be kept, so every name is asked for again every few
//! seconds, as Envoy's STRICT_DNS clusters do by default. A name that cannot be resolved keeps the addresses it had.

use std::{
    collections::{HashMap, HashSet},
    fmt, io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::task::OwnedTask;
use crate::model::{Backend, BackendId, Endpoint};

/// From one lookup of a name to the next, jittered by a tenth.
const RESOLVE_EVERY: Duration = Duration::from_secs(5);

/// The same while the name has never been resolved: its backend waits for it.
const RETRY_EVERY: Duration = Duration::from_secs(1);

/// A lookup that takes longer is a fault. It is not abandoned, for it cannot be: its answer is used when it comes.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses used of one name. A DNS answer over UDP holds a few dozen; a name with more is a directory, not a backend.
const ADDRESSES_MAX: usize = 256;

/// Asks for the addresses of a name. Blocks.
type Ask = Arc<dyn Fn(&str, u16) -> io::Result<Vec<SocketAddr>> + Send + Sync>;

/// The addresses of all backends, kept up to date.
pub struct Resolver {
    ask: Ask,
    every: Duration,
    slots: Mutex<HashMap<BackendId, Slot>>,
    changes: watch::Sender<u64>,
}

struct Slot {
    endpoint: Endpoint,
    known: Arc<Mutex<Known>>,
    /// `None` for an IP address, which needs no lookup.
    _task: Option<OwnedTask>,
}

/// What is known about one name.
#[derive(Clone, Debug)]
struct Known {
    addresses: Arc<[SocketAddr]>,
    fault: Option<Arc<str>>,
    /// At least one lookup has succeeded or failed.
    tried: bool,
}

impl Default for Resolver {
    fn default() -> Resolver {
        Resolver::new()
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("every", &self.every).finish_non_exhaustive()
    }
}

impl Resolver {
    /// A resolver that asks the operating system. It knows no names yet.
    pub fn new() -> Resolver {
        Resolver::asking(system(), RESOLVE_EVERY)
    }

    fn asking(ask: Ask, every: Duration) -> Resolver {
        Resolver { ask, every, slots: Mutex::default(), changes: watch::Sender::new(0) }
    }

    /// Looks after the names of `backends` from now on, and of no others. A backend whose endpoint has not changed keeps its
    /// addresses. Call it within a tokio runtime.
    pub fn reconcile(&self, backends: &[Arc<Backend>]) {
        let mut slots = lock(&self.slots);
        let wanted: HashSet<&BackendId> = backends.iter().map(|backend| &backend.id).collect();
        slots.retain(|id, _| wanted.contains(id));
        for backend in backends {
            if slots.get(&backend.id).is_none_or(|slot| slot.endpoint != backend.endpoint) {
                slots.insert(backend.id.clone(), self.start(&backend.endpoint));
            }
        }
        drop(slots);
        self.changes.send_modify(|version| *version += 1);
    }

    fn start(&self, endpoint: &Endpoint) -> Slot {
        let endpoint = endpoint.clone();
        if let Some(address) = literal(&endpoint) {
            let known = Known { addresses: [address].into(), fault: None, tried: true };
            return Slot { endpoint, known: Arc::new(Mutex::new(known)), _task: None };
        }
        let known = Arc::new(Mutex::new(Known { addresses: [].into(), fault: None, tried: false }));
        let lookup = Lookup { ask: self.ask.clone(), pending: None };
        let task =
            OwnedTask::spawn(keep(endpoint.clone(), known.clone(), lookup, self.every, self.changes.clone()));
        Slot { endpoint, known, _task: Some(task) }
    }

    /// Waits until every name has been looked up once, with or without success, but no longer than `limit`. `false` when the
    /// time was too short.
    pub async fn resolve_all(&self, limit: Duration) -> bool {
        let mut changes = self.changes.subscribe();
        let all = changes.wait_for(|_| lock(&self.slots).values().all(|slot| lock(&slot.known).tried));
        timeout(limit, all).await.is_ok_and(|waited| waited.is_ok())
    }

    /// The addresses of a backend, sorted, IPv4 first. Empty if its name has never been resolved.
    pub fn addresses(&self, id: &BackendId) -> Arc<[SocketAddr]> {
        self.known(id).map_or_else(|| [].into(), |known| known.addresses)
    }

    /// Why the last lookup failed; `None` if it did not. The addresses are then those of the last one that worked.
    pub fn fault(&self, id: &BackendId) -> Option<Arc<str>> {
        self.known(id)?.fault
    }

    /// Wakes its holder when addresses or faults change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn known(&self, id: &BackendId) -> Option<Known> {
        lock(&self.slots).get(id).map(|slot| lock(&slot.known).clone())
    }
}

/// Looks one name up again and again.
async fn keep(
    endpoint: Endpoint,
    known: Arc<Mutex<Known>>,
    mut lookup: Lookup,
    every: Duration,
    changes: watch::Sender<u64>,
) {
    loop {
        let answer = lookup.addresses(&endpoint, Instant::now() + LOOKUP_TIMEOUT).await;
        let (changed, resolved) = note(&mut lock(&known), &endpoint, answer);
        if changed {
            changes.send_modify(|version| *version += 1);
        }
        let pause = if resolved { every } else { every.min(RETRY_EVERY) };
        // Names that were configured together must not be asked for together for ever.
        sleep(pause.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
    }
}

/// Takes an answer in. Whether anything changed, and whether the name has addresses now.
fn note(known: &mut Known, endpoint: &Endpoint, answer: Result<Vec<SocketAddr>, String>) -> (bool, bool) {
    let before = known.clone();
    known.tried = true;
    match answer {
        Ok(addresses) => {
            known.fault = None;
            if *known.addresses != *addresses {
                known.addresses = addresses.into();
                tracing::info!(host = endpoint.host, addresses = ?known.addresses, "addresses changed");
            }
        }
        Err(fault) => {
            if known.fault.as_deref() != Some(&*fault) {
                tracing::warn!(host = endpoint.host, kept = ?known.addresses, "{fault}");
                known.fault = Some(fault.into());
            }
        }
    }
    let changed =
        !before.tried || before.fault != known.fault || !Arc::ptr_eq(&before.addresses, &known.addresses);
    (changed, !known.addresses.is_empty())
}

/// Lookups of one name, one at a time: a resolver that hangs holds one thread, however often it is asked.
pub(super) struct Lookup {
    ask: Ask,
    pending: Option<JoinHandle<io::Result<Vec<SocketAddr>>>>,
}

impl Lookup {
    /// Asks the operating system.
    pub(super) fn system() -> Lookup {
        Lookup { ask: system(), pending: None }
    }

    /// The addresses of `endpoint`: at least one, sorted, each once.
    ///
    /// # Errors
    /// No answer until `deadline`, or none that helps, in one sentence.
    pub(super) async fn addresses(
        &mut self,
        endpoint: &Endpoint,
        deadline: Instant,
    ) -> Result<Vec<SocketAddr>, String> {
        if let Some(address) = literal(endpoint) {
            return Ok(vec![address]);
        }
        let host = &endpoint.host;
        let pending = self.pending.get_or_insert_with(|| {
            let (ask, host, port) = (self.ask.clone(), host.clone(), endpoint.port);
            tokio::task::spawn_blocking(move || ask(&host, port))
        });
        let Ok(answer) = timeout_at(deadline, pending).await else {
            return Err(format!("the name `{host}` is not resolved: no answer in time"));
        };
        self.pending = None;
        let mut addresses = answer
            .map_err(|error| format!("the name `{host}` is not resolved: {error}"))?
            .map_err(|error| format!("the name `{host}` is not resolved: {error}"))?;
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(ADDRESSES_MAX);
        if addresses.is_empty() {
            return Err(format!("the name `{host}` resolves to no address"));
        }
        Ok(addresses)
    }
}

fn system() -> Ask {
    Arc::new(|host, port| (host, port).to_socket_addrs().map(Iterator::collect))
}

fn literal(endpoint: &Endpoint) -> Option<SocketAddr> {
    endpoint.host.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, endpoint.port))
}

/// Nothing under these locks can panic half-way; if something did, what is there is still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signals::fixture::backend;

    const LIMIT: Duration = Duration::from_secs(20);

    fn id(name: &str) -> BackendId {
        name.parse().unwrap()
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    type Answer = Result<Vec<SocketAddr>, &'static str>;

    /// A resolver over names that a test can change.
    fn names() -> (Resolver, Arc<Mutex<Answer>>) {
        let says = Arc::new(Mutex::new(Ok(Vec::new())));
        let answers = says.clone();
        let ask: Ask = Arc::new(move |_, _| lock(&answers).clone().map_err(io::Error::other));
        (Resolver::asking(ask, Duration::from_millis(5)), says)
    }

    async fn until(resolver: &Resolver, condition: impl Fn() -> bool) {
        let mut changes = resolver.changes();
        timeout(LIMIT, changes.wait_for(|_| condition())).await.expect("in time").expect("not dropped");
    }

    #[tokio::test]
    async fn addresses_follow_the_name_and_outlive_its_failure() {
        let (resolver, says) = names();
        *lock(&says) = Ok(vec![address("10.0.0.2:80"), address("10.0.0.1:80"), address("10.0.0.2:80")]);
        resolver.reconcile(&[backend("a", "http", "llama.example", 80)]);
        assert!(resolver.resolve_all(LIMIT).await);
        assert_eq!(*resolver.addresses(&id("a")), [address("10.0.0.1:80"), address("10.0.0.2:80")]);

        *lock(&says) = Err("the server is gone");
        until(&resolver, || resolver.fault(&id("a")).is_some()).await;
        assert_eq!(resolver.addresses(&id("a")).len(), 2, "the last addresses stay");
        assert!(
            resolver.fault(&id("a")).unwrap().contains("`llama.example` is not resolved: the server is gone")
        );

        *lock(&says) = Ok(vec![address("10.0.0.3:80")]);
        until(&resolver, || resolver.fault(&id("a")).is_none()).await;
        assert_eq!(*resolver.addresses(&id("a")), [address("10.0.0.3:80")]);

        *lock(&says) = Ok(Vec::new());
        until(&resolver, || resolver.fault(&id("a")).is_some()).await;
        assert_eq!(resolver.addresses(&id("a")).len(), 1);
    }

    #[tokio::test]
    async fn ip_addresses_need_no_lookup() {
        let (resolver, says) = names();
        *lock(&says) = Err("must not be asked");
        resolver.reconcile(&[backend("a", "http", "127.0.0.1", 80), backend("b", "http", "::1", 8080)]);
        assert!(resolver.resolve_all(Duration::ZERO).await, "there is nothing to wait for");
        assert_eq!(*resolver.addresses(&id("a")), [address("127.0.0.1:80")]);
        assert_eq!(*resolver.addresses(&id("b")), [address("[::1]:8080")]);
    }

    #[tokio::test]
    async fn a_reload_keeps_what_has_not_changed_and_forgets_what_is_gone() {
        let (resolver, says) = names();
        *lock(&says) = Ok(vec![address("10.0.0.1:80")]);
        resolver.reconcile(&[backend("a", "http", "a.example", 80), backend("b", "http", "b.example", 80)]);
        assert!(resolver.resolve_all(LIMIT).await);
        *lock(&says) = Err("down");
        resolver.reconcile(&[backend("a", "http", "a.example", 80), backend("c", "http", "c.example", 80)]);
        assert_eq!(resolver.addresses(&id("a")).len(), 1);
        assert_eq!(resolver.addresses(&id("b")).len(), 0);
        assert!(resolver.resolve_all(LIMIT).await, "a failure counts as tried");
        assert!(resolver.fault(&id("c")).is_some());
    }

    #[tokio::test]
    async fn a_lookup_that_hangs_is_asked_once_and_its_late_answer_used() {
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let (wait, asked) = (Mutex::new(wait), Arc::new(Mutex::new(0)));
        let count = asked.clone();
        let ask: Ask = Arc::new(move |_, _| {
            *lock(&count) += 1;
            lock(&wait).recv().map_err(io::Error::other)?;
            Ok(vec![address("10.0.0.1:80")])
        });
        let mut lookup = Lookup { ask, pending: None };
        let endpoint = Endpoint { tls: false, host: "slow.example".into(), port: 80 };
        for _ in 0..3 {
            let answer = lookup.addresses(&endpoint, Instant::now() + Duration::from_millis(2)).await;
            assert!(answer.unwrap_err().contains("no answer in time"));
        }
        release.send(()).unwrap();
        assert_eq!(lookup.addresses(&endpoint, Instant::now() + LIMIT).await.unwrap().len(), 1);
        assert_eq!(*lock(&asked), 1);
    }
}
