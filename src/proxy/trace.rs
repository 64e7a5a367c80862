//! The span of a request, where it has one: three short steps of the request path.

use http::HeaderValue;
use pingora_core::Result;
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::{context::Context, conventions::operation_of, incoming::host_of};
use crate::signals::{
    traces::{Attribute, TRACEPARENT},
    traffic::Outcome,
};

impl Context {
    /// Begins the span, once the route is found.
    pub(super) fn begin_span(&mut self, request: &RequestHeader) {
        let tracer = self.found.as_ref().and_then(|(table, _)| table.common.tracer.as_ref());
        if let Some(tracer) = tracer {
            self.span = tracer.begin(request.headers.get(TRACEPARENT).map(HeaderValue::as_bytes));
        }
    }

    /// Tells the backend of it.
    pub(super) fn pass_span(&self, request: &mut RequestHeader) -> Result<()> {
        match &self.span {
            Some(span) => request.insert_header(TRACEPARENT, span.traceparent()),
            None => Ok(()),
        }
    }

    /// Ends it.
    pub(super) fn end_span(&self, session: &Session, outcome: &Outcome) {
        let (Some(span), Some((table, lane))) = (&self.span, &self.found) else { return };
        let (Some(tracer), lane) = (&table.common.tracer, &table.lanes[*lane]) else { return };
        let request = session.req_header();
        let text = |text: &str| Attribute::Text(text.to_owned());
        let path = request.uri.path();
        let tls = session.digest().is_some_and(|digest| digest.ssl_digest.is_some());
        let mut attributes = vec![
            ("http.request.method", text(request.method.as_str())),
            ("url.path", text(path)),
            ("url.scheme", text(if tls { "https" } else { "http" })),
            ("http.response.status_code", Attribute::Number(outcome.code.into())),
            ("tradewind.route", text(lane.id.as_str())),
            ("tradewind.request_id", text(self.request_id())),
            ("tradewind.attempts", Attribute::Number(self.attempts as i64)),
        ];
        let mut add = |name, value: Option<Attribute>| attributes.extend(value.map(|value| (name, value)));
        let host = host_of(request).and_then(|host| host.to_str().ok().map(str::to_owned));
        add("server.address", host.map(Attribute::Text));
        let client = session.client_addr().and_then(|address| address.as_inet());
        add("client.address", client.map(|address| Attribute::Text(address.ip().to_string())));
        add("tradewind.backend", self.target().map(|target| text(target.id.as_str())));
        add("tradewind.decision.at", lane.decision.map(|at| Attribute::Text(at.to_string())));
        let first_byte = self.attempt.as_ref().and_then(|attempt| attempt.first_byte);
        add("tradewind.time_to_first_byte", first_byte.map(|time| Attribute::Decimal(time.as_secs_f64())));
        add("gen_ai.operation.name", operation_of(request).map(|(name, _)| text(name)));
        let model = self.peeked.as_ref().and_then(|peeked| peeked.model.as_ref());
        add("gen_ai.request.model", model.map(|model| text(&model.name)));
        add("error.type", outcome.failed.then(|| Attribute::Text(outcome.code.to_string())));
        let name = format!("{} {}", request.method, lane.id);
        tracer.end(span, name, outcome.duration, outcome.failed, attributes);
    }
}
