//! What a request is by the semantic conventions of OpenTelemetry: how it came, what it asks a model for, and whose API that is.

use http::{Method, Version};
use pingora_http::RequestHeader;
use pingora_proxy::Session;

use super::context::{Attempt, Context};
use crate::signals::{
    conventions::{Inference, Way},
    ledger::{OTHER_MODELS, Tokens},
    traffic::Outcome,
};

/// The methods of RFC 9110 and 5789, which the conventions name. Any other word is a client's own.
const METHODS: [&str; 9] = ["GET", "POST", "HEAD", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];

/// What the end of a path says: the operation, and whose API it is.
const OPERATIONS: [(&str, &str, &str); 7] = [
    ("/chat/completions", "chat", "openai"),
    ("/responses", "chat", "openai"),
    ("/completions", "text_completion", "openai"),
    ("/embeddings", "embeddings", "openai"),
    ("/v1/messages", "chat", "anthropic"),
    (":generateContent", "generate_content", "gcp.gemini"),
    (":streamGenerateContent", "generate_content", "gcp.gemini"),
];

/// Whose API is behind a host with this end. What is not here speaks the API of one of these for somebody else.
const PROVIDERS: [(&str, &str); 13] = [
    ("api.openai.com", "openai"),
    ("api.anthropic.com", "anthropic"),
    ("openai.azure.com", "azure.ai.openai"),
    ("services.ai.azure.com", "azure.ai.inference"),
    ("aiplatform.googleapis.com", "gcp.vertex_ai"),
    ("generativelanguage.googleapis.com", "gcp.gemini"),
    ("api.cohere.com", "cohere"),
    ("api.deepseek.com", "deepseek"),
    ("api.groq.com", "groq"),
    ("api.mistral.ai", "mistral_ai"),
    ("api.perplexity.ai", "perplexity"),
    ("api.x.ai", "x_ai"),
    ("ml.cloud.ibm.com", "ibm.watsonx.ai"),
];

/// How the host of AWS Bedrock begins and ends, with the region between.
const BEDROCK: (&str, &str) = ("bedrock-runtime", ".amazonaws.com");

/// Whose API a backend of this host has; `None` if the host does not say.
pub(super) fn provider_of(host: &str) -> Option<&'static str> {
    let host = host.to_ascii_lowercase();
    if host.starts_with(BEDROCK.0) && host.ends_with(BEDROCK.1) {
        return Some("aws.bedrock");
    }
    PROVIDERS.iter().find(|(end, _)| host.ends_with(end)).map(|(_, provider)| *provider)
}

/// What a request asks a model for, and whose API it speaks; `None` if it is none for a model. All inference is a POST.
pub(super) fn operation_of(head: &RequestHeader) -> Option<(&'static str, &'static str)> {
    if head.method != Method::POST {
        return None;
    }
    let path = head.uri.path();
    OPERATIONS
        .iter()
        .find(|(end, ..)| path.ends_with(end))
        .map(|(_, operation, provider)| (*operation, *provider))
}

/// How a request came.
pub(super) fn way_of(session: &Session) -> Way {
    let head = session.req_header();
    let method = METHODS.into_iter().find(|method| *method == head.method.as_str());
    Way {
        method: method.unwrap_or("_OTHER"),
        scheme: if session.digest().is_some_and(|digest| digest.ssl_digest.is_some()) {
            "https"
        } else {
            "http"
        },
        version: match head.version {
            Version::HTTP_2 => "2",
            Version::HTTP_10 => "1.0",
            _ => "1.1",
        },
    }
}

impl Context {
    /// Counts what a model was asked for, where somebody collects that.
    pub(super) fn note_inference(
        &self,
        head: &RequestHeader,
        attempt: &Attempt,
        outcome: &Outcome,
        tokens: Option<&Tokens>,
    ) {
        if self.way.is_none() {
            return;
        }
        let Some((operation, flavor)) = operation_of(head) else { return };
        let asked = self.model.as_ref().map(|model| &model.model).filter(|name| &***name != OTHER_MODELS);
        let aliases = self.lane().and_then(|lane| lane.aliases.as_ref());
        let alias = asked.and_then(|asked| aliases?.get(&**asked));
        let what = Inference {
            operation,
            provider: self.target().and_then(|target| target.provider).unwrap_or(flavor),
            asked: asked.cloned(),
            given: alias.map(|alias| alias.name.clone()),
        };
        attempt.meter.conventional.infer(what, outcome, tokens, attempt.first_byte);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn providers_are_told_by_their_hosts() {
        for (host, provider) in [
            ("api.openai.com", Some("openai")),
            ("us-central1-aiplatform.googleapis.com", Some("gcp.vertex_ai")),
            ("Bedrock-Runtime.eu-west-1.amazonaws.com", Some("aws.bedrock")),
            ("mine.openai.azure.com", Some("azure.ai.openai")),
            ("vllm.internal", None),
            ("s3.eu-west-1.amazonaws.com", None),
        ] {
            assert_eq!(provider_of(host), provider, "{host}");
        }
    }

    #[test]
    fn operations_are_told_by_the_end_of_a_path() {
        let of = |method: &str, path: &str| {
            operation_of(&RequestHeader::build(method, path.as_bytes(), None).unwrap())
        };
        assert_eq!(of("POST", "/v1/chat/completions?x=1"), Some(("chat", "openai")));
        assert_eq!(of("POST", "/v1/completions"), Some(("text_completion", "openai")));
        assert_eq!(of("POST", "/v1/messages"), Some(("chat", "anthropic")));
        let gemini = Some(("generate_content", "gcp.gemini"));
        assert_eq!(of("POST", "/v1beta/models/gemini:streamGenerateContent"), gemini);
        assert_eq!(of("POST", "/v1/threads/1/messages"), None, "a thread is no model");
        assert_eq!(of("GET", "/v1/chat/completions"), None, "a list of old ones asks no model");
    }
}
