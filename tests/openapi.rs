//! The description of the admin API in the documentation is the one that is served.

mod harness;

use std::{env, fs, path::Path};

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
