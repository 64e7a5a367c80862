//! Prices of AWS: spot prices from EC2, on-demand prices from the Price List.
//!
//! - [`spot`]: `DescribeSpotPriceHistory` of each region's own EC2 endpoint, one call (in pages) for all machines of a region.
//! - [`on_demand`]: `GetProducts`, one call for each machine and region, at one of the three endpoints that serve it.
//!
//! What a server says is checked again here: a filter that it ignored, another currency or unit, an answer that was cut off
//! become faults and never prices. A region that fails or hangs costs no other region its prices.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use aws_credential_types::Credentials;

use self::{on_demand::Counters, session::Door};
use super::{AwsSettings, FeedFault, Fetched, Finding, Quote, Want};
use crate::model::Timestamp;

mod on_demand;
mod product;
mod refusal;
mod session;
mod spot;
mod wire;

/// All that Tradewind needs on AWS, as an IAM policy: two calls that only read. Neither can be narrowed to resources.
pub const POLICY: &str = r#"{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Sid": "TradewindReadsPrices",
      "Effect": "Allow",
      "Action": ["ec2:DescribeSpotPriceHistory", "pricing:GetProducts"],
      "Resource": "*"
    }
  ]
}
"#;

/// Regions that are asked for spot prices at the same time. Each has its own endpoint and limits; together they are a burst of
/// work on this machine. One that hangs holds a place until its deadline.
const REGIONS_AT_ONCE: usize = 8;

/// Calls to the Price List at the same time: they share one endpoint and its limits.
const PRODUCTS_AT_ONCE: usize = 4;

/// The prices of AWS.
#[derive(Debug)]
pub struct AwsPrices {
    door: Door,
}

impl AwsPrices {
    /// Prepares to ask. Asks nothing yet: credentials are looked for with each fetch, by the SDK's standard chain, so that
    /// what was renewed or mended on this machine counts at once.
    pub fn new(settings: &AwsSettings) -> AwsPrices {
        AwsPrices { door: Door::new(settings, None) }
    }

    /// Prepares to ask with these credentials; reads neither the environment nor any file.
    pub fn with_credentials(settings: &AwsSettings, credentials: Credentials) -> AwsPrices {
        AwsPrices { door: Door::new(settings, Some(credentials)) }
    }

    /// The spot prices in effect at `now`, one quote for each machine and zone.
    pub async fn spot(&self, wants: &[Want], now: Timestamp) -> Fetched {
        self.spot_over(wants, now, Duration::ZERO).await
    }

    /// As [`AwsPrices::spot`], with the calls begun one by one over a time.
    pub(super) async fn spot_over(&self, wants: &[Want], now: Timestamp, over: Duration) -> Fetched {
        let session = match self.door.open().await {
            Ok(session) => session,
            Err(fault) => return Err(fault).into(),
        };
        let calls = by_region(wants).into_iter().map(|(region, wants)| {
            let session = session.clone();
            let what = format!("EC2 in {region}");
            let call = async move {
                let (needed, welcome): (Vec<Want>, Vec<Want>) = wants.into_iter().partition(|want| want.spot);
                let mut all = Fetched::default();
                if !needed.is_empty() {
                    all.extend(spot::in_effect(&session, &region, &needed, now).await);
                }
                if !welcome.is_empty() {
                    all.quotes.extend(spot::in_effect(&session, &region, &welcome, now).await.quotes);
                }
                all
            };
            (what, call)
        });
        gather(session::all(REGIONS_AT_ONCE, over, calls).await)
    }

    /// The on-demand prices, one quote for each machine and region.
    pub async fn on_demand(&self, wants: &[Want]) -> Fetched {
        self.on_demand_over(wants, Duration::ZERO).await
    }

    /// As [`AwsPrices::on_demand`], with the calls begun one by one over a time.
    pub(super) async fn on_demand_over(&self, wants: &[Want], over: Duration) -> Fetched {
        let session = match self.door.open().await {
            Ok(session) => session,
            Err(fault) => return Err(fault).into(),
        };
        let counters = Arc::new(Counters::new(&session));
        let mut of_machines: BTreeMap<_, Vec<Want>> = BTreeMap::new();
        for want in wants {
            let machine = (want.region.clone(), want.instance_type.clone());
            of_machines.entry(machine).or_default().push(want.clone());
        }
        let calls = of_machines.into_iter().map(|((region, machine), wants)| {
            let counters = counters.clone();
            let what = format!("the Price List of {machine} in {region}");
            (what, async move { Fetched::from(counters.quotes(&region, &machine, &wants).await) })
        });
        gather(session::all(PRODUCTS_AT_ONCE, over, calls).await)
    }

    /// Every spot price of `want` from `since` to `now`, oldest first; the first of a zone may have begun before `since`.
    ///
    /// # Errors
    ///
    /// EC2 could not be asked, or its answer cannot be used. AWS keeps about 90 days.
    pub async fn spot_history(
        &self,
        want: &Want,
        since: Timestamp,
        now: Timestamp,
    ) -> Result<Vec<Quote>, FeedFault> {
        spot::history(&self.door.open().await?, want, since, now).await
    }

    /// Tries what a fetch of `wants` needs: the credentials, then each permission for all machines of each region. Says what is missing
    /// and what to do about it.
    pub async fn check(&self, wants: &[Want], now: Timestamp) -> Vec<Finding> {
        let session = match self.door.open().await {
            Ok(session) => session,
            Err(fault) => return vec![Finding { what: "aws: credentials".to_owned(), outcome: Err(fault) }],
        };
        let mut findings =
            vec![Finding { what: "aws: credentials".to_owned(), outcome: Ok(session.identity()) }];
        for (region, wants) in by_region(wants) {
            let spot: Vec<Want> = wants.iter().filter(|want| want.spot).cloned().collect();
            if !spot.is_empty() {
                let outcome = verdict(&self.spot(&spot, now).await);
                findings.push(Finding { what: format!("aws: {} in {region}", spot::ACTION), outcome });
            }
            let outcome = verdict(&self.on_demand(&wants).await);
            findings.push(Finding { what: format!("aws: {} for {region}", on_demand::ACTION), outcome });
        }
        findings
    }
}

fn by_region(wants: &[Want]) -> BTreeMap<Arc<str>, Vec<Want>> {
    let mut regions: BTreeMap<Arc<str>, Vec<Want>> = BTreeMap::new();
    for want in wants {
        regions.entry(want.region.clone()).or_default().push(want.clone());
    }
    regions
}

/// Puts the outcomes together, and says once what several calls say.
fn gather(outcomes: Vec<Result<Fetched, FeedFault>>) -> Fetched {
    let mut all = Fetched::default();
    for outcome in outcomes {
        all.extend(outcome.unwrap_or_else(|fault| Err(fault).into()));
    }
    let mut said = BTreeSet::new();
    all.faults.retain(|fault| said.insert(fault.0.clone()));
    all
}

/// What a trial fetch showed.
fn verdict(fetched: &Fetched) -> Result<String, FeedFault> {
    if !fetched.faults.is_empty() {
        let faults: Vec<&str> = fetched.faults.iter().map(|fault| fault.0.as_str()).collect();
        return Err(FeedFault(faults.join("; ")));
    }
    let usd = || fetched.quotes.iter().map(|quote| quote.usd_per_hour);
    let (low, high) = (usd().fold(f64::INFINITY, f64::min), usd().fold(f64::NEG_INFINITY, f64::max));
    Ok(match fetched.quotes.as_slice() {
        [] => "nothing to ask for".to_owned(),
        [quote] => format!("{}: {} USD/h", quote.key.instance_type, quote.usd_per_hour),
        quotes => format!("{} prices, from {low} to {high} USD/h", quotes.len()),
    })
}
