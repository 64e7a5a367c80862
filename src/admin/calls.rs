//! The calls.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{FromRef, FromRequestParts, Path, Query, Request, State, rejection::QueryRejection},
    http::{HeaderValue, Method, StatusCode, Uri, header, request::Parts},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    Desk, body,
    dashboard::{self, Rendered},
    events::Events,
    guard::{self, Admin, Guard, Operator},
    problem::Problem,
};
use crate::{
    admin::views::{
        Explanation, NewOverride, NoticeError, NoticeReceipt, OverrideError, OverrideStatus, ReloadError,
        Status,
    },
    model::{BackendId, Override, RouteId, Timestamp},
    signals::notices::NewNotice,
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

type At = State<Arc<dyn Desk>>;

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
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/v1/status", get(status))
        .route("/v1/routes/{route}/explain", get(explain))
        .route("/v1/decisions", get(decisions))
        .route("/v1/prices", get(prices))
        .route("/v1/overrides", get(overrides).post(add_override))
        .route("/v1/overrides/{id}", get(one_override).delete(end_override))
        .route("/v1/notices", post(notice))
        .route("/v1/events", get(follow))
        .route("/v1/config", get(config))
        .route("/v1/reload", post(reload))
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

async fn livez() -> &'static str {
    "ok\n"
}

// Answers where it is: a probe must hear of trouble, not wait in a queue with it.
async fn readyz(State(desk): At) -> (StatusCode, String) {
    match desk.ready() {
        Ok(()) => (StatusCode::OK, "ok\n".into()),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
    }
}

async fn metrics(State(desk): At) -> Response {
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

async fn status(State(desk): At) -> Result<Json<Status>, Problem> {
    blocking(move || desk.status()).await.map(Json)
}

async fn explain(State(desk): At, Segment(route): Segment) -> Result<Json<Explanation>, Problem> {
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
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown_route",
        format!("There is no route `{route}`. Known: {known}."),
    )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DecisionsQuery {
    route: Option<String>,
    kind: Option<String>,
    since: Option<String>,
    until: Option<String>,
    limit: Option<String>,
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
                        "`kind`: `{text}` is none of decision, account, override, notice, price, health, config, state, process."
                    ))
                })
            })
            .transpose()?;
        Ok(JournalQuery { route, kind, since, until, limit })
    }
}

fn read_query<T>(query: Result<Query<T>, QueryRejection>) -> Result<T, Problem> {
    query.map(|Query(query)| query).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, "bad_query", format!("{}.", error.body_text()))
    })
}

async fn decisions(
    State(desk): At,
    query: Result<Query<DecisionsQuery>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let query = read_query(query)?.parse()?;
    let entries = blocking(move || desk.journal(&query))
        .await?
        .map_err(|error| Problem::new(StatusCode::SERVICE_UNAVAILABLE, "journal_unreadable", error))?;
    Ok(Json(json!({ "decisions": entries })))
}

async fn prices(State(desk): At) -> Result<Json<Value>, Problem> {
    let prices = blocking(move || desk.prices()).await?;
    Ok(Json(json!({ "prices": prices })))
}

async fn overrides(State(desk): At) -> Result<Json<Value>, Problem> {
    let overrides = blocking(move || desk.overrides()).await?;
    Ok(Json(json!({ "overrides": overrides })))
}

async fn one_override(State(desk): At, Segment(id): Segment) -> Result<Json<OverrideStatus>, Problem> {
    let overrides = blocking(move || desk.overrides()).await?;
    overrides.into_iter().find(|o| o.item.id == id).map(Json).ok_or_else(|| unknown_override(&id))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddQuery {
    dry_run: Option<String>,
}

async fn add_override(
    State(desk): At,
    Operator(author): Operator,
    query: Result<Query<AddQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let dry_run = match read_query(query)?.dry_run.as_deref() {
        None | Some("false") => false,
        Some("true") => true,
        Some(text) => {
            let detail = format!("`dry_run`: `{text}` is neither `true` nor `false`.");
            return Err(Problem::new(StatusCode::BAD_REQUEST, "bad_query", detail));
        }
    };
    let new: NewOverride = body::read_json(request).await?;
    if dry_run {
        return Ok(Json(blocking(move || desk.preview(&new, &author)).await??).into_response());
    }
    let stored = blocking(move || desk.add_override(new, &author)).await??;
    let location = format!("/v1/overrides/{}", stored.item.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(stored)).into_response())
}

async fn end_override(
    State(desk): At,
    Operator(author): Operator,
    Segment(id): Segment,
) -> Result<Json<Override>, Problem> {
    let wanted = id.clone();
    let ended = blocking(move || desk.end_override(&wanted, &author)).await??;
    ended.map(Json).ok_or_else(|| unknown_override(&id))
}

fn unknown_override(id: &str) -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "unknown_override",
        format!(
            "No override `{id}` holds now: it has ended, or never was. `GET /v1/overrides` lists those that hold."
        ),
    )
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NoticeQuery {
    backend: Option<String>,
}

async fn notice(
    State(desk): At,
    Operator(author): Operator,
    query: Result<Query<NoticeQuery>, QueryRejection>,
    request: Request,
) -> Result<(StatusCode, Json<NoticeReceipt>), Problem> {
    let addressed = read_query(query)?.backend.filter(|name| !name.is_empty());
    // AWS Node Termination Handler writes the description of an event with its line break into its template.
    let new: NewNotice = body::read_json_unescaped(request).await?;
    let backend = backend_of(addressed, &new)?;
    let receipt = blocking(move || desk.notice(backend, new, &author)).await??;
    Ok((StatusCode::ACCEPTED, Json(receipt)))
}

/// Whose nodes a notice is about: by the address it was sent to, or by itself.
fn backend_of(addressed: Option<String>, new: &NewNotice) -> Result<BackendId, Problem> {
    let addressed = addressed.map(|name| name.parse::<BackendId>()).transpose().map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, "bad_query", format!("`backend`: {error}."))
    })?;
    match (addressed, &new.backend) {
        (Some(addressed), Some(named)) if addressed != *named => Err(invalid_notice(format!(
            "The body is about the backend `{named}`, the address has `backend={addressed}`; they must agree."
        ))),
        (Some(addressed), _) => Ok(addressed),
        (None, Some(named)) => Ok(named.clone()),
        (None, None) => Err(invalid_notice(
            "It does not say whose nodes go: send `backend` in the body, or to `/v1/notices?backend=NAME`.",
        )),
    }
}

fn invalid_notice(detail: impl Into<String>) -> Problem {
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_notice", detail)
}

async fn follow(State(app): State<App>) -> Response {
    app.events.stream(app.desk.revisions())
}

async fn config(State(desk): At, Admin(_): Admin) -> Result<Json<Value>, Problem> {
    blocking(move || desk.config()).await.map(Json)
}

async fn reload(State(desk): At, Admin(author): Admin) -> Result<Json<Value>, Problem> {
    let generation = blocking(move || desk.reload(&author)).await??;
    Ok(Json(json!({ "generation": generation })))
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

impl From<OverrideError> for Problem {
    fn from(error: OverrideError) -> Problem {
        let (status, code) = match &error {
            OverrideError::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_override"),
            OverrideError::NoSpace(_) => (StatusCode::INSUFFICIENT_STORAGE, "no_space"),
            OverrideError::NotStored(_) => (StatusCode::SERVICE_UNAVAILABLE, "not_stored"),
        };
        Problem::new(status, code, error.to_string())
    }
}

impl From<NoticeError> for Problem {
    fn from(error: NoticeError) -> Problem {
        match error {
            NoticeError::Invalid(why) => invalid_notice(why),
            NoticeError::TooMany(why) => Problem::new(StatusCode::TOO_MANY_REQUESTS, "too_many_notices", why),
        }
    }
}

impl From<ReloadError> for Problem {
    fn from(error: ReloadError) -> Problem {
        match error {
            ReloadError::Invalid(faults) => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid_config",
                match faults.omitted {
                    0 => "The configuration has faults; the running one stays in force.".to_owned(),
                    more => format!(
                        "The configuration has faults; the running one stays in force. The first {} are listed, {more} \
                         are not.",
                        faults.faults.len()
                    ),
                },
            )
            .with_faults(json!(faults.faults)),
            ReloadError::NeedsRestart(reason) => Problem::new(StatusCode::CONFLICT, "needs_restart", reason),
        }
    }
}
