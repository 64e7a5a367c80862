//! Sessions of browsers: a page cannot hold a bearer token without its scripts being able to read it, so the token is shown
//! once, and a cookie that no script can read stands for it.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, HeaderValue, header};
use subtle::ConstantTimeEq;

use super::guard::Caller;

/// How long a session lasts: a shift.
const SESSION_TIME: Duration = Duration::from_secs(12 * 3600);

/// Sessions at a time; the oldest gives way. Each needs a valid token, so nobody else can push them out.
const SESSIONS_MAX: usize = 256;

/// Name of the cookie.
const COOKIE: &str = "tradewind_session";

/// Random bytes of a session's name: nobody guesses 256 bits.
const NAME_BYTES: usize = 32;

#[derive(Debug)]
struct Session {
    name: String,
    caller: Caller,
    begun: Instant,
}

/// All sessions. In memory only: a restart signs everyone out.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<VecDeque<Session>>);

impl Sessions {
    /// Begins a session; gives its name. `None` when the system has no randomness.
    pub(super) fn begin(&self, caller: Caller) -> Option<String> {
        let name = random(NAME_BYTES)?;
        let mut sessions = self.sessions();
        if sessions.len() == SESSIONS_MAX {
            sessions.pop_front();
        }
        sessions.push_back(Session { name: name.clone(), caller, begun: Instant::now() });
        Some(name)
    }

    /// Whose session the cookie names.
    pub(super) fn caller(&self, headers: &HeaderMap) -> Option<Caller> {
        let presented = presented(headers)?;
        let mut found = None;
        for session in self.sessions().iter() {
            let equal: bool = session.name.as_bytes().ct_eq(presented.as_bytes()).into();
            if equal && session.begun.elapsed() < SESSION_TIME {
                found = Some(session.caller.clone());
            }
        }
        found
    }

    /// Ends the session that the cookie names.
    pub(super) fn end(&self, headers: &HeaderMap) {
        if let Some(presented) = presented(headers) {
            self.sessions().retain(|session| session.name != presented);
        }
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, VecDeque<Session>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The `Set-Cookie` header that gives the cookie, or takes it away where `name` is `None`. `SameSite=Strict`: it comes with no
/// request that another site causes; `HttpOnly`: no script reads it.
pub(super) fn cookie(name: Option<&str>, secure: bool) -> Option<HeaderValue> {
    let secure = if secure { "; Secure" } else { "" };
    let (value, seconds) = name.map_or(("", 0), |name| (name, SESSION_TIME.as_secs()));
    format!("{COOKIE}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}").parse().ok()
}

/// Random bytes as hexadecimal digits; `None` when the system has none.
pub(super) fn random(bytes: usize) -> Option<String> {
    let mut buffer = vec![0; bytes];
    rustls::crypto::ring::default_provider().secure_random.fill(&mut buffer).ok()?;
    Some(buffer.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn presented(headers: &HeaderMap) -> Option<&str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value).filter(|value| !value.is_empty())
}
