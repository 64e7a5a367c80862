//! What a node costs: sources, and the book of what is in use.
//!
//! A source (AWS, Google Cloud, or a CSV file, live or replayed) says something; the [`PriceBook`] judges it, keeps the last
//! good price of every key, and tells what a backend pays. [`PriceFeed`] carries one to the other. A request never reads any
//! of this.

use std::{path::PathBuf, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};

use crate::model::{Cloud, Offer, Secret, Timestamp};

pub mod aws;
mod book;
mod feed;
mod fetch;
mod file;
pub mod gcp;
mod guard;
mod history;
mod provider;
mod saved;
mod table;
#[cfg(test)]
mod tests;
mod view;

pub use book::{FeedStatus, News, PriceBook};
pub use feed::PriceFeed;
pub use fetch::{Fetched, Finding, Want};
pub use file::FileSource;
pub use history::{PriceChange, PriceHistory, PriceSeries, history};
pub use view::{PriceReport, ReportState};

/// Shortest time after which a live source may confirm its own implausible price.
const CONFIRM_AFTER_MIN: Duration = Duration::from_secs(60);

/// Longest pause between two pieces of a refresh that is spread over time. The largest piece, a page of Google Cloud's Catalog,
/// takes 30 ms of a core: with this pause, less than 1% of the requests meet one. See benches/README.md.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Where prices come from, and how far they are trusted.
#[derive(Clone, Debug, PartialEq)]
pub struct PriceSettings {
    /// In order of precedence: where two sources know the same key, the earlier one counts while it can be trusted.
    pub sources: Vec<PriceSource>,
    /// From one fetch of a source to the next; a file is also read when it changes.
    pub refresh: Duration,
    /// A price that its source has not confirmed for longer than this is stale.
    pub stale_after: Duration,
    /// A price that rises or falls by more than this factor is held back until a later fetch confirms it. At least 1.
    pub max_step: f64,
}

/// One source of prices.
#[derive(Clone, Debug, PartialEq)]
pub enum PriceSource {
    /// A CSV file with the columns `at,cloud,region,zone,instance_type,offer,usd_per_hour`.
    File {
        /// The file. Reread when it changes.
        path: PathBuf,
        /// History played back at speed; `None` for prices that hold now.
        replay: Option<Replay>,
    },
    /// AWS: spot prices from EC2, on-demand prices from the Price List.
    Aws(AwsSettings),
    /// Google Cloud: the Cloud Billing Catalog.
    Gcp(GcpSettings),
}

/// How AWS is asked. Credentials come from the SDK's standard chain.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AwsSettings {
    /// A profile of the shared configuration files; `None` for what the environment says.
    pub profile: Option<String>,
    /// URL of EC2 instead of the public one; `{region}` stands for the region.
    pub ec2_endpoint: Option<String>,
    /// URL of the Price List instead of the public ones.
    pub pricing_endpoint: Option<String>,
    /// Longest time for one call, its pages and retries included.
    pub timeout: Duration,
}

/// How Google Cloud is asked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GcpSettings {
    /// URL of the Cloud Billing API instead of the public one.
    pub endpoint: Option<String>,
    /// An API key; `None` for application default credentials.
    pub api_key: Option<Secret>,
    /// Longest time for one call, its pages and retries included.
    pub timeout: Duration,
}

impl PriceSource {
    /// Its name in reports and metrics: `aws`, `gcp`, `file:prices.csv`, or `replay:prices.csv` for history played back.
    pub fn name(&self) -> Arc<str> {
        match self {
            PriceSource::File { path, replay: None } => format!("file:{}", path.display()).into(),
            PriceSource::File { path, replay: Some(_) } => format!("replay:{}", path.display()).into(),
            PriceSource::Aws(_) => "aws".into(),
            PriceSource::Gcp(_) => "gcp".into(),
        }
    }

    /// Whether it is a file, so that nobody has to be asked.
    pub fn is_file(&self) -> bool {
        matches!(self, PriceSource::File { .. })
    }

    /// Whether it asks this provider.
    pub fn asks(&self, cloud: Cloud) -> bool {
        match self {
            PriceSource::File { .. } => false,
            PriceSource::Aws(_) => cloud == Cloud::Aws,
            PriceSource::Gcp(_) => cloud == Cloud::Gcp,
        }
    }

    /// How its history is played back; `None` for prices that hold now.
    fn replay(&self) -> Option<Replay> {
        match self {
            PriceSource::File { replay, .. } => *replay,
            PriceSource::Aws(_) | PriceSource::Gcp(_) => None,
        }
    }

    /// How long after an implausible jump a fetch must still say the same to be believed: `refresh`, but at least a minute,
    /// since a wrong file that is read again at once is the same mistake and no second witness. In a replay `refresh` passes
    /// `speed` times as fast.
    fn confirm_after(&self, refresh: Duration) -> Duration {
        match self {
            PriceSource::File { replay: Some(replay), .. } => {
                Duration::try_from_secs_f64(refresh.as_secs_f64() / replay.speed).unwrap_or(refresh)
            }
            PriceSource::File { replay: None, .. } | PriceSource::Aws(_) | PriceSource::Gcp(_) => {
                refresh.max(CONFIRM_AFTER_MIN)
            }
        }
    }
}

/// How recorded prices are played back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Replay {
    /// The recorded moment that is "now" when the replay starts.
    pub from: Timestamp,
    /// Recorded seconds that pass in one real second. Finite and above 0.
    pub speed: f64,
}

/// What a price is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PriceKey {
    /// Who bills it.
    pub cloud: Cloud,
    /// The provider's region.
    pub region: Arc<str>,
    /// The availability zone; `None` if the price holds for the whole region.
    pub zone: Option<Arc<str>>,
    /// The provider's name of the machine.
    pub instance_type: Arc<str>,
    /// The terms.
    pub offer: Offer,
}

/// What a source says, before anyone has judged it: the number may be anything.
#[derive(Clone, Debug, PartialEq)]
pub struct Quote {
    /// What the price is for.
    pub key: PriceKey,
    /// From when the provider charges it.
    pub at: Timestamp,
    /// US dollars for an hour; zero, negative, infinite or not a number at all when the source is at fault.
    pub usd_per_hour: f64,
}

/// Why a source as a whole said nothing that can be used. One sentence: what, where, found, expected.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FeedFault(pub String);
