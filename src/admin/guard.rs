//! Who may do what.
//!
//! With tokens, a call needs one. Without tokens (loopback only) everyone on the machine is `local` and may do all; then
//! the danger is a web page in a browser on the same machine, so names that a page could have pointed at loopback (DNS
//! rebinding) and changes that come from another page's script are refused.
//!
//! A browser shows its token once, for a session ([`super::session`]); a change under a session must also say that it comes
//! from a page of ours.

use std::{net::IpAddr, sync::Arc, time::Instant};

use arc_swap::ArcSwap;
use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use subtle::ConstantTimeEq;

use super::{
    Desk, Refusal,
    attempts::Attempts,
    dashboard,
    problem::{Code, Problem},
    session::{self, Sessions},
};
use crate::{
    config::{Role, Token},
    model::{Digest, Timestamp},
};

/// Author of what is done without a token.
const LOCAL_AUTHOR: &str = "local";

/// Answered to anyone: they say nothing but "ok" or why not, and what asks them (a kubelet) has no token.
/// The description of the API is the same everywhere and says nothing of this installation.
const OPEN_PATHS: [&str; 3] = ["/livez", "/readyz", "/openapi.json"];

/// Where a token is shown for a session: whoever calls it has none yet.
const SIGN_IN_PATH: &str = "/session";

/// What a person opens: who may not see them gets a page to sign in, not JSON.
const PAGES: [&str; 2] = ["/", "/decisions"];

/// What is written down of refusals. That someone shows no token is how every visit of the dashboard begins.
const AUDITED: [&str; 6] =
    ["unknown_token", "expired_token", "too_many_attempts", "role", "foreign_host", "foreign_origin"];

/// Knows the tokens, and the sessions that were begun with them.
pub(super) struct Guard {
    tokens: Arc<ArcSwap<Vec<Token>>>,
    /// Names by which the API is reached; empty for all where there are tokens.
    hosts: Vec<String>,
    desk: Arc<dyn Desk>,
    attempts: Attempts,
    sessions: Sessions,
    /// Whether the API is served over TLS.
    secure: bool,
}

/// Who calls.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) name: String,
    role: Role,
    /// Whether by a session, which can be ended.
    pub(super) by_session: bool,
    /// The token that was shown; `None` where none is needed.
    digest: Option<Digest>,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Peer {
    /// From an address.
    Address(IpAddr),
    /// Over the Unix socket, which only this user can open.
    Socket,
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Peer::Address(address) => address.fmt(f),
            Peer::Socket => f.write_str("the socket"),
        }
    }
}

impl Caller {
    /// Whether it may set and end overrides.
    pub(super) fn may_operate(&self) -> bool {
        self.role >= Role::Operator
    }
}

impl Guard {
    /// No tokens: everyone is `local` and may do all.
    pub(super) fn new(
        tokens: Arc<ArcSwap<Vec<Token>>>,
        hosts: Vec<String>,
        secure: bool,
        desk: Arc<dyn Desk>,
    ) -> Guard {
        Guard { tokens, hosts, desk, attempts: Attempts::default(), sessions: Sessions::default(), secure }
    }

    /// Begins a session for who shows this token; gives the header that sets the cookie.
    pub(super) fn sign_in(&self, token: &str, from: Peer) -> Result<HeaderValue, Problem> {
        let caller = self.caller_of(token.trim().as_bytes(), from)?;
        let begun = self.sessions.begin(Caller { by_session: true, ..caller });
        begun.and_then(|name| session::cookie(Some(&name), self.secure)).ok_or_else(|| {
            Problem::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "The session could not be begun: the system gives no random numbers.",
            )
        })
    }

    /// Ends the session of a request; gives the header that takes the cookie away.
    pub(super) fn sign_out(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        self.sessions.end(headers);
        session::cookie(None, self.secure)
    }

    fn admit(&self, request: &Request, from: Peer) -> Result<Caller, Problem> {
        if matches!(from, Peer::Socket) {
            return Ok(local());
        }
        let host = host_of(request)?;
        refuse_foreign_origin(request, &host)?;
        let tokens = self.tokens.load();
        if tokens.is_empty() || !self.hosts.is_empty() {
            refuse_foreign_name(&host, &self.hosts)?;
        }
        if tokens.is_empty() {
            return Ok(local());
        }
        if bearer(request.headers()).is_none()
            && let Some(caller) = self.sessions.caller(request.headers())
            && let Some(caller) = still_good(&tokens, caller)
        {
            return if request.method().is_safe() || says_where_from(request.headers()) {
                Ok(caller)
            } else {
                Err(from_elsewhere())
            };
        }
        let Some(presented) = bearer(request.headers()) else {
            return Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "no_token",
                "This call needs a token: send `Authorization: Bearer TOKEN` with one of those in `[admin] tokens`.",
            )
            .with_challenge("Bearer realm=\"tradewind\""));
        };
        self.caller_of(presented, from)
    }

    fn caller_of(&self, presented: &[u8], from: Peer) -> Result<Caller, Problem> {
        let address = match from {
            Peer::Address(address) => Some(address),
            Peer::Socket => None,
        };
        let now = Instant::now();
        if let Some(wait) = address.and_then(|address| self.attempts.wait(address, now)) {
            let seconds = wait.as_secs() + 1;
            let detail = format!(
                "Too many wrong tokens came from {from}: no token is looked at for {seconds} s, not even a right one."
            );
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_attempts", detail)
                .with_retry_after(seconds));
        }
        // Digests are compared, every one, and each in a time that does not depend on where the first difference is.
        let shown = Digest::of(presented);
        let mut found = None;
        let tokens = self.tokens.load();
        for token in tokens.iter() {
            let equal: bool = token.digest.bytes().ct_eq(shown.bytes()).into();
            if equal && !presented.is_empty() {
                found = Some(token);
            }
        }
        let refused = |code, detail: String| {
            if let Some(address) = address {
                self.attempts.failed(address, now);
            }
            Problem::new(StatusCode::UNAUTHORIZED, code, detail)
                .with_challenge("Bearer realm=\"tradewind\", error=\"invalid_token\"")
        };
        let Some(token) = found else {
            return Err(refused("unknown_token", "The token is none of those in `[admin] tokens`.".into()));
        };
        if let Some(at) = token.expires.filter(|at| *at <= Timestamp::now()) {
            return Err(refused("expired_token", format!("The token `{}` was good until {at}.", token.name)));
        }
        Ok(Caller {
            name: token.name.clone(),
            role: token.role,
            by_session: false,
            digest: Some(token.digest),
        })
    }

    /// Writes down what was refused, beside the answer.
    fn audit(&self, refusal: Refusal) {
        let desk = self.desk.clone();
        drop(tokio::task::spawn_blocking(move || desk.note_refusal(refusal)));
    }
}

/// Who needs no token.
fn local() -> Caller {
    Caller { name: LOCAL_AUTHOR.into(), role: Role::Admin, by_session: false, digest: None }
}

/// A session is good for as long as its token is there, with what the token may do now.
fn still_good(tokens: &[Token], caller: Caller) -> Option<Caller> {
    let token = tokens.iter().find(|token| Some(token.digest) == caller.digest)?;
    let expired = token.expires.is_some_and(|at| at <= Timestamp::now());
    (!expired).then(|| Caller { name: token.name.clone(), role: token.role, ..caller })
}

/// The token in `Authorization: Bearer TOKEN`.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then(|| token.trim_ascii())
}

/// The one host that the request is for.
fn host_of(request: &Request) -> Result<Authority, Problem> {
    if let Some(authority) = request.uri().authority() {
        return Ok(authority.clone());
    }
    let mut values = request.headers().get_all(header::HOST).iter();
    match (values.next(), values.next()) {
        (Some(value), None) => Authority::try_from(value.as_bytes()).ok(),
        _ => None,
    }
    .ok_or_else(|| {
        Problem::new(StatusCode::BAD_REQUEST, "bad_host", "The request must have one valid `Host` header.")
    })
}

/// A page whose own name was pointed at loopback sends that name.
fn refuse_foreign_name(host: &Authority, own: &[String]) -> Result<(), Problem> {
    let name = host.host();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    let known = own.iter().any(|own| own.eq_ignore_ascii_case(name));
    if address.is_ok() || known || name.eq_ignore_ascii_case("localhost") {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "foreign_host",
        format!(
            "The `Host` header is `{name}`; only `localhost`, IP addresses and the names in `[admin] hosts` are served, so that \
             web pages cannot reach this API. Use `http://localhost:PORT`, or add the name there."
        ),
    ))
}

/// A script of another page may not change anything. (It cannot read answers either: no CORS header is ever sent.)
fn refuse_foreign_origin(request: &Request, host: &Authority) -> Result<(), Problem> {
    if request.method().is_safe() {
        return Ok(());
    }
    let header = |name| request.headers().get(name).map(|value| value.to_str().unwrap_or(""));
    let foreign_origin = header("origin").is_some_and(|origin| {
        let authority = origin.split_once("://").map(|(_, authority)| authority);
        !authority.is_some_and(|authority| authority.eq_ignore_ascii_case(host.as_str()))
    });
    let foreign_site = header("sec-fetch-site").is_some_and(|site| !matches!(site, "same-origin" | "none"));
    if !foreign_origin && !foreign_site {
        return Ok(());
    }
    Err(from_elsewhere())
}

fn from_elsewhere() -> Problem {
    Problem::new(
        StatusCode::FORBIDDEN,
        "foreign_origin",
        "The request comes from a web page of another origin; such pages may not change anything here.",
    )
}

/// Whether a browser says where the request comes from; that it is from here was looked at before. A cookie comes with
/// whatever a browser sends, so that a silent one is not enough for a change.
fn says_where_from(headers: &HeaderMap) -> bool {
    headers.contains_key("origin") || headers.contains_key("sec-fetch-site")
}

/// Where a request comes from. One that did not come by a connection of ours is nobody's.
pub(super) fn peer_of(request: &Request) -> Peer {
    request.extensions().get::<Peer>().copied().unwrap_or(Peer::Address([0, 0, 0, 0].into()))
}

/// Lets a request through with its caller attached, or refuses it; writes down what was refused.
pub(super) async fn check(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    let from = peer_of(&request);
    let asked = format!("{} {}", request.method(), request.uri().path());
    let mut name = None;
    let response = if OPEN_PATHS.contains(&request.uri().path()) {
        return next.run(request).await;
    } else if request.uri().path() == SIGN_IN_PATH {
        let named = |host: Authority| match guard.hosts.is_empty() {
            true => Ok(host),
            false => refuse_foreign_name(&host, &guard.hosts).map(|()| host),
        };
        let admitted =
            host_of(&request).and_then(named).and_then(|host| refuse_foreign_origin(&request, &host));
        match admitted {
            Ok(()) => next.run(request).await,
            Err(problem) => problem.into_response(),
        }
    } else {
        let is_page = request.method().is_safe() && PAGES.contains(&request.uri().path());
        match guard.admit(&request, from) {
            Err(problem) if is_page && problem.is_unauthorized() => dashboard::sign_in_page(None),
            Ok(caller) => {
                name = Some(caller.name.clone());
                request.extensions_mut().insert(caller);
                next.run(request).await
            }
            Err(problem) => problem.into_response(),
        }
    };
    if let Some(Code(code)) = response.extensions().get().filter(|Code(code)| AUDITED.contains(code)) {
        let status = response.status().as_u16();
        guard.audit(Refusal { who: name, what: asked, code, status, from: from.to_string() });
    }
    response
}

/// A caller that may set and end overrides, and send notices; holds the name.
pub(super) struct Operator(pub(super) String);

/// A caller that may see and reload the configuration; holds the name.
pub(super) struct Admin(pub(super) String);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Caller, Problem> {
        require(parts, Role::Viewer)
    }
}

impl<S: Sync> FromRequestParts<S> for Operator {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Operator, Problem> {
        require(parts, Role::Operator).map(|caller| Operator(caller.name))
    }
}

impl<S: Sync> FromRequestParts<S> for Admin {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Admin, Problem> {
        require(parts, Role::Admin).map(|caller| Admin(caller.name))
    }
}

fn word(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Operator => "operator",
        Role::Admin => "admin",
    }
}

fn require(parts: &Parts, needed: Role) -> Result<Caller, Problem> {
    // A request without a caller did not pass the guard, and may do nothing.
    let caller = parts.extensions.get::<Caller>();
    match caller {
        Some(caller) if caller.role >= needed => Ok(caller.clone()),
        _ => Err(Problem::new(
            StatusCode::FORBIDDEN,
            "role",
            format!(
                "This call needs the role `{}`; the token `{}` has `{}`.",
                word(needed),
                caller.map_or("", |c| &c.name),
                caller.map_or("none", |c| word(c.role)),
            ),
        )),
    }
}
