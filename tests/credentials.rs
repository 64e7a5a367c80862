//! What backends are shown of who asks: what Tradewind is told to show, and nothing of the client.

mod harness;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, SystemTime},
};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use harness::{Backend, Config, Tradewind, backend::Call, eventually};
use serde_json::json;

/// What the client shows, which no backend here may see.
const OWN: [(&str, &str); 4] = [
    ("authorization", "Bearer client-canary"),
    ("x-api-key", "client-canary"),
    ("cookie", "session=client-canary"),
    ("proxy-authorization", "client-canary"),
];

/// A request as a backend saw it.
#[derive(Clone, Debug, Default)]
struct Seen {
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Seen {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| &**value)
    }
}

/// A backend that notes what it sees.
fn watching() -> (Backend, Arc<Mutex<Seen>>) {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let copy = seen.clone();
    let backend = Backend::serving("llm", move |call| {
        let body = call.body()?;
        *copy.lock().unwrap() = Seen { path: call.path.clone(), headers: call.headers.clone(), body };
        call.answer(200, &[], b"done")
    });
    (backend, seen)
}

fn config(backend: &Backend, auth: &str) -> Config {
    Config::new(&[]).backend("llm", &backend.url(), &format!("auth = {auth}"))
}

fn ask(tradewind: &Tradewind, path: &str, body: &[u8]) -> u16 {
    tradewind.client().request("POST", path, &OWN, body).expect("it is answered").status
}

/// Everything that Tradewind says of itself holds no secret.
fn assert_silent(tradewind: &Tradewind) {
    let mut said = tradewind.log();
    for page in [
        "/metrics",
        "/v1/config",
        "/v1/status",
        "/v1/routes/chat/explain",
        "/v1/decisions?kind=config",
        "/v1/decisions",
        "/",
    ] {
        said += &tradewind.get(page).unwrap().text();
    }
    assert!(!said.contains("canary"), "{said}");
}

#[test]
fn a_bearer_takes_the_place_of_the_clients_own_and_changes_with_its_file() {
    let (backend, seen) = watching();
    let dir = tempfile::tempdir().unwrap();
    harness::put(dir.path(), "llm.key", "first-canary\n");
    let tradewind = Tradewind::start_in(dir.path(), &config(&backend, "{ bearer = { file = \"llm.key\" } }"));
    assert_eq!(ask(&tradewind, "/v1/x", b"{}"), 200);
    let first = seen.lock().unwrap().clone();
    assert_eq!(first.header("authorization"), Some("Bearer first-canary"));
    assert!(!format!("{first:?}").contains("client-canary"), "{first:?}");

    tradewind.put("llm.key", "second-canary");
    eventually("the new one is shown", || {
        assert_eq!(ask(&tradewind, "/v1/x", b"{}"), 200);
        seen.lock().unwrap().header("authorization") == Some("Bearer second-canary")
    });
    // A file that is no secret changes nothing.
    tradewind.put("llm.key", "not a canary");
    eventually("it is said", || tradewind.log().contains("the secret holds a space"));
    assert_eq!(ask(&tradewind, "/v1/x", b"{}"), 200);
    assert_eq!(seen.lock().unwrap().header("authorization"), Some("Bearer second-canary"));
    assert_silent(&tradewind);
}

#[test]
fn probes_show_it_too() {
    let backend = Backend::serving("llm", |call| match call.header("authorization") {
        Some("Bearer probe-canary") => call.answer(200, &[], b"done"),
        _ => call.answer(401, &[], b""),
    });
    let dir = tempfile::tempdir().unwrap();
    harness::put(dir.path(), "llm.key", "probe-canary");
    let keys = format!(
        "url = \"{}\"\ncloud = \"other\"\nregion = \"llm\"\nprobe = {{ path = \"/ready\", interval = \"300ms\" }}\n\
         auth = {{ bearer = {{ file = \"llm.key\" }} }}",
        backend.url()
    );
    let tradewind = Tradewind::start_in(dir.path(), &Config::new(&[]).table("llm", &keys));
    eventually("it is healthy", || tradewind.backend("llm")["health"] == "healthy");
    assert_silent(&tradewind);
}

/// What a request with this head and body is signed with.
fn signature(seen: &Seen, backend: &Backend) -> String {
    let date = seen.header("x-amz-date").expect("it is dated");
    let at = |from: usize, to: usize| &date[from..to];
    let text = format!("{}-{}-{}T{}:{}:{}Z", at(0, 4), at(4, 6), at(6, 8), at(9, 11), at(11, 13), at(13, 15));
    let time: jiff::Timestamp = text.parse().expect("it is a date");
    assert!((jiff::Timestamp::now().as_second() - time.as_second()).abs() < 60, "{text}");
    let identity = Credentials::new("AKIDEXAMPLE", "secret-canary", None, None, "test").into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region("us-east-2")
        .name("sagemaker")
        .time(SystemTime::UNIX_EPOCH + Duration::from_secs(time.as_second().unsigned_abs()))
        .settings(SigningSettings::default())
        .build()
        .unwrap()
        .into();
    let host = backend.address().to_string();
    assert_eq!(seen.header("host"), Some(&*host));
    let headers = ["host", "content-type"].into_iter().filter_map(|name| Some((name, seen.header(name)?)));
    let uri = format!("http://{host}{}", seen.path);
    let request = SignableRequest::new("POST", uri, headers, SignableBody::Bytes(&seen.body)).unwrap();
    let (signed, _) = sign(request, &params).unwrap().into_parts();
    let found =
        signed.headers().find(|(name, _)| *name == "authorization").map(|(_, value)| value.to_owned());
    found.expect("it is signed")
}

#[test]
fn requests_to_aws_are_signed_with_their_bodies() {
    let (backend, seen) = watching();
    let dir = tempfile::tempdir().unwrap();
    let keys = "[default]\naws_access_key_id = AKIDEXAMPLE\naws_secret_access_key = secret-canary\n";
    harness::put(dir.path(), "aws-credentials", keys);
    let auth = "{ aws_sigv4 = { service = \"sagemaker\", region = \"us-east-2\" } }";
    let routes = "[routes.chat]\nmatch = { path = \"/*\" }\nbackends = [\"llm\"]\nmodels = { a = \"b\" }";
    let config = config(&backend, auth).listen("body_peek_max = \"64KiB\"").routes(routes);
    let tradewind = Tradewind::start_in(dir.path(), &config);
    eventually("it has credentials", || tradewind.backend("llm")["health"] == "healthy");
    let with = |path: &str, kind: &'static str, body: &[u8]| {
        let headers: Vec<_> = OWN.into_iter().chain([("content-type", kind)]).collect();
        tradewind.client().request("POST", path, &headers, body).expect("it is answered").status
    };
    for (path, kind, body, sent) in [
        ("/endpoints/llm/invocations", "text/plain", &b"a prompt"[..], &b"a prompt"[..]),
        (
            "/endpoints/llm/invocations?x=a%20b&c=%2F",
            "application/json",
            b"{\"model\":\"a\"}",
            b"{\"model\":\"b\"}",
        ),
        ("/endpoints/a%2Fb/invocations", "application/json", b"", b""),
        ("/x", "application/json", &[b' '; 60_000], &[b' '; 60_000]),
    ] {
        assert_eq!(with(path, kind, body), 200, "{path}");
        let seen = seen.lock().unwrap().clone();
        assert_eq!((&*seen.path, &*seen.body), (path, sent));
        assert_eq!(seen.header("authorization"), Some(&*signature(&seen, &backend)), "{path}");
        assert!(!format!("{:?}", seen.headers).contains("canary"), "{:?}", seen.headers);
    }
    assert_eq!(with("/x", "text/plain", &[b' '; 70_000]), 413, "it cannot be held");
    assert_eq!(tradewind.client().request("GET", "/x", &OWN, b"").unwrap().status, 200);
    assert_silent(&tradewind);
}

/// URL-safe base 64 of JSON, as in a JWT.
fn part(value: &serde_json::Value) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let text = value.to_string();
    let of = |group: &[u8]| {
        let bits =
            group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        let digit = move |place: usize| char::from(DIGITS[(bits >> (18 - 6 * place)) as usize & 63]);
        (0..=group.len()).map(digit).collect::<String>()
    };
    text.as_bytes().chunks(3).map(of).collect()
}

/// A metadata server of Google, which may refuse.
fn metadata(works: Arc<AtomicBool>) -> Backend {
    Backend::serving("metadata", move |call: &mut Call| {
        if !works.load(SeqCst) || call.header("metadata-flavor") != Some("Google") {
            return call.answer(404, &[], b"not now");
        }
        let path = call.path.clone();
        let flavor = ("metadata-flavor", "Google");
        if path.contains("/identity?") {
            let hour = jiff::Timestamp::now().as_second() + 3600;
            let audience =
                path.split("audience=").nth(1).unwrap_or_default().split('&').next().unwrap_or_default();
            let claims = json!({ "aud": audience, "exp": hour, "iat": hour - 3600 });
            let jwt = format!("{}.{}.canary", part(&json!({ "alg": "RS256", "typ": "JWT" })), part(&claims));
            call.answer(200, &[flavor], jwt.as_bytes())
        } else if path.contains("/token") {
            let token =
                json!({ "access_token": "access-canary", "expires_in": 3600, "token_type": "Bearer" });
            call.answer(200, &[flavor, ("content-type", "application/json")], token.to_string().as_bytes())
        } else {
            call.answer(404, &[flavor], b"")
        }
    })
}

#[test]
fn tokens_of_google_are_found_and_without_them_a_backend_gets_no_requests() {
    let works = Arc::new(AtomicBool::new(false));
    let server = metadata(works.clone());
    let (backend, seen) = watching();
    let config = config(&backend, "{ google_access_token = {} }").backend(
        "run",
        &backend.url(),
        "auth = { google_id_token = { audience = \"run-audience\" } }",
    );
    let routes = "[routes.chat]\nmatch = { path = \"/chat\" }\nbackends = [\"llm\"]\n\
                  [routes.run]\nmatch = { path = \"/run\" }\nbackends = [\"run\"]";
    let dir = tempfile::tempdir().unwrap();
    let host = server.address().to_string();
    let tradewind =
        Tradewind::start_with(dir.path(), &config.routes(routes), &[("GCE_METADATA_HOST", &host)]);
    eventually("it says why", || tradewind.log().contains("no credentials: Google gave no token"));
    assert_eq!(tradewind.backend("llm")["health"], "unhealthy");
    assert_eq!((ask(&tradewind, "/chat", b""), backend.requests()), (503, 0));
    let status = tradewind.json("/v1/status")["warnings"].to_string();
    assert!(status.contains("llm gets no requests, since it cannot be shown credentials"), "{status}");

    works.store(true, SeqCst);
    eventually("the first token is there", || ask(&tradewind, "/chat", b"") == 200);
    assert_eq!(seen.lock().unwrap().header("authorization"), Some("Bearer access-canary"));
    eventually("the other one, too", || ask(&tradewind, "/run", b"") == 200);
    let run = seen.lock().unwrap().clone();
    let jwt = run.header("authorization").expect("it is there").to_owned();
    assert!(
        jwt.starts_with("Bearer ey") && jwt.contains(&part(&json!({ "aud": "run-audience" }))[..20]),
        "{jwt}"
    );
    assert!(!format!("{run:?}").contains("client-canary"));
    // What was found stays while nothing more is.
    works.store(false, SeqCst);
    assert_eq!(ask(&tradewind, "/chat", b""), 200);
    assert_silent(&tradewind);
}
