//! Metrics as OTLP has them: everything that `GET /metrics` has, under the same names, so that a dashboard works with either; and what
//! the semantic conventions have a name for as they have it (`conventions`).

use std::time::SystemTime;

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::KeyValue,
    metrics::v1::{
        AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
        ResourceMetrics, ScopeMetrics, Sum, metric::Data, number_data_point,
    },
};

use super::{attribute, collector::Payload, conventions, nanos, resource, scope};
use crate::{
    signals::traces::Attribute,
    telemetry::metrics::{Measured, Value, View},
};

/// The request to the collector, and how many points are in it.
pub(super) fn payload(view: &View, since: SystemTime, now: SystemTime) -> (Payload, u64) {
    let moment = Moment { since: nanos(since), now: nanos(now) };
    let measured = view.measured();
    let own = measured.iter().filter(|of| !of.points.is_empty()).map(|of| moment.metric(of));
    let metrics: Vec<Metric> = own.chain(conventions::metrics(view, &moment)).collect();
    let count = metrics.iter().map(points_of).sum();
    let schema_url = conventions::SCHEMA_URL.to_owned();
    let scope_metrics = vec![ScopeMetrics { scope: scope(), metrics, schema_url }];
    let resource = ResourceMetrics { resource: resource(), scope_metrics, schema_url: String::new() };
    (Payload::Metrics(ExportMetricsServiceRequest { resource_metrics: vec![resource] }), count)
}

fn points_of(metric: &Metric) -> u64 {
    let count = match &metric.data {
        Some(Data::Histogram(of)) => of.data_points.len(),
        Some(Data::Sum(of)) => of.data_points.len(),
        Some(Data::Gauge(of)) => of.data_points.len(),
        _ => 0,
    };
    count as u64
}

/// A histogram of these points.
pub(super) fn histogram(data_points: Vec<HistogramDataPoint>) -> Data {
    Data::Histogram(Histogram {
        data_points,
        aggregation_temporality: AggregationTemporality::Cumulative.into(),
    })
}

/// What may be added up over these points.
pub(super) fn sum(data_points: Vec<NumberDataPoint>, is_monotonic: bool) -> Data {
    let aggregation_temporality = AggregationTemporality::Cumulative.into();
    Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic })
}

/// Since when is counted, and until when.
pub(super) struct Moment {
    since: u64,
    now: u64,
}

impl Moment {
    fn metric(&self, of: &Measured) -> Metric {
        Metric {
            name: of.name.clone(),
            description: of.help.clone(),
            data: Some(self.data(of)),
            ..Metric::default()
        }
    }

    fn data(&self, of: &Measured) -> Data {
        if let Some((_, Value::Histogram { .. })) = of.points.first() {
            return histogram(of.points.iter().filter_map(|point| self.buckets(point)).collect());
        }
        let data_points = of.points.iter().filter_map(|point| self.value(point)).collect();
        match of.counter {
            true => sum(data_points, true),
            false => Data::Gauge(Gauge { data_points }),
        }
    }

    fn value(&self, (labels, value): &(Vec<(&'static str, String)>, Value)) -> Option<NumberDataPoint> {
        let value = match value {
            Value::Whole(count) => number_data_point::Value::AsInt((*count).try_into().unwrap_or(i64::MAX)),
            // JSON has no word for what is no number.
            Value::Decimal(value) if value.is_finite() => number_data_point::Value::AsDouble(*value),
            Value::Decimal(_) | Value::Histogram { .. } => return None,
        };
        Some(self.number(attributes(labels), value))
    }

    fn buckets(&self, (labels, value): &(Vec<(&'static str, String)>, Value)) -> Option<HistogramDataPoint> {
        let Value::Histogram { sum, buckets, .. } = value else { return None };
        // The last bucket has no bound.
        let bounds = buckets.iter().map(|(bound, _)| *bound).filter(|bound| bound.is_finite());
        let counts = buckets.iter().map(|(_, count)| *count).collect();
        Some(self.histogram(attributes(labels), *sum, counts, bounds.collect()))
    }

    /// A number by these attributes.
    pub(super) fn number(
        &self,
        attributes: Vec<KeyValue>,
        value: number_data_point::Value,
    ) -> NumberDataPoint {
        NumberDataPoint {
            attributes,
            start_time_unix_nano: self.since,
            time_unix_nano: self.now,
            value: Some(value),
            ..NumberDataPoint::default()
        }
    }

    /// How many values lay in which bucket; there is one more bucket than bounds.
    pub(super) fn histogram(
        &self,
        attributes: Vec<KeyValue>,
        sum: f64,
        bucket_counts: Vec<u64>,
        explicit_bounds: Vec<f64>,
    ) -> HistogramDataPoint {
        HistogramDataPoint {
            attributes,
            start_time_unix_nano: self.since,
            time_unix_nano: self.now,
            count: bucket_counts.iter().sum(),
            sum: Some(sum),
            bucket_counts,
            explicit_bounds,
            ..HistogramDataPoint::default()
        }
    }
}

fn attributes(labels: &[(&'static str, String)]) -> Vec<KeyValue> {
    labels.iter().map(|(name, value)| attribute((*name, Attribute::Text(value.clone())))).collect()
}
