//! Against moto, an EC2 that others wrote. `make test` provides it; see scripts/setup.sh.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use aws_credential_types::Credentials;
use tradewind::signals::prices::{AwsSettings, aws::AwsPrices};

use super::{PATIENT, assert_refused, faults, later, said, want};

/// A Python that may have moto: the one that is named, or the one that scripts/setup.sh has made.
fn python() -> Option<PathBuf> {
    if let Some(named) = std::env::var_os("TRADEWIND_TEST_PYTHON") {
        return Some(named.into());
    }
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_tradewind"));
    let made = binary.ancestors().nth(2)?.join("py/bin/python");
    made.exists().then_some(made)
}

/// A moto server. It ends when its standard input does.
struct Moto {
    child: Child,
    url: String,
}

impl Moto {
    /// `None` where there is no Python with moto.
    fn start() -> Option<Moto> {
        let python = python()?;
        let has_it = Command::new(&python).args(["-c", "import moto.server"]).stderr(Stdio::null()).status();
        has_it.ok().filter(|status| status.success())?;
        let mut child = Command::new(&python)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/moto/server.py"))
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", python.display()));
        let mut line = String::new();
        let output = child.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut line).expect("it says its address");
        Some(Moto { child, url: line.trim().to_owned() })
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// moto knows which machines are in which zones. Each has one price, 0.00001, since 2006.
#[tokio::test]
async fn an_ec2_that_others_wrote_is_understood() {
    let Some(moto) = Moto::start() else {
        eprintln!("SKIPPED: there is no Python with moto; `scripts/setup.sh test` makes one");
        return;
    };
    let settings =
        AwsSettings { ec2_endpoint: Some(moto.url.clone()), timeout: PATIENT, ..AwsSettings::default() };
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
