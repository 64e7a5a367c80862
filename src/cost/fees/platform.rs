//! What platforms charge: for a cluster, and in place of nodes.

use std::borrow::Cow;

use super::{
    Fees, Unknown,
    row::{Fee, Service, Unit},
};
use crate::model::{Accelerator, Cloud, Platform};

/// Seconds in an hour.
const HOUR: f64 = 3600.0;

/// How a Cloud Run service is billed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Billing {
    /// While requests are served, and for each request.
    RequestBased,
    /// For as long as the instance lives.
    InstanceBased,
    /// A minimum instance under request-based billing while it serves nothing.
    Idle,
}

/// Which processor a Fargate task runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of the architectures")]
pub enum Architecture {
    X86,
    Arm,
}

/// What a platform charges that bills by vCPU and memory.
#[derive(Clone, Debug, PartialEq)]
pub struct Metered {
    /// For a vCPU.
    pub vcpu: Fee,
    /// For a GB or GiB of memory, as the provider counts it.
    pub memory: Fee,
    /// For each request; `None` where requests are not billed.
    pub request: Option<Fee>,
}

impl Metered {
    /// USD for an hour of a replica with `vcpus` and `memory` (in the unit of [`Metered::memory`]), without requests.
    pub fn usd_per_hour(&self, vcpus: f64, memory: f64) -> f64 {
        vcpus * hourly(&self.vcpu) + memory * hourly(&self.memory)
    }
}

/// USD for an hour of what is billed by the second or by the hour.
fn hourly(fee: &Fee) -> f64 {
    match fee.unit {
        Unit::VcpuSecond | Unit::GiBSecond | Unit::GpuSecond => fee.usd * HOUR,
        _ => fee.usd,
    }
}

impl Fees {
    /// What an hour of a cluster's control plane costs. `None` on a platform without a cluster of one's own, and on
    /// [`Platform::Other`], of which no provider bills it: there it costs nothing on top of its nodes.
    ///
    /// GKE gives each billing account a credit for one zonal or Autopilot cluster. It is not subtracted: which cluster has
    /// it is known only to the account.
    ///
    /// # Errors
    /// No table has it.
    pub fn cluster_hour(&self, platform: Platform) -> Result<Option<Fee>, Unknown> {
        let (cloud, item) = match platform {
            Platform::Eks => (Cloud::Aws, "eks"),
            Platform::Gke => (Cloud::Gcp, "gke"),
            Platform::Fargate
            | Platform::CloudRun
            | Platform::VertexAi
            | Platform::SageMaker
            | Platform::Other => return Ok(None),
        };
        let what = format!("what an hour of an {} cluster costs", item.to_uppercase());
        self.fee(cloud, Service::Cluster, item, "*", Unit::Hour, || what).map(Some)
    }

    /// What EKS Auto Mode adds to the price of an instance, per hour.
    ///
    /// # Errors
    /// No table has it.
    pub fn eks_auto_mode_hour(&self, region: &str, instance: &str) -> Result<Fee, Unknown> {
        self.fee(Cloud::Aws, Service::EksAutoMode, instance, region, Unit::Hour, || {
            format!("what EKS Auto Mode adds to an hour of `{instance}` in aws {region}")
        })
    }

    /// What a month of a GB of disk costs, in the provider's unit: a disk that is asked for as 100 GB has 100 of them on
    /// Amazon Web Services and on Google Cloud alike (and 100 × 2^30 bytes on both).
    ///
    /// # Errors
    /// No table has it.
    pub fn disk_gb_month(&self, cloud: Cloud, region: &str, class: &str) -> Result<Fee, Unknown> {
        let unit = if cloud == Cloud::Gcp { Unit::GiBMonth } else { Unit::GbMonth };
        self.fee(cloud, Service::Disk, class, region, unit, || {
            format!("what a {unit} of a `{class}` disk costs in {cloud} {region}")
        })
    }

    /// What Cloud Run charges in a region, without the monthly free tier of the billing account.
    ///
    /// # Errors
    /// No table has it.
    pub fn cloud_run(&self, region: &str, billing: Billing) -> Result<Metered, Unknown> {
        let name = match billing {
            Billing::RequestBased => "request-based",
            Billing::InstanceBased => "instance-based",
            Billing::Idle => "idle",
        };
        let part = |of: &str, unit| {
            let item = format!("{name}-{of}");
            self.fee(Cloud::Gcp, Service::CloudRun, &item, region, unit, || {
                format!("what a {unit} costs on Cloud Run in {region} ({name})")
            })
        };
        let request = || {
            self.fee(Cloud::Gcp, Service::CloudRun, "request", region, Unit::Request, || {
                format!("what a request costs on Cloud Run in {region}")
            })
        };
        Ok(Metered {
            vcpu: part("vcpu", Unit::VcpuSecond)?,
            memory: part("memory", Unit::GiBSecond)?,
            request: (billing == Billing::RequestBased).then(request).transpose()?,
        })
    }

    /// What a second of a GPU (`nvidia-l4`) costs on Cloud Run, with or without zonal redundancy.
    ///
    /// # Errors
    /// No table has it.
    pub fn cloud_run_gpu_second(&self, region: &str, gpu: &str, zonal: bool) -> Result<Fee, Unknown> {
        let (item, how) =
            if zonal { (format!("gpu-{gpu}-zonal"), "with") } else { (format!("gpu-{gpu}"), "without") };
        self.fee(Cloud::Gcp, Service::CloudRun, &item, region, Unit::GpuSecond, || {
            format!("what a second of a GPU `{gpu}` {how} zonal redundancy costs on Cloud Run in {region}")
        })
    }

    /// What Fargate charges for Linux tasks in a region.
    ///
    /// # Errors
    /// No table has it.
    pub fn fargate(&self, region: &str, architecture: Architecture) -> Result<Metered, Unknown> {
        let name = match architecture {
            Architecture::X86 => "x86",
            Architecture::Arm => "arm",
        };
        let part = |of: &str, unit| {
            let item = format!("{name}-{of}");
            self.fee(Cloud::Aws, Service::Fargate, &item, region, unit, || {
                format!("what a {unit} costs on Fargate ({name}) in {region}")
            })
        };
        Ok(Metered {
            vcpu: part("vcpu", Unit::VcpuHour)?,
            memory: part("memory", Unit::GbHour)?,
            request: None,
        })
    }

    /// What an hour of one instance (`ml.g5.xlarge`) of a SageMaker real-time endpoint costs.
    ///
    /// # Errors
    /// No table has it.
    pub fn sagemaker_hour(&self, region: &str, instance: &str) -> Result<Fee, Unknown> {
        self.fee(Cloud::Aws, Service::SageMaker, instance, region, Unit::Hour, || {
            format!("what an hour of `{instance}` costs on SageMaker real-time endpoints in {region}")
        })
    }

    /// What an hour of one node for online prediction costs on Vertex AI, with its accelerators.
    ///
    /// # Errors
    /// No table has it.
    pub fn vertex_hour(
        &self,
        region: &str,
        machine: &str,
        accelerator: Option<&Accelerator>,
    ) -> Result<Fee, Unknown> {
        let item = match accelerator {
            None => Cow::Borrowed(machine),
            Some(Accelerator { kind, count }) => Cow::Owned(format!("{machine}+{count}x{kind}")),
        };
        self.fee(Cloud::Gcp, Service::VertexAi, &item, region, Unit::Hour, || {
            format!("what an hour of `{item}` costs for online prediction on Vertex AI in {region}")
        })
    }
}
