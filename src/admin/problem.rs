//! How a refusal looks: `application/problem+json` (RFC 9457).

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::Value;

/// A call that is refused, with a reason for the caller.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    /// Boxed because every fallible call carries the size of its error.
    faults: Option<Box<Value>>,
    challenge: Option<&'static str>,
    retry_after: Option<u64>,
}

/// The code of a refusal, beside its answer: what the guard looks at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Code(pub(super) &'static str);

/// A refusal as it is sent (RFC 9457).
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub(super) struct Document<'a> {
    /// The kind is in `code`: RFC 9457 wants a URI here, and `about:blank` when the status says it all.
    r#type: &'static str,
    /// The status in words.
    title: &'a str,
    /// The status of the answer.
    status: u16,
    /// The stable name for programs.
    code: &'a str,
    /// The sentence for people.
    detail: &'a str,
    /// Of a configuration: every fault with file, line, column, message and hint.
    #[schema(value_type = Option<Vec<Object>>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    faults: Option<&'a Value>,
}

impl Problem {
    /// `code` is a stable name for programs, `detail` one sentence for people.
    pub(super) fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Problem {
        Problem { status, code, detail: detail.into(), faults: None, challenge: None, retry_after: None }
    }

    /// Whether nobody said who calls.
    pub(super) fn is_unauthorized(&self) -> bool {
        self.status == StatusCode::UNAUTHORIZED
    }

    /// The stable name for programs.
    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    /// The sentence for people.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// The status of the answer.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// With every fault of a configuration.
    pub(super) fn with_faults(mut self, faults: Value) -> Problem {
        self.faults = Some(Box::new(faults));
        self
    }

    /// With the `WWW-Authenticate` header that a 401 must have.
    pub(super) fn with_challenge(mut self, challenge: &'static str) -> Problem {
        self.challenge = Some(challenge);
        self
    }
}

impl Problem {
    /// With the seconds after which it may be tried again.
    pub(super) fn with_retry_after(mut self, seconds: u64) -> Problem {
        self.retry_after = Some(seconds);
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = Document {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            code: self.code,
            detail: &self.detail,
            faults: self.faults.as_deref(),
        };
        // Strings, a number and parsed JSON: this cannot fail to serialize.
        let text = serde_json::to_string(&document).unwrap_or_default();
        let mut response = Response::new(Body::from(text));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(challenge) = self.challenge {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response.extensions_mut().insert(Code(self.code));
        response
    }
}
