//! What threads share without a lock, in every order in which they may come.

/// The atomics of `loom`, which tries all interleavings, in place of the standard library's.
mod atomic {
    pub(super) use loom::sync::atomic::{AtomicU64, Ordering};
}

#[path = "../src/signals/load/sum.rs"]
mod sum;

use loom::{sync::Arc, thread};

/// Two requests report while the board looks: each look sees whole reports, and none is lost or seen twice.
#[test]
fn a_mean_is_never_made_of_half_a_report() {
    loom::model(|| {
        let sum = Arc::new(sum::Sum::default());
        let reporters: Vec<_> = [100, 300]
            .into_iter()
            .map(|value| {
                let sum = sum.clone();
                thread::spawn(move || sum.add(value))
            })
            .collect();
        let first = sum.take();
        reporters.into_iter().for_each(|reporter| reporter.join().unwrap());
        let seen = (first, sum.take());
        let whole = [
            (None, Some(200.0)),
            (Some(100.0), Some(300.0)),
            (Some(300.0), Some(100.0)),
            (Some(200.0), None),
        ];
        assert!(whole.contains(&seen), "{seen:?}");
        assert_eq!(sum.take(), None);
    });
}

#[test]
fn values_that_are_too_large_do_not_carry_into_the_count() {
    loom::model(|| {
        let sum = sum::Sum::default();
        sum.add(u64::MAX);
        sum.add(1);
        assert_eq!(sum.take(), Some((sum::VALUE_MAX + 1) as f64 / 2.0));
    });
}
