//! One pass over all SKUs of Compute Engine in the Cloud Billing Catalog.

use std::{collections::HashSet, sync::Arc, time::Duration};

use google_cloud_auth::credentials::{self, Credentials};
use google_cloud_billing_v1::{
    client::CloudCatalog,
    model::{ListSkusResponse, Sku},
};
use google_cloud_gax::{
    error::{Error, rpc::Code},
    exponential_backoff::ExponentialBackoffBuilder,
    options::RequestOptionsBuilder,
    retry_policy::{Aip194Strict, ClientTimeout, RetryPolicy, RetryPolicyExt, TooManyRequests},
    retry_result::RetryResult,
    retry_state::RetryState,
    retry_throttler::CircuitBreaker,
};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    refusal::{self, Identity},
    sku::CURRENCY,
};
use crate::signals::prices::{FeedFault, GcpSettings, PAUSE_MAX};

/// Compute Engine among the services of the Catalog.
const COMPUTE_ENGINE: &str = "services/6F81-5844-456A";

/// Where the Catalog is, unless the settings say otherwise.
const PUBLIC: &str = "https://cloudbilling.googleapis.com";

/// SKUs to a page: the most that the API gives.
const PAGE_SIZE: i32 = 5000;

/// Compute Engine has about 8 full pages; pauses are cut for twice as many.
const PAGES_EXPECTED: u32 = 16;

/// A list that goes on beyond ten times what is there today is not one.
const PAGES_MAX: usize = 100;

/// A way to the Catalog.
#[derive(Debug)]
pub(super) struct Catalog {
    client: CloudCatalog,
    credentials: Credentials,
    identity: Identity,
    endpoint: String,
    timeout: Duration,
}

/// How much was read.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Extent {
    pub(super) pages: usize,
    pub(super) skus: usize,
}

/// What is being done, for the sentence that says why it did not end well.
#[derive(Debug, Default)]
struct Progress {
    page: usize,
    /// The last failure that was, or will be, followed by another attempt.
    trouble: Option<String>,
}

impl Catalog {
    /// # Errors
    ///
    /// There are no credentials, or they or the URL cannot be used.
    pub(super) async fn connect(settings: &GcpSettings) -> Result<Catalog, FeedFault> {
        // The client library brings no cryptography of its own. Where the process has chosen already, that holds.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (credentials, identity) = credentials_of(settings)?;
        let endpoint = settings.endpoint.as_deref().unwrap_or(PUBLIC).to_owned();
        let build = CloudCatalog::builder()
            .with_endpoint(&endpoint)
            .with_credentials(credentials.clone())
            // Retries end at the deadline. A throttle would remember an outage of a day, and skip the first retries after it.
            .with_retry_throttler(CircuitBreaker::clamp(1, 0, 0))
            .build();
        // It asks the metadata server which domain it is in, and that may never answer.
        let client = match tokio::time::timeout(settings.timeout, build).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => {
                return Err(FeedFault(format!(
                    "gcp: the Cloud Billing Catalog at {endpoint} cannot be asked: {}; check the URL and the credentials",
                    refusal::root(&error)
                )));
            }
            Err(_) => {
                let why = format!("the metadata server did not answer within {:?}", settings.timeout);
                return Err(no_credentials(&identity, &why));
            }
        };
        Ok(Catalog { client, credentials, identity, endpoint, timeout: settings.timeout })
    }

    /// Who asks, in words.
    ///
    /// # Errors
    ///
    /// The credentials cannot be had now.
    pub(super) async fn identify(&self) -> Result<String, FeedFault> {
        match tokio::time::timeout(self.timeout, self.credentials.headers(http::Extensions::new())).await {
            Ok(Ok(_)) => Ok(self.identity.to_string()),
            Ok(Err(error)) => Err(no_credentials(&self.identity, &refusal::root(&error))),
            Err(_) => {
                Err(no_credentials(&self.identity, &format!("nothing answered within {:?}", self.timeout)))
            }
        }
    }

    /// Where it asks.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Hands every SKU of Compute Engine to `take`, page by page; no more than one page is held. Between two pages it pauses, at
    /// most [`PAUSE_MAX`] and so that the usual number of pages comes within `over`: reading one is a burst of work on a machine
    /// that serves requests. Pauses do not count against the deadline.
    ///
    /// # Errors
    ///
    /// A page could not be had in time, or is not what it should be, or `take` refused a SKU. What `take` was given before
    /// must then not be used: a missing page may hold a SKU that contradicts another.
    pub(super) async fn read(
        &self,
        over: Duration,
        take: impl FnMut(&Sku) -> Result<(), String> + Send,
    ) -> Result<Extent, FeedFault> {
        let progress = Arc::new(Mutex::new(Progress::default()));
        let why = match self.pages((over / PAGES_EXPECTED).min(PAUSE_MAX), take, &progress).await {
            Ok(extent) => return Ok(extent),
            Err(why) => why,
        };
        let page = progress.lock().page;
        Err(FeedFault(format!(
            "gcp: page {page} of services.skus.list at {}: {why}; no price of this fetch is used",
            self.endpoint
        )))
    }

    async fn pages(
        &self,
        pause: Duration,
        mut take: impl FnMut(&Sku) -> Result<(), String> + Send,
        progress: &Arc<Mutex<Progress>>,
    ) -> Result<Extent, String> {
        let mut extent = Extent::default();
        let mut remaining = self.timeout;
        let mut token = String::new();
        let mut tokens = HashSet::new();
        loop {
            *progress.lock() = Progress { page: extent.pages + 1, trouble: None };
            if extent.pages == PAGES_MAX {
                return Err(format!("the list does not end: expected at most {PAGES_MAX} pages"));
            }
            let asked = Instant::now();
            let page = match tokio::time::timeout(remaining, self.page(&token, progress)).await {
                Ok(Ok(page)) => page,
                Ok(Err(error)) => return Err(refusal::sentence(&error, &self.identity)),
                Err(_) => return Err(self.late(progress)),
            };
            remaining = remaining.saturating_sub(asked.elapsed());
            if page.skus.is_empty() {
                return Err("holds no SKU: expected some on every page".to_owned());
            }
            extent.pages += 1;
            extent.skus += page.skus.len();
            page.skus.iter().try_for_each(&mut take)?;
            token = page.next_page_token;
            if token.is_empty() {
                return Ok(extent);
            }
            if !tokens.insert(token.clone()) {
                return Err(
                    "it is followed by a page that was read before: the list runs in a circle".to_owned()
                );
            }
            tokio::time::sleep(pause).await;
        }
    }

    fn late(&self, progress: &Mutex<Progress>) -> String {
        match progress.lock().trouble.take() {
            Some(trouble) => format!("not had within {:?}; the last attempt: {trouble}", self.timeout),
            None => format!("not had within {:?}", self.timeout),
        }
    }

    async fn page(&self, token: &str, progress: &Arc<Mutex<Progress>>) -> Result<ListSkusResponse, Error> {
        let backoff = ExponentialBackoffBuilder::new()
            .with_initial_delay((self.timeout / 40).min(Duration::from_secs(1)))
            .with_maximum_delay((self.timeout / 4).min(Duration::from_secs(15)))
            .clamp();
        self.client
            .list_skus()
            .set_parent(COMPUTE_ENGINE)
            .set_currency_code(CURRENCY)
            .set_page_size(PAGE_SIZE)
            .set_page_token(token)
            .with_backoff_policy(backoff)
            .with_retry_policy(Persistent::new(progress.clone(), self.identity.clone()))
            // A connection that hangs must leave time for another.
            .with_attempt_timeout(self.timeout / 3)
            .send()
            .await
    }
}

/// The key, or what the environment says.
fn credentials_of(settings: &GcpSettings) -> Result<(Credentials, Identity), FeedFault> {
    if let Some(key) = &settings.api_key {
        let identity = Identity::ApiKey { origin: key.to_string() };
        return Ok((credentials::api_key_credentials::Builder::new(key.expose()).build(), identity));
    }
    let identity = Identity::DefaultCredentials;
    match credentials::Builder::default().build() {
        Ok(credentials) => Ok((credentials, identity)),
        Err(error) => Err(no_credentials(&identity, &refusal::root(&error))),
    }
}

fn no_credentials(identity: &Identity, why: &str) -> FeedFault {
    FeedFault(format!("gcp: {}", refusal::no_credentials(identity, why)))
}

/// Tries again until the deadline whatever may pass: overload, quota, broken connections; and nothing else.
#[derive(Debug)]
struct Persistent {
    usual: ClientTimeout<TooManyRequests<Aip194Strict>>,
    progress: Arc<Mutex<Progress>>,
    identity: Identity,
}

impl Persistent {
    fn new(progress: Arc<Mutex<Progress>>, identity: Identity) -> Persistent {
        let usual = Aip194Strict.continue_on_too_many_requests().continue_on_client_timeout();
        Persistent { usual, progress, identity }
    }
}

impl RetryPolicy for Persistent {
    fn on_error(&self, state: &RetryState, error: Error) -> RetryResult {
        let passing = matches!(error.http_status_code(), Some(500 | 502 | 504))
            || error.status().is_some_and(|status| matches!(status.code, Code::Internal | Code::Unavailable));
        let result = match passing {
            true => RetryResult::Continue(error),
            false => self.usual.on_error(state, error),
        };
        if let RetryResult::Continue(error) = &result {
            self.progress.lock().trouble = Some(refusal::sentence(error, &self.identity));
        }
        result
    }
}
