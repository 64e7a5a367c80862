//! Tenants, credentials for backends, and the access log.

use insta::assert_snapshot;

use super::{GOOD, and, said, with};

const KEY: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

/// The good file with tenants.
fn tenants(tables: &str) -> String {
    said(&format!("[listen]\nauthentication = \"required\"\n{GOOD}{tables}").replace("KEY", KEY))
}

#[test]
fn a_good_tenant() {
    let limits = "requests_per_minute = 60\ntokens_per_minute = 1000\nusd_per_day = 1.5\nusd_per_month = 30";
    let allowed = "routes = [\"chat\"]\nmodels = [\"llama-*\", \"m\"]";
    assert_eq!(
        tenants(&format!("[tenants.acme]\nkeys = [{{ sha256 = \"KEY\" }}]\n{allowed}\n{limits}\n")),
        ""
    );
}

#[test]
fn keys() {
    assert_snapshot!(tenants(""), @"
    t.toml:2:18: error: listen.authentication: there is no tenant, so every request would be refused
        hint: add a table [tenants.NAME]; `tradewind key` makes a key
    ");
    assert_snapshot!(said(&format!("{GOOD}[tenants.acme]\nkeys = [{{ sha256 = \"{KEY}\" }}]\n")), @r#"
    t.toml:18:10: warning: tenants.acme: no key is looked at, so this limits nobody
        hint: set `listen.authentication = "required"`
    "#);
    assert_snapshot!(tenants("[tenants.acme]\nkeys = []\n"), @r#"
    t.toml:21:8: error: tenants.acme.keys: the list is empty
        hint: write it like [{ sha256 = "9f86..." }]
    "#);
    assert_snapshot!(tenants("[tenants.acme]\nkeys = [\"tw-secret\"]\n"), @r#"
    t.toml:21:9: error: tenants.acme.keys[0]: found a string, expected a table
        hint: write it like { sha256 = "9f86..." } or { file = "acme.key" }
    "#);
    assert_snapshot!(tenants("[tenants.acme]\nkeys = [{ file = \"nowhere.key\" }]\n"), @"
    t.toml:21:9: error: tenants.acme.keys[0]: the file `nowhere.key`: there is no such file
        hint: relative paths start at the directory of this file
    ");
    assert_snapshot!(tenants("[tenants.acme]\nkeys = [{ sha256 = \"KEY\", env = \"X\" }]\n"), @r#"
    t.toml:21:9: error: tenants.acme.keys[0]: found 2 keys, expected exactly one of `sha256`, `env`, `file`
        hint: write it like { sha256 = "9f86..." } or { file = "acme.key" }
    "#);
    let two = "[tenants.a]\nkeys = [{ sha256 = \"KEY\" }]\n[tenants.b]\nkeys = [{ sha256 = \"KEY\" }]\n";
    assert_snapshot!(tenants(two), @"
    t.toml:23:9: error: tenants.b.keys[0]: it is a key of the tenant `a` too
        hint: make one for each: `tradewind key`
    ");
}

#[test]
fn what_a_tenant_may() {
    let tenant = |more: &str| tenants(&format!("[tenants.acme]\nkeys = [{{ sha256 = \"KEY\" }}]\n{more}\n"));
    assert_snapshot!(tenant("routes = [\"chatt\", \"chat\", \"chat\"]"), @"
    t.toml:22:11: error: tenants.acme.routes[0]: there is no route `chatt`
        hint: did you mean `chat`?
    t.toml:22:28: error: tenants.acme.routes[2]: the route `chat` is there twice
        hint: take one out
    ");
    assert_snapshot!(tenant("models = [\"*a\", \"m\", \"m\"]"), @r#"
    t.toml:22:11: error: tenants.acme.models[0]: `*a` is not a model pattern: `*` may only be its last character, for every name that begins so
        hint: write it like "llama-3-8b" or "llama-*" or "*"
    "#);
    assert_snapshot!(tenant("requests_per_minute = 0\nusd_per_day = 0"), @"
    t.toml:22:23: error: tenants.acme.requests_per_minute: found 0, expected at least 1
        hint: Requests in a minute. So many may come at once, and then as many as come back evenly.
    t.toml:23:15: error: tenants.acme.usd_per_day: found 0, expected a number above 0
        hint: USD in a UTC day.
    ");
    let uncounted = format!(
        "[listen]\nauthentication = \"required\"\ncount_tokens = false\n{GOOD}[tenants.acme]\nkeys = [{{ sha256 = \"{KEY}\" }}]\ntokens_per_minute = 5\n"
    );
    assert_snapshot!(said(&uncounted), @"t.toml:23:21: error: tenants.acme.tokens_per_minute: `listen.count_tokens` is off, so no token is counted");
}

#[test]
fn credentials_for_backends() {
    let auth = |auth: &str| with("cloud = \"aws\"", &format!("cloud = \"aws\"\nauth = {auth}"));
    for good in [
        "{ aws_sigv4 = { service = \"sagemaker\" } }",
        "{ google_access_token = {} }",
        "{ google_id_token = { audience = \"https://a\" } }",
    ] {
        assert_eq!(auth(good), "", "{good}");
    }
    assert_snapshot!(auth("{}"), @r#"
    t.toml:6:1: error: backends.a.auth: found 0 keys, expected exactly one of `bearer`, `aws_sigv4`, `google_access_token`, `google_id_token`
        hint: write it like { bearer = { file = "vllm.key" } } or { google_id_token = {  } }
    "#);
    assert_snapshot!(auth("{ bearer = \"hunter2\" }"), @r#"
    t.toml:6:19: error: backends.a.auth.bearer: found a string, expected a table
        hint: write it like { env = "NAME" } or { file = "PATH" }
    "#);
    assert_snapshot!(auth("{ bearer = { env = \"TRADEWIND_NO_SUCH_VARIABLE\" } }"), @"
    t.toml:6:10: error: backends.a.auth.bearer: the environment variable TRADEWIND_NO_SUCH_VARIABLE is not set
        hint: set it for the process, to the secret alone
    ");
    assert_snapshot!(auth("{ google_access_token = {}, google_id_token = {} }"), @r#"
    t.toml:6:1: error: backends.a.auth: found 2 keys, expected exactly one of `bearer`, `aws_sigv4`, `google_access_token`, `google_id_token`
        hint: write it like { bearer = { file = "vllm.key" } } or { google_id_token = {  } }
    "#);
    assert_snapshot!(auth("{ google_access_token = { scopes = [] } }"), @"t.toml:6:43: error: backends.a.auth.google_access_token.scopes: the list is empty");
    let clear = with(
        "url = \"https://a.example.com\"",
        "url = \"http://a.example.com\"\nauth = { google_id_token = {} }",
    );
    assert_snapshot!(clear, @"
    t.toml:5:1: warning: backends.a.auth: credentials are sent in clear text
        hint: use https, unless nobody else is on the way
    ");
    assert_snapshot!(with("cloud = \"aws\"", "cloud = \"aws\"\nclient_credentials = \"hide\""), @r#"
    t.toml:6:22: error: backends.a.client_credentials: found "hide", expected "pass", "strip"
        hint: Whether the backend sees the credentials of clients (`authorization`, `proxy-authorization`, `x-api-key`, `api-key`) and their cookies: `pass` or `strip`. Unless given, they are taken out where the backend has `auth`, or `listen.authentication` is required.
    "#);
}

#[test]
fn the_access_log() {
    assert_eq!(and("[log.access]\n"), "");
    assert_eq!(and("[log.access]\nfile = \"access.log\"\nsample = 0.1"), "");
    assert_snapshot!(and("[log.access]\nsample = \"0%\""), @"
    t.toml:19:10: error: log.access.sample: found 0%, expected more
        hint: take `log.access` out to write none
    ");
    assert_snapshot!(and("[log]\naccess = { file = \"nowhere/access.log\" }"), @"
    t.toml:19:19: error: log.access.file: the file `nowhere/access.log`: there is no such directory
        hint: relative paths start at the directory of this file
    ");
    assert_snapshot!(and("[log]\naccess = { file = \"demo\" }"), @"
    t.toml:19:19: error: log.access.file: the file `demo`: it is a directory
        hint: relative paths start at the directory of this file
    ");
}
