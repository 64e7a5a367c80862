//! On-demand prices, from `GetProducts` of the Price List.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use aws_sdk_pricing::{
    Client,
    config::{
        Builder, Region,
        retry::{RetryPartition, TokenBucket},
    },
    types::{Filter, FilterType},
};
use parking_lot::Mutex;
use tokio::time;

use super::{
    PRODUCTS_AT_ONCE,
    product::{self, Rate},
    refusal::{Call, Refusal},
    session::Session,
    wire::Tries,
};
use crate::{
    model::Offer,
    signals::prices::{FeedFault, PriceKey, Quote, Want},
};

/// As IAM calls it.
pub(super) const ACTION: &str = "pricing:GetProducts";

/// The Price List is served here and nowhere else, and says the same everywhere.
const SERVED_IN: [&str; 3] = ["us-east-1", "eu-central-1", "ap-south-1"];

/// Items to a page: the most that the API gives.
const PAGE_ITEMS: i32 = 100;

/// The filters leave one or two products. More pages than this come only from a server that ignores them.
const PAGES_MAX: usize = 10;

/// An endpoint that left so many calls without an answer, and answered none in between, is not asked again in this fetch.
const SILENT_CALLS_MAX: usize = PRODUCTS_AT_ONCE;

/// The endpoints of the Price List, in the order in which they are tried.
#[derive(Debug)]
pub(super) struct Counters {
    session: Session,
    counters: Vec<Counter>,
    /// For one call at one endpoint: so long that the others can be asked as well.
    timeout: Duration,
}

#[derive(Debug)]
struct Counter {
    call: Call,
    url: Option<String>,
    region: &'static str,
    silent: AtomicUsize,
    /// Why it last gave no answer.
    trouble: Mutex<Option<FeedFault>>,
}

impl Counters {
    pub(super) fn new(session: &Session) -> Counters {
        let url = session.settings.pricing_endpoint.as_ref();
        let counter = |region: &'static str| Counter {
            call: Call { action: ACTION, place: format!("the Price List in {region}") },
            url: url.map(|url| url.replace("{region}", region)),
            region,
            silent: AtomicUsize::new(0),
            trouble: Mutex::new(None),
        };
        // One URL is one endpoint, whatever region it is in.
        let single = url.is_some_and(|url| !url.contains("{region}"));
        let regions = if single { &SERVED_IN[..1] } else { &SERVED_IN[..] };
        let counters: Vec<Counter> = regions.iter().map(|region| counter(region)).collect();
        let parts = u32::try_from(counters.len()).unwrap_or(1);
        Counters { session: session.clone(), timeout: session.timeout() / parts, counters }
    }

    /// The price of `machine` in `region`, for each of `wants`.
    ///
    /// # Errors
    ///
    /// No endpoint answers, or what it says is no price: one sentence.
    pub(super) async fn quotes(
        &self,
        region: &str,
        machine: &str,
        wants: &[Want],
    ) -> Result<Vec<Quote>, FeedFault> {
        let items = self.items(region, machine).await?;
        let rate = agreed(&items, region, machine)?;
        let quote = |want: &Want| Quote {
            key: PriceKey {
                cloud: want.cloud,
                region: want.region.clone(),
                zone: None,
                instance_type: want.priced_as.clone(),
                offer: Offer::OnDemand,
            },
            at: rate.at,
            usd_per_hour: rate.usd,
        };
        Ok(wants.iter().map(quote).collect())
    }

    /// What the first endpoint that can be reached says.
    async fn items(&self, region: &str, machine: &str) -> Result<Vec<String>, FeedFault> {
        for counter in &self.counters {
            if counter.silent.load(Relaxed) >= SILENT_CALLS_MAX {
                continue;
            }
            match counter.ask(&self.session, self.timeout, region, machine).await {
                Ok(items) => {
                    counter.silent.store(0, Relaxed);
                    return Ok(items);
                }
                Err(Refusal { fault, elsewhere: false, .. }) => return Err(fault),
                Err(Refusal { fault, .. }) => {
                    counter.silent.fetch_add(1, Relaxed);
                    *counter.trouble.lock() = Some(fault);
                }
            }
        }
        Err(self.no_answer())
    }

    fn no_answer(&self) -> FeedFault {
        let first = self.counters.first().and_then(|counter| counter.trouble.lock().clone());
        let FeedFault(mut sentence) =
            first.unwrap_or_else(|| FeedFault("aws: the Price List gave no answer".to_owned()));
        let others: Vec<&str> = self.counters.iter().skip(1).map(|counter| counter.region).collect();
        if !others.is_empty() {
            sentence.push_str(&format!("; {} did no better", others.join(" and ")));
        }
        FeedFault(sentence)
    }
}

impl Counter {
    async fn ask(
        &self,
        session: &Session,
        timeout: Duration,
        region: &str,
        machine: &str,
    ) -> Result<Vec<String>, Refusal> {
        let tries = Tries::default();
        let client = self.client(session, timeout, tries.clone());
        match time::timeout(timeout, self.pages(session, &client, region, machine)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.call.late(timeout, tries.trouble())),
        }
    }

    fn client(&self, session: &Session, timeout: Duration, tries: Tries) -> Client {
        let timeouts = session.config.timeout_config().map(|config| config.to_builder()).unwrap_or_default();
        let mut config = Builder::from(&session.config)
            .region(Region::new(self.region))
            .retry_classifier(tries)
            // As for EC2: a call ends by its number of tries and its deadline, not by what happened to others.
            .retry_partition(
                RetryPartition::custom("tradewind-prices").token_bucket(TokenBucket::unlimited()).build(),
            )
            .timeout_config(timeouts.operation_attempt_timeout(timeout / 2).build());
        if let Some(url) = &self.url {
            config = config.endpoint_url(url);
        }
        Client::from_conf(config.build())
    }

    async fn pages(
        &self,
        session: &Session,
        client: &Client,
        region: &str,
        machine: &str,
    ) -> Result<Vec<String>, Refusal> {
        let filters = filters(region, machine).map_err(|why| self.call.odd(&why))?;
        let mut items = Vec::new();
        let mut tokens = HashSet::new();
        let mut token: Option<String> = None;
        for _ in 0..PAGES_MAX {
            let page = client
                .get_products()
                .service_code(product::SERVICE)
                .set_filters(Some(filters.clone()))
                .format_version("aws_v1")
                .max_results(PAGE_ITEMS)
                .set_next_token(token)
                .send()
                .await
                .map_err(|error| self.call.failed(&error, session))?;
            items.extend(page.price_list.unwrap_or_default());
            let Some(next) = page.next_token.filter(|next| !next.is_empty()) else { return Ok(items) };
            if !tokens.insert(next.clone()) {
                return Err(self
                    .call
                    .odd("a page that points back to one before it: expected the pages to end"));
            }
            token = Some(next);
        }
        let why = format!(
            "more than {PAGES_MAX} pages of products for {machine} in {region}: expected one product"
        );
        Err(self.call.odd(&why))
    }
}

fn filters(region: &str, machine: &str) -> Result<Vec<Filter>, String> {
    let names = [("regionCode", region), ("instanceType", machine)];
    let filter = |(field, value): (&str, &str)| {
        let filter = Filter::builder().r#type(FilterType::TermMatch).field(field).value(value);
        filter.build().map_err(|error| format!("nothing, since it could not be asked: {error}"))
    };
    names.into_iter().chain(product::USE).map(filter).collect()
}

/// The one rate that `items` state of `machine`.
fn agreed(items: &[String], region: &str, machine: &str) -> Result<Rate, FeedFault> {
    let mut rates: Vec<Rate> = Vec::new();
    for item in items {
        let found = product::rates(item, machine, region)
            .map_err(|why| FeedFault(format!("aws: the Price List of {machine} in {region} has {why}")))?;
        rates.extend(found);
    }
    // The same price from several moments on: it is charged since the last of them.
    let Some(rate) = rates.iter().max_by_key(|rate| rate.at) else {
        return Err(FeedFault(format!(
            "aws: the Price List has no on-demand price of {machine} in {region} (Linux, shared tenancy; {} other products): \
             it is not sold there, or a name is misspelt",
            items.len()
        )));
    };
    if let Some(other) = rates.iter().find(|other| other.usd != rate.usd) {
        return Err(FeedFault(format!(
            "aws: the Price List has several on-demand prices of {machine} in {region}, {} USD/h (SKU {}) and {} USD/h (SKU {}): \
             expected one, none is used",
            rate.usd, rate.sku, other.usd, other.sku
        )));
    }
    Ok(rate.clone())
}
