//! What the demo's requests cost, and what they would have cost elsewhere.
//!
//! Recorded time passes `speed` times as fast as real time, so that each real request stands for `speed` requests. An
//! entry is the requests that were served since the last one, at what one more request cost at that moment, compute and
//! egress. The same requests are priced at each cluster alone, and at whichever was the cheapest at that moment: no
//! schedule can cost less, and none that has to move traffic can quite reach it.

/// Dollars spent, and what the same requests would have cost.
#[derive(Clone, Debug, PartialEq)]
pub struct Ledger {
    speed: f64,
    /// Requests counted before, by cluster.
    counted: Vec<u64>,
    spent_usd: Vec<f64>,
    alone_usd: Vec<f64>,
    cheapest_usd: f64,
    unpriced: u64,
}

impl Ledger {
    /// An empty ledger for so many clusters.
    pub fn new(clusters: usize, speed: f64) -> Ledger {
        Ledger {
            speed,
            counted: vec![0; clusters],
            spent_usd: vec![0.0; clusters],
            alone_usd: vec![0.0; clusters],
            cheapest_usd: 0.0,
            unpriced: 0,
        }
    }

    /// Enters what was served since the last call.
    ///
    /// `served` counts all requests that each cluster has served so far; `usd_per_1k` is what 1,000 more would cost there.
    /// Requests are entered in dollars only if the cost of every cluster is known: otherwise they could not be compared.
    pub fn enter(&mut self, served: &[u64], usd_per_1k: &[Option<f64>]) {
        let new: Vec<u64> = served.iter().zip(&self.counted).map(|(now, before)| now - before).collect();
        self.counted.copy_from_slice(served);
        let all_new: u64 = new.iter().sum();
        let Some(costs) = usd_per_1k.iter().copied().collect::<Option<Vec<f64>>>() else {
            self.unpriced += all_new;
            return;
        };
        let usd = |requests: u64, usd_per_1k: f64| requests as f64 * self.speed * usd_per_1k / 1_000.0;
        for (cluster, &cost) in costs.iter().enumerate() {
            self.spent_usd[cluster] += usd(new[cluster], cost);
            self.alone_usd[cluster] += usd(all_new, cost);
        }
        self.cheapest_usd += usd(all_new, costs.iter().copied().fold(f64::INFINITY, f64::min));
    }

    /// Spent, over all clusters.
    pub fn spent_usd(&self) -> f64 {
        self.spent_usd.iter().sum()
    }

    /// What the same requests would have cost at each cluster alone.
    pub fn alone_usd(&self) -> &[f64] {
        &self.alone_usd
    }

    /// What the same requests would have cost at whichever cluster was the cheapest at each moment.
    pub fn cheapest_usd(&self) -> f64 {
        self.cheapest_usd
    }

    /// Requests served by each cluster.
    pub fn served(&self) -> &[u64] {
        &self.counted
    }

    /// Requests that are in no sum of dollars, because a cost was not known when they were served.
    pub fn unpriced(&self) -> u64 {
        self.unpriced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_requests_are_priced_at_every_cluster() {
        let mut ledger = Ledger::new(2, 100.0);
        ledger.enter(&[10, 0], &[Some(1.0), Some(2.0)]);
        ledger.enter(&[10, 10], &[Some(4.0), Some(2.0)]);
        assert_eq!(ledger.spent_usd(), 10.0 * 100.0 * 0.001 + 10.0 * 100.0 * 0.002);
        assert_eq!(ledger.alone_usd(), [5.0, 4.0]);
        assert_eq!(ledger.cheapest_usd(), 3.0);
        assert_eq!((ledger.served(), ledger.unpriced()), (&[10, 10][..], 0));
    }

    #[test]
    fn an_unknown_cost_is_never_taken_for_zero() {
        let mut ledger = Ledger::new(2, 100.0);
        ledger.enter(&[10, 5], &[Some(1.0), None]);
        assert_eq!((ledger.spent_usd(), ledger.cheapest_usd(), ledger.unpriced()), (0.0, 0.0, 15));
    }

    #[test]
    fn nothing_is_cheaper_than_the_cheapest_at_each_moment() {
        let mut rng = fastrand::Rng::with_seed(3);
        let mut ledger = Ledger::new(3, 1.0);
        let mut served = [0; 3];
        for _ in 0..1_000 {
            for count in &mut served {
                *count += rng.u64(..20);
            }
            let costs = [0; 3].map(|_| Some(0.1 + rng.f64()));
            ledger.enter(&served, &costs);
            let others = ledger.alone_usd().iter().copied().chain([ledger.spent_usd()]);
            for other in others {
                assert!(ledger.cheapest_usd() <= other + 1e-9);
            }
        }
    }
}
