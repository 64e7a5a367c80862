//! Credentials of AWS, found by the standard chain: environment, shared files, web identity, containers, instance metadata.

use std::time::{Duration, SystemTime};

use aws_config::{BehaviorVersion, Region};
use aws_credential_types::{Credentials, provider::ProvideCredentials};
use aws_smithy_http_client::{
    Builder,
    tls::{Provider, rustls_provider::CryptoMode},
};
use tokio::time;

use super::{RETRY, Shown, Teller, chain};
use crate::model::AwsSigV4;

/// Longest search.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Credentials are renewed so long before they expire: half of what the shortest sessions of AWS have (15 minutes) is left for
/// tries that fail.
const AHEAD: Duration = Duration::from_secs(7 * 60);

/// Even credentials that hold for hours are looked for again after this time: they may have been revoked, and others put in
/// their place.
const KEPT: Duration = Duration::from_secs(60);

/// Shortest time from one search to the next.
const SPACING: Duration = Duration::from_secs(1);

/// Keeps a backend's credentials for ever.
pub(super) async fn keep(spec: AwsSigV4, teller: Teller) {
    let mut expires: Option<SystemTime> = None;
    loop {
        let pause = match time::timeout(TIMEOUT, find(&spec)).await {
            Ok(Ok(found)) => {
                expires = found.expiry();
                teller.tell(Shown::Aws(found));
                let left = expires.map(|expiry| expiry.duration_since(SystemTime::now()).unwrap_or_default());
                left.map_or(KEPT, |left| left.saturating_sub(AHEAD).clamp(SPACING, KEPT))
            }
            failed => {
                let why = match failed {
                    Ok(Err(why)) => why,
                    _ => format!("nothing answered within {TIMEOUT:?}"),
                };
                let lost = expires.is_some_and(|expiry| expiry <= SystemTime::now());
                if lost || teller.badge.fault().is_some() {
                    teller.lose(&format!("no credentials of AWS were found: {why}"));
                } else {
                    tracing::warn!(backend = %teller.backend, "its credentials were not renewed yet: {why}");
                }
                RETRY
            }
        };
        time::sleep(pause.mul_f64(0.9 + 0.1 * fastrand::f64())).await;
    }
}

/// Goes through the chain from its beginning: the SDK reads the files of a chain only once.
async fn find(spec: &AwsSigV4) -> Result<Credentials, String> {
    let http = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
    let loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .region(Region::new(spec.region.clone()));
    let loader = match &spec.profile {
        Some(profile) => loader.profile_name(profile),
        None => loader,
    };
    let config = loader.load().await;
    let provider = config.credentials_provider().ok_or("none are set")?;
    provider.provide_credentials().await.map_err(|error| chain(&error))
}
