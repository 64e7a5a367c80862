//! AWS on loopback, as far as prices go: EC2's Query protocol (a form in, XML out) and the Price List's awsJson1_1 (JSON whose
//! items are JSON strings), plain HTTP/1.1 on threads, so that every byte is under control. The shapes are those of recorded
//! answers of 2020 to 2024.
#![allow(dead_code, reason = "not every binary that includes it uses all of it")]

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use serde_json::{Value, json};
use tradewind::{model::Timestamp, signals::prices::AwsSettings};

/// From when all on-demand prices hold.
pub const EFFECTIVE: &str = "2024-04-01T00:00:00Z";

const RECORDED: &str = include_str!("../data/prices_aws_recorded.csv");

/// One call.
#[derive(Clone, Debug)]
pub struct Call {
    /// Counted from 0, over all connections, for each service and region of the endpoint.
    pub number: usize,
    /// `ec2` or `pricing`, as it was signed.
    pub service: String,
    /// The region whose endpoint is asked, as it was signed.
    pub region: String,
    pub path: String,
    pub headers: HashMap<String, String>,
    pub body: String,
}

/// An answer.
#[derive(Clone)]
pub enum Reply {
    /// What AWS says to this call.
    Market,
    /// Something else.
    Body { status: u16, content_type: &'static str, body: Arc<[u8]> },
    /// As `Body` with status 200, but the connection ends before the last byte.
    Cut(Arc<[u8]>),
    /// Nothing, until the client goes away.
    Silence,
    /// Nothing, and the connection ends.
    Close,
}

/// A row of the history of spot prices.
#[derive(Clone, Debug)]
pub struct Row {
    pub at: Timestamp,
    pub region: String,
    /// Its name, or its id, or both with a `/` in between.
    pub zone: String,
    pub machine: String,
    pub usd: String,
    pub product: &'static str,
}

/// What AWS would say.
#[derive(Clone, Default)]
pub struct Market {
    pub rows: Vec<Row>,
    /// Items of the Price List.
    pub products: Vec<Value>,
    /// Most rows to a page.
    pub page_rows: usize,
}

type Script = dyn Fn(&Call) -> Reply + Send + Sync;

/// The server. It stops when it is dropped.
pub struct Aws {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    market: Market,
    script: Box<Script>,
    calls: Mutex<Vec<Call>>,
    connections: Mutex<Vec<TcpStream>>,
    stopped: AtomicBool,
}

impl Aws {
    /// Says what `market` says.
    pub fn of(market: Market) -> Aws {
        Aws::scripted(market, |_| Reply::Market)
    }

    /// As [`of`](Self::of), but `script` answers where it does not say [`Reply::Market`].
    pub fn scripted(market: Market, script: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Aws {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port on loopback");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            market,
            script: Box::new(script),
            calls: Mutex::default(),
            connections: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let accepting = thread::spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared)
        });
        Aws { address, shared, accepting: Some(accepting) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Settings that lead here, and nowhere else.
    pub fn settings(&self, timeout: Duration) -> AwsSettings {
        AwsSettings {
            profile: None,
            ec2_endpoint: Some(format!("{}/ec2/{{region}}", self.url())),
            pricing_endpoint: Some(format!("{}/pricing/{{region}}", self.url())),
            timeout,
        }
    }

    /// All calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.shared.calls.lock().unwrap().clone()
    }
}

impl Drop for Aws {
    fn drop(&mut self) {
        self.shared.stopped.store(true, SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        for connection in self.shared.connections.lock().unwrap().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for connection in listener.incoming() {
        if shared.stopped.load(SeqCst) {
            return;
        }
        let Ok(connection) = connection else { continue };
        let kept = connection.try_clone().expect("a second handle");
        shared.connections.lock().unwrap().push(kept);
        let shared = shared.clone();
        thread::spawn(move || serve(connection, &shared));
    }
}

/// Answers the calls of one connection until one side ends it.
fn serve(connection: TcpStream, shared: &Shared) {
    let mut reader = BufReader::new(connection.try_clone().expect("a second handle"));
    let mut writer = connection;
    while let Some(mut call) = read(&mut reader) {
        {
            let mut calls = shared.calls.lock().unwrap();
            let before =
                calls.iter().filter(|old| (&old.service, &old.region) == (&call.service, &call.region));
            call.number = before.count();
            calls.push(call.clone());
        }
        let mut reply = (shared.script)(&call);
        if let Reply::Market = reply {
            reply = shared.market.answer(&call);
        }
        let sent = match reply {
            Reply::Body { status, content_type, body } => {
                write(&mut writer, status, content_type, &body, body.len())
            }
            Reply::Cut(body) => {
                let _ = write(&mut writer, 200, content_type(&call), &body, body.len() + 1000);
                let _ = writer.shutdown(Shutdown::Both);
                return;
            }
            Reply::Silence => {
                let _ = reader.read(&mut [0]);
                return;
            }
            Reply::Close | Reply::Market => {
                let _ = writer.shutdown(Shutdown::Both);
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

fn content_type(call: &Call) -> &'static str {
    if call.service == "ec2" { "text/xml;charset=UTF-8" } else { "application/x-amz-json-1.1" }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Call> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let path = line.split(' ').nth(1)?.to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = String::new();
    reader.by_ref().take(length).read_to_string(&mut body).ok()?;
    // Credential=KEY/20240401/us-east-1/ec2/aws4_request
    let signed = headers.get("authorization").cloned().unwrap_or_default();
    let scope: Vec<&str> = signed.split_once("Credential=")?.1.split(',').next()?.split('/').collect();
    let (region, service) = (scope.get(2)?.to_string(), scope.get(3)?.to_string());
    Some(Call { number: 0, service, region, path, headers, body })
}

fn write(
    writer: &mut TcpStream,
    status: u16,
    content_type: &str,
    body: &[u8],
    declared: usize,
) -> io::Result<()> {
    write!(
        writer,
        "HTTP/1.1 {status} Status\r\ncontent-type: {content_type}\r\ncontent-length: {declared}\r\n\r\n"
    )?;
    writer.write_all(body)?;
    writer.flush()
}

impl Call {
    /// A parameter of EC2's form: `StartTime`, `InstanceType.1`.
    pub fn param(&self, name: &str) -> Option<String> {
        let pairs = self.body.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| decoded(value))
    }

    /// A list of EC2's form: `InstanceType`.
    pub fn list(&self, name: &str) -> Vec<String> {
        (1..).map_while(|n| self.param(&format!("{name}.{n}"))).collect()
    }

    /// The body of a call to the Price List.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("the body is JSON")
    }

    /// What the Price List is asked for, by attribute.
    pub fn filters(&self) -> BTreeMap<String, String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let filters = self.json()["Filters"].as_array().cloned().unwrap_or_default();
        filters.iter().map(|filter| (text(&filter["Field"]), text(&filter["Value"]))).collect()
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next().unwrap_or(b'0')).to_digit(16).unwrap_or(0) as u8;
                out.push(digit() * 16 + digit());
            }
            b'+' => out.push(b' '),
            byte => out.push(byte),
        }
    }
    String::from_utf8(out).expect("text")
}

impl Market {
    /// The recorded spot prices, and products at the recorded on-demand prices.
    pub fn recorded() -> Market {
        let mut market = Market { page_rows: 1000, ..Market::default() };
        for line in RECORDED.lines().skip(1) {
            let fields: Vec<&str> = line.split(',').collect();
            let [at, _, region, zone, machine, offer, usd] = fields[..] else { panic!("{line}") };
            if offer == "on_demand" {
                market.products.push(product(machine, region, usd));
            } else {
                market.rows.push(row(at, region, zone, machine, usd));
            }
        }
        market
    }

    /// The rows that hold at some moment from `since` to `until`: what changed, and what was in effect before.
    fn history(&self, region: &str, since: Timestamp, until: Option<Timestamp>) -> Vec<&Row> {
        let mut rows: Vec<&Row> = Vec::new();
        let mut before: BTreeMap<(&str, &str, &str), &Row> = BTreeMap::new();
        for row in self.rows.iter().filter(|row| row.region == region) {
            if row.at >= since {
                if until.is_none_or(|until| row.at <= until) {
                    rows.push(row);
                }
                continue;
            }
            let newest = before.entry((&row.machine, &row.zone, row.product)).or_insert(row);
            if newest.at < row.at {
                *newest = row;
            }
        }
        rows.extend(before.into_values());
        // Newest first, as EC2 does.
        rows.sort_by_key(|row| std::cmp::Reverse(row.at));
        rows
    }

    fn answer(&self, call: &Call) -> Reply {
        match (&*call.service, call.param("Action").as_deref()) {
            ("ec2", Some("DescribeSpotPriceHistory")) => self.spot(call),
            ("pricing", _) => self.products(call),
            (service, action) => refusal(call, 400, "InvalidAction", &format!("{service} {action:?}")),
        }
    }

    fn spot(&self, call: &Call) -> Reply {
        let time = |name: &str| call.param(name).map(|text| text.parse().expect("a time"));
        let since = time("StartTime").expect("it names a start");
        let (machines, products) = (call.list("InstanceType"), call.list("ProductDescription"));
        let mut rows = self.history(&call.region, since, time("EndTime"));
        rows.retain(|row| machines.contains(&row.machine) && products.iter().any(|name| name == row.product));
        let from: usize = call.param("NextToken").map_or(0, |token| token.parse().expect("a token of ours"));
        let most = call.param("MaxResults").map_or(1000, |most| most.parse().expect("a number"));
        let end = rows.len().min(from + self.page_rows.min(most));
        let next = if end < rows.len() { end.to_string() } else { String::new() };
        xml(200, &history(&rows[from..end], &next))
    }

    fn products(&self, call: &Call) -> Reply {
        let filters = call.filters();
        let fits = |item: &&Value| {
            let attributes = &item["product"]["attributes"];
            filters.iter().all(|(field, value)| attributes[field] == **value)
        };
        let items: Vec<Value> = self.products.iter().filter(fits).cloned().collect();
        price_list(&items, None)
    }
}

/// A row of Linux.
pub fn row(at: &str, region: &str, zone: &str, machine: &str, usd: &str) -> Row {
    Row {
        at: at.parse().expect("a time"),
        region: region.into(),
        zone: zone.into(),
        machine: machine.into(),
        usd: usd.into(),
        product: "Linux/UNIX",
    }
}

/// The XML of an answer with these rows.
pub fn history(rows: &[&Row], next: &str) -> String {
    let mut text = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<DescribeSpotPriceHistoryResponse \
         xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\n    <requestId>59dbff89-35bd-4eac-99ed-be587EXAMPLE</requestId>\n    \
         <spotPriceHistorySet>\n",
    );
    for Row { at, zone, machine, usd, product, .. } in rows {
        let zones = zone.split('/').map(|zone| match zone.contains("-az") {
            true => format!("<availabilityZoneId>{zone}</availabilityZoneId>"),
            false => format!("<availabilityZone>{zone}</availabilityZone>"),
        });
        let zones: String = zones.collect();
        let _ = writeln!(
            text,
            "        <item><instanceType>{machine}</instanceType><productDescription>{product}</productDescription>\
             <spotPrice>{usd}</spotPrice><timestamp>{at:.3}</timestamp>{zones}</item>"
        );
    }
    let next = if next.is_empty() { "<nextToken/>".into() } else { format!("<nextToken>{next}</nextToken>") };
    let _ = write!(text, "    </spotPriceHistorySet>\n    {next}\n</DescribeSpotPriceHistoryResponse>\n");
    text
}

/// A page of products.
pub fn price_list(items: &[Value], next: Option<&str>) -> Reply {
    let items: Vec<String> = items.iter().map(Value::to_string).collect();
    let mut page = json!({ "FormatVersion": "aws_v1", "PriceList": items });
    if let Some(next) = next {
        page["NextToken"] = json!(next);
    }
    body(200, "application/x-amz-json-1.1", page.to_string())
}

/// A product as the Price List has it: on demand and under the twelve kinds of reservation.
pub fn product(machine: &str, region: &str, usd: &str) -> Value {
    let sku =
        format!("SKU{}{}", machine.replace('.', "").to_uppercase(), region.replace('-', "").to_uppercase());
    let dimension = |term: &str, code: &str, unit: &str, usd: &str, what: &str| {
        let rate = format!("{sku}.{term}.{code}");
        (
            rate.clone(),
            json!({ "unit": unit, "endRange": "Inf", "description": what, "appliesTo": [], "rateCode": rate,
                    "beginRange": "0", "pricePerUnit": { "USD": usd } }),
        )
    };
    let on_demand = "JRTCKXETXF";
    let what = format!("${usd} per On Demand Linux {machine} Instance Hour");
    let dimensions: Value = [dimension(on_demand, "6YS6EN2CT7", "Hrs", usd, &what)].into_iter().collect();
    let mut reserved = json!({});
    for term in [
        "CUZHX8X6JH",
        "7NE97W5U4E",
        "6QCMYABX3D",
        "38NPMPTW36",
        "Z2E3P23VKM",
        "NQ3QZPMQV9",
        "BPH4J8HBKS",
        "R5XV2EPZQZ",
        "HU7G6KETJZ",
        "4NA7Y494T4",
        "MZU6U2429S",
        "VJWZNREJX2",
    ] {
        let what = format!("Linux/UNIX (Amazon VPC), {machine} reserved instance applied");
        let dimensions: Value = [
            dimension(term, "2TG2D8R56U", "Quantity", "43", "Upfront Fee"),
            dimension(term, "6YS6EN2CT7", "Hrs", "0.0049000000", &what),
        ]
        .into_iter()
        .collect();
        reserved[format!("{sku}.{term}")] = json!({
            "priceDimensions": dimensions, "sku": sku, "effectiveDate": "2017-10-31T23:59:59Z", "offerTermCode": term,
            "termAttributes": { "LeaseContractLength": "1yr", "OfferingClass": "convertible", "PurchaseOption": "Partial Upfront" },
        });
    }
    json!({
        "product": {
            "productFamily": "Compute Instance",
            "attributes": {
                "enhancedNetworkingSupported": "Yes", "intelTurboAvailable": "No", "memory": "16 GiB",
                "dedicatedEbsThroughput": "Up to 3170 Mbps", "vcpu": "8", "classicnetworkingsupport": "false",
                "capacitystatus": "Used", "locationType": "AWS Region", "storage": "1 x 300 NVMe SSD",
                "instanceFamily": "GPU instance", "operatingSystem": "Linux", "intelAvx2Available": "No",
                "regionCode": region, "physicalProcessor": "AMD EPYC 7R32", "clockSpeed": "3.3 GHz", "ecu": "NA",
                "networkPerformance": "Up to 10 Gigabit", "servicename": "Amazon Elastic Compute Cloud",
                "gpuMemory": "NA", "vpcnetworkingsupport": "true", "instanceType": machine, "tenancy": "Shared",
                "usagetype": format!("BoxUsage:{machine}"), "normalizationSizeFactor": "16", "intelAvxAvailable": "No",
                "processorFeatures": "AMD Turbo; AVX; AVX2", "servicecode": "AmazonEC2",
                "licenseModel": "No License required", "currentGeneration": "Yes", "preInstalledSw": "NA",
                "location": region, "processorArchitecture": "64-bit", "marketoption": "OnDemand",
                "operation": "RunInstances", "availabilityzone": "NA",
            },
            "sku": sku,
        },
        "serviceCode": "AmazonEC2",
        "terms": {
            "OnDemand": { (format!("{sku}.{on_demand}")): {
                "priceDimensions": dimensions, "sku": sku, "effectiveDate": EFFECTIVE,
                "offerTermCode": on_demand, "termAttributes": {},
            } },
            "Reserved": reserved,
        },
        "version": "20240508191027",
        "publicationDate": "2024-05-08T19:10:27Z",
    })
}

/// How the service of `call` refuses.
pub fn refusal(call: &Call, status: u16, code: &str, message: &str) -> Reply {
    if call.service == "ec2" {
        return xml(
            status,
            &format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message>\
                 </Error></Errors><RequestID>1a2b3c4d-EXAMPLE</RequestID></Response>"
            ),
        );
    }
    body(status, "application/x-amz-json-1.1", json!({ "__type": code, "message": message }).to_string())
}

/// XML, well-formed or not.
pub fn xml(status: u16, text: &str) -> Reply {
    body(status, "text/xml;charset=UTF-8", text.to_owned())
}

/// A page of something that stands in between.
pub fn html(status: u16) -> Reply {
    let text = "<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Sign in to the network</body></html>";
    body(status, "text/html", text.to_owned())
}

/// Any body.
pub fn body(status: u16, content_type: &'static str, text: String) -> Reply {
    Reply::Body { status, content_type, body: text.into_bytes().into() }
}
