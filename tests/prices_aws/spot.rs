//! `DescribeSpotPriceHistory`.

use std::{collections::BTreeMap, time::Instant};

use super::{
    PATIENT, RETRYING, SHORT, TOKEN, Want, assert_refused, at, faults,
    harness::aws::{Aws, Call, Market, Reply, Row, body, history, html, refusal, row, xml},
    later, prices, recorded, said, want,
};

const G4DN: [&str; 5] = [
    "us-east-1a g4dn.xlarge 0.1578",
    "us-east-1b g4dn.xlarge 0.1578",
    "us-east-1c g4dn.xlarge 0.1578",
    "us-east-1d g4dn.xlarge 0.1578",
    "us-east-1f g4dn.xlarge 0.1578",
];

/// Rows of g4dn.xlarge in us-east-1, in the shape of an answer.
fn rows(rows: &[Row], next: &str) -> Reply {
    xml(200, &history(&rows.iter().collect::<Vec<_>>(), next))
}

fn of_zone(zone: &str, usd: &str) -> Row {
    row("2021-03-02T22:08:26Z", "us-east-1", zone, "g4dn.xlarge", usd)
}

async fn fetch(aws: &Aws, machine: &str) -> tradewind::signals::prices::Fetched {
    prices(aws, RETRYING).spot(&[want("us-east-1", machine, &[])], at("2021-05-01T00:00:00Z")).await
}

/// One backend names a zone by its id, another on the same machine names none.
#[tokio::test]
async fn zones_that_are_named_by_id_are_found_beside_all_others() {
    let aws = recorded(|_| Reply::Market);
    let both = Want { every_zone: true, ..want("us-east-1", "g5.2xlarge", &["use1-az1"]) };
    let fetched = prices(&aws, PATIENT).spot(&[both], later()).await;
    assert_eq!(faults(&fetched), [""; 0]);
    let zones: Vec<_> = fetched.quotes.iter().filter_map(|quote| quote.key.zone.as_deref()).collect();
    assert!(zones.contains(&"use1-az1") && zones.contains(&"use1-az2"), "{zones:?}");
}

#[tokio::test]
async fn at_every_recorded_moment_the_price_is_the_one_in_effect() {
    let market = Market::recorded();
    let inf1: Vec<Row> = market.rows.iter().filter(|row| row.machine == "inf1.xlarge").cloned().collect();
    let aws = Aws::of(market);
    let prices = prices(&aws, PATIENT);
    for step in inf1.iter().step_by(9) {
        let fetched = prices.spot(&[want("us-east-1", "inf1.xlarge", &[])], step.at).await;
        let mut expected: BTreeMap<&str, &Row> = BTreeMap::new();
        for row in inf1.iter().filter(|row| row.at <= step.at) {
            let newest = expected.entry(&row.zone).or_insert(row);
            if newest.at < row.at {
                *newest = row;
            }
        }
        let mut found: Vec<_> = fetched.quotes.iter().collect();
        found.sort_by(|a, b| a.key.zone.cmp(&b.key.zone));
        assert_eq!(faults(&fetched), [""; 0]);
        assert_eq!(found.len(), expected.len(), "{}", step.at);
        for (quote, (zone, row)) in found.iter().zip(expected) {
            let usd: f64 = row.usd.parse().unwrap();
            assert_eq!((quote.key.zone.as_deref(), quote.usd_per_hour, quote.at), (Some(zone), usd, row.at));
        }
    }
}

#[tokio::test]
async fn every_region_is_asked_once_at_its_own_endpoint_for_all_its_machines() {
    let aws = Aws::of(Market::recorded());
    let wants = [
        want("us-east-1", "g4dn.2xlarge", &["use1-az1"]),
        want("us-east-1", "g5.2xlarge", &["use1-az5", "use1-az6"]),
        want("eu-west-1", "g5.xlarge", &[]),
        want("us-west-2", "g4dn.xlarge", &["usw2-az2"]),
    ];
    let fetched = prices(&aws, PATIENT).spot(&wants, later()).await;
    assert_eq!(faults(&fetched), [""; 0]);
    let expected = [
        "euw1-az1 g5.xlarge 0.4474",
        "euw1-az2 g5.xlarge 0.4244",
        "euw1-az3 g5.xlarge 0.6038",
        "use1-az1 g4dn.2xlarge 0.2256",
        "use1-az5 g5.2xlarge 0.3636",
        "use1-az6 g5.2xlarge 0.3636",
        "usw2-az2 g4dn.xlarge 0.1578",
    ];
    assert_eq!(said(&fetched), expected);
    let mut calls = aws.calls();
    calls.sort_by(|a, b| a.region.cmp(&b.region));
    let asked = |call: &Call| (call.path.clone(), call.list("InstanceType"), call.list("ProductDescription"));
    let linux = || vec!["Linux/UNIX".to_owned()];
    let expected = [
        ("/ec2/eu-west-1/".to_owned(), vec!["g5.xlarge".to_owned()], linux()),
        ("/ec2/us-east-1/".to_owned(), vec!["g4dn.2xlarge".to_owned(), "g5.2xlarge".to_owned()], linux()),
        ("/ec2/us-west-2/".to_owned(), vec!["g4dn.xlarge".to_owned()], linux()),
    ];
    assert_eq!(calls.iter().map(asked).collect::<Vec<_>>(), expected);
    assert_eq!(calls[0].param("StartTime").as_deref(), Some("2024-06-01T00:00:00Z"));
    assert_eq!(calls[0].headers["x-amz-security-token"], TOKEN);
}

#[tokio::test]
async fn a_zone_counts_by_its_name_or_its_id_as_the_want_has_it() {
    let both = |usd: &str| of_zone("us-east-1a/use1-az6", usd);
    let aws = recorded(move |_| rows(&[both("0.5"), of_zone("us-east-1b/use1-az1", "0.6")], ""));
    let prices = prices(&aws, PATIENT);
    let named = async |zones: &[&str]| {
        let fetched = prices.spot(&[want("us-east-1", "g4dn.xlarge", zones)], later()).await;
        (said(&fetched), fetched.faults.len())
    };
    assert_eq!(
        named(&[]).await,
        (vec!["us-east-1a g4dn.xlarge 0.5".into(), "us-east-1b g4dn.xlarge 0.6".into()], 0)
    );
    assert_eq!(named(&["us-east-1b"]).await, (vec!["us-east-1b g4dn.xlarge 0.6".into()], 0));
    assert_eq!(named(&["use1-az6"]).await, (vec!["use1-az6 g4dn.xlarge 0.5".into()], 0));
    assert_eq!(
        named(&["us-east-1b", "use1-az1"]).await,
        (vec!["us-east-1b g4dn.xlarge 0.6".into(), "use1-az1 g4dn.xlarge 0.6".into()], 0)
    );
    let fetched =
        prices.spot(&[want("us-east-1", "g4dn.xlarge", &["use1-az6", "us-east-1e"])], later()).await;
    assert_eq!(said(&fetched), ["use1-az6 g4dn.xlarge 0.5"]);
    assert!(faults(&fetched)[0].contains("no spot price of g4dn.xlarge in zone us-east-1e: "), "{fetched:?}");
}

#[tokio::test]
async fn all_pages_are_read() {
    let aws = Aws::of(Market { page_rows: 2, ..Market::recorded() });
    assert_eq!(said(&fetch(&aws, "g4dn.xlarge").await), G4DN);
    assert_eq!(aws.calls().len(), 3);
}

#[tokio::test]
async fn pages_may_be_empty() {
    let aws = recorded(|call| match call.number {
        0 => rows(&[], "1"),
        1 => rows(&[of_zone("us-east-1a", "0.5")], "2"),
        _ => rows(&[], ""),
    });
    assert_eq!(said(&fetch(&aws, "g4dn.xlarge").await), ["us-east-1a g4dn.xlarge 0.5"]);
}

#[tokio::test]
async fn pages_without_end_are_a_fault() {
    let aws =
        recorded(|call| rows(&[of_zone("us-east-1a", "0.5")], if call.number % 2 == 0 { "a" } else { "b" }));
    let says = ["EC2 in us-east-1 answered ec2:DescribeSpotPriceHistory with a page that points back"];
    assert_refused(&fetch(&aws, "g4dn.xlarge").await, &says);
    assert_eq!(aws.calls().len(), 3);
    let aws = recorded(|call| rows(&[of_zone("us-east-1a", "0.5")], &call.number.to_string()));
    assert_refused(&fetch(&aws, "g4dn.xlarge").await, &["more than 100 pages"]);
    assert_eq!(aws.calls().len(), 100);
}

#[tokio::test]
async fn a_server_that_ignores_the_filters_gives_no_wrong_price() {
    let aws = recorded(|_| {
        let good = of_zone("us-east-1a", "0.5");
        let windows = Row { product: "Windows", usd: "0.9".into(), ..good.clone() };
        let red_hat = Row { product: "Red Hat Enterprise Linux", usd: "0.7".into(), ..good.clone() };
        let other = Row { machine: "p3.2xlarge".into(), usd: "3".into(), ..good.clone() };
        let older = Row { at: at("2021-03-01T00:00:00Z"), usd: "0.1".into(), ..good.clone() };
        let future = Row { at: at("2021-05-01T00:00:01Z"), usd: "0.2".into(), ..good.clone() };
        rows(&[windows, future, other, older, good, red_hat], "")
    });
    let fetched = fetch(&aws, "g4dn.xlarge").await;
    assert_eq!((said(&fetched), faults(&fetched)), (vec!["us-east-1a g4dn.xlarge 0.5".into()], vec![]));
}

#[tokio::test]
async fn prices_from_the_future_are_none_and_point_to_the_clock() {
    let aws = recorded(|_| rows(&[Row { at: later(), ..of_zone("us-east-1a", "0.5") }], ""));
    assert_refused(&fetch(&aws, "g4dn.xlarge").await, &["no spot price of g4dn.xlarge", "check the clock"]);
}

#[tokio::test]
async fn two_prices_from_one_moment_on_are_none() {
    let aws = recorded(|_| {
        let sure = of_zone("us-east-1b", "0.4");
        rows(&[of_zone("us-east-1a", "0.5"), of_zone("us-east-1a", "0.6"), sure.clone(), sure], "")
    });
    let fetched = fetch(&aws, "g4dn.xlarge").await;
    assert_eq!(said(&fetched), ["us-east-1b g4dn.xlarge 0.4"]);
    assert!(faults(&fetched)[0].contains("in us-east-1a from the same moment on, 0.5 and 0.6 USD/h: none"));
}

#[tokio::test]
async fn a_row_that_lacks_something_spoils_the_answer() {
    let good = history(&[&of_zone("us-east-1a", "0.5"), &of_zone("us-east-1b", "0.6")], "");
    let cases = [
        ("<spotPrice>0.6</spotPrice>", "", "a row without a price"),
        ("<spotPrice>0.6</spotPrice>", "<spotPrice/>", "the price ''"),
        ("<spotPrice>0.6</spotPrice>", "<spotPrice>0,6</spotPrice>", "the price '0,6': expected a number"),
        ("<spotPrice>0.6</spotPrice>", "<spotPrice>inf</spotPrice>", "the price 'inf': expected a number"),
        ("<availabilityZone>us-east-1b</availabilityZone>", "", "a row without a zone"),
        ("<timestamp>2021-03-02T22:08:26.000Z</timestamp>", "", "a row without a time"),
        ("2021-03-02T22:08:26.000Z", "yesterday", "no answer to it"),
    ];
    for (from, to, why) in cases {
        let text = good.replace(from, to);
        let aws = recorded(move |_| xml(200, &text));
        assert_refused(&fetch(&aws, "g4dn.xlarge").await, &["EC2 in us-east-1", why]);
    }
}

#[tokio::test]
async fn a_region_without_prices_is_a_fault_and_costs_no_other_its_own() {
    let aws = Aws::of(Market::recorded());
    let wants = [want("eu-south-2", "g4dn.xlarge", &[]), want("us-east-1", "g4dn.xlarge", &[])];
    let fetched = prices(&aws, PATIENT).spot(&wants, later()).await;
    assert_eq!(said(&fetched), G4DN);
    let fault = "aws: EC2 in eu-south-2 states no spot price at all, asked for g4dn.xlarge: they are not sold there as spot \
                 capacity, or their names are misspelt";
    assert_eq!(faults(&fetched), [fault]);
}

#[tokio::test]
async fn a_machine_without_prices_is_a_fault_and_costs_no_other_its_own() {
    let aws = Aws::of(Market::recorded());
    let wants = [want("us-east-1", "g4dm.xlarge", &[]), want("us-east-1", "g4dn.xlarge", &[])];
    let fetched = prices(&aws, PATIENT).spot(&wants, later()).await;
    assert_eq!(said(&fetched), G4DN);
    let fault = "aws: EC2 in us-east-1 states no spot price of g4dm.xlarge: it is not sold there as spot capacity, or a name is \
                 misspelt";
    assert_eq!(faults(&fetched), [fault]);
}

#[tokio::test]
async fn a_name_that_ec2_refuses_costs_the_others_nothing() {
    let aws = recorded(|call| match call.list("InstanceType").iter().any(|name| name == "g4dm.xlarge") {
        true => refusal(call, 400, "InvalidParameterValue", "Invalid instance type: [g4dm.xlarge]"),
        false => Reply::Market,
    });
    let wants = [want("us-east-1", "g4dm.xlarge", &[]), want("us-east-1", "g4dn.xlarge", &[])];
    let fetched = prices(&aws, PATIENT).spot(&wants, later()).await;
    assert_eq!(said(&fetched), G4DN);
    let fault = "aws: EC2 in us-east-1 refused ec2:DescribeSpotPriceHistory: InvalidParameterValue ('Invalid instance type: \
                 [g4dm.xlarge]'): check the names of the machine and the region";
    assert_eq!(faults(&fetched), [fault]);
}

#[tokio::test]
async fn a_region_that_hangs_costs_its_own_time_only() {
    let aws = recorded(|call| match &*call.region {
        "eu-west-1" => Reply::Silence,
        _ => Reply::Market,
    });
    let wants = [want("eu-west-1", "g5.xlarge", &[]), want("us-east-1", "g4dn.xlarge", &[])];
    let begin = Instant::now();
    let fetched = prices(&aws, SHORT).spot(&wants, later()).await;
    assert!(begin.elapsed() >= SHORT);
    assert_eq!(said(&fetched), G4DN);
    assert!(
        faults(&fetched)[0].starts_with(
            "aws: EC2 in eu-west-1 did not answer ec2:DescribeSpotPriceHistory within 600ms (the last try: no answer): check the \
             network"
        ),
        "{fetched:?}"
    );
    // It was tried again within the time.
    assert!(aws.calls().iter().filter(|call| call.region == "eu-west-1").count() >= 2);
}

#[tokio::test]
async fn more_regions_hang_than_are_asked_at_once_and_the_rest_has_its_prices() {
    let aws = recorded(|call| match &*call.region {
        "us-east-1" => Reply::Market,
        _ => Reply::Silence,
    });
    let mut wants: Vec<_> = (1..=9).map(|n| want(&format!("eu-west-{n}"), "g5.xlarge", &[])).collect();
    wants.push(want("us-east-1", "g4dn.xlarge", &[]));
    let fetched = prices(&aws, SHORT).spot(&wants, later()).await;
    assert_eq!((said(&fetched).len(), fetched.faults.len()), (5, 9));
}

#[tokio::test]
async fn a_server_that_is_busy_for_a_while_is_asked_again() {
    let busy: [fn(&Call) -> Reply; 6] = [
        |call| refusal(call, 503, "RequestLimitExceeded", "Request limit exceeded."),
        |call| refusal(call, 400, "ThrottlingException", "Rate exceeded"),
        |_| html(503),
        |_| body(429, "text/plain", "Too Many Requests".to_owned()),
        |_| Reply::Close,
        |_| Reply::Cut(history(&[&of_zone("us-east-1a", "0.01")], "").into_bytes().into()),
    ];
    for reply in busy {
        let aws = recorded(move |call| if call.number < 2 { reply(call) } else { Reply::Market });
        let fetched = fetch(&aws, "g4dn.xlarge").await;
        assert_eq!((said(&fetched), faults(&fetched)), (G4DN.map(String::from).to_vec(), vec![]));
        assert!(aws.calls().len() >= 3);
    }
}

#[tokio::test]
async fn a_server_that_stays_busy_is_a_fault_that_says_so() {
    type Case = (fn(&Call) -> Reply, [&'static str; 2]);
    let cases: [Case; 5] = [
        (
            |call| refusal(call, 503, "RequestLimitExceeded", "Request limit exceeded."),
            [
                "refused ec2:DescribeSpotPriceHistory: RequestLimitExceeded ('Request limit exceeded')",
                "too often",
            ],
        ),
        (
            |_| html(503),
            ["answered ec2:DescribeSpotPriceHistory with HTTP 503, '<!DOCTYPE html> <html>", "next refresh"],
        ),
        (|_| body(429, "text/plain", "Too Many".to_owned()), ["HTTP 429, 'Too Many': ", "asked too often"]),
        (|_| Reply::Close, ["did not answer ec2:DescribeSpotPriceHistory: ", "check the name of the region"]),
        (|_| Reply::Cut(b"<Describe".to_vec().into()), ["did not answer", "check the name of the region"]),
    ];
    for (reply, says) in cases {
        let aws = recorded(reply);
        assert_refused(&fetch(&aws, "g4dn.xlarge").await, &says);
        assert_eq!(aws.calls().len(), 4, "{says:?}");
    }
}

#[tokio::test]
async fn an_answer_that_is_none_is_a_fault() {
    let whole = history(&[&of_zone("us-east-1a", "0.5"), &of_zone("us-east-1b", "0.6")], "");
    let half = whole[..whole.find("0.6").unwrap() + 2].to_owned();
    let between = whole[..whole.find("</item>").unwrap() + 7].to_owned();
    let cases = [
        (html(200), vec!["with HTTP 200 and what is no answer to it, '<!DOCTYPE html>", "wrong endpoint"]),
        (xml(200, ""), vec!["with HTTP 200 and what is no answer to it, ''"]),
        (
            xml(200, "<Response><Errors/></Response>"),
            vec!["no answer to it", "expected DescribeSpotPriceHistoryResponse"],
        ),
        (body(200, "application/json", "{}".to_owned()), vec!["no answer to it, '{}'"]),
        (xml(200, &half), vec!["the answer ends in the middle"]),
        (xml(200, &between), vec!["the answer ends in the middle"]),
        (xml(200, &"<!-- -->".repeat(3 << 20)), vec!["the answer is longer than 16 MiB"]),
        (html(404), vec!["with HTTP 404, '<!DOCTYPE html>"]),
    ];
    for (reply, says) in cases {
        let aws = recorded(move |_| reply.clone());
        assert_refused(&fetch(&aws, "g4dn.xlarge").await, &says);
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_a_fault() {
    let aws = Aws::of(Market::default());
    let prices = prices(&aws, PATIENT);
    drop(aws);
    let fetched = prices.spot(&[want("us-east-1", "g4dn.xlarge", &[])], later()).await;
    assert_refused(&fetched, &["EC2 in us-east-1 did not answer", "onnection refused"]);
}

#[tokio::test]
async fn the_history_has_every_price_since_and_the_one_before() {
    let aws = Aws::of(Market { page_rows: 10, ..Market::recorded() });
    let want = want("us-east-1", "inf1.xlarge", &["us-east-1d"]);
    let (since, until) = (at("2021-04-27T10:00:00Z"), at("2021-04-28T04:00:00Z"));
    let history = prices(&aws, PATIENT).spot_history(&want, since, until).await.expect("prices");
    let found: Vec<(String, f64)> =
        history.iter().map(|quote| (quote.at.to_string(), quote.usd_per_hour)).collect();
    let expected = [
        ("2021-04-27T09:34:05Z", 0.1112),
        ("2021-04-27T15:22:59Z", 0.1117),
        ("2021-04-27T22:05:33Z", 0.1123),
        ("2021-04-28T03:49:20Z", 0.1129),
    ];
    assert_eq!(found, expected.map(|(at, usd)| (at.to_owned(), usd)));
    let nowhere = super::want("us-east-1", "inf9.xlarge", &[]);
    let fault = prices(&aws, PATIENT).spot_history(&nowhere, since, until).await.expect_err("no prices");
    assert!(fault.0.contains("no spot price of inf9.xlarge"), "{fault}");
}
