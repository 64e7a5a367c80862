//! Prices of Google Cloud: from the SKUs of the Cloud Billing Catalog.
//!
//! There is no price of a machine type. A node is billed by its parts (vCPUs, memory, accelerators, local SSD), each by a SKU of
//! its region, on demand and as spot capacity. Which parts a machine has, and how their SKUs are described, are tables: see
//! `README.md` beside this file.
//!
//! One pass over all SKUs of Compute Engine (about 40,000, page by page) prices everything at once. If any page is missing or
//! wrong, nothing is used: it could hold a SKU that contradicts another. If a part has no SKU, or several that disagree, the
//! machine has no price, and a fault says so.

use std::{fmt::Write as _, time::Duration};

use google_cloud_billing_v1::model::Sku;

use self::{
    catalog::{Catalog, Extent},
    machine::{Part, parts},
    sku::Shelf,
};
use super::{FeedFault, Fetched, Finding, GcpSettings, PriceKey, Quote, Want};
use crate::model::Offer;

mod catalog;
mod machine;
mod refusal;
mod sku;

pub use machine::known_machine;

/// What Google Cloud needs to answer, in plain words.
pub const NEEDS: &str = "\
Google Cloud: the Cloud Billing API (cloudbilling.googleapis.com) enabled in one project, and one of
  - an API key of that project, restricted to the Cloud Billing API. Prices are public: a key is enough, and can do nothing else
  - application default credentials: GOOGLE_APPLICATION_CREDENTIALS, `gcloud auth application-default login` with a quota
    project, or the service account of the machine with scope cloud-billing.readonly or cloud-platform. Prices need no role
The only call is services.skus.list of Compute Engine (services/6F81-5844-456A).
";

/// The prices of Google Cloud.
#[derive(Debug)]
pub struct GcpPrices {
    catalog: Catalog,
}

/// One machine in one region, and what it consists of.
struct Bill<'a> {
    want: &'a Want,
    parts: Vec<Part>,
}

impl GcpPrices {
    /// Prepares to ask, with the key of `settings` or application default credentials. Sends nothing to the Catalog yet.
    ///
    /// Chooses rustls' ring for the process, if nothing was chosen yet.
    ///
    /// # Errors
    ///
    /// No credentials are to be found, or they or the URL cannot be used.
    pub async fn connect(settings: &GcpSettings) -> Result<GcpPrices, FeedFault> {
        Ok(GcpPrices { catalog: Catalog::connect(settings).await? })
    }

    /// Spot and on-demand price of each of `wants`, within the deadline of the settings.
    pub async fn fetch(&self, wants: &[Want]) -> Fetched {
        self.fetch_over(wants, Duration::ZERO).await
    }

    /// As [`GcpPrices::fetch`], with pauses between the pages that add up to `over` at most; they are not part of the deadline.
    pub(super) async fn fetch_over(&self, wants: &[Want], over: Duration) -> Fetched {
        let mut fetched = Fetched::default();
        // Without credentials every page would be tried again until the deadline.
        if let Err(fault) = self.catalog.identify().await {
            return Err(fault).into();
        }
        let bills = bills(wants, &mut fetched.faults);
        match self.shelf(&bills, over).await {
            Ok((shelf, _)) => {
                for bill in &bills {
                    for offer in [Offer::Spot, Offer::OnDemand] {
                        let price = bill.price(&shelf, offer).map(|quote| vec![quote]);
                        if price.is_ok() || bill.needs(offer) {
                            fetched.extend(price.into());
                        }
                    }
                }
            }
            Err(fault) => fetched.faults.push(fault),
        }
        fetched
    }

    /// Tries everything that a fetch of `wants` needs, and says what is missing and what to do.
    pub async fn check(&self, wants: &[Want]) -> Vec<Finding> {
        let identity = self.catalog.identify().await;
        let mut findings = vec![Finding { what: "gcp: credentials".to_owned(), outcome: identity }];
        if findings[0].outcome.is_err() {
            return findings;
        }
        let mut unknown = Vec::new();
        let bills = bills(wants, &mut unknown);
        let (outcome, shelf) = match self.shelf(&bills, Duration::ZERO).await {
            Ok((shelf, Some(Extent { pages, skus }))) => {
                (Ok(format!("{skus} SKUs on {pages} pages")), Some(shelf))
            }
            Ok((shelf, None)) => (Ok("nothing to ask for".to_owned()), Some(shelf)),
            Err(fault) => (Err(fault), None),
        };
        let what = format!("gcp: services.skus.list at {}", self.catalog.endpoint());
        findings.push(Finding { what, outcome });
        let machine = |fault| Finding { what: "gcp: machine type".to_owned(), outcome: Err(fault) };
        findings.extend(unknown.into_iter().map(machine));
        for (bill, shelf) in bills.iter().flat_map(|bill| shelf.iter().map(move |shelf| (bill, shelf))) {
            for offer in [Offer::Spot, Offer::OnDemand].into_iter().filter(|offer| bill.needs(*offer)) {
                let what = format!("gcp: price of {offer} {} in {}", bill.want.priced_as, bill.want.region);
                let outcome = bill.price(shelf, offer).map(|quote| format!("{} USD/h", quote.usd_per_hour));
                findings.push(Finding { what, outcome });
            }
        }
        findings
    }

    /// The SKUs of all parts of `bills`, and how many were read to find them; `None` if none had to be.
    async fn shelf(&self, bills: &[Bill<'_>], over: Duration) -> Result<(Shelf, Option<Extent>), FeedFault> {
        let mut shelf = Shelf::default();
        for bill in bills {
            bill.parts.iter().for_each(|part| shelf.want(*part, &bill.want.region));
        }
        if shelf.is_empty() {
            return Ok((shelf, None));
        }
        let extent = self.catalog.read(over, |sku: &Sku| shelf.take(sku)).await?;
        Ok((shelf, Some(extent)))
    }
}

/// What each of `wants` consists of; what is not known becomes a fault.
fn bills<'a>(wants: &'a [Want], faults: &mut Vec<FeedFault>) -> Vec<Bill<'a>> {
    let mut bills = Vec::with_capacity(wants.len());
    for want in wants {
        match parts(&want.instance_type, want.accelerator.as_ref()) {
            Ok(parts) => bills.push(Bill { want, parts }),
            Err(why) => {
                let Want { priced_as, region, .. } = want;
                faults.push(FeedFault(format!("gcp: no price of {priced_as} in {region}: {why}")));
            }
        }
    }
    bills
}

impl Bill<'_> {
    /// Whether some backend's cost depends on its price of this offer.
    fn needs(&self, offer: Offer) -> bool {
        offer == Offer::OnDemand || self.want.spot
    }

    /// What an hour costs: the sum of the parts.
    fn price(&self, shelf: &Shelf, offer: Offer) -> Result<Quote, FeedFault> {
        let Want { cloud, region, priced_as, .. } = self.want;
        let mut sum = 0.0;
        let mut at = None;
        let mut missing = String::new();
        for part in &self.parts {
            match shelf.rate(part.component, region, offer) {
                Ok(rate) => {
                    sum += part.quantity * rate.usd;
                    at = at.max(Some(rate.at));
                }
                Err(why) => {
                    let separator = if missing.is_empty() { "" } else { "; " };
                    let _ = write!(missing, "{separator}{why}");
                }
            }
        }
        let (true, Some(at)) = (missing.is_empty(), at) else {
            return Err(FeedFault(format!("gcp: no price of {offer} {priced_as} in {region}: {missing}")));
        };
        let key = PriceKey {
            cloud: *cloud,
            region: region.clone(),
            zone: None,
            instance_type: priced_as.clone(),
            offer,
        };
        Ok(Quote { key, at, usd_per_hour: nano_dollars(sum) })
    }
}

/// Rounded to what the Catalog counts in: the rest is an artefact of adding fractions.
fn nano_dollars(usd: f64) -> f64 {
    (usd * 1e9).round() / 1e9
}
