//! `tradewind prices check`: every source tried once.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::{
    cli::{Failure, table},
    config::Settings,
    model::{Backend, Cloud, Timestamp},
    signals::prices::{
        FeedFault, FileSource, Finding, PriceBook, PriceFeed, PriceReport, PriceSource, Want,
        aws::{self, AwsPrices},
        gcp::{self, GcpPrices},
    },
};

/// One line of the answer.
#[derive(Serialize)]
struct Line {
    what: String,
    ok: bool,
    detail: String,
}

#[derive(Serialize)]
struct Answer {
    findings: Vec<Line>,
    /// The IAM policy that AWS has to grant; absent where AWS is not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    aws_policy: Option<serde_json::Value>,
    /// What Google Cloud has to allow; absent where it is not asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    gcp_needs: Option<&'static str>,
}

/// Tries every source and prints what was found, what is missing, and what the providers have to allow.
///
/// # Errors
/// Something is missing.
pub(super) async fn run(settings: &Settings, as_json: bool) -> Result<(), Failure> {
    let mut findings = Vec::new();
    for source in &settings.prices.sources {
        findings.extend(try_source(source, settings).await);
    }
    findings.extend(missing_from_files(settings));
    let asks = |cloud| settings.prices.sources.iter().any(|source| source.asks(cloud));
    let line = |Finding { what, outcome }: Finding| match outcome {
        Ok(detail) => Line { what, ok: true, detail },
        Err(fault) => Line { what, ok: false, detail: fault.0 },
    };
    let answer = Answer {
        findings: findings.into_iter().map(line).collect(),
        aws_policy: asks(Cloud::Aws).then(|| serde_json::from_str(aws::POLICY).unwrap_or_default()),
        gcp_needs: asks(Cloud::Gcp).then_some(gcp::NEEDS),
    };
    table::print(&if as_json { super::json(&answer)? } else { render(&answer) });
    let failed = answer.findings.iter().filter(|line| !line.ok).count();
    match (failed, answer.findings.len()) {
        (0, 0) => Err(Failure::Input("there is no source of prices: give `prices.sources`".into())),
        (0, _) => Ok(()),
        (failed, all) => Err(Failure::Input(format!("{failed} of {all} checks failed"))),
    }
}

async fn try_source(source: &PriceSource, settings: &Settings) -> Vec<Finding> {
    let now = Timestamp::now();
    match source {
        PriceSource::File { .. } => {
            let read =
                FileSource::new(source, settings.prices.refresh, now).and_then(|mut file| file.poll(now));
            let outcome = read.unwrap_or_else(|| Ok(Vec::new()));
            let outcome = outcome.map(|quotes| format!("{} prices hold now", quotes.len()));
            vec![Finding { what: source.name().to_string(), outcome }]
        }
        PriceSource::Aws(aws) => match Want::of(&settings.backends, Cloud::Aws) {
            wants if wants.is_empty() => vec![nothing("aws")],
            wants => AwsPrices::new(aws).check(&wants, now).await,
        },
        PriceSource::Gcp(gcp) => match Want::of(&settings.backends, Cloud::Gcp) {
            wants if wants.is_empty() => vec![nothing("gcp")],
            wants => match GcpPrices::connect(gcp).await {
                Ok(prices) => prices.check(&wants).await,
                Err(fault) => vec![Finding { what: "gcp: credentials".into(), outcome: Err(fault) }],
            },
        },
    }
}

/// Prices that backends need and that no file states. What a provider says was tried machine by machine.
fn missing_from_files(settings: &Settings) -> Vec<Finding> {
    let now = Timestamp::now();
    let book = Arc::new(Mutex::new(PriceBook::new(&settings.prices)));
    PriceFeed::new(&settings.prices, &settings.backends, book.clone(), now).load_now(now);
    let book = book.lock().unwrap_or_else(PoisonError::into_inner);
    let asked = |backend: &Backend| settings.prices.sources.iter().any(|source| source.asks(backend.cloud));
    let backends = settings.backends.iter().filter(|backend| !asked(backend));
    let needed = |backend: &Backend| {
        let lines = book.report(backend, now).into_iter();
        lines.filter(|line| backend.needs(line.offer) && line.usd_per_hour.is_none()).collect::<Vec<_>>()
    };
    let finding = |line: PriceReport| Finding {
        what: format!("price of {} {} for {}", line.offer, line.instance_type, line.backend),
        outcome: Err(FeedFault(line.note.as_deref().unwrap_or("it is missing").to_owned())),
    };
    backends.flat_map(|backend| needed(backend)).map(finding).collect()
}

fn nothing(cloud: &str) -> Finding {
    let outcome = Ok(format!("no backend has `cloud = \"{cloud}\"` and a `node`: nothing is asked"));
    Finding { what: cloud.into(), outcome }
}

fn render(answer: &Answer) -> String {
    let mut out = String::new();
    for Line { what, ok, detail } in &answer.findings {
        let verdict = if *ok { "ok  " } else { "FAIL" };
        out.push_str(&format!("{verdict}  {}: {}\n", table::printable(what), table::printable(detail)));
    }
    if answer.aws_policy.is_some() {
        out.push_str(&format!(
            "\nAWS: the least that has to be allowed, as an IAM policy\n\n{}",
            aws::POLICY
        ));
    }
    if let Some(needs) = answer.gcp_needs {
        out.push_str(&format!("\n{needs}"));
    }
    out
}
