//! How many requests are under way at a backend at once, and who waits for a place there.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed, Ordering::SeqCst},
};

use tokio::sync::Notify;

use crate::model::{LimitSpec, Priority};

/// Counts who is inside, and lets others in as they leave. It lives as long as the process, and is made wider or narrower.
#[derive(Debug, Default)]
pub struct Gate {
    /// As many may be inside.
    max: AtomicU64,
    inside: AtomicU64,
    waiting: AtomicU64,
    refused: [AtomicU64; Priority::ALL.len()],
    left: Notify,
}

/// A place inside, until it is dropped.
#[derive(Debug)]
pub struct Pass(Arc<Gate>);

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, SeqCst);
        // In this order: who counts himself as waiting after this look sees the place that was given up before it.
        if self.0.waiting.load(SeqCst) > 0 {
            self.0.left.notify_one();
        }
    }
}

/// A place in the queue, until it is dropped.
struct Queued<'a>(&'a Gate);

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, SeqCst);
    }
}

impl Gate {
    /// As many may be inside from now on. Who waits gets the places that this adds: they would be nobody's, since a place is
    /// given on by who leaves it.
    pub fn resize(&self, max: u64) {
        let before = self.max.swap(max, SeqCst);
        let more = max.saturating_sub(before).min(self.waiting.load(SeqCst));
        (0..more).for_each(|_| self.left.notify_one());
    }

    /// A place, if one is free and nobody waits for it.
    pub fn enter(self: &Arc<Gate>) -> Option<Pass> {
        if self.waiting.load(SeqCst) > 0 { None } else { self.take() }
    }

    fn take(self: &Arc<Gate>) -> Option<Pass> {
        let max = self.max.load(SeqCst);
        let more = |inside: u64| (inside < max).then_some(inside + 1);
        self.inside.fetch_update(SeqCst, SeqCst, more).ok().map(|_| Pass(self.clone()))
    }

    /// A place as soon as one is free. `None`, and counted, if the queue has no room for this priority or the wait is too
    /// long.
    pub async fn wait(self: &Arc<Gate>, limit: &LimitSpec, priority: Priority) -> Option<Pass> {
        let pass = match self.queue(limit, priority) {
            None => None,
            Some(_queued) => tokio::time::timeout(limit.wait_timeout, self.next()).await.ok(),
        };
        if pass.is_none() {
            self.refused[priority as usize].fetch_add(1, Relaxed);
        }
        pass
    }

    fn queue(&self, limit: &LimitSpec, priority: Priority) -> Option<Queued<'_>> {
        let places = priority.places(limit.max_waiting);
        let more = |waiting: u64| (waiting < places).then_some(waiting + 1);
        self.waiting.fetch_update(SeqCst, SeqCst, more).ok().map(|_| Queued(self))
    }

    async fn next(self: &Arc<Gate>) -> Pass {
        loop {
            let left = self.left.notified();
            tokio::pin!(left);
            // Before the look: who leaves after it wakes this one.
            left.as_mut().enable();
            if let Some(pass) = self.take() {
                return pass;
            }
            left.await;
        }
    }

    /// Requests that wait.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Relaxed)
    }

    /// Requests that were refused, in the order of [`Priority::ALL`].
    pub fn refused(&self) -> [u64; Priority::ALL.len()] {
        std::array::from_fn(|priority| self.refused[priority].load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn gate(max_in_flight: u64, max_waiting: u64) -> (Arc<Gate>, LimitSpec) {
        let gate = Arc::new(Gate::default());
        gate.resize(max_in_flight);
        (gate, LimitSpec { max_in_flight, max_waiting, wait_timeout: Duration::from_secs(5) })
    }

    #[tokio::test(start_paused = true)]
    async fn places_are_given_on_in_order_and_never_more_than_there_are() {
        let (gate, limit) = gate(2, 100);
        let first: Vec<Pass> = (0..2).map(|_| gate.enter().unwrap()).collect();
        assert!(gate.enter().is_none());
        let waiters: Vec<_> = (0..20)
            .map(|_| {
                let (gate, limit) = (gate.clone(), limit.clone());
                tokio::spawn(async move {
                    let pass = gate.wait(&limit, Priority::High).await.expect("its turn comes");
                    assert!(gate.inside.load(SeqCst) <= 2);
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    drop(pass);
                })
            })
            .collect();
        tokio::task::yield_now().await;
        assert_eq!(gate.waiting(), 20);
        drop(first);
        assert!(gate.enter().is_none(), "nobody passes those who wait");
        for waiter in waiters {
            waiter.await.unwrap();
        }
        assert_eq!((gate.waiting(), gate.inside.load(SeqCst), gate.refused()), (0, 0, [0; 3]));
        assert!(gate.enter().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_wider_gate_lets_in_who_waits() {
        let (gate, limit) = gate(1, 100);
        let _inside = gate.enter().unwrap();
        let waiters: Vec<_> = (0..3)
            .map(|_| {
                let (gate, limit) = (gate.clone(), limit.clone());
                tokio::spawn(async move { gate.wait(&limit, Priority::High).await })
            })
            .collect();
        tokio::task::yield_now().await;
        gate.resize(3);
        let started = tokio::time::Instant::now();
        let [first, second, third] = waiters.try_into().unwrap();
        let _passes = (first.await.unwrap().unwrap(), second.await.unwrap().unwrap());
        assert!(started.elapsed().is_zero(), "the first two wait for nobody to leave");
        gate.resize(1);
        assert!(third.await.unwrap().is_none());
        assert_eq!(gate.inside.load(SeqCst), 3, "who is inside stays");
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_ends_and_less_important_requests_are_refused_first() {
        let (gate, limit) = gate(1, 4);
        let _inside = gate.enter().unwrap();
        let started = tokio::time::Instant::now();
        assert!(gate.wait(&limit, Priority::Low).await.is_none());
        assert_eq!(started.elapsed(), limit.wait_timeout);
        let wait = |priority| {
            let (gate, limit) = (gate.clone(), limit.clone());
            tokio::spawn(async move { gate.wait(&limit, priority).await.is_some() })
        };
        let _one = wait(Priority::Low);
        tokio::task::yield_now().await;
        assert!(!wait(Priority::Low).await.unwrap(), "a quarter is taken");
        let _others = [wait(Priority::Normal), wait(Priority::Normal)];
        tokio::task::yield_now().await;
        assert!(!wait(Priority::Normal).await.unwrap(), "three quarters are taken");
        let _last = wait(Priority::High);
        tokio::task::yield_now().await;
        assert!(!wait(Priority::High).await.unwrap(), "it is full");
        assert_eq!(gate.refused(), [2, 1, 1]);
    }
}
