//! A Cloud Billing Catalog as long as the real one, for benchmarks: the SKUs of the tests, and synthetic ones around them.

use serde_json::Value;

use crate::gcp::{Label, sku, table};

/// SKUs of Compute Engine, about as many as there are.
const SKUS: usize = 40_000;
/// SKUs to a page, as many as Tradewind asks for.
pub const PAGE: usize = 5000;

const REGIONS: [&str; 30] = [
    "us-central1",
    "us-east1",
    "us-east4",
    "us-east5",
    "us-south1",
    "us-west1",
    "us-west2",
    "us-west3",
    "us-west4",
    "northamerica-northeast1",
    "northamerica-northeast2",
    "southamerica-east1",
    "southamerica-west1",
    "europe-central2",
    "europe-north1",
    "europe-southwest1",
    "europe-west1",
    "europe-west2",
    "europe-west3",
    "europe-west4",
    "europe-west6",
    "europe-west8",
    "europe-west9",
    "asia-east1",
    "asia-northeast1",
    "asia-northeast3",
    "asia-south1",
    "asia-southeast1",
    "australia-southeast1",
    "me-west1",
];

/// Shapes of descriptions as the Catalog has them: usage type, family, group, text.
const SHAPES: [(&str, &str, &str, &str); 8] = [
    ("Commit1Yr", "Compute", "CPU", "Commitment v1: N2D AMD Cpu in Frankfurt for 1 Year, variant"),
    (
        "Commit3Yr",
        "Compute",
        "GPU",
        "Commitment v1: Nvidia Tesla A100 80GB GPU running in Las Vegas for 3 Years, variant",
    ),
    ("OnDemand", "Compute", "RAM", "N2D AMD Sole Tenancy Instance Ram running in Sao Paulo, variant"),
    ("Preemptible", "Compute", "CPU", "Spot Preemptible C3D Instance Core running in Tel Aviv, variant"),
    (
        "OnDemand",
        "Network",
        "PremiumInternetEgress",
        "Network Internet Data Transfer Out from Virginia to Eastern Europe, variant",
    ),
    (
        "OnDemand",
        "Storage",
        "SSD",
        "Hyperdisk Balanced Storage Pools Advanced Throughput - Used in Columbus, variant",
    ),
    (
        "OnDemand",
        "License",
        "Google",
        "Licensing Fee for Windows Server 2022 Datacenter Edition on VM with 96 VCPU, variant",
    ),
    ("OnDemand", "Compute", "GPU", "Nvidia L4 GPU Virtual Workstation running in Montreal, variant"),
];

/// The table of the tests, and filling around it.
pub fn synthetic() -> Vec<Value> {
    let mut skus = table(include_str!("../../tests/data/gcp_skus_2024_10.csv"));
    let needed = skus.len();
    let mut random = fastrand::Rng::with_seed(7);
    for n in needed..SKUS {
        let (usage_type, family, group, text) = SHAPES[n % SHAPES.len()];
        // Most SKUs are of one region, and some of many.
        let regions = if n.is_multiple_of(5) { random.usize(1..=REGIONS.len()) } else { 1 };
        let first = random.usize(0..=REGIONS.len() - regions);
        let label = Label {
            id: &format!("{:04X}-{:04X}-{:04X}", n / 0x10000, n % 0x10000, n % 0xfff1),
            description: &format!("{text} {n}"),
            family,
            group,
            usage_type,
            regions: &REGIONS[first..first + regions],
        };
        skus.push(sku(label, "h", 0.01 + random.f64()));
    }
    random.shuffle(&mut skus);
    skus
}
