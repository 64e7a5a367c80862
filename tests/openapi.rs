//! The description of the admin API in the documentation is the one that is served.

mod harness;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use harness::{Backend, Client, Config, Tradewind, put};

#[test]
fn the_documented_description_is_the_one_that_is_served() {
    let served = serde_json::to_string_pretty(&tradewind::admin::openapi::json()).unwrap() + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/openapi.json");
    if env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, &served).unwrap();
    }
    let documented = fs::read_to_string(&path).unwrap();
    assert!(
        documented == served,
        "docs/openapi.json is not what is served: `UPDATE_DOCS=1 cargo test --test openapi` writes it anew"
    );
}

#[test]
fn the_description_needs_no_token() {
    let a = Backend::named("a");
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), "eve", "viewer-secret");
    let tokens = "tokens = [{ name = \"eve\", role = \"viewer\", value = { file = \"eve\" } }]";
    let tradewind = Tradewind::start_in(dir.path(), &Config::new(&[(&a, 1.0)]).admin(tokens));
    let answer = Client::new(tradewind.admin).get("/openapi.json").unwrap();
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(answer.json(), tradewind::admin::openapi::json());
}

/// Every call with what its description allows and with what it does not: no answer that is a fault of ours, and none that the
/// description does not have.
#[test]
fn whatever_is_asked_is_answered_as_described() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let tradewind = Tradewind::start(&Config::new(&[(&a, 1.0), (&b, 2.0)]));
    let made = Path::new(env!("CARGO_BIN_EXE_tradewind")).ancestors().nth(2).unwrap().join("py/bin/python");
    let python = env::var_os("TRADEWIND_TEST_PYTHON").map_or(made, PathBuf::from);
    if !python.with_file_name("schemathesis").exists() {
        eprintln!("SKIPPED: there is no schemathesis; `scripts/setup.sh test` brings it");
        return;
    }
    let address = format!("http://{}", tradewind.admin);
    let output = Command::new(python.with_file_name("schemathesis"))
        .current_dir(tradewind.dir())
        .args(["run", &format!("{address}/openapi.json"), "--url", &address, "--no-color", "--seed", "1"])
        .args(["--checks", "not_a_server_error,status_code_conformance,content_type_conformance"])
        .args(["--checks", "response_schema_conformance,response_headers_conformance"])
        // That stream has no end.
        .args(["--exclude-path", "/v1/events", "--phases", "coverage,fuzzing", "--max-examples", "20"])
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("✅"), "nothing was tried: {said}");
}
