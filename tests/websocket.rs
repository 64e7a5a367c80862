//! WebSockets, by a client and a server that others wrote.

mod harness;

use std::{
    io::{BufRead, BufReader, Write},
    process::Stdio,
};

use harness::{Config, Tradewind, eventually, python};

const CLIENT: &str = "websocket/client.py";

fn start() -> Option<(python::Server, Tradewind)> {
    let server = python::Server::start("websocket/server.py", &[])?;
    let tradewind =
        Tradewind::start(&Config::new(&[]).backend("ws", &format!("http://{}", server.address), ""));
    Some((server, tradewind))
}

#[test]
fn a_web_socket_is_as_if_the_server_were_local() {
    let Some((_server, tradewind)) = start() else { return };
    python::passes(CLIENT, "talk", &[&tradewind.http.to_string()]);
}

/// A web socket is a request under way: a draining process waits for it, and it goes on as before.
#[test]
fn a_web_socket_outlives_the_order_to_stop() {
    let Some((_server, mut tradewind)) = start() else { return };
    let Some(mut client) = python::script(CLIENT) else { return };
    let mut client = client
        .args(["hold", &tradewind.http.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("there is a Python");
    let mut said = BufReader::new(client.stdout.take().expect("it is piped")).lines();
    let mut next = || said.next().expect("it says something").expect("it is text");
    assert_eq!(next(), "begun");
    eventually("it is seen as under way", || tradewind.backend("ws")["in_flight"] == 1);
    tradewind.signal("TERM");
    eventually("it accepts nothing more", || std::net::TcpStream::connect(tradewind.http).is_err());
    let mut input = client.stdin.take().expect("it is piped");
    for word in ["still", "here"] {
        writeln!(input, "{word}").expect("it reads");
        assert_eq!(next(), word);
    }
    drop(input);
    assert_eq!(next(), "passed hold");
    assert!(client.wait().expect("it ends").success());
    eventually("it has ended", || tradewind.ended().is_some_and(|status| status.success()));
}
