//! Where metrics go: into a text for scrapers, or into points for a collector.

use prometheus_client::{
    encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

use crate::signals::traffic::Histogram;

pub(super) type Labels<'a> = Vec<(&'static str, &'a str)>;
pub(super) type Written = Result<(), std::fmt::Error>;

/// A metric with all its points.
#[derive(Debug)]
pub struct Measured {
    /// Its name, without the `_total` of counters.
    pub name: String,
    /// What it says.
    pub help: String,
    /// Whether it only ever rises.
    pub counter: bool,
    /// Its points by their labels.
    pub points: Vec<(Vec<(&'static str, String)>, Value)>,
}

/// What a point says.
#[derive(Debug)]
pub enum Value {
    /// A count.
    Whole(u64),
    /// An amount.
    Decimal(f64),
    /// How often values lay in which range.
    Histogram {
        /// Of all values.
        sum: f64,
        /// How many there were.
        count: u64,
        /// By upper bounds, the last of which is infinite: how many lay between it and the one before.
        buckets: Vec<(f64, u64)>,
    },
}

/// Where metrics go.
pub(super) enum Sink<'a> {
    Text(DescriptorEncoder<'a>),
    Points(&'a mut Vec<Measured>),
}

/// Where the points of one metric go.
pub(super) enum Family<'a> {
    Text(MetricEncoder<'a>),
    Points(&'a mut Measured),
}

/// Begins a metric.
pub(super) fn family<'a>(
    sink: &'a mut Sink<'_>,
    name: &'a str,
    help: &'a str,
    kind: MetricType,
) -> Result<Family<'a>, std::fmt::Error> {
    match sink {
        Sink::Text(encoder) => encoder.encode_descriptor(name, help, None, kind).map(Family::Text),
        Sink::Points(all) => {
            let counter = matches!(kind, MetricType::Counter);
            all.push(Measured { name: name.into(), help: help.into(), counter, points: Vec::new() });
            all.last_mut().map(Family::Points).ok_or(std::fmt::Error)
        }
    }
}

impl Family<'_> {
    pub(super) fn gauge(&mut self, labels: Labels<'_>, value: f64) -> Written {
        match self {
            Family::Text(encoder) => ConstGauge::new(value).encode(encoder.encode_family(&labels)?),
            Family::Points(of) => of.add(labels, Value::Decimal(value)),
        }
    }

    pub(super) fn counter(&mut self, labels: Labels<'_>, value: u64) -> Written {
        match self {
            Family::Text(encoder) => ConstCounter::new(value).encode(encoder.encode_family(&labels)?),
            Family::Points(of) => of.add(labels, Value::Whole(value)),
        }
    }

    pub(super) fn counter_f64(&mut self, labels: Labels<'_>, value: f64) -> Written {
        match self {
            Family::Text(encoder) => ConstCounter::new(value).encode(encoder.encode_family(&labels)?),
            Family::Points(of) => of.add(labels, Value::Decimal(value)),
        }
    }

    pub(super) fn histogram(&mut self, labels: Labels<'_>, histogram: &Histogram) -> Written {
        let (sum, count, cumulative) = histogram.cumulative();
        let mut before = 0;
        let mut buckets: Vec<(f64, u64)> = Vec::with_capacity(cumulative.len() + 1);
        for (bound, total) in cumulative {
            buckets.push((bound, total - before));
            before = total;
        }
        buckets.push((f64::INFINITY, count - before));
        match self {
            Family::Text(encoder) => encoder
                .encode_family(&labels)?
                .encode_histogram::<[(&str, &str); 0]>(sum, count, &buckets, None),
            Family::Points(of) => of.add(labels, Value::Histogram { sum, count, buckets }),
        }
    }
}

impl Measured {
    fn add(&mut self, labels: Labels<'_>, value: Value) -> Written {
        let labels = labels.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
        self.points.push((labels, value));
        Ok(())
    }
}
