//! How fast a client may send frames of HTTP/2 that carry nothing.
//!
//! PING, SETTINGS and their like cost the sender nothing, and the reader an answer each. A client that sends more of them than its
//! requests call for is not refused: what it sends is read later, so that it meets full buffers and the others meet nobody.

use std::time::Duration;

use tokio::time::Instant;

/// Bytes of a frame's head (RFC 9113, 4.1).
const HEAD: usize = 9;

/// What a client sends before its first frame (RFC 9113, 3.4).
const PREFACE: usize = 24;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const END_STREAM: u8 = 1;
const PADDED: u8 = 8;

/// Longest frame of DATA that may be nothing but padding, with the byte that says how much that is (RFC 9113, 6.1). What is content of
/// it is not known from its head.
const PADDING_MAX: usize = 256;

/// Frames that carry nothing, which a client may send beyond those that requests and answers earn: so many at once, and so many a
/// second. A client begins with three to ten, and pings now and then. At most one that opens a connection for every hundred
/// can do more, and a connection costs it more than the frames do us.
const FREE: u32 = 100;
const FREE_A_SECOND: u32 = 50;

/// Frames that a request earns: to be cancelled, reprioritised and given windows to.
const FREE_A_REQUEST: u32 = 4;

/// Bytes sent to the client that earn it a frame: there are clients that give two windows back for each short event.
const BYTES_A_FREE_FRAME: usize = 64;

/// How long a client is held back that has used up everything: it may send some frames then.
const HELD: Duration = Duration::from_millis(100);

/// Reads along with what a client sends over HTTP/2.
#[derive(Debug)]
pub(super) struct Pace {
    head: [u8; HEAD],
    /// How much of the next head has come.
    have: usize,
    /// Bytes until that head begins.
    skip: usize,
    /// Frames that carry nothing and may come.
    free: u32,
    /// When time last gave some.
    since: Instant,
    /// Bytes sent that have not earned a frame yet.
    sent: usize,
}

/// What may be read of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Admitted {
    /// Bytes from the first on.
    pub(super) bytes: usize,
    /// Until when the rest has to wait; without it, the rest can come next.
    pub(super) held_until: Option<Instant>,
}

impl Pace {
    /// For a connection of which nothing was read.
    pub(super) fn new() -> Pace {
        Pace { head: [0; HEAD], have: 0, skip: PREFACE, free: FREE, since: Instant::now(), sent: 0 }
    }

    /// How much of what has come may be read now. The bytes that may not are to be shown again.
    pub(super) fn admit(&mut self, came: &[u8]) -> Admitted {
        let mut bytes = 0;
        let held_until = loop {
            let skipped = self.skip.min(came.len() - bytes);
            self.skip -= skipped;
            bytes += skipped;
            let rest = &came[bytes..];
            let part = rest.len().min(HEAD - self.have);
            self.head[self.have..self.have + part].copy_from_slice(&rest[..part]);
            if self.have + part < HEAD {
                self.have += part;
                bytes += part;
                break None;
            }
            if !self.pay() {
                break Some(Instant::now() + HELD);
            }
            self.have = 0;
            self.skip = self.len();
            bytes += part;
        };
        Admitted { bytes, held_until }
    }

    /// Length of what follows the head.
    fn len(&self) -> usize {
        let [a, b, c, ..] = self.head.map(usize::from);
        a << 16 | b << 8 | c
    }

    /// The client was sent so much.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
        let earned = u32::try_from(self.sent / BYTES_A_FREE_FRAME).unwrap_or(FREE);
        self.sent %= BYTES_A_FREE_FRAME;
        self.give(earned);
    }

    /// Whether the frame of this head may be read now; it is paid for then.
    fn pay(&mut self) -> bool {
        let [.., kind, flags, _, _, _, _] = self.head;
        let len = self.len();
        let content = if flags & PADDED != 0 { len > PADDING_MAX } else { len > 0 };
        match kind {
            HEADERS => self.give(FREE_A_REQUEST),
            DATA if flags & END_STREAM != 0 || content => {}
            _ => {
                if self.free == 0 {
                    self.wait_is_worth();
                }
                let Some(left) = self.free.checked_sub(1) else { return false };
                self.free = left;
            }
        }
        true
    }

    /// Gives what time has earned.
    fn wait_is_worth(&mut self) {
        let now = Instant::now();
        let seconds = (now - self.since).as_secs_f64();
        self.since = now;
        // As often as it is asked, less than a frame is lost.
        self.give((seconds * f64::from(FREE_A_SECOND)) as u32);
    }

    fn give(&mut self, frames: u32) {
        self.free = self.free.saturating_add(frames).min(FREE);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PING: u8 = 6;

    fn frame(kind: u8, flags: u8, payload: usize) -> Vec<u8> {
        let len = u32::try_from(payload).unwrap().to_be_bytes();
        [&len[1..], &[kind, flags, 0, 0, 0, 1], &vec![0xff; payload]].concat()
    }

    fn begun() -> Pace {
        let mut pace = Pace::new();
        assert_eq!(pace.admit(&[0; PREFACE]).bytes, PREFACE);
        pace
    }

    /// Frames that are read before the client is held back, and until when it is.
    fn until_held(pace: &mut Pace, frame: &[u8], most: usize) -> (usize, Option<Instant>) {
        let flood = frame.repeat(most);
        let Admitted { bytes, held_until } = pace.admit(&flood);
        (bytes / frame.len(), held_until)
    }

    #[tokio::test(start_paused = true)]
    async fn frames_that_carry_nothing_pass_at_a_pace() {
        for nothing in [
            frame(PING, 0, 8),
            frame(4, 0, 0),
            frame(DATA, 0, 0),
            frame(DATA, PADDED, 1),
            frame(9, 0, 0),
            frame(0x42, 0, 3),
        ] {
            let mut pace = begun();
            let (frames, held) = until_held(&mut pace, &nothing, 5000);
            assert_eq!(frames, FREE as usize);
            tokio::time::sleep_until(held.unwrap()).await;
            assert_eq!(until_held(&mut pace, &nothing, 5000).0, 5);
            tokio::time::sleep(Duration::from_secs(3600)).await;
            assert_eq!(
                until_held(&mut pace, &nothing, 5000).0,
                FREE as usize,
                "an hour earns no more than that"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn requests_and_bodies_pass_in_any_number() {
        for something in
            [frame(HEADERS, 5, 20), frame(DATA, 0, 1), frame(DATA, PADDED, 300), frame(DATA, END_STREAM, 0)]
        {
            assert_eq!(until_held(&mut begun(), &something, 50_000), (50_000, None));
        }
        let cancelled = [frame(HEADERS, 5, 20), frame(3, 0, 4)].concat();
        assert_eq!(until_held(&mut begun(), &cancelled, 50_000), (50_000, None));
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_answers_may_give_windows_back() {
        let mut pace = begun();
        let windows = [frame(8, 0, 4), frame(8, 0, 4)].concat();
        for _ in 0..50_000 {
            pace.sent(HEAD + 130);
            assert_eq!(pace.admit(&windows).bytes, windows.len());
        }
        // But no answer earns the PING that asks for it.
        let mut pace = begun();
        let ping = frame(PING, 0, 8);
        let pongs = (0..5000)
            .take_while(|_| {
                pace.sent(ping.len());
                pace.admit(&ping).held_until.is_none()
            })
            .count();
        assert!((130..140).contains(&pongs), "{pongs}");
    }

    proptest! {
        /// However what comes is cut into pieces, the same frames are held back.
        #[test]
        fn pieces_make_no_difference(
            frames in prop::collection::vec((0u8..12, 0u8..2, 0usize..40), 1..200),
            cuts in prop::collection::vec(1usize..50, 1..20),
        ) {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
            runtime.block_on(async {
                let frames = frames.iter().map(|(kind, flags, len)| frame(*kind, *flags, *len));
                let all: Vec<u8> = [vec![0; PREFACE]].into_iter().chain(frames).flatten().collect();
                let whole = Pace::new().admit(&all);
                let (mut pace, mut at) = (Pace::new(), 0);
                for cut in cuts.into_iter().cycle() {
                    let came = &all[at..all.len().min(at + cut)];
                    let admitted = pace.admit(came);
                    at += admitted.bytes;
                    prop_assert_eq!(admitted.bytes < came.len(), admitted.held_until.is_some());
                    if admitted.held_until.is_some() || at == all.len() {
                        prop_assert_eq!(admitted.held_until.is_some(), whole.held_until.is_some());
                        break;
                    }
                }
                // A part of the head that is held may have passed.
                prop_assert!((whole.bytes..whole.bytes + HEAD).contains(&at));
                Ok(())
            })?;
        }
    }
}
