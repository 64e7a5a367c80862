//! The load of one server in its own metrics, in the Prometheus text format.

use super::reading::{Said, checked};

/// What a metric says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    /// Requests that wait. Series (models, engines) add up.
    Waiting,
    /// Requests that are worked on. Series add up.
    Running,
    /// Part of a resource in use, 0 to 1. Of several the fullest counts: it is what runs out first.
    Saturation,
}

/// A metric of a known server.
struct Known {
    name: &'static str,
    /// A label that the series must have.
    only: Option<(&'static str, &'static str)>,
    means: Means,
}

const fn known(name: &'static str, means: Means) -> Known {
    Known { name, only: None, means }
}

const fn known_if(name: &'static str, label: &'static str, value: &'static str, means: Means) -> Known {
    Known { name, only: Some((label, value)), means }
}

/// The metrics that are understood.
///
/// - vLLM: docs/design/metrics.md of its repository; `gpu_cache_usage_perc` is the name before 0.10.
/// - Text Generation Inference: <https://huggingface.co/docs/text-generation-inference/reference/metrics>.
/// - Triton: <https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/metrics.html>; those of
///   its TensorRT-LLM backend as in the model server protocol of the Gateway API Inference Extension (proposal 003). Its
///   `nv_inference_queue_duration_us` is not read: it is a counter, and behind a load balancer two looks at it may be at two
///   replicas.
/// - SGLang: <https://docs.sglang.io/references/production_metrics.html>.
const KNOWN: [Known; 13] = [
    known("vllm:num_requests_waiting", Means::Waiting),
    known("vllm:num_requests_running", Means::Running),
    known("vllm:kv_cache_usage_perc", Means::Saturation),
    known("vllm:gpu_cache_usage_perc", Means::Saturation),
    known("tgi_queue_size", Means::Waiting),
    known("tgi_batch_current_size", Means::Running),
    known("nv_inference_pending_request_count", Means::Waiting),
    known("nv_gpu_utilization", Means::Saturation),
    known_if("nv_trt_llm_request_metrics", "request_type", "scheduled", Means::Running),
    known_if("nv_trt_llm_kv_cache_block_metrics", "kv_cache_block_type", "fraction", Means::Saturation),
    known("sglang:num_queue_reqs", Means::Waiting),
    known("sglang:num_running_reqs", Means::Running),
    known("sglang:token_usage", Means::Saturation),
];

/// Labels by which SGLang and others tell the parts of one engine, each of which reports the whole engine: only the first
/// part counts.
const RANKS: [&str; 2] = ["tp_rank", "pp_rank"];

/// Reads what is known in the metrics.
///
/// # Errors
/// When nothing in it is known, or a value is none: in words for a status line.
pub(super) fn read(text: &str) -> Result<Said, String> {
    let mut said = Said::default();
    for line in text.lines() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name_end = line.find(|c: char| c == '{' || c.is_ascii_whitespace()).unwrap_or(line.len());
        let Some(known) = KNOWN.iter().find(|known| known.name == &line[..name_end]) else { continue };
        let (labels, rest) = labels_of(&line[name_end..])
            .ok_or_else(|| format!("`{}` has labels that do not end", known.name))?;
        let label = |name: &str| labels.iter().find(|(label, _)| *label == name).map(|(_, value)| *value);
        let is_meant = known.only.is_none_or(|(name, value)| label(name) == Some(value));
        if !is_meant || RANKS.iter().any(|rank| label(rank).is_some_and(|rank| !matches!(rank, "0" | ""))) {
            continue;
        }
        let written = rest.split_ascii_whitespace().next().unwrap_or_default();
        let value = written
            .parse()
            .map_err(|_| format!("`{}` is `{written}`, expected a number", known.name))
            .and_then(|value| checked(known.name, value, known.means == Means::Saturation))?;
        let (slot, join): (_, fn(f64, f64) -> f64) = match known.means {
            Means::Waiting => (&mut said.queued, |a, b| a + b),
            Means::Running => (&mut said.running, |a, b| a + b),
            Means::Saturation => (&mut said.saturation, f64::max),
        };
        *slot = Some(slot.map_or(value, |so_far| join(so_far, value)));
    }
    if said == Said::default() {
        return Err("none of the metrics that are understood is there (vLLM, TGI, Triton, SGLang), such as \
                    `vllm:num_requests_waiting` or `tgi_queue_size`; is it the right path, and are metrics switched on?"
            .into());
    }
    Ok(said)
}

/// The labels at the beginning of `text`, if it begins with `{`, and what comes after. Escapes stay as they are: no label that
/// is looked at has any. `None` when they do not end.
fn labels_of(text: &str) -> Option<(Vec<(&str, &str)>, &str)> {
    let Some(mut rest) = text.strip_prefix('{') else { return Some((Vec::new(), text)) };
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Some((labels, after));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let mut escaped = false;
        let end = quoted.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        })?;
        labels.push((name.trim(), &quoted[..end]));
        rest = &quoted[end + 1..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(queued: Option<f64>, running: Option<f64>, saturation: Option<f64>) -> Said {
        Said { ready: None, queued, running, saturation }
    }

    // The texts have the shapes of the servers' own documentation; the figures are made up.

    #[test]
    fn vllm_as_it_is_and_as_it_was() {
        let new = r#"# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="unsloth/Llama-3.2-1B-Instruct"} 8.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="unsloth/Llama-3.2-1B-Instruct"} 3.0
vllm:num_requests_waiting{engine="1",model_name="unsloth/Llama-3.2-1B-Instruct"} 2.0
# TYPE vllm:kv_cache_usage_perc gauge
vllm:kv_cache_usage_perc{engine="0",model_name="unsloth/Llama-3.2-1B-Instruct"} 0.4357
vllm:kv_cache_usage_perc{engine="1",model_name="unsloth/Llama-3.2-1B-Instruct"} 0.91
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.001",model_name="unsloth/Llama-3.2-1B-Instruct"} 0.0
vllm:time_to_first_token_seconds_count{engine="0",model_name="unsloth/Llama-3.2-1B-Instruct"} 140.0
"#;
        assert_eq!(read(new), Ok(said(Some(5.0), Some(8.0), Some(0.91))));
        let old = "vllm:num_requests_waiting{model_name=\"m\"} 0.0\nvllm:gpu_cache_usage_perc{model_name=\"m\"} 0.25\n";
        assert_eq!(read(old), Ok(said(Some(0.0), None, Some(0.25))));
    }

    #[test]
    fn tgi() {
        let text = "# TYPE tgi_queue_size gauge\ntgi_queue_size 5\n\n# TYPE tgi_batch_current_size gauge\n\
                    tgi_batch_current_size 12\n# TYPE tgi_request_count counter\ntgi_request_count 2034\n";
        assert_eq!(read(text), Ok(said(Some(5.0), Some(12.0), None)));
    }

    #[test]
    fn triton_and_tensorrt_llm() {
        let text = r#"# HELP nv_inference_pending_request_count Instantaneous number of pending requests awaiting execution per-model.
# TYPE nv_inference_pending_request_count gauge
nv_inference_pending_request_count{model="resnet50",version="1"} 4
nv_inference_pending_request_count{model="bert, \"large\"} x",version="1"} 3
nv_inference_queue_duration_us{model="resnet50",version="1"} 81234
nv_gpu_utilization{gpu_uuid="GPU-1"} 0.73
nv_gpu_utilization{gpu_uuid="GPU-2"} 0.81
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="waiting",version="1"} 9
nv_trt_llm_request_metrics{model="tensorrt_llm",request_type="scheduled",version="1"} 7
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="used",model="tensorrt_llm",version="1"} 6239
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="tensorrt_llm",version="1"} 0.97
"#;
        // The waiting requests of the TensorRT-LLM backend are pending in Triton's own count too.
        assert_eq!(read(text), Ok(said(Some(7.0), Some(7.0), Some(0.97))));
    }

    #[test]
    fn sglang_counts_one_part_of_each_engine() {
        let text = r#"sglang:token_usage{model_name="meta-llama/Llama-3.1-8B-Instruct"} 0.28
sglang:num_queue_reqs{dp_rank="0",model_name="m",tp_rank="0"} 2.0
sglang:num_queue_reqs{dp_rank="0",model_name="m",tp_rank="1"} 2.0
sglang:num_queue_reqs{dp_rank="1",model_name="m",tp_rank="0"} 1.0
sglang:num_running_reqs{model_name="m"} 162.0 1700000000000
"#;
        assert_eq!(read(text), Ok(said(Some(3.0), Some(162.0), Some(0.28))));
    }

    #[test]
    fn nonsense_is_a_fault_in_words() {
        for (text, words) in [
            ("", "none of the metrics"),
            ("go_goroutines 12\nvllm:num_requests_waitingx 3", "none of the metrics"),
            ("<html>not found</html>", "none of the metrics"),
            ("tgi_queue_size NaN", "`tgi_queue_size` is NaN"),
            ("tgi_queue_size +Inf", "`tgi_queue_size` is inf"),
            ("tgi_queue_size -1", "`tgi_queue_size` is -1"),
            ("tgi_queue_size", "`tgi_queue_size` is ``, expected a number"),
            ("tgi_queue_size{a=\"b} 1", "labels that do not end"),
            ("vllm:kv_cache_usage_perc 43.5", "expected 0 to 1"),
        ] {
            let fault = read(text).expect_err(text);
            assert!(fault.contains(words), "{text}: {fault}");
        }
    }
}
