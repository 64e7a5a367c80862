//! Who sends a request: the tenant whose key it carries, and what that one may.

use std::{sync::Arc, time::Duration};

use ahash::AHashMap;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use pingora_core::Result;
use pingora_http::ResponseHeader;
use subtle::ConstantTimeEq;

use super::answers::Refusal;
use crate::{
    model::{Digest, ModelPattern, RouteId, Tenant},
    signals::{
        allowance::{Denied, Spent, Standing, Usage},
        ledger::Tokens,
        traffic::Meters,
    },
};

/// Where the SDKs of Anthropic and others put the key.
const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Where the SDKs for Azure put the key.
const API_KEY: HeaderName = HeaderName::from_static("api-key");

/// Longest key that is looked up; ours have 46 bytes.
const KEY_LEN_MAX: usize = 512;

/// Headers by which a client shows who it is.
pub(super) const CREDENTIALS: [HeaderName; 5] =
    [header::AUTHORIZATION, header::PROXY_AUTHORIZATION, X_API_KEY, API_KEY, header::COOKIE];

/// A tenant as the request path knows it.
#[derive(Debug)]
pub struct Guest {
    /// What the configuration says of it.
    pub tenant: Arc<Tenant>,
    /// What it has used.
    pub usage: Arc<Usage>,
}

/// All tenants, by their keys.
#[derive(Debug)]
pub struct Guests {
    by_key: AHashMap<Digest, Arc<Guest>>,
}

impl Guests {
    /// These tenants.
    pub fn new(tenants: &[Arc<Tenant>], meters: &Meters) -> Guests {
        let guest = |tenant: &Arc<Tenant>| Guest { tenant: tenant.clone(), usage: meters.tenant(&tenant.id) };
        let by_key = tenants.iter().flat_map(|tenant| {
            let guest = Arc::new(guest(tenant));
            tenant.keys.iter().map(move |key| (*key, guest.clone()))
        });
        Guests { by_key: by_key.collect() }
    }

    /// Whose key a request carries.
    pub fn of(&self, headers: &HeaderMap) -> Option<&Arc<Guest>> {
        let bearer = headers.get(header::AUTHORIZATION).and_then(bearer);
        let plain = [X_API_KEY, API_KEY].map(|name| headers.get(name).map(HeaderValue::as_bytes));
        bearer.into_iter().chain(plain.into_iter().flatten()).find_map(|key| self.with_key(key))
    }

    /// Found by the hash: how long that takes tells of the hash of a guess, which nobody can choose. The comparison that decides
    /// takes the same time for all.
    fn with_key(&self, key: &[u8]) -> Option<&Arc<Guest>> {
        let hash = Digest::of(Some(key).filter(|key| key.len() <= KEY_LEN_MAX)?);
        let (known, guest) = self.by_key.get_key_value(&hash)?;
        bool::from(known.bytes().ct_eq(hash.bytes())).then_some(guest)
    }
}

/// The token of `Bearer TOKEN`.
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, token) = value.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

impl Guest {
    /// Whether bodies must be read for it, since it may not ask for every model.
    pub fn is_choosy(&self) -> bool {
        !self.tenant.models.is_empty()
    }

    /// Whether what its requests take counts: tokens or dollars. It must not choose answers that cannot be read for them.
    pub(super) fn is_metered(&self) -> bool {
        let limits = &self.tenant.allowance;
        limits.tokens_per_minute.is_some() || limits.usd_per_day.is_some() || limits.usd_per_month.is_some()
    }

    /// Lets a request in, or says why not and how long that holds. `models` are all that it names, in its header and its body;
    /// `hidden` says that it may name one that was not read.
    ///
    /// # Errors
    /// When it may not use the route or a model, or has used what it may.
    pub(super) fn admit<'m>(
        &self,
        route: &RouteId,
        mut models: impl Iterator<Item = &'m str>,
        hidden: bool,
    ) -> Result<(), (Refusal, Option<Duration>)> {
        let Tenant { routes, models: allowed, allowance, .. } = &*self.tenant;
        let (denied, refusal, wait) = if !routes.is_empty() && !routes.contains(route) {
            (Denied::Route, Refusal::RouteDenied, None)
        } else if !allowed.is_empty() && (hidden || !models.all(|model| any_matches(allowed, model))) {
            (Denied::Model, Refusal::ModelDenied, None)
        } else {
            match self.usage.admit(allowance) {
                Ok(()) => return Ok(()),
                Err((spent, wait)) => (Denied::Spent(spent), refusal_of(spent), Some(wait)),
            }
        };
        self.usage.deny(denied);
        Err((refusal, wait))
    }

    /// Takes off what a request took.
    pub(super) fn settle(&self, tokens: Option<&Tokens>, usd: Option<f64>) {
        self.usage.settle(&self.tenant.allowance, tokens, usd);
    }

    /// Tells what is left, in OpenAI's headers.
    pub(super) fn tell(&self, response: &mut ResponseHeader) -> Result<()> {
        let [requests, tokens] = self.usage.standings(&self.tenant.allowance);
        for (standing, [limit, remaining, reset]) in [(requests, REQUESTS), (tokens, TOKENS)] {
            let Some(Standing { limit: all, remaining: left, reset: time }) = standing else { continue };
            response.insert_header(limit, all)?;
            response.insert_header(remaining, left)?;
            response.insert_header(reset, in_words(time))?;
        }
        Ok(())
    }
}

const REQUESTS: [&str; 3] =
    ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"];
const TOKENS: [&str; 3] =
    ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"];

fn any_matches(allowed: &[ModelPattern], model: &str) -> bool {
    allowed.iter().any(|pattern| pattern.matches(model))
}

fn refusal_of(spent: Spent) -> Refusal {
    match spent {
        Spent::Requests => Refusal::RequestsSpent,
        Spent::Tokens => Refusal::TokensSpent,
        Spent::Day | Spent::Month => Refusal::BudgetSpent,
    }
}

/// A time as OpenAI writes it: `1s`, `6m0s`, `120ms`.
fn in_words(time: Duration) -> String {
    match time.as_secs() {
        0 => format!("{}ms", time.as_millis()),
        seconds @ 1..60 => format!("{seconds}s"),
        seconds => format!("{}m{}s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Allowance;

    fn guests(key: &str, models: &[&str]) -> Guests {
        let tenant = Tenant {
            id: "acme".parse().unwrap(),
            keys: vec![Digest::of(key.as_bytes())],
            routes: vec!["chat".parse().unwrap()],
            models: models.iter().map(|model| ModelPattern::Prefix((*model).into())).collect(),
            allowance: Allowance { requests_per_minute: Some(2), ..Allowance::default() },
        };
        Guests::new(&[Arc::new(tenant)], &Meters::default())
    }

    fn headers(named: &[(&'static str, &str)]) -> HeaderMap {
        named.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_key_is_found_where_clients_put_it() {
        let guests = guests("tw-secret", &[]);
        let long = format!("Bearer {}", "x".repeat(1000));
        let found = |named: &[(&'static str, &str)]| guests.of(&headers(named)).is_some();
        for yes in [
            ("authorization", "Bearer tw-secret"),
            ("authorization", "bearer  tw-secret "),
            ("x-api-key", "tw-secret"),
            ("api-key", "tw-secret"),
        ] {
            assert!(found(&[yes]), "{yes:?}");
        }
        assert!(found(&[("authorization", "Bearer unused"), ("x-api-key", "tw-secret")]));
        for no in [
            ("authorization", "tw-secret"),
            ("authorization", "Basic tw-secret"),
            ("authorization", "Bearer tw-secreu"),
            ("authorization", "Bearer"),
            ("authorization", "Bearer "),
            ("authorization", &long),
            ("cookie", "tw-secret"),
            ("x-api-key", "Bearer tw-secret"),
        ] {
            assert!(!found(&[no]), "{no:?}");
        }
    }

    #[test]
    fn a_guest_may_what_its_tenant_may() {
        let guests = guests("k", &["llama-"]);
        let guest = guests.of(&headers(&[("x-api-key", "k")])).unwrap();
        let route = |name: &str| name.parse::<RouteId>().unwrap();
        let admit = |name: &str, models: &[&str], hidden| {
            guest.admit(&route(name), models.iter().copied(), hidden).map_err(|(refusal, _)| refusal)
        };
        assert_eq!(admit("other", &[], false), Err(Refusal::RouteDenied));
        assert_eq!(admit("chat", &["gpt-4"], false), Err(Refusal::ModelDenied));
        assert_eq!(admit("chat", &["llama-3", "gpt-4"], false), Err(Refusal::ModelDenied));
        assert_eq!(admit("chat", &[], true), Err(Refusal::ModelDenied));
        assert_eq!(admit("chat", &[], false), Ok(()));
        assert_eq!(admit("chat", &["llama-3"], false), Ok(()));
        assert_eq!(admit("chat", &["llama-3"], false), Err(Refusal::RequestsSpent));
        let (admitted, denied) = guest.usage.counts();
        assert_eq!((admitted, denied), (2, [1, 3, 1, 0, 0, 0]));
    }

    #[test]
    fn times_are_written_as_openai_does() {
        let times = [120, 1000, 59_999, 360_000].map(|ms| in_words(Duration::from_millis(ms)));
        assert_eq!(times, ["120ms", "1s", "59s", "6m0s"]);
    }
}
