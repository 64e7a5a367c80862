//! Metrics as the semantic conventions of OpenTelemetry have them: their names, units, attributes and bounds.

use std::{hash::Hash, sync::Arc};

use opentelemetry_proto::tonic::metrics::v1::{
    HistogramDataPoint, Metric, NumberDataPoint, metric::Data, number_data_point,
};

use super::{
    attribute,
    points::{Moment, histogram, sum},
};
use crate::{
    signals::{
        conventions::{
            Answered, Distribution, FIRST_TOKEN_BOUNDS, Failure, Inference, OPERATION_BOUNDS, REQUEST_BOUNDS,
            Series, TOKEN_BOUNDS, TokenKind, Way,
        },
        traces::Attribute,
        traffic::{Meter, MeterKey},
    },
    telemetry::metrics::View,
};

/// The version of the conventions that these names and attributes are from.
pub(super) const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.37.0";

/// Durations are counted in microseconds and told in seconds.
const PER_SECOND: f64 = 1e6;

type Attributes = Vec<(&'static str, Attribute)>;

/// All of them that have a point.
pub(super) fn metrics(view: &View, moment: &Moment) -> Vec<Metric> {
    let told = Told { view, moment };
    let requests = told.of(&REQUEST_BOUNDS, PER_SECOND, |meter| &meter.conventional.requests, request);
    let tokens = told.of(&TOKEN_BOUNDS, 1.0, |meter| &meter.conventional.tokens, token);
    let operations =
        told.of(&OPERATION_BOUNDS, PER_SECOND, |meter| &meter.conventional.operations, operation);
    let firsts =
        told.of(&FIRST_TOKEN_BOUNDS, PER_SECOND, |meter| &meter.conventional.first_tokens, inference);
    let histograms = [
        ("http.server.request.duration", "s", "Duration of HTTP server requests.", requests),
        ("gen_ai.client.token.usage", "{token}", "Number of input and output tokens used.", tokens),
        (
            "gen_ai.server.request.duration",
            "s",
            "Generative AI server request duration such as time-to-last byte or last output token.",
            operations,
        ),
        (
            "gen_ai.server.time_to_first_token",
            "s",
            "Time to generate first token for successful responses.",
            firsts,
        ),
    ];
    let with_points = histograms.into_iter().filter(|(.., points)| !points.is_empty());
    let mut all: Vec<Metric> =
        with_points.map(|(name, unit, help, points)| named(name, unit, help, histogram(points))).collect();
    let active = told.active();
    if !active.is_empty() {
        let help = "Number of active HTTP server requests.";
        all.push(named("http.server.active_requests", "{request}", help, sum(active, false)));
    }
    all
}

fn named(name: &str, unit: &str, help: &str, data: Data) -> Metric {
    Metric {
        name: name.into(),
        unit: unit.into(),
        description: help.into(),
        data: Some(data),
        ..Metric::default()
    }
}

/// What is told, of when.
struct Told<'a> {
    view: &'a View,
    moment: &'a Moment,
}

impl Told<'_> {
    /// The points of a histogram over all routes and backends.
    fn of<K: Clone + Eq + Hash, const N: usize>(
        &self,
        bounds: &[u64; N],
        per_unit: f64,
        series: fn(&Meter) -> &Series<K, Distribution<N>>,
        says: fn(&MeterKey, &K) -> Attributes,
    ) -> Vec<HistogramDataPoint> {
        let of = |(key, meter): &(MeterKey, Arc<Meter>)| {
            let all = series(meter).all().into_iter();
            all.map(|(what, distribution)| {
                let (counts, sum) = distribution.counts();
                let attributes = says(key, &what).into_iter().map(attribute).collect();
                let bounds = bounds.iter().map(|bound| *bound as f64 / per_unit).collect();
                self.moment.histogram(attributes, sum as f64 / per_unit, counts, bounds)
            })
            .collect::<Vec<_>>()
        };
        self.view.meters.iter().flat_map(of).collect()
    }

    fn active(&self) -> Vec<NumberDataPoint> {
        let point = |((method, scheme), count): ((&'static str, &'static str), u64)| {
            let attributes = [text("http.request.method", method), text("url.scheme", scheme)];
            let value = number_data_point::Value::AsInt(count.try_into().unwrap_or(i64::MAX));
            self.moment.number(attributes.into_iter().map(attribute).collect(), value)
        };
        self.view.active.all().into_iter().map(point).collect()
    }
}

fn text(name: &'static str, value: impl Into<String>) -> (&'static str, Attribute) {
    (name, Attribute::Text(value.into()))
}

/// Which route and backend it was.
fn place((route, backend): &MeterKey) -> Attributes {
    let route = route.iter().map(|route| text("tradewind.route", route.as_str()));
    let backend = backend.iter().map(|backend| text("tradewind.backend", backend.as_str()));
    route.chain(backend).collect()
}

/// `http.route` is the name of the route: it may match by several paths, by a host or by a model.
fn request(key: &MeterKey, of: &Answered) -> Attributes {
    let Answered { way: Way { method, scheme, version }, status, error } = of;
    let mut says = place(key);
    says.extend(key.0.iter().map(|route| text("http.route", route.as_str())));
    says.push(text("http.request.method", *method));
    says.push(text("url.scheme", *scheme));
    says.push(text("network.protocol.version", *version));
    says.extend(status.map(|status| ("http.response.status_code", Attribute::Number(status.into()))));
    says.extend(error.map(|error| text("error.type", error.text())));
    says
}

fn inference(key: &MeterKey, of: &Inference) -> Attributes {
    let Inference { operation, provider, asked, given } = of;
    let mut says = place(key);
    says.push(text("gen_ai.operation.name", *operation));
    says.push(text("gen_ai.provider.name", *provider));
    says.extend(asked.iter().map(|model| text("gen_ai.request.model", &**model)));
    says.extend(given.iter().map(|model| text("gen_ai.response.model", &**model)));
    says
}

fn operation(key: &MeterKey, (of, error): &(Inference, Option<Failure>)) -> Attributes {
    let mut says = inference(key, of);
    says.extend(error.map(|error| text("error.type", error.text())));
    says
}

fn token(key: &MeterKey, (of, kind): &(Inference, TokenKind)) -> Attributes {
    let mut says = inference(key, of);
    says.push(text("gen_ai.token.type", kind.as_str()));
    says
}
