//! A mean that many add to and one takes, without a lock.

// `tests/interleavings.rs` compiles this file with loom's atomics in place of these.
use super::atomic::{AtomicU64, Ordering::Relaxed};

/// Bits of the sum; the rest count.
const SUM_BITS: u32 = 40;

/// Largest value that is added: then sixteen million of them between two looks are still a sum and not a carry into the count.
pub(super) const VALUE_MAX: u64 = (1 << SUM_BITS) / (1 << (64 - SUM_BITS)) - 1;

/// Count and sum in one number, so that nobody ever sees one without the other.
#[derive(Debug, Default)]
pub(super) struct Sum(AtomicU64);

impl Sum {
    /// Adds a value; what is above [`VALUE_MAX`] counts as that.
    pub(super) fn add(&self, value: u64) {
        self.0.fetch_add((1 << SUM_BITS) + value.min(VALUE_MAX), Relaxed);
    }

    /// The mean of what was added since the last call; `None` if nothing was.
    pub(super) fn take(&self) -> Option<f64> {
        let both = self.0.swap(0, Relaxed);
        let (count, sum) = (both >> SUM_BITS, both & ((1 << SUM_BITS) - 1));
        (count > 0).then(|| sum as f64 / count as f64)
    }
}
