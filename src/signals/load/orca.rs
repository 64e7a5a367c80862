//! ORCA: reports of load in the headers of answers (Open Request Cost Aggregation, xDS `data/orca/v3/orca_load_report.proto`).
//!
//! vLLM and Triton send them to whoever asks with a header of the request. The text and the JSON form are read; the binary
//! one (`endpoint-load-metrics-bin`) is not.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use serde::Deserialize;

use super::{
    reading::{Said, checked},
    sum::Sum,
};

/// The header of an answer.
pub const ORCA_HEADER: &str = "endpoint-load-metrics";

/// The header of an answer in binary form.
pub const ORCA_HEADER_BIN: &str = "endpoint-load-metrics-bin";

/// The header of a request that asks for a report, with the value `TEXT`.
pub const ORCA_REQUEST_HEADER: &str = "endpoint-load-metrics-format";

/// Longest header that is read. vLLM's has about 80 bytes.
const HEADER_LEN_MAX: usize = 4096;

/// Names under `named_metrics` that say how many requests wait: that of vLLM, and plain ones.
const QUEUED: [&str; 4] = ["num_requests_waiting", "queue", "queue_size", "queued"];

/// Names under `named_metrics` that say how full the server is: those of vLLM and of Triton's TensorRT-LLM backend.
const SATURATION: [&str; 3] = ["kv_cache_usage_perc", "kv_cache_utilization", "saturation"];

/// Fractions are added up as whole numbers of this part: a tenth of a request, a hundredth of a percent. So up to 6,553 requests
/// that wait at one replica can be told.
const UNITS_PER_REQUEST: f64 = 10.0;
const UNITS_PER_WHOLE: f64 = 1e4;

/// Adds up what the answers of a backend say until somebody looks. The request path only adds: no lock, and nothing is
/// allocated unless a report makes no sense.
#[derive(Debug, Default)]
pub struct Tally {
    queued: Sum,
    saturation: Sum,
    faults: AtomicU64,
    /// What the latest report that made no sense said wrong. Only touched with one.
    fault: Mutex<Option<Arc<str>>>,
}

impl Tally {
    /// Takes the value of a header.
    pub fn note(&self, header: &[u8]) {
        match read(header) {
            Ok(said) => {
                if let Some(queued) = said.queued {
                    self.queued.add((queued * UNITS_PER_REQUEST).round() as u64);
                }
                if let Some(saturation) = said.saturation {
                    self.saturation.add((saturation * UNITS_PER_WHOLE).round() as u64);
                }
            }
            Err(why) => {
                // Once is enough until somebody has looked.
                if self.faults.fetch_add(1, Relaxed) == 0 {
                    *self.fault.lock().unwrap_or_else(PoisonError::into_inner) = Some(why.into());
                }
            }
        }
    }

    /// What the answers since the last call said on average; `None` if none said anything. An error if only nonsense came.
    pub(super) fn take(&self) -> Option<Result<Said, String>> {
        let queued = self.queued.take().map(|units| units / UNITS_PER_REQUEST);
        let saturation = self.saturation.take().map(|units| (units / UNITS_PER_WHOLE).min(1.0));
        let faults = self.faults.swap(0, Relaxed);
        if queued.is_some() || saturation.is_some() {
            return Some(Ok(Said { queued, saturation, ..Said::default() }));
        }
        let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner).take();
        (faults > 0)
            .then(|| Err(fault.map_or_else(|| "a report makes no sense".into(), |why| why.to_string())))
    }
}

#[derive(Deserialize)]
struct Json {
    application_utilization: Option<f64>,
    cpu_utilization: Option<f64>,
    #[serde(default)]
    named_metrics: BTreeMap<String, f64>,
}

/// Reads a report in text or JSON form. Saturation is the fullest of what the server names; `application_utilization` is
/// next, and `cpu_utilization` counts only where there is nothing else: a model on an accelerator does not run out of that.
fn read(header: &[u8]) -> Result<Said, String> {
    let len = header.len();
    if len > HEADER_LEN_MAX {
        return Err(format!("the header `{ORCA_HEADER}` has {len} bytes; at most {HEADER_LEN_MAX} are read"));
    }
    let text = std::str::from_utf8(header).map_err(|_| format!("the header `{ORCA_HEADER}` is not text"))?;
    let (text, is_json) = match text.trim_start() {
        text if text.starts_with('{') => (text, true),
        text => match text.split_once(' ') {
            Some((form, rest)) if form.eq_ignore_ascii_case("JSON") => (rest, true),
            Some((form, rest)) if form.eq_ignore_ascii_case("TEXT") => (rest, false),
            // vLLM leaves the word out of its text form.
            _ => (text, false),
        },
    };
    let mut found = Found::default();
    if is_json {
        let json: Json = serde_json::from_str(text)
            .map_err(|error| format!("the header `{ORCA_HEADER}` is not JSON of a report: {error}"))?;
        json.named_metrics.iter().try_for_each(|(name, value)| found.named(name, *value))?;
        let rest = [
            ("application_utilization", json.application_utilization),
            ("cpu_utilization", json.cpu_utilization),
        ];
        rest.into_iter()
            .try_for_each(|(name, value)| value.map_or(Ok(()), |value| found.plain(name, value)))?;
    } else {
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            // Envoy's own form has `:` where that of others has `=`.
            let Some((name, value)) = pair.split_once(['=', ':']) else {
                return Err(format!("the header `{ORCA_HEADER}` does not consist of NAME=VALUE"));
            };
            let (name, value) = (name.trim(), value.trim());
            let number = || {
                value
                    .parse()
                    .map_err(|_| format!("in the header `{ORCA_HEADER}` a value of `{name}` is not a number"))
            };
            match name.strip_prefix("named_metrics.") {
                Some(name) if is_named(name) => found.named(name, number()?)?,
                None if name.ends_with("_utilization") => found.plain(name, number()?)?,
                _ => {}
            }
        }
    }
    Ok(found.said())
}

fn is_named(name: &str) -> bool {
    QUEUED.contains(&name) || SATURATION.contains(&name)
}

#[derive(Default)]
struct Found {
    queued: Option<f64>,
    full: Option<f64>,
    application: Option<f64>,
    cpu: Option<f64>,
}

impl Found {
    fn named(&mut self, name: &str, value: f64) -> Result<(), String> {
        if QUEUED.contains(&name) {
            self.queued = Some(checked(name, value, false)?);
        } else if SATURATION.contains(&name) {
            let value = checked(name, value, true)?;
            self.full = Some(self.full.map_or(value, |so_far| so_far.max(value)));
        }
        Ok(())
    }

    fn plain(&mut self, name: &str, value: f64) -> Result<(), String> {
        match name {
            "application_utilization" => self.application = Some(checked(name, value, true)?),
            "cpu_utilization" => self.cpu = Some(checked(name, value, true)?),
            _ => {}
        }
        Ok(())
    }

    fn said(self) -> Said {
        let saturation = self.full.or(self.application).or(self.cpu);
        Said { queued: self.queued, saturation, ..Said::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(queued: Option<f64>, saturation: Option<f64>) -> Result<Said, String> {
        Ok(Said { queued, saturation, ..Said::default() })
    }

    #[test]
    fn the_forms_of_the_servers() {
        for (header, queued, saturation) in [
            // vLLM's text form, with and without the word.
            (
                "named_metrics.kv_cache_usage_perc=0.75,named_metrics.num_requests_waiting=3",
                Some(3.0),
                Some(0.75),
            ),
            (
                "TEXT named_metrics.kv_cache_usage_perc=0.75, named_metrics.num_requests_waiting=3",
                Some(3.0),
                Some(0.75),
            ),
            (
                r#"JSON {"named_metrics":{"kv_cache_usage_perc":0.75,"num_requests_waiting":3}}"#,
                Some(3.0),
                Some(0.75),
            ),
            (r#"{"named_metrics":{"num_requests_waiting":0}}"#, Some(0.0), None),
            // The example of Triton's documentation, with its own names for the TensorRT-LLM backend.
            (
                "TEXT cpu_utilization=0.3, mem_utilization=0.8, rps_fractional=10.0, eps=1, named_metrics.x=0.4",
                None,
                Some(0.3),
            ),
            (
                "json {\"kv\": 1, \"named_metrics\": {\"kv_cache_utilization\": 0.1, \"max_token_capacity\": 9}}",
                None,
                Some(0.1),
            ),
            // Envoy's.
            ("cpu_utilization:0.7,application_utilization:1.2,rps_fractional:1000", None, Some(1.0)),
            ("TEXT named_metrics.foo=bar,rps_fractional=2", None, None),
        ] {
            assert_eq!(read(header.as_bytes()), said(queued, saturation), "{header}");
        }
    }

    #[test]
    fn nonsense_is_a_fault() {
        let long = format!("TEXT a={}", "1".repeat(5000));
        for header in [
            "TEXT named_metrics.queue=NaN",
            "TEXT named_metrics.queue=-1",
            "TEXT named_metrics.queue=many",
            "TEXT cpu_utilization=inf",
            "TEXT application_utilization=80",
            "TEXT hello",
            "JSON {",
            "JSON []",
            &long,
        ] {
            assert!(read(header.as_bytes()).is_err(), "{header}");
        }
        assert!(read(b"\xff").is_err());
    }

    #[test]
    fn a_tally_is_the_mean_of_what_came_since_the_last_look() {
        let tally = Tally::default();
        assert_eq!(tally.take(), None);
        tally.note(b"TEXT named_metrics.queue=2,application_utilization=0.2");
        tally.note(b"TEXT named_metrics.queue=5");
        tally.note(b"TEXT nonsense");
        assert_eq!(
            tally.take(),
            Some(said(Some(3.5), Some(0.2))),
            "one bad answer among good ones says nothing"
        );
        assert_eq!(tally.take(), None, "silence is no zero");
        tally.note(b"TEXT nonsense");
        assert!(tally.take().is_some_and(|outcome| outcome.is_err()));
        tally.note(b"TEXT rps_fractional=3");
        assert_eq!(tally.take(), None, "nothing of use is nothing");
    }
}
