//! gRPC by its C core, client and server, and Triton's client: all kinds of calls work as if the server were local.

mod harness;

use std::{
    io::{BufRead, BufReader, Read},
    process::Stdio,
};

use harness::{Config, Tradewind, python};

const CLIENT: &str = "grpc/client.py";

/// A Tradewind before a gRPC server, which may have gone; `None` where there is no Python.
fn start() -> Option<(python::Server, Tradewind)> {
    let server = python::Server::start("grpc/server.py", &[])?;
    let routes = "[routes.chat]\nmatch = { path = \"/test.Service/*\" }\nbackends = [\"grpc\"]\n\
                  [routes.infer]\nmatch = { path = \"/inference.GRPCInferenceService/*\" }\nbackends = [\"grpc\"]\n";
    // A probe without a path is a connection, which is what a server has that knows no other HTTP than gRPC.
    let config = Config::new(&[])
        .backend("grpc", &format!("http://{}", server.address), "protocol = \"http2\"\n")
        .replace("path = \"/health\", ", "")
        .routes(routes);
    Some((server, Tradewind::start(&config)))
}

#[test]
fn all_kinds_of_calls_pass() {
    let Some((_server, tradewind)) = start() else { return };
    let address = tradewind.http.to_string();
    python::passes(CLIENT, "calls", &[&address]);
    python::passes(CLIENT, "triton", &[&address]);
}

#[test]
fn refusals_are_said_in_grpc() {
    let Some((mut server, tradewind)) = start() else { return };
    server.kill();
    harness::eventually("the backend is unhealthy", || tradewind.backend("grpc")["health"] == "unhealthy");
    python::passes(CLIENT, "refused", &[&tradewind.http.to_string()]);
    for (route, code) in [("chat", 503), ("", 404)] {
        let series = format!("tradewind_requests_total{{route=\"{route}\",backend=\"\",code=\"{code}\"}}");
        assert_eq!(tradewind.metric(&series), Some(1.0), "{series}");
    }
}

#[test]
fn a_stream_that_breaks_is_an_error() {
    let Some((mut server, tradewind)) = start() else { return };
    let Some(mut client) = python::script(CLIENT) else { return };
    let mut client = client
        .args(["broken", &tradewind.http.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("there is a Python");
    let mut said = BufReader::new(client.stdout.take().expect("it is piped"));
    let mut line = String::new();
    said.read_line(&mut line).expect("it says that it has begun");
    assert_eq!(line, "begun\n");
    server.kill();
    let mut rest = String::new();
    said.read_to_string(&mut rest).expect("it ends");
    assert!(client.wait().expect("it ends").success());
    assert_eq!(rest, "passed broken\n");
}
