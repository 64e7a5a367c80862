//! What backends cost beside the price of their machines: from the tables of fees, and what the operator states.

use std::sync::Arc;

use super::{
    super::{
        files,
        schema::{self, Document},
    },
    Rules,
};
use crate::{
    cost::fees::{self, Fees},
    model::{Accelerator, Cloud, Interruptions, Managed, Node, Platform},
};

/// Largest file of fees: some 40,000 rows.
const FEES_LEN_MAX: u64 = 4 << 20;

impl Rules<'_, '_> {
    /// The built-in tables, with the rows of the operator's file.
    pub(super) fn fees(&mut self, written: &schema::Fees) -> Arc<Fees> {
        let builtin = Fees::builtin();
        let Some(file) = &written.file else { return Arc::new(builtin.clone()) };
        let path = ["fees", "file"];
        let fees = match files::read(&self.dir.join(file), FEES_LEN_MAX) {
            Ok(bytes) => builtin.overridden(file, &bytes).map_err(|fault| {
                self.error(&path, fault.to_string(), None);
            }),
            Err(problem) => {
                self.file_error(&path, file, &problem);
                Err(())
            }
        };
        Arc::new(fees.unwrap_or_else(|()| builtin.clone()))
    }

    /// Fills in what bytes cost on their way to the client, where a table knows it.
    pub(super) fn fill_egress(&mut self, document: &mut Document, fees: &Fees) {
        let router = document.location.as_ref().map(|place| (place.cloud, place.region.clone()));
        let gb_per_month = document.fees.egress_gb_per_month;
        for (id, backend) in &mut document.backends.0 {
            if backend.egress_usd_per_gb.is_some() {
                continue;
            }
            let place = (backend.cloud, backend.region.as_str());
            let by = router.as_ref().map(|(cloud, region)| (*cloud, region.as_str()));
            match fees.way_to_client(place, by, gb_per_month) {
                Ok(way) => backend.egress_usd_per_gb = Some(way.usd_per_gb),
                Err(_) if backend.cloud == Cloud::Other => {
                    let hint = "say what a GB costs with `egress_usd_per_gb`; 0 silences this warning";
                    let message = "nothing says what sending data to clients costs: taken as free";
                    self.warn(&["backends", id.as_str()], message, Some(hint.into()));
                    backend.egress_usd_per_gb = Some(0.0);
                }
                Err(unknown) => {
                    let message = format!("its cost is unknown: {unknown}");
                    let hint = "or say it with `egress_usd_per_gb`";
                    self.warn(&["backends", id.as_str()], &message, Some(hint.into()));
                }
            }
        }
    }

    pub(super) fn node(&mut self, backend: &[&str], written: &schema::Backend, fees: &Fees) -> Option<Node> {
        let node = written.node.as_ref()?;
        let disk_usd_per_hour = node.disk.as_ref().map_or(0.0, |disk| {
            match fees.disk_gb_month(written.cloud, &written.region, &disk.class) {
                Ok(fee) => fee.usd * disk.gb / fees::MONTH_HOURS,
                Err(unknown) => {
                    self.error(&[backend, &["node", "disk"]].concat(), unknown.to_string(), None);
                    0.0
                }
            }
        });
        Some(Node {
            instance_type: node.instance_type.clone(),
            spot: node.spot.0,
            replicas_per_node: node.replicas_per_node,
            accelerator: node.accelerator.as_ref().map(accelerator),
            disk_usd_per_hour,
            interruptions: Interruptions {
                per_node_hour: node.interruptions.per_node_hour,
                work_lost: node.interruptions.work_lost.0,
            },
        })
    }

    /// What a managed platform charges; `None` where it is not stated, or with an error where it cannot be found out.
    pub(super) fn managed(
        &mut self,
        backend: &[&str],
        written: &schema::Backend,
        fees: &Fees,
    ) -> Option<Managed> {
        let managed = written.managed.as_ref()?;
        if written.node.is_some() {
            let hint =
                "`node` is for machines of your own, `managed` for what a platform charges in their place";
            let message = "a backend has `node` or `managed`, not both".to_owned();
            self.error(&[backend, &["managed"]].concat(), message, Some(hint.into()));
        }
        match charges(written, managed, fees) {
            Ok(charges) => Some(charges),
            Err(problem) => {
                self.error(&[backend, &["managed"]].concat(), problem, None);
                None
            }
        }
    }
}

pub(super) fn accelerator(written: &schema::Accelerator) -> Accelerator {
    Accelerator { kind: written.r#type.clone(), count: written.count }
}

/// By what is stated, or by the tables. The error says what is missing or too much.
fn charges(backend: &schema::Backend, managed: &schema::Managed, fees: &Fees) -> Result<Managed, String> {
    let sized_by = keys_written(managed);
    let only = |allowed: &[&str]| match sized_by.iter().find(|key| !allowed.contains(key)) {
        Some(key) => Err(format!("`{key}` has no meaning here: {}", expected(backend.platform))),
        None => Ok(()),
    };
    let required = |what: Option<f64>| what.ok_or_else(|| expected(backend.platform));
    let region = backend.region.as_str();
    let unknown = |unknown: fees::Unknown| unknown.to_string();
    let usd_per_request = managed.usd_per_request;
    if let Some(usd_per_replica_hour) = managed.usd_per_replica_hour {
        only(&[])?;
        return Ok(Managed { usd_per_replica_hour, usd_per_request: usd_per_request.unwrap_or(0.0) });
    }
    let (usd_per_replica_hour, fee_per_request) = match backend.platform {
        Platform::SageMaker => {
            only(&["instance_type"])?;
            let instance = managed.instance_type.as_deref().ok_or_else(|| expected(backend.platform))?;
            (fees.sagemaker_hour(region, instance).map_err(unknown)?.usd, 0.0)
        }
        Platform::VertexAi => {
            only(&["instance_type", "accelerator"])?;
            let machine = managed.instance_type.as_deref().ok_or_else(|| expected(backend.platform))?;
            let attached = managed.accelerator.as_ref().map(accelerator);
            (fees.vertex_hour(region, machine, attached.as_ref()).map_err(unknown)?.usd, 0.0)
        }
        Platform::Fargate => {
            only(&["vcpus", "memory", "architecture"])?;
            let architecture = match managed.architecture {
                Some(schema::Architecture::Arm) => fees::Architecture::Arm,
                Some(schema::Architecture::X86) | None => fees::Architecture::X86,
            };
            let metered = fees.fargate(region, architecture).map_err(unknown)?;
            (metered.usd_per_hour(required(managed.vcpus)?, required(managed.memory)?), 0.0)
        }
        Platform::CloudRun => {
            only(&["vcpus", "memory", "gpu", "zonal_redundancy", "billing"])?;
            cloud_run(region, managed, fees)?
        }
        Platform::Eks | Platform::Gke | Platform::Other => return Err(expected(backend.platform)),
    };
    Ok(Managed { usd_per_replica_hour, usd_per_request: usd_per_request.unwrap_or(fee_per_request) })
}

/// USD for an hour of a replica, and for a request. Minimum instances are taken to be billed as if they served.
fn cloud_run(region: &str, managed: &schema::Managed, fees: &Fees) -> Result<(f64, f64), String> {
    let billing = match (managed.billing, &managed.gpu) {
        (Some(schema::Billing::Request), Some(_)) => {
            return Err("a `gpu` needs `billing = \"instance\"` on Cloud Run".into());
        }
        (Some(schema::Billing::Instance), _) | (None, Some(_)) => fees::Billing::InstanceBased,
        (Some(schema::Billing::Request) | None, None) => fees::Billing::RequestBased,
    };
    let unknown = |unknown: fees::Unknown| unknown.to_string();
    let (Some(vcpus), Some(memory)) = (managed.vcpus, managed.memory) else {
        return Err(expected(Platform::CloudRun));
    };
    let metered = fees.cloud_run(region, billing).map_err(unknown)?;
    let gpu = match &managed.gpu {
        Some(gpu) => {
            let zonal = managed.zonal_redundancy.unwrap_or(true);
            fees.cloud_run_gpu_second(region, gpu, zonal).map_err(unknown)?.usd * 3600.0
        }
        None => 0.0,
    };
    let per_request = metered.request.as_ref().map_or(0.0, |fee| fee.usd);
    Ok((metered.usd_per_hour(vcpus, memory) + gpu, per_request))
}

/// What says how large a replica is.
fn keys_written(managed: &schema::Managed) -> Vec<&'static str> {
    let all = [
        ("instance_type", managed.instance_type.is_some()),
        ("accelerator", managed.accelerator.is_some()),
        ("vcpus", managed.vcpus.is_some()),
        ("memory", managed.memory.is_some()),
        ("architecture", managed.architecture.is_some()),
        ("gpu", managed.gpu.is_some()),
        ("zonal_redundancy", managed.zonal_redundancy.is_some()),
        ("billing", managed.billing.is_some()),
    ];
    all.into_iter().filter(|(_, written)| *written).map(|(key, _)| key).collect()
}

fn expected(platform: Platform) -> String {
    let form = match platform {
        Platform::SageMaker => "managed = { instance_type = \"ml.g5.xlarge\" }",
        Platform::VertexAi => {
            "managed = { instance_type = \"a3-highgpu-1g\" }, with `accelerator` if one is attached"
        }
        Platform::Fargate => "managed = { vcpus = 4, memory = 16 }, with `architecture` if it is \"arm\"",
        Platform::CloudRun => {
            "managed = { vcpus = 8, memory = 32 }, with `gpu`, `zonal_redundancy` and `billing` where they apply"
        }
        Platform::Eks | Platform::Gke | Platform::Other => "",
    };
    match form {
        "" => "this `platform` bills nodes: expected `usd_per_replica_hour`, or a `node`".into(),
        form => format!("expected {form}, or `usd_per_replica_hour`"),
    }
}
