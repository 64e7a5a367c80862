//! The dashboard: what it shows, what its forms do, who may use it, and that it is harmless.

mod harness;

use std::{path::Path, time::Duration};

use harness::{
    Answer, Backend, Client, Config, Tradewind, browser::Browser, client::Exchange, eventually, until,
};
use serde_json::{Value, json};

/// Largest page that is served, in bytes.
const PAGE_BYTES_MAX: usize = 100_000;

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

/// The first one is the cheaper one.
fn two() -> (Backend, Backend, Tradewind) {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let tradewind = Tradewind::start(&Config::new(&[(&a, 1.0), (&b, 2.0)]).slo("800ms"));
    (a, b, tradewind)
}

fn page(tradewind: &Tradewind, path: &str) -> String {
    let answer = tradewind.get(path).unwrap();
    assert_eq!(answer.status, 200, "GET {path}: {}", answer.text());
    assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
    answer.text()
}

/// Sends a form as a page of `origin` would.
fn send(tradewind: &Tradewind, path: &str, origin: &str, more: &[(&str, &str)], form: &str) -> Answer {
    let mut headers = vec![FORM, ("origin", origin)];
    headers.extend(more);
    Client::new(tradewind.admin).request("POST", path, &headers, form.as_bytes()).unwrap()
}

fn own_origin(tradewind: &Tradewind) -> String {
    format!("http://{}", tradewind.admin)
}

fn overrides(tradewind: &Tradewind) -> Vec<Value> {
    tradewind.json("/v1/overrides")["overrides"].as_array().unwrap().clone()
}

#[test]
fn the_page_shows_where_traffic_goes_what_it_costs_and_why() {
    let (_a, _b, tradewind) = two();
    let answer = tradewind.get("/").unwrap();
    let html = answer.text();
    assert!(answer.body.len() < PAGE_BYTES_MAX, "{} bytes", answer.body.len());
    for part in [
        "<html lang=\"en\">",
        "Traffic now: a 100%",
        "<strong>Why</strong>",
        "<strong>What would change it</strong>",
        "first byte within 800 ms for 95%",
        "$0.0278",
        "$0.0556",
        "file:",
        "fresh",
        "probe",
        "None holds: policies decide.",
        "Saved today (UTC)",
        "name=\"reason\" required",
    ] {
        assert!(html.contains(part), "{part} is not in\n{html}");
    }
    let policy = answer.header("content-security-policy").unwrap();
    let nonce = policy.split("script-src 'nonce-").nth(1).unwrap().split('\'').next().unwrap();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(html.matches("<script").count(), 1);
    assert!(html.contains(&format!("<script nonce=\"{nonce}\">")));
    for inline in [" onclick", " onload", " onsubmit", " style=", "javascript:", "http://", "https://"] {
        assert!(!html.contains(inline), "{inline} is in the page");
    }
    let again = tradewind.get("/").unwrap();
    assert!(!again.header("content-security-policy").unwrap().contains(nonce), "a nonce is used once");
}

#[test]
fn what_is_not_known_is_never_zero() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let config = Config::new(&[(&a, 1.0)]).backend("b", &b.url(), "");
    let tradewind = Tradewind::start(&config);
    let html = page(&tradewind, "/");
    let row = html.split("</svg>&nbsp;b</td>").nth(1).expect("b has a row").split("</tr>").next().unwrap();
    assert!(row.contains("n/a") && !row.contains("$0"), "{row}");
    assert!(html.contains("<span class=\"bad\">missing</span>"), "{html}");
}

#[test]
fn a_form_sets_an_override_and_another_ends_it() {
    let (_a, _b, tradewind) = two();
    let origin = own_origin(&tradewind);
    let form = "kind=drain&route=&backend=a&share=&ttl=30m&reason=a+test+%26+more";
    let given = send(&tradewind, "/overrides", &origin, &[], form);
    assert_eq!((given.status, given.header("location")), (303, Some("/#overrides")), "{}", given.text());
    tradewind.wait_for_share("a", 0.0);
    let id = overrides(&tradewind)[0]["id"].as_str().unwrap().to_owned();
    let html = page(&tradewind, "/");
    assert!(html.contains("a test &amp; more") && html.contains("drain a"), "{html}");
    assert!(html.contains(&format!("action=\"/overrides/{id}/end\"")));
    assert!(html.contains("Traffic now: b 100%"));

    let ended = send(&tradewind, &format!("/overrides/{id}/end"), &origin, &[], "");
    assert_eq!(ended.status, 303, "{}", ended.text());
    tradewind.wait_for_share("a", 1.0);
    assert!(overrides(&tradewind).is_empty());

    let refused = send(&tradewind, "/overrides", &origin, &[], "kind=cap&backend=a&ttl=30m&reason=quota");
    assert_eq!(refused.status, 422);
    let html = refused.text();
    assert!(html.contains("Nothing was changed: `cap` needs a `share`"), "{html}");
    assert!(html.contains("value=\"quota\""), "what was written is still there");
}

#[test]
fn a_dry_run_says_what_would_follow_and_changes_nothing() {
    let (_a, _b, tradewind) = two();
    let load = harness::Load::start(tradewind.http, &["GET"], Duration::from_millis(5));
    eventually("there is demand", || {
        tradewind.json("/v1/status")["routes"][0]["demand_rps"].as_f64() > Some(20.0)
    });
    let order = json!({ "kind": "drain", "backend": "a", "ttl": "10m", "reason": "what if" });
    let (status, preview) = tradewind.call("POST", "/v1/overrides?dry_run=true", Some(order.clone()));
    assert_eq!((status, &preview["dry_run"], &preview["ttl_seconds"]), (200, &json!(true), &json!(600.0)));
    let route = &preview["routes"][0];
    assert_eq!((&route["route"], &route["reason_code"]), (&json!("chat"), &json!("override")));
    let shares = |name: &str| -> Vec<f64> {
        route["backends"].as_array().unwrap().iter().map(|backend| backend[name].as_f64().unwrap()).collect()
    };
    assert_eq!((shares("share"), shares("target_share")), (vec![1.0, 0.0], vec![0.0, 1.0]));
    let (now, then) =
        (route["now_usd_per_hour"].as_f64().unwrap(), route["then_usd_per_hour"].as_f64().unwrap());
    assert!(now > 0.0 && (then / now - 2.0).abs() < 1e-6, "b costs twice as much: {now}, {then}");
    load.finish();

    let query = "/?kind=drain&route=&backend=a&share=&ttl=10m&reason=what+if&preview=1";
    let html = page(&tradewind, query);
    assert!(html.contains("a 100% \u{2192} 0%, at once") && html.contains("an hour now"), "{html}");
    assert!(!html.contains("http-equiv=\"refresh\""), "what is being written is not reloaded away");
    assert!(overrides(&tradewind).is_empty());
    assert_eq!(tradewind.share("a"), 1.0);
    assert_eq!(tradewind.json("/v1/decisions?kind=override")["decisions"], json!([]));
    let wrong = tradewind.call("POST", "/v1/overrides?dry_run=maybe", Some(order));
    assert_eq!((wrong.0, &wrong.1["code"]), (400, &json!("bad_query")));
    let unknown = json!({ "kind": "drain", "backend": "c", "ttl": "10m", "reason": "x" });
    assert_eq!(tradewind.call("POST", "/v1/overrides?dry_run=true", Some(unknown)).0, 422);
}

#[test]
fn what_others_write_stays_text() {
    let (_a, _b, tradewind) = two();
    let evil = "</td><script>alert(1)</script><img src=x onerror='alert(1)'>\"";
    tradewind.impose(json!({ "kind": "drain", "backend": "a", "ttl": "10m", "reason": evil }));
    tradewind.wait_for_share("a", 0.0);
    let query = "/?kind=drain&backend=a&ttl=%22%3E%3Cscript%3E&reason=%22%3E%3Cscript%3Ealert(2)%3C/script%3E&preview=1";
    for path in ["/", "/fragment", query, "/?only=%3Cscript%3E"] {
        let html = page(&tradewind, path);
        let scripts = usize::from(path != "/fragment");
        assert_eq!(html.matches("<script").count(), scripts, "{path}: {html}");
        assert!(!html.contains("<img"), "{path}");
    }
    assert!(page(&tradewind, "/").contains("&lt;script&gt;alert(1)"));
}

#[test]
fn a_reason_is_one_line_of_the_log() {
    let (_a, _b, tradewind) = two();
    for (evil, found) in [
        ("quota\n2026-01-01T00:00:00Z ERROR forged", "U+000A"),
        ("quota\u{1b}[2J", "U+001B"),
        ("quota\u{9b}2J", "U+009B"),
    ] {
        let order = json!({ "kind": "drain", "backend": "a", "ttl": "10m", "reason": evil });
        for path in ["/v1/overrides", "/v1/overrides?dry_run=true"] {
            let (status, problem) = tradewind.call("POST", path, Some(order.clone()));
            assert_eq!((status, &problem["code"]), (422, &json!("invalid_override")), "{problem}");
            assert!(problem["detail"].as_str().unwrap().contains(found), "{problem}");
        }
    }
    assert!(overrides(&tradewind).is_empty());
    assert!(!tradewind.log().contains("quota"), "{}", tradewind.log());
    tradewind
        .impose(json!({ "kind": "drain", "backend": "a", "ttl": "10m", "reason": "Zürich \u{2192} Köln" }));
    assert!(tradewind.log().contains("Zürich \u{2192} Köln"), "{}", tradewind.log());
}

#[test]
fn pages_of_others_change_nothing() {
    let (_a, _b, tradewind) = two();
    let form = "kind=drain&backend=a&ttl=30m&reason=x";
    for origin in ["http://evil.example", "null", "http://localhost:1"] {
        let refused = send(&tradewind, "/overrides", origin, &[], form);
        assert_eq!((refused.status, &refused.json()["code"]), (403, &json!("foreign_origin")), "{origin}");
    }
    let mut client = Client::new(tradewind.admin);
    for path in ["/", "/fragment", "/v1/status", "/v1/events"] {
        let refused = client.request("GET", path, &[("host", "evil.example")], b"").unwrap();
        assert_eq!((refused.status, &refused.json()["code"]), (403, &json!("foreign_host")), "{path}");
    }
    assert!(overrides(&tradewind).is_empty());
}

#[test]
fn a_browser_signs_in_with_a_token_and_may_do_what_the_token_may() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let tokens = "tokens = [{ name = \"eve\", role = \"viewer\", value = { file = \"eve\" } }, \
                  { name = \"oncall\", role = \"operator\", value = { file = \"oncall\" } }]";
    let dir = tempfile::tempdir().unwrap();
    harness::put(dir.path(), "eve", "viewer-secret");
    harness::put(dir.path(), "oncall", "operator-secret");
    let tradewind = Tradewind::start_in(dir.path(), &Config::new(&[(&a, 1.0), (&b, 2.0)]).admin(tokens));
    let origin = own_origin(&tradewind);
    let get = |path: &str, cookie: &str| {
        Client::new(tradewind.admin).request("GET", path, &[("cookie", cookie)], b"").unwrap()
    };
    let anonymous = get("/", "");
    assert_eq!(anonymous.status, 401);
    assert!(anonymous.text().contains("type=\"password\"") && !anonymous.text().contains("Traffic now"));
    assert_eq!(get("/fragment", "").status, 401);
    assert_eq!(get("/", "tradewind_session=").status, 401);
    let wrong = send(&tradewind, "/session", &origin, &[], "token=guess");
    assert_eq!((wrong.status, wrong.header("set-cookie")), (401, None));
    assert!(wrong.text().contains("none of those"));
    assert_eq!(send(&tradewind, "/session", "http://evil.example", &[], "token=viewer-secret").status, 403);

    let sign_in = |token: &str| {
        let answer = send(&tradewind, "/session", &origin, &[], &format!("token={token}"));
        assert_eq!(answer.status, 303, "{}", answer.text());
        let cookie = answer.header("set-cookie").unwrap();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        assert!(!cookie.contains(token));
        cookie.split(';').next().unwrap().to_owned()
    };
    let (eve, oncall) = (sign_in("viewer-secret"), sign_in("operator-secret"));
    let seen = get("/", &eve).text();
    assert!(
        seen.contains("Traffic now: a 100%") && seen.contains("as eve") && !seen.contains("New override")
    );
    assert!(get("/", &oncall).text().contains("New override"));
    let form = "kind=drain&backend=a&ttl=30m&reason=x";
    assert_eq!(send(&tradewind, "/overrides", &origin, &[("cookie", &eve)], form).status, 403);
    // A browser says where a form comes from; what does not say is no form of ours.
    let silent = Client::new(tradewind.admin)
        .request("POST", "/overrides", &[FORM, ("cookie", &oncall)], form.as_bytes())
        .unwrap();
    assert_eq!((silent.status, &silent.json()["code"]), (403, &json!("foreign_origin")));
    assert_eq!(send(&tradewind, "/overrides", &origin, &[("cookie", &oncall)], form).status, 303);
    let page = get("/", &eve).text();
    assert!(page.contains("<td>oncall</td>") && !page.contains("aria-label=\"End"), "{page}");

    let out = send(&tradewind, "/session/end", &origin, &[("cookie", &oncall)], "");
    assert_eq!(out.status, 303);
    assert_eq!(get("/", &oncall).status, 401);
    assert_eq!(get("/", &eve).status, 200);
}

#[test]
fn events_tell_of_news_and_end_with_the_program() {
    let (_a, _b, mut tradewind) = two();
    let mut stream = Exchange::begin(tradewind.admin, "GET", "/v1/events", &[], b"").unwrap();
    assert_eq!((stream.status, stream.header("content-type")), (200, Some("text/event-stream")));
    let mut revision = || {
        let text = String::from_utf8(stream.piece().unwrap().expect("the stream goes on")).unwrap();
        let data = text.split("data: ").nth(1).unwrap_or_else(|| panic!("no event: {text}")).trim();
        serde_json::from_str::<Value>(data).unwrap()["revision"].as_u64().unwrap()
    };
    let first = revision();
    tradewind.impose(json!({ "kind": "drain", "backend": "a", "ttl": "10m", "reason": "news" }));
    assert!(revision() > first);
    let before = std::time::Instant::now();
    tradewind.signal("TERM");
    assert_eq!(stream.rest().map(|_| ()).ok(), Some(()), "it ends as complete");
    until("it ends", || tradewind.ended());
    assert!(before.elapsed() < Duration::from_secs(5), "an open page does not hold it up");
}

#[test]
fn a_move_of_the_past_is_explained_also_after_a_restart() {
    let (_a, _b, mut tradewind) = two();
    tradewind.impose(json!({ "kind": "drain", "backend": "a", "ttl": "10m", "reason": "quota <low>" }));
    tradewind.wait_for_share("a", 0.0);
    let link = |html: &str| {
        let moves = html.split("id=\"moves\"").nth(1).unwrap();
        moves.split("href=\"").nth(1).unwrap().split('"').next().unwrap().replace("&amp;", "&")
    };
    let before = link(&until("the move is listed", || {
        let html = page(&tradewind, "/");
        html.contains("evacuate").then_some(html)
    }));
    until("it is in the journal", || (tradewind.get(&before).unwrap().status == 200).then_some(()));
    tradewind.kill();
    tradewind.start_again();
    let html = page(&tradewind, "/");
    assert!(html.contains(&before.replace('&', "&amp;")), "{before} is not in {html}");
    let explained = page(&tradewind, &before);
    for part in
        ["evacuate at", "quota &lt;low&gt;", "an operator drains it", "USD/1,000", "Override in force"]
    {
        assert!(explained.contains(part), "{part} is not in {explained}");
    }
    let none = tradewind.get("/decisions?route=chat&at=2020-01-01T00:00:00Z").unwrap();
    assert_eq!((none.status, &none.json()["code"]), (404, &json!("unknown_decision")));
}

/// Whether anything is wider than the window, and whether two texts of the same row lie over each other.
const OVERLAPS: &str = "
const wide = document.documentElement.scrollWidth > document.documentElement.clientWidth
    ? ['the page is wider than the window'] : [];
const boxes = [...document.querySelectorAll('h1,h2,h3,p,dt,dd,td,th,label,input,select,button,figcaption')]
    .filter(e => e.offsetParent && e.innerText !== '' && !e.closest('.scroll') && !e.querySelector('button,input'));
const over = [];
for (const a of boxes) for (const b of boxes) {
    if (a === b || a.contains(b) || b.contains(a)) continue;
    const [x, y] = [a.getBoundingClientRect(), b.getBoundingClientRect()];
    if (Math.min(x.right, y.right) - Math.max(x.left, y.left) > 1 && Math.min(x.bottom, y.bottom) - Math.max(x.top, y.top) > 1)
        over.push(a.tagName + ' ' + a.innerText + ' over ' + b.tagName + ' ' + b.innerText);
}
return wide.concat(over);";

#[test]
fn a_drain_from_the_browser_moves_the_traffic_and_expires() {
    let (a, b) = (Backend::named("eks-use1"), Backend::named("gke-usc1"));
    let tradewind = Tradewind::start(&Config::new(&[(&a, 1.0), (&b, 2.0)]).slo("800ms"));
    let load = harness::Load::start(tradewind.http, &["GET"], Duration::from_millis(10));
    let browser = Browser::start();
    browser.open(&own_origin(&tradewind));
    eventually("the page is live", || browser.text().contains("as local \u{b7} live"));
    let bar = || {
        let label = browser.run("return document.querySelector('svg.bar').getAttribute('aria-label')");
        label.as_str().unwrap().to_owned()
    };
    assert_eq!(bar(), "Traffic now: eks-use1 100%");
    browser.click("#terms-chat summary");

    // The keyboard alone: Enter in a field asks for the preview, which changes nothing.
    browser.keys("#kind", "drain");
    browser.keys("#backend", "eks-use1");
    browser.clear("#ttl");
    browser.keys("#ttl", "10s");
    browser.keys("#reason", "an incident\u{e007}");
    eventually("the effect is shown", || browser.text().contains("gke-usc1 0% \u{2192} 100%, at once"));
    assert!(browser.text().contains("an hour more"), "{}", browser.text());
    assert_eq!(tradewind.share("eks-use1"), 1.0);

    browser.click("#give");
    eventually("the drain is listed", || browser.text().contains("drain eks-use1"));
    eventually("the share has moved", || bar() == "Traffic now: gke-usc1 100%");
    eventually("there are pictures", || {
        browser.run("return document.querySelectorAll('svg.chart').length") == 4
    });
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR")).join("dashboard");
    for (name, scheme, width) in [("light", "light", 1100), ("dark", "dark", 1100), ("phone", "light", 360)] {
        browser.emulate(scheme, width);
        assert_eq!(browser.run(OVERLAPS), json!([]), "{name}");
        browser.picture(&pictures.join(format!("{name}.png")));
    }
    browser.emulate("light", 1100);
    // What is open stays open, although the page is live.
    browser.click("#terms-chat summary");
    eventually("it has expired, without the page being reloaded", || bar() == "Traffic now: eks-use1 100%");
    assert!(browser.text().contains("None holds: policies decide."));
    assert_eq!(browser.run("return document.getElementById('terms-chat').open"), true);
    browser.click("#moves ~ .scroll a");
    eventually("a move is explained", || browser.text().contains("What would have changed it"));
    assert_eq!(browser.complaints(), [""; 0]);
    assert!(harness::load::failures(&load.finish()).is_empty());
}
