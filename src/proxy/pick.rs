//! Which backend a request goes to: by the shares in force, evenly spread, without a lock.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// 2^32 divided by the golden ratio, made odd. Adding it over and over visits the circle so evenly that after n requests
/// every backend has had its share of them to within a few: a small share is met after few requests, not only on average.
/// (The additive recurrence with the lowest discrepancy; Knuth, The Art of Computer Programming, vol. 3, 6.4.)
const GOLDEN_STEP: u32 = 0x9E37_79B9;

/// Most attempts for one request: the first and two more. Clients retry too, and the product is what the backends see.
pub const ATTEMPTS_MAX: usize = 3;

/// How one route's requests are divided.
#[derive(Debug)]
pub struct Division {
    /// Upper ends of the backends' parts of the circle, ascending; the last is the whole circle.
    ends: Box<[(u64, usize)]>,
    /// Where to go when the first choice cannot be reached, best first.
    failover: Box<[usize]>,
    position: AtomicU32,
}

impl Division {
    /// Divides by `shares` (index of the backend, share); those of 0 get nothing. `phase` is where the circle is entered:
    /// different in each replica, so that they do not all start with the same backend.
    pub fn new(shares: &[(usize, f64)], failover: &[usize], phase: u32) -> Division {
        let total: f64 = shares.iter().map(|(_, share)| share.max(0.0)).sum();
        let circle = 2f64.powi(32);
        let mut sum = 0.0;
        let mut ends: Vec<(u64, usize)> = shares
            .iter()
            .filter(|(_, share)| *share > 0.0)
            .map(|(backend, share)| {
                sum += share / total;
                ((sum * circle).round() as u64, *backend)
            })
            .collect();
        if let Some(last) = ends.last_mut() {
            last.0 = 1 << 32;
        }
        Division { ends: ends.into(), failover: failover.into(), position: AtomicU32::new(phase) }
    }

    /// Where to go when the first choice cannot be reached, best first.
    pub fn failover(&self) -> &[usize] {
        &self.failover
    }

    /// Goes on where another division stands, so that replacing a table does not disturb the even spread.
    pub fn continue_from(&self, other: &Division) {
        self.position.store(other.position.load(Relaxed), Relaxed);
    }

    /// The next request's place on the circle.
    pub fn next_position(&self) -> u32 {
        self.position.fetch_add(GOLDEN_STEP, Relaxed)
    }

    /// The backend at a place on the circle; `None` when nothing may serve.
    pub fn at(&self, position: u32) -> Option<usize> {
        let place = self.ends.partition_point(|(end, _)| *end <= u64::from(position));
        self.ends.get(place).map(|(_, backend)| *backend)
    }

    /// The best backend that was not tried yet, of those that are `willing` if there is one.
    pub fn next_untried(&self, tried: &[usize], willing: impl Fn(usize) -> bool) -> Option<usize> {
        let mut untried = self.failover.iter().copied().filter(|backend| !tried.contains(backend));
        untried.clone().find(|backend| willing(*backend)).or_else(|| untried.next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_met_to_within_a_few_requests() {
        let division = Division::new(&[(0, 0.9), (1, 0.05), (2, 0.05), (3, 0.0)], &[0, 1, 2], 12345);
        let mut counts = [0i64; 4];
        for n in 1..=1000i64 {
            counts[division.at(division.next_position()).unwrap()] += 1;
            for (count, share) in counts.iter().zip([0.9, 0.05, 0.05, 0.0]) {
                assert!((*count as f64 - n as f64 * share).abs() < 4.0, "{counts:?} after {n}");
            }
        }
    }

    #[test]
    fn nothing_to_pick_from_is_none() {
        let division = Division::new(&[(0, 0.0)], &[], 0);
        assert_eq!(division.at(division.next_position()), None);
        assert_eq!(division.next_untried(&[], |_| true), None);
    }

    #[test]
    fn the_unwilling_are_the_last_resort() {
        let division = Division::new(&[(0, 1.0)], &[0, 1, 2], 0);
        assert_eq!(division.next_untried(&[0], |backend| backend != 1), Some(2));
        assert_eq!(division.next_untried(&[0, 2], |backend| backend != 1), Some(1));
        assert_eq!(division.next_untried(&[0, 1, 2], |_| true), None);
    }

    #[test]
    fn every_place_of_the_circle_has_a_backend() {
        let third = 1.0 / 3.0;
        let division = Division::new(&[(0, third), (1, third), (2, third)], &[], 0);
        for position in [0, 1, u32::MAX / 3, u32::MAX - 1, u32::MAX] {
            assert!(division.at(position).is_some());
        }
    }
}
