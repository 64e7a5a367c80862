//! Which backend a request goes to: by the shares in force, evenly spread, without a lock.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// 2^32 divided by the golden ratio, made odd. Adding it over and over visits the circle so evenly that after n requests
/// every backend has had its share of them to within a few: a small share is met after few requests, not only on average.
/// (The additive recurrence with the lowest discrepancy; Knuth, The Art of Computer Programming, vol. 3, 6.4.)
const GOLDEN_STEP: u32 = 0x9E37_79B9;

/// How far above its share of the requests under way a backend may be before those that belong to it go to another one: the bound of
/// "Consistent Hashing with Bounded Loads" (Mirrokni, Thorup, Zadimoghaddam, 2018), with the same 1.25 as in its first uses.
const LOAD_BOUND: f64 = 1.25;

/// Most attempts for one request: the first and two more. Clients retry too, and the product is what the backends see.
pub const ATTEMPTS_MAX: usize = 3;

/// How one route's requests are divided.
#[derive(Debug)]
pub struct Division {
    /// Upper ends of the backends' parts of the circle, ascending; the last is the whole circle.
    ends: Box<[(u64, usize)]>,
    /// The same parts as shares above 0, which sum to 1.
    parts: Box<[(usize, f64)]>,
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
        let parts = shares.iter().filter(|(_, share)| *share > 0.0);
        let parts = parts.map(|(backend, share)| (*backend, share / total)).collect();
        Division { ends: ends.into(), parts, failover: failover.into(), position: AtomicU32::new(phase) }
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

    /// The backend for all requests of one `key`, by weighted rendezvous hashing: in the mean over many keys each backend has its share,
    /// and when shares change, no more keys move than have to. Where many requests of its keys are under way, further ones go to the
    /// next best, so that no backend is more than a quarter above its share. `seed` says what stands for a backend, `load` how many
    /// requests are under way there. `None` when nothing may serve.
    pub fn at_key(
        &self,
        key: u64,
        seed: impl Fn(usize) -> u64,
        load: impl Fn(usize) -> u64,
    ) -> Option<usize> {
        let total: u64 = self.parts.iter().map(|(backend, _)| load(*backend)).sum();
        let has_room = |backend: usize, share: f64| {
            let bound = (LOAD_BOUND * share * (total + 1) as f64).ceil();
            (load(backend) + 1) as f64 <= bound
        };
        // The least of exponential variates with these rates is each one's with the probability of its share (Efraimidis and
        // Spirakis, 2006).
        let rank = |backend: usize, share: f64| -unit(mix(key ^ seed(backend))).ln() / share;
        self.parts
            .iter()
            .filter(|(backend, share)| has_room(*backend, *share))
            .map(|(backend, share)| (rank(*backend, *share), *backend))
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, backend)| backend)
    }

    /// The best backend that was not tried yet, of those that are `willing` if there is one.
    pub fn next_untried(&self, tried: &[usize], willing: impl Fn(usize) -> bool) -> Option<usize> {
        let mut untried = self.failover.iter().copied().filter(|backend| !tried.contains(backend));
        untried.clone().find(|backend| willing(*backend)).or_else(|| untried.next())
    }
}

/// What stands for some bytes: the same in every process and release, so that replicas of Tradewind agree (FNV-1a by Fowler, Noll
/// and Vo, 64 bits).
pub fn fingerprint(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Spreads every bit over all (the finalizer of SplitMix64, by Steele, Lea and Flood, 2014).
fn mix(mut bits: u64) -> u64 {
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

/// A number above 0 and below 1 from 53 bits.
fn unit(bits: u64) -> f64 {
    ((bits >> 11) as f64 + 0.5) / (1u64 << 53) as f64
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

    /// How many of 10,000 keys go where, without load.
    fn by_key(division: &Division) -> Vec<usize> {
        let seed = |backend: usize| fingerprint(format!("b{backend}").as_bytes());
        let key = |n: u32| fingerprint(&n.to_le_bytes());
        (0..10_000).filter_map(|n| division.at_key(key(n), seed, |_| 0)).collect()
    }

    #[test]
    fn keys_are_divided_by_the_shares_and_few_move_with_them() {
        let before = by_key(&Division::new(&[(0, 0.5), (1, 0.3), (2, 0.2)], &[], 0));
        for (backend, expected) in [(0, 5000), (1, 3000), (2, 2000)] {
            let count = before.iter().filter(|found| **found == backend).count() as i64;
            // Six standard deviations of a binomial variate.
            assert!((count - expected).abs() < 300, "{backend}: {count}");
        }
        let after = by_key(&Division::new(&[(0, 0.4), (1, 0.3), (2, 0.3)], &[], 0));
        let moved = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        assert!((900..1500).contains(&moved), "{moved} of 1,000 that have to");
        // One that is gone leaves the keys of others where they are.
        let without = by_key(&Division::new(&[(0, 0.5), (1, 0.3), (2, 0.0)], &[], 0));
        assert!(before.iter().zip(&without).all(|(before, after)| *before == 2 || before == after));
    }

    #[test]
    fn a_key_that_asks_for_too_much_is_shared() {
        let division = Division::new(&[(0, 0.5), (1, 0.5)], &[], 0);
        let mut loads = [0u64; 2];
        for _ in 0..100 {
            let chosen = division.at_key(7, |backend| backend as u64, |backend| loads[backend]).unwrap();
            loads[chosen] += 1;
        }
        assert!(loads.iter().all(|load| (36..=64).contains(load)), "{loads:?}");
    }

    #[test]
    fn nothing_to_pick_from_is_none() {
        let division = Division::new(&[(0, 0.0)], &[], 0);
        assert_eq!(division.at(division.next_position()), None);
        assert_eq!(division.at_key(1, |_| 0, |_| 0), None);
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
