//! Reads a JSON body within limits.

use std::time::Duration;

use axum::{
    body::{Body, HttpBody},
    extract::Request,
    http::{HeaderMap, StatusCode, header},
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::problem::Problem;

/// Longest body accepted. The largest honest one, an override, has well under 2 KiB.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;

/// A body must be complete within this time; one slower than that only holds a connection.
const BODY_TIME_MAX: Duration = Duration::from_secs(10);

/// The body as a `T`.
///
/// # Errors
/// 415 for another content type, 413 when too long, 408 when too slow, 400 when not JSON, 422 when it is JSON but not a `T`.
pub(super) async fn read_json<T: DeserializeOwned>(request: Request) -> Result<T, Problem> {
    let (parts, body) = request.into_parts();
    expect_json(&parts.headers)?;
    parse(&read(body, BODY_BYTES_MAX).await?)
}

/// As [`read_json`], up to `bytes_max`, of a call that may come without a body.
pub(super) async fn read_json_or_nothing<T: DeserializeOwned>(
    request: Request,
    bytes_max: usize,
) -> Result<Option<T>, Problem> {
    let (parts, body) = request.into_parts();
    let bytes = read(body, bytes_max).await?;
    if bytes.is_empty() {
        return Ok(None);
    }
    expect_json(&parts.headers)?;
    parse(&bytes).map(Some)
}

/// As [`read_json`], of a sender that does not escape line breaks and tabs within strings: they count as blanks. In JSON they
/// may stand between values only, where a blank means the same.
pub(super) async fn read_json_unescaped<T: DeserializeOwned>(request: Request) -> Result<T, Problem> {
    let (parts, body) = request.into_parts();
    expect_json(&parts.headers)?;
    let mut bytes = read(body, BODY_BYTES_MAX).await?.to_vec();
    bytes.iter_mut().filter(|byte| matches!(**byte, b'\n' | b'\r' | b'\t')).for_each(|byte| *byte = b' ');
    parse(&bytes)
}

/// The fields of an HTML form as a `T`.
///
/// # Errors
/// As [`read_json`], 422 when the fields are not those of a `T`.
pub(super) async fn read_form<T: DeserializeOwned>(request: Request) -> Result<T, Problem> {
    let (parts, body) = request.into_parts();
    let essence = essence(&parts.headers).unwrap_or_default();
    if essence != "application/x-www-form-urlencoded" {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            format!(
                "The content type is `{essence}`; here the dashboard's forms are taken. Programs use `/v1/`."
            ),
        ));
    }
    serde_urlencoded::from_bytes(&read(body, BODY_BYTES_MAX).await?).map_err(|error| {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_body", format!("The form: {error}."))
    })
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        Category::Data => Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "invalid_body",
            format!("The body is JSON, but not what is expected here: {error}."),
        ),
        _ if bytes.iter().all(u8::is_ascii_whitespace) => Problem::new(
            StatusCode::BAD_REQUEST,
            "malformed_json",
            "The body is empty; a JSON object is expected.",
        ),
        _ => Problem::new(
            StatusCode::BAD_REQUEST,
            "malformed_json",
            format!("The body is not valid JSON: {error}."),
        ),
    })
}

/// No content type is taken for JSON: `curl` users forget it more often than they mean something else.
fn expect_json(headers: &HeaderMap) -> Result<(), Problem> {
    let Some(essence) = essence(headers) else { return Ok(()) };
    if essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json")) {
        return Ok(());
    }
    Err(Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported_media_type",
        format!("The content type is `{essence}`; send `content-type: application/json`."),
    ))
}

/// The content type without its parameters; `None` without one.
fn essence(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().unwrap_or("");
    Some(value.split(';').next().unwrap_or("").trim().to_ascii_lowercase())
}

async fn read(body: Body, bytes_max: usize) -> Result<bytes::Bytes, Problem> {
    let too_large = || {
        Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("The body is larger than the {bytes_max} bytes that are accepted."),
        )
    };
    if body.size_hint().lower() > bytes_max as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIME_MAX, Limited::new(body, bytes_max).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            "broken_body",
            format!("The body ended before it was complete: {error}."),
        )),
        Err(_) => Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            "slow_body",
            format!("The body was not complete within {} s.", BODY_TIME_MAX.as_secs()),
        )),
    }
}
