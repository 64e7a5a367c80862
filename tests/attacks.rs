//! Requests that are made to be read in two ways: none may reach an origin that the client did not mean, and no answer may be
//! taken for another.

#[path = "attacks/corpus.rs"]
mod corpus;
#[path = "attacks/floods.rs"]
mod floods;
#[path = "attacks/frames.rs"]
mod frames;
mod harness;
#[path = "attacks/origin.rs"]
mod origin;

use std::{
    collections::HashMap,
    io::{self, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::Duration,
};

use corpus::{Case, Fate};
use frames::Http2Case;
use harness::{Config, Tradewind, client};
use http_desync_guardian::{ClassificationReason, RequestSafetyTier, request_analyzer::HttpRequestData};
use origin::{Origin, Seen};

/// How long a connection may say nothing until it is taken to wait for more. It only decides when the client gives up, not what
/// is a fault.
const QUIET: Duration = Duration::from_millis(150);

/// How a case reaches the front door.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// On a new connection; what follows is sent when it was answered.
    Fresh,
    /// After a sound request on the same connection.
    Kept,
    /// With what follows in one piece.
    Pipelined,
}

fn start(origin: &Origin) -> Tradewind {
    Tradewind::start(&Config::new(&[]).listen("").backend(
        "origin",
        &format!("http://{}", origin.address),
        "",
    ))
}

/// The next answer: its status and body. `None` at the end of the connection, and when nothing comes any more.
fn answer(stream: &mut BufReader<TcpStream>, method: &str) -> Option<(u16, String)> {
    let head = client::line(stream).ok()?;
    let status: u16 = head.split(' ').nth(1)?.parse().ok()?;
    let headers = client::headers(stream).ok()?;
    if (100..200).contains(&status) {
        return answer(stream, method);
    }
    if method == "HEAD" {
        return Some((status, client::find(&headers, "x-seen")?.to_owned()));
    }
    let mut framing = client::framing(&headers)?;
    let mut body = Vec::new();
    while let Some(piece) = client::piece(stream, &mut framing).ok()? {
        body.extend(piece);
    }
    Some((status, String::from_utf8_lossy(&body).into_owned()))
}

/// Sends a case; says what is wrong with what comes back.
fn attempt(to: SocketAddr, case: &Case, number: usize, way: Way) -> Result<(), String> {
    let stream = client::connect(to).map_err(|error| error.to_string())?;
    let mut writer = stream.try_clone().map_err(|error| error.to_string())?;
    let mut reader = BufReader::new(stream);
    if way == Way::Kept {
        writer.write_all(b"GET /before HTTP/1.1\r\nHost: a.example\r\n\r\n").map_err(|e| e.to_string())?;
        let found = answer(&mut reader, "GET");
        if found != Some((200, "seen GET /before".into())) {
            return Err(format!("before it: {found:?}"));
        }
    }
    let after = format!("GET /after-{number} HTTP/1.1\r\nHost: a.example\r\n\r\n");
    let mut bytes = case.bytes.clone();
    if way == Way::Pipelined {
        bytes.extend(after.as_bytes());
    }
    // It may be refused, and the connection closed, before all of it is sent.
    let sent = writer.write_all(&bytes);
    if case.fate == Fate::Harmless {
        // Whether it ends is not known: no answer may be the end of it.
        reader.get_ref().set_read_timeout(Some(QUIET)).map_err(|error| error.to_string())?;
    }
    let mut expected: Vec<(&str, String)> = case
        .meant
        .iter()
        .map(|(method, target, _)| (method.as_str(), format!("seen {method} {target}")))
        .collect();
    if way == Way::Pipelined {
        expected.push(("GET", format!("seen GET /after-{number}")));
    }
    let mut answered = 0;
    let mut refused = false;
    for (method, expected) in &expected {
        match answer(&mut reader, method) {
            Some((200, said)) if said == *expected && !refused => answered += 1,
            Some((200, said)) => return Err(format!("answered {said:?} where {expected:?} was next")),
            Some(_) => refused = true,
            None => break,
        }
    }
    if case.fate == Fate::Refused && expected.is_empty() {
        refused = answer(&mut reader, "GET").is_some_and(|(status, _)| status >= 400);
    }
    match case.fate {
        Fate::Served if answered < case.meant.len() => {
            return Err(format!("{answered} of {} were answered (sent: {sent:?})", case.meant.len()));
        }
        Fate::Refused if answered > 0 => return Err("it was served".into()),
        _ => {}
    }
    if way != Way::Pipelined && !refused {
        // What follows on the same connection is either answered as itself, or the connection has ended.
        let _ = writer.write_all(after.as_bytes());
        match answer(&mut reader, "GET") {
            Some((200, said)) if said != format!("seen GET /after-{number}") => {
                return Err(format!("what followed was answered {said:?}"));
            }
            _ => {}
        }
    }
    if case.fate != Fate::Served {
        let _ = writer.shutdown(Shutdown::Write);
        reader.get_ref().set_read_timeout(Some(harness::DEADLINE)).map_err(|error| error.to_string())?;
        let mut rest = Vec::new();
        let ended = reader.read_to_end(&mut rest);
        if case.fate == Fate::Refused {
            let open = ended.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
            if open || origin::find(&rest, b"seen ").is_some() {
                return Err(format!("after it was refused: {}", rest.escape_ascii()));
            }
        }
    }
    Ok(())
}

/// Whether what arrived with a case's number is what the client meant.
fn meant(case: &Case, number: usize, arrived: &[Seen]) -> Result<(), String> {
    let bodies: HashMap<(&str, &str), &[u8]> = case
        .meant
        .iter()
        .map(|(method, target, body)| ((method.as_str(), target.as_str()), body.as_slice()))
        .collect();
    for seen in arrived {
        if seen.target == format!("/after-{number}") {
            continue;
        }
        match bodies.get(&(seen.method.as_str(), seen.target.as_str())) {
            None => return Err(format!("{} {} arrived", seen.method, seen.target)),
            Some(body) if seen.body != *body => {
                return Err(format!("{} arrived with the body {}", seen.target, seen.body.escape_ascii()));
            }
            Some(_) if case.fate == Fate::Refused => return Err(format!("{} arrived", seen.target)),
            Some(_) => {}
        }
    }
    Ok(())
}

/// Fails with all faults, and with all that reached the origin and should not have.
fn judge(origin: &Origin, mut faults: Vec<String>, of: impl Fn(&[Seen], &mut Vec<String>)) {
    let (requests, violations) = origin.seen();
    faults.extend(violations.into_iter().map(|bytes| format!("the origin could not read {bytes}")));
    for seen in &requests {
        if seen.target.contains("smuggled") {
            faults.push(format!("smuggled: {}", seen.head.escape_ascii()));
        }
        let analysis = HttpRequestData::analyze_raw_request(&seen.head);
        // A GET may have a body (RFC 9110, 9.3.1), and some search engines want one: it is framed like any other.
        let with_body = analysis.reason == ClassificationReason::UndefinedContentLengthSemantics;
        if analysis.tier >= RequestSafetyTier::Ambiguous && !with_body {
            faults.push(format!(
                "http_desync_guardian: {:?}, {:?}: {}",
                analysis.tier,
                analysis.reason,
                seen.head.escape_ascii()
            ));
        }
    }
    of(&requests, &mut faults);
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// The number in a target such as `/12/a` or `/after-12`.
fn number_in(target: &str) -> Option<usize> {
    let digits = target.trim_start_matches(|c: char| !c.is_ascii_digit());
    digits[..digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len())].parse().ok()
}

#[test]
fn no_request_arrives_that_was_not_meant_and_no_answer_is_taken_for_another() {
    let origin = Origin::start();
    let tradewind = start(&origin);
    let cases = corpus::all();
    assert!(cases.len() >= 250, "{} cases", cases.len());
    let mut faults = Vec::new();
    for way in [Way::Fresh, Way::Kept, Way::Pipelined] {
        for (number, case) in cases.iter().enumerate() {
            if let Err(fault) = attempt(tradewind.http, case, number, way) {
                faults.push(format!("{number}, {way:?}, {}: {fault}", case.name));
            }
        }
    }
    // Everybody else is served as before.
    assert_eq!(tradewind.fetch("/sound").status, 200);
    judge(&origin, faults, |requests, faults| {
        for (number, case) in cases.iter().enumerate() {
            let of_case: Vec<Seen> =
                requests.iter().filter(|seen| number_in(&seen.target) == Some(number)).cloned().collect();
            if let Err(fault) = meant(case, number, &of_case) {
                faults.push(format!("{number}, {}: {fault}", case.name));
            }
        }
    });
}

#[test]
fn http2_is_no_way_around() {
    let origin = Origin::start();
    let tradewind = start(&origin);
    let cases = frames::all();
    let mut faults = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        if let Err(fault) = frames::attempt(tradewind.http, case, number) {
            faults.push(format!("{number}, {}: {fault}", case.name));
        }
    }
    judge(&origin, faults, |requests, faults| {
        for seen in requests.iter().filter(|seen| !seen.target.starts_with("/after")) {
            let case = number_in(&seen.target).and_then(|number| cases.get(number));
            match case {
                Some(Http2Case { served: Some(body), .. }) if seen.body == *body => {}
                Some(case) => {
                    faults.push(format!(
                        "{}: {} {} arrived with {}",
                        case.name,
                        seen.method,
                        seen.target,
                        seen.body.escape_ascii()
                    ));
                }
                None => faults.push(format!("{} {} arrived", seen.method, seen.target)),
            }
        }
    });
}

/// Memory that a flood may take beyond what there was before it, in MiB: a stream's buffers are 64 KiB, and there are a
/// hundred of them on a connection.
const FLOOD_MIB_MAX: u64 = 48;

fn held_back(tradewind: &Tradewind) -> f64 {
    tradewind.metric("tradewind_connections_held_back_total{}").expect("it is exposed")
}

#[test]
fn floods_take_no_memory_and_stop_nobody() {
    let origin = Origin::start();
    let tradewind = start(&origin);
    // Buffers that are needed once are there.
    (0..50).for_each(|_| assert_eq!(tradewind.fetch("/before").status, 200));
    let before = floods::resident_mib(tradewind.pid());
    for flood in floods::all() {
        let to = tradewind.http;
        let held = held_back(&tradewind);
        let taken = std::thread::scope(|scope| {
            let sender = scope.spawn(|| floods::send(to, &flood));
            while !sender.is_finished() {
                assert_eq!(tradewind.fetch("/beside").status, 200, "{}", flood.name);
            }
            sender.join().expect("the flood ends")
        });
        let now = floods::resident_mib(tradewind.pid());
        assert!(now < before + FLOOD_MIB_MAX, "{}: from {before} to {now} MiB ({taken} frames)", flood.name);
        assert_eq!(tradewind.fetch("/after").status, 200, "{}", flood.name);
        if flood.paced {
            assert_eq!(held_back(&tradewind), held + 1.0, "{}", flood.name);
        }
    }
}
