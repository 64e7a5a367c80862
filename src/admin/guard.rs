//! Who may do what.
//!
//! With tokens, a call needs one. Without tokens (loopback only) everyone on the machine is `local` and may do all; then
//! the danger is a web page in a browser on the same machine, so names that a page could have pointed at loopback (DNS
//! rebinding) and changes that come from another page's script are refused.

use std::net::IpAddr;

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{HeaderMap, StatusCode, header, request::Parts, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use subtle::ConstantTimeEq;

use super::problem::Problem;
use crate::config::{Role, Token};

/// Author of what is done without a token.
const LOCAL_AUTHOR: &str = "local";

/// Answered to anyone: they say nothing but "ok" or why not, and what asks them (a kubelet) has no token.
const OPEN_PATHS: [&str; 2] = ["/livez", "/readyz"];

/// Knows the tokens.
#[derive(Debug)]
pub(super) struct Guard {
    tokens: Vec<Token>,
}

/// Who calls.
#[derive(Clone, Debug)]
struct Caller {
    name: String,
    role: Role,
}

impl Guard {
    /// No tokens: everyone is `local` and may do all.
    pub(super) fn new(tokens: Vec<Token>) -> Guard {
        Guard { tokens }
    }

    fn admit(&self, request: &Request) -> Result<Caller, Problem> {
        let host = host_of(request)?;
        refuse_foreign_origin(request, &host)?;
        if self.tokens.is_empty() {
            refuse_foreign_name(&host)?;
            return Ok(Caller { name: LOCAL_AUTHOR.into(), role: Role::Admin });
        }
        self.identify(request.headers())
    }

    fn identify(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let Some(presented) = bearer(headers) else {
            return Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "no_token",
                "This call needs a token: send `Authorization: Bearer TOKEN` with one of those in `[admin] tokens`.",
            )
            .with_challenge("Bearer realm=\"tradewind\""));
        };
        // Every token is compared, and each in a time that does not depend on where the first difference is. That the
        // length of a token can be measured does not help to guess it.
        let mut found = None;
        for token in &self.tokens {
            let equal: bool = token.secret.expose().as_bytes().ct_eq(presented).into();
            if equal && !presented.is_empty() {
                found = Some(token);
            }
        }
        let token = found.ok_or_else(|| {
            Problem::new(
                StatusCode::UNAUTHORIZED,
                "unknown_token",
                "The token is none of those in `[admin] tokens`.",
            )
            .with_challenge("Bearer realm=\"tradewind\", error=\"invalid_token\"")
        })?;
        Ok(Caller { name: token.name.clone(), role: token.role })
    }
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
fn refuse_foreign_name(host: &Authority) -> Result<(), Problem> {
    let name = host.host();
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    if address.is_ok() || name.eq_ignore_ascii_case("localhost") {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "foreign_host",
        format!(
            "The `Host` header is `{name}`; without tokens only `localhost` and IP addresses are served, so that web \
             pages cannot reach this API. Use `http://localhost:PORT`, or configure `[admin] tokens`."
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
    Err(Problem::new(
        StatusCode::FORBIDDEN,
        "foreign_origin",
        "The request comes from a web page of another origin; such pages may not change anything here.",
    ))
}

/// Lets a request through with its caller attached, or refuses it.
pub(super) async fn check(
    State(guard): State<std::sync::Arc<Guard>>,
    mut request: Request,
    next: Next,
) -> Response {
    if OPEN_PATHS.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    match guard.admit(&request) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err(problem) => {
            tracing::debug!(method = %request.method(), path = request.uri().path(), ?problem, "admin API: refused");
            problem.into_response()
        }
    }
}

/// A caller that may set and end overrides, and send notices; holds the name.
pub(super) struct Operator(pub(super) String);

/// A caller that may see and reload the configuration; holds the name.
pub(super) struct Admin(pub(super) String);

impl<S: Sync> FromRequestParts<S> for Operator {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Operator, Problem> {
        require(parts, Role::Operator).map(Operator)
    }
}

impl<S: Sync> FromRequestParts<S> for Admin {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Admin, Problem> {
        require(parts, Role::Admin).map(Admin)
    }
}

fn word(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Operator => "operator",
        Role::Admin => "admin",
    }
}

fn require(parts: &Parts, needed: Role) -> Result<String, Problem> {
    // A request without a caller did not pass the guard, and may do nothing.
    let caller = parts.extensions.get::<Caller>();
    match caller {
        Some(caller) if caller.role >= needed => Ok(caller.name.clone()),
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
