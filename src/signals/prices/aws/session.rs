//! With whose credentials, and how patiently, AWS is asked.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use aws_config::{
    BehaviorVersion, ConfigLoader, Region, SdkConfig, environment::region::EnvironmentVariableRegionProvider,
    meta::region::RegionProviderChain, profile::ProfileFileRegionProvider, retry::RetryConfig,
    timeout::TimeoutConfig,
};
use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials, SharedCredentialsProvider},
};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use parking_lot::Mutex;
use tokio::{sync::Semaphore, task::JoinSet, time};

use super::{refusal, wire};
use crate::signals::prices::{AwsSettings, FeedFault, PAUSE_MAX};

/// Tries for one call, the first included.
const ATTEMPTS: u32 = 4;

/// Longest first pause between two tries; the next ones double, and chance takes part of each. AWS's own default.
const BACKOFF: Duration = Duration::from_secs(1);

/// The pauses between all tries of a call, 7 times the first, are less than a fifth of the deadline.
const BACKOFFS_IN_TIMEOUT: u32 = 40;

/// A connection that takes longer is not going to come about. AWS's own default.
const CONNECT: Duration = Duration::from_millis(3100);

/// Credentials that expire within this time are renewed first: a fetch must not outlive them.
const EXPIRY_MARGIN: Duration = Duration::from_secs(5 * 60);

/// Even credentials that hold for hours are looked for again after this time: they may have been revoked, and others put in
/// their place.
const KEPT: Duration = Duration::from_secs(15 * 60);

/// Where credentials are used that belong to no region: EC2 is asked in the region of the machines.
const FALLBACK_REGION: &str = "us-east-1";

/// The way in: finds credentials, and keeps those that expire until they do.
#[derive(Debug)]
pub(super) struct Door {
    settings: AwsSettings,
    fixed: Option<Credentials>,
    http: SharedHttpClient,
    open: Mutex<Option<Session>>,
}

/// Everything that a call needs, while the credentials hold.
#[derive(Clone, Debug)]
pub(super) struct Session {
    /// For the clients of the services; the credentials in it are found already.
    pub(super) config: SdkConfig,
    pub(super) settings: Arc<AwsSettings>,
    credentials: Credentials,
    found: Instant,
}

impl Door {
    pub(super) fn new(settings: &AwsSettings, fixed: Option<Credentials>) -> Door {
        Door { settings: settings.clone(), fixed, http: wire::client(), open: Mutex::new(None) }
    }

    /// Credentials, and how to ask with them.
    ///
    /// # Errors
    ///
    /// There are no credentials, or they cannot be had now.
    pub(super) async fn open(&self) -> Result<Session, FeedFault> {
        if let Some(session) = self.open.lock().as_ref().filter(|session| session.holds()) {
            return Ok(session.clone());
        }
        let timeout = self.settings.timeout;
        let session = match time::timeout(timeout, self.find()).await {
            Ok(found) => found?,
            Err(_) => {
                return Err(refusal::no_credentials(&format!("nothing answered within {timeout:?}")));
            }
        };
        *self.open.lock() = Some(session.clone());
        Ok(session)
    }

    /// Goes through the standard chain from its beginning: the SDK reads the files of a chain only once.
    async fn find(&self) -> Result<Session, FeedFault> {
        let config = self.loader().load().await;
        let provider =
            config.credentials_provider().ok_or_else(|| refusal::no_credentials("none are set"))?;
        let credentials = provider
            .provide_credentials()
            .await
            .map_err(|error| refusal::no_credentials(&refusal::chain(&error)))?;
        let config = config
            .into_builder()
            .credentials_provider(SharedCredentialsProvider::new(credentials.clone()))
            .build();
        Ok(Session { config, settings: Arc::new(self.settings.clone()), credentials, found: Instant::now() })
    }

    fn loader(&self) -> ConfigLoader {
        let timeout = self.settings.timeout;
        let loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(self.http.clone())
            .retry_config(
                RetryConfig::standard()
                    .with_max_attempts(ATTEMPTS)
                    .with_initial_backoff(BACKOFF.min(timeout / BACKOFFS_IN_TIMEOUT))
                    .with_max_backoff(timeout / 4),
            )
            .timeout_config(TimeoutConfig::builder().connect_timeout(CONNECT.min(timeout / 3)).build());
        if let Some(credentials) = &self.fixed {
            return loader
                .empty_test_environment()
                .region(Region::new(FALLBACK_REGION))
                .credentials_provider(credentials.clone());
        }
        // Not the default chain of regions: its last resort is to ask a metadata server, and no region is needed here but
        // for the roles that credentials may assume.
        let mut of_profile = ProfileFileRegionProvider::builder();
        if let Some(profile) = &self.settings.profile {
            of_profile = of_profile.profile_name(profile);
        }
        let region = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
            .or_else(of_profile.build())
            .or_else(Region::new(FALLBACK_REGION));
        let loader = loader.region(region);
        match &self.settings.profile {
            Some(profile) => loader.profile_name(profile),
            None => loader,
        }
    }
}

impl Session {
    /// Whether it can be used again. Credentials that never expire are looked for each time, since somebody may have changed
    /// them.
    fn holds(&self) -> bool {
        let lasts = |expiry| SystemTime::now() + EXPIRY_MARGIN < expiry;
        self.found.elapsed() < KEPT && self.credentials.expiry().is_some_and(lasts)
    }

    /// Whose credentials these are, without giving them away.
    pub(super) fn identity(&self) -> String {
        let key = self.credentials.access_key_id();
        let end: String = key.chars().skip(key.chars().count().saturating_sub(4)).collect();
        match self.credentials.expiry().map(jiff::Timestamp::try_from) {
            Some(Ok(expiry)) => format!("an access key that ends in {end}, valid until {expiry:.0}"),
            _ => format!("an access key that ends in {end}, which does not expire"),
        }
    }

    /// What must not be seen in any text.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &str> {
        let secrets = [Some(self.credentials.secret_access_key()), self.credentials.session_token()];
        secrets.into_iter().flatten().filter(|secret| !secret.is_empty())
    }

    /// Longest time for one call, all its pages and retries included.
    pub(super) fn timeout(&self) -> Duration {
        self.settings.timeout
    }
}

/// Runs all `calls`, `at_once` at a time, begun one by one over the time `over` with pauses of at most [`PAUSE_MAX`]: each is a
/// burst of work on a machine that serves requests. The outcomes come in the order of the calls. Each call has a name for the fault that
/// says that it panicked: that is a defect, but none that may cost the others their prices.
pub(super) async fn all<T, F>(
    at_once: usize,
    over: Duration,
    calls: impl IntoIterator<Item = (String, F), IntoIter: ExactSizeIterator>,
) -> Vec<Result<T, FeedFault>>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let places = Arc::new(Semaphore::new(at_once));
    // Dropped together with this future, and with it everything that still runs.
    let mut running = JoinSet::new();
    let mut outcomes = Vec::new();
    let calls = calls.into_iter();
    let pause = over.div_f64(calls.len().max(1) as f64).min(PAUSE_MAX);
    for (n, (what, call)) in calls.enumerate() {
        let places = places.clone();
        outcomes.push(Err(FeedFault(format!(
            "aws: asking {what} failed with a panic, which is a defect of Tradewind or of the AWS SDK: report it with the log"
        ))));
        running.spawn(async move {
            time::sleep(pause.mul_f64(n as f64)).await;
            // The semaphore is never closed.
            let _place = places.acquire().await;
            (n, call.await)
        });
    }
    while let Some(ended) = running.join_next().await {
        if let Ok((n, outcome)) = ended {
            outcomes[n] = Ok(outcome);
        }
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When each of `count` calls began, with no more than `at_once` of 10 s each running.
    async fn begun(count: usize, at_once: usize, over: Duration) -> Vec<u64> {
        let start = time::Instant::now();
        let call = |_| {
            let call = async move {
                let begun = start.elapsed().as_secs();
                time::sleep(Duration::from_secs(10)).await;
                begun
            };
            (String::from("a test"), call)
        };
        all(at_once, over, (0..count).map(call)).await.into_iter().map(Result::unwrap).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn calls_are_spread_over_the_time_that_there_is() {
        let seconds = Duration::from_secs;
        assert_eq!(begun(4, 8, Duration::ZERO).await, [0, 0, 0, 0]);
        assert_eq!(begun(4, 8, seconds(8)).await, [0, 2, 4, 6]);
        assert_eq!(
            begun(4, 8, seconds(1000)).await,
            [0, 5, 10, 15],
            "never longer apart than the longest pause"
        );
        let mut few_at_once = begun(4, 1, seconds(8)).await;
        few_at_once.sort_unstable();
        assert_eq!(few_at_once, [0, 10, 20, 30]);
        assert!(begun(0, 8, seconds(8)).await.is_empty());
    }
}
