//! Tenants: who may send requests and how much, as clients see it.

mod harness;

use std::{
    io::Write,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
};

use harness::{Answer, Backend, Config, Tradewind, eventually, http2};
use serde_json::{Value, json};
use tradewind::model::Digest;

const JSON: (&str, &str) = ("content-type", "application/json");
const ACME: &str = "tw-canary-of-acme";
const ZETA: &str = "tw-canary-of-zeta";

/// The headers that a backend saw last.
type Seen = Arc<Mutex<Vec<(String, String)>>>;

fn server() -> (Backend, Seen) {
    let seen = Seen::default();
    let copy = seen.clone();
    let backend = Backend::serving("llm", move |call| {
        call.body()?;
        *copy.lock().unwrap() = call.headers.clone();
        let usage = json!({ "usage": { "prompt_tokens": 40, "completion_tokens": 60 } });
        call.answer(200, &[JSON], usage.to_string().as_bytes())
    });
    (backend, seen)
}

fn tenants(acme: &str, zeta: &str) -> String {
    let hash = |key: &str| Digest::of(key.as_bytes());
    format!(
        "[tenants.acme]\nkeys = [{{ sha256 = \"{}\" }}]\n{acme}\n[tenants.zeta]\nkeys = [{{ sha256 = \"{}\" }}]\n{zeta}\n",
        hash(ACME),
        hash(ZETA)
    )
}

const ROUTES: &str = "[routes.chat]\nmatch = { path = \"/v1/*\" }\nbackends = [\"llm\"]\n\
                      [routes.other]\nmatch = { path = \"/other/*\" }\nbackends = [\"llm\"]\n";

fn config(server: &Backend, tenants: &str) -> Config {
    Config::new(&[(server, 36.0)])
        .listen("authentication = \"required\"")
        .routes(&format!("{ROUTES}{tenants}"))
}

fn ask(tradewind: &Tradewind, headers: &[(&str, &str)], path: &str, body: &str) -> Answer {
    let headers: Vec<_> = headers.iter().copied().chain([JSON]).collect();
    tradewind.client().request("POST", path, &headers, body.as_bytes()).expect("it is answered")
}

fn chat(tradewind: &Tradewind, key: &str) -> Answer {
    ask(
        tradewind,
        &[("authorization", &format!("Bearer {key}"))],
        "/v1/chat/completions",
        "{\"model\":\"llama-3\"}",
    )
}

fn code(answer: &Answer) -> Value {
    answer.json()["error"]["code"].clone()
}

#[test]
fn a_request_needs_a_key_and_the_backend_does_not_see_it() {
    let (server, seen) = server();
    let tradewind = Tradewind::start(&config(&server, &tenants("", "")));
    for headers in [
        &[][..],
        &[("authorization", "Bearer nobody's")],
        &[("authorization", "Basic dHctY2FuYXJ5LW9mLWFjbWU=")],
        &[("authorization", ACME)],
        &[("cookie", ACME)],
    ] {
        let refused = ask(&tradewind, headers, "/v1/chat/completions", "{}");
        assert_eq!((refused.status, code(&refused)), (401, json!("invalid_api_key")), "{headers:?}");
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    }
    let refused = ask(&tradewind, &[], "/nowhere", "{}");
    assert_eq!(refused.status, 401, "which routes there are is nobody's business");
    assert_eq!(server.requests(), 0);

    let bearer = format!("Bearer {ACME}");
    for headers in [[("authorization", &*bearer)], [("x-api-key", ACME)], [("api-key", ZETA)]] {
        let more =
            [("cookie", "session=tw-canary"), ("proxy-authorization", "tw-canary"), ("x-other", "kept")];
        let headers: Vec<_> = headers.into_iter().chain(more).collect();
        let answer = ask(&tradewind, &headers, "/v1/chat/completions", "{}");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let seen = seen.lock().unwrap().clone();
        assert!(!format!("{seen:?}").contains("canary"), "{seen:?}");
        assert!(seen.contains(&("x-other".into(), "kept".into())));
    }
    let counted =
        |tenant: &str| tradewind.metric(&format!("tradewind_tenant_requests_total{{tenant=\"{tenant}\"}}"));
    assert_eq!((counted("acme"), counted("zeta")), (Some(2.0), Some(1.0)));
}

#[test]
fn a_backend_may_be_meant_to_see_it() {
    let (server, seen) = server();
    let passing = Config::new(&[])
        .backend("llm", &server.url(), "client_credentials = \"pass\"")
        .listen("authentication = \"required\"")
        .routes(&format!("{ROUTES}{}", tenants("", "")));
    let key = ("authorization".to_owned(), format!("Bearer {ACME}"));
    assert_eq!(chat(&Tradewind::start(&passing), ACME).status, 200);
    assert!(seen.lock().unwrap().contains(&key));
    // Without tenants the key is the backend's.
    assert_eq!(chat(&Tradewind::start(&Config::new(&[(&server, 1.0)])), ACME).status, 200);
    assert!(seen.lock().unwrap().contains(&key));
    let stripping = Config::new(&[]).backend("llm", &server.url(), "client_credentials = \"strip\"");
    assert_eq!(chat(&Tradewind::start(&stripping), ACME).status, 200);
    assert!(!seen.lock().unwrap().contains(&key));
}

#[test]
fn a_tenant_may_use_its_routes_and_models() {
    let (server, _) = server();
    let acme = "routes = [\"chat\"]\nmodels = [\"llama-*\", \"mistral\"]";
    let tradewind = Tradewind::start(&config(&server, &tenants(acme, "")));
    let bearer = format!("Bearer {ACME}");
    let ask = |path: &str, more: &[(&str, &str)], body: &str| {
        let headers: Vec<_> = [("authorization", &*bearer)].into_iter().chain(more.iter().copied()).collect();
        let answer = ask(&tradewind, &headers, path, body);
        (answer.status, if answer.status == 200 { Value::Null } else { code(&answer) })
    };
    let allowed = (200, Value::Null);
    let no_model = (403, json!("model_not_allowed"));
    assert_eq!(ask("/other/x", &[], r#"{"model":"llama-3"}"#), (403, json!("route_not_allowed")));
    assert_eq!(ask("/v1/x", &[], r#"{"model":"llama-3"}"#), allowed);
    assert_eq!(ask("/v1/x", &[], r#"{"model":"mistral"}"#), allowed);
    assert_eq!(ask("/v1/x", &[], r#"{"model":"gpt-4"}"#), no_model);
    assert_eq!(ask("/v1/x", &[("x-model", "llama-3")], r#"{"model":"gpt-4"}"#), no_model);
    assert_eq!(ask("/v1/x", &[("x-model", "gpt-4")], r#"{"model":"llama-3"}"#), no_model);
    assert_eq!(ask("/v1/x", &[("x-model", "llama-3")], r#"{"model":"llama-3"}"#), allowed);
    assert_eq!(ask("/v1/x", &[], r#"{"model":"llama-3","model":"gpt-4"}"#), no_model);
    // Servers differ in which of two keys counts, and some in whether case does.
    assert_eq!(ask("/v1/x", &[], r#"{"model":"gpt-4","model":"llama-3"}"#), no_model);
    assert_eq!(ask("/v1/x", &[], r#"{"model":"llama-3","MODEL":"gpt-4"}"#), no_model);
    assert_eq!(ask("/v1/x", &[("x-model", "llama-3")], r#"{"Model":"gpt-4"}"#), no_model);
    assert_eq!(ask("/v1/x", &[], r#"{"model":"llama-3","user":{"MODEL":"x"}}"#), allowed);
    assert_eq!(ask("/v1/x", &[("content-type", "text/plain")], r#"{"model":"gpt-4"}"#), no_model);
    let long = format!(r#"{{"prompt":"{}","model":"gpt-4"}}"#, "a".repeat(2 << 20));
    assert_eq!(ask("/v1/x", &[("x-model", "llama-3")], &long), no_model, "a body that is not read");
    let models = tradewind.client().request("GET", "/v1/models", &[("authorization", &bearer)], b"").unwrap();
    assert_eq!(models.status, 200, "it asks for none");
    assert_eq!(chat(&tradewind, ZETA).status, 200);
    let denied = tradewind.metric("tradewind_tenant_denied_total{tenant=\"acme\",reason=\"model\"}");
    assert_eq!(denied, Some(9.0));
}

#[test]
fn who_is_counted_by_tokens_gets_answers_that_can_be_read() {
    let (server, seen) = server();
    let tradewind = Tradewind::start(&config(&server, &tenants("tokens_per_minute = 1000", "")));
    let asks_for = |key: &str| {
        let bearer = format!("Bearer {key}");
        let headers = [("authorization", &*bearer), ("accept-encoding", "gzip")];
        assert_eq!(ask(&tradewind, &headers, "/v1/x", "{}").status, 200);
        seen.lock()
            .unwrap()
            .iter()
            .find(|(name, _)| name == "accept-encoding")
            .map(|(_, value)| value.clone())
    };
    assert_eq!(asks_for(ACME), None);
    assert_eq!(asks_for(ZETA).as_deref(), Some("gzip"));
}

#[test]
fn rates_are_kept_and_told_as_openai_tells_them() {
    let (server, _) = server();
    let limits = "requests_per_minute = 3\ntokens_per_minute = 1000";
    let tradewind = Tradewind::start(&config(&server, &tenants(limits, "tokens_per_minute = 150")));
    for left in ["2", "1", "0"] {
        let answer = chat(&tradewind, ACME);
        assert_eq!((answer.status, answer.header("x-ratelimit-remaining-requests")), (200, Some(left)));
        assert_eq!(answer.header("x-ratelimit-limit-requests"), Some("3"));
        assert!(answer.header("x-ratelimit-reset-requests").is_some_and(|time| time.ends_with('s')));
        assert_eq!(answer.header("x-ratelimit-limit-tokens"), Some("1000"));
    }
    let refused = chat(&tradewind, ACME);
    assert_eq!((refused.status, code(&refused)), (429, json!("rate_limit_exceeded")));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=20).contains(&wait), "{wait}");
    assert_eq!(refused.header("x-ratelimit-remaining-requests"), Some("0"));

    // An answer has 100 tokens: two are more than may be, and both are let in.
    let spent = "tradewind_tenant_tokens_total{tenant=\"zeta\",kind=\"output\",source=\"reported\"}";
    for output in [60.0, 120.0] {
        let answer = chat(&tradewind, ZETA);
        assert_eq!((answer.status, answer.header("x-ratelimit-limit-requests")), (200, None));
        eventually("it is settled", || tradewind.metric(spent) == Some(output));
    }
    let refused = chat(&tradewind, ZETA);
    assert_eq!((refused.status, refused.json()["error"]["type"].clone()), (429, json!("tokens")));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((10..=21).contains(&wait), "about 50 tokens of 150 a minute: {wait}");
    assert_eq!(server.requests(), 5);
}

#[test]
fn budgets_outlive_a_restart() {
    let (server, _) = server();
    // A request costs 0.001 USD.
    let mut tradewind =
        Tradewind::start(&config(&server, &tenants("usd_per_month = 0.0035", "usd_per_day = 1")));
    let spent = |tradewind: &Tradewind| {
        tradewind.metric("tradewind_tenant_spent_usd{tenant=\"acme\",period=\"month\"}").unwrap_or_default()
    };
    for count in 1..=3 {
        assert_eq!(chat(&tradewind, ACME).status, 200);
        eventually("it is settled", || spent(&tradewind) > f64::from(count) * 0.001 - 1e-6);
    }
    tradewind.signal("TERM");
    eventually("it ends", || tradewind.ended().is_some());
    tradewind.start_again();
    assert!((spent(&tradewind) - 0.003).abs() < 1e-6, "{}", spent(&tradewind));
    assert_eq!(chat(&tradewind, ACME).status, 200);
    eventually("it is settled", || spent(&tradewind) > 0.0039);
    let refused = chat(&tradewind, ACME);
    assert_eq!((refused.status, code(&refused)), (429, json!("insufficient_quota")));
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    assert!(refused.header("retry-after").is_some());
    assert_eq!(chat(&tradewind, ZETA).status, 200);
}

#[test]
fn keys_change_with_a_reload_and_limits_go_on() {
    let (server, _) = server();
    let own = config(&server, &tenants("requests_per_minute = 2", ""));
    let tradewind = Tradewind::start(&own);
    assert_eq!(chat(&tradewind, ACME).status, 200);
    let other = tenants("requests_per_minute = 2", "")
        .replace(&Digest::of(ACME.as_bytes()).to_string(), &Digest::of(b"tw-another").to_string());
    config(&server, &other).write(tradewind.dir());
    eventually("the new key works", || chat(&tradewind, "tw-another").status == 200);
    assert_eq!(chat(&tradewind, ACME).status, 401);
    assert_eq!(chat(&tradewind, "tw-another").status, 429);
}

#[test]
fn http2_clients_are_refused_alike() {
    let (server, _) = server();
    let tradewind = Tradewind::start(&config(&server, &tenants("", "")));
    let statuses = http2::run(async {
        let mut connection = http2::connect(tradewind.http).await;
        let mut statuses = Vec::new();
        for key in ["nobody's", ACME] {
            let mut request = http2::request("POST", tradewind.http, "/v1/x", http2::whole("{}"));
            request.headers_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
            let answer = connection.send_request(request).await.expect("it is answered");
            statuses.push(answer.status().as_u16());
            http2::text(answer.into_body()).await;
        }
        statuses
    });
    assert_eq!(statuses, [401, 200]);
}

/// What the program makes of this input.
fn key(args: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_tradewind"))
        .arg("key")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    // It may not want any.
    let _ = child.stdin.take().expect("it is piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_key_that_the_command_makes_works() {
    let (server, _) = server();
    let (status, made, said) = key(&[], "");
    let made = made.trim();
    assert_eq!(status, Some(0));
    let hash = said.split('"').nth(1).expect("it says the hash").to_owned();
    assert_eq!(key(&["--hash"], &format!("{made}\n")).1.trim(), hash);
    assert_eq!(key(&["--hash"], "\n").0, Some(1));
    let json: Value = serde_json::from_str(&key(&["--json"], "").1).unwrap();
    assert_eq!(json["sha256"], Digest::of(json["key"].as_str().unwrap().as_bytes()).to_string());

    let tenants = "[tenants.acme]\nkeys = [{ file = \"plain.key\" }, { file = \"hashed.key\" }]\n";
    let dir = tempfile::tempdir().unwrap();
    harness::put(dir.path(), "plain.key", "tw-plain-canary\n");
    harness::put(dir.path(), "hashed.key", &format!("sha256:{hash}\n"));
    let tradewind = Tradewind::start_in(dir.path(), &config(&server, tenants));
    for key in [made, "tw-plain-canary"] {
        assert_eq!(chat(&tradewind, key).status, 200);
    }
    // A key is in nothing that Tradewind says.
    let mut said = tradewind.log();
    for page in ["/metrics", "/v1/config", "/v1/status", "/v1/routes/chat/explain", "/v1/decisions", "/"] {
        said += &tradewind.get(page).unwrap().text();
    }
    assert!(!said.contains("canary") && !said.contains(made), "{said}");
    // A file that changed is read again without a change of the configuration.
    tradewind.put("plain.key", "tw-next-canary\n");
    eventually("the new key works", || chat(&tradewind, "tw-next-canary").status == 200);
    assert_eq!(chat(&tradewind, "tw-plain-canary").status, 401);
}
