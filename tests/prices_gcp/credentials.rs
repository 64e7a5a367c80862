//! Who may ask for Google Cloud's prices, what others are told, and what `check` finds.

use std::{fs, path::Path, process::Command, sync::Arc};

use serde_json::json;
use tradewind::signals::prices::{
    Fetched, GcpSettings,
    gcp::{GcpPrices, NEEDS},
};

use super::{
    PATIENT, SKUS, assert_refused, at_first, faults, fetch, g2,
    harness::gcp::{Catalog, Reply, refusal, table},
    json_reply, settings, want,
};

#[tokio::test]
async fn who_may_not_ask_is_told_why_and_does_not_ask_again() {
    let cases: [(u16, &str, Option<&str>, &str); 6] = [
        (400, "INVALID_ARGUMENT", Some("API_KEY_INVALID"), "the API key of env GCP_KEY is not valid"),
        (401, "UNAUTHENTICATED", Some("ACCESS_TOKEN_EXPIRED"), "have expired: renew them"),
        (
            403,
            "PERMISSION_DENIED",
            Some("SERVICE_DISABLED"),
            "gcloud services enable cloudbilling.googleapis.com --project 123456789012",
        ),
        (
            403,
            "PERMISSION_DENIED",
            Some("API_KEY_SERVICE_BLOCKED"),
            "add the Cloud Billing API to its API restrictions",
        ),
        (403, "PERMISSION_DENIED", Some("API_KEY_IP_ADDRESS_BLOCKED"), "change its application restrictions"),
        (403, "PERMISSION_DENIED", None, "may not list the SKUs"),
    ];
    for (code, status, reason, says) in cases {
        let reply = refusal(code, status, "What the API says.", reason);
        let catalog = Catalog::broken(&table(SKUS), at_first(usize::MAX, reply));
        let fetched = fetch(&catalog, &g2(), PATIENT).await;
        assert_refused(&fetched, &[&format!("HTTP {code}: 'What the API says'"), says]);
        assert_eq!(catalog.calls().len(), 1, "{reason:?}");
    }
}

#[tokio::test]
async fn a_check_says_what_works() {
    let catalog = Catalog::of(&table(SKUS), 100);
    let prices = GcpPrices::connect(&settings(catalog.url(), PATIENT)).await.unwrap();
    let wants =
        [g2().remove(0), want("us-central1", "g2-standart-8", None), want("mars", "g2-standard-8", None)];
    let findings = prices.check(&wants).await;
    let found: Vec<(String, bool, String)> = findings
        .into_iter()
        .map(|finding| match finding.outcome {
            Ok(text) => (finding.what, true, text),
            Err(fault) => (finding.what, false, fault.0),
        })
        .collect();
    let seen = |what: &str| {
        let (_, works, text) = found.iter().find(|(found, ..)| found == what).expect(what);
        (*works, text.as_str())
    };
    assert_eq!(seen("gcp: credentials"), (true, "the API key of env GCP_KEY"));
    let list = format!("gcp: services.skus.list at {}", catalog.url());
    assert_eq!(seen(&list), (true, "204 SKUs on 3 pages"));
    assert!(seen("gcp: price of on_demand g2-standard-8 in us-central1").0);
    assert!(seen("gcp: price of spot g2-standard-8 in us-central1").1.ends_with(" USD/h"));
    assert!(!seen("gcp: price of spot g2-standard-8 in mars").0);
    assert!(seen("gcp: machine type").1.contains("did you mean 'g2-standard-8'?"));
    assert_eq!(found.len(), 7);
    assert!(NEEDS.contains("cloudbilling.googleapis.com"));
}

#[tokio::test]
async fn a_check_says_what_is_missing() {
    let reply =
        refusal(403, "PERMISSION_DENIED", "Cloud Billing API has not been used.", Some("SERVICE_DISABLED"));
    let catalog = Catalog::broken(&table(SKUS), at_first(usize::MAX, reply));
    let prices = GcpPrices::connect(&settings(catalog.url(), PATIENT)).await.unwrap();
    let findings = prices.check(&g2()).await;
    assert_eq!(findings.len(), 2);
    let fault = findings[1].outcome.as_ref().unwrap_err();
    assert!(fault.0.contains("gcloud services enable cloudbilling.googleapis.com"), "{fault}");
    assert_eq!(catalog.calls().len(), 1);
}

/// A fetch in a process of its own, whose environment says who asks: `prices` or the fault.
fn fetch_as_default(catalog: &Catalog, credentials: &str) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "credentials::in_a_process_of_its_own", "--ignored", "--nocapture"])
        .env("GOOGLE_APPLICATION_CREDENTIALS", credentials)
        .env("CATALOG", catalog.url())
        .output()
        .expect("it runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[tokio::test]
#[ignore = "fetch_as_default runs it"]
async fn in_a_process_of_its_own() {
    let Ok(url) = std::env::var("CATALOG") else { return };
    let settings = GcpSettings { endpoint: Some(url), api_key: None, timeout: PATIENT };
    let fetched = match GcpPrices::connect(&settings).await {
        Ok(prices) => prices.fetch(&g2()).await,
        Err(fault) => Fetched { quotes: Vec::new(), faults: vec![fault] },
    };
    println!("{} quotes, {:?}", fetched.quotes.len(), faults(&fetched));
}

/// The file that `gcloud auth application-default login` writes, with the token service of `catalog`.
fn login(dir: &Path, catalog: &Catalog) -> String {
    let path = dir.join("application_default_credentials.json");
    let login = json!({
        "type": "authorized_user",
        "client_id": "a-client",
        "client_secret": "a-secret",
        "refresh_token": "a-refresh-token",
        "quota_project_id": "a-project",
        "token_uri": format!("{}/token", catalog.url())
    });
    fs::write(&path, login.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn without_a_key_it_asks_with_application_default_credentials() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = Catalog::broken(&table(SKUS), |request| match request.path.as_str() {
        "/token" => json_reply(r#"{"access_token": "a-token", "token_type": "Bearer", "expires_in": 3600}"#),
        _ => Reply::Page,
    });
    let said = fetch_as_default(&catalog, &login(dir.path(), &catalog));
    assert!(said.contains("2 quotes, []"), "{said}");
    let calls = catalog.calls();
    let asked = calls.iter().find(|call| call.path.ends_with("/skus")).expect("a call");
    assert_eq!(asked.headers["authorization"], "Bearer a-token");
    assert_eq!(asked.headers["x-goog-user-project"], "a-project");
}

#[test]
fn credentials_that_cannot_be_had_are_a_fault_that_says_where_to_get_some() {
    let dir = tempfile::tempdir().unwrap();
    let catalog = Catalog::broken(&table(SKUS), |request| match request.path.as_str() {
        "/token" => Reply::Body {
            status: 400,
            content_type: "application/json",
            body: Arc::from(
                *br#"{"error": "invalid_grant", "error_description": "Token has been expired or revoked."}"#,
            ),
        },
        _ => Reply::Page,
    });
    let nowhere = dir.path().join("nowhere.json");
    for credentials in [login(dir.path(), &catalog), nowhere.to_str().unwrap().to_owned()] {
        let said = fetch_as_default(&catalog, &credentials);
        assert!(said.contains("0 quotes") && said.contains("no credentials can be had"), "{said}");
        assert!(said.contains("gcloud auth application-default login"), "{said}");
        assert!(!said.contains("a-secret") && !said.contains("a-refresh-token"), "{said}");
    }
    assert!(catalog.calls().iter().all(|call| call.path == "/token"));
}
