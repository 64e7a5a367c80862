//! What the tables say, and that they can be trusted to be tables.

use proptest::prelude::*;

use super::*;
use crate::model::{Accelerator, Platform};

/// The builtin tables as a file, with every price times `factor`.
fn scaled(factor: f64) -> String {
    let mut file = String::from("cloud,service,item,region,unit,from,usd,as_of,source\n");
    for ((cloud, service), rows) in &Fees::builtin().rows {
        for row in rows {
            for (from, fee) in &row.steps {
                let (item, region) = (&row.key.item, &row.key.region);
                let Fee { usd, unit, as_of, source } = fee;
                let usd = usd * factor;
                let service = service.as_str();
                file += &format!("{cloud},{service},{item},{region},{unit},{from},{usd},{as_of},{source}\n");
            }
        }
    }
    file
}

/// All tiers of the builtin tables, with the regions (or starts of them) they are for.
fn all_tiers() -> Vec<(String, Tiers)> {
    let rows = Fees::builtin().rows.iter().filter(|((_, service), _)| *service == Service::InternetEgress);
    rows.flat_map(|(_, rows)| rows).map(|row| (format!("{:?}", row.key), Tiers::of(row).unwrap())).collect()
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-9)
}

fn egress(cloud: Cloud, region: &str) -> f64 {
    Fees::builtin().internet_egress(cloud, region).unwrap().first().usd
}

fn between(cloud: Cloud, from: &str, to: &str) -> f64 {
    Fees::builtin().between_regions(cloud, from, to).unwrap().usd
}

#[test]
fn every_row_of_the_tables_is_read() {
    for (file, content) in BUILTIN {
        let lines = content.lines().count() - 1;
        let rows = parse::parse(file, content.as_bytes()).unwrap();
        assert_eq!(rows.iter().map(|row| row.steps.len()).sum::<usize>(), lines, "{file}");
        for (_, fee) in rows.iter().flat_map(|row| &row.steps) {
            let year = fee.as_of.year();
            assert!((2021..=2026).contains(&year), "{file}: {fee}");
            assert!(fee.usd > 0.0 && fee.source.len() > 10, "{file}: {fee}");
        }
    }
    let keys = BUILTIN.iter().flat_map(|(file, content)| parse::parse(file, content.as_bytes()).unwrap());
    let merged: usize = Fees::builtin().rows.values().map(Vec::len).sum();
    assert_eq!(keys.count(), merged, "no table overrides another");
}

#[test]
fn egress_is_what_the_providers_publish() {
    assert_eq!(egress(Cloud::Aws, "us-east-1"), 0.09);
    assert_eq!(egress(Cloud::Aws, "eu-central-1"), 0.09);
    assert_eq!(egress(Cloud::Aws, "ap-northeast-1"), 0.114);
    assert_eq!(egress(Cloud::Aws, "sa-east-1"), 0.15);
    // 0.12 USD per GiB, in GB.
    assert!(near(egress(Cloud::Gcp, "us-central1"), 0.12 * 1e9 / 1_073_741_824.0));
    assert!(near(egress(Cloud::Gcp, "europe-west3"), 0.12 * 1e9 / 1_073_741_824.0));
    assert!(near(egress(Cloud::Gcp, "australia-southeast1"), 0.19 * 1e9 / 1_073_741_824.0));
    let china = Fees::builtin().internet_egress_to(Cloud::Gcp, "us-central1", "china").unwrap();
    assert!(near(china.first().usd, 0.23 * 1e9 / 1_073_741_824.0));
    let anywhere = Fees::builtin().internet_egress_to(Cloud::Aws, "us-east-1", "china").unwrap();
    assert_eq!(anywhere.first().usd, 0.09);
}

#[test]
fn tiers_are_paid_one_after_the_other() {
    let tiers = Fees::builtin().internet_egress(Cloud::Aws, "us-east-1").unwrap();
    // 10 TB at 0.09, 40 TB at 0.085, 100 TB at 0.07, and 10 TB at 0.05.
    let whole = 10_240.0 * 0.09 + 40_960.0 * 0.085 + 102_400.0 * 0.07 + 10_240.0 * 0.05;
    assert!(near(tiers.usd_for(163_840.0), whole));
    assert_eq!((tiers.at(0.0).usd, tiers.at(10_239.0).usd), (0.09, 0.09));
    assert_eq!((tiers.at(10_240.0).usd, tiers.at(1e9).usd), (0.085, 0.05));
    for nothing in [0.0, -5.0, f64::NEG_INFINITY, f64::NAN] {
        assert_eq!(tiers.usd_for(nothing), 0.0);
        assert_eq!(tiers.at(nothing).usd, 0.09);
    }
}

#[test]
fn between_regions_the_more_exact_row_counts() {
    assert_eq!(between(Cloud::Aws, "us-east-1", "us-east-2"), 0.01);
    assert_eq!(between(Cloud::Aws, "us-east-1", "us-west-2"), 0.02);
    assert_eq!(between(Cloud::Aws, "eu-west-1", "ap-south-1"), 0.02);
    assert_eq!(between(Cloud::Aws, "eu-west-1", "ca-west-1"), 0.05);
    assert_eq!(between(Cloud::Aws, "ap-southeast-2", "ap-southeast-4"), 0.08);
    assert_eq!(between(Cloud::Aws, "ap-southeast-2", "us-east-1"), 0.098);
    let gib = 1e9 / 1_073_741_824.0;
    assert!(near(between(Cloud::Gcp, "us-central1", "us-east4"), 0.02 * gib));
    assert!(near(between(Cloud::Gcp, "us-central1", "europe-west4"), 0.05 * gib));
    assert!(near(between(Cloud::Gcp, "asia-southeast1", "asia-southeast2"), 0.1 * gib));
    assert!(near(between(Cloud::Gcp, "southamerica-east1", "us-east1"), 0.14 * gib));
}

#[test]
fn within_a_region_a_byte_costs_nothing_until_it_crosses_zones() {
    let fees = Fees::builtin();
    let same = fees.between_regions(Cloud::Aws, "us-east-1", "us-east-1").unwrap();
    assert_eq!((same.usd, same.unit), (0.0, Unit::Gb));
    assert!(same.source.starts_with("free within a zone; from zone to zone 0.02 USD/GB"), "{}", same.source);
    assert_eq!(fees.cross_zone(Cloud::Aws).unwrap().usd, 0.02);
    assert!(near(fees.cross_zone(Cloud::Gcp).unwrap().usd, 0.01 * 1e9 / 1_073_741_824.0));
    assert!(fees.between_regions(Cloud::Other, "here", "here").is_err());
}

#[test]
fn networks_apart_are_not_joined_by_a_row_for_all_destinations() {
    let fees = Fees::builtin();
    for (from, to) in
        [("us-east-1", "us-gov-west-1"), ("af-south-1", "cn-north-1"), ("us-gov-east-1", "eu-west-1")]
    {
        assert!(fees.between_regions(Cloud::Aws, from, to).is_err(), "{from} to {to}");
    }
    let stated = b"cloud,service,item,region,unit,from,usd,as_of,source\n\
                   aws,inter-region,us-gov-west-1,us-east-1,GB,0,0.09,2026-01-31,contract\n";
    let fees = fees.overridden("ours.csv", stated).unwrap();
    assert_eq!(fees.between_regions(Cloud::Aws, "us-east-1", "us-gov-west-1").unwrap().usd, 0.09);
}

#[test]
fn clusters_disks_and_platforms_are_known() {
    let fees = Fees::builtin();
    assert_eq!(fees.cluster_hour(Platform::Eks).unwrap().unwrap().usd, 0.1);
    assert_eq!(fees.cluster_hour(Platform::Gke).unwrap().unwrap().usd, 0.1);
    assert_eq!(fees.cluster_hour(Platform::CloudRun), Ok(None));
    assert_eq!(fees.disk_gb_month(Cloud::Aws, "us-east-1", "gp3").unwrap().usd, 0.08);
    assert_eq!(fees.disk_gb_month(Cloud::Gcp, "us-central1", "pd-balanced").unwrap().usd, 0.1);
    assert_eq!(fees.eks_auto_mode_hour("ap-northeast-1", "g6.xlarge").unwrap().usd, 0.09104);
    assert_eq!(fees.sagemaker_hour("us-east-1", "ml.g5.xlarge").unwrap().usd, 1.408);
    assert_eq!(fees.vertex_hour("us-central1", "a3-highgpu-1g", None).unwrap().usd, 12.625919);
    let gpu = fees.cloud_run_gpu_second("us-central1", "nvidia-l4", false).unwrap();
    assert_eq!((gpu.usd, gpu.unit), (0.0001867, Unit::GpuSecond));
}

#[test]
fn metered_platforms_cost_by_vcpu_and_memory() {
    let fees = Fees::builtin();
    let on_request = fees.cloud_run("us-central1", Billing::RequestBased).unwrap();
    // 2 vCPUs and 4 GiB: 0.1728 + 0.036 USD an hour.
    assert!(near(on_request.usd_per_hour(2.0, 4.0), 0.2088));
    assert_eq!(on_request.request.as_ref().map(|fee| fee.usd), Some(0.0000004));
    let always = fees.cloud_run("us-central1", Billing::InstanceBased).unwrap();
    assert!(always.request.is_none() && always.vcpu.usd < on_request.vcpu.usd);
    let tier_2 = fees.cloud_run("europe-west3", Billing::RequestBased).unwrap();
    assert_eq!(tier_2.vcpu.usd, 0.0000336);
    let x86 = fees.fargate("us-east-1", Architecture::X86).unwrap();
    assert!(near(x86.usd_per_hour(1.0, 2.0), 0.04937));
    assert!(fees.fargate("us-east-1", Architecture::Arm).unwrap().usd_per_hour(1.0, 2.0) < 0.04937);
}

#[test]
fn what_is_unknown_says_how_to_state_it() {
    let fees = Fees::builtin();
    insta::assert_snapshot!(
        fees.internet_egress(Cloud::Gcp, "asia-northeast1").unwrap_err(),
        @"what a GB from gcp asia-northeast1 to the internet costs is not known: state it in a file of fees by the row `gcp,internet-egress,*,asia-northeast1,GiB,0,USD,YYYY-MM-DD,SOURCE`"
    );
    insta::assert_snapshot!(
        fees.internet_egress(Cloud::Other, "lab").unwrap_err(),
        @"what a GB from other lab to the internet costs is not known: state it in a file of fees by the row `other,internet-egress,*,lab,GB,0,USD,YYYY-MM-DD,SOURCE`"
    );
    insta::assert_snapshot!(
        fees.between_regions(Cloud::Gcp, "africa-south1", "us-east1").unwrap_err(),
        @"what a GB from gcp africa-south1 to gcp us-east1 costs is not known: state it in a file of fees by the row `gcp,inter-region,us-east1,africa-south1,GiB,0,USD,YYYY-MM-DD,SOURCE`"
    );
    let t4 = Accelerator { kind: "nvidia-tesla-t4".into(), count: 1 };
    insta::assert_snapshot!(
        fees.vertex_hour("us-central1", "n1-standard-8", Some(&t4)).unwrap_err(),
        @"what an hour of `n1-standard-8+1xnvidia-tesla-t4` costs for online prediction on Vertex AI in us-central1 is not known: state it in a file of fees by the row `gcp,vertex-ai,n1-standard-8+1xnvidia-tesla-t4,us-central1,hour,0,USD,YYYY-MM-DD,SOURCE`"
    );
    assert!(fees.disk_gb_month(Cloud::Gcp, "us-central1", "hyperdisk-balanced").is_err());
    assert!(fees.cloud_run("europe-west3", Billing::Idle).is_err());
    assert!(fees.fargate("eu-central-1", Architecture::Arm).is_err());
    assert!(fees.cross_zone(Cloud::Other).is_err());
}

#[test]
fn the_row_that_is_asked_for_is_one_that_answers() {
    let fees = Fees::builtin();
    type Ask = fn(&Fees) -> Result<f64, Unknown>;
    let asks: [Ask; 8] = [
        |fees| Ok(fees.internet_egress(Cloud::Other, "lab")?.first().usd),
        |fees| Ok(fees.between_regions(Cloud::Other, "lab", "lab")?.usd),
        |fees| Ok(fees.cross_zone(Cloud::Other)?.usd),
        |fees| Ok(fees.disk_gb_month(Cloud::Gcp, "us-central1", "hyperdisk-balanced")?.usd),
        |fees| Ok(fees.eks_auto_mode_hour("us-east-1", "g6.xlarge")?.usd),
        |fees| Ok(fees.sagemaker_hour("eu-west-1", "ml.g5.xlarge")?.usd),
        |fees| Ok(fees.vertex_hour("us-central1", "g2-standard-8", None)?.usd),
        |fees| Ok(fees.cloud_run_gpu_second("europe-west4", "nvidia-l4", true)?.usd),
    ];
    for ask in asks {
        let row = ask(fees).unwrap_err().row.replace("USD", "0.25").replace("YYYY-MM-DD", "2026-01-31");
        let file = format!("cloud,service,item,region,unit,from,usd,as_of,source\n{row}\n");
        let stated = fees.overridden("ours.csv", file.as_bytes()).unwrap();
        let usd = ask(&stated).unwrap();
        assert!(near(usd, 0.25) || near(usd, 0.25 * 1e9 / 1_073_741_824.0), "{row}: {usd}");
    }
}

#[test]
fn a_row_of_the_operator_takes_the_place_of_all_tiers() {
    let file = b"cloud,service,item,region,unit,from,usd,as_of,source\n\
                 aws,internet-egress,*,us-east-1,GB,0,0.04,2026-01-31,our contract\n";
    let fees = Fees::builtin().overridden("ours.csv", file).unwrap();
    let tiers = fees.internet_egress(Cloud::Aws, "us-east-1").unwrap();
    assert_eq!((tiers.first().usd, tiers.at(1e9).usd), (0.04, 0.04));
    assert_eq!(&*tiers.first().source, "our contract");
    assert_eq!(
        fees.internet_egress(Cloud::Aws, "us-east-2"),
        Fees::builtin().internet_egress(Cloud::Aws, "us-east-2")
    );
    let bad = Fees::builtin().overridden("ours.csv", b"cloud\n").unwrap_err();
    assert!(bad.to_string().starts_with("ours.csv, line 1: found the header `cloud`"), "{bad}");
}

#[test]
fn the_way_to_the_client_is_the_sum_of_its_legs() {
    let fees = Fees::builtin();
    let gib = 1e9 / 1_073_741_824.0;
    let usd = |backend, router| fees.way_to_client(backend, router, 0.0).unwrap().usd_per_gb;
    let virginia = (Cloud::Aws, "us-east-1");
    assert_eq!(usd(virginia, None), 0.09);
    assert_eq!(usd(virginia, Some(virginia)), 0.09);
    assert!(near(usd(virginia, Some((Cloud::Aws, "us-west-2"))), 0.02 + 0.09));
    assert!(near(usd(virginia, Some((Cloud::Gcp, "us-central1"))), 0.09 + 0.12 * gib));
    assert!(near(usd((Cloud::Gcp, "us-central1"), Some(virginia)), 0.12 * gib + 0.09));
    let way = fees.way_to_client(virginia, Some((Cloud::Gcp, "us-central1")), 0.0).unwrap();
    let legs: Vec<&str> = way.legs.iter().map(|leg| &*leg.what).collect();
    assert_eq!(
        legs,
        ["aws us-east-1 to the router in gcp us-central1 over the internet", "gcp us-central1 to the client"]
    );
    assert_eq!(fees.way_to_client(virginia, None, 200_000.0).unwrap().usd_per_gb, 0.05);
    assert!(fees.way_to_client(virginia, Some((Cloud::Other, "lab")), 0.0).is_err());
    assert!(fees.way_to_client((Cloud::Other, "lab"), None, 0.0).is_err());
}

#[test]
fn the_same_rows_again_change_nothing() {
    assert_eq!(Fees::builtin().overridden("same.csv", scaled(1.0).as_bytes()).unwrap(), *Fees::builtin());
}

proptest! {
    /// The cost of a month never falls with its volume, and nowhere jumps: one more GB costs at most the dearest tier.
    #[test]
    fn the_cost_of_a_month_rises_without_jumps(gb in 0.0..500_000.0f64, more in 0.0..100.0f64) {
        for (what, tiers) in all_tiers() {
            let (before, after) = (tiers.usd_for(gb), tiers.usd_for(gb + more));
            prop_assert!(before >= 0.0, "{what}");
            let step = after - before;
            prop_assert!(step >= more * tiers.at(gb + more).usd - 1e-6, "{what}: {step}");
            prop_assert!(step <= more * tiers.at(gb).usd + 1e-6, "{what}: {step}");
        }
    }

    /// Twice the prices are twice the costs.
    #[test]
    fn costs_scale_with_prices(factor in 0.01..100.0f64, gb in 0.0..500_000.0f64) {
        let fees = Fees::builtin().overridden("scaled.csv", scaled(factor).as_bytes()).unwrap();
        for (cloud, region) in [(Cloud::Aws, "us-east-1"), (Cloud::Gcp, "europe-west4")] {
            let then = fees.internet_egress(cloud, region).unwrap();
            let now = Fees::builtin().internet_egress(cloud, region).unwrap();
            prop_assert!(near(then.usd_for(gb), factor * now.usd_for(gb)));
            let router = Some((Cloud::Aws, "eu-west-1"));
            let then = fees.way_to_client((cloud, region), router, gb).unwrap().usd_per_gb;
            let now = Fees::builtin().way_to_client((cloud, region), router, gb).unwrap().usd_per_gb;
            prop_assert!(near(then, factor * now));
        }
        let hour = |fees: &Fees| fees.cloud_run("us-central1", Billing::InstanceBased).unwrap().usd_per_hour(4.0, 16.0);
        prop_assert!(near(hour(&fees), factor * hour(Fees::builtin())));
    }
}
