//! How many requests a backend gets at once, who waits, and who is refused.

mod harness;

use std::{
    io::Write as _,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use harness::{Answer, Backend, Client, Config, Tradewind, client::connect, eventually, http2};
use tokio::sync::oneshot;

/// A backend that answers when it is told to, and knows the most that were there at once.
struct Slow {
    backend: Backend,
    open: Arc<(Mutex<bool>, Condvar)>,
    most: Arc<AtomicU64>,
}

impl Slow {
    fn named(name: &str) -> Slow {
        let open = Arc::new((Mutex::new(false), Condvar::new()));
        let (most, now) = (Arc::new(AtomicU64::new(0)), AtomicU64::new(0));
        let (gate, top, text) = (open.clone(), most.clone(), name.to_owned());
        let backend = Backend::serving(name, move |call| {
            top.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            let shut = gate.0.lock().unwrap();
            drop(gate.1.wait_while(shut, |open| !*open).unwrap());
            now.fetch_sub(1, SeqCst);
            call.answer(200, &[], text.as_bytes())
        });
        Slow { backend, open, most }
    }

    fn open(&self) {
        *self.open.0.lock().unwrap() = true;
        self.open.1.notify_all();
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.open();
    }
}

fn config(limited: &Slow, limit: &str) -> Config {
    Config::new(&[(&limited.backend, 1.0)]).replace("probe = ", &format!("limit = {{ {limit} }}\nprobe = "))
}

/// Asks on a thread of its own.
fn ask(tradewind: &Tradewind, priority: &'static str) -> JoinHandle<Answer> {
    let to = tradewind.http;
    thread::spawn(move || {
        Client::new(to).request("POST", "/v1/x", &[("x-priority", priority)], b"{}").unwrap()
    })
}

fn waiting(tradewind: &Tradewind) -> f64 {
    tradewind.metric("tradewind_requests_waiting{backend=\"a\"}").expect("a has a limit")
}

fn assert_refused(answer: &Answer) {
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (503, &"overloaded".into()));
    assert!(answer.header("retry-after").is_some());
}

#[test]
fn what_is_too_much_for_one_goes_to_another() {
    let (a, b) = (Slow::named("a"), Backend::named("b"));
    let config = config(&a, "max_in_flight = 2").backend("b", &b.url(), "");
    let prices =
        format!("{}2026-01-01T00:00:00Z,other,b,,node,on_demand,2\n", harness::config::prices(&[("a", 1.0)]));
    let tradewind = Tradewind::start(&config.price_file(&prices));
    let held: Vec<_> = (0..2).map(|_| ask(&tradewind, "normal")).collect();
    eventually("both are there", || a.backend.requests() == 2);
    for _ in 0..10 {
        assert_eq!(tradewind.fetch("/").text(), "b");
    }
    a.open();
    held.into_iter().for_each(|held| assert_eq!(held.join().unwrap().text(), "a"));
    eventually("there is a place again", || tradewind.fetch("/").text() == "a");
}

#[test]
fn requests_wait_for_a_place_and_the_least_important_are_refused_first() {
    let a = Slow::named("a");
    let limit = "max_in_flight = 1, max_waiting = 4, wait_timeout = \"20s\"";
    let tradewind = Tradewind::start(&config(&a, limit));
    let mut held = vec![ask(&tradewind, "normal")];
    eventually("it is there", || a.backend.requests() == 1);
    for (priority, waits) in [
        ("low", true),
        ("low", false),
        ("normal", true),
        ("unknown", true),
        ("", false),
        ("high", true),
        ("high", false),
    ] {
        let before = waiting(&tradewind);
        let asked = ask(&tradewind, priority);
        if waits {
            eventually("it waits", || waiting(&tradewind) == before + 1.0);
            held.push(asked);
        } else {
            assert_refused(&asked.join().unwrap());
        }
    }
    let shed = |priority| {
        tradewind.metric(&format!("tradewind_requests_shed_total{{backend=\"a\",priority=\"{priority}\"}}"))
    };
    assert_eq!([shed("low"), shed("normal"), shed("high")], [Some(1.0); 3]);
    a.open();
    held.into_iter().for_each(|held| assert_eq!(held.join().unwrap().text(), "a"));
    assert_eq!((a.most.load(SeqCst), waiting(&tradewind)), (1, 0.0));
}

#[test]
fn a_wait_is_bounded_and_the_route_has_a_priority() {
    let a = Slow::named("a");
    let routes = "[routes.chat]\nmatch = { path = \"/*\" }\nbackends = [\"a\"]\npriority = \"low\"\n";
    let limit = "max_in_flight = 1, max_waiting = 3, wait_timeout = \"200ms\"";
    let tradewind = Tradewind::start(&config(&a, limit).routes(routes));
    let held = ask(&tradewind, "high");
    eventually("it is there", || a.backend.requests() == 1);
    assert_refused(&tradewind.fetch("/"));
    let begun = Instant::now();
    assert_refused(&ask(&tradewind, "high").join().unwrap());
    assert!(begun.elapsed() >= Duration::from_millis(200));
    a.open();
    assert_eq!(held.join().unwrap().text(), "a");
}

#[test]
fn what_waits_is_served_while_the_process_drains() {
    let a = Slow::named("a");
    let limit = "max_in_flight = 1, max_waiting = 4, wait_timeout = \"20s\"";
    let mut tradewind = Tradewind::start(&config(&a, limit));
    let held: Vec<_> = (0..3).map(|_| ask(&tradewind, "high")).collect();
    eventually("two wait", || waiting(&tradewind) == 2.0);
    tradewind.signal("TERM");
    eventually("it drains", || tradewind.log().contains("drain"));
    a.open();
    held.into_iter().for_each(|held| assert_eq!(held.join().unwrap().text(), "a"));
    eventually("it has ended", || tradewind.ended().is_some());
}

/// One client after the other leaves while it waits; the queue is not theirs any more.
#[test]
fn who_has_left_takes_no_place_in_the_queue() {
    let a = Slow::named("a");
    let limit = "max_in_flight = 1, max_waiting = 4, wait_timeout = \"30s\"";
    let tradewind = Tradewind::start(&config(&a, limit));
    let held = ask(&tradewind, "high");
    eventually("it is there", || a.backend.requests() == 1);
    for body in ["", "{}"].repeat(3) {
        let (to, (leave, told)) = (tradewind.http, oneshot::channel());
        let (close, end) = oneshot::channel::<()>();
        let client = thread::spawn(move || {
            http2::run(async move {
                let mut connection = http2::connect(to).await;
                let request = http2::request("POST", to, "/v1/x", http2::whole(body));
                tokio::select! {
                    _ = connection.send_request(request) => panic!("there is no place for it"),
                    told = told => told.unwrap(),
                }
                // Its stream is reset; the connection stays.
                end.await.unwrap();
            });
        });
        eventually("it waits", || waiting(&tradewind) == 1.0);
        leave.send(()).unwrap();
        eventually("it waits no more", || waiting(&tradewind) == 0.0);
        close.send(()).unwrap();
        client.join().unwrap();
    }
    let mut gone = connect(tradewind.http).unwrap();
    gone.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx-priority: high\r\n\r\n").unwrap();
    eventually("it waits", || waiting(&tradewind) == 1.0);
    drop(gone);
    eventually("it waits no more", || waiting(&tradewind) == 0.0);
    a.open();
    assert_eq!(held.join().unwrap().text(), "a");
    assert_eq!(a.backend.requests(), 1, "nobody asks for those who left");
    let left = "tradewind_requests_total{route=\"chat\",backend=\"\",code=\"499\"}";
    eventually("they are counted", || tradewind.metric(left) == Some(7.0));
}
