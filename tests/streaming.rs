//! Bodies pass chunk by chunk, whole or visibly broken, and a client that leaves is not served on.

mod harness;

use std::{
    io::{BufReader, Write},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};

use harness::{
    Backend, Config, DEADLINE, Tradewind,
    client::{Exchange, connect},
    eventually,
    http2::{self, ModernBackend, Speaks},
    pause,
};
use http_body_util::BodyExt;

const LARGE: usize = 20_000_000;

#[test]
fn an_answer_before_the_end_of_an_upload_reaches_the_client() {
    let backend = Backend::serving("early", |call| call.answer(413, &[], b"too large"));
    let tradewind = in_front_of(&backend);
    let mut client = tradewind.client();
    for _ in 0..5 {
        let answer = client.post("/", &vec![b'x'; 5_000_000]).unwrap();
        assert_eq!((answer.status, &*answer.text()), (413, "too large"));
    }
}

/// Bytes that show when some are missing, twice there, or out of order.
fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
}

/// Fails in words, not with 20 MB on the screen.
fn assert_same(found: &[u8], expected: &[u8]) {
    assert_eq!(found.len(), expected.len(), "the length of the body");
    let differs = found.iter().zip(expected).position(|(found, expected)| found != expected);
    assert_eq!(differs, None, "the first byte that differs");
}

fn in_front_of(backend: &Backend) -> Tradewind {
    Tradewind::start(&Config::new(&[(backend, 1.0)]))
}

/// A turnstile: the backend goes one step on for each push.
fn turnstile() -> (mpsc::Sender<()>, impl Fn() + Send + Sync) {
    let (push, pushed) = mpsc::channel();
    let pushed = Mutex::new(pushed);
    (push, move || pushed.lock().unwrap().recv_timeout(DEADLINE).expect("the test goes on"))
}

#[test]
fn server_sent_events_arrive_one_by_one() {
    let (push, wait) = turnstile();
    let backend = Backend::serving("sse", move |call| {
        call.begin("text/event-stream")?;
        for n in 0..10 {
            wait();
            call.chunk(format!("data: {n}\n\n").as_bytes())?;
        }
        wait();
        call.end()
    });
    let tradewind = in_front_of(&backend);
    let mut stream =
        Exchange::begin(tradewind.http, "POST", "/v1/chat/completions", &[], b"{\"stream\": true}").unwrap();
    assert_eq!((stream.status, stream.header("content-type")), (200, Some("text/event-stream")));
    for n in 0..10 {
        // Only now is the backend allowed to send it: whatever had to wait for more would never come.
        push.send(()).unwrap();
        assert_eq!(stream.piece().unwrap().unwrap(), format!("data: {n}\n\n").as_bytes());
    }
    push.send(()).unwrap();
    assert_eq!(stream.piece().unwrap(), None);
}

#[test]
fn server_sent_events_arrive_one_by_one_over_http2_on_both_sides() {
    let (sender, body) = http2::piped();
    let body = Mutex::new(Some(body));
    let backend = ModernBackend::serving(Speaks::H2c, move |_| {
        http::Response::new(body.lock().unwrap().take().expect("it is asked once"))
    });
    let tradewind = modern(backend.address());
    http2::run(async {
        let mut connection = http2::connect(tradewind.http).await;
        let request = http2::request("POST", tradewind.http, "/v1/chat/completions", http2::whole("{}"));
        let mut stream = connection.send_request(request).await.unwrap().into_body();
        for n in 0..10 {
            sender.send(Ok(format!("data: {n}\n\n").into())).await.unwrap();
            let frame = stream.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), format!("data: {n}\n\n"));
        }
        drop(sender);
        assert_eq!(stream.collect().await.unwrap().to_bytes(), "");
    });
}

/// Tradewind in front of a backend that speaks HTTP/2 in the clear.
fn modern(backend: SocketAddr) -> Tradewind {
    let config = Config::new(&[]).backend("h2c", &format!("http://{backend}"), "protocol = \"http2\"");
    Tradewind::start(&config)
}

/// A backend that tells what it has received so far, and at the end sends the length and a sum of it.
fn receiver() -> (Backend, Arc<AtomicU64>) {
    let received = Arc::new(AtomicU64::new(0));
    let counted = received.clone();
    let backend = Backend::serving("upload", move |call| {
        let mut body = Vec::with_capacity(LARGE);
        while let Some(part) = call.piece()? {
            counted.fetch_add(part.len() as u64, SeqCst);
            body.extend(part);
        }
        let same = body == pattern(body.len());
        call.answer(200, &[], format!("{} {same}", body.len()).as_bytes())
    });
    (backend, received)
}

#[test]
fn a_large_upload_is_passed_on_as_it_comes() {
    let (backend, received) = receiver();
    let tradewind = in_front_of(&backend);
    let body = pattern(LARGE);
    let mut stream = connect(tradewind.http).unwrap();
    write!(stream, "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {LARGE}\r\n\r\n").unwrap();
    let (first, rest) = body.split_at(10_000);
    stream.write_all(first).unwrap();
    eventually("the backend has the first bytes", || received.load(SeqCst) == 10_000);
    stream.write_all(rest).unwrap();
    let mut answer = Exchange::read_head(BufReader::new(stream), "POST").unwrap();
    assert_eq!(String::from_utf8(answer.rest().unwrap()).unwrap(), format!("{LARGE} true"));
}

#[test]
fn an_upload_in_chunks_is_passed_on_as_it_comes() {
    let (backend, received) = receiver();
    let tradewind = in_front_of(&backend);
    let body = pattern(1_000_000);
    let mut stream = connect(tradewind.http).unwrap();
    write!(stream, "POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").unwrap();
    for (n, part) in body.chunks(100_000).enumerate() {
        write!(stream, "{:x}\r\n", part.len()).unwrap();
        stream.write_all(part).unwrap();
        stream.write_all(b"\r\n").unwrap();
        eventually("the backend has all chunks so far", || received.load(SeqCst) == (n as u64 + 1) * 100_000);
    }
    stream.write_all(b"0\r\n\r\n").unwrap();
    let mut answer = Exchange::read_head(BufReader::new(stream), "POST").unwrap();
    assert_eq!(String::from_utf8(answer.rest().unwrap()).unwrap(), "1000000 true");
}

#[test]
fn a_large_download_is_passed_on_as_it_comes() {
    let (push, wait) = turnstile();
    let backend = Backend::serving("download", move |call| {
        let body = pattern(LARGE);
        let (first, rest) = body.split_at(10_000);
        call.raw(format!("HTTP/1.1 200 OK\r\ncontent-length: {LARGE}\r\n\r\n").as_bytes())?;
        call.raw(first)?;
        wait();
        call.raw(rest)
    });
    let tradewind = in_front_of(&backend);
    let mut stream = Exchange::begin(tradewind.http, "GET", "/", &[], b"").unwrap();
    let mut body = Vec::new();
    while body.len() < 10_000 {
        body.extend(stream.piece().unwrap().unwrap());
    }
    push.send(()).unwrap();
    body.extend(stream.rest().unwrap());
    assert_same(&body, &pattern(LARGE));
}

#[test]
fn a_client_that_does_not_read_holds_its_backend_back() {
    let sent = Arc::new(AtomicU64::new(0));
    let counted = sent.clone();
    let whole = 100_000_000;
    let backend = Backend::serving("flood", move |call| {
        call.raw(format!("HTTP/1.1 200 OK\r\ncontent-length: {whole}\r\n\r\n").as_bytes())?;
        let part = pattern(100_000);
        for _ in 0..whole / part.len() {
            call.raw(&part)?;
            counted.fetch_add(part.len() as u64, SeqCst);
        }
        Ok(())
    });
    let tradewind = in_front_of(&backend);
    let mut stream = Exchange::begin(tradewind.http, "GET", "/", &[], b"").unwrap();
    let mut before = 0;
    eventually("the backend is held back", || {
        pause(Duration::from_millis(200));
        let now = sent.load(SeqCst);
        std::mem::replace(&mut before, now) == now && now > 0
    });
    // What the buffers of two connections hold, not what the answer holds.
    assert!(before < whole as u64 / 2, "{before} bytes were taken although nobody read them");
    assert_eq!(stream.rest().unwrap().len(), whole);
}

/// A stream that ends after its first piece, in each way in which the end of a body can be told.
fn broken(head: &'static str, piece: &'static str) -> Backend {
    Backend::serving("broken", move |call| {
        call.raw(format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{piece}").as_bytes())?;
        // The head alone must not be what the client sees first and last.
        pause(Duration::from_millis(50));
        call.cut()
    })
}

const CHUNKED: (&str, &str) = ("transfer-encoding: chunked", "3\r\none\r\n");
const WITHIN_A_CHUNK: (&str, &str) = ("transfer-encoding: chunked", "6\r\none");
const SHORT: (&str, &str) = ("content-length: 6", "one");

#[test]
fn a_stream_that_breaks_never_ends_as_if_it_were_complete() {
    for (head, piece) in [CHUNKED, WITHIN_A_CHUNK, SHORT] {
        let backend = broken(head, piece);
        let tradewind = in_front_of(&backend);
        for method in ["GET", "POST"] {
            let mut stream = Exchange::begin(tradewind.http, method, "/", &[], b"").unwrap();
            let ended = stream.rest();
            assert!(
                ended.is_err(),
                "{method} of {piece:?} with {head}: the client saw the complete body {ended:?}"
            );
        }
        assert_eq!(backend.requests(), 2, "what has begun to answer is not asked again");
    }
}

/// The body of a POST over HTTP/2, or why it is not complete.
fn over_http2(tradewind: &Tradewind) -> Result<String, String> {
    http2::run(async {
        let mut connection = http2::connect(tradewind.http).await;
        let request = http2::request("POST", tradewind.http, "/", http2::whole("{}"));
        let answer = connection.send_request(request).await.expect("the answer begins");
        let body = answer.into_body().collect().await.map_err(|error| format!("{error:?}"))?;
        Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
    })
}

#[test]
fn a_stream_that_breaks_is_reset_over_http2() {
    for (head, piece) in [CHUNKED, WITHIN_A_CHUNK, SHORT] {
        let backend = broken(head, piece);
        let ended = over_http2(&in_front_of(&backend));
        assert!(ended.is_err(), "{piece:?} with {head}: the client saw the complete body {ended:?}");
    }
}

#[test]
fn a_stream_that_an_http2_backend_resets_never_ends_as_if_it_were_complete() {
    let backend = ModernBackend::serving(Speaks::H2c, |_| {
        let (sender, body) = http2::piped();
        tokio::spawn(async move {
            sender.send(Ok("one".into())).await.expect("someone listens");
            // A reset may overtake what was sent right before it.
            tokio::time::sleep(Duration::from_millis(50)).await;
            sender.send(Err(std::io::Error::other("broken by the test"))).await.expect("someone listens");
        });
        http::Response::new(body)
    });
    let tradewind = modern(backend.address());
    let ended = over_http2(&tradewind);
    assert!(ended.is_err(), "over HTTP/2 the client saw the complete body {ended:?}");
    let ended = Exchange::begin(tradewind.http, "POST", "/", &[], b"{}").and_then(|mut stream| stream.rest());
    assert!(ended.is_err(), "over HTTP/1.1 the client saw the complete body {ended:?}");
}

#[test]
fn a_client_that_leaves_is_not_served_on() {
    let (told, hears) = mpsc::channel();
    let backend = Backend::serving("sse", move |call| {
        call.begin("text/event-stream")?;
        call.chunk(b"data: 1\n\n")?;
        told.send(call.wait_for_close()).map_err(std::io::Error::other)?;
        call.cut()
    });
    let tradewind = in_front_of(&backend);
    let mut stream = Exchange::begin(tradewind.http, "GET", "/", &[], b"").unwrap();
    assert_eq!(stream.piece().unwrap().unwrap(), b"data: 1\n\n");
    drop(stream);
    assert!(hears.recv_timeout(DEADLINE).unwrap(), "the backend's connection was left open");
    eventually("nothing is counted as under way", || tradewind.backend("sse")["in_flight"] == 0);
}
