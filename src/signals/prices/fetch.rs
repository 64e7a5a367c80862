//! What is asked of a provider's price service, and what comes back.

use std::{collections::BTreeMap, sync::Arc};

use super::{FeedFault, Quote};
use crate::model::{Accelerator, Backend, Cloud};

/// A kind of node whose prices, spot and on demand, some backends need.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Want {
    /// Who bills it.
    pub cloud: Cloud,
    /// The provider's region.
    pub region: Arc<str>,
    /// Zones whose spot prices count, by name (`us-east-1a`) or id (`use1-az1`).
    pub zones: Vec<Arc<str>>,
    /// Whether all zones of the region count beside those that are named.
    pub every_zone: bool,
    /// Whether some backend buys spot capacity: where none does, a machine without a spot price is no fault.
    pub spot: bool,
    /// The provider's name of the machine.
    pub instance_type: Arc<str>,
    /// Accelerators that are attached to the machine and billed apart from it.
    pub accelerator: Option<Accelerator>,
    /// Name under which the price is kept, see [`Node::priced_as`](crate::model::Node::priced_as).
    pub priced_as: Arc<str>,
}

impl Want {
    /// What `backends` need from `cloud`: each kind of node once, in a fixed order.
    pub fn of(backends: &[Arc<Backend>], cloud: Cloud) -> Vec<Want> {
        let mut wants: BTreeMap<(String, String), Want> = BTreeMap::new();
        for backend in backends.iter().filter(|backend| backend.cloud == cloud) {
            let Some(node) = &backend.node else { continue };
            let priced_as = node.priced_as();
            let zones = || backend.zones.iter().map(|zone| Arc::from(zone.as_str()));
            wants
                .entry((backend.region.clone(), priced_as.to_string()))
                .and_modify(|want| {
                    want.zones.extend(zones());
                    want.zones.sort_unstable();
                    want.zones.dedup();
                    want.every_zone |= backend.zones.is_empty();
                    want.spot |= backend.has_spot_nodes();
                })
                .or_insert_with(|| Want {
                    cloud,
                    region: backend.region.as_str().into(),
                    zones: zones().collect(),
                    every_zone: backend.zones.is_empty(),
                    spot: backend.has_spot_nodes(),
                    instance_type: node.instance_type.as_str().into(),
                    accelerator: node.accelerator.clone(),
                    priced_as: priced_as.into(),
                });
        }
        wants.into_values().collect()
    }
}

/// The outcome of asking a provider once.
///
/// What could not be had is a fault; it makes none of the quotes doubtful. A part whose answer is wrong as a whole (empty,
/// cut off, in another currency or unit, not the API's at all) gives no quote of that part.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fetched {
    /// Prices that the provider states, before anyone has judged them.
    pub quotes: Vec<Quote>,
    /// What could not be had, a sentence each: what, where, found, expected, what to do.
    pub faults: Vec<FeedFault>,
}

impl Fetched {
    /// Adds another outcome to this one.
    pub fn extend(&mut self, other: Fetched) {
        self.quotes.extend(other.quotes);
        self.faults.extend(other.faults);
    }
}

impl From<Result<Vec<Quote>, FeedFault>> for Fetched {
    fn from(outcome: Result<Vec<Quote>, FeedFault>) -> Fetched {
        match outcome {
            Ok(quotes) => Fetched { quotes, faults: Vec::new() },
            Err(fault) => Fetched { quotes: Vec::new(), faults: vec![fault] },
        }
    }
}

/// One thing that `tradewind prices check` tried.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What was tried: `aws: ec2:DescribeSpotPriceHistory in us-east-1`.
    pub what: String,
    /// What came of it: what was found, or what is missing and what to do about it, in one sentence.
    pub outcome: Result<String, FeedFault>,
}
