//! Metrics as OTLP has them: everything that `GET /metrics` has, under the same names, so that a dashboard works with either; and what
//! the semantic conventions have a name for under that name too.

use std::time::SystemTime;

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::KeyValue,
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point,
    },
};

use super::{attribute, collector::Payload, nanos, resource, scope};
use crate::{
    signals::traces::Attribute,
    telemetry::metrics::{Measured, Value},
};

/// What has a second name, by the semantic conventions, and its unit there.
const CONVENTIONAL: [(&str, &str, &str); 3] = [
    ("tradewind_request_duration_seconds", "http.server.request.duration", "s"),
    (IN_FLIGHT, "http.server.active_requests", "{request}"),
    ("tradewind_time_to_first_byte_seconds", "gen_ai.server.time_to_first_token", "s"),
];

const IN_FLIGHT: &str = "tradewind_requests_in_flight";

/// The request to the collector, and how many points are in it.
pub(super) fn payload(measured: Vec<Measured>, since: SystemTime, now: SystemTime) -> (Payload, u64) {
    let moment = Moment { since: nanos(since), now: nanos(now) };
    let count = measured.iter().map(|metric| metric.points.len() as u64).sum();
    let mut metrics = Vec::new();
    for of in measured.into_iter().filter(|of| !of.points.is_empty()) {
        if let Some((_, name, unit)) = CONVENTIONAL.iter().find(|(own, ..)| *own == of.name) {
            metrics.push(moment.metric(&of, name, unit, |label| format!("tradewind.{label}")));
        }
        metrics.push(moment.metric(&of, &of.name, "", str::to_owned));
    }
    let scope_metrics = vec![ScopeMetrics { scope: scope(), metrics, schema_url: String::new() }];
    let resource = ResourceMetrics { resource: resource(), scope_metrics, schema_url: String::new() };
    (Payload::Metrics(ExportMetricsServiceRequest { resource_metrics: vec![resource] }), count)
}

/// Since when is counted, and until when.
struct Moment {
    since: u64,
    now: u64,
}

impl Moment {
    fn metric(&self, of: &Measured, name: &str, unit: &str, label: fn(&str) -> String) -> Metric {
        Metric {
            name: name.to_owned(),
            description: of.help.clone(),
            unit: unit.to_owned(),
            data: Some(self.data(of, name, label)),
            ..Metric::default()
        }
    }

    fn data(&self, of: &Measured, name: &str, label: fn(&str) -> String) -> Data {
        let aggregation_temporality = AggregationTemporality::Cumulative.into();
        if let Some((_, Value::Histogram { .. })) = of.points.first() {
            let data_points = of.points.iter().filter_map(|point| self.histogram(point, label)).collect();
            return Data::Histogram(Histogram { data_points, aggregation_temporality });
        }
        let data_points = of.points.iter().filter_map(|point| self.number(point, label)).collect();
        // What is under way goes up and down and may be added up: the conventions have it as a sum.
        match of.counter || name != of.name && of.name == IN_FLIGHT {
            true => Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic: of.counter }),
            false => Data::Gauge(Gauge { data_points }),
        }
    }

    fn number(
        &self,
        (labels, value): &(Vec<(&'static str, String)>, Value),
        label: fn(&str) -> String,
    ) -> Option<NumberDataPoint> {
        let value = match value {
            Value::Whole(count) => number_data_point::Value::AsInt((*count).try_into().unwrap_or(i64::MAX)),
            // JSON has no word for what is no number.
            Value::Decimal(value) if value.is_finite() => number_data_point::Value::AsDouble(*value),
            Value::Decimal(_) | Value::Histogram { .. } => return None,
        };
        Some(NumberDataPoint {
            attributes: attributes(labels, label),
            start_time_unix_nano: self.since,
            time_unix_nano: self.now,
            value: Some(value),
            ..NumberDataPoint::default()
        })
    }

    fn histogram(
        &self,
        (labels, value): &(Vec<(&'static str, String)>, Value),
        label: fn(&str) -> String,
    ) -> Option<HistogramDataPoint> {
        let Value::Histogram { sum, count, buckets } = value else { return None };
        // The last bucket has no bound.
        let bounds = buckets.iter().map(|(bound, _)| *bound).filter(|bound| bound.is_finite());
        Some(HistogramDataPoint {
            attributes: attributes(labels, label),
            start_time_unix_nano: self.since,
            time_unix_nano: self.now,
            count: *count,
            sum: Some(*sum),
            bucket_counts: buckets.iter().map(|(_, count)| *count).collect(),
            explicit_bounds: bounds.collect(),
            ..HistogramDataPoint::default()
        })
    }
}

fn attributes(labels: &[(&'static str, String)], label: fn(&str) -> String) -> Vec<KeyValue> {
    labels.iter().map(|(name, value)| attribute((label(name), Attribute::Text(value.clone())))).collect()
}
