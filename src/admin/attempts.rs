//! Tokens that were wrong: whoever shows too many has to wait, whatever is shown next.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Wrong tokens in a row that one address may show. A person who mistypes stays below it, and so does a script that is started
/// again after its token was changed.
const ATTEMPTS: f64 = 10.0;

/// After so long, one more may be shown.
const ONE_MORE_AFTER: Duration = Duration::from_secs(6);

/// Addresses that are remembered. Of more, those that waited longest are forgotten first.
const ADDRESSES_MAX: usize = 4_096;

/// What is left to an address.
#[derive(Debug)]
struct Allowance {
    left: f64,
    at: Instant,
}

impl Allowance {
    fn now(&self, now: Instant) -> f64 {
        let regained = now.saturating_duration_since(self.at).as_secs_f64() / ONE_MORE_AFTER.as_secs_f64();
        (self.left + regained).min(ATTEMPTS)
    }
}

/// What is left to everyone who showed a wrong token lately.
#[derive(Debug, Default)]
pub(super) struct Attempts(Mutex<HashMap<IpAddr, Allowance>>);

impl Attempts {
    /// How long the address has to wait; `None` when it may show a token.
    pub(super) fn wait(&self, from: IpAddr, now: Instant) -> Option<Duration> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let left = known.get(&network(from))?.now(now);
        (left < 1.0).then(|| ONE_MORE_AFTER.mul_f64(1.0 - left))
    }

    /// Notes that a wrong one was shown.
    pub(super) fn failed(&self, from: IpAddr, now: Instant) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= ADDRESSES_MAX {
            known.retain(|_, allowance| allowance.now(now) < ATTEMPTS);
        }
        if known.len() >= ADDRESSES_MAX
            && let Some(oldest) =
                known.iter().min_by_key(|(_, allowance)| allowance.at).map(|(from, _)| *from)
        {
            known.remove(&oldest);
        }
        let allowance = known.entry(network(from)).or_insert(Allowance { left: ATTEMPTS, at: now });
        *allowance = Allowance { left: (allowance.now(now) - 1.0).max(0.0), at: now };
    }
}

/// Who has an IPv6 address has 2^64 of them.
fn network(from: IpAddr) -> IpAddr {
    match from.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_guesses_has_to_wait_and_others_do_not() {
        let (attempts, start) = (Attempts::default(), Instant::now());
        let [guesser, neighbour, other] =
            ["2001:db8::1", "2001:db8::2", "192.0.2.1"].map(|text| text.parse::<IpAddr>().unwrap());
        for _ in 0..10 {
            assert_eq!(attempts.wait(guesser, start), None);
            attempts.failed(guesser, start);
        }
        assert_eq!(attempts.wait(guesser, start), Some(ONE_MORE_AFTER));
        assert_eq!(attempts.wait(neighbour, start), Some(ONE_MORE_AFTER), "it is in the same network");
        assert_eq!(attempts.wait(other, start), None);
        let later = start + ONE_MORE_AFTER;
        assert_eq!(attempts.wait(guesser, later), None);
        attempts.failed(guesser, later);
        assert!(attempts.wait(guesser, later).is_some());
        assert_eq!(attempts.wait(guesser, start + 20 * ONE_MORE_AFTER), None);
    }

    #[test]
    fn no_crowd_fills_the_memory() {
        let (attempts, start) = (Attempts::default(), Instant::now());
        for n in 0..10_000_u32 {
            attempts.failed(IpAddr::V4(n.into()), start);
        }
        assert_eq!(attempts.0.lock().unwrap().len(), ADDRESSES_MAX);
    }
}
