//! What the head of a request says.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use pingora_http::RequestHeader;

use super::{
    matcher::{Asked, Request},
    peek::Model,
    table::Common,
};
use crate::model::Priority;

/// The client's name for a request, or ours.
pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// How important a request is.
const X_PRIORITY: HeaderName = HeaderName::from_static("x-priority");

/// Longest request id that is passed on; a longer one is replaced.
const REQUEST_ID_LEN_MAX: usize = 128;

/// A request as the matcher sees it.
pub struct Incoming<'a> {
    head: &'a RequestHeader,
    model_header: &'a HeaderName,
    body: Body<'a>,
}

/// What is known of a request's body.
enum Body<'a> {
    Unread,
    Read(Option<&'a Model>),
}

impl<'a> Incoming<'a> {
    /// A request whose body was not read yet.
    pub fn new(head: &'a RequestHeader, common: &'a Common) -> Incoming<'a> {
        Incoming { head, model_header: &common.model_header, body: Body::Unread }
    }

    /// The same request, whose body asks for this model, or for none.
    pub(super) fn with_body(self, model: Option<&'a Model>) -> Incoming<'a> {
        Incoming { body: Body::Read(model), ..self }
    }
}

impl Request for Incoming<'_> {
    fn host(&self) -> Option<&str> {
        // An absolute request target decides over the Host header (RFC 9112, 3.2.2); HTTP/2 has `:authority` there.
        let authority = match self.head.uri.authority() {
            Some(authority) => authority.as_str(),
            None => self.head.headers.get(header::HOST)?.to_str().ok()?,
        };
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        match host.strip_prefix('[') {
            Some(v6) => v6.split(']').next(),
            None => host.split(':').next(),
        }
    }

    fn path(&self) -> &str {
        self.head.uri.path()
    }

    fn has_header(&self, name: &str, value: &str) -> bool {
        self.head.headers.get_all(name).iter().any(|found| found.as_bytes() == value.as_bytes())
    }

    fn model(&self) -> Asked<'_> {
        if let Some(named) = self.head.headers.get(self.model_header) {
            return std::str::from_utf8(named.as_bytes()).map_or(Asked::Nothing, Asked::For);
        }
        match self.body {
            Body::Unread if may_name_model(self.head) => Asked::Unknown,
            Body::Read(Some(model)) => Asked::For(&model.name),
            Body::Unread | Body::Read(None) => Asked::Nothing,
        }
    }
}

/// Whether the body may name a model: a POST of JSON, as all requests of the OpenAI API for inference are.
pub(super) fn may_name_model(head: &RequestHeader) -> bool {
    if head.method != Method::POST || head.headers.contains_key(header::CONTENT_ENCODING) {
        return false;
    }
    is_json(&head.headers)
}

/// Whether headers say that the body is JSON.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let Some(kind) = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) else {
        return false;
    };
    let essence = kind.split(';').next().unwrap_or_default().trim();
    let json_suffix = essence.len().checked_sub(5).and_then(|at| essence.get(at..));
    essence.eq_ignore_ascii_case("application/json")
        || json_suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case("+json"))
}

/// How important a client says that its request is.
pub(super) fn priority(head: &RequestHeader) -> Option<Priority> {
    let said = head.headers.get(X_PRIORITY)?.to_str().ok()?;
    Priority::ALL.into_iter().find(|priority| said.eq_ignore_ascii_case(priority.as_str()))
}

/// The client's request id, or a new one.
pub(super) fn request_id(request: &RequestHeader) -> HeaderValue {
    match request.headers.get(&X_REQUEST_ID) {
        Some(id) if !id.is_empty() && id.len() <= REQUEST_ID_LEN_MAX && id.to_str().is_ok() => id.clone(),
        _ => {
            let mut text = [0u8; 32];
            let mut bits = fastrand::u128(..);
            for digit in &mut text {
                *digit = b"0123456789abcdef"[(bits & 0xf) as usize];
                bits >>= 4;
            }
            HeaderValue::from_bytes(&text).unwrap_or(HeaderValue::from_static("0"))
        }
    }
}

/// The host that the client asked for: HTTP/2 has it in the target, HTTP/1.1 in a header.
pub(super) fn host_of(request: &RequestHeader) -> Option<HeaderValue> {
    match request.uri.authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => request.headers.get(header::HOST).cloned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(method: &str, headers: &[(&'static str, &str)]) -> RequestHeader {
        let mut head = RequestHeader::build(method, b"/v1/chat/completions", None).unwrap();
        for (name, value) in headers {
            head.append_header(*name, *value).unwrap();
        }
        head
    }

    #[test]
    fn only_json_that_is_posted_may_name_a_model() {
        let yes = [
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/vnd.x+json",
            "application/json;",
        ];
        let no = [
            "",
            "text/plain",
            "json",
            "+jso",
            "multipart/form-data; boundary=+json",
            "application/jsonl",
            "\u{e9}+json",
        ];
        for kind in yes {
            assert!(may_name_model(&head("POST", &[("content-type", kind)])), "{kind}");
        }
        for kind in no {
            assert!(!may_name_model(&head("POST", &[("content-type", kind)])), "{kind}");
        }
        assert!(!may_name_model(&head("POST", &[])));
        assert!(!may_name_model(&head("PUT", &[("content-type", "application/json")])));
        let packed = [("content-type", "application/json"), ("content-encoding", "gzip")];
        assert!(!may_name_model(&head("POST", &packed)));
    }

    #[test]
    fn the_header_counts_before_the_body() {
        let common = Common::default();
        let model = Model { name: "b".into(), span: 0..3 };
        let named = head("POST", &[("x-model", "a"), ("content-type", "application/json")]);
        assert_eq!(Incoming::new(&named, &common).model(), Asked::For("a"));
        assert_eq!(Incoming::new(&named, &common).with_body(Some(&model)).model(), Asked::For("a"));
        let bare = head("POST", &[("content-type", "application/json")]);
        assert_eq!(Incoming::new(&bare, &common).model(), Asked::Unknown);
        assert_eq!(Incoming::new(&bare, &common).with_body(Some(&model)).model(), Asked::For("b"));
        assert_eq!(Incoming::new(&bare, &common).with_body(None).model(), Asked::Nothing);
        assert_eq!(Incoming::new(&head("GET", &[]), &common).model(), Asked::Nothing);
    }
}
