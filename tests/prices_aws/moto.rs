//! Against moto, an EC2 that others wrote. `make test` provides it; see scripts/setup.sh.

use aws_credential_types::Credentials;
use tradewind::signals::prices::{AwsSettings, aws::AwsPrices};

use super::{PATIENT, assert_refused, faults, harness::python, later, said, want};

/// moto knows which machines are in which zones. Each has one price, 0.00001, since 2006.
#[tokio::test]
async fn an_ec2_that_others_wrote_is_understood() {
    let Some(moto) = python::Server::start("moto/server.py", &[]) else { return };
    let settings = AwsSettings {
        ec2_endpoint: Some(format!("http://{}", moto.address)),
        timeout: PATIENT,
        ..AwsSettings::default()
    };
    let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, None, "tests");
    let prices = AwsPrices::with_credentials(&settings, credentials);
    let wants = [
        want("us-east-1", "g5.2xlarge", &["us-east-1a", "us-east-1b"]),
        want("us-east-1", "g4dn.xlarge", &["us-east-1c"]),
        want("eu-west-1", "g4dn.xlarge", &[]),
    ];
    let fetched = prices.spot(&wants, later()).await;
    assert_eq!(faults(&fetched), [""; 0]);
    let expected = [
        "eu-west-1a g4dn.xlarge 0.00001",
        "eu-west-1b g4dn.xlarge 0.00001",
        "eu-west-1c g4dn.xlarge 0.00001",
        "us-east-1a g5.2xlarge 0.00001",
        "us-east-1b g5.2xlarge 0.00001",
        "us-east-1c g4dn.xlarge 0.00001",
    ];
    assert_eq!(said(&fetched), expected);
    let begun = "2006-01-02T15:04:05Z".parse().expect("a time");
    assert!(fetched.quotes.iter().all(|quote| quote.at == begun));
    let fetched = prices.spot(&[want("us-east-1", "g5.3xlarge", &[])], later()).await;
    assert_refused(&fetched, &["EC2 in us-east-1 states no spot price at all, asked for g5.3xlarge"]);
}
