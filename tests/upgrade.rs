//! A new process takes over from an old one: nothing under way is lost, no connection is refused.

mod harness;

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use harness::{
    Backend, Client, Config, Tradewind,
    client::{Exchange, connect},
    eventually, pause, until,
};
use serde_json::json;

/// A client that asks on a new connection each time, or always on the same until it is told that it ends; it fails at the first
/// request that is not answered.
fn hammer(
    to: std::net::SocketAddr,
    keep: bool,
    stop: &Arc<AtomicBool>,
    answered: &Arc<AtomicU64>,
) -> thread::JoinHandle<()> {
    let (stop, answered) = (stop.clone(), answered.clone());
    thread::spawn(move || {
        let mut client = Client::new(to);
        while !stop.load(SeqCst) {
            if !keep {
                client = Client::new(to);
            }
            let answer = client.get("/").expect("every request is answered");
            assert_eq!((answer.status, &*answer.text()), (200, "a"));
            answered.fetch_add(1, SeqCst);
            pause(Duration::from_millis(1));
        }
    })
}

#[test]
fn upgrades_lose_nothing_and_keep_the_state() {
    let (backend, push) = Backend::pausing("a");
    let mut tradewind = Tradewind::start(&Config::new(&[(&backend, 1.0)]));
    let (to, admin) = (tradewind.http, tradewind.admin);
    let order = tradewind.impose(json!({ "kind": "freeze", "route": "chat", "ttl": "1h", "reason": "test" }));
    let mut stream = Exchange::begin(to, "GET", "/stream", &[], b"").unwrap();
    assert_eq!(stream.piece().unwrap().unwrap(), b"data: 1\n\n");
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..4).map(|n| hammer(to, n % 2 == 0, &stop, &answered)).collect();
    for _ in 0..3 {
        let before = answered.load(SeqCst);
        eventually("requests are served", || answered.load(SeqCst) > before + 50);
        let old = tradewind.upgrade();
        assert_eq!((tradewind.http, tradewind.admin), (to, admin), "the addresses stay");
        drop(old);
    }
    stop.store(true, SeqCst);
    for client in clients {
        client.join().expect("it lost nothing");
    }
    let overrides = tradewind.json("/v1/overrides");
    assert!(overrides.to_string().contains(&order), "{overrides}");
    let listed = fs::read_to_string(tradewind.dir().join("state/journal/current.jsonl")).unwrap();
    assert_eq!(listed.matches("\"handed_over\":true").count(), 3, "{listed}");
    assert_eq!(listed.matches("\"started\"").count(), 4);
    drop(push);
}

#[test]
fn a_stream_goes_on_in_the_old_process_which_ends_after_it() {
    let (backend, push) = Backend::pausing("a");
    let mut tradewind = Tradewind::start(&Config::new(&[(&backend, 1.0)]));
    let mut stream = Exchange::begin(tradewind.http, "GET", "/stream", &[], b"").unwrap();
    assert_eq!(stream.piece().unwrap().unwrap(), b"data: 1\n\n");
    let mut old = tradewind.upgrade();
    assert_eq!(tradewind.fetch("/").text(), "a");
    assert!(old.try_wait().unwrap().is_none(), "it has a stream");
    push.send(()).unwrap();
    assert_eq!(stream.rest().unwrap(), b"data: 2\n\n");
    let status = until("the old one ends", || old.try_wait().unwrap());
    assert!(status.success());
    // The new one has its own end.
    tradewind.signal("TERM");
    until("the new one ends", || tradewind.ended());
    assert!(connect(tradewind.http).is_err(), "nobody listens any more");
}

#[test]
fn a_second_successor_takes_over_from_the_first_while_a_stream_goes_on_in_the_oldest() {
    let (backend, push) = Backend::pausing("a");
    let config = Config::new(&[(&backend, 1.0)]).replace("\"300ms\"", "\"10s\"");
    let mut tradewind = Tradewind::start(&config);
    let to = tradewind.http;
    let mut stream = Exchange::begin(to, "GET", "/stream", &[], b"").unwrap();
    assert_eq!(stream.piece().unwrap().unwrap(), b"data: 1\n\n");
    // The first successor waits for a probe, so the second one asks while the oldest still hands over.
    backend.set_probe_delay(Duration::from_secs(2));
    let first = tradewind.begin_upgrade();
    eventually("the first one asks", || tradewind.log().contains("a successor asks for everything"));
    let second = tradewind.begin_upgrade();
    let asked = "the running process is asked for its sockets and its state";
    eventually("the second one asks", || second.log.text().contains(asked));
    backend.set_probe_delay(Duration::ZERO);
    let mut oldest = tradewind.finish_upgrade(first);
    let mut first = tradewind.finish_upgrade(second);
    assert_eq!((tradewind.http, tradewind.fetch("/").text()), (to, "a".into()));
    let status = until("the first successor ends", || first.try_wait().unwrap());
    assert!(status.success());
    assert!(oldest.try_wait().unwrap().is_none(), "it has a stream");
    // Nor does the stream keep those that follow.
    let mut second = tradewind.upgrade();
    let status = until("the second successor ends", || second.try_wait().unwrap());
    assert!(status.success());
    push.send(()).unwrap();
    assert_eq!(stream.rest().unwrap(), b"data: 2\n\n");
    let status = until("the oldest ends", || oldest.try_wait().unwrap());
    assert!(status.success());
    assert_eq!(tradewind.fetch("/").text(), "a");
}

#[test]
fn the_old_process_goes_on_when_the_new_one_cannot_start() {
    let backend = Backend::named("a");
    let config = Config::new(&[(&backend, 1.0)]);
    let mut tradewind = Tradewind::start(&config);
    // An address that is taken: known only after the sockets were handed over.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let text = config.text();
    tradewind.put("t.toml", &text.replacen("127.0.0.1:0", &taken, 1));
    let (code, said) = harness::run_to_the_end_with(tradewind.dir(), &["--upgrade"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot listen on"), "{said}");
    // A successor that takes the state and dies.
    tradewind.put("t.toml", &text);
    fs::rename(tradewind.dir().join("state/overrides.json"), tradewind.dir().join("aside")).ok();
    fs::create_dir(tradewind.dir().join("state/overrides.json")).unwrap();
    let (code, said) = harness::run_to_the_end_with(tradewind.dir(), &["--upgrade"]);
    assert_eq!(code, Some(1), "{said}");
    fs::remove_dir(tradewind.dir().join("state/overrides.json")).unwrap();
    assert_eq!(tradewind.fetch("/").text(), "a");
    eventually("its admin API is back", || tradewind.get("/readyz").is_ok_and(|answer| answer.status == 200));
    tradewind.impose(json!({ "kind": "freeze", "route": "chat", "ttl": "1h", "reason": "test" }));
    assert!(tradewind.log().contains("the successor did not serve; this process goes on"));
    // And it can still be upgraded.
    drop(tradewind.upgrade());
    assert_eq!(tradewind.fetch("/").text(), "a");
}

#[test]
fn without_a_predecessor_there_is_nothing_to_take_over() {
    let backend = Backend::named("a");
    let dir = tempfile::tempdir().unwrap();
    Config::new(&[(&backend, 1.0)]).write(dir.path());
    let (code, said) = harness::run_to_the_end_with(dir.path(), &["--upgrade"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("there is no process to take over from"), "{said}");
}
