//! A Cloud Billing Catalog on loopback that answers what a test tells it: `GET /v1/services/6F81-5844-456A/skus`, plain
//! HTTP/1.1 on threads, so that every byte is under control.
#![allow(dead_code, reason = "not every binary that includes it uses all of it")]

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
};

use serde_json::{Value, json};

/// The key that a plain catalog asks for.
pub const KEY: &str = "a-key-that-fits";

/// From when all prices of [`sku`] hold.
pub const EFFECTIVE: &str = "2024-10-24T07:30:12.345Z";

/// One call.
#[derive(Clone, Debug)]
pub struct Request {
    /// Counted from 1, over all connections.
    pub number: usize,
    /// The page that is asked for, counted from 1.
    pub page: usize,
    pub path: String,
    pub query: HashMap<String, String>,
    pub headers: HashMap<String, String>,
}

/// An answer.
#[derive(Clone)]
pub enum Reply {
    /// The page itself.
    Page,
    /// Something else.
    Body { status: u16, content_type: &'static str, body: Arc<[u8]> },
    /// As `Body`, but the connection ends before the last byte.
    Cut(Arc<[u8]>),
    /// Nothing, until the client goes away.
    Silence,
}

type Script = dyn Fn(&Request) -> Reply + Send + Sync;

/// The server. It stops when it is dropped.
pub struct Catalog {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    pages: Vec<Arc<[u8]>>,
    script: Box<Script>,
    calls: Mutex<Vec<Request>>,
    connections: Mutex<Vec<TcpStream>>,
    stopped: AtomicBool,
}

impl Catalog {
    /// Serves these SKUs, so many to a page, to who has the key.
    pub fn of(skus: &[Value], page_size: usize) -> Catalog {
        Catalog::scripted(pages(skus, page_size), |_| Reply::Page)
    }

    /// As [`of`](Self::of), on one page; but `script` answers where it does not say [`Reply::Page`].
    pub fn broken(skus: &[Value], script: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Catalog {
        Catalog::scripted(pages(skus, skus.len().max(1)), script)
    }

    /// Serves pages that are bytes already.
    pub fn scripted(
        pages: Vec<Arc<[u8]>>,
        script: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Catalog {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port on loopback");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            pages,
            script: Box::new(script),
            calls: Mutex::default(),
            connections: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let accepting = thread::spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared)
        });
        Catalog { address, shared, accepting: Some(accepting) }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All calls so far.
    pub fn calls(&self) -> Vec<Request> {
        self.shared.calls.lock().unwrap().clone()
    }
}

impl Drop for Catalog {
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
    // An answer is written in two pieces; the second must not wait for the first to be acknowledged.
    let _ = connection.set_nodelay(true);
    let mut reader = BufReader::new(connection.try_clone().expect("a second handle"));
    let mut writer = connection;
    while let Some(mut request) = read(&mut reader) {
        {
            let mut calls = shared.calls.lock().unwrap();
            request.number = calls.len() + 1;
            calls.push(request.clone());
        }
        let reply = (shared.script)(&request);
        let sent = match reply {
            Reply::Page => {
                let (status, body) = shared.page(&request);
                write(&mut writer, status, "application/json; charset=UTF-8", &body, body.len())
            }
            Reply::Body { status, content_type, body } => {
                write(&mut writer, status, content_type, &body, body.len())
            }
            Reply::Cut(body) => {
                let _ = write(&mut writer, 200, "application/json; charset=UTF-8", &body, body.len() + 1000);
                let _ = writer.shutdown(Shutdown::Both);
                return;
            }
            Reply::Silence => {
                let _ = reader.read(&mut [0]);
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

impl Shared {
    /// What the real one says to this call.
    fn page(&self, request: &Request) -> (u16, Arc<[u8]>) {
        let asked = |name: &str| request.query.get(name).map(String::as_str);
        if request.path != "/v1/services/6F81-5844-456A/skus" {
            return (404, error(404, "NOT_FOUND", "Requested entity was not found.", None));
        }
        if request.headers.get("x-goog-api-key").map(String::as_str) != Some(KEY)
            && !request.headers.contains_key("authorization")
        {
            let said = "API key not valid. Please pass a valid API key.";
            return (400, error(400, "INVALID_ARGUMENT", said, Some("API_KEY_INVALID")));
        }
        if asked("currencyCode") != Some("USD") || asked("pageSize") != Some("5000") {
            return (400, error(400, "INVALID_ARGUMENT", "Request contains an invalid argument.", None));
        }
        match self.pages.get(request.page - 1) {
            Some(page) => (200, page.clone()),
            None => (400, error(400, "INVALID_ARGUMENT", "Invalid page token.", None)),
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let target = line.split(' ').nth(1)?.to_owned();
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    // Nothing that is asked of it stands in a body; but it must not be taken for the next call.
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink()).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let query: HashMap<String, String> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let page = match query.get("pageToken").map_or("", String::as_str) {
        "" => 1,
        token => token.trim_start_matches("page-").parse().unwrap_or(usize::MAX),
    };
    Some(Request { number: 0, page, path: path.to_owned(), query, headers })
}

fn write(
    writer: &mut TcpStream,
    status: u16,
    content_type: &str,
    body: &[u8],
    declared: usize,
) -> std::io::Result<()> {
    write!(
        writer,
        "HTTP/1.1 {status} Status\r\ncontent-type: {content_type}\r\ncontent-length: {declared}\r\n\r\n"
    )?;
    writer.write_all(body)?;
    writer.flush()
}

/// The body of an error of a Google API.
pub fn error(code: u16, status: &str, message: &str, reason: Option<&str>) -> Arc<[u8]> {
    let mut error = json!({"code": code, "message": message, "status": status});
    if let Some(reason) = reason {
        error["details"] = json!([{
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": reason,
            "domain": "googleapis.com",
            "metadata": {"consumer": "projects/123456789012", "service": "cloudbilling.googleapis.com"}
        }]);
    }
    bytes(&json!({ "error": error }))
}

/// The reply of a Google API that refuses.
pub fn refusal(code: u16, status: &str, message: &str, reason: Option<&str>) -> Reply {
    Reply::Body {
        status: code,
        content_type: "application/json; charset=UTF-8",
        body: error(code, status, message, reason),
    }
}

/// A value as the Catalog writes it: indented.
pub fn bytes(value: &Value) -> Arc<[u8]> {
    serde_json::to_vec_pretty(value).expect("it serialises").into()
}

/// SKUs as pages; each but the last names the next one.
pub fn pages(skus: &[Value], page_size: usize) -> Vec<Arc<[u8]>> {
    let count = skus.chunks(page_size).count();
    let page = |(index, skus): (usize, &[Value])| {
        let next = if index + 1 < count { format!("page-{}", index + 2) } else { String::new() };
        bytes(&json!({ "skus": skus, "nextPageToken": next }))
    };
    skus.chunks(page_size).enumerate().map(page).collect()
}

/// What a SKU is, but for the price.
#[derive(Clone, Copy, Debug)]
pub struct Label<'a> {
    pub id: &'a str,
    pub description: &'a str,
    pub family: &'a str,
    pub group: &'a str,
    pub usage_type: &'a str,
    pub regions: &'a [&'a str],
}

/// A SKU in the shape that the Catalog gives it.
pub fn sku(label: Label<'_>, unit: &str, usd: f64) -> Value {
    let Label { id, description, family, group, usage_type, regions } = label;
    let (unit_in_words, base, base_in_words, factor) = match unit {
        "h" => ("hour", "s", "second", 3600.0),
        "GiBy.h" => ("gibibyte hour", "By.s", "byte second", 3_865_470_566_400.0),
        "GBy.h" => ("gigabyte hour", "By.s", "byte second", 3.6e12),
        // A month of October.
        "GiBy.mo" => ("gibibyte month", "By.s", "byte second", 2.8759101014016e15),
        other => (other, other, other, 1.0),
    };
    let nanos_in_all = (usd * 1e9).round() as i64;
    json!({
        "name": format!("services/6F81-5844-456A/skus/{id}"),
        "skuId": id,
        "description": description,
        "category": {
            "serviceDisplayName": "Compute Engine",
            "resourceFamily": family,
            "resourceGroup": group,
            "usageType": usage_type
        },
        "serviceRegions": regions,
        "pricingInfo": [{
            "summary": "",
            "pricingExpression": {
                "usageUnit": unit,
                "displayQuantity": 1,
                "tieredRates": [{
                    "startUsageAmount": 0,
                    "unitPrice": {
                        "currencyCode": "USD",
                        "units": (nanos_in_all / 1_000_000_000).to_string(),
                        "nanos": nanos_in_all % 1_000_000_000
                    }
                }],
                "usageUnitDescription": unit_in_words,
                "baseUnit": base,
                "baseUnitDescription": base_in_words,
                "baseUnitConversionFactor": factor
            },
            "currencyConversionRate": 1,
            "effectiveTime": EFFECTIVE
        }],
        "serviceProviderName": "Google",
        "geoTaxonomy": {
            "type": if regions.len() == 1 { "REGIONAL" } else { "MULTI_REGIONAL" },
            "regions": regions
        }
    })
}

/// The SKUs of a table in `tests/data`.
pub fn table(csv: &str) -> Vec<Value> {
    let mut reader = csv::Reader::from_reader(csv.as_bytes());
    let rows = reader.records().enumerate().map(|(row, record)| {
        let record = record.expect("a row");
        let regions: Vec<&str> = record[4].split(' ').collect();
        let label = Label {
            id: &format!("0000-0000-{:04X}", row + 1),
            description: &record[0],
            family: &record[1],
            group: &record[2],
            usage_type: &record[3],
            regions: &regions,
        };
        sku(label, &record[5], record[6].parse().expect("a price"))
    });
    rows.collect()
}
