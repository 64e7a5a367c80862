//! Starting, stopping and starting again: nothing under way is lost, and whatever is in the way is named.

mod harness;

use std::{
    io::{Read, Write},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use harness::{
    Backend, Client, Config, DEADLINE, Tradewind,
    client::{Exchange, connect},
    eventually, pause, run_to_the_end, throughout, until,
};

/// A backend whose streams go on until they are released.
fn streaming() -> (Backend, Arc<AtomicBool>) {
    let released = Arc::new(AtomicBool::new(false));
    let release = released.clone();
    let backend = Backend::serving("sse", move |call| {
        call.begin("text/event-stream")?;
        let mut events = 0;
        let end = Instant::now() + 2 * DEADLINE;
        while !released.load(SeqCst) && Instant::now() < end {
            events += 1;
            call.chunk(format!("data: {events}\n\n").as_bytes())?;
            pause(Duration::from_millis(100));
        }
        call.chunk(format!("data: [DONE] {events}\n\n").as_bytes())?;
        call.end()
    });
    (backend, release)
}

/// Fails unless the body is a whole stream: every event once, in order, and the end.
fn assert_whole(body: &[u8]) {
    let text = String::from_utf8_lossy(body);
    let (events, end) =
        text.split_once("data: [DONE] ").unwrap_or_else(|| panic!("the end is missing: {text}"));
    let expected: String = (1..=end.trim().parse().unwrap()).map(|n| format!("data: {n}\n\n")).collect();
    assert_eq!(events, expected);
}

fn begin(tradewind: &Tradewind) -> Exchange {
    let mut stream = Exchange::begin(tradewind.http, "POST", "/v1/chat/completions", &[], b"{}").unwrap();
    assert_eq!(stream.piece().unwrap().unwrap(), b"data: 1\n\n");
    stream
}

#[test]
fn sigterm_finishes_the_streams_in_flight_and_exits_when_the_last_has_ended() {
    let (backend, release) = streaming();
    let mut tradewind = Tradewind::start(&Config::new(&[(&backend, 1.0)]));
    let streams: Vec<Exchange> = (0..20).map(|_| begin(&tradewind)).collect();
    let readers: Vec<_> = streams
        .into_iter()
        .map(|mut stream| thread::spawn(move || stream.rest().map(|rest| (rest, Instant::now()))))
        .collect();

    tradewind.signal("TERM");
    eventually("it is not ready any more", || {
        tradewind.get("/readyz").is_ok_and(|answer| answer.status == 503)
    });
    eventually("no new connection is accepted", || {
        connect(tradewind.http)
            .and_then(|mut stream| {
                stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")?;
                stream.read(&mut [0])
            })
            .map_or(true, |read| read == 0)
    });
    throughout(Duration::from_millis(500), || {
        assert!(tradewind.ended().is_none(), "it ended before its streams")
    });

    release.store(true, SeqCst);
    let mut last = None;
    for reader in readers {
        let (rest, ended) = reader.join().unwrap().expect("the stream is complete");
        assert_whole(&[b"data: 1\n\n", &*rest].concat());
        last = last.max(Some(ended));
    }
    let status = until("it ends", || tradewind.ended());
    let after = last.unwrap().elapsed();
    eprintln!("drained: it ended {after:?} after the last of 20 streams");
    assert_eq!(status.code(), Some(0));
    assert!(after < Duration::from_secs(2), "it ended {after:?} after the last stream");
    assert!(tradewind.log().contains("drained: every request under way has ended"), "{}", tradewind.log());
}

#[test]
fn an_idle_connection_does_not_delay_the_exit() {
    let backend = Backend::named("a");
    let mut tradewind = Tradewind::start(&Config::new(&[(&backend, 1.0)]));
    let mut client = tradewind.client();
    assert_eq!(client.get("/").unwrap().text(), "a");
    let silent = connect(tradewind.http).unwrap();
    let begun = Instant::now();
    tradewind.signal("TERM");
    let status = until("it ends", || tradewind.ended());
    assert_eq!(status.code(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
    drop((client, silent));
}

#[test]
fn a_stream_that_outlasts_the_drain_time_is_cut_off_and_looks_it() {
    let (backend, _never) = streaming();
    let mut tradewind = Tradewind::start(&Config::new(&[(&backend, 1.0)]).listen("drain_timeout = \"1s\""));
    let mut stream = begin(&tradewind);
    tradewind.signal("TERM");
    let ended = stream.rest();
    assert!(ended.is_err(), "the client saw a complete body");
    let status = until("it ends", || tradewind.ended());
    assert_eq!(status.code(), Some(0));
    assert!(tradewind.log().contains("cut_off=1"), "{}", tradewind.log());
}

#[test]
fn a_second_signal_ends_at_once() {
    let (backend, _never) = streaming();
    let mut tradewind = Tradewind::start(&Config::new(&[(&backend, 1.0)]));
    let mut stream = begin(&tradewind);
    tradewind.signal("INT");
    eventually("it drains", || tradewind.log().contains("draining"));
    tradewind.signal("INT");
    let begun = Instant::now();
    until("it ends", || tradewind.ended());
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?}", begun.elapsed());
    assert!(stream.rest().is_err(), "the client saw a complete body");
}

#[test]
fn an_address_in_use_is_named() {
    let backend = Backend::named("a");
    let occupied = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = occupied.local_addr().unwrap().to_string();
    for (n, key) in ["listen.http", "admin.listen"].into_iter().enumerate() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::new(&[(&backend, 1.0)]);
        config.write(dir.path());
        let mut parts: Vec<String> = config.text().split("127.0.0.1:0").map(str::to_owned).collect();
        let rest = parts.split_off(n + 1);
        let text = [parts.join("127.0.0.1:0"), rest.join("127.0.0.1:0")].join(&address);
        harness::put(dir.path(), "t.toml", &text);
        let (code, said) = run_to_the_end(dir.path());
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(&format!("cannot listen on {address} ({key})")), "{said}");
        assert!(said.contains("is another process using it?"), "{said}");
    }
}

#[test]
fn a_second_instance_on_the_same_state_directory_waits_and_gives_up_with_a_reason() {
    let backend = Backend::named("a");
    let config = Config::new(&[(&backend, 1.0)]);
    let tradewind = Tradewind::start(&config);
    let (code, said) = run_to_the_end(tradewind.dir());
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("state") && said.contains("another"), "{said}");
    assert_eq!(said.matches("; waiting").count(), 1, "{said}");
    assert_eq!(tradewind.fetch("/").text(), "a");
}

#[test]
fn a_successor_takes_over_as_soon_as_its_predecessor_has_ended() {
    let (backend, release) = streaming();
    let config = Config::new(&[(&backend, 1.0)]);
    let mut first = Tradewind::start(&config);
    let mut stream = begin(&first);
    first.signal("TERM");
    eventually("it drains", || first.log().contains("draining"));
    let dir = first.dir().to_owned();
    let to = thread::spawn(move || Tradewind::start_in(&dir, &config));
    throughout(Duration::from_millis(300), || assert!(!to.is_finished()));
    release.store(true, SeqCst);
    assert_whole(&[b"data: 1\n\n", &*stream.rest().unwrap()].concat());
    until("the first one ends", || first.ended());
    let second = to.join().unwrap();
    assert_eq!(Client::new(second.http).get("/").unwrap().status, 200);
}

#[test]
fn a_restart_goes_on_with_the_shares_of_before() {
    let (a, b) = (Backend::named("a"), Backend::named("b"));
    let config = Config::new(&[(&a, 0.5), (&b, 1.0)])
        .policy("shift_at = \"15%\"\nreturn_at = \"5%\"\nhold = \"60s\"\nramp = \"5%/s\"");
    let mut tradewind = Tradewind::start(&config);
    tradewind.set_prices(&[("a", 0.5), ("b", 0.2)]);
    let before = until("a part has moved", || {
        let share = tradewind.share("b");
        (share >= 0.1).then_some(share)
    });
    let killed = Instant::now();
    tradewind.kill();
    tradewind.start_again();
    let after = tradewind.share("b");
    let allowed = before + 0.05 * (killed.elapsed().as_secs_f64() + 1.0);
    assert!(after >= before - 0.05 && after <= allowed, "{before} before, {after} after, {allowed} allowed");
    assert!(tradewind.explain()["last_move"]["reason"].as_str().unwrap().contains("b is cheaper than a"));
    // It also remembers that it has just moved.
    tradewind.set_prices(&[("a", 0.1), ("b", 0.2)]);
    tradewind.wait_for_reason("holding");
}

#[test]
fn a_configuration_with_faults_does_not_start() {
    let backend = Backend::named("a");
    let config = Config::new(&[(&backend, 1.0)]);
    let dir = tempfile::tempdir().unwrap();
    config.write(dir.path());
    harness::put(dir.path(), "t.toml", &config.text().replace("ramp", "rmap"));
    let (code, said) = run_to_the_end(dir.path());
    assert_eq!(code, Some(1));
    assert!(said.contains("unknown key `rmap`") && said.contains("did you mean `ramp`?"), "{said}");
    assert!(!dir.path().join("state").exists(), "nothing was begun");
}
