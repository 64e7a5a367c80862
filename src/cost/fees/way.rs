//! What bytes cost on their way: out to the internet, between regions, between zones.

use serde::Serialize;

use super::{
    Fees, Unknown,
    row::{Fee, Service, Unit},
    tiers::Tiers,
};
use crate::model::Cloud;

/// Regions of Amazon Web Services that are accounts and networks of their own begin so: between them and all others there
/// is only the internet.
const APART: [&str; 5] = ["cn-", "us-gov-", "us-iso", "eu-iso", "eusc-"];

/// A provider and one of its regions.
pub type Place<'a> = (Cloud, &'a str);

/// What a GB (10^9 bytes) costs on its way from a backend to the client.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Way {
    /// USD per GB, all legs together.
    pub usd_per_gb: f64,
    /// Its parts, from the backend on.
    pub legs: Vec<Leg>,
}

/// A part of the way.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Leg {
    /// From where to where.
    pub what: String,
    /// USD per GB.
    pub fee: Fee,
}

impl Fees {
    /// What is paid to a provider for a GB (10^9 bytes) out to the internet from a region: on Google Cloud in the Premium
    /// tier, to most of the world. The monthly allowance of an account (100 GB on Amazon Web Services, 1 GiB from North
    /// America on Google Cloud) is not subtracted.
    ///
    /// # Errors
    /// No table has it.
    pub fn internet_egress(&self, cloud: Cloud, region: &str) -> Result<Tiers, Unknown> {
        self.internet_egress_to(cloud, region, "*")
    }

    /// The same to a destination that may have a price of its own: `australia` and `china` have on Google Cloud.
    ///
    /// # Errors
    /// No table has it.
    pub fn internet_egress_to(
        &self,
        cloud: Cloud,
        region: &str,
        destination: &str,
    ) -> Result<Tiers, Unknown> {
        let row = self.find(cloud, Service::InternetEgress, destination, region);
        row.and_then(Tiers::of).ok_or_else(|| {
            let to = if destination == "*" { "the internet" } else { destination };
            let what = format!("what a GB from {cloud} {region} to {to} costs");
            Unknown::new(what, cloud, Service::InternetEgress, destination, region, transfer_unit(cloud))
        })
    }

    /// What a GB (10^9 bytes) from one region to another of the same provider costs. Within one region it is 0, as it is
    /// within one zone; see [`Fees::cross_zone`] for what it is from zone to zone.
    ///
    /// # Errors
    /// No table has it. Two regions of [`Cloud::Other`] are never taken for one: they may be of two providers.
    pub fn between_regions(&self, cloud: Cloud, from: &str, to: &str) -> Result<Fee, Unknown> {
        if from == to && cloud != Cloud::Other {
            let zones = self.cross_zone(cloud)?;
            let source =
                format!("free within a zone; from zone to zone {} USD/GB ({})", zones.usd, zones.source);
            return Ok(Fee { usd: 0.0, source: source.into(), ..zones });
        }
        let connected = cloud != Cloud::Aws || network(from) == network(to);
        self.find(cloud, Service::InterRegion, to, from)
            .filter(|row| connected || *row.key.item == *to)
            .and_then(|row| row.steps.first())
            .map(|(_, fee)| fee.per_gb())
            .ok_or_else(|| {
                let what = format!("what a GB from {cloud} {from} to {cloud} {to} costs");
                Unknown::new(what, cloud, Service::InterRegion, to, from, transfer_unit(cloud))
            })
    }

    /// What a GB (10^9 bytes) from one zone to another of the same region costs, at both ends together.
    ///
    /// # Errors
    /// No table has it.
    pub fn cross_zone(&self, cloud: Cloud) -> Result<Fee, Unknown> {
        let what = || format!("what a GB from zone to zone costs in {cloud}");
        let fee = self.fee(cloud, Service::CrossZone, "*", "*", transfer_unit(cloud), what)?;
        Ok(fee.per_gb())
    }

    /// What a GB (10^9 bytes) costs from a backend to the client: straight out to the internet, or by a router whose place
    /// is given. Between two providers it goes over the internet, and what comes in is free on both.
    ///
    /// `gb_per_month` is what already goes out to the internet in a month; 0 for the price of the first tier.
    ///
    /// # Errors
    /// The first leg of which no table has the price.
    pub fn way_to_client(
        &self,
        backend: Place<'_>,
        router: Option<Place<'_>>,
        gb_per_month: f64,
    ) -> Result<Way, Unknown> {
        let (cloud, region) = backend;
        let out = |(cloud, region): Place<'_>, to: &str| {
            let tiers = self.internet_egress(cloud, region)?;
            let fee = tiers.at(gb_per_month).clone();
            Ok(Leg { what: format!("{cloud} {region} to {to}"), fee })
        };
        let legs = match router {
            None => vec![out(backend, "the client")?],
            Some(router) if router.0 == cloud => {
                let fee = self.between_regions(cloud, region, router.1)?;
                let first = Leg { what: format!("{cloud} {region} to the router in {}", router.1), fee };
                vec![first, out(router, "the client")?]
            }
            Some(router) => {
                let to = format!("the router in {} {} over the internet", router.0, router.1);
                vec![out(backend, &to)?, out(router, "the client")?]
            }
        };
        Ok(Way { usd_per_gb: legs.iter().map(|leg| leg.fee.usd).sum(), legs })
    }
}

/// Which of the networks of Amazon Web Services a region is in.
fn network(region: &str) -> &'static str {
    APART.into_iter().find(|start| region.starts_with(start)).unwrap_or_default()
}

/// The unit in which a provider bills bytes.
fn transfer_unit(cloud: Cloud) -> Unit {
    if cloud == Cloud::Gcp { Unit::GiB } else { Unit::Gb }
}
