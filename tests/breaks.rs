//! A connection to a backend that breaks at every byte of an answer: no client takes what it got for all there was.

mod harness;

use std::{
    io,
    sync::{Arc, Mutex, mpsc},
};

use harness::{
    Backend, Config, DEADLINE, Tradewind,
    backend::Call,
    client::Exchange,
    eventually,
    http2::{self, ModernBackend, Speaks},
};
use http_body_util::BodyExt;

/// Events, and with them chunks, of an answer.
const EVENTS: usize = 12;

/// How the connection breaks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Break {
    /// RST.
    Reset,
    /// FIN.
    Close,
}

/// What arrives of an answer's body, and how it ended.
type Arrived = (Vec<u8>, Result<(), String>);

/// An answer as it is on the wire, of which a backend sends as much as it is told.
struct Answer {
    head: String,
    body: Vec<u8>,
    /// For each length of what is sent, how much of the content is in it.
    content: Vec<usize>,
}

fn event(n: usize) -> String {
    format!("data: {{\"n\":{n}}}\n\n")
}

impl Answer {
    /// Events, each in a chunk of its own.
    fn chunked() -> Answer {
        let (mut body, mut content) = (Vec::new(), vec![0]);
        let mut add = |bytes: &[u8], counts: bool| {
            for byte in bytes {
                body.push(*byte);
                content.push(content[content.len() - 1] + usize::from(counts));
            }
        };
        for text in (0..EVENTS).map(event) {
            add(format!("{:x}\r\n", text.len()).as_bytes(), false);
            add(text.as_bytes(), true);
            add(b"\r\n", false);
        }
        add(b"0\r\n\r\n", false);
        Answer { head: "content-type: text/event-stream\r\ntransfer-encoding: chunked".into(), body, content }
    }

    /// JSON in chunks, which no event can be added to.
    fn chunked_json() -> Answer {
        let head = "content-type: application/json\r\ntransfer-encoding: chunked".into();
        Answer { head, ..Answer::chunked() }
    }

    /// The same events, of a length that is said.
    fn of_length() -> Answer {
        let body: Vec<u8> = (0..EVENTS).map(event).collect::<String>().into_bytes();
        let content = (0..=body.len()).collect();
        let head = format!("content-type: text/event-stream\r\ncontent-length: {}", body.len());
        Answer { head, body, content }
    }

    /// The same events, which end with the connection: in order, or not at all.
    fn until_close() -> Answer {
        let head = "content-type: text/event-stream".into();
        Answer { head, ..Answer::of_length() }
    }

    /// Whether what ends so is complete.
    fn is_whole(&self, at: usize, how: Break) -> bool {
        let framed = self.head.contains("\r\n");
        if framed { at == self.body.len() } else { how == Break::Close }
    }
}

/// A Tradewind in front of a backend whose answers break where and as the test says, once it has what was sent so far.
struct Broken {
    _backend: Backend,
    tradewind: Tradewind,
    next: mpsc::Sender<(usize, Break)>,
    seen: mpsc::Sender<()>,
}

impl Broken {
    fn start(answer: &Answer) -> Broken {
        let (head, body) = (answer.head.clone(), answer.body.clone());
        let (next, orders) = mpsc::channel::<(usize, Break)>();
        let (seen, waits) = mpsc::channel::<()>();
        let channels = Mutex::new((orders, waits));
        let backend = Backend::serving("llm", move |call: &mut Call| {
            call.body()?;
            let channels = channels.lock().unwrap();
            let (at, how) = channels.0.recv_timeout(DEADLINE).expect("the test says where");
            // No request meets a connection that is just being broken.
            call.raw(format!("HTTP/1.1 200 OK\r\nconnection: close\r\n{head}\r\n\r\n").as_bytes())?;
            call.raw(&body[..at])?;
            channels.1.recv_timeout(DEADLINE).expect("the client has it");
            match how {
                Break::Reset => call.reset(),
                Break::Close => call.cut(),
            }
        });
        let tradewind = Tradewind::start(&Config::new(&[(&backend, 1.0)]));
        Broken { _backend: backend, tradewind, next, seen }
    }

    fn over_http1(&self, content: usize) -> Arrived {
        let mut stream =
            Exchange::begin(self.tradewind.http, "POST", "/v1/chat/completions", &[], b"{}").unwrap();
        let mut body = Vec::new();
        while body.len() < content {
            body.extend(stream.piece().expect("it goes on").expect("it does not end"));
        }
        self.seen.send(()).unwrap();
        loop {
            match stream.piece() {
                Ok(Some(piece)) => body.extend(piece),
                Ok(None) => return (body, Ok(())),
                Err(error) => return (body, Err(error.to_string())),
            }
        }
    }

    fn over_http2(&self, content: usize) -> Arrived {
        http2::run(async {
            let mut connection = http2::connect(self.tradewind.http).await;
            let request =
                http2::request("POST", self.tradewind.http, "/v1/chat/completions", http2::whole("{}"));
            let mut stream = connection.send_request(request).await.unwrap().into_body();
            let mut body = Vec::new();
            let mut told = false;
            loop {
                if !told && body.len() >= content {
                    told = self.seen.send(()).is_ok();
                }
                match stream.frame().await {
                    Some(Ok(frame)) => body.extend(frame.into_data().unwrap_or_default()),
                    Some(Err(error)) => return (body, Err(format!("{error:?}"))),
                    None => return (body, Ok(())),
                }
            }
        })
    }

    /// The status of an answer that is complete.
    fn whole_over_http1(&self) -> Result<u16, String> {
        let answer = self.tradewind.client().post("/", b"{}");
        answer.map(|answer| answer.status).map_err(|error| error.to_string())
    }

    /// The same.
    fn whole_over_http2(&self) -> Result<u16, String> {
        http2::run(async {
            let mut connection = http2::connect(self.tradewind.http).await;
            let request = http2::request("POST", self.tradewind.http, "/", http2::whole("{}"));
            let answer = connection.send_request(request).await.map_err(|error| error.to_string())?;
            let status = answer.status().as_u16();
            answer.into_body().collect().await.map_err(|error| error.to_string())?;
            Ok(status)
        })
    }

    /// Waits until this many answers are counted as broken off.
    fn wait_until_counted(&self, expected: f64) {
        let series = "tradewind_answers_broken_off_total{route=\"chat\",backend=\"llm\"}";
        eventually("each is counted", || self.tradewind.metric(series) == Some(expected));
    }

    /// Breaks the answer everywhere, over both versions of HTTP.
    fn everywhere(answer: &Answer) {
        let broken = Broken::start(answer);
        let (whole, mut expected): (String, _) = ((0..EVENTS).map(event).collect(), 0.0);
        let adds_event = answer.head.contains("event-stream");
        for at in 0..=answer.body.len() {
            for how in [Break::Reset, Break::Close] {
                for http2 in [false, true] {
                    let content = answer.content[at];
                    broken.next.send((at, how)).unwrap();
                    let (body, end) =
                        if http2 { broken.over_http2(content) } else { broken.over_http1(content) };
                    let what = format!("{how:?} at {at} of {}, HTTP/2: {http2}", answer.head);
                    let body = String::from_utf8(body).unwrap();
                    let rest = body.strip_prefix(&whole[..content]);
                    let rest = rest.unwrap_or_else(|| panic!("{what}: what was sent is not there: {body}"));
                    if answer.is_whole(at, how) {
                        assert_eq!((rest, &end), ("", &Ok(())), "{what}: it was complete");
                        continue;
                    }
                    expected += 1.0;
                    if !adds_event {
                        assert_eq!(rest, "", "{what}: something was added");
                        assert!(end.is_err(), "{what}: it ended as if it were complete: {body}");
                        continue;
                    }
                    let error = rest.strip_prefix("\n\ndata: ").and_then(|rest| rest.strip_suffix("\n\n"));
                    let error = error.unwrap_or_else(|| panic!("{what}: there is no last event: {body}"));
                    let error: serde_json::Value = serde_json::from_str(error).unwrap();
                    assert_eq!(error["error"]["code"], "backend_failed", "{what}");
                    // Over HTTP/2 the event is the end: a reset could overtake it.
                    assert_eq!(end.is_ok(), http2, "{what}: {end:?}");
                }
            }
        }
        broken.wait_until_counted(expected);
    }
}

#[test]
fn events_in_chunks_that_break_anywhere_end_with_an_error() {
    Broken::everywhere(&Answer::chunked());
}

#[test]
fn json_in_chunks_that_breaks_anywhere_never_ends_as_if_it_were_complete() {
    Broken::everywhere(&Answer::chunked_json());
}

#[test]
fn an_answer_shorter_than_it_said_never_ends_as_if_it_were_complete() {
    let answer = Answer::of_length();
    let broken = Broken::start(&answer);
    let (mut cut_short, mut refused) = (0.0, 0);
    for at in 0..answer.body.len() {
        for how in [Break::Reset, Break::Close] {
            for http2 in [false, true] {
                broken.next.send((at, how)).unwrap();
                // Over HTTP/1.1 the beginning of an answer whose length is known is held until there is more of it: there
                // is nothing that a client could wait for.
                broken.seen.send(()).unwrap();
                match if http2 { broken.whole_over_http2() } else { broken.whole_over_http1() } {
                    Err(_) => cut_short += 1.0,
                    // The reset came before anything else.
                    Ok(502) => refused += 1,
                    Ok(status) => {
                        panic!("{how:?} at {at}, HTTP/2: {http2}: it ended as complete, with {status}")
                    }
                }
            }
        }
    }
    broken.wait_until_counted(cut_short);
    assert!(refused < answer.body.len(), "{refused} answers were not begun");
}

#[test]
fn an_answer_that_ends_with_the_connection_is_complete_unless_that_is_reset() {
    Broken::everywhere(&Answer::until_close());
}

#[test]
fn streams_that_an_http2_backend_resets_anywhere_never_end_as_if_they_were_complete() {
    let slot = Arc::new(Mutex::new(None));
    let body = slot.clone();
    let backend = ModernBackend::serving(Speaks::H2c, move |_| {
        http::Response::new(body.lock().unwrap().take().expect("each is asked for once"))
    });
    let config =
        Config::new(&[]).backend("h2c", &format!("http://{}", backend.address()), "protocol = \"http2\"");
    let tradewind = Tradewind::start(&config);
    for after in 0..=EVENTS {
        for http2 in [false, true] {
            let (sender, content) = http2::piped();
            *slot.lock().unwrap() = Some(content);
            // The reset only once the client has all that was sent: it may overtake what it does not have.
            let piece = |n| if n < after { Ok(event(n).into()) } else { Err(io::Error::other("reset")) };
            let end = if http2 {
                http2::run(async {
                    let mut connection = http2::connect(tradewind.http).await;
                    let request = http2::request("POST", tradewind.http, "/", http2::whole("{}"));
                    let mut stream = connection.send_request(request).await.unwrap().into_body();
                    for n in 0..after {
                        sender.send(piece(n)).await.expect("someone listens");
                        let frame = stream.frame().await.expect("it goes on").expect("it is whole");
                        assert_eq!(frame.into_data().unwrap(), event(n));
                    }
                    sender.send(piece(after)).await.expect("someone listens");
                    stream.collect().await.map(drop).map_err(|error| error.to_string())
                })
            } else {
                let mut stream = Exchange::begin(tradewind.http, "POST", "/", &[], b"{}").unwrap();
                for n in 0..after {
                    sender.blocking_send(piece(n)).expect("someone listens");
                    assert_eq!(stream.piece().unwrap().unwrap(), event(n).as_bytes());
                }
                sender.blocking_send(piece(after)).expect("someone listens");
                stream.rest().map(drop).map_err(|error| error.to_string())
            };
            assert!(end.is_err(), "after {after} events, HTTP/2: {http2}: the client saw a complete body");
        }
    }
}
