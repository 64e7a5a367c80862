//! What Tradewind knows of gRPC: how it says that a call failed.

use http::{HeaderMap, HeaderValue, header};
use pingora_core::Result;
use pingora_http::RequestHeader;
use pingora_proxy::Session;

// Statuses, by https://grpc.github.io/grpc/core/md_doc_statuscodes.html.
pub(super) const DEADLINE_EXCEEDED: u16 = 4;
pub(super) const PERMISSION_DENIED: u16 = 7;
pub(super) const RESOURCE_EXHAUSTED: u16 = 8;
pub(super) const UNIMPLEMENTED: u16 = 12;
pub(super) const INTERNAL: u16 = 13;
pub(super) const UNAVAILABLE: u16 = 14;
pub(super) const UNAUTHENTICATED: u16 = 16;

const CONTENT_TYPE: &[u8] = b"application/grpc";

/// Whether it is a call in gRPC over HTTP/2; also with the name of what its messages are (`application/grpc+proto`). gRPC-Web,
/// which has its own way of saying what gRPC says in trailers, is not.
pub(super) fn is_asked_for(request: &RequestHeader) -> bool {
    let kind = request.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    match kind.strip_prefix(CONTENT_TYPE) {
        Some([] | [b'+' | b';', ..]) => true,
        Some(_) | None => false,
    }
}

/// Ends a call whose answer has begun with a status. A mere reset would be taken for a fault of the protocol, which no client tries
/// again.
///
/// # Errors
/// When the client cannot be written to.
pub(super) async fn end(session: &mut Session, status: u16, message: &'static str) -> Result<()> {
    let mut trailers = HeaderMap::with_capacity(2);
    trailers.insert("grpc-status", HeaderValue::from(status));
    trailers.insert("grpc-message", HeaderValue::from_static(message));
    session.as_downstream_mut().write_response_trailers(trailers).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_known_by_its_content_type() {
        let asks = |kind: &str| {
            let mut head = RequestHeader::build("POST", b"/", None).unwrap();
            head.insert_header("content-type", kind).unwrap();
            is_asked_for(&head)
        };
        assert!(["application/grpc", "application/grpc+proto", "application/grpc;x=y"].into_iter().all(asks));
        assert!(!["", "application/json", "application/grpc-web", "application/grp"].into_iter().any(asks));
    }
}
