//! What a condition may ask for: the variables, their fields and kinds, and their values at one moment.

use std::{collections::HashMap, sync::Arc, time::Duration};

use cel::{
    Context, Value,
    objects::{Key, Map},
};
use jiff::tz::Offset;

use super::{Facts, environment};
use crate::model::{BackendView, Health, Snapshot};

/// The kind of a value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Int,
    /// A number with a fraction.
    Double,
    /// A text.
    Text,
    /// A list; of nothing known when it is empty.
    List(Option<Box<Kind>>),
    /// A value with fields.
    Record(&'static Record),
}

impl Kind {
    /// The kind with an article, for a sentence.
    pub(super) fn words(&self) -> &'static str {
        match self {
            Kind::Bool => "true or false",
            Kind::Int => "a whole number",
            Kind::Double => "a number with a fraction",
            Kind::Text => "a text",
            Kind::List(_) => "a list",
            Kind::Record(_) => "a value with fields",
        }
    }

    /// Several of the kind.
    pub(super) fn plural(&self) -> &'static str {
        match self {
            Kind::Bool => "conditions",
            Kind::Int => "whole numbers",
            Kind::Double => "numbers with a fraction",
            Kind::Text => "texts",
            Kind::List(_) => "lists",
            Kind::Record(_) => "values with fields",
        }
    }

    pub(super) fn is_number(&self) -> bool {
        matches!(self, Kind::Int | Kind::Double)
    }
}

/// A name and what it stands for.
#[derive(Debug, PartialEq)]
pub(super) struct Field {
    pub(super) name: &'static str,
    shape: Shape,
    /// Whether the value may be unknown.
    pub(super) optional: bool,
}

#[derive(Debug, PartialEq)]
enum Shape {
    Bool,
    Int,
    Double,
    Text,
    Texts,
    Record(&'static Record),
}

impl Field {
    pub(super) fn kind(&self) -> Kind {
        match &self.shape {
            Shape::Bool => Kind::Bool,
            Shape::Int => Kind::Int,
            Shape::Double => Kind::Double,
            Shape::Text => Kind::Text,
            Shape::Texts => Kind::List(Some(Box::new(Kind::Text))),
            Shape::Record(record) => Kind::Record(record),
        }
    }
}

/// The fields of a value.
#[derive(Debug, PartialEq)]
pub(super) struct Record {
    pub(super) fields: &'static [Field],
}

impl Record {
    pub(super) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        self.fields.iter().map(|field| field.name)
    }
}

const fn known(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, optional: false }
}

const fn optional(name: &'static str, shape: Shape) -> Field {
    Field { name, shape, optional: true }
}

/// The variables, as the fields of a value that has no name.
pub(super) static VARIABLES: Record = Record {
    fields: &[
        known("backend", Shape::Record(&BACKEND)),
        known("route", Shape::Record(&ROUTE)),
        known("load", Shape::Record(&LOAD)),
        known("now", Shape::Record(&NOW)),
    ],
};

static BACKEND: Record = Record {
    fields: &[
        known("id", Shape::Text),
        known("cloud", Shape::Text),
        known("platform", Shape::Text),
        known("region", Shape::Text),
        known("zones", Shape::Texts),
        known("spot", Shape::Double),
        known("price", Shape::Record(&PRICE)),
        optional("unit_cost", Shape::Double),
        known("healthy", Shape::Bool),
        known("share", Shape::Double),
        optional("ready_replicas", Shape::Int),
        optional("max_replicas", Shape::Int),
        known("latency", Shape::Record(&LATENCY)),
    ],
};

static PRICE: Record =
    Record { fields: &[optional("spot", Shape::Double), optional("on_demand", Shape::Double)] };

static LATENCY: Record = Record {
    fields: &[
        optional("probe_seconds", Shape::Double),
        optional("ttfb_p50_seconds", Shape::Double),
        optional("ttfb_p95_seconds", Shape::Double),
    ],
};

static ROUTE: Record =
    Record { fields: &[known("id", Shape::Text), optional("slo_ttft_p95_seconds", Shape::Double)] };

static LOAD: Record = Record { fields: &[known("demand_rps", Shape::Double)] };

static NOW: Record = Record {
    fields: &[
        known("hour", Shape::Int),
        known("minute", Shape::Int),
        known("weekday", Shape::Int),
        known("day", Shape::Int),
        known("month", Shape::Int),
        known("year", Shape::Int),
    ],
};

/// A value with fields; what is not known is not there, so that asking for it fails.
fn record<const N: usize>(fields: [(&'static str, Option<Value>); N]) -> Value {
    let known = fields.into_iter().filter_map(|(name, value)| Some((Key::from(name), value?)));
    Value::Map(Map { map: Arc::new(known.collect::<HashMap<_, _>>()) })
}

fn text(text: &str) -> Option<Value> {
    Some(Value::from(text))
}

fn seconds(duration: Option<Duration>) -> Option<Value> {
    duration.map(|duration| Value::Float(duration.as_secs_f64()))
}

fn backend(view: &BackendView, facts: Facts) -> Value {
    let backend = &view.backend;
    let spot = backend.node.as_ref().map_or(0.0, |node| node.spot.get());
    let probe = view.probe.map(|probe| probe.first_byte.unwrap_or(probe.connect));
    let zones: Vec<Value> = backend.zones.iter().map(|zone| Value::from(zone.as_str())).collect();
    let usd =
        |price: &Option<crate::model::Price>| price.as_ref().map(|p| Value::Float(p.usd_per_hour.get()));
    let int = |number: u32| Value::Int(number.into());
    record([
        ("id", text(backend.id.as_str())),
        ("cloud", text(&backend.cloud.to_string())),
        ("platform", text(backend.platform.as_str())),
        ("region", text(&backend.region)),
        ("zones", Some(Value::List(zones.into()))),
        ("spot", Some(Value::Float(spot))),
        ("price", Some(record([("spot", usd(&view.spot)), ("on_demand", usd(&view.on_demand))]))),
        ("unit_cost", facts.unit_cost_usd_per_1k.map(Value::Float)),
        ("healthy", Some(Value::Bool(view.health == Health::Healthy))),
        ("share", Some(Value::Float(facts.share))),
        ("ready_replicas", view.load.ready_replicas.map(int)),
        ("max_replicas", backend.replicas.as_ref().map(|replicas| int(replicas.max))),
        (
            "latency",
            Some(record([
                ("probe_seconds", seconds(probe)),
                ("ttfb_p50_seconds", seconds(view.live.ttfb_p50)),
                ("ttfb_p95_seconds", seconds(view.live.ttfb_p95)),
            ])),
        ),
    ])
}

/// The values at the moment of a snapshot.
pub(super) struct Moment {
    route: Value,
    load: Value,
    now: Value,
}

impl Moment {
    pub(super) fn of(snapshot: &Snapshot) -> Moment {
        let now = Offset::UTC.to_datetime(snapshot.at);
        let int = |number: i8| Some(Value::Int(number.into()));
        Moment {
            route: record([
                ("id", text(snapshot.route.as_str())),
                ("slo_ttft_p95_seconds", seconds(snapshot.slo.ttft_p95)),
            ]),
            load: record([("demand_rps", Some(Value::Float(snapshot.demand_rps)))]),
            now: record([
                ("hour", int(now.hour())),
                ("minute", int(now.minute())),
                ("weekday", int(now.weekday().to_monday_one_offset())),
                ("day", int(now.day())),
                ("month", int(now.month())),
                ("year", Some(Value::Int(now.year().into()))),
            ]),
        }
    }

    /// What a condition sees of one backend.
    pub(super) fn context(&self, view: &BackendView, facts: Facts) -> Context<'static, 'static> {
        let mut context = Context::with_env(environment());
        context.add_variable_from_value("backend", backend(view, facts));
        context.add_variable_from_value("route", self.route.clone());
        context.add_variable_from_value("load", self.load.clone());
        context.add_variable_from_value("now", self.now.clone());
        context
    }
}

/// Whether what a path names is known.
pub(super) fn is_known(context: &Context<'_, '_>, path: &[&str]) -> bool {
    let Some((variable, fields)) = path.split_first() else { return false };
    let Some(value) = context.get_variable(variable).and_then(|value| Value::try_from(value.as_ref()).ok())
    else {
        return false;
    };
    let found = fields.iter().try_fold(value, |value, field| match value {
        Value::Map(map) => map.map.get(&Key::from(*field)).cloned(),
        _ => None,
    });
    found.is_some()
}
