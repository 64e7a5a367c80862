//! The largest answers that AWS gives, from a server in the process: the spot prices of a whole region (900 machines in 6
//! zones, 5,400 rows on 6 pages) and the on-demand price of a machine among as many products as a question may bring (10 pages
//! of 100, each with its reserved terms). Names and prices are synthetic. Goal: under 1 s, and under 50 MB at the peak.
//!
//! What the client allocates is counted; what the server holds is not.

use std::{sync::Arc, time::Duration};

use aws_credential_types::Credentials;
use divan::{AllocProfiler, Bencher, counter::BytesCount};
use tokio::runtime;
use tradewind::{
    model::{Cloud, Timestamp},
    signals::prices::{Want, aws::AwsPrices},
};

#[path = "../tests/harness/aws.rs"]
mod aws;

use aws::{Aws, Market, Reply, Row, history, price_list, product, row, xml};

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

const MACHINES: usize = 900;
const ZONES: [&str; 6] = ["us-east-1a", "us-east-1b", "us-east-1c", "us-east-1d", "us-east-1e", "us-east-1f"];
const PAGE_ROWS: usize = 1000;

const PAGES: usize = 10;
const PAGE_PRODUCTS: usize = 100;

fn main() {
    divan::main();
}

fn want(machine: &str) -> Want {
    Want {
        cloud: Cloud::Aws,
        region: "us-east-1".into(),
        zones: Vec::new(),
        every_zone: true,
        spot: true,
        instance_type: machine.into(),
        accelerator: None,
        priced_as: machine.into(),
    }
}

fn machine(n: usize) -> String {
    format!("m{}.{}xlarge", n / 30, n % 30)
}

/// Pages, each of which names the next one by its number.
fn serve(pages: Vec<Reply>) -> Aws {
    Aws::scripted(Market::default(), move |call| {
        let token = match &*call.service {
            "ec2" => call.param("NextToken"),
            _ => call.json()["NextToken"].as_str().map(str::to_owned),
        };
        pages[token.map_or(0, |token| token.parse().expect("a token of ours"))].clone()
    })
}

fn prices(aws: &Aws) -> AwsPrices {
    let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, None, "bench");
    AwsPrices::with_credentials(&aws.settings(Duration::from_secs(60)), credentials)
}

fn bytes(pages: &[Reply]) -> usize {
    let length = |page: &Reply| match page {
        Reply::Body { body, .. } => Arc::as_ref(body).len(),
        _ => 0,
    };
    pages.iter().map(length).sum()
}

fn next(page: usize, pages: usize) -> String {
    if page + 1 < pages { (page + 1).to_string() } else { String::new() }
}

#[divan::bench]
fn spot_prices_of_a_region(bencher: Bencher<'_, '_>) {
    let rows: Vec<Row> = (0..MACHINES * ZONES.len())
        .map(|n| {
            let usd = format!("{}.{:04}00", n % 7, n);
            row("2024-05-01T12:34:56Z", "us-east-1", ZONES[n % ZONES.len()], &machine(n / ZONES.len()), &usd)
        })
        .collect();
    let chunks: Vec<Vec<&Row>> = rows.chunks(PAGE_ROWS).map(|rows| rows.iter().collect()).collect();
    let page = |(n, rows): (usize, &Vec<&Row>)| xml(200, &history(rows, &next(n, chunks.len())));
    let pages: Vec<Reply> = chunks.iter().enumerate().map(page).collect();
    let size = bytes(&pages);
    let aws = serve(pages);
    let prices = prices(&aws);
    let wants: Vec<Want> = (0..MACHINES).map(|n| want(&machine(n))).collect();
    let now: Timestamp = "2024-06-01T00:00:00Z".parse().expect("a time");
    let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    bencher.counter(BytesCount::new(size)).bench_local(|| {
        let fetched = runtime.block_on(prices.spot(&wants, now));
        assert_eq!((fetched.quotes.len(), fetched.faults.len()), (rows.len(), 0));
    });
}

#[divan::bench]
fn on_demand_price_among_many(bencher: Bencher<'_, '_>) {
    let page = |page: usize| {
        let items = (0..PAGE_PRODUCTS).map(|n| machine(page * PAGE_PRODUCTS + n));
        let items: Vec<_> = items.map(|name| product(&name, "us-east-1", "1.5000000000")).collect();
        price_list(&items, Some(&next(page, PAGES)))
    };
    let pages: Vec<Reply> = (0..PAGES).map(page).collect();
    let size = bytes(&pages);
    let aws = serve(pages);
    let prices = prices(&aws);
    let wants = [want(&machine(PAGES * PAGE_PRODUCTS / 2))];
    let runtime = runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    bencher.counter(BytesCount::new(size)).bench_local(|| {
        let fetched = runtime.block_on(prices.on_demand(&wants));
        assert_eq!((fetched.quotes.len(), fetched.faults.len()), (1, 0), "{fetched:?}");
    });
}
