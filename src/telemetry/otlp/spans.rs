//! Spans of requests as OTLP has them.

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span, Status,
        span::SpanKind,
        status::StatusCode::{Error, Unset},
    },
};

use super::{attribute, collector::Payload, nanos, resource, scope};
use crate::signals::traces;

pub(super) fn payload(spans: Vec<traces::Span>) -> Payload {
    let spans = spans.into_iter().map(span).collect();
    let scope_spans = vec![ScopeSpans { scope: scope(), spans, schema_url: String::new() }];
    let resource = ResourceSpans { resource: resource(), scope_spans, schema_url: String::new() };
    Payload::Traces(ExportTraceServiceRequest { resource_spans: vec![resource] })
}

fn span(span: traces::Span) -> Span {
    Span {
        trace_id: span.trace_id.to_be_bytes().into(),
        span_id: span.span_id.to_be_bytes().into(),
        parent_span_id: span.parent.map(|id| id.to_be_bytes().into()).unwrap_or_default(),
        name: span.name,
        kind: SpanKind::Server.into(),
        start_time_unix_nano: nanos(span.started_at),
        end_time_unix_nano: nanos(span.started_at + span.duration),
        attributes: span.attributes.into_iter().map(attribute).collect(),
        status: Some(Status { code: if span.failed { Error } else { Unset }.into(), message: String::new() }),
        ..Span::default()
    }
}
