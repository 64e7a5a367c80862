//! What Tradewind itself says to clients: errors in the shape of the OpenAI API, so that its SDKs raise them as they raise
//! the backend's own.

use std::time::Duration;

use bytes::Bytes;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::ResponseHeader;
use pingora_proxy::Session;

use super::{grpc, tenant::Guest};

/// When to come back if no backend may serve, in seconds: about the time a restarted pod or a probe needs.
const RETRY_AFTER_SECONDS: u64 = 5;

/// How long the rest of a refused request is read: a client that sends for longer is cut off.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(2);

/// Why a request is not served by a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No route matches.
    NoRoute,
    /// No backend of the route may serve.
    NothingEligible,
    /// Every backend has as many requests as it may have, and too many wait.
    Overloaded,
    /// No connection to any backend could be made.
    Unreachable,
    /// The backend broke before it answered.
    Broken,
    /// No connection to any backend was made in time.
    Timeout,
    /// The request itself is not valid HTTP.
    BadRequest,
    /// The head of the request is too long, or has too many headers.
    HeadTooLarge,
    /// The head of the request did not come in time.
    SlowRequest,
    /// The body is longer than what can be held, and it would have to be.
    TooLarge,
    /// A fault of Tradewind's own.
    Internal,
    /// No tenant has the key of the request, or it has none.
    Unauthorized,
    /// The tenant may not use the route.
    RouteDenied,
    /// The tenant may not ask for the model.
    ModelDenied,
    /// The tenant has sent as many requests as it may.
    RequestsSpent,
    /// The tenant has used as many tokens as it may.
    TokensSpent,
    /// The tenant has spent what it may.
    BudgetSpent,
}

impl Refusal {
    /// HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Refusal::NoRoute => 404,
            Refusal::NothingEligible | Refusal::Overloaded => 503,
            Refusal::Unreachable | Refusal::Broken => 502,
            Refusal::Timeout => 504,
            Refusal::BadRequest => 400,
            Refusal::HeadTooLarge => 431,
            Refusal::SlowRequest => 408,
            Refusal::TooLarge => 413,
            Refusal::Internal => 500,
            Refusal::Unauthorized => 401,
            Refusal::RouteDenied | Refusal::ModelDenied => 403,
            Refusal::RequestsSpent | Refusal::TokensSpent | Refusal::BudgetSpent => 429,
        }
    }

    /// `type`, `code` and `message` of the error. They tell the client what it may know: no backend's name or address.
    fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Refusal::NoRoute => ("invalid_request_error", "no_route", "No route matches this request."),
            Refusal::NothingEligible => (
                "service_unavailable",
                "no_backend_available",
                "No backend can serve this request now. Try again after the time in Retry-After.",
            ),
            Refusal::Overloaded => (
                "service_unavailable",
                "overloaded",
                "Every backend is busy. Try again after the time in Retry-After.",
            ),
            Refusal::Unreachable => ("bad_gateway", "backend_unreachable", "No backend could be reached."),
            Refusal::Broken => {
                ("bad_gateway", "backend_failed", "The backend failed before its answer was complete.")
            }
            Refusal::Timeout => ("gateway_timeout", "backend_timeout", "The backend did not answer in time."),
            Refusal::BadRequest => ("invalid_request_error", "bad_request", "The request is not valid HTTP."),
            Refusal::HeadTooLarge => (
                "invalid_request_error",
                "request_header_too_large",
                "The request's headers are too many or too long.",
            ),
            Refusal::SlowRequest => {
                ("invalid_request_error", "request_timeout", "The request's headers did not arrive in time.")
            }
            Refusal::TooLarge => (
                "invalid_request_error",
                "request_too_large",
                "The body is too long, or of no stated length, for a backend whose requests are signed.",
            ),
            Refusal::Internal => ("server_error", "internal_error", "The request could not be handled."),
            // Types and codes from here on are those of OpenAI where it has one.
            Refusal::Unauthorized => (
                "invalid_request_error",
                "invalid_api_key",
                "This request carries no valid API key. Send one as Authorization: Bearer KEY.",
            ),
            Refusal::RouteDenied => (
                "invalid_request_error",
                "route_not_allowed",
                "This API key may not be used for this address.",
            ),
            Refusal::ModelDenied => (
                "invalid_request_error",
                "model_not_allowed",
                "This API key may not be used for this model, or the request names none that can be read.",
            ),
            Refusal::RequestsSpent => (
                "requests",
                "rate_limit_exceeded",
                "Rate limit reached for requests. Try again after the time in Retry-After.",
            ),
            Refusal::TokensSpent => (
                "tokens",
                "rate_limit_exceeded",
                "Rate limit reached for tokens. Try again after the time in Retry-After.",
            ),
            Refusal::BudgetSpent => (
                "insufficient_quota",
                "insufficient_quota",
                "The budget of this API key is used up. It can be used again after the time in Retry-After.",
            ),
        }
    }

    /// Its `code` in the error.
    pub fn code(self) -> &'static str {
        self.words().1
    }

    /// The answer to what came over HTTP/1.1 and is not taken for a request; the connection ends with it.
    pub(super) fn as_bytes(self) -> Vec<u8> {
        let status = http::StatusCode::from_u16(self.status()).unwrap_or(http::StatusCode::BAD_REQUEST);
        let reason = status.canonical_reason().unwrap_or_default();
        let body = self.body();
        let head = format!(
            "HTTP/1.1 {} {reason}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            status.as_u16(),
            body.len()
        );
        [head.as_bytes(), &body].concat()
    }

    /// The error as JSON.
    pub(super) fn body(self) -> Bytes {
        let (kind, code, message) = self.words();
        let error = serde_json::json!({
            "error": { "message": message, "type": kind, "param": null, "code": code }
        });
        Bytes::from(error.to_string())
    }

    /// The status of gRPC that says the same (by its mapping of HTTP's, and what retries make of it).
    fn grpc_status(self) -> u16 {
        match self {
            Refusal::NoRoute => grpc::UNIMPLEMENTED,
            Refusal::NothingEligible | Refusal::Overloaded | Refusal::Unreachable | Refusal::Broken => {
                grpc::UNAVAILABLE
            }
            Refusal::Timeout => grpc::DEADLINE_EXCEEDED,
            Refusal::BadRequest | Refusal::HeadTooLarge | Refusal::SlowRequest | Refusal::Internal => {
                grpc::INTERNAL
            }
            Refusal::Unauthorized => grpc::UNAUTHENTICATED,
            Refusal::RouteDenied | Refusal::ModelDenied => grpc::PERMISSION_DENIED,
            Refusal::RequestsSpent | Refusal::TokensSpent | Refusal::BudgetSpent | Refusal::TooLarge => {
                grpc::RESOURCE_EXHAUSTED
            }
        }
    }

    /// Answers the client. What is left of the request's body is read, within limits: a client that is still sending would
    /// otherwise see a reset instead of the answer.
    ///
    /// # Errors
    /// When the client cannot be written to.
    pub async fn answer(self, session: &mut Session, request_id: &str, connection: Connection) -> Result<()> {
        self.answer_to(session, request_id, connection, None, None).await
    }

    /// As [`Refusal::answer`]; tells a guest what it has left, and how long to wait.
    ///
    /// # Errors
    /// When the client cannot be written to.
    pub async fn answer_to(
        self,
        session: &mut Session,
        request_id: &str,
        connection: Connection,
        guest: Option<&Guest>,
        wait: Option<Duration>,
    ) -> Result<()> {
        let is_grpc = grpc::is_asked_for(session.req_header());
        let body = if is_grpc { Bytes::new() } else { self.body() };
        let mut header = ResponseHeader::build(if is_grpc { 200 } else { self.status() }, Some(5))?;
        header.insert_header("x-request-id", request_id)?;
        if is_grpc {
            header.insert_header("content-type", "application/grpc")?;
        } else {
            header.insert_header("content-type", "application/json")?;
            header.insert_header("content-length", body.len())?;
        }
        if matches!(self, Refusal::NothingEligible | Refusal::Overloaded) {
            header.insert_header("retry-after", RETRY_AFTER_SECONDS)?;
        }
        if self == Refusal::Unauthorized {
            header.insert_header("www-authenticate", "Bearer")?;
        }
        if let Some(wait) = wait {
            header.insert_header("retry-after", wait.as_secs() + u64::from(wait.subsec_nanos() > 0))?;
        }
        if self == Refusal::BudgetSpent {
            // Its SDKs try again after every 429 that does not say so.
            header.insert_header("x-should-retry", "false")?;
        }
        if let Some(guest) = guest {
            guest.tell(&mut header)?;
        }
        let downstream = session.as_downstream_mut();
        downstream.set_close_on_response_before_downstream_finish(false);
        downstream.set_total_drain_timeout(Some(DRAIN_TIME_MAX));
        if connection == Connection::Close {
            downstream.set_keepalive(None);
        }
        // An answer that comes before the end of a request resets its HTTP/2 stream, and some clients (curl 7.88) then lose
        // the answer. A client that does not finish in time has only itself to blame.
        if downstream.is_http2() && downstream.drain_request_body().await.is_err() {
            tracing::debug!(request_id, "a refused request was not read to its end");
        }
        let is_head = session.req_header().method == http::Method::HEAD;
        session.write_response_header(Box::new(header), is_head).await?;
        if is_grpc {
            grpc::end(session, self.grpc_status(), self.words().2).await?;
        } else if !is_head {
            session.write_response_body(Some(body), true).await?;
        }
        if connection == Connection::Close {
            session.as_downstream_mut().drain_request_body().await?;
        }
        Ok(())
    }
}

/// Tells the client of an answer in server-sent events that broke after it had begun: as an event, since some clients (the
/// OpenAI SDK) take the end of a connection for the end of the answer. Over HTTP/1.1 the answer has no proper end all the same;
/// over HTTP/2 a reset could overtake the event, so it ends with it.
///
/// # Errors
/// When the client cannot be written to.
pub async fn break_off(session: &mut Session, error: &Error) -> Result<()> {
    let refusal = broken_by(error);
    let (kind, code, message) = refusal.words();
    let error = serde_json::json!({
        "error": { "message": message, "type": kind, "param": null, "code": code }
    });
    // Whatever came of the event before is ended first.
    let event = Bytes::from(format!("\n\ndata: {error}\n\n"));
    let whole = session.as_downstream().is_http2();
    session.write_response_body(Some(event), whole).await
}

/// The same for a call in gRPC, which has a status for it.
///
/// # Errors
/// When the client cannot be written to.
pub async fn break_off_call(session: &mut Session, error: &Error) -> Result<()> {
    let refusal = broken_by(error);
    grpc::end(session, refusal.grpc_status(), refusal.words().2).await
}

fn broken_by(error: &Error) -> Refusal {
    match error.etype() {
        ErrorType::ReadTimedout => Refusal::Timeout,
        _ => Refusal::Broken,
    }
}

/// What becomes of the connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// The next request may come on it.
    Keep,
    /// It ends, and the client is told so.
    Close,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_shape_of_the_openai_api() {
        let error: serde_json::Value = serde_json::from_slice(&Refusal::NothingEligible.body()).unwrap();
        assert_eq!(error["error"]["code"], "no_backend_available");
        assert!(error["error"]["message"].is_string() && error["error"]["type"].is_string());
    }
}
