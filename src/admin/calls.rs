//! The calls that only read, and what all calls share.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{FromRef, FromRequestParts, Path, Query, Request, State, rejection::QueryRejection},
    http::{HeaderValue, Method, StatusCode, Uri, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Desk, changes,
    dashboard::{self, Rendered},
    events::Events,
    guard::{self, Admin, Guard},
    openapi,
    problem::Problem,
};
use crate::{
    admin::views::{Explanation, OverrideStatus, Status},
    config::closest,
    model::{RouteId, Timestamp},
    signals::prices::PriceReport,
    store::journal::{JournalQuery, QUERY_ENTRIES_MAX},
};

/// A call that takes longer is answered with 503. Everything but the journal and the disk answers from memory.
const CALL_TIME_MAX: Duration = Duration::from_secs(30);

/// Entries of the journal in an answer when the caller names no number.
const DECISIONS_DEFAULT: usize = 100;

/// Names in a "known are" sentence at most.
const NAMES_SHOWN_MAX: usize = 10;

/// What the calls share.
#[derive(Clone)]
pub(super) struct App {
    pub(super) desk: Arc<dyn Desk>,
    pub(super) guard: Arc<Guard>,
    events: Events,
    pub(super) rendered: Arc<Rendered>,
}

impl FromRef<App> for Arc<dyn Desk> {
    fn from_ref(app: &App) -> Arc<dyn Desk> {
        app.desk.clone()
    }
}

pub(super) type At = State<Arc<dyn Desk>>;

/// The `{...}` of a path.
pub(super) struct Segment(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Segment {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Segment, Problem> {
        // What is not UTF-8 when decoded names nothing.
        match Path::<String>::from_request_parts(parts, state).await {
            Ok(Path(text)) => Ok(Segment(text)),
            Err(_) => Err(unknown_path(parts.uri.clone()).await),
        }
    }
}

/// All calls behind the guard, the time limit and the headers that every answer has.
pub(super) fn router(desk: Arc<dyn Desk>, guard: Guard, events: Events) -> Router {
    let guard = Arc::new(guard);
    let app = App { desk, guard: guard.clone(), events, rendered: Arc::default() };
    Router::new()
        .merge(dashboard::router())
        .route("/openapi.json", get(openapi::serve))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status))
        .route("/v1/routes/{route}/explain", get(explain))
        .route("/v1/decisions", get(decisions))
        .route("/v1/prices", get(prices))
        .route("/v1/overrides", get(overrides).post(changes::add_override))
        .route("/v1/overrides/{id}", get(one_override).delete(changes::end_override))
        .route("/v1/notices", post(changes::notice))
        .route("/v1/events", get(follow))
        .route("/v1/config", get(config))
        .route("/v1/reload", post(changes::reload))
        .fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(middleware::from_fn(limit_time))
        .layer(middleware::from_fn_with_state(guard, guard::check))
        .layer(middleware::map_response(add_headers))
        .with_state(app)
}

async fn limit_time(request: Request, next: Next) -> Response {
    tokio::time::timeout(CALL_TIME_MAX, next.run(request)).await.unwrap_or_else(|_| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "too_slow",
            format!(
                "There was no answer within {} s. A change that was asked for may still take effect: look at \
                 `GET /v1/overrides` or `GET /v1/status` before trying again.",
                CALL_TIME_MAX.as_secs()
            ),
        )
        .into_response()
    })
}

async fn add_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // A page has a policy of its own.
    headers
        .entry(header::CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    // Not `no-referrer`: browsers then hide the origin of a form from us too.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

/// Whether the process lives
#[utoipa::path(
    get, path = "/livez", tag = "health",
    responses(
        (status = 200, description = "It does", body = String, content_type = "text/plain")
    )
)]
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// Whether traffic should be sent here
#[utoipa::path(
    get, path = "/readyz", tag = "health",
    responses(
        (status = 200, description = "It should", body = String, content_type = "text/plain"),
        (status = 503, description = "Why not", body = String, content_type = "text/plain")
    )
)]
pub(super) async fn readyz(State(desk): At) -> (StatusCode, String) {
    // Asked where it is: a probe must hear of trouble, not wait in a queue with it.
    match desk.ready() {
        Ok(()) => (StatusCode::OK, "ok\n".into()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

/// Metrics
#[utoipa::path(
    get, path = "/metrics", tag = "observe",
    responses(
        (status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text")
    )
)]
pub(super) async fn metrics(State(desk): At) -> Response {
    let text = match blocking(move || desk.metrics()).await {
        Ok(text) => text,
        Err(problem) => return problem.into_response(),
    };
    // OpenMetrics demands this last line and the older format forbids nothing; types of counters are only understood
    // when the format is named right.
    let format = if text.ends_with("# EOF\n") {
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    } else {
        "text/plain; version=0.0.4; charset=utf-8"
    };
    ([(header::CONTENT_TYPE, format)], text).into_response()
}

/// Routes, backends, shares, health, latency, costs
#[utoipa::path(
    get, path = "/v1/status", tag = "observe",
    responses(
        (status = 200, description = "As the last decisions left them", body = Status)
    )
)]
pub(super) async fn status(State(desk): At) -> Result<Json<Status>, Problem> {
    blocking(move || desk.status()).await.map(Json)
}

/// The last decision of a route, term by term
#[utoipa::path(
    get, path = "/v1/routes/{route}/explain", tag = "observe",
    params(("route" = String, Path)),
    responses(
        (status = 200, description = "It", body = Explanation),
        (status = 404, description = "`unknown_route`", body = super::problem::Document, content_type = "application/problem+json")
    )
)]
pub(super) async fn explain(State(desk): At, Segment(route): Segment) -> Result<Json<Explanation>, Problem> {
    blocking(move || desk.explain(&route).ok_or_else(|| unknown_route(&route, &desk.status())))
        .await?
        .map(Json)
}

fn unknown_route(route: &str, status: &Status) -> Problem {
    let routes = &status.routes;
    let mut known: Vec<&str> = routes.iter().map(|r| r.route.as_str()).take(NAMES_SHOWN_MAX).collect();
    if routes.len() > known.len() {
        known.push("...");
    }
    let known = if known.is_empty() { "none".into() } else { known.join(", ") };
    let meant = match closest(route, routes.iter().map(|r| r.route.as_str())) {
        Some(meant) => format!(" Did you mean `{meant}`?"),
        None => String::new(),
    };
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown_route",
        format!("There is no route `{route}`.{meant} Known: {known}."),
    )
}

/// What `GET /v1/decisions` may be asked. As text, so that what is wrong is said in our words.
#[derive(Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DecisionsQuery {
    /// Only entries of this route.
    route: Option<String>,
    /// Only entries of this kind: `decision`, `account`, `override`, `notice`, `price`, `health`, `config`, `state`, `process`, `audit`.
    kind: Option<String>,
    /// Only entries of this time or later, RFC 3339.
    #[param(format = DateTime)]
    since: Option<String>,
    /// Only entries of this time or earlier, RFC 3339.
    #[param(format = DateTime)]
    until: Option<String>,
    /// At most so many: 100 unless told, 1000 at most.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 1000)]
    limit: Option<String>,
}

/// What `GET /v1/decisions` answers.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Decisions {
    /// Entries of the journal, newest first: `at`, `kind`, for most `route`, and what belongs to the kind.
    #[schema(value_type = Vec<Object>)]
    decisions: Vec<Value>,
}

/// What `GET /v1/prices` answers.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Prices {
    /// Every price in use, or missing.
    prices: Vec<PriceReport>,
}

/// What `GET /v1/overrides` answers.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct OverridesInForce {
    /// Those that hold now.
    overrides: Vec<OverrideStatus>,
}

/// What `GET /v1/config` answers.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "the desk writes it as JSON; this says what is in there")]
pub(super) struct ConfigInForce {
    /// Counts successful loads of the configuration, from 1.
    generation: u64,
    /// As the schema of the configuration has it, with every default; secrets are left out.
    #[schema(value_type = Object)]
    config: Value,
}

impl DecisionsQuery {
    fn parse(self) -> Result<JournalQuery, Problem> {
        let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST, "bad_query", detail);
        // `route=` without a value, as a form would send it, is the same as no `route`.
        let given = |value: Option<String>| value.filter(|text| !text.is_empty());
        let route = given(self.route)
            .map(|name| name.parse::<RouteId>().map_err(|error| bad(format!("`route`: {error}."))))
            .transpose()?;
        let time = |name: &str, text: String| {
            text.parse::<Timestamp>().map_err(|_| {
                bad(format!(
                    "`{name}`: `{text}` is not a time; expected RFC 3339 such as `2026-03-02T10:00:00Z` (a `+` must be \
                     written `%2B`)."
                ))
            })
        };
        let since = given(self.since).map(|text| time("since", text)).transpose()?;
        let until = given(self.until).map(|text| time("until", text)).transpose()?;
        let limit = match given(self.limit) {
            None => DECISIONS_DEFAULT,
            Some(text) => {
                text.parse().ok().filter(|limit| (1..=QUERY_ENTRIES_MAX).contains(limit)).ok_or_else(
                    || bad(format!("`limit`: `{text}` is not a number from 1 to {QUERY_ENTRIES_MAX}.")),
                )?
            }
        };
        let kind = given(self.kind)
            .map(|text| {
                serde_json::from_value(Value::from(text.clone())).map_err(|_| {
                    bad(format!(
                        "`kind`: `{text}` is none of decision, account, override, notice, price, health, config, state, process, audit."
                    ))
                })
            })
            .transpose()?;
        Ok(JournalQuery { route, kind, since, until, limit })
    }
}

pub(super) fn read_query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    query.map(|Query(query)| query).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, "bad_query", format!("{}.", error.body_text()))
    })
}

/// The journal, newest first
#[utoipa::path(
    get, path = "/v1/decisions", tag = "observe",
    params(DecisionsQuery),
    responses(
        (status = 200, description = "Its entries", body = Decisions),
        (status = 404, description = "`unknown_route`: neither the configuration nor the journal knows it", body = super::problem::Document, content_type = "application/problem+json")
    )
)]
pub(super) async fn decisions(
    State(desk): At,
    query: Result<Query<DecisionsQuery>, QueryRejection>,
) -> Result<Json<Decisions>, Problem> {
    let query = read_query(query)?.parse()?;
    let decisions = blocking(move || journaled(&*desk, &query)).await??;
    Ok(Json(Decisions { decisions }))
}

/// Entries of the journal. None of a route is an answer only where the route is configured, or the journal has it from before.
fn journaled(desk: &dyn Desk, query: &JournalQuery) -> Result<Vec<Value>, Problem> {
    let read = |query: &JournalQuery| {
        desk.journal(query)
            .map_err(|error| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "journal_unreadable", error))
    };
    let entries = read(query)?;
    let Some(route) = query.route.as_ref().filter(|_| entries.is_empty()) else { return Ok(entries) };
    let status = desk.status();
    let ever = JournalQuery { route: Some(route.clone()), kind: None, since: None, until: None, limit: 1 };
    if status.routes.iter().any(|known| known.route == *route) || !read(&ever)?.is_empty() {
        return Ok(entries);
    }
    Err(unknown_route(route.as_str(), &status))
}

/// Every price in use
#[utoipa::path(
    get, path = "/v1/prices", tag = "observe",
    responses(
        (status = 200, description = "Them", body = Prices)
    )
)]
pub(super) async fn prices(State(desk): At) -> Result<Json<Prices>, Problem> {
    let prices = blocking(move || desk.prices()).await?;
    Ok(Json(Prices { prices }))
}

/// Overrides that hold now
#[utoipa::path(
    get, path = "/v1/overrides", tag = "overrides",
    responses(
        (status = 200, description = "Them", body = OverridesInForce)
    )
)]
pub(super) async fn overrides(State(desk): At) -> Result<Json<OverridesInForce>, Problem> {
    let overrides = blocking(move || desk.overrides()).await?;
    Ok(Json(OverridesInForce { overrides }))
}

/// One override that holds now
#[utoipa::path(
    get, path = "/v1/overrides/{id}", tag = "overrides",
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "It", body = OverrideStatus),
        (status = 404, description = "It does not hold: `unknown_override`", body = super::problem::Document, content_type = "application/problem+json")
    )
)]
pub(super) async fn one_override(
    State(desk): At,
    Segment(id): Segment,
) -> Result<Json<OverrideStatus>, Problem> {
    let overrides = blocking(move || desk.overrides()).await?;
    overrides.into_iter().find(|o| o.item.id == id).map(Json).ok_or_else(|| unknown_override(&id))
}

pub(super) fn unknown_override(id: &str) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown_override",
        format!(
            "No override `{id}` holds now: it has ended, or never was. `GET /v1/overrides` lists those that hold."
        ),
    )
}

/// Server-sent events
#[utoipa::path(
    get, path = "/v1/events", tag = "observe",
    responses(
        (status = 200, description = "An event `picture` with a `revision` whenever something else is to be seen, at most once a second", body = String, content_type = "text/event-stream")
    )
)]
pub(super) async fn follow(State(app): State<App>) -> Response {
    app.events.stream()
}

/// The configuration in force, without secrets
#[utoipa::path(
    get, path = "/v1/config", tag = "configuration",
    responses(
        (status = 200, description = "It", body = ConfigInForce, headers(("etag" = String, description = "Its generation, for `If-Match`")))
    )
)]
pub(super) async fn config(State(desk): At, Admin(_): Admin) -> Result<Response, Problem> {
    let config = blocking(move || desk.config()).await?;
    Ok(([(header::ETAG, format!("\"{}\"", config["generation"]))], Json(config)).into_response())
}

async fn unknown_path(uri: Uri) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown_path",
        format!("There is nothing at `{}`. `GET /openapi.json` describes the calls.", uri.path()),
    )
}

async fn unknown_method(method: Method, uri: Uri) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "unknown_method",
        format!("`{}` does not take {method}; the `Allow` header has what it takes.", uri.path()),
    )
}

/// Asks the desk outside the runtime's threads: it may wait for the disk, or for a lock that the control loop holds.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        tracing::error!(%error, "admin API: a call failed");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "The call failed; the log has the cause.")
    })
}
