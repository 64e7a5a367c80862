//! The load of a backend as a Prometheus server knows it: instant queries of its HTTP API
//! (<https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries>).

use std::fmt::Write as _;

use serde::Deserialize;

use super::reading::checked;
use crate::model::PromqlSource;

/// Most characters of an expression or of the server's words that a fault shows.
const SHOWN_MAX: usize = 200;

/// A figure that a source asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Figure {
    Ready,
    Queued,
    Saturation,
}

/// The expressions of a source.
pub(super) fn expressions(source: &PromqlSource) -> Vec<(Figure, &str)> {
    let text = |figure| match figure {
        Figure::Ready => source.ready.as_deref(),
        Figure::Queued => source.queued.as_deref(),
        Figure::Saturation => source.saturation.as_deref(),
    };
    Figure::ALL.into_iter().filter_map(|figure| Some((figure, text(figure)?))).collect()
}

impl Figure {
    /// Every figure.
    pub(super) const ALL: [Figure; 3] = [Figure::Ready, Figure::Queued, Figure::Saturation];

    /// The key in the configuration.
    pub(super) fn key(self) -> &'static str {
        match self {
            Figure::Ready => "ready",
            Figure::Queued => "queued",
            Figure::Saturation => "saturation",
        }
    }
}

/// Path and query of the question, behind the server's own path.
pub(super) fn question(server_path: &str, expression: &str) -> String {
    let mut path = format!("{}/api/v1/query?query=", server_path.trim_end_matches('/'));
    for byte in expression.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                path.push(char::from(byte))
            }
            other => {
                let _ = write!(path, "%{other:02X}");
            }
        }
    }
    path
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    data: Option<Data>,
    #[serde(default)]
    error: Option<String>,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Vector(Vec<Sample>),
    Scalar((f64, String)),
    Matrix(serde::de::IgnoredAny),
    String(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct Sample {
    /// Absent where the sample is a native histogram.
    #[serde(default)]
    value: Option<(f64, String)>,
}

/// The one value in an answer, whatever its status: Prometheus explains a refusal in the same form.
///
/// # Errors
/// When it is not one sample, or makes no sense: in words.
pub(super) fn value(figure: Figure, expression: &str, status: u16, body: &[u8]) -> Result<f64, String> {
    let wrong = |why: String| format!("`{}` ({}): {why}", figure.key(), shown(expression));
    let answer: Answer = serde_json::from_slice(body)
        .map_err(|error| wrong(format!("HTTP {status}, and the answer is not one of Prometheus: {error}")))?;
    let data = match (answer.data, answer.error) {
        (Some(data), None) => data,
        (_, Some(error)) => return Err(wrong(format!("refused: {}", shown(&error)))),
        (None, None) => return Err(wrong(format!("HTTP {status} without a result"))),
    };
    let one = "expected one sample; aggregate it, for instance with sum()";
    let written = match data {
        Data::Scalar((_, value)) => value,
        Data::Vector(samples) => match <[Sample; 1]>::try_from(samples) {
            Ok([Sample { value: Some((_, value)) }]) => value,
            Ok(_) => return Err(wrong(format!("the sample is a histogram, {one}"))),
            Err(samples) if samples.is_empty() => {
                return Err(wrong("no sample: nothing matches, or it is no longer scraped".into()));
            }
            Err(samples) => return Err(wrong(format!("{} samples, {one}", samples.len()))),
        },
        Data::Matrix(_) | Data::String(_) => {
            return Err(wrong(format!("the result is neither a scalar nor a vector, {one}")));
        }
    };
    // Prometheus spells what is no number `NaN`, `+Inf` and `-Inf`, which all parse.
    let number = written.parse().map_err(|_| wrong(format!("`{}` is not a number", shown(&written))))?;
    checked("value", number, figure == Figure::Saturation).map_err(wrong)
}

fn shown(text: &str) -> String {
    let short: String = text.chars().take(SHOWN_MAX).collect();
    if short.len() < text.len() { format!("{short}…") } else { short }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPRESSION: &str = "sum(kube_deployment_status_replicas_ready{deployment=\"llama\"})";

    fn read(figure: Figure, body: &str) -> Result<f64, String> {
        value(figure, EXPRESSION, 200, body.as_bytes())
    }

    #[test]
    fn the_question_is_percent_encoded() {
        assert_eq!(question("/", "sum(a{b=\"c d\"})"), "/api/v1/query?query=sum%28a%7Bb%3D%22c%20d%22%7D%29");
        assert_eq!(question("/prometheus/", "ä"), "/prometheus/api/v1/query?query=%C3%A4");
    }

    #[test]
    fn a_vector_of_one_and_a_scalar() {
        let vector = r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1435781451.781,"3"]}]}}"#;
        assert_eq!(read(Figure::Ready, vector), Ok(3.0));
        let scalar = r#"{"status":"success","data":{"resultType":"scalar","result":[1435781451.781,"0.5"]},"warnings":[]}"#;
        assert_eq!(read(Figure::Saturation, scalar), Ok(0.5));
    }

    #[test]
    fn anything_else_is_a_fault_in_words() {
        let vector = |samples: &str| {
            format!(
                "{{\"status\":\"success\",\"data\":{{\"resultType\":\"vector\",\"result\":[{samples}]}}}}"
            )
        };
        let sample = |value: &str| vector(&format!("{{\"metric\":{{}},\"value\":[1,\"{value}\"]}}"));
        for (body, words) in [
            (vector(""), "no sample: nothing matches"),
            (
                vector("{\"metric\":{},\"value\":[1,\"1\"]},{\"metric\":{},\"value\":[1,\"2\"]}"),
                "2 samples, expected one sample",
            ),
            (vector("{\"metric\":{},\"histogram\":[1,{}]}"), "a histogram"),
            (sample("NaN"), "is NaN"),
            (sample("+Inf"), "is inf"),
            (sample("-1"), "is -1"),
            (sample("87"), "a part, not a percentage"),
            (sample("many"), "not a number"),
            (
                r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#.into(),
                "neither a scalar nor",
            ),
            (
                r#"{"status":"error","errorType":"bad_data","error":"parse error: unexpected end"}"#.into(),
                "refused: parse error",
            ),
            (r#"{"status":"success"}"#.into(), "without a result"),
            ("<html>".into(), "not one of Prometheus"),
        ] {
            let fault = read(Figure::Saturation, &body).expect_err(&body);
            assert!(fault.contains(words) && fault.starts_with("`saturation` (sum("), "{body}: {fault}");
        }
    }
}
