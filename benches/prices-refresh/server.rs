//! What `run` beside this file puts around Tradewind: AWS and the Cloud Billing Catalog as far as prices go, and the server that
//! requests are proxied to. All on loopback. Names and prices are synthetic but for the SKUs of the tests.
//!
//! `prices` says which 100 backends it has prices for; then, for every line on its standard input, it answers with a line: how
//! often it was asked since the line before, and where it is to be asked from now on. All answers are made beforehand, so that
//! serving them takes as little as it can from what is measured on the same machine. `upstream ADDRESS` answers every request.

use std::{
    collections::HashMap,
    env,
    io::{self, BufRead},
    process::ExitCode,
    sync::Arc,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime,
};

#[path = "../../tests/harness/aws.rs"]
mod aws;
#[path = "../catalog/mod.rs"]
mod catalog;
#[path = "../../tests/harness/gcp.rs"]
mod gcp;

use aws::{Aws, Call, Market, Row, history, price_list, product, row, xml};
use catalog::{PAGE, synthetic};
use gcp::Catalog;

const AWS_REGIONS: [&str; 10] = [
    "us-east-1",
    "us-east-2",
    "us-west-1",
    "us-west-2",
    "eu-west-1",
    "eu-central-1",
    "eu-north-1",
    "ap-south-1",
    "ap-northeast-1",
    "ap-southeast-2",
];
const AWS_MACHINES: [&str; 5] = ["g4dn.xlarge", "g4dn.2xlarge", "g5.xlarge", "g5.2xlarge", "p3.2xlarge"];

/// In each region: as many as the largest has.
const AWS_ZONES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// Those that the SKUs of the tests price.
const GCP_REGIONS: [&str; 7] = [
    "us-central1",
    "us-east4",
    "us-west4",
    "europe-west1",
    "europe-west4",
    "asia-southeast1",
    "asia-northeast1",
];
const GCP_MACHINES: [&str; 7] = [
    "n1-standard-4",
    "n1-standard-8",
    "n1-highmem-8",
    "g2-standard-4",
    "g2-standard-8",
    "g2-standard-12",
    "g2-standard-48",
];

/// One more, to make 50 backends on Google Cloud.
const GCP_ONE_MORE: (&str, &str) = ("us-central1", "g2-standard-96");

/// Longest request head that the upstream reads, in bytes.
const HEAD_BYTES_MAX: usize = 16 * 1024;

const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 100\r\n\r\n\
                      a hundred bytes, as the upstream of the comparison of proxies answers them, and nothing but that....";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let served = match &arguments[..] {
        [mode] if mode == "prices" => serve_prices(),
        [mode, address] if mode == "upstream" => serve_upstream(address),
        // `cargo bench` starts every bench by itself.
        _ => {
            println!("prices_refresh measures nothing by itself: benches/prices-refresh/run starts it.");
            Ok(())
        }
    };
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("prices_refresh: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve_prices() -> io::Result<()> {
    let answers = Answers::new();
    let pages = gcp::pages(&synthetic(), PAGE);
    let pages_count = pages.len();
    println!("{}", json!({ "backends": backends() }));
    let mut servers: Option<(Aws, Catalog)> = None;
    for line in io::stdin().lock().lines() {
        line?;
        let asked = servers.take().map(|(aws, gcp)| {
            let aws = aws.calls();
            let of = |service: &str| aws.iter().filter(|call| call.service == service).count();
            let pages = gcp.calls().len();
            json!({ "ec2": of("ec2"), "price_list": of("pricing"), "catalog_pages": pages,
                    "catalogs": pages / pages_count })
        });
        let answers = answers.clone();
        let aws = Aws::scripted(Market::default(), move |call| answers.to(call));
        let gcp = Catalog::scripted(pages.clone(), |_| gcp::Reply::Page);
        println!("{}", json!({ "asked": asked, "aws": aws.url(), "gcp": gcp.url(), "gcp_key": gcp::KEY }));
        servers = Some((aws, gcp));
    }
    Ok(())
}

/// Where the 100 backends run, and on what.
fn backends() -> Vec<Value> {
    let backend = |cloud: &str, region: &str, machine: &str| json!({ "cloud": cloud, "region": region, "machine": machine });
    let on_aws =
        AWS_REGIONS.iter().flat_map(|region| AWS_MACHINES.map(|machine| backend("aws", region, machine)));
    let on_gcp =
        GCP_REGIONS.iter().flat_map(|region| GCP_MACHINES.map(|machine| backend("gcp", region, machine)));
    let (region, machine) = GCP_ONE_MORE;
    on_aws.chain(on_gcp).chain([backend("gcp", region, machine)]).collect()
}

/// What AWS says, made beforehand.
#[derive(Clone)]
struct Answers {
    /// By region.
    spot: Arc<HashMap<String, aws::Reply>>,
    /// By region and machine.
    on_demand: Arc<HashMap<(String, String), aws::Reply>>,
}

impl Answers {
    fn new() -> Answers {
        let (mut spot, mut on_demand) = (HashMap::new(), HashMap::new());
        for region in AWS_REGIONS {
            let mut rows: Vec<Row> = Vec::new();
            for (n, machine) in AWS_MACHINES.into_iter().enumerate() {
                for (m, zone) in AWS_ZONES.into_iter().enumerate() {
                    let usd = format!("{}.{m}00000", n + 1);
                    rows.push(row("2024-05-01T12:34:56Z", region, &format!("{region}{zone}"), machine, &usd));
                }
                let items = [product(machine, region, &format!("{}.0000000000", 3 * (n + 1)))];
                on_demand.insert((region.to_owned(), machine.to_owned()), price_list(&items, None));
            }
            let rows: Vec<&Row> = rows.iter().collect();
            spot.insert(region.to_owned(), xml(200, &history(&rows, "")));
        }
        Answers { spot: Arc::new(spot), on_demand: Arc::new(on_demand) }
    }

    fn to(&self, call: &Call) -> aws::Reply {
        let known = if call.service == "ec2" {
            self.spot.get(&call.region)
        } else {
            let mut filters = call.filters();
            let mut filter = |name: &str| filters.remove(name).unwrap_or_default();
            self.on_demand.get(&(filter("regionCode"), filter("instanceType")))
        };
        let unknown =
            || aws::refusal(call, 400, "InvalidParameterValue", "not one of the benchmark's machines");
        known.cloned().unwrap_or_else(unknown)
    }
}

fn serve_upstream(address: &str) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(async move {
                // The proxy sees the closed connection and reports it as a failed request: nothing to add here.
                let _ = answer(stream).await;
            });
        }
    })
}

/// Answers every head of a request; no client of this benchmark sends a body.
async fn answer(mut stream: TcpStream) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(4096);
    loop {
        while let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
            buffer.drain(..end + 4);
            stream.write_all(ANSWER.as_bytes()).await?;
        }
        if buffer.len() > HEAD_BYTES_MAX {
            return Err(io::Error::other("the request head is too long"));
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}
