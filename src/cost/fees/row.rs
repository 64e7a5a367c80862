//! What a row of the tables says, and which row answers a question.

use std::{fmt, sync::Arc};

use jiff::civil::Date;
use serde::{Serialize, Serializer};

use crate::{cost::BYTES_PER_GB, model::Cloud};

/// Bytes in a GiB.
const BYTES_PER_GIB: f64 = (1u64 << 30) as f64;

/// What a fee is for one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// 10^9 bytes.
    Gb,
    /// 2^30 bytes.
    GiB,
    /// An hour of one cluster, node or endpoint instance.
    Hour,
    /// A month of one GB of disk, as the provider counts GB.
    GbMonth,
    /// A month of one GiB of disk.
    GiBMonth,
    /// A second of one vCPU.
    VcpuSecond,
    /// A second of one GiB of memory.
    GiBSecond,
    /// A second of one GPU.
    GpuSecond,
    /// An hour of one vCPU.
    VcpuHour,
    /// An hour of one GB of memory, as the provider counts GB.
    GbHour,
    /// One request.
    Request,
}

impl Unit {
    const ALL: [Unit; 11] = [
        Unit::Gb,
        Unit::GiB,
        Unit::Hour,
        Unit::GbMonth,
        Unit::GiBMonth,
        Unit::VcpuSecond,
        Unit::GiBSecond,
        Unit::GpuSecond,
        Unit::VcpuHour,
        Unit::GbHour,
        Unit::Request,
    ];

    /// Its name in the tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Unit::Gb => "GB",
            Unit::GiB => "GiB",
            Unit::Hour => "hour",
            Unit::GbMonth => "GB-month",
            Unit::GiBMonth => "GiB-month",
            Unit::VcpuSecond => "vCPU-second",
            Unit::GiBSecond => "GiB-second",
            Unit::GpuSecond => "GPU-second",
            Unit::VcpuHour => "vCPU-hour",
            Unit::GbHour => "GB-hour",
            Unit::Request => "request",
        }
    }

    pub(super) fn named(text: &str) -> Option<Unit> {
        Unit::ALL.into_iter().find(|unit| unit.as_str() == text)
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Unit {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// What a provider charges for one unit, and where that is published.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fee {
    /// US dollars.
    pub usd: f64,
    /// For one of what.
    pub unit: Unit,
    /// Day on which the source said so.
    pub as_of: Date,
    /// The public page, price list or document.
    pub source: Arc<str>,
}

impl Fee {
    /// The same fee for 10^9 bytes, if it is one for 2^30.
    pub(super) fn per_gb(&self) -> Fee {
        match self.unit {
            Unit::GiB => Fee { usd: self.usd * BYTES_PER_GB / BYTES_PER_GIB, unit: Unit::Gb, ..self.clone() },
            _ => self.clone(),
        }
    }
}

impl fmt::Display for Fee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} USD/{} as of {} ({})", self.usd, self.unit, self.as_of, self.source)
    }
}

/// `volume` in `unit`, in GB of 10^9 bytes.
pub(super) fn in_gb(volume: f64, unit: Unit) -> f64 {
    if unit == Unit::GiB { volume * BYTES_PER_GIB / BYTES_PER_GB } else { volume }
}

/// What is charged for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Service {
    InternetEgress,
    InterRegion,
    CrossZone,
    Cluster,
    EksAutoMode,
    Disk,
    CloudRun,
    Fargate,
    SageMaker,
    VertexAi,
}

impl Service {
    const ALL: [Service; 10] = [
        Service::InternetEgress,
        Service::InterRegion,
        Service::CrossZone,
        Service::Cluster,
        Service::EksAutoMode,
        Service::Disk,
        Service::CloudRun,
        Service::Fargate,
        Service::SageMaker,
        Service::VertexAi,
    ];

    /// Its name in the tables.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Service::InternetEgress => "internet-egress",
            Service::InterRegion => "inter-region",
            Service::CrossZone => "cross-zone",
            Service::Cluster => "cluster",
            Service::EksAutoMode => "eks-auto-mode",
            Service::Disk => "disk",
            Service::CloudRun => "cloud-run",
            Service::Fargate => "fargate",
            Service::SageMaker => "sagemaker",
            Service::VertexAi => "vertex-ai",
        }
    }

    pub(super) fn named(text: &str) -> Option<Service> {
        Service::ALL.into_iter().find(|service| service.as_str() == text)
    }

    /// The names of all services, for a message.
    pub(super) fn names() -> String {
        Service::ALL.map(Service::as_str).join(", ")
    }

    /// The units that it is charged in.
    ///
    /// # Errors
    /// What `item` has to be, if the service knows no such item: nobody would ever ask for it.
    pub(super) fn units(self, item: &str) -> Result<&'static [Unit], &'static str> {
        let name = !item.is_empty() && !item.contains('*');
        match self {
            Service::InterRegion => Ok(&[Unit::Gb, Unit::GiB]),
            Service::InternetEgress if item == "*" || name => Ok(&[Unit::Gb, Unit::GiB]),
            Service::InternetEgress => Err("a destination such as china, or `*` for any other"),
            Service::CrossZone if item == "*" => Ok(&[Unit::Gb, Unit::GiB]),
            Service::CrossZone => Err("`*`"),
            Service::Cluster if matches!(item, "eks" | "gke") => Ok(&[Unit::Hour]),
            Service::Cluster => Err("eks or gke"),
            Service::Disk if name => Ok(&[Unit::GbMonth, Unit::GiBMonth]),
            Service::Disk => Err("a class of disks such as gp3"),
            Service::CloudRun => match item {
                "request-based-vcpu" | "instance-based-vcpu" | "idle-vcpu" => Ok(&[Unit::VcpuSecond]),
                "request-based-memory" | "instance-based-memory" | "idle-memory" => Ok(&[Unit::GiBSecond]),
                "request" => Ok(&[Unit::Request]),
                _ if name && item.starts_with("gpu-") => Ok(&[Unit::GpuSecond]),
                _ => {
                    Err("request-based-, instance-based- or idle- with vcpu or memory, request, or gpu-NAME")
                }
            },
            Service::Fargate => match item {
                "x86-vcpu" | "arm-vcpu" => Ok(&[Unit::VcpuHour]),
                "x86-memory" | "arm-memory" => Ok(&[Unit::GbHour]),
                _ => Err("x86-vcpu, x86-memory, arm-vcpu or arm-memory"),
            },
            Service::SageMaker if name && item.starts_with("ml.") => Ok(&[Unit::Hour]),
            Service::SageMaker => Err("an instance such as ml.g5.xlarge"),
            Service::EksAutoMode | Service::VertexAi if name => Ok(&[Unit::Hour]),
            Service::EksAutoMode => Err("an instance such as g6.xlarge"),
            Service::VertexAi => Err("a machine such as a3-highgpu-1g or n1-standard-8+1xnvidia-tesla-t4"),
        }
    }
}

/// What a row is about. A row of a later file takes the place of the row about the same of an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub cloud: Cloud,
    pub service: Service,
    /// What of the service; for `inter-region` the destination, exact or the start of it and `*`.
    pub item: Arc<str>,
    /// Where; exact, or the start of it and `*`.
    pub region: Arc<str>,
}

impl Key {
    /// How exactly the key names `item` and `region`: more is more exact, and a more exact item counts for more than a more
    /// exact region. `None` if it is not about them.
    pub(super) fn exactness(&self, item: &str, region: &str) -> Option<(usize, usize)> {
        Some((exactness(&self.item, item)?, exactness(&self.region, region)?))
    }
}

/// Whether `text` is a name, or the start of one and a single `*`.
pub(super) fn is_pattern(text: &str) -> bool {
    !text.is_empty() && !text.strip_suffix('*').unwrap_or(text).contains('*')
}

fn exactness(pattern: &str, name: &str) -> Option<usize> {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start).then_some(start.len()),
        None => (pattern == name).then_some(usize::MAX),
    }
}

/// The prices for one key, by the volume in a month from which each holds (in the fee's own unit). The first is from 0.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Row {
    pub key: Key,
    pub steps: Vec<(f64, Fee)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_name_stands_for_all_that_begin_with_it() {
        assert_eq!(exactness("us-*", "us-east1"), Some(3));
        assert_eq!(exactness("*", "us-east1"), Some(0));
        assert_eq!(exactness("us-east1", "us-east1"), Some(usize::MAX));
        assert_eq!(exactness("us-east", "us-east1"), None);
        assert_eq!(exactness("eu-*", "us-east1"), None);
        for (text, good) in
            [("*", true), ("us-*", true), ("us-1", true), ("", false), ("*-1", false), ("**", false)]
        {
            assert_eq!(is_pattern(text), good, "{text}");
        }
    }

    #[test]
    fn a_gib_costs_more_than_a_gb() {
        let fee =
            Fee { usd: 0.12, unit: Unit::GiB, as_of: jiff::civil::date(2026, 1, 1), source: "a page".into() };
        let gb = fee.per_gb();
        assert!((gb.usd - 0.111_758_709).abs() < 1e-9, "{}", gb.usd);
        assert_eq!(gb.unit, Unit::Gb);
        assert_eq!(gb.per_gb(), gb);
        assert!((in_gb(1024.0, Unit::GiB) - 1_099.511_627_776).abs() < 1e-9);
        assert_eq!(in_gb(10.0, Unit::Gb), 10.0);
    }

    #[test]
    fn names_are_read_as_they_are_written() {
        for unit in Unit::ALL {
            assert_eq!(Unit::named(unit.as_str()), Some(unit));
        }
        for service in Service::ALL {
            assert_eq!(Service::named(service.as_str()), Some(service));
        }
    }
}
