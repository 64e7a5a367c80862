//! Values that the file holds as text: how each is read, written and described. Every notation is defined here, once.

mod web;

use std::{borrow::Cow, fmt, marker::PhantomData, net::SocketAddr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor},
    ser::SerializeMap,
};

pub(super) use web::{
    HeaderName, HeaderValue, LoadPlace, ModelName, ProbePath, ServerName, ServerUrl, ServiceUrl,
};

use crate::model::{
    BackendId, Digest, Endpoint, HostPattern, ModelPattern, Network, PathPattern, PolicyId, Ramp, RouteId,
    Share, TenantId, Timestamp,
};

/// The longest duration accepted. Nothing that Tradewind waits for takes a month; a longer one is a slip of the unit.
const DURATION_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

/// Text that means something.
pub(super) trait Leaf: Sized {
    /// Its `format` in the JSON Schema, by which the check finds `parse`.
    const FORMAT: &'static str;
    /// How it is written.
    const EXAMPLES: &'static [&'static str];
    /// Whether a bare number will do too.
    const NUMBER: bool = false;
    /// Reads it. The error is a sentence that says what was found and what was expected.
    fn parse(text: &str) -> Result<Self, String>;
    /// Writes it so that `parse` reads the same value.
    fn show(&self) -> String;
}

/// A leaf in a document.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Text<T>(pub(super) T);

impl<'de, T: Leaf> Deserialize<'de> for Text<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::String(text) => text,
            other => other.to_string(),
        };
        T::parse(&text).map(Text).map_err(de::Error::custom)
    }
}

impl<T: Leaf> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.show())
    }
}

impl<T: Leaf> JsonSchema for Text<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        T::FORMAT.into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let kind = if T::NUMBER { serde_json::json!(["string", "number"]) } else { "string".into() };
        json_schema!({ "type": kind, "format": T::FORMAT, "examples": T::EXAMPLES })
    }
}

/// One leaf, or a list of them.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(untagged)]
#[serde(bound(deserialize = "T: Leaf", serialize = "T: Leaf"))]
pub(super) enum OneOrMany<T> {
    // First: a leaf would take the text of a list for its own.
    Many(Vec<Text<T>>),
    One(Text<T>),
}

impl<T> OneOrMany<T> {
    pub(super) fn all(&self) -> &[Text<T>] {
        match self {
            OneOrMany::One(one) => std::slice::from_ref(one),
            OneOrMany::Many(many) => many,
        }
    }
}

impl<T: Leaf> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany_{}", T::FORMAT).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = Text::<T>::json_schema(generator);
        // Each of a route's patterns is a condition of its own to the request path.
        let many = json_schema!({ "type": "array", "items": one, "minItems": 1, "maxItems": 100 });
        json_schema!({ "anyOf": [one, many] })
    }
}

/// A table whose keys the operator chooses, in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Named<K, V>(pub(super) Vec<(K, V)>);

impl<K, V> Default for Named<K, V> {
    fn default() -> Self {
        Named(Vec::new())
    }
}

impl<'de, K: Leaf, V: Deserialize<'de>> Deserialize<'de> for Named<K, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<K, V>(PhantomData<(K, V)>);
        impl<'de, K: Leaf, V: Deserialize<'de>> Visitor<'de> for Entries<K, V> {
            type Value = Named<K, V>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, V>()? {
                    entries.push((K::parse(&key).map_err(de::Error::custom)?, value));
                }
                Ok(Named(entries))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}

impl<K: Leaf, V: Serialize> Serialize for Named<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(&key.show(), value)?;
        }
        map.end()
    }
}

impl<K: Leaf, V: JsonSchema> JsonSchema for Named<K, V> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> Cow<'static, str> {
        format!("Named_{}", V::schema_name()).into()
    }
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "propertyNames": { "format": K::FORMAT },
            "additionalProperties": generator.subschema_for::<V>(),
        })
    }
}

macro_rules! formats {
    ($($leaf:ty),* $(,)?) => {
        /// Whether `text` is what `format` asks for. Formats of others pass.
        pub(super) fn check(format: &str, text: &str) -> Result<(), String> {
            $(if format == <$leaf>::FORMAT {
                return <$leaf as Leaf>::parse(text).map(drop);
            })*
            Ok(())
        }
    };
}

formats!(
    Duration,
    Share,
    Ramp,
    HedgeAfter,
    Rate,
    SocketAddr,
    Network,
    Timestamp,
    BackendId,
    Endpoint,
    ServiceUrl,
    ProbePath,
    LoadPlace,
    ServerUrl,
    ServerName,
    HostPattern,
    PathPattern,
    ModelPattern,
    ModelName,
    ByteSize,
    HeaderName,
    HeaderValue,
    Digest,
    LogFilter
);

/// Reads `"500ms"`, `"10m"`, `"1h30m"`: numbers with the units `d`, `h`, `m`, `s` and `ms`, the larger one first, at most
/// 30 days in all. The error says what was found and what was expected.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    parse_duration_within(text, DURATION_MAX)
}

/// As [`parse_duration`], up to `max`.
///
/// # Errors
/// What is wrong with the text.
pub fn parse_duration_within(text: &str, max: Duration) -> Result<Duration, String> {
    const UNITS: [(&str, f64); 5] = [("d", 86400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0), ("ms", 0.001)];
    let wrong = || {
        let units = "expected numbers with the units d, h, m, s or ms, such as \"10m\"";
        format!("`{text}` is not a duration: {units}")
    };
    let (mut rest, mut total, mut next_unit) = (text, Duration::ZERO, 0);
    while !rest.is_empty() || total.is_zero() && next_unit == 0 {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let index = UNITS.iter().position(|(name, _)| *name == unit).ok_or_else(wrong)?;
        let number: f64 = number.parse().ok().filter(|_| index >= next_unit).ok_or_else(wrong)?;
        total = Duration::try_from_secs_f64(number * UNITS[index].1)
            .ok()
            .and_then(|part| total.checked_add(part))
            .filter(|total| *total <= max)
            .ok_or_else(|| format!("`{text}` is too long: expected at most {}", show_duration(max)))?;
        (rest, next_unit) = (tail, index + 1);
    }
    Ok(total)
}

/// Writes a duration as [`parse_duration`] reads it.
pub(super) fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let parts =
        [(seconds / 86400, "d"), (seconds / 3600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let mut text: String =
        parts.iter().filter(|(count, _)| *count > 0).map(|(count, unit)| format!("{count}{unit}")).collect();
    let rest_ms = f64::from(duration.subsec_nanos()) / 1e6;
    if rest_ms > 0.0 {
        text += &format!("{rest_ms}ms");
    }
    if text.is_empty() { "0s".into() } else { text }
}

impl Leaf for Duration {
    const FORMAT: &'static str = "tradewind-duration";
    const EXAMPLES: &'static [&'static str] = &["500ms", "10m", "1h30m"];
    fn parse(text: &str) -> Result<Self, String> {
        parse_duration(text)
    }
    fn show(&self) -> String {
        show_duration(*self)
    }
}

impl Leaf for Share {
    const FORMAT: &'static str = "tradewind-share";
    const EXAMPLES: &'static [&'static str] = &["15%", "0.15"];
    const NUMBER: bool = true;
    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
    }
    fn show(&self) -> String {
        let rounded = self.to_string();
        if rounded.parse() == Ok(*self) { rounded } else { self.get().to_string() }
    }
}

impl Leaf for Ramp {
    const FORMAT: &'static str = "tradewind-ramp";
    const EXAMPLES: &'static [&'static str] = &["10%/m", "1%/s"];
    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
    }
    fn show(&self) -> String {
        let rounded = self.to_string();
        if rounded.parse() == Ok(*self) { rounded } else { format!("{}%/m", self.share_per_minute() * 100.0) }
    }
}

/// After how long a second request is sent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum HedgeAfter {
    /// The 95th percentile of the backend's time to first byte.
    P95,
    /// So long.
    Time(Duration),
}

impl Leaf for HedgeAfter {
    const FORMAT: &'static str = "tradewind-hedge-after";
    const EXAMPLES: &'static [&'static str] = &["p95", "800ms"];
    fn parse(text: &str) -> Result<Self, String> {
        if text == "p95" { Ok(HedgeAfter::P95) } else { parse_duration(text).map(HedgeAfter::Time) }
    }
    fn show(&self) -> String {
        match self {
            HedgeAfter::P95 => "p95".into(),
            HedgeAfter::Time(time) => show_duration(*time),
        }
    }
}

/// Requests per second, finite and above 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rate(pub(super) f64);

impl Leaf for Rate {
    const FORMAT: &'static str = "tradewind-rate";
    const EXAMPLES: &'static [&'static str] = &["12/s", "720/m"];
    const NUMBER: bool = true;
    fn parse(text: &str) -> Result<Self, String> {
        let (number, seconds) = match text.split_once('/').map(|(number, unit)| (number, unit.trim())) {
            None => (text, 1.0),
            Some((number, "s")) => (number, 1.0),
            Some((number, "m")) => (number, 60.0),
            Some((number, "h")) => (number, 3600.0),
            Some(_) => ("", 1.0),
        };
        let rate = number.trim().parse::<f64>().ok().map(|number| number / seconds);
        rate.filter(|rate| rate.is_finite() && *rate > 0.0).map(Rate).ok_or_else(|| {
            format!("`{text}` is not a rate: expected requests per second above 0, such as 12 or \"12/s\"")
        })
    }
    fn show(&self) -> String {
        format!("{}/s", self.0)
    }
}

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct ByteSize(pub(super) u64);

impl ByteSize {
    const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
}

impl Leaf for ByteSize {
    const FORMAT: &'static str = "tradewind-byte-size";
    const EXAMPLES: &'static [&'static str] = &["1MiB", "256KiB"];
    const NUMBER: bool = true;
    fn parse(text: &str) -> Result<Self, String> {
        let unit = ByteSize::UNITS.iter().find_map(|(name, bytes)| Some((text.strip_suffix(name)?, *bytes)));
        let (number, bytes) = unit.unwrap_or((text, 1));
        let number = number.trim_end().parse::<u64>().ok().filter(|_| !number.starts_with('+'));
        number.and_then(|number| number.checked_mul(bytes)).map(ByteSize).ok_or_else(|| {
            format!("`{text}` is not a size: expected whole bytes, or a number with KiB, MiB or GiB")
        })
    }
    fn show(&self) -> String {
        let whole = ByteSize::UNITS.iter().find(|(_, bytes)| self.0 > 0 && self.0.is_multiple_of(*bytes));
        whole.map_or_else(|| self.0.to_string(), |(name, bytes)| format!("{}{name}", self.0 / bytes))
    }
}

impl Leaf for SocketAddr {
    const FORMAT: &'static str = "tradewind-socket-address";
    const EXAMPLES: &'static [&'static str] = &["0.0.0.0:8080", "[::1]:9901"];
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("`{text}` is not an address to listen on: expected IP:PORT"))
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Leaf for Network {
    const FORMAT: &'static str = "tradewind-network";
    const EXAMPLES: &'static [&'static str] = &["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"];
    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

impl Leaf for Timestamp {
    const FORMAT: &'static str = "date-time";
    const EXAMPLES: &'static [&'static str] = &["2021-03-02T00:00:00Z"];
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| format!("`{text}` is not a time: expected RFC 3339 with an offset"))
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

macro_rules! name_leaf {
    ($($name:ty),*) => {$(
        impl Leaf for $name {
            const FORMAT: &'static str = "tradewind-name";
            const EXAMPLES: &'static [&'static str] = &[];
            fn parse(text: &str) -> Result<Self, String> {
                text.parse()
            }
            fn show(&self) -> String {
                self.as_str().to_owned()
            }
        }
    )*};
}
name_leaf!(BackendId, RouteId, PolicyId, TenantId);

impl Leaf for Digest {
    const FORMAT: &'static str = "tradewind-sha256";
    const EXAMPLES: &'static [&'static str] =
        &["9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"];
    fn parse(text: &str) -> Result<Self, String> {
        // What is there may be the key itself: it is not repeated.
        let wrong = || {
            format!(
                "found {} characters, expected 64 hexadecimal digits: the hash of a key, never the key itself",
                text.chars().count()
            )
        };
        Digest::from_hex(text).ok_or_else(wrong)
    }
    fn show(&self) -> String {
        self.to_string()
    }
}

/// What is logged, in the notation of `tracing-subscriber`'s `EnvFilter`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LogFilter(pub(super) String);

impl Leaf for LogFilter {
    const FORMAT: &'static str = "tradewind-log-filter";
    const EXAMPLES: &'static [&'static str] = &["info", "warn,tradewind=debug"];
    fn parse(text: &str) -> Result<Self, String> {
        tracing_subscriber::EnvFilter::builder()
            .parse(text)
            .map(|_| LogFilter(text.into()))
            .map_err(|error| format!("`{text}` is not a log filter: {error}"))
    }
    fn show(&self) -> String {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn refuses<T: Leaf + fmt::Debug>(texts: &[&str]) {
        for text in texts {
            let result = T::parse(text);
            assert!(result.is_err(), "{text:?} was read as {result:?}");
        }
    }

    pub(super) fn round_trips<T: Leaf + fmt::Debug + PartialEq>(texts: &[&str]) {
        for text in texts {
            let value = T::parse(text).expect(text);
            assert_eq!(
                T::parse(&value.show()).expect(text),
                value,
                "{text:?} was written as {:?}",
                value.show()
            );
        }
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("0s"), Ok(Duration::ZERO));
        assert_eq!(show_duration(Duration::from_millis(90_061_500)), "1d1h1m1s500ms");
        round_trips::<Duration>(&["500ms", "0s", "30d", "1d1h1m1s1ms", "0.25ms"]);
        refuses::<Duration>(&[
            "", "5", "-5s", "5 s", "5sec", "s", "1m1h", "1s1s", "31d", "1e9s", "NaNs", "..s", "٣s",
        ]);
    }

    #[test]
    fn sizes() {
        assert_eq!(ByteSize::parse("1 MiB"), Ok(ByteSize(1 << 20)));
        assert_eq!(ByteSize(1536).show(), "1536");
        round_trips::<ByteSize>(&["0", "1", "1023", "1024", "64KiB", "3GiB", "1536KiB"]);
        refuses::<ByteSize>(&["", "-1", "+1", "1.5MiB", "1MB", "MiB", "99999999999GiB"]);
    }

    #[test]
    fn networks() {
        round_trips::<Network>(&["10.0.0.0/8", "::1", "192.0.2.7", "0.0.0.0/0"]);
        refuses::<Network>(&["10.0.0.1/8", "10.0.0.0/33", "a/8", ""]);
    }

    #[test]
    fn rates_shares_and_ramps() {
        assert_eq!(Rate::parse("720/m"), Ok(Rate(12.0)));
        round_trips::<Rate>(&["12", "12.5/s", "1/h"]);
        round_trips::<Share>(&["15%", "0.123456", "0"]);
        round_trips::<HedgeAfter>(&["p95", "800ms", "1m"]);
        refuses::<HedgeAfter>(&["", "p99", "fast"]);
        round_trips::<Ramp>(&["10%/m", "1%/s", "0.123456%/h"]);
        refuses::<Rate>(&["0", "-1/s", "NaN", "inf", "12/d", "", "/s"]);
    }
}
