//! Prices of AWS: through the real SDK they equal what was recorded, and an AWS that is ill gives a clear fault and never a
//! wrong price.

#[path = "prices_aws/access.rs"]
mod access;
mod harness;
#[path = "prices_aws/moto.rs"]
mod moto;
#[path = "prices_aws/on_demand.rs"]
mod on_demand;
#[path = "prices_aws/spot.rs"]
mod spot;

use std::time::Duration;

use aws_credential_types::Credentials;
use harness::aws::{Aws, Call, Market, Reply};
use tradewind::{
    model::{Cloud, Timestamp},
    signals::prices::{Fetched, Quote, Want, aws::AwsPrices},
};

/// As long as nothing is wrong.
const PATIENT: Duration = Duration::from_secs(20);

/// Where a call is tried again and again: the pauses are a part of the deadline.
const RETRYING: Duration = Duration::from_secs(8);

/// Where the deadline is what ends it.
const SHORT: Duration = Duration::from_millis(600);

const SECRET: &str = "a-secret/access+key";
const TOKEN: &str = "a-session/token+of==many-characters";

fn prices(aws: &Aws, timeout: Duration) -> AwsPrices {
    let credentials = Credentials::new("AKIDEXAMPLE", SECRET, Some(TOKEN.to_owned()), None, "tests");
    AwsPrices::with_credentials(&aws.settings(timeout), credentials)
}

fn want(region: &str, machine: &str, zones: &[&str]) -> Want {
    Want {
        cloud: Cloud::Aws,
        region: region.into(),
        zones: zones.iter().map(|zone| (*zone).into()).collect(),
        every_zone: zones.is_empty(),
        spot: true,
        instance_type: machine.into(),
        accelerator: None,
        priced_as: machine.into(),
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// A moment after everything that was recorded.
fn later() -> Timestamp {
    at("2024-06-01T00:00:00Z")
}

/// The recorded market; `script` answers where it does not say [`Reply::Market`].
fn recorded(script: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Aws {
    Aws::scripted(Market::recorded(), script)
}

/// What was fetched: `us-east-1a g4dn.xlarge 0.1578`, in order.
fn said(fetched: &Fetched) -> Vec<String> {
    let line = |quote: &Quote| {
        let place = quote.key.zone.as_ref().unwrap_or(&quote.key.region);
        format!("{place} {} {}", quote.key.instance_type, quote.usd_per_hour)
    };
    let mut lines: Vec<String> = fetched.quotes.iter().map(line).collect();
    lines.sort();
    lines
}

fn faults(fetched: &Fetched) -> Vec<&str> {
    fetched.faults.iter().map(|fault| fault.0.as_str()).collect()
}

/// One fault, no price, and the fault says all of this and no secret.
#[track_caller]
fn assert_refused(fetched: &Fetched, says: &[&str]) {
    assert_eq!(fetched.quotes, [], "{fetched:?}");
    let [fault] = &fetched.faults[..] else { panic!("expected one fault: {:?}", fetched.faults) };
    for says in says {
        assert!(fault.0.contains(says), "'{says}' is not in: {fault}");
    }
    assert!(fault.0.starts_with("aws: ") && !fault.0.contains('\n') && fault.0.len() < 900, "{fault}");
    assert!(!fault.0.contains(SECRET) && !fault.0.contains(TOKEN), "{fault}");
}
