//! What shall survive the loss of a cloud or a region, and whether it would.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{Backend, Share};

/// What is lost as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Domain {
    /// All of a cloud. Clouds that are not told apart (`other`) count as one.
    Cloud,
    /// A region of a cloud.
    Region,
}

impl Domain {
    /// As the configuration spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Domain::Cloud => "cloud",
            Domain::Region => "region",
        }
    }

    /// Whether two backends are lost together.
    pub fn has_both(self, a: &Backend, b: &Backend) -> bool {
        a.cloud == b.cloud && (self == Domain::Cloud || a.region == b.region)
    }

    /// The name of the domain that a backend is in: `aws`, or `aws/us-east-1`.
    pub fn of(self, backend: &Backend) -> String {
        match self {
            Domain::Cloud => backend.cloud.to_string(),
            Domain::Region => format!("{}/{}", backend.cloud, backend.region),
        }
    }
}

/// That the loss of any one domain leaves enough.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct NMinusOne {
    /// What may be lost.
    pub domain: Domain,
    /// Part of what a domain serves for which others keep replicas ready.
    pub ready: Share,
}

/// What the loss of the domain would mean whose loss would be worst.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Redundancy {
    /// That domain.
    pub domain: String,
    /// Requests per second of the present demand that the others could not serve, even with all the replicas they may have.
    pub missing_rps: f64,
    /// Requests per second for which others should be ready at once, and are not yet.
    pub unready_rps: f64,
    /// Requests per second for which backends are kept ready beyond what they serve, in case of any loss.
    pub reserve_rps: f64,
    /// What the replicas for that cost in USD per hour; `None` if a cost is not known or not trusted.
    pub reserve_usd_per_hour: Option<f64>,
}

impl fmt::Display for Redundancy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Redundancy { domain, missing_rps, unready_rps, reserve_rps, reserve_usd_per_hour } = self;
        if *missing_rps > 0.0 {
            write!(f, "without {domain}, {missing_rps:.1} requests per second could not be served")?;
        } else {
            write!(f, "the others could serve all without {domain}")?;
        }
        if *unready_rps > 0.0 {
            write!(f, "; replicas for {unready_rps:.1} of those that should be ready for it are not yet")?;
        }
        if *reserve_rps > 0.0 {
            write!(f, "; kept ready for a loss: {reserve_rps:.1} requests per second, at ")?;
            match reserve_usd_per_hour {
                Some(usd) => write!(f, "${usd:.4} an hour")?,
                None => write!(f, "a cost that is not known")?,
            }
        }
        Ok(())
    }
}
