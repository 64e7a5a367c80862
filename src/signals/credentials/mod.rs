//! Credentials that backends are shown: found and renewed ahead of their expiry in the background, so that a request only
//! reads what there is. What was found stays until it expires, whatever becomes of the next try; then there is none, with a
//! reason, and the backend gets no requests.

mod aws;
mod google;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;
use http::HeaderValue;
use tokio::sync::watch;

use self::google::Wanted;
use super::task::OwnedTask;
use crate::model::{AuthSpec, Backend, BackendId};

pub use aws_credential_types::Credentials as AwsCredentials;

/// From one failure to the next try.
const RETRY: Duration = Duration::from_secs(5);

/// Longest reason that is shown. Some errors hold whole answers.
const REASON_LEN_MAX: usize = 300;

/// What a backend is shown now.
#[derive(Debug)]
pub enum Shown {
    /// Nothing, for this reason.
    Nothing(String),
    /// This, as `authorization`. Marked as sensitive: it is never shown.
    Header(HeaderValue),
    /// A signature with these.
    Aws(AwsCredentials),
}

/// What one backend is shown.
#[derive(Debug)]
pub struct Badge(ArcSwap<Shown>);

impl Badge {
    fn new() -> Badge {
        Badge(ArcSwap::from_pointee(Shown::Nothing("they were not found yet".into())))
    }

    /// What is shown now.
    pub fn shown(&self) -> Arc<Shown> {
        self.0.load_full()
    }

    /// The header that is shown, if it is one.
    pub(super) fn header(&self) -> Option<HeaderValue> {
        match &**self.0.load() {
            Shown::Header(value) => Some(value.clone()),
            Shown::Nothing(_) | Shown::Aws(_) => None,
        }
    }

    /// Why nothing is shown, if so.
    pub fn fault(&self) -> Option<String> {
        match &**self.0.load() {
            Shown::Nothing(why) => Some(why.clone()),
            Shown::Header(_) | Shown::Aws(_) => None,
        }
    }

    /// Shows this from now on; says whether it makes a difference.
    fn show(&self, shown: Shown) -> bool {
        let same = match (&**self.0.load(), &shown) {
            (Shown::Header(before), Shown::Header(after)) => before == after,
            (Shown::Nothing(before), Shown::Nothing(after)) => before == after,
            _ => false,
        };
        if !same {
            self.0.store(Arc::new(shown));
        }
        !same
    }
}

/// The credentials of all backends.
#[derive(Debug)]
pub struct CredentialBoard {
    slots: Mutex<HashMap<BackendId, Slot>>,
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct Slot {
    spec: AuthSpec,
    badge: Arc<Badge>,
    _task: Option<OwnedTask>,
}

impl Default for CredentialBoard {
    fn default() -> CredentialBoard {
        CredentialBoard { slots: Mutex::default(), changes: watch::Sender::new(0) }
    }
}

impl CredentialBoard {
    /// Finds credentials for `backends` from now on, and no others. What is found stays as long as the same is asked for. Call it
    /// within a tokio runtime.
    pub fn reconcile(&self, backends: &[Arc<Backend>]) {
        let mut slots = lock(&self.slots);
        let wanted: HashSet<&BackendId> =
            backends.iter().filter(|backend| backend.auth.is_some()).map(|backend| &backend.id).collect();
        slots.retain(|id, _| wanted.contains(id));
        for backend in backends {
            let Some(spec) = &backend.auth else { continue };
            if slots.get(&backend.id).is_some_and(|slot| slot.spec == *spec) {
                continue;
            }
            let badge = Arc::new(Badge::new());
            let teller =
                Teller { backend: backend.id.clone(), badge: badge.clone(), changes: self.changes.clone() };
            let task = match spec {
                AuthSpec::Bearer(secret) => {
                    teller.tell(bearer(secret.expose()));
                    None
                }
                AuthSpec::AwsSigV4(spec) => Some(OwnedTask::spawn(aws::keep(spec.clone(), teller))),
                AuthSpec::GoogleAccessToken { scopes } => {
                    Some(OwnedTask::spawn(google::keep(Wanted::Access(scopes.clone()), teller)))
                }
                AuthSpec::GoogleIdToken { audience } => {
                    Some(OwnedTask::spawn(google::keep(Wanted::Id(audience.clone()), teller)))
                }
            };
            slots.insert(backend.id.clone(), Slot { spec: spec.clone(), badge, _task: task });
        }
    }

    /// What a backend is shown; `None` if it is shown nothing on purpose.
    pub fn badge(&self, id: &BackendId) -> Option<Arc<Badge>> {
        lock(&self.slots).get(id).map(|slot| slot.badge.clone())
    }

    /// Why a backend cannot be shown what it is to be shown, if so.
    pub fn fault(&self, id: &BackendId) -> Option<String> {
        self.badge(id)?.fault()
    }

    /// Whether every backend can be shown what it is to be shown.
    pub fn all_found(&self) -> bool {
        lock(&self.slots).values().all(|slot| slot.badge.fault().is_none())
    }

    /// Changes whenever something is found or lost.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}

/// Tells what was found for a backend.
struct Teller {
    backend: BackendId,
    badge: Arc<Badge>,
    changes: watch::Sender<u64>,
}

impl Teller {
    fn tell(&self, shown: Shown) {
        let backend = &self.backend;
        let fault = match &shown {
            Shown::Nothing(why) => Some(why.clone()),
            Shown::Header(_) | Shown::Aws(_) => None,
        };
        let had_none = self.badge.fault().is_some();
        if !self.badge.show(shown) {
            return;
        }
        match fault {
            Some(why) => tracing::warn!(%backend, "no credentials: {why}; it gets no requests"),
            None if had_none => tracing::info!(%backend, "its credentials are there"),
            None => tracing::debug!(%backend, "its credentials were renewed"),
        }
        self.changes.send_modify(|version| *version += 1);
    }

    /// Nothing was found, and what there was is of no use any more.
    fn lose(&self, why: &dyn fmt::Display) {
        let mut why = why.to_string();
        if let Some((end, _)) = why.char_indices().nth(REASON_LEN_MAX) {
            why.truncate(end);
        }
        self.tell(Shown::Nothing(why));
    }
}

/// `Bearer` and a token.
fn bearer(token: &str) -> Shown {
    match HeaderValue::from_str(&format!("Bearer {token}")) {
        Ok(mut value) => {
            value.set_sensitive(true);
            Shown::Header(value)
        }
        Err(_) => Shown::Nothing("the token holds characters that no header may have".into()),
    }
}

/// An error with all that caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::Secret, signals::fixture};

    #[tokio::test]
    async fn a_secret_is_shown_at_once_and_nowhere_else() {
        let board = CredentialBoard::default();
        let mut backend = Backend::clone(&fixture::backend("a", "http", "127.0.0.1", 1));
        backend.auth = Some(AuthSpec::Bearer(Secret::new("canary", "env X")));
        let backend = Arc::new(backend);
        board.reconcile(std::slice::from_ref(&backend));
        let badge = board.badge(&backend.id).unwrap();
        let Shown::Header(value) = &*badge.shown() else { panic!("nothing is shown") };
        assert_eq!(value, "Bearer canary");
        assert!(board.all_found() && board.fault(&backend.id).is_none());
        assert!(
            !format!("{board:?} {backend:?} {}", serde_json::to_string(&backend).unwrap()).contains("canary")
        );
        board.reconcile(&[]);
        assert!(board.badge(&backend.id).is_none());
    }

    #[test]
    fn a_reason_is_not_a_whole_page() {
        let (badge, changes) = (Arc::new(Badge::new()), watch::Sender::new(0));
        let teller = Teller { backend: "a".parse().unwrap(), badge: badge.clone(), changes };
        teller.lose(&"ä".repeat(1000));
        assert_eq!(badge.fault().unwrap().chars().count(), REASON_LEN_MAX);
        teller.tell(bearer("a\nb"));
        assert!(badge.fault().unwrap().contains("characters"));
    }
}
