//! What providers charge beside machines: bytes on their way, clusters, disks, managed platforms. Pure.
//!
//! The tables are public list prices, each with its date and source; `docs/fees.md` says how they were found. What no table
//! has is [`Unknown`], never zero and never guessed.

mod parse;
mod platform;
mod row;
mod tiers;
mod way;

#[cfg(test)]
mod tests;

use std::{collections::HashMap, sync::LazyLock};

pub use parse::FeeFault;
pub use platform::{Architecture, Billing, Metered};
pub use row::{Fee, Unit};
pub use tiers::Tiers;
pub use way::{Leg, Place, Way};

use crate::model::Cloud;
use row::{Row, Service};

/// Hours of a month, as both providers turn a price for a month into one for an hour: a twelfth of 8,760 (EBS and Compute
/// Engine pricing pages).
pub const MONTH_HOURS: f64 = 730.0;

/// The tables that come with the program.
const BUILTIN: [(&str, &str); 5] = [
    ("egress.csv", include_str!("egress.csv")),
    ("transfer.csv", include_str!("transfer.csv")),
    ("disks.csv", include_str!("disks.csv")),
    ("platforms.csv", include_str!("platforms.csv")),
    ("sagemaker.csv", include_str!("sagemaker.csv")),
];

/// All fees that are known. Does not change once it is made.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fees {
    rows: HashMap<(Cloud, Service), Vec<Row>>,
}

impl Fees {
    /// The fees that come with the program.
    pub fn builtin() -> &'static Fees {
        static BUILT_IN: LazyLock<Fees> = LazyLock::new(|| {
            let merged =
                |fees: Fees, (file, content): (&str, &str)| fees.overridden(file, content.as_bytes());
            BUILTIN.into_iter().try_fold(Fees::default(), merged).expect("a test reads every row")
        });
        &BUILT_IN
    }

    /// These fees with the rows of a file: a row takes the place of the one with the same cloud, service, item and region
    /// (of all its tiers), or is added. `file` is its name in errors.
    ///
    /// # Errors
    /// The first bad line. Nothing of the file is used then.
    pub fn overridden(&self, file: &str, csv: &[u8]) -> Result<Fees, FeeFault> {
        let mut fees = self.clone();
        for row in parse::parse(file, csv)? {
            let rows = fees.rows.entry((row.key.cloud, row.key.service)).or_default();
            match rows.iter_mut().find(|known| known.key == row.key) {
                Some(known) => *known = row,
                None => rows.push(row),
            }
        }
        Ok(fees)
    }

    /// The most exact row about `item` and `region`. A more exact item counts for more than a more exact region.
    fn find(&self, cloud: Cloud, service: Service, item: &str, region: &str) -> Option<&Row> {
        let rows = self.rows.get(&(cloud, service))?;
        let exact = rows.iter().filter_map(|row| Some((row.key.exactness(item, region)?, row)));
        exact.max_by_key(|(exactness, _)| *exactness).map(|(_, row)| row)
    }

    /// The fee of a service that has one price for any volume, in the provider's unit; `unit` is the one to state it in if
    /// it is not known, and `what` says then what that is.
    fn fee(
        &self,
        cloud: Cloud,
        service: Service,
        item: &str,
        region: &str,
        unit: Unit,
        what: impl FnOnce() -> String,
    ) -> Result<Fee, Unknown> {
        let row = self.find(cloud, service, item, region);
        let fee = row.and_then(|row| row.steps.first()).map(|(_, fee)| fee.clone());
        fee.ok_or_else(|| Unknown::new(what(), cloud, service, item, region, unit))
    }
}

/// A fee that no table has. One sentence: what is not known, and the row that would say it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} is not known: state it in a file of fees by the row `{row}`")]
pub struct Unknown {
    what: String,
    row: String,
}

impl Unknown {
    fn new(what: String, cloud: Cloud, service: Service, item: &str, region: &str, unit: Unit) -> Unknown {
        let row = format!("{cloud},{},{item},{region},{unit},0,USD,YYYY-MM-DD,SOURCE", service.as_str());
        Unknown { what, row }
    }
}
