//! Clients that keep asking while something happens.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{Client, pause};

/// One request of a load.
#[derive(Clone, Debug)]
pub struct Record {
    pub begun: Instant,
    pub ended: Instant,
    pub method: &'static str,
    /// The backend that answered, or what went wrong.
    pub outcome: Result<String, String>,
}

/// Clients, each with one request at a time.
pub struct Load {
    stop: Arc<AtomicBool>,
    records: Arc<Mutex<Vec<Record>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// For each method one client, which asks again `gap` after each answer.
    pub fn start(to: SocketAddr, methods: &[&'static str], gap: Duration) -> Load {
        let (stop, records) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let client = |method: &'static str| {
            let (stop, records) = (stop.clone(), records.clone());
            thread::spawn(move || {
                let mut client = Client::new(to);
                while !stop.load(SeqCst) {
                    let begun = Instant::now();
                    let body: &[u8] = if method == "POST" { b"{}" } else { b"" };
                    let answer = client.request(method, "/load", &[], body);
                    let outcome = match answer {
                        Ok(answer) if answer.status == 200 => Ok(answer.text()),
                        Ok(answer) => Err(format!("{}: {}", answer.status, answer.text())),
                        Err(error) => {
                            client = Client::new(to);
                            Err(format!("{:?}: {error}", error.kind()))
                        }
                    };
                    records.lock().unwrap().push(Record { begun, ended: Instant::now(), method, outcome });
                    pause(gap);
                }
            })
        };
        let threads = methods.iter().map(|method| client(method)).collect();
        Load { stop, records, threads }
    }

    /// Requests that have ended so far.
    pub fn count(&self) -> usize {
        self.records.lock().unwrap().len()
    }

    /// Lets every client finish; gives all requests, in the order in which they ended.
    pub fn finish(self) -> Vec<Record> {
        self.stop.store(true, SeqCst);
        for thread in self.threads {
            thread.join().expect("a client only asks");
        }
        let mut records = self.records.lock().unwrap().clone();
        records.sort_by_key(|record| record.ended);
        records
    }
}

/// The failures, counted by method and kind.
pub fn failures(records: &[Record]) -> BTreeMap<(&'static str, String), usize> {
    let mut kinds = BTreeMap::new();
    for record in records {
        if let Err(kind) = &record.outcome {
            *kinds.entry((record.method, kind.clone())).or_insert(0) += 1;
        }
    }
    kinds
}

/// How many of the requests begun from `from` to `to` a backend answered, and how many there were.
pub fn served(records: &[Record], name: &str, from: Instant, to: Instant) -> (usize, usize) {
    let within = |record: &&Record| record.begun >= from && record.begun <= to;
    let all = records.iter().filter(within).count();
    (records.iter().filter(within).filter(|record| record.outcome.as_deref() == Ok(name)).count(), all)
}
