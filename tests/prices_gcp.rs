//! Prices of Google Cloud: composed from SKUs they equal what was recorded, and a Catalog that is ill gives a clear fault and
//! never a wrong price.

#[path = "prices_gcp/credentials.rs"]
mod credentials;
mod harness;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use harness::gcp::{Catalog, EFFECTIVE, KEY, Label, Reply, Request, refusal, sku, table};
use serde_json::{Value, json};
use tradewind::{
    model::{Accelerator, Cloud, Offer, Secret},
    signals::prices::{Fetched, GcpSettings, Quote, Want, gcp::GcpPrices},
};

/// The components' prices of October 2024; `tests/data/README.md` says which were inputs and what they predict.
const SKUS: &str = include_str!("data/gcp_skus_2024_10.csv");

/// The prices of machine types that were recorded at the same time.
const RECORDED: &str = include_str!("data/gcp_machines_2024_10.csv");

/// As long as nothing is wrong.
const PATIENT: Duration = Duration::from_secs(10);

/// Where the deadline is what ends it.
const SHORT: Duration = Duration::from_millis(900);

fn settings(url: String, timeout: Duration) -> GcpSettings {
    GcpSettings { endpoint: Some(url), api_key: Some(Secret::new(KEY, "env GCP_KEY")), timeout }
}

fn want(region: &str, instance_type: &str, accelerator: Option<(&str, u32)>) -> Want {
    let accelerator = accelerator.map(|(kind, count)| Accelerator { kind: kind.into(), count });
    let priced_as = match &accelerator {
        None => instance_type.to_owned(),
        Some(Accelerator { kind, count }) => format!("{instance_type}+{count}x{kind}"),
    };
    Want {
        cloud: Cloud::Gcp,
        region: region.into(),
        zones: vec![format!("{region}-a").into()],
        every_zone: false,
        spot: true,
        instance_type: instance_type.into(),
        accelerator,
        priced_as: priced_as.into(),
    }
}

async fn fetch_from(url: String, wants: &[Want], timeout: Duration) -> Fetched {
    let prices = GcpPrices::connect(&settings(url, timeout)).await.expect("it connects");
    let wants = wants.to_vec();
    // As the product does it: in a task that may move between threads.
    tokio::spawn(async move { prices.fetch(&wants).await }).await.expect("it ends")
}

async fn fetch(catalog: &Catalog, wants: &[Want], timeout: Duration) -> Fetched {
    fetch_from(catalog.url(), wants, timeout).await
}

fn usd(fetched: &Fetched, region: &str, priced_as: &str, offer: Offer) -> Option<f64> {
    let is = |quote: &&Quote| {
        (&*quote.key.region, &*quote.key.instance_type, quote.key.offer) == (region, priced_as, offer)
    };
    fetched.quotes.iter().find(is).map(|quote| quote.usd_per_hour)
}

fn faults(fetched: &Fetched) -> Vec<&str> {
    fetched.faults.iter().map(|fault| fault.0.as_str()).collect()
}

/// Nothing was priced, and the one fault says all of this.
#[track_caller]
fn assert_refused(fetched: &Fetched, says: &[&str]) {
    assert_eq!(fetched.quotes, [], "{fetched:?}");
    let [fault] = &fetched.faults[..] else { panic!("expected one fault: {:?}", fetched.faults) };
    for says in says {
        assert!(fault.0.contains(says), "'{says}' is not in: {fault}");
    }
    assert!(!fault.0.contains(KEY), "{fault}");
}

/// g2-standard-8 in us-central1, which the good Catalog prices.
fn g2() -> Vec<Want> {
    vec![want("us-central1", "g2-standard-8", None)]
}

/// What it costs.
const G2_ON_DEMAND: f64 = 0.853624;
const G2_SPOT: f64 = 0.279952;

#[track_caller]
fn assert_g2(fetched: &Fetched) {
    assert_eq!(faults(fetched), [""; 0]);
    for (offer, expected) in [(Offer::OnDemand, G2_ON_DEMAND), (Offer::Spot, G2_SPOT)] {
        let usd = usd(fetched, "us-central1", "g2-standard-8", offer).expect("a price");
        assert!((usd - expected).abs() < 1e-5, "{offer}: {usd}");
    }
}

/// The SKU of the table with this description, changed.
fn changed(description: &str, change: impl Fn(&mut Value)) -> Vec<Value> {
    let mut skus = table(SKUS);
    let mut of_it = skus.iter_mut().filter(|sku| sku["description"] == description);
    change(of_it.next().expect("the SKU"));
    skus
}

#[tokio::test]
async fn composed_prices_equal_the_recorded_prices_of_machine_types() {
    let mut recorded: BTreeMap<(String, String, Offer), f64> = BTreeMap::new();
    for row in csv::Reader::from_reader(RECORDED.as_bytes()).records() {
        let row = row.unwrap();
        let offer = if &row[5] == "spot" { Offer::Spot } else { Offer::OnDemand };
        recorded.insert((row[4].to_owned(), row[2].to_owned(), offer), row[6].parse().unwrap());
    }
    let keys: BTreeSet<(&str, &str)> =
        recorded.keys().map(|(kind, region, _)| (&**kind, &**region)).collect();
    let wants: Vec<Want> = keys.iter().map(|(kind, region)| want(region, kind, None)).collect();

    let catalog = Catalog::of(&table(SKUS), 5000);
    let fetched = fetch(&catalog, &wants, PATIENT).await;

    assert_eq!(faults(&fetched), [""; 0]);
    assert_eq!(fetched.quotes.len(), recorded.len());
    for ((kind, region, offer), expected) in &recorded {
        let usd = usd(&fetched, region, kind, *offer).expect("a price");
        let off = (usd / expected - 1.0).abs();
        assert!(off <= 0.001, "{offer} {kind} in {region}: composed {usd}, recorded {expected}");
    }
    let mut regions: BTreeMap<&str, usize> = BTreeMap::new();
    keys.iter().for_each(|(kind, _)| *regions.entry(kind).or_default() += 1);
    assert!(regions.len() >= 8 && regions.values().all(|regions| *regions >= 5), "{regions:?}");
}

#[tokio::test]
async fn skus_as_they_were_recorded_give_the_recorded_price_to_the_last_digit() {
    let page: Value = serde_json::from_str(include_str!("data/gcp_skus_recorded.json")).unwrap();
    let catalog = Catalog::of(page["skus"].as_array().unwrap(), 5000);
    let fetched = fetch(&catalog, &[want("us-west1", "a2-highgpu-1g", None)], PATIENT).await;
    let [quote] = &fetched.quotes[..] else { panic!("{fetched:?}") };
    assert_eq!(quote.usd_per_hour, 3.673385);
    assert_eq!(quote.at.to_string(), "2023-03-24T10:52:50.681Z");
    assert_eq!((quote.key.offer, &quote.key.zone), (Offer::OnDemand, &None));
    assert_eq!(faults(&fetched).len(), 1, "there is no spot SKU");
}

#[tokio::test]
async fn accelerators_that_are_attached_are_billed_beside_the_machine() {
    let catalog = Catalog::of(&table(SKUS), 5000);
    let wants = [
        want("us-central1", "n1-standard-8", None),
        want("us-central1", "n1-standard-8", Some(("nvidia-tesla-t4", 2))),
        want("us-central1", "g2-standard-8", Some(("nvidia-l4", 1))),
    ];
    let fetched = fetch(&catalog, &wants, PATIENT).await;
    assert_eq!(faults(&fetched), [""; 0]);
    let usd = |priced_as, offer| usd(&fetched, "us-central1", priced_as, offer).expect("a price");
    for (offer, t4) in [(Offer::OnDemand, 0.35), (Offer::Spot, 0.119)] {
        let attached = usd("n1-standard-8+2xnvidia-tesla-t4", offer) - usd("n1-standard-8", offer);
        assert!((attached - 2.0 * t4).abs() < 1e-9, "{attached}");
    }
    // What comes with the machine is not billed twice.
    assert!((usd("g2-standard-8+1xnvidia-l4", Offer::OnDemand) - G2_ON_DEMAND).abs() < 1e-5);
}

#[tokio::test]
async fn all_pages_are_read_once_and_make_one_answer() {
    let catalog = Catalog::of(&table(SKUS), 20);
    assert_g2(&fetch(&catalog, &g2(), PATIENT).await);
    let pages: Vec<usize> = catalog.calls().iter().map(|call| call.page).collect();
    assert_eq!(pages, (1..=11).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_time_of_a_price_is_that_of_its_newest_component() {
    let newer = "2024-10-25T00:00:00Z";
    let skus = changed("Nvidia L4 GPU running in Iowa", |sku| {
        sku["pricingInfo"][0]["effectiveTime"] = newer.into();
    });
    let catalog = Catalog::of(&skus, 5000);
    let fetched = fetch(&catalog, &g2(), PATIENT).await;
    let at = |offer| {
        fetched.quotes.iter().find(|quote| quote.key.offer == offer).map(|quote| quote.at.to_string())
    };
    assert_eq!(at(Offer::OnDemand).as_deref(), Some(newer));
    assert_eq!(at(Offer::Spot).as_deref(), Some(EFFECTIVE));
}

/// The first `times` calls are answered so.
fn at_first(times: usize, reply: Reply) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    move |request| if request.number <= times { reply.clone() } else { Reply::Page }
}

#[tokio::test]
async fn overload_that_ends_is_waited_for() {
    let quota = refusal(429, "RESOURCE_EXHAUSTED", "Quota exceeded.", Some("RATE_LIMIT_EXCEEDED"));
    let down = refusal(503, "UNAVAILABLE", "The service is currently unavailable.", None);
    let broken = refusal(500, "INTERNAL", "Internal error encountered.", None);
    let gateway =
        Reply::Body { status: 502, content_type: "text/html", body: Arc::from(*b"<html>Bad Gateway") };
    for reply in [quota, down, broken, gateway, Reply::Cut(Arc::from(*b"{\"skus\": ["))] {
        let catalog = Catalog::broken(&table(SKUS), at_first(2, reply));
        assert_g2(&fetch(&catalog, &g2(), PATIENT).await);
        assert_eq!(catalog.calls().len(), 3);
    }
}

#[tokio::test]
async fn overload_that_does_not_end_is_a_fault_at_the_deadline() {
    let down = refusal(503, "UNAVAILABLE", "The service is currently unavailable.", None);
    let catalog = Catalog::broken(&table(SKUS), at_first(usize::MAX, down));
    let started = Instant::now();
    let fetched = fetch(&catalog, &g2(), SHORT).await;
    assert_refused(
        &fetched,
        &["page 1 of services.skus.list", "not had within 900ms", "HTTP 503", "unavailable"],
    );
    assert!(started.elapsed() < SHORT + Duration::from_secs(2));
    assert!(catalog.calls().len() > 1, "it was tried again");
}

/// Page 2 is answered so, every time.
fn second_page(reply: Reply) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    move |request| if request.page == 2 { reply.clone() } else { Reply::Page }
}

fn json_reply(body: &str) -> Reply {
    Reply::Body { status: 200, content_type: "application/json; charset=UTF-8", body: body.as_bytes().into() }
}

#[tokio::test]
async fn a_page_that_is_not_one_spoils_the_fetch() {
    let html =
        Reply::Body { status: 200, content_type: "text/html", body: Arc::from(*b"<html>Sign in</html>") };
    let cases = [
        (html, "not the API's, or was cut off"),
        (json_reply("{\"skus\": [{\"skuId\": \"0000-"), "not the API's, or was cut off"),
        (
            json_reply("{\"skus\": [{\"pricingInfo\": [{\"pricingExpression\": {\"tieredRates\": 5}}]}]}"),
            "not the API's",
        ),
        (json_reply("[]"), "not the API's"),
        (json_reply(""), "not the API's"),
        (json_reply("{\"skus\": [], \"nextPageToken\": \"\"}"), "holds no SKU"),
        (json_reply("{}"), "holds no SKU"),
        (json_reply("{\"error\": {\"code\": 503}}"), "holds no SKU"),
    ];
    for (reply, says) in cases {
        let pages = harness::gcp::pages(&table(SKUS), 150);
        let catalog = Catalog::scripted(pages, second_page(reply));
        let fetched = fetch(&catalog, &g2(), PATIENT).await;
        assert_refused(&fetched, &["page 2 of services.skus.list", says, "no price of this fetch is used"]);
    }
}

#[tokio::test]
async fn a_connection_that_keeps_breaking_is_a_fault_at_the_deadline() {
    let pages = harness::gcp::pages(&table(SKUS), 150);
    let catalog = Catalog::scripted(pages, second_page(Reply::Cut(Arc::from(*b"{\"skus\": ["))));
    assert_refused(
        &fetch(&catalog, &g2(), SHORT).await,
        &["page 2 of services.skus.list", "the last attempt:"],
    );
}

#[tokio::test]
async fn a_connection_that_hangs_leaves_time_for_another() {
    let catalog = Catalog::broken(&table(SKUS), at_first(1, Reply::Silence));
    assert_g2(&fetch(&catalog, &g2(), Duration::from_secs(6)).await);

    let catalog = Catalog::broken(&table(SKUS), at_first(usize::MAX, Reply::Silence));
    let started = Instant::now();
    let fetched = fetch(&catalog, &g2(), SHORT).await;
    assert_refused(&fetched, &["page 1 of services.skus.list", "not had within 900ms"]);
    assert!(started.elapsed() < SHORT + Duration::from_secs(2));
}

#[tokio::test]
async fn where_nobody_listens_or_speaks_tls_is_a_fault_at_the_deadline() {
    let catalog = Catalog::of(&table(SKUS), 5000);
    let url = catalog.url();
    let over_tls = url.replace("http://", "https://");
    assert_refused(&fetch_from(over_tls, &g2(), SHORT).await, &["page 1 of services.skus.list"]);
    drop(catalog);
    assert_refused(
        &fetch_from(url, &g2(), SHORT).await,
        &["page 1 of services.skus.list", "the last attempt:"],
    );
}

#[tokio::test]
async fn a_list_that_runs_in_a_circle_is_a_fault() {
    let skus = table(SKUS);
    let page = harness::gcp::bytes(&json!({"skus": [skus[0]], "nextPageToken": "page-1"}));
    let catalog = Catalog::scripted(vec![page], |_| Reply::Page);
    assert_refused(&fetch(&catalog, &g2(), PATIENT).await, &["page 2", "runs in a circle"]);
    assert_eq!(catalog.calls().len(), 2);

    let one = skus[0].clone();
    let catalog = Catalog::broken(&skus, move |request| {
        let next = format!("page-{}", request.page + 1);
        json_reply(&json!({"skus": [one], "nextPageToken": next}).to_string())
    });
    assert_refused(&fetch(&catalog, &g2(), PATIENT).await, &["page 101", "does not end"]);
    assert_eq!(catalog.calls().len(), 100);
}

#[tokio::test]
async fn another_currency_anywhere_spoils_the_fetch() {
    // Not even a SKU that anybody needs.
    let skus = changed("C3 Instance Core running in Tokyo", |sku| {
        sku["pricingInfo"][0]["pricingExpression"]["tieredRates"][0]["unitPrice"]["currencyCode"] =
            "IDR".into();
    });
    let catalog = Catalog::of(&skus, 5000);
    assert_refused(&fetch(&catalog, &g2(), PATIENT).await, &["is priced in IDR: expected USD"]);
}

#[tokio::test]
async fn a_machine_whose_part_has_no_sku_has_no_price_and_the_others_have() {
    let mut skus = table(SKUS);
    skus.retain(|sku| sku["description"] != "Nvidia L4 GPU running in Iowa");
    let catalog = Catalog::of(&skus, 5000);
    let wants = [want("us-central1", "g2-standard-8", None), want("us-east4", "g2-standard-8", None)];
    let fetched = fetch(&catalog, &wants, PATIENT).await;
    assert_eq!(usd(&fetched, "us-central1", "g2-standard-8", Offer::OnDemand), None);
    assert_eq!(
        faults(&fetched),
        [
            "gcp: no price of on_demand g2-standard-8 in us-central1: no SKU of usage type OnDemand described as 'Nvidia L4 GPU \
          running%' (Compute/GPU) serves us-central1: it is not offered there on these terms, or Google describes it in other \
          words now"
        ]
    );
    assert!(usd(&fetched, "us-central1", "g2-standard-8", Offer::Spot).is_some());
    assert!(usd(&fetched, "us-east4", "g2-standard-8", Offer::OnDemand).is_some());
}

fn another_l4(usd: f64) -> Vec<Value> {
    let mut skus = table(SKUS);
    let label = Label {
        id: "FFFF-FFFF-FFFF",
        description: "Nvidia L4 GPU running in Iowa, again",
        family: "Compute",
        group: "GPU",
        usage_type: "OnDemand",
        regions: &["us-central1"],
    };
    skus.push(sku(label, "h", usd));
    skus
}

#[tokio::test]
async fn skus_that_disagree_give_no_price_even_from_different_pages() {
    let catalog = Catalog::of(&another_l4(0.56), 50);
    let fetched = fetch(&catalog, &g2(), PATIENT).await;
    assert_eq!(usd(&fetched, "us-central1", "g2-standard-8", Offer::OnDemand), None);
    let [fault] = faults(&fetched)[..] else { panic!("{fetched:?}") };
    assert!(fault.contains("several SKUs match gce.compute.gpu.l4 and disagree"), "{fault}");
    assert!(fault.contains("FFFF-FFFF-FFFF at 0.56 USD"), "{fault}");

    let catalog = Catalog::of(&another_l4(0.56004), 50);
    assert_g2(&fetch(&catalog, &g2(), PATIENT).await);
}

type Change<'a> = &'a dyn Fn(&mut Value);

#[tokio::test]
async fn a_part_whose_price_is_no_price_makes_none() {
    let money = |units: &str, nanos: i64| {
        let money = json!({"currencyCode": "USD", "units": units, "nanos": nanos});
        move |sku: &mut Value| {
            sku["pricingInfo"][0]["pricingExpression"]["tieredRates"][0]["unitPrice"] = money.clone()
        }
    };
    let unit = |unit: &'static str| {
        move |sku: &mut Value| sku["pricingInfo"][0]["pricingExpression"]["usageUnit"] = unit.into()
    };
    let second_tier = |sku: &mut Value| {
        let tiers = &mut sku["pricingInfo"][0]["pricingExpression"]["tieredRates"];
        let price = json!({"currencyCode": "USD", "units": "9", "nanos": 0});
        tiers.as_array_mut().unwrap().push(json!({"startUsageAmount": 100, "unitPrice": price}));
    };
    let cases: [(&str, Change<'_>); 7] = [
        ("expected an amount above zero", &money("0", 0)),
        ("expected an amount above zero", &money("-1", -500_000_000)),
        ("is priced by 'GiBy.h': expected h", &unit("GiBy.h")),
        ("is priced by 'mo': expected h", &unit("mo")),
        ("costs more or less from some amount on", &second_tier),
        ("states no price", &|sku| sku["pricingInfo"] = json!([])),
        ("does not state from when", &|sku| sku["pricingInfo"][0]["effectiveTime"] = Value::Null),
    ];
    for (says, change) in cases {
        let catalog = Catalog::of(&changed("Nvidia L4 GPU running in Iowa", change), 5000);
        let fetched = fetch(&catalog, &g2(), PATIENT).await;
        assert_eq!(usd(&fetched, "us-central1", "g2-standard-8", Offer::OnDemand), None, "{says}");
        let [fault] = faults(&fetched)[..] else { panic!("{fetched:?}") };
        assert!(fault.contains("is gce.compute.gpu.l4 but") && fault.contains(says), "{fault}");
        assert!(usd(&fetched, "us-central1", "g2-standard-8", Offer::Spot).is_some());
    }
}

#[tokio::test]
async fn memory_by_the_decimal_gigabyte_is_converted() {
    let skus = changed("G2 Instance Ram running in Iowa", |sku| {
        let expression = &mut sku["pricingInfo"][0]["pricingExpression"];
        expression["usageUnit"] = "GBy.h".into();
        expression["baseUnitConversionFactor"] = json!(3.6e12);
    });
    let catalog = Catalog::of(&skus, 5000);
    let fetched = fetch(&catalog, &g2(), PATIENT).await;
    let usd = usd(&fetched, "us-central1", "g2-standard-8", Offer::OnDemand).expect("a price");
    let memory_by_gib = 32.0 * 0.0032022;
    assert!((usd - G2_ON_DEMAND - memory_by_gib * 0.073741824).abs() < 1e-4, "{usd}");
}

#[tokio::test]
async fn what_is_not_known_is_not_asked_for() {
    let catalog = Catalog::of(&table(SKUS), 5000);
    let fetched = fetch(&catalog, &[want("us-central1", "g2-standart-8", None)], PATIENT).await;
    assert_refused(&fetched, &["g2-standart-8 in us-central1", "did you mean 'g2-standard-8'?"]);
    assert_eq!(fetch(&catalog, &[], PATIENT).await, Fetched::default());
    assert_eq!(catalog.calls().len(), 0);
}

#[tokio::test]
async fn a_url_that_is_none_is_refused_at_once() {
    let refused = GcpPrices::connect(&settings("not a url".to_owned(), PATIENT)).await.unwrap_err();
    assert!(refused.0.contains("'not a url'") || refused.0.contains("at not a url"), "{refused}");
}
