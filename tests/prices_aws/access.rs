//! Who may ask, and what they are told who may not.

use std::{fs, process::Command};

use aws_credential_types::Credentials;
use serde_json::{Value, json};
use tradewind::signals::prices::{
    AwsSettings,
    aws::{AwsPrices, POLICY},
};

use super::{
    PATIENT, SECRET, SHORT, TOKEN, assert_refused,
    harness::aws::{Aws, Call, Market, Reply, refusal},
    later, prices, recorded, said, want,
};

#[tokio::test]
async fn who_may_not_ask_is_told_what_to_do() {
    let cases = [
        (403, "UnauthorizedOperation", "allow ec2:DescribeSpotPriceHistory to these credentials"),
        (400, "ExpiredToken", "the credentials have expired: renew them"),
        (400, "RequestExpired", "renew the credentials if they are temporary, and set the clock"),
        (401, "AuthFailure", "that the region is enabled for the account"),
        (403, "SignatureDoesNotMatch", "check the secret access key"),
        (401, "OptInRequired", "enable the region"),
    ];
    for (status, code, advice) in cases {
        let aws = recorded(move |call| refusal(call, status, code, "Access to this is not to be had."));
        let fetched = prices(&aws, PATIENT).spot(&[want("us-east-1", "g4dn.xlarge", &[])], later()).await;
        assert_refused(
            &fetched,
            &["EC2 in us-east-1 refused", code, "'Access to this is not to be had'", advice],
        );
        assert_eq!(aws.calls().len(), 1, "{code}: what will not change is not asked twice");
    }
    let cases = [
        ("AccessDeniedException", "allow pricing:GetProducts to these credentials"),
        ("ExpiredTokenException", "the credentials have expired: renew them"),
        ("UnrecognizedClientException", "check that the access key exists"),
        ("InvalidSignatureException", "set the clock of this machine"),
    ];
    for (code, advice) in cases {
        let aws = recorded(move |call| refusal(call, 400, code, "Access to this is not to be had."));
        let fetched = prices(&aws, PATIENT).on_demand(&[want("us-east-1", "g4dn.xlarge", &[])]).await;
        assert_refused(&fetched, &["the Price List in us-east-1 refused", code, advice]);
        assert_eq!(aws.calls().len(), 1, "{code}: neither is the next endpoint");
    }
}

#[tokio::test]
async fn what_aws_repeats_of_the_request_shows_no_secret() {
    let said =
        format!("The Canonical String should have been 'POST\n/\n\nx-amz-security-token:{TOKEN}\n{SECRET}'");
    let aws = recorded(move |call| refusal(call, 403, "InvalidSignatureException", &said));
    let wants = [want("us-east-1", "g4dn.xlarge", &[])];
    let prices = prices(&aws, PATIENT);
    assert_refused(&prices.on_demand(&wants).await, &["x-amz-security-token:*** ***"]);
    assert_refused(&prices.spot(&wants, later()).await, &["x-amz-security-token:*** ***"]);
    assert!(!format!("{prices:?}").contains(SECRET));
}

#[test]
fn the_policy_allows_two_calls_and_no_more() {
    let policy: Value = serde_json::from_str(POLICY).expect("it is JSON");
    let actions = &policy["Statement"][0]["Action"];
    assert_eq!(*actions, json!(["ec2:DescribeSpotPriceHistory", "pricing:GetProducts"]));
    assert_eq!(policy["Statement"].as_array().map(Vec::len), Some(1));
    assert_eq!(policy["Version"], "2012-10-17");
}

/// What a check of these says, a line for each finding.
async fn check(aws: &Aws) -> Vec<String> {
    let wants = [
        want("us-east-1", "g4dn.xlarge", &[]),
        want("us-east-1", "inf1.xlarge", &[]),
        want("us-west-2", "g4dn.xlarge", &["usw2-az1"]),
    ];
    let findings = prices(aws, PATIENT).check(&wants, later()).await;
    let line = |outcome: &Result<String, _>| match outcome {
        Ok(found) => format!("ok {found}"),
        Err(fault) => format!("MISSING {fault}"),
    };
    findings.iter().map(|finding| format!("{}: {}", finding.what, line(&finding.outcome))).collect()
}

#[tokio::test]
async fn a_check_tries_each_permission_for_all_machines_of_each_region() {
    let mut market = Market::recorded();
    market.products.push(super::harness::aws::product("g4dn.xlarge", "us-west-2", "0.526"));
    let aws = Aws::of(market);
    let expected = [
        "aws: credentials: ok an access key that ends in MPLE, which does not expire",
        "aws: ec2:DescribeSpotPriceHistory in us-east-1: ok 10 prices, from 0.1104 to 0.1578 USD/h",
        "aws: pricing:GetProducts for us-east-1: ok 2 prices, from 0.228 to 0.526 USD/h",
        "aws: ec2:DescribeSpotPriceHistory in us-west-2: ok g4dn.xlarge: 0.1578 USD/h",
        "aws: pricing:GetProducts for us-west-2: ok g4dn.xlarge: 0.526 USD/h",
    ];
    let found = check(&aws).await;
    assert_eq!(found[0], expected[0]);
    assert_eq!(found[2..], expected[2..]);
    // inf1 moved on in the meantime: only the number of prices is certain.
    assert!(
        found[1].starts_with("aws: ec2:DescribeSpotPriceHistory in us-east-1: ok 10 prices, from 0."),
        "{}",
        found[1]
    );
    // Of each region its spot prices, and each machine on demand.
    assert_eq!(aws.calls().len(), 5);
}

#[tokio::test]
async fn a_check_says_which_permission_is_missing_where() {
    let aws = recorded(|call| match (&*call.service, &*call.region) {
        ("ec2", "us-west-2") => refusal(call, 403, "UnauthorizedOperation", "You are not authorized."),
        ("pricing", _) => refusal(call, 400, "AccessDeniedException", "User is not authorized."),
        _ => Reply::Market,
    });
    let found = check(&aws).await;
    assert!(found[1].contains("us-east-1: ok 10 prices"), "{found:?}");
    assert!(
        found[2].contains("for us-east-1: MISSING ") && found[2].contains("allow pricing:GetProducts"),
        "{found:?}"
    );
    assert!(found[3].contains("in us-west-2: MISSING ") && found[3].contains("allow ec2:Desc"), "{found:?}");
    assert_eq!(found.len(), 5);
}

#[tokio::test]
async fn credentials_that_last_say_until_when() {
    let aws = Aws::of(Market::recorded());
    let expiry = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(4_102_444_800);
    let credentials = Credentials::new("AKIDEXAMPLE", SECRET, Some(TOKEN.to_owned()), Some(expiry), "tests");
    let prices = AwsPrices::with_credentials(&aws.settings(PATIENT), credentials);
    let findings = prices.check(&[], later()).await;
    let found = findings[0].outcome.as_ref().expect("they are there");
    assert_eq!(found, "an access key that ends in MPLE, valid until 2100-01-01T00:00:00Z");
    assert_eq!(findings.len(), 1);
}

/// Says to a test that it is the process that the test started.
const CHILD: &str = "TRADEWIND_TEST_CHILD";

/// What a fetch with the standard chain says in a process of its own, whose environment is only this. The process runs the
/// same `test`, and gets `None` here once it has fetched.
fn fetch_as_the_environment_says(test: &str, environment: &[(&str, &str)]) -> Option<String> {
    if std::env::var_os(CHILD).is_some() {
        tokio::runtime::Runtime::new().expect("a runtime").block_on(fetch_and_print());
        return None;
    }
    let output = Command::new(std::env::current_exe().expect("this test has a path"))
        .args(["--exact", test, "--nocapture"])
        .env_clear()
        .env(CHILD, "")
        // On a machine of AWS the chain would find its role.
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(environment.iter().copied())
        .output()
        .expect("it runs");
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn fetch_and_print() {
    let profile = std::env::var("USE_PROFILE").ok();
    let timeout = if std::env::var_os("USE_LITTLE_TIME").is_some() { SHORT } else { PATIENT };
    let prices = AwsPrices::new(&AwsSettings { profile, timeout, ..AwsSettings::default() });
    let wants = [want("us-east-1", "g4dn.xlarge", &["us-east-1a"])];
    let (spot, on_demand) = (prices.spot(&wants, later()).await, prices.on_demand(&wants).await);
    println!("{:?} {:?} {:?} {:?}", said(&spot), said(&on_demand), spot.faults, on_demand.faults);
}

const BOTH: &str = r#"["us-east-1a g4dn.xlarge 0.1578"] ["us-east-1 g4dn.xlarge 0.526"] [] []"#;

fn keys(aws: &Aws) -> Vec<String> {
    let key = |call: &Call| {
        let signed = call.headers["authorization"].split_once("Credential=").expect("it is signed").1;
        signed.split('/').next().unwrap_or_default().to_owned()
    };
    aws.calls().iter().map(key).collect()
}

#[test]
fn the_environment_says_who_asks_and_where() {
    const TEST: &str = "access::the_environment_says_who_asks_and_where";
    let aws = Aws::of(Market::recorded());
    let url = aws.url();
    let Some(said) = fetch_as_the_environment_says(
        TEST,
        &[
            ("AWS_ACCESS_KEY_ID", "AKIDOFENV"),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
            ("AWS_ENDPOINT_URL_EC2", &url),
            ("AWS_ENDPOINT_URL_PRICING", &url),
        ],
    ) else {
        return;
    };
    assert!(said.contains(BOTH), "{said}");
    assert_eq!(keys(&aws), ["AKIDOFENV"; 2]);
}

#[test]
fn a_profile_says_who_asks_and_where() {
    const TEST: &str = "access::a_profile_says_who_asks_and_where";
    let aws = Aws::of(Market::recorded());
    let dir = tempfile::tempdir().expect("a directory");
    let (credentials, config) = (dir.path().join("credentials"), dir.path().join("config"));
    let text = format!(
        "[default]\naws_access_key_id = AKIDOFDEFAULT\naws_secret_access_key = {SECRET}\n\
         [prices]\naws_access_key_id = AKIDOFPRICES\naws_secret_access_key = {SECRET}\n"
    );
    fs::write(&credentials, text).expect("it can be written");
    let url = aws.url();
    let text = format!(
        "[default]\nendpoint_url = {url}\n[profile prices]\nregion = eu-north-1\nendpoint_url = {url}\n"
    );
    fs::write(&config, text).expect("it can be written");
    let files = [
        ("AWS_SHARED_CREDENTIALS_FILE", credentials.to_str().expect("text")),
        ("AWS_CONFIG_FILE", config.to_str().expect("text")),
    ];
    let Some(said) = fetch_as_the_environment_says(TEST, &files) else { return };
    assert!(said.contains(BOTH), "{said}");
    let Some(said) =
        fetch_as_the_environment_says(TEST, &[&files[..], &[("USE_PROFILE", "prices")]].concat())
    else {
        return;
    };
    assert!(said.contains(BOTH), "{said}");
    assert_eq!(keys(&aws), ["AKIDOFDEFAULT", "AKIDOFDEFAULT", "AKIDOFPRICES", "AKIDOFPRICES"]);
}

#[test]
fn without_credentials_nothing_is_asked_and_the_fault_says_where_to_get_some() {
    const TEST: &str = "access::without_credentials_nothing_is_asked_and_the_fault_says_where_to_get_some";
    let aws = Aws::of(Market::recorded());
    let url = aws.url();
    let endpoints = [("AWS_ENDPOINT_URL", &*url)];
    for profile in [&[][..], &[("USE_PROFILE", "nobody")]] {
        let Some(said) = fetch_as_the_environment_says(TEST, &[&endpoints[..], profile].concat()) else {
            return;
        };
        assert!(said.contains("[] [] [FeedFault(\"aws: no credentials can be had: "), "{said}");
        assert!(said.contains("give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile"), "{said}");
    }
    assert_eq!(keys(&aws), [""; 0]);
}

#[test]
fn credentials_that_hang_cost_no_more_than_the_deadline() {
    let dir = tempfile::tempdir().expect("a directory");
    let (config, fifo) = (dir.path().join("config"), dir.path().join("never-written"));
    let made = Command::new("mkfifo").arg(&fifo).status().expect("there is mkfifo");
    assert!(made.success());
    fs::write(&config, format!("[default]\ncredential_process = /bin/cat {}\n", fifo.display()))
        .expect("it can be written");
    let environment = [("AWS_CONFIG_FILE", config.to_str().expect("text")), ("USE_LITTLE_TIME", "")];
    let test = "access::credentials_that_hang_cost_no_more_than_the_deadline";
    let Some(said) = fetch_as_the_environment_says(test, &environment) else { return };
    assert!(said.contains("aws: no credentials can be had: nothing answered within 600ms"), "{said}");
    // Lets go of the process that waits.
    drop(fs::OpenOptions::new().read(true).write(true).open(&fifo));
}
