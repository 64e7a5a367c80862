//! The calls that change something. Each has an author, and is in the journal.

use axum::{
    Json,
    extract::{Query, Request, State, rejection::QueryRejection},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    board::Preview,
    body,
    calls::{At, Segment, blocking, read_query, unknown_override},
    guard::{Admin, Operator},
    problem::Problem,
    rehearsal::{self, Candidate, Rehearsal},
    views::{NewOverride, NoticeError, NoticeReceipt, OverrideError, OverrideStatus, ReloadError},
};
use crate::{
    model::{BackendId, Override},
    signals::notices::NewNotice,
};

/// Longest key of a request that may be sent again.
const KEY_LEN_MAX: usize = 128;

/// A configuration that is in force.
#[derive(Serialize, utoipa::ToSchema)]
pub(super) struct Generation {
    /// Counts successful loads of the configuration, from 1.
    generation: u64,
}

/// What `POST /v1/reload` answers.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub(super) enum ReloadAnswer {
    /// It was done.
    Done(Generation),
    /// It was only asked about.
    Rehearsed(Rehearsal),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeQuery {
    dry_run: Option<String>,
}

impl ChangeQuery {
    fn is_dry_run(query: Result<Query<ChangeQuery>, QueryRejection>) -> Result<bool, Problem> {
        match read_query(query)?.dry_run.as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(text) => {
                let detail = format!("`dry_run`: `{text}` is neither `true` nor `false`.");
                Err(Problem::new(StatusCode::BAD_REQUEST, "bad_query", detail))
            }
        }
    }
}

/// Set an override
#[utoipa::path(
    post, path = "/v1/overrides", tag = "overrides",
    params(
        ("dry_run" = Option<bool>, Query, description = "Only say what would follow; nothing is stored"),
        ("Idempotency-Key" = Option<String>, Header, description = "1 to 128 visible ASCII characters. As long as the override holds, the same key of the same author gives the same override"),
    ),
    request_body = NewOverride,
    responses(
        (status = 200, description = "What would follow: a dry run", body = Preview),
        (status = 201, description = "It is on disk, and holds", body = OverrideStatus, headers(("location" = String))),
        (status = 507, description = "The disk is full; nothing has changed: `no_space`", body = super::problem::Document, content_type = "application/problem+json"),
    )
)]
pub(super) async fn add_override(
    State(desk): At,
    Operator(author): Operator,
    query: Result<Query<ChangeQuery>, QueryRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let dry_run = ChangeQuery::is_dry_run(query)?;
    let key = idempotency_key(request.headers())?;
    let new: NewOverride = body::read_json(request).await?;
    if dry_run {
        return Ok(Json(blocking(move || desk.preview(&new, &author)).await??).into_response());
    }
    let stored = blocking(move || desk.add_override(new, &author, key.as_deref())).await??;
    let location = format!("/v1/overrides/{}", stored.item.id);
    Ok((StatusCode::CREATED, [(header::LOCATION, location)], Json(stored)).into_response())
}

/// What the caller calls its request, so that it can send it again without doing it twice.
fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().ok().filter(|key| (1..=KEY_LEN_MAX).contains(&key.len()));
    key.map(|key| Some(key.to_owned())).ok_or_else(|| {
        let detail = format!("`Idempotency-Key`: expected 1 to {KEY_LEN_MAX} visible ASCII characters.");
        Problem::new(StatusCode::BAD_REQUEST, "bad_idempotency_key", detail)
    })
}

/// The generation that the caller has seen, by `If-Match`.
fn seen(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    let tag = text.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
    tag.and_then(|tag| tag.parse().ok()).map(Some).ok_or_else(|| {
        let detail = "`If-Match`: expected one ETag, as `GET /v1/config` gives it: a number in quotes.";
        Problem::new(StatusCode::BAD_REQUEST, "bad_if_match", detail)
    })
}

/// End an override before its time
#[utoipa::path(
    delete, path = "/v1/overrides/{id}", tag = "overrides",
    params(("id" = String, Path)),
    responses(
        (status = 200, description = "The override that was ended", body = Override),
        (status = 404, description = "It does not hold: `unknown_override`", body = super::problem::Document, content_type = "application/problem+json"),
        (status = 507, description = "The disk is full; it still holds: `no_space`", body = super::problem::Document, content_type = "application/problem+json"),
    )
)]
pub(super) async fn end_override(
    State(desk): At,
    Operator(author): Operator,
    Segment(id): Segment,
) -> Result<Json<Override>, Problem> {
    let wanted = id.clone();
    let ended = blocking(move || desk.end_override(&wanted, &author)).await??;
    ended.map(Json).ok_or_else(|| unknown_override(&id))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoticeQuery {
    backend: Option<String>,
}

/// Say that nodes of a backend go away
#[utoipa::path(
    post, path = "/v1/notices", tag = "notices",
    params(("backend" = Option<BackendId>, Query, description = "Whose nodes, where the body does not say it")),
    request_body(content = NewNotice, description = "Also the webhook body of AWS Node Termination Handler"),
    responses(
        (status = 202, description = "It was taken", body = NoticeReceipt),
        (status = 429, description = "Too many arrive: `too_many_notices`; or too many wrong tokens came from this address: `too_many_attempts`", body = super::problem::Document, content_type = "application/problem+json"),
    )
)]
pub(super) async fn notice(
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

/// Read the configuration again
#[utoipa::path(
    post, path = "/v1/reload", tag = "configuration",
    params(
        ("dry_run" = Option<bool>, Query, description = "Only say what would change; nothing is taken up"),
        ("If-Match" = Option<String>, Header, description = "The ETag of `GET /v1/config`: only while that configuration is in force"),
    ),
    request_body(content = Option<Candidate>, description = "Of a dry run: what to look at in place of the files"),
    responses(
        (status = 200, description = "It is in force; or, of a dry run, what would change", body = ReloadAnswer),
        (status = 409, description = "It changes what cannot change while running: `needs_restart`", body = super::problem::Document, content_type = "application/problem+json"),
        (status = 412, description = "Another configuration is in force than was seen: `not_as_seen`", body = super::problem::Document, content_type = "application/problem+json"),
        (status = 422, description = "It has faults; the running one stays: `invalid_config`", body = super::problem::Document, content_type = "application/problem+json"),
    )
)]
pub(super) async fn reload(
    State(desk): At,
    Admin(author): Admin,
    query: Result<Query<ChangeQuery>, QueryRejection>,
    request: Request,
) -> Result<Json<ReloadAnswer>, Problem> {
    let expected = seen(request.headers())?;
    if ChangeQuery::is_dry_run(query)? {
        let candidate = body::read_json_or_nothing(request, rehearsal::CANDIDATE_BYTES_MAX).await?;
        let rehearsal = blocking(move || desk.rehearse_reload(candidate)).await??;
        return Ok(Json(ReloadAnswer::Rehearsed(rehearsal)));
    }
    let generation = blocking(move || desk.reload(&author, expected)).await??;
    Ok(Json(ReloadAnswer::Done(Generation { generation })))
}

impl From<OverrideError> for Problem {
    fn from(error: OverrideError) -> Problem {
        let (status, code) = match &error {
            OverrideError::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_override"),
            OverrideError::KeyReused(_) => (StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused"),
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
            ReloadError::NotAsSeen(reason) => {
                Problem::new(StatusCode::PRECONDITION_FAILED, "not_as_seen", reason)
            }
        }
    }
}
