//! Sends spans, metrics and log records to a collector, as OTLP over HTTP: away from the request path, in batches, and without a
//! second attempt. What a collector does not take is counted and gone.
//!
//! Read in this order: this file (what runs), `collector` (the conversation), `spans`, `points`, `conventions` and `records` (what is said). The
//! messages are those of `opentelemetry-proto`; what they are made from is counted here anyway, so no SDK keeps it a second time.

mod collector;
mod conventions;
mod points;
mod records;
mod spans;

use std::{
    sync::{Arc, LazyLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
};
use tokio::{sync::mpsc::Receiver, task::JoinHandle, time::timeout};

use super::metrics::View;
use crate::{
    config::Otlp,
    signals::traces::{Attribute, ExportCounts, Tracer},
};
use collector::{Collector, Payload};
pub(super) use records::Tap;

/// Spans or log records in a request to the collector.
const BATCH_LEN: usize = 512;

/// How long the first one of a batch waits for others.
const LINGER: Duration = Duration::from_secs(1);

/// What became of everything that was to be sent.
#[derive(Clone, Debug, Default)]
pub struct Exports {
    /// Spans of requests.
    pub spans: Arc<ExportCounts>,
    /// Points of metrics.
    pub points: Arc<ExportCounts>,
    /// Log records.
    pub records: Arc<ExportCounts>,
}

impl Exports {
    /// Each by the name that metrics have for it.
    pub fn all(&self) -> [(&'static str, &ExportCounts); 3] {
        [("spans", &self.spans), ("metric_points", &self.points), ("log_records", &self.records)]
    }
}

/// What sends to a collector, until it is stopped.
pub struct Exporter {
    /// What it was made by.
    pub settings: Otlp,
    /// Makes spans; `None` if none are wanted.
    pub tracer: Option<Arc<Tracer>>,
    /// Takes metrics.
    pub measures: Measures,
    /// Each ends once nothing can come any more and all that waited was sent.
    tasks: Vec<JoinHandle<()>>,
}

/// Where metrics are sent.
#[derive(Clone)]
pub struct Measures {
    collector: Arc<Collector>,
    counts: Arc<ExportCounts>,
}

impl Exporter {
    /// Starts it, within a runtime. Log records go to this one from now on.
    pub fn start(settings: &Otlp, exports: &Exports) -> Exporter {
        let collector = Arc::new(Collector::new(settings));
        let mut tasks = Vec::new();
        let tracer = settings.traces.then(|| {
            let (tracer, queue) = Tracer::new(settings.sample, exports.spans.clone());
            let task = forward(collector.clone(), queue, exports.spans.clone(), spans::payload);
            tasks.push(tokio::spawn(task));
            Arc::new(tracer)
        });
        if settings.logs {
            let queue = records::open(exports.records.clone());
            let task = forward(collector.clone(), queue, exports.records.clone(), records::payload);
            tasks.push(tokio::spawn(task));
        }
        let measures = Measures { collector, counts: exports.points.clone() };
        Exporter { settings: settings.clone(), tracer, measures, tasks }
    }

    /// Takes no more log records, and no spans once its last tracer is gone. What is given back ends when all was sent.
    pub fn stop(self) -> impl Future<Output = ()> {
        if self.settings.logs {
            records::close();
        }
        let tasks = self.tasks;
        async move {
            for task in tasks {
                // One that has panicked has nothing more to send.
                let _ = task.await;
            }
        }
    }
}

impl Measures {
    /// Sends all metrics of a process that began to count at `since`.
    pub async fn send(&self, view: &View, since: SystemTime) {
        let (payload, count) = points::payload(view, since, SystemTime::now());
        self.collector.deliver(payload, count, &self.counts).await;
    }
}

/// Sends what comes through a queue.
async fn forward<T>(
    collector: Arc<Collector>,
    mut queue: Receiver<T>,
    counts: Arc<ExportCounts>,
    payload: fn(Vec<T>) -> Payload,
) {
    while let Some(first) = queue.recv().await {
        let mut batch = vec![first];
        let fill =
            async { while batch.len() < BATCH_LEN && queue.recv_many(&mut batch, BATCH_LEN).await > 0 {} };
        // A batch that is not full is sent all the same.
        let _ = timeout(LINGER, fill).await;
        let count = batch.len() as u64;
        collector.deliver(payload(batch), count, &counts).await;
    }
}

/// Who says all this. Every process has an id of its own: two with the same would seem to be one whose counters jump.
fn resource() -> Option<Resource> {
    static INSTANCE: LazyLock<String> = LazyLock::new(|| format!("{:032x}", fastrand::u128(..)));
    let text = |text: &str| Attribute::Text(text.to_owned());
    let attributes = [
        ("service.name", text("tradewind")),
        ("service.version", text(env!("CARGO_PKG_VERSION"))),
        ("service.instance.id", text(&INSTANCE)),
    ];
    Some(Resource { attributes: attributes.into_iter().map(attribute).collect(), ..Resource::default() })
}

fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope {
        name: "tradewind".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        ..InstrumentationScope::default()
    })
}

fn attribute((key, value): (impl Into<String>, Attribute)) -> KeyValue {
    let value = match value {
        Attribute::Text(text) => Value::StringValue(text),
        Attribute::Number(number) => Value::IntValue(number),
        Attribute::Decimal(number) => Value::DoubleValue(number),
        Attribute::Flag(flag) => Value::BoolValue(flag),
    };
    KeyValue { key: key.into(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// Nanoseconds since 1970, as OTLP has times.
fn nanos(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().try_into().unwrap_or(u64::MAX)
}
