//! One pass over all SKUs of Compute Engine: 40,000 synthetic ones (no real list is that of the bench) in 8 pages from a server
//! in the process, and the prices of 100 machines out of them. Goal: under 2 s, and well under 200 MB at the peak.
//!
//! What the client allocates is counted; what the server holds is not.

use std::{sync::Arc, time::Duration};

use divan::{AllocProfiler, Bencher, counter::BytesCount};
use google_cloud_billing_v1::model::ListSkusResponse;
use tokio::runtime;
use tradewind::{
    model::{Accelerator, Cloud, Secret},
    signals::prices::{GcpSettings, Want, gcp::GcpPrices},
};

mod catalog;
#[path = "../tests/harness/gcp.rs"]
mod gcp;

use catalog::{PAGE, synthetic};
use gcp::{Catalog, KEY, Reply, pages};

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

/// 100 machines that the table prices.
fn wants() -> Vec<Want> {
    let machines = [
        "n1-standard-2",
        "n1-standard-4",
        "n1-standard-8",
        "n1-standard-16",
        "n1-highmem-4",
        "n1-highmem-8",
        "n1-highcpu-16",
        "g2-standard-4",
        "g2-standard-8",
        "g2-standard-12",
        "g2-standard-16",
        "g2-standard-24",
        "g2-standard-48",
        "g2-standard-96",
    ];
    let regions = [
        "us-central1",
        "us-east4",
        "us-west4",
        "europe-west1",
        "europe-west4",
        "asia-southeast1",
        "asia-northeast1",
    ];
    let of = |region: &str, machine: &str, accelerator: Option<Accelerator>| {
        let attached = if accelerator.is_some() { "+1xnvidia-tesla-t4" } else { "" };
        Want {
            cloud: Cloud::Gcp,
            region: region.into(),
            zones: Vec::new(),
            every_zone: true,
            spot: true,
            instance_type: machine.into(),
            accelerator,
            priced_as: format!("{machine}{attached}").into(),
        }
    };
    let t4 = || Some(Accelerator { kind: "nvidia-tesla-t4".to_owned(), count: 1 });
    let mut wants: Vec<Want> =
        regions.iter().flat_map(|region| machines.iter().map(|machine| of(region, machine, None))).collect();
    wants.push(of("us-central1", "n1-standard-8", t4()));
    wants.push(of("europe-west4", "n1-standard-8", t4()));
    assert_eq!(wants.len(), 100);
    wants
}

#[divan::bench(sample_count = 10, sample_size = 1)]
fn fetch_100_machines(bencher: Bencher<'_, '_>) {
    let pages = pages(&synthetic(), PAGE);
    let bytes: usize = pages.iter().map(|page| page.len()).sum();
    let catalog = Catalog::scripted(pages, |_| Reply::Page);
    let wants = wants();
    // One thread, so that all that the client allocates is counted.
    let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let settings = GcpSettings {
        endpoint: Some(catalog.url()),
        api_key: Some(Secret::new(KEY, "bench")),
        timeout: Duration::from_secs(60),
    };
    let prices = runtime.block_on(GcpPrices::connect(&settings)).expect("it connects");
    bencher.counter(BytesCount::new(bytes)).bench_local(|| {
        let fetched = runtime.block_on(prices.fetch(&wants));
        assert_eq!((fetched.quotes.len(), &fetched.faults[..]), (200, &[][..]));
    });
}

/// What the client library's model of one page costs, of all that a fetch costs.
#[divan::bench(sample_count = 10, sample_size = 1)]
fn parse_one_page(bencher: Bencher<'_, '_>) {
    let page: Arc<[u8]> = pages(&synthetic(), PAGE).swap_remove(0);
    bencher.counter(BytesCount::new(page.len())).bench_local(|| {
        let page: ListSkusResponse = serde_json::from_slice(&page).expect("a page");
        assert_eq!(page.skus.len(), PAGE);
    });
}
