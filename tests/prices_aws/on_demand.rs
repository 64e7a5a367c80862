//! `GetProducts`.

use std::time::Instant;

use serde_json::{Value, json};
use tradewind::signals::prices::Fetched;

use super::{
    PATIENT, RETRYING, SHORT, TOKEN, assert_refused, at, faults,
    harness::aws::{Aws, Call, EFFECTIVE, Market, Reply, body, html, price_list, product, refusal},
    prices, recorded, said, want,
};

const MACHINE: &str = "g4dn.xlarge";
const GOOD: [&str; 1] = ["us-east-1 g4dn.xlarge 0.526"];

async fn fetch(aws: &Aws) -> Fetched {
    prices(aws, RETRYING).on_demand(&[want("us-east-1", MACHINE, &["us-east-1a"])]).await
}

/// The product of g4dn.xlarge in us-east-1, changed.
fn changed(path: &str, value: Value) -> Value {
    let mut item = product(MACHINE, "us-east-1", "0.9");
    let sku = item["product"]["sku"].as_str().expect("a SKU").to_owned();
    let term = format!("/terms/OnDemand/{sku}.JRTCKXETXF");
    let dimension = format!("{term}/priceDimensions/{sku}.JRTCKXETXF.6YS6EN2CT7");
    let path = path.replace("TERM", &term).replace("DIMENSION", &dimension);
    *item.pointer_mut(&path).unwrap_or_else(|| panic!("{path}")) = value;
    item
}

fn attribute(name: &str, value: &str) -> Value {
    changed(&format!("/product/attributes/{name}"), json!(value))
}

#[tokio::test]
async fn the_price_is_the_recorded_one_and_holds_for_the_region() {
    let aws = Aws::of(Market::recorded());
    let wants =
        ["g4dn.xlarge", "g4dn.2xlarge", "p3.2xlarge", "inf1.xlarge"].map(|name| want("us-east-1", name, &[]));
    let fetched = prices(&aws, PATIENT).on_demand(&wants).await;
    assert_eq!(faults(&fetched), [""; 0]);
    let expected = [
        "us-east-1 g4dn.2xlarge 0.752",
        "us-east-1 g4dn.xlarge 0.526",
        "us-east-1 inf1.xlarge 0.228",
        "us-east-1 p3.2xlarge 3.06",
    ];
    assert_eq!(said(&fetched), expected);
    assert!(fetched.quotes.iter().all(|quote| quote.at == at(EFFECTIVE) && quote.key.zone.is_none()));
    let calls = aws.calls();
    assert_eq!(calls.len(), 4);
    assert!(calls.iter().all(|call| call.path == "/pricing/us-east-1/" && call.region == "us-east-1"));
}

#[tokio::test]
async fn the_question_leaves_one_product() {
    let aws = Aws::of(Market::recorded());
    assert_eq!(said(&fetch(&aws).await), GOOD);
    let [call] = &aws.calls()[..] else { panic!("one call") };
    assert_eq!(call.headers["x-amz-target"], "AWSPriceListService.GetProducts");
    assert_eq!(call.headers["x-amz-security-token"], TOKEN);
    let asked = call.json();
    assert_eq!((&asked["ServiceCode"], &asked["FormatVersion"]), (&json!("AmazonEC2"), &json!("aws_v1")));
    let filters: Vec<(String, String)> = call.filters().into_iter().collect();
    let expected = [
        ("capacitystatus", "Used"),
        ("instanceType", "g4dn.xlarge"),
        ("operatingSystem", "Linux"),
        ("preInstalledSw", "NA"),
        ("regionCode", "us-east-1"),
        ("tenancy", "Shared"),
    ];
    assert_eq!(filters, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
}

#[tokio::test]
async fn a_server_that_ignores_the_filters_gives_no_wrong_price() {
    let others = [
        ("instanceType", "g4dn.metal"),
        ("regionCode", "us-east-2"),
        ("tenancy", "Dedicated"),
        ("operatingSystem", "Windows"),
        ("preInstalledSw", "SQL Web"),
        ("capacitystatus", "UnusedCapacityReservation"),
        ("capacitystatus", "AllocatedCapacityReservation"),
        ("marketoption", "CapacityBlock"),
    ];
    let others: Vec<Value> = others.iter().map(|(name, value)| attribute(name, value)).collect();
    let mut all = others.clone();
    all.insert(3, product(MACHINE, "us-east-1", "0.526"));
    let aws = recorded(move |_| price_list(&all, None));
    let fetched = fetch(&aws).await;
    assert_eq!((said(&fetched), faults(&fetched)), (GOOD.map(String::from).to_vec(), vec![]));

    let aws = recorded(move |_| price_list(&others, None));
    assert_refused(
        &fetch(&aws).await,
        &["no on-demand price of g4dn.xlarge in us-east-1", "8 other products"],
    );
}

#[tokio::test]
async fn all_pages_are_read_and_must_end() {
    let aws = recorded(|call| match call.json()["NextToken"].as_str() {
        None => price_list(&[attribute("tenancy", "Host")], Some("second")),
        Some(_) => price_list(&[product(MACHINE, "us-east-1", "0.526")], None),
    });
    assert_eq!(said(&fetch(&aws).await), GOOD);
    let aws = recorded(|_| price_list(&[], Some("again")));
    assert_refused(&fetch(&aws).await, &["a page that points back to one before it"]);
    let aws = recorded(|call| price_list(&[], Some(&call.number.to_string())));
    assert_refused(&fetch(&aws).await, &["more than 10 pages of products for g4dn.xlarge in us-east-1"]);
}

#[tokio::test]
async fn another_currency_or_unit_is_a_fault_and_no_price() {
    let cases = [
        (changed("DIMENSION/pricePerUnit", json!({ "CNY": "3.7" })), "in 'CNY': expected USD"),
        (changed("DIMENSION/unit", json!("Quantity")), "the unit 'Quantity' of SKU "),
        (changed("DIMENSION/pricePerUnit/USD", json!("")), "the price '' of SKU "),
        (changed("TERM/effectiveDate", json!("soon")), "the effective date 'soon' of SKU "),
        (changed("/product/sku", json!(7)), "has an item that is no product (invalid type: integer"),
    ];
    for (item, why) in cases {
        let aws = recorded(move |_| price_list(std::slice::from_ref(&item), None));
        assert_refused(&fetch(&aws).await, &["the Price List of g4dn.xlarge in us-east-1 has", why]);
    }
}

#[tokio::test]
async fn two_products_must_agree() {
    let twice = |other: &str| [product(MACHINE, "us-east-1", "0.526"), product(MACHINE, "us-east-1", other)];
    let aws = recorded(move |_| price_list(&twice("0.526000"), None));
    assert_eq!(said(&fetch(&aws).await), GOOD);
    let aws = recorded(move |_| price_list(&twice("0.9"), None));
    assert_refused(&fetch(&aws).await, &["several on-demand prices", " 0.526 USD/h (SKU ", "none is used"]);
}

#[tokio::test]
async fn a_machine_that_is_not_sold_is_a_fault_and_costs_no_other_its_price() {
    let aws = Aws::of(Market::recorded());
    let wants = [
        want("us-east-1", MACHINE, &[]),
        want("us-east-1", "g4dm.xlarge", &[]),
        want("eu-west-9", MACHINE, &[]),
    ];
    let fetched = prices(&aws, PATIENT).on_demand(&wants).await;
    assert_eq!(said(&fetched), GOOD);
    let expected = [("g4dn.xlarge", "eu-west-9"), ("g4dm.xlarge", "us-east-1")].map(|(machine, region)| {
        format!(
            "aws: the Price List has no on-demand price of {machine} in {region} (Linux, shared tenancy; 0 other products): it is \
             not sold there, or a name is misspelt"
        )
    });
    assert_eq!(faults(&fetched), expected);
}

#[tokio::test]
async fn a_server_that_is_busy_for_a_while_is_asked_again() {
    let busy: [fn(&Call) -> Reply; 4] = [
        |call| refusal(call, 400, "ThrottlingException", "Rate exceeded"),
        |_| html(503),
        |_| body(429, "text/plain", "Too Many Requests".to_owned()),
        |_| Reply::Cut(b"{\"PriceList\":[\"{}\"".to_vec().into()),
    ];
    for reply in busy {
        let aws = recorded(move |call| if call.number < 2 { reply(call) } else { Reply::Market });
        let fetched = fetch(&aws).await;
        assert_eq!((said(&fetched), faults(&fetched)), (GOOD.map(String::from).to_vec(), vec![]));
        assert!(aws.calls().iter().all(|call| call.region == "us-east-1"));
    }
}

#[tokio::test]
async fn where_one_endpoint_cannot_be_reached_the_next_one_answers() {
    let ill: [fn(&Call) -> Reply; 5] = [
        |_| Reply::Close,
        |_| html(200),
        |_| html(503),
        |call| refusal(call, 500, "InternalErrorException", "Sorry"),
        |_| body(200, "application/x-amz-json-1.1", "{\"PriceList\":[\"{\\\"product\\\"".to_owned()),
    ];
    for reply in ill {
        let aws = recorded(move |call| match &*call.region {
            "ap-south-1" => Reply::Market,
            _ => reply(call),
        });
        let fetched = fetch(&aws).await;
        assert_eq!((said(&fetched), faults(&fetched)), (GOOD.map(String::from).to_vec(), vec![]));
    }
}

#[tokio::test]
async fn an_endpoint_that_hangs_leaves_time_for_the_next_one_and_is_given_up() {
    let aws = recorded(|call| match &*call.region {
        "us-east-1" => Reply::Silence,
        _ => Reply::Market,
    });
    let wants: Vec<_> = (0..40).map(|n| want("us-east-1", &format!("g9.{n}xlarge"), &[])).collect();
    let mut with_good = wants.clone();
    with_good.push(want("us-east-1", MACHINE, &[]));
    let fetched = prices(&aws, SHORT * 3).on_demand(&with_good).await;
    assert_eq!(said(&fetched), GOOD);
    let silent = aws.calls().iter().filter(|call| call.region == "us-east-1").count();
    // Those that were under way when it became clear, each tried again once or twice.
    assert!((4..=12).contains(&silent), "{silent}");
}

#[tokio::test]
async fn no_endpoint_at_all_is_one_fault_that_names_each() {
    let aws = recorded(|_| Reply::Silence);
    let wants: Vec<_> = (0..20).map(|n| want("us-east-1", &format!("g9.{n}xlarge"), &[])).collect();
    let begin = Instant::now();
    let fetched = prices(&aws, SHORT).on_demand(&wants).await;
    assert_refused(&fetched, &["in us-east-1 did not answer", "; eu-central-1 and ap-south-1 did no better"]);
    // Not once for each machine.
    assert!(begin.elapsed() < SHORT * 4, "{:?}", begin.elapsed());
}

#[tokio::test]
async fn an_endpoint_of_ones_own_is_the_only_one() {
    let aws = recorded(|_| html(503));
    let mut settings = aws.settings(RETRYING);
    settings.pricing_endpoint = Some(aws.url());
    let credentials = aws_credential_types::Credentials::new("AKID", "secret", None, None, "tests");
    let prices = tradewind::signals::prices::aws::AwsPrices::with_credentials(&settings, credentials);
    let fetched = prices.on_demand(&[want("us-east-1", MACHINE, &[])]).await;
    assert_refused(&fetched, &["the Price List in us-east-1 answered pricing:GetProducts with HTTP 503"]);
    assert_eq!(aws.calls().len(), 4);
}

#[tokio::test]
async fn a_throttle_that_does_not_end_is_not_carried_to_the_next_endpoint() {
    let aws = recorded(|call| refusal(call, 400, "ThrottlingException", "Rate exceeded"));
    assert_refused(&fetch(&aws).await, &["ThrottlingException ('Rate exceeded')", "asked too often"]);
    assert_eq!(aws.calls().len(), 4);
}

#[tokio::test]
async fn an_answer_that_is_none_is_a_fault() {
    let json = |text: &str| body(200, "application/x-amz-json-1.1", text.to_owned());
    let cases = [
        (html(200), "with HTTP 200 and what is no answer to it, '<!DOCTYPE html>"),
        (json("{\"PriceList\":[\"{\\\"product\\\""), "no answer to it, '{\"PriceList\":["),
        (json("[]"), "no answer to it, '[]'"),
        (json("{\"PriceList\":[\"<html>\"]}"), "has an item that is no product ("),
        (json("{\"PriceList\":[null]}"), "no on-demand price of g4dn.xlarge"),
        (json("{\"PriceList\":[7]}"), "no answer to it, '{\"PriceList\":[7]}'"),
        (json("{}"), "no on-demand price of g4dn.xlarge"),
        (json(&" ".repeat(17 << 20)), "the answer is longer than 16 MiB"),
    ];
    for (reply, why) in cases {
        let aws = recorded(move |_| reply.clone());
        assert_refused(&fetch(&aws).await, &[why]);
    }
}
