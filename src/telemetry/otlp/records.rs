//! Log records: what is logged, on its way to a collector beside standard error.

use std::{
    borrow::Cow,
    fmt::{Debug, Write as _},
    sync::{Arc, atomic::Ordering::Relaxed},
    time::SystemTime,
};

use arc_swap::ArcSwapOption;
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tracing::{Event, Level, Subscriber, field::Field};
use tracing_subscriber::{Layer, layer::Context};

use super::{attribute, collector::Payload, nanos, resource, scope};
use crate::signals::traces::{Attribute, ExportCounts};

/// Records that may wait to be sent. What comes on top is dropped and counted.
const QUEUE_LEN: usize = 2_048;

/// Longest text in a record, in bytes; with the queue's length it bounds the memory.
const TEXT_LEN_MAX: usize = 4_096;

/// Who says something about sending: that would be sent too, and so on for ever.
const OF_SENDING: [&str; 4] = ["tradewind::telemetry::otlp", "hyper", "h2", "rustls"];

/// Where records go. Of the whole process, as its logging is.
static OUTLET: ArcSwapOption<Outlet> = ArcSwapOption::const_empty();

/// Who takes records now.
struct Outlet {
    queue: Sender<Record>,
    counts: Arc<ExportCounts>,
}

/// One event.
pub(super) struct Record {
    at: SystemTime,
    level: Level,
    body: String,
    target: Cow<'static, str>,
    attributes: Vec<(&'static str, Attribute)>,
}

/// Records go to the queue that is given back, until [`close`] or the next call of this.
pub(super) fn open(counts: Arc<ExportCounts>) -> Receiver<Record> {
    let (queue, records) = channel(QUEUE_LEN);
    OUTLET.store(Some(Arc::new(Outlet { queue, counts })));
    records
}

/// Nobody takes records any more.
pub(super) fn close() {
    OUTLET.store(None);
}

/// The part of the logging that hands records on. Never waits; does nothing while nobody takes them.
pub(in crate::telemetry) struct Tap;

impl<S: Subscriber> Layer<S> for Tap {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let outlet = OUTLET.load();
        let Some(outlet) = outlet.as_deref() else { return };
        let metadata = event.metadata();
        let mut record = Record {
            at: SystemTime::now(),
            level: *metadata.level(),
            body: String::new(),
            target: Cow::Borrowed(metadata.target()),
            attributes: Vec::new(),
        };
        event.record(&mut record);
        if OF_SENDING.iter().any(|part| record.target.starts_with(part)) {
            return;
        }
        if outlet.queue.try_send(record).is_err() {
            outlet.counts.dropped.fetch_add(1, Relaxed);
        }
    }
}

impl Record {
    fn add(&mut self, field: &Field, value: Attribute) {
        match (field.name(), value) {
            ("message", Attribute::Text(text)) => self.body = text,
            // What comes from the `log` crate has its target here.
            ("log.target", Attribute::Text(text)) => self.target = Cow::Owned(text),
            ("log.module_path" | "log.file" | "log.line", _) => {}
            (name, value) => self.attributes.push((name, value)),
        }
    }
}

impl tracing::field::Visit for Record {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let mut text = Short(String::new());
        // It stops where it is long enough.
        let _ = write!(text, "{value:?}");
        self.add(field, Attribute::Text(text.0));
    }
    fn record_str(&mut self, field: &Field, value: &str) {
        let mut text = Short(String::new());
        let _ = text.write_str(value);
        self.add(field, Attribute::Text(text.0));
    }
    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, Attribute::Flag(value));
    }
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, Attribute::Number(value));
    }
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, Attribute::Number(value.try_into().unwrap_or(i64::MAX)));
    }
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, Attribute::Decimal(value));
    }
}

/// A text that takes no more than [`TEXT_LEN_MAX`] bytes.
struct Short(String);

impl std::fmt::Write for Short {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let room = TEXT_LEN_MAX - self.0.len();
        let fits = |end: &usize| text.is_char_boundary(*end);
        let end = (0..=room.min(text.len())).rev().find(fits).unwrap_or_default();
        self.0.push_str(&text[..end]);
        if end == text.len() { Ok(()) } else { Err(std::fmt::Error) }
    }
}

pub(super) fn payload(records: Vec<Record>) -> Payload {
    let log_records = records.into_iter().map(record).collect();
    let scope_logs = vec![ScopeLogs { scope: scope(), log_records, schema_url: String::new() }];
    let resource = ResourceLogs { resource: resource(), scope_logs, schema_url: String::new() };
    Payload::Logs(ExportLogsServiceRequest { resource_logs: vec![resource] })
}

fn record(of: Record) -> LogRecord {
    let severity = match of.level {
        Level::ERROR => SeverityNumber::Error,
        Level::WARN => SeverityNumber::Warn,
        Level::INFO => SeverityNumber::Info,
        Level::DEBUG => SeverityNumber::Debug,
        Level::TRACE => SeverityNumber::Trace,
    };
    let module = ("code.namespace", Attribute::Text(of.target.into_owned()));
    LogRecord {
        time_unix_nano: nanos(of.at),
        observed_time_unix_nano: nanos(of.at),
        severity_number: severity.into(),
        severity_text: of.level.as_str().to_owned(),
        body: Some(AnyValue { value: Some(Value::StringValue(of.body)) }),
        attributes: of.attributes.into_iter().chain([module]).map(attribute).collect(),
        ..LogRecord::default()
    }
}
