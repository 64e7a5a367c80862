//! Why AWS did not answer, and what to do about it.

use std::{error::Error, time::Duration};

use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::session::Session;
use crate::signals::prices::FeedFault;

/// Most of another's text that goes into one of our sentences, in characters.
const QUOTE_MAX: usize = 200;

/// A call, for the sentences about it.
#[derive(Clone, Debug)]
pub(super) struct Call {
    /// As IAM calls it: `ec2:DescribeSpotPriceHistory`.
    pub(super) action: &'static str,
    /// Who is asked, and where: `EC2 in us-east-1`.
    pub(super) place: String,
}

/// A call that gave nothing.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    /// The sentence.
    pub(super) fault: FeedFault,
    /// AWS's own word for it.
    pub(super) code: Option<String>,
    /// Whether another endpoint of the same service could do better.
    pub(super) elsewhere: bool,
}

impl Call {
    /// The SDK gave up.
    pub(super) fn failed<E>(&self, error: &SdkError<E, HttpResponse>, session: &Session) -> Refusal
    where
        E: ProvideErrorMetadata + Error + 'static,
    {
        let Call { action, place } = self;
        let hide = |text: &str| quote(&hidden(text, session.secrets()));
        let status = error.raw_response().map(|answer| answer.status().as_u16());
        let code = error.as_service_error().and_then(|error| error.code());
        let sentence = match (error, status, code) {
            (SdkError::ServiceError(_), Some(status), Some(code)) => {
                let said = error.as_service_error().and_then(|error| error.message()).unwrap_or_default();
                let said = if said.is_empty() { String::new() } else { format!(" ('{}')", hide(said)) };
                let code = hide(code);
                let advice = advice(&code, status, action);
                format!("aws: {place} refused {action}: {code}{said}: {advice}")
            }
            (_, Some(status), _) => {
                let answer =
                    error.raw_response().and_then(|answer| answer.body().bytes()).unwrap_or_default();
                let answer = hide(&String::from_utf8_lossy(&answer[..answer.len().min(4 * QUOTE_MAX)]));
                match status {
                    200..300 => format!(
                        "aws: {place} answered {action} with HTTP {status} and what is no answer to it, '{answer}' ({}): \
                         check what answers in its place, a proxy or a wrong endpoint",
                        hide(&root(error).to_string())
                    ),
                    _ => format!(
                        "aws: {place} answered {action} with HTTP {status}, '{answer}': {}",
                        advice("", status, action)
                    ),
                }
            }
            (SdkError::ConstructionFailure(_), ..) => format!(
                "aws: {action} cannot be asked of {place}: {}: check the names of the region and the endpoint",
                hide(&chain(error))
            ),
            _ => format!(
                "aws: {place} did not answer {action}: {}: check the name of the region, the endpoint, and the network from \
                 here to there",
                hide(&chain(error))
            ),
        };
        // The SDK has no code for an answer that it could not read.
        let elsewhere = code.is_none() || status.is_none_or(|status| status >= 500);
        Refusal { fault: FeedFault(sentence), code: code.map(str::to_owned), elsewhere }
    }

    /// The time was up.
    pub(super) fn late(&self, timeout: Duration, trouble: Option<String>) -> Refusal {
        let Call { action, place } = self;
        let trouble = trouble.map(|trouble| format!(" (the last try: {trouble})")).unwrap_or_default();
        Refusal {
            fault: FeedFault(format!(
                "aws: {place} did not answer {action} within {timeout:?}{trouble}: check the network from here to there; it is \
                 asked again at the next refresh"
            )),
            code: None,
            elsewhere: true,
        }
    }

    /// The answer is one, but cannot be used.
    pub(super) fn odd(&self, found: &str) -> Refusal {
        let Call { action, place } = self;
        let fault = FeedFault(format!("aws: {place} answered {action} with {found}"));
        Refusal { fault, code: None, elsewhere: false }
    }
}

/// What to do, by AWS's code.
fn advice(code: &str, status: u16, action: &str) -> String {
    match code {
        "UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException" => format!(
            "allow {action} to these credentials (`tradewind prices check` prints the policy), and see that no boundary or \
             organisation forbids it"
        ),
        "ExpiredToken" | "ExpiredTokenException" => {
            "the credentials have expired: renew them (`aws sso login`, or a new session)".to_owned()
        }
        "RequestExpired" | "RequestTimeTooSkewed" | "RequestInTheFuture" => {
            "renew the credentials if they are temporary, and set the clock of this machine".to_owned()
        }
        "SignatureDoesNotMatch" | "InvalidSignatureException" | "IncompleteSignature" => {
            "check the secret access key, and set the clock of this machine".to_owned()
        }
        "AuthFailure" | "UnrecognizedClientException" | "InvalidClientTokenId" | "InvalidAccessKeyId" => {
            "check that the access key exists and is active, and that the region is enabled for the account".to_owned()
        }
        "OptInRequired" => "enable the region or the service for the account".to_owned(),
        "InvalidParameterValue" | "InvalidParameterException" | "ValidationException" => {
            "check the names of the machine and the region".to_owned()
        }
        _ if status == 429 || code.contains("Throttl") || code == "RequestLimitExceeded" => {
            "it is asked too often, from here or by others with this account: it is asked again at the next refresh; \
             a longer refresh helps"
                .to_owned()
        }
        _ if status >= 500 => "it is asked again at the next refresh".to_owned(),
        _ => format!("HTTP {status}; see AWS's list of its errors"),
    }
}

/// No credentials can be had.
pub(super) fn no_credentials(why: &str) -> FeedFault {
    FeedFault(format!(
        "aws: no credentials can be had: {}; give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile (`aws sso login` renews \
         one), or a role of this machine",
        quote(why)
    ))
}

/// What an error came from in the end.
fn root<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last
}

/// An error with all that it came from.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        // Many errors say what they came from themselves.
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

/// AWS repeats what it was sent where a signature is wrong, session token included.
fn hidden<'a>(text: &str, secrets: impl Iterator<Item = &'a str>) -> String {
    secrets.fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
}

/// Somebody else's text, on one line and not too long.
fn quote(text: &str) -> String {
    let clean: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let clean = clean.trim_end_matches('.');
    match clean.char_indices().nth(QUOTE_MAX) {
        Some((end, _)) => format!("{}...", &clean[..end]),
        None => clean.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_code_has_advice_of_its_own() {
        let of = |code: &str, status| advice(code, status, "pricing:GetProducts");
        assert!(of("AccessDeniedException", 400).starts_with("allow pricing:GetProducts to"));
        assert!(of("ExpiredToken", 400).contains("renew them"));
        assert!(of("RequestExpired", 400).contains("clock"));
        assert!(of("AuthFailure", 401).contains("region is enabled"));
        for (code, status) in [("RequestLimitExceeded", 503), ("ThrottlingException", 400), ("", 429)] {
            assert!(of(code, status).contains("too often"), "{code}");
        }
        assert_eq!(of("InternalError", 500), "it is asked again at the next refresh");
        assert_eq!(of("Novel", 418), "HTTP 418; see AWS's list of its errors");
    }

    #[test]
    fn secrets_are_hidden_and_long_texts_cut() {
        let said =
            hidden("should have been 'x-amz-security-token:tok/en+=\n'", ["tok/en+=", "key"].into_iter());
        assert_eq!(quote(&said), "should have been 'x-amz-security-token:*** '");
        assert_eq!(quote(&"ä".repeat(500)).chars().count(), QUOTE_MAX + 3);
    }
}
