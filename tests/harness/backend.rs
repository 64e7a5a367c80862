//! A backend that does what a test tells it: plain HTTP/1.1 on threads, so that every byte is under control.

use std::{
    collections::HashMap,
    io::{self, BufRead, BufReader, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use socket2::SockRef;

use super::{
    DEADLINE,
    client::{Framing, find, framing, headers, line, piece},
    pause, until,
};

type Handler = dyn Fn(&mut Call) -> io::Result<()> + Send + Sync;

/// A backend on loopback.
pub struct Backend {
    pub name: String,
    shared: Arc<Shared>,
    address: SocketAddr,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    handler: Box<Handler>,
    stopped: AtomicBool,
    healthy: AtomicBool,
    probe_delay_ms: AtomicU64,
    requests: AtomicU64,
    probes: AtomicU64,
    connections: Mutex<HashMap<u64, TcpStream>>,
    accepted: AtomicU64,
}

/// A request, and the way to answer it.
pub struct Call {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    reader: BufReader<TcpStream>,
    writer: TcpStream,
    body: Framing,
}

impl Backend {
    /// Answers everything with its name.
    pub fn named(name: &str) -> Backend {
        let text = name.to_owned();
        Backend::serving(name, move |call| call.answer(200, &[], text.as_bytes()))
    }

    /// As [`named`](Self::named); but `/stream` answers with two events, the second when the test sends for it.
    pub fn pausing(name: &str) -> (Backend, mpsc::Sender<()>) {
        let (push, pushed) = mpsc::channel::<()>();
        let pushed = Mutex::new(pushed);
        let text = name.to_owned();
        let backend = Backend::serving(name, move |call| {
            if call.path != "/stream" {
                return call.answer(200, &[], text.as_bytes());
            }
            call.begin("text/event-stream")?;
            call.chunk(b"data: 1\n\n")?;
            pushed.lock().unwrap().recv_timeout(DEADLINE).map_err(io::Error::other)?;
            call.chunk(b"data: 2\n\n")?;
            call.end()
        });
        (backend, push)
    }

    /// Answers with its name after a while.
    pub fn slow(name: &str, delay: Duration) -> Backend {
        let text = name.to_owned();
        Backend::serving(name, move |call| {
            pause(delay);
            call.answer(200, &[], text.as_bytes())
        })
    }

    /// Answers as `handler` says. Probes (`GET /health`) are answered before it, and not counted as requests.
    pub fn serving(
        name: &str,
        handler: impl Fn(&mut Call) -> io::Result<()> + Send + Sync + 'static,
    ) -> Backend {
        let shared = Arc::new(Shared {
            handler: Box::new(handler),
            stopped: AtomicBool::new(false),
            healthy: AtomicBool::new(true),
            probe_delay_ms: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            probes: AtomicU64::new(0),
            connections: Mutex::default(),
            accepted: AtomicU64::new(0),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
        let address = listener.local_addr().expect("it is bound");
        let backend = Backend { name: name.into(), shared, address, accepting: Mutex::default() };
        backend.accept(listener);
        backend
    }

    fn accept(&self, listener: TcpListener) {
        let shared = self.shared.clone();
        let accepting = thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.stopped.load(SeqCst) {
                    return;
                }
                let shared = shared.clone();
                thread::spawn(move || shared.serve(stream));
            }
        });
        *self.accepting.lock().unwrap() = Some(accepting);
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Requests that arrived, without probes.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(SeqCst)
    }

    pub fn probes(&self) -> u64 {
        self.shared.probes.load(SeqCst)
    }

    /// Connections accepted so far, those of probes included.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(SeqCst)
    }

    /// What probes hear from now on.
    pub fn set_healthy(&self, healthy: bool) {
        self.shared.healthy.store(healthy, SeqCst);
    }

    /// How long probes wait from now on.
    pub fn set_probe_delay(&self, delay: Duration) {
        self.shared.probe_delay_ms.store(u64::try_from(delay.as_millis()).expect("it is short"), SeqCst);
    }

    /// As if killed: connections break, new ones are refused.
    pub fn stop(&self) {
        self.shared.stopped.store(true, SeqCst);
        let accepting = self.accepting.lock().unwrap().take();
        if let Some(accepting) = accepting {
            // Wakes the thread that accepts, which then lets go of the port.
            drop(TcpStream::connect(self.address));
            accepting.join().expect("it only accepts");
        }
        for stream in self.shared.connections.lock().unwrap().values() {
            // It may have ended by itself.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Comes back on the same port.
    pub fn restart(&self) {
        let listener = until("the port is free again", || TcpListener::bind(self.address).ok());
        self.shared.stopped.store(false, SeqCst);
        self.accept(listener);
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn serve(&self, stream: TcpStream) {
        let number = self.accepted.fetch_add(1, SeqCst);
        let Ok(copy) = stream.try_clone() else { return };
        self.connections.lock().unwrap().insert(number, copy);
        // A broken connection is a normal end here: what matters is what the client of Tradewind sees.
        let _ = self.converse(&stream);
        // One that is to be reset must not be ended in order before: see `Call::reset`.
        if matches!(SockRef::from(&stream).linger(), Ok(None)) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.connections.lock().unwrap().remove(&number);
    }

    fn converse(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(DEADLINE))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            if reader.fill_buf()?.is_empty() || self.stopped.load(SeqCst) {
                return Ok(());
            }
            let first = line(&mut reader)?;
            let mut words = first.split(' ').map(str::to_owned);
            let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let headers = headers(&mut reader)?;
            let body = framing(&headers).unwrap_or(Framing::Ended);
            let mut call = Call { method, path, headers, reader, writer: stream.try_clone()?, body };
            if call.path == "/health" {
                self.probes.fetch_add(1, SeqCst);
                pause(Duration::from_millis(self.probe_delay_ms.load(SeqCst)));
                call.answer(if self.healthy.load(SeqCst) { 200 } else { 503 }, &[], b"")?;
            } else {
                self.requests.fetch_add(1, SeqCst);
                (self.handler)(&mut call)?;
            }
            while call.piece()?.is_some() {}
            if call.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
                return Ok(());
            }
            reader = call.reader;
        }
    }
}

impl Call {
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The next piece of the request's body as it came; `None` at its end.
    pub fn piece(&mut self) -> io::Result<Option<Vec<u8>>> {
        piece(&mut self.reader, &mut self.body)
    }

    /// The whole body of the request.
    pub fn body(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        while let Some(part) = self.piece()? {
            body.extend(part);
        }
        Ok(body)
    }

    /// A complete answer.
    pub fn answer(&mut self, status: u16, headers: &[(&str, &str)], body: &[u8]) -> io::Result<()> {
        let length = body.len().to_string();
        let mut bytes = head(status, headers, ("content-length", &length)).into_bytes();
        bytes.extend_from_slice(body);
        self.writer.write_all(&bytes)
    }

    /// The head of an answer in chunks.
    pub fn begin(&mut self, content_type: &str) -> io::Result<()> {
        let text = head(200, &[("content-type", content_type)], ("transfer-encoding", "chunked"));
        self.writer.write_all(text.as_bytes())
    }

    /// One chunk.
    pub fn chunk(&mut self, content: &[u8]) -> io::Result<()> {
        let mut bytes = format!("{:x}\r\n", content.len()).into_bytes();
        bytes.extend_from_slice(content);
        bytes.extend_from_slice(b"\r\n");
        self.writer.write_all(&bytes)
    }

    /// The end of an answer in chunks.
    pub fn end(&mut self) -> io::Result<()> {
        self.writer.write_all(b"0\r\n\r\n")
    }

    /// Whatever a test wants on the wire.
    pub fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.writer.write_all(bytes)
    }

    /// Breaks the connection.
    pub fn cut(&mut self) -> io::Result<()> {
        self.writer.shutdown(Shutdown::Both)?;
        Err(io::Error::other("cut by the test"))
    }

    /// Breaks the connection with a reset, in place of an end: whatever the other side has not read yet is lost.
    pub fn reset(&mut self) -> io::Result<()> {
        SockRef::from(&self.writer).set_linger(Some(Duration::ZERO))?;
        Err(io::Error::other("reset by the test"))
    }

    /// Waits until the other side has closed the connection; `false` if it did not.
    pub fn wait_for_close(&mut self) -> bool {
        let waited = self.reader.get_ref().set_read_timeout(Some(DEADLINE)).and_then(|()| {
            let rest = self.reader.fill_buf();
            rest.map(<[u8]>::is_empty)
        });
        match waited {
            Ok(closed) => closed,
            Err(error) => !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut),
        }
    }
}

fn head(status: u16, headers: &[(&str, &str)], length: (&str, &str)) -> String {
    let mut text = format!("HTTP/1.1 {status} Scripted\r\n{}: {}\r\n", length.0, length.1);
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text + "\r\n"
}
