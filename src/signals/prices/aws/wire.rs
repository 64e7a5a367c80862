//! HTTP as the SDK sends it, with limits that the SDK does not set.

use std::sync::Arc;

use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::{
    http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
        SharedHttpConnector,
    },
    interceptors::context::InterceptorContext,
    orchestrator::{HttpRequest, HttpResponse},
    result::ConnectorError,
    retries::classifiers::{ClassifyRetry, RetryAction},
    runtime_components::RuntimeComponents,
};
use aws_smithy_types::body::SdkBody;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use parking_lot::Mutex;

/// Largest answer that is read, in bytes. The largest page of either API (100 products with all their reserved terms) has about
/// 3 MB.
pub(super) const ANSWER_BYTES_MAX: usize = 16 << 20;

/// An answer of EC2 with this root must also end with it.
const SPOT_ROOT: &str = "DescribeSpotPriceHistoryResponse";

/// The root is near the beginning, behind the XML declaration at most.
const ROOT_WITHIN: usize = 1024;

/// The HTTP client of everything here: TLS by rustls on ring, no proxies, no answer beyond [`ANSWER_BYTES_MAX`].
pub(super) fn client() -> SharedHttpClient {
    let tls = Provider::Rustls(CryptoMode::Ring);
    SharedHttpClient::new(Whole(Builder::new().tls_provider(tls).build_https()))
}

/// Reads every answer to its end before the SDK sees it. That costs nothing: all of them are parsed as a whole.
#[derive(Debug)]
struct Whole(SharedHttpClient);

#[derive(Debug)]
struct WholeConnector(SharedHttpConnector);

impl HttpClient for Whole {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(WholeConnector(self.0.http_connector(settings, components)))
    }
}

impl HttpConnector for WholeConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let answer = self.0.call(request);
        HttpConnectorFuture::new(async move { read(answer.await?).await })
    }
}

async fn read(mut answer: HttpResponse) -> Result<HttpResponse, ConnectorError> {
    let body = std::mem::replace(answer.body_mut(), SdkBody::taken());
    let bytes = match Limited::new(body, ANSWER_BYTES_MAX).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            let why = format!("the answer is longer than {} MiB", ANSWER_BYTES_MAX >> 20);
            return Err(ConnectorError::other(why.into(), None));
        }
        Err(error) => return Err(ConnectorError::io(error)),
    };
    if cut_off(&bytes) {
        return Err(ConnectorError::io("the answer ends in the middle".into()));
    }
    *answer.body_mut() = SdkBody::from(bytes);
    Ok(answer)
}

/// Whether an answer of EC2 ends before its end. The SDK's XML reader takes that for an answer with fewer rows, and half a
/// number for a number.
fn cut_off(body: &[u8]) -> bool {
    let head = String::from_utf8_lossy(&body[..body.len().min(ROOT_WITHIN)]);
    if !head.contains(&format!("<{SPOT_ROOT}")) {
        return false;
    }
    !body.trim_ascii_end().ends_with(format!("</{SPOT_ROOT}>").as_bytes())
}

/// Has a plain 429 tried again, which the SDK does only where the body says so too; and remembers why the last try failed, for
/// the call that runs out of time.
#[derive(Clone, Debug, Default)]
pub(super) struct Tries {
    trouble: Arc<Mutex<Option<String>>>,
}

impl Tries {
    /// Why the last try failed; `None` if none ended before the deadline.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.lock().clone()
    }
}

impl ClassifyRetry for Tries {
    fn classify_retry(&self, ctx: &InterceptorContext) -> RetryAction {
        let Some(Err(_)) = ctx.output_or_error() else { return RetryAction::NoActionIndicated };
        let status = ctx.response().map(|answer| answer.status().as_u16());
        *self.trouble.lock() = Some(match status {
            Some(status) => format!("HTTP {status}"),
            None => "no answer".to_owned(),
        });
        match status {
            Some(429) => RetryAction::throttling_error(),
            _ => RetryAction::NoActionIndicated,
        }
    }

    fn name(&self) -> &'static str {
        "Tradewind: 429 Too Many Requests"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_of_ec2_that_ends_early_is_noticed_at_every_byte() {
        let whole = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<DescribeSpotPriceHistoryResponse xmlns=\"x\"><item>\
                      <spotPrice>0.5</spotPrice></item><nextToken/></DescribeSpotPriceHistoryResponse>\n";
        let start = whole.windows(6).position(|part| part == b"xmlns=").expect("there is one");
        for end in start..whole.len() - 1 {
            assert!(cut_off(&whole[..end]), "{}", String::from_utf8_lossy(&whole[..end]));
        }
        assert!(!cut_off(whole));
    }

    #[test]
    fn other_answers_are_left_to_the_sdk() {
        for body in ["", "{\"PriceList\":[", "<html>", "<Response><Errors>"] {
            assert!(!cut_off(body.as_bytes()), "{body}");
        }
    }
}
