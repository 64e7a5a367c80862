//! What is counted about the connections of clients, apart from their requests.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why a connection was ended by us, with or without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TurnedAway {
    /// As many connections as there may be were open.
    Full,
    /// As many connections as there may be from one address were open.
    FullForAddress,
    /// It did not begin with the PROXY header that it must begin with.
    ProxyHeader,
    /// No TLS connection came about.
    Handshake,
    /// The head of a request, or what comes before it, took too long.
    Slow,
    /// The head of a request was too long, or had too many headers.
    HeadTooLarge,
    /// The client took nothing of its answer for too long.
    Stalled,
}

impl TurnedAway {
    /// All reasons, in the order of their declaration.
    pub const ALL: [TurnedAway; 7] = [
        TurnedAway::Full,
        TurnedAway::FullForAddress,
        TurnedAway::ProxyHeader,
        TurnedAway::Handshake,
        TurnedAway::Slow,
        TurnedAway::HeadTooLarge,
        TurnedAway::Stalled,
    ];

    /// As metrics spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            TurnedAway::Full => "full",
            TurnedAway::FullForAddress => "full_for_address",
            TurnedAway::ProxyHeader => "proxy_header",
            TurnedAway::Handshake => "handshake",
            TurnedAway::Slow => "slow",
            TurnedAway::HeadTooLarge => "head_too_large",
            TurnedAway::Stalled => "stalled",
        }
    }
}

/// Counts connections.
#[derive(Debug, Default)]
pub struct ConnectionMeter {
    open: AtomicU64,
    accepted: AtomicU64,
    held_back: AtomicU64,
    turned_away: [AtomicU64; TurnedAway::ALL.len()],
}

impl ConnectionMeter {
    /// One more is open, unless `max` are.
    pub fn enter(&self, max: u64) -> bool {
        self.accepted.fetch_add(1, Relaxed);
        let entered =
            self.open.fetch_update(Relaxed, Relaxed, |open| (open < max).then_some(open + 1)).is_ok();
        if !entered {
            self.turn_away(TurnedAway::Full);
        }
        entered
    }

    /// One that had entered is closed.
    pub fn leave(&self) {
        self.open.fetch_sub(1, Relaxed);
    }

    /// One sends frames that carry nothing faster than it may, for the first time.
    pub fn hold_back(&self) {
        self.held_back.fetch_add(1, Relaxed);
    }

    /// One is ended by us.
    pub fn turn_away(&self, why: TurnedAway) {
        self.turned_away[why as usize].fetch_add(1, Relaxed);
    }

    /// Connections that are open.
    pub fn open(&self) -> u64 {
        self.open.load(Relaxed)
    }

    /// Connections so far.
    pub fn accepted(&self) -> u64 {
        self.accepted.load(Relaxed)
    }

    /// Connections so far that were held back.
    pub fn held_back(&self) -> u64 {
        self.held_back.load(Relaxed)
    }

    /// Connections that were ended by us, by reason.
    pub fn turned_away(&self) -> [(TurnedAway, u64); TurnedAway::ALL.len()] {
        TurnedAway::ALL.map(|why| (why, self.turned_away[why as usize].load(Relaxed)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_enter_than_there_may_be() {
        let meter = ConnectionMeter::default();
        assert_eq!([meter.enter(2), meter.enter(2), meter.enter(2)], [true, true, false]);
        meter.leave();
        assert!(meter.enter(2));
        assert_eq!((meter.open(), meter.accepted()), (2, 4));
        assert_eq!(meter.turned_away()[0], (TurnedAway::Full, 1));
    }

    #[test]
    fn every_reason_has_a_place_and_a_name_of_its_own() {
        for (index, why) in TurnedAway::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, index);
            assert!(TurnedAway::ALL[..index].iter().all(|other| other.as_str() != why.as_str()));
        }
    }
}
