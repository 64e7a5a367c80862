//! Slow and greedy clients.

use std::{
    io::{BufReader, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use http::Request;

use super::{
    harness::{
        Backend, Client, Config, DEADLINE, Tradewind,
        client::{Exchange, connect},
        eventually, http2, pause, throughout,
    },
    turned_away,
};

fn start(listen: &str) -> (Backend, Tradewind) {
    let backend = Backend::named("a");
    let tradewind = Tradewind::start(&Config::new(&[(&backend, 1.0)]).listen(listen));
    (backend, tradewind)
}

/// The answer to whatever was sent, and whether the connection ended after it.
fn answer(stream: TcpStream) -> (u16, String, bool) {
    let mut exchange = Exchange::read_head(BufReader::new(stream), "GET").expect("there is an answer");
    let body = String::from_utf8(exchange.rest().unwrap()).unwrap();
    (exchange.status, body, exchange.header("connection") == Some("close"))
}

#[test]
fn a_head_that_comes_byte_by_byte_is_given_up() {
    let (backend, tradewind) = start("header_timeout = \"500ms\"");
    let mut stream = connect(tradewind.http).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || {
        let end = Instant::now() + DEADLINE;
        // No byte is long in coming.
        while Instant::now() < end && writer.write_all(b"G").is_ok() {
            pause(Duration::from_millis(50));
        }
    });
    let mut head = [0; 12];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head, b"HTTP/1.1 408");
    drop(stream);
    sending.join().unwrap();
    // On a connection that was used before, it is the same.
    let mut client = connect(tradewind.http).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let mut first = [0; 12];
    client.read_exact(&mut first).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("HTTP/1.1 408 Request Timeout") && rest.contains("request_timeout"), "{rest}");
    assert_eq!((turned_away(&tradewind, "slow"), backend.requests()), (2.0, 1));
}

#[test]
fn an_http2_preface_that_does_not_come_is_given_up() {
    let (_backend, tradewind) = start("header_timeout = \"300ms\"");
    for part in [&b"PR"[..], b"PRI * HTTP/2.0\r\n\r\n"] {
        let mut stream = connect(tradewind.http).unwrap();
        stream.write_all(part).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    }
    assert_eq!(turned_away(&tradewind, "slow"), 2.0);
}

#[test]
fn heads_that_are_too_large_are_answered_with_431() {
    let (backend, tradewind) = start("head_max = \"8KiB\"\nheaders_max = 20");
    let many = "x: y\r\n".repeat(20);
    let long = "x".repeat(8 << 10);
    for head in [
        format!("GET / HTTP/1.1\r\nhost: a\r\n{many}\r\n"),
        format!("GET / HTTP/1.1\r\nhost: a\r\nx: {long}\r\n\r\n"),
        format!("GET /{long}"),
        "\r\n".repeat(5 << 10),
    ] {
        let mut stream = connect(tradewind.http).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let (status, body, closes) = answer(stream);
        assert_eq!((status, closes), (431, true));
        assert!(body.contains("request_header_too_large"), "{body}");
    }
    assert_eq!((turned_away(&tradewind, "head_too_large"), backend.requests()), (4.0, 0));
    let most = "x: y\r\n".repeat(19);
    let mut stream = connect(tradewind.http).unwrap();
    stream.write_all(format!("\r\nGET / HTTP/1.1\r\nhost: a\r\n{most}\r\n").as_bytes()).unwrap();
    assert_eq!(answer(stream).0, 200);

    let statuses = http2::run(async {
        let mut sender = http2::connect(tradewind.http).await;
        let mut statuses = Vec::new();
        for (count, len) in [(25, 1), (1, 9 << 10), (1, 1)] {
            let mut request = Request::get(format!("http://{}/", tradewind.http));
            for n in 0..count {
                request = request.header(format!("x-{n}"), "y".repeat(len));
            }
            let answer = sender.send_request(request.body(http2::whole("")).unwrap()).await.unwrap();
            statuses.push(answer.status().as_u16());
        }
        statuses
    });
    assert_eq!(statuses, [431, 431, 200]);
}

#[test]
fn more_connections_than_there_may_be_are_closed() {
    let (_backend, tradewind) = start("max_connections = 3");
    let mut held: Vec<Client> = (0..3).map(|_| tradewind.client()).collect();
    for client in &mut held {
        assert_eq!(client.get("/").unwrap().status, 200);
    }
    assert!(tradewind.client().get("/").is_err());
    assert_eq!(turned_away(&tradewind, "full"), 1.0);
    assert_eq!(tradewind.metric("tradewind_connections{}"), Some(3.0));
    held.pop();
    eventually("there is a place again", || tradewind.client().get("/").is_ok());
    assert_eq!(held[0].get("/").unwrap().text(), "a");
}

#[test]
fn one_address_has_no_more_than_its_own() {
    let (_backend, tradewind) = start("max_connections_per_ip = 2");
    let mut held: Vec<Client> = (0..2).map(|_| tradewind.client()).collect();
    for client in &mut held {
        assert_eq!(client.get("/").unwrap().status, 200);
    }
    assert!(tradewind.client().get("/").is_err());
    assert_eq!(turned_away(&tradewind, "full_for_address"), 1.0);
    let url = format!("http://{}/", tradewind.http);
    assert_eq!(super::harness::curl(&["--interface", "127.0.0.2"], &url).status, 200);
    held.clear();
    eventually("there is a place again", || tradewind.client().get("/").is_ok());
}

#[test]
fn idle_connections_end_and_used_ones_do_not() {
    let (_backend, tradewind) = start("idle_timeout = \"1s\"");
    let mut idle = connect(tradewind.http).unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    let mut used = tradewind.client();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(used.get("/").unwrap().text(), "a");
        pause(Duration::from_millis(300));
    }
    let mut all = String::new();
    idle.read_to_string(&mut all).unwrap();
    assert!(all.starts_with("HTTP/1.1 200"), "{all}");
    http2::run(async {
        let mut sender = http2::connect(tradewind.http).await;
        let request = http2::request("GET", tradewind.http, "/", http2::whole(""));
        assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
        while !sender.is_closed() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
}

#[test]
fn a_body_that_stops_coming_is_given_up() {
    let backend = Backend::serving("a", |call| {
        call.body()?;
        call.answer(200, &[], b"a")
    });
    let tradewind = Tradewind::start(&Config::new(&[(&backend, 1.0)]).listen("silence_timeout = \"1s\""));
    let mut stream = connect(tradewind.http).unwrap();
    stream.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n12345").unwrap();
    let mut all = String::new();
    // It may be reset: what it sent was not all read.
    let _ = stream.read_to_string(&mut all);
    assert!(!all.contains("200"), "{all}");
    eventually("the backend is left", || tradewind.fetch("/").status == 200);
}

/// A second request, and the blank line that old clients send behind a body.
#[test]
fn what_comes_behind_a_request_does_not_break_it_off() {
    for behind in ["GET /next HTTP/1.1\r\nhost: a\r\n\r\n", "\r\n"] {
        let (backend, push) = Backend::pausing("a");
        let tradewind = Tradewind::start(&Config::new(&[(&backend, 1.0)]));
        let mut stream = connect(tradewind.http).unwrap();
        stream.write_all(b"POST /stream HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}").unwrap();
        eventually("the backend is asked", || backend.requests() == 1);
        stream.write_all(behind.as_bytes()).unwrap();
        let left = "tradewind_requests_in_flight{route=\"chat\",backend=\"a\"}";
        throughout(Duration::from_millis(300), || assert_eq!(tradewind.metric(left), Some(1.0)));
        push.send(()).unwrap();
        let (status, body, _) = answer(stream.try_clone().unwrap());
        assert_eq!((status, &*body), (200, "data: 1\n\ndata: 2\n\n"));
        // What was asked for behind it was not asked for: the client sends it again.
        assert_eq!(stream.read(&mut [0; 100]).unwrap_or(0), 0);
        assert_eq!(backend.requests(), 1);
    }
}

#[test]
fn a_client_that_takes_nothing_of_its_answer_is_given_up() {
    let backend = Backend::serving("a", |call| {
        call.begin("text/plain")?;
        for _ in 0..4096 {
            call.chunk(&[b'x'; 16 << 10])?;
        }
        call.end()
    });
    let tradewind = Tradewind::start(&Config::new(&[(&backend, 1.0)]).listen("silence_timeout = \"1s\""));
    let mut stream = connect(tradewind.http).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    eventually("it is counted", || turned_away(&tradewind, "stalled") == 1.0);
    eventually("its place is free", || tradewind.metric("tradewind_connections{}") == Some(0.0));
    drop(stream);
}

#[test]
fn clients_that_use_their_connections_lose_no_request_when_it_stops() {
    let backend = Backend::named("a");
    let mut tradewind = Tradewind::start(&Config::new(&[(&backend, 1.0)]));
    let to = tradewind.http;
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = BufReader::new(connect(to).unwrap());
            std::thread::spawn(move || {
                loop {
                    stream.get_mut().write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
                    let mut exchange = Exchange::read_head(stream, "GET").expect("every request is answered");
                    assert_eq!((exchange.status, exchange.rest().unwrap()), (200, b"a".to_vec()));
                    if exchange.header("connection") == Some("close") {
                        return;
                    }
                    stream = exchange.into_stream();
                    pause(Duration::from_millis(5));
                }
            })
        })
        .collect();
    eventually("they are at it", || backend.requests() > 50);
    tradewind.signal("TERM");
    for client in clients {
        client.join().expect("it lost nothing");
    }
    eventually("it ends", || tradewind.ended().is_some());
}

#[test]
fn a_connection_that_speaks_another_protocol_may_be_silent() {
    let backend = Backend::serving("a", |call| {
        call.raw(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")?;
        pause(Duration::from_millis(2500));
        call.raw(b"late")?;
        call.cut()
    });
    let tradewind = Tradewind::start(&Config::new(&[(&backend, 1.0)]).listen("silence_timeout = \"1s\""));
    let mut stream = connect(tradewind.http).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")
        .unwrap();
    let mut all = String::new();
    // How it ends is not of interest.
    let _ = stream.read_to_string(&mut all);
    assert!(all.starts_with("HTTP/1.1 101") && all.ends_with("late"), "{all}");
}
