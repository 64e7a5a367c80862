//! Where prices and fees come from.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    super::leaf::{ServiceUrl, Text},
    SecretRef, seconds,
};
use crate::model::{Cloud, Timestamp};

/// Where prices come from.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Prices {
    /// The sources, in order of precedence: `"aws"`, `"gcp"`, and files. Where two know the same price, the earlier one
    /// counts while it can be trusted.
    #[schemars(length(max = 100), extend("examples" = [["aws", "gcp"], [{ "file": "prices.csv" }]]))]
    pub(in crate::config) sources: Vec<PriceSource>,
    /// How AWS is asked.
    pub(in crate::config) aws: Aws,
    /// How Google Cloud is asked.
    pub(in crate::config) gcp: Gcp,
    /// From one reading of a source to the next, give or take a tenth. What changes slowly (on-demand prices, and all of
    /// Google Cloud's) is asked for every quarter of `stale_after`, if that is longer.
    pub(in crate::config) refresh: Text<Duration>,
    /// A price that no source has confirmed for longer is stale.
    pub(in crate::config) stale_after: Text<Duration>,
    /// A price that rises or falls by more than this factor is held back until it is confirmed.
    #[schemars(range(max = 1000), extend("exclusiveMinimum" = 1))]
    pub(in crate::config) max_step: f64,
}

impl Default for Prices {
    fn default() -> Prices {
        Prices {
            sources: Vec::new(),
            aws: Aws::default(),
            gcp: Gcp::default(),
            refresh: seconds(300),
            stale_after: seconds(7200),
            max_step: 5.0,
        }
    }
}

/// A source of prices.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub(in crate::config) enum PriceSource {
    /// A provider's own service.
    Provider(Provider),
    /// A file.
    File(PriceFile),
}

/// A provider that is asked for its prices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("examples" = ["aws", "gcp"]))]
#[serde(rename_all = "lowercase")]
pub(in crate::config) enum Provider {
    /// EC2's spot prices and the Price List.
    Aws,
    /// The Cloud Billing Catalog.
    Gcp,
}

/// How AWS is asked. Credentials come from the standard chain: environment, profile, web identity, container, instance.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Aws {
    /// A profile of the shared configuration files, instead of what the environment says.
    #[schemars(length(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) profile: Option<String>,
    /// URL of EC2 instead of the public ones, for a private endpoint; `{region}` stands for the region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) ec2_endpoint: Option<Text<ServiceUrl>>,
    /// URL of the Price List instead of the public ones.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) pricing_endpoint: Option<Text<ServiceUrl>>,
    /// Longest time for one call, its pages and retries included; between 1s and 10m.
    pub(in crate::config) timeout: Text<Duration>,
}

impl Default for Aws {
    fn default() -> Aws {
        Aws { profile: None, ec2_endpoint: None, pricing_endpoint: None, timeout: seconds(60) }
    }
}

/// How Google Cloud is asked.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Gcp {
    /// Where an API key is read from; application default credentials without. Prices are public, so a key is enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) api_key: Option<SecretRef>,
    /// URL of the Cloud Billing API instead of the public one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) endpoint: Option<Text<ServiceUrl>>,
    /// Longest time for one call, its pages and retries included; between 1s and 10m.
    pub(in crate::config) timeout: Text<Duration>,
}

impl Default for Gcp {
    fn default() -> Gcp {
        Gcp { api_key: None, endpoint: None, timeout: seconds(120) }
    }
}

/// What is charged beside machines.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct Fees {
    /// A CSV file (see docs/fees.md) whose rows take the place of the built-in ones.
    #[schemars(length(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::config) file: Option<String>,
    /// What goes out to the internet in a month anyway, in GB (10^9 bytes): decides which tier the next byte is in.
    #[schemars(range(min = 0))]
    pub(in crate::config) egress_gb_per_month: f64,
}

/// A place in a cloud.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("examples" = [{ "cloud": "aws", "region": "us-east-1" }]))]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct Location {
    /// Who bills it.
    #[schemars(with = "String", extend("enum" = ["aws", "gcp", "other"]))]
    pub(in crate::config) cloud: Cloud,
    /// The provider's name of its region.
    #[schemars(length(min = 1), extend("examples" = ["us-east-1"]))]
    pub(in crate::config) region: String,
}

/// A CSV file of prices: `at,cloud,region,zone,instance_type,offer,usd_per_hour`.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[schemars(extend("examples" = [{ "file": "prices.csv" }]))]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct PriceFile {
    /// The file. It is read again when it changes.
    #[schemars(length(min = 1))]
    pub(in crate::config) file: String,
    /// Replay the file from this recorded moment, instead of the newest row that is not in the future.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) from: Option<Text<Timestamp>>,
    /// Recorded seconds that pass in one second of the replay; 1 unless given.
    #[schemars(extend("exclusiveMinimum" = 0))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::config) speed: Option<f64>,
}
