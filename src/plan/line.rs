//! One line of a month's bill.

use std::fmt;

use serde::Serialize;

use crate::model::BackendId;

/// What a line is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Nodes or managed instances.
    Compute,
    /// Their disks.
    Storage,
    /// What is lost when spot nodes are taken back.
    Interruption,
    /// Bytes to clients.
    Egress,
    /// What platforms charge on top.
    Fees,
    /// People's work.
    Operation,
}

impl Kind {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Compute => "compute",
            Kind::Storage => "storage",
            Kind::Interruption => "interruption",
            Kind::Egress => "egress",
            Kind::Fees => "fees",
            Kind::Operation => "operation",
        }
    }
}

/// What a quantity counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Unit {
    /// An hour of one node.
    #[serde(rename = "node-hour")]
    NodeHour,
    /// An hour of one managed instance or replica.
    #[serde(rename = "instance-hour")]
    InstanceHour,
    /// 10^9 bytes.
    #[serde(rename = "GB")]
    Gb,
    /// An hour of one cluster.
    #[serde(rename = "cluster-hour")]
    ClusterHour,
    /// A month of one cluster.
    #[serde(rename = "cluster")]
    Cluster,
    /// One request.
    #[serde(rename = "request")]
    Request,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Unit::NodeHour => "node-hour",
            Unit::InstanceHour => "instance-hour",
            Unit::Gb => "GB",
            Unit::ClusterHour => "cluster-hour",
            Unit::Cluster => "cluster",
            Unit::Request => "request",
        })
    }
}

/// One line of a month's bill: `usd_per_month` is `quantity` times `usd_per_unit`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// What it is for.
    pub kind: Kind,
    /// Where it arises.
    pub backend: BackendId,
    /// What is paid for, in words.
    pub what: String,
    /// How much of it in a month.
    pub quantity: f64,
    /// What the quantity counts.
    pub unit: Unit,
    /// USD for one.
    pub usd_per_unit: f64,
    /// USD for all.
    pub usd_per_month: f64,
    /// Who says what one costs, and when.
    pub source: String,
}
