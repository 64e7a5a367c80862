//! One cluster in virtual time: its nodes, its autoscaler, its queue and its bill.

use std::collections::VecDeque;

use fastrand::Rng;

use crate::{
    cost::BYTES_PER_GB,
    model::{Backend, Managed, Replicas},
};

/// Seconds in an hour.
const HOUR: f64 = 3600.0;

/// How long an autoscaler waits before it gives capacity back: the greatest wish of this time counts. The default
/// `stabilizationWindowSeconds` of Kubernetes' HorizontalPodAutoscaler for scaling down.
pub(super) const SCALE_DOWN_AFTER_SECONDS: f64 = 300.0;

/// Load that differs from what the replicas are for by no more than this part changes nothing: the default
/// `--horizontal-pod-autoscaler-tolerance` of Kubernetes.
const TOLERANCE: f64 = 0.1;

/// Time within which the autoscaler wants a queue to be worked off, beside what arrives.
const QUEUE_GONE_WITHIN_SECONDS: f64 = 60.0;

/// Replicas by the terms of their nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fleet {
    /// On spot nodes.
    pub spot: u32,
    /// On on-demand nodes, or on a managed platform.
    pub on_demand: u32,
}

impl Fleet {
    /// All replicas.
    pub fn total(self) -> u32 {
        self.spot + self.on_demand
    }

    fn add(&mut self, other: Fleet) {
        self.spot += other.spot;
        self.on_demand += other.on_demand;
    }

    /// Takes away as far as there is something, and says what is still to be taken.
    fn take(&mut self, wanted: Fleet) -> Fleet {
        let spot = wanted.spot.min(self.spot);
        let on_demand = wanted.on_demand.min(self.on_demand);
        self.spot -= spot;
        self.on_demand -= on_demand;
        Fleet { spot: wanted.spot - spot, on_demand: wanted.on_demand - on_demand }
    }
}

/// What is asked of a cluster.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wish {
    /// What arrives and waits, and a load to prepare for, in requests per second.
    Load {
        /// The load to prepare for; 0 for none.
        planned_rps: f64,
        /// Part of the replicas on spot nodes.
        spot_share: f64,
    },
    /// These replicas, whatever the load.
    Exactly(Fleet),
    /// Nothing runs here, not even the minimum.
    Closed,
}

/// What came of the requests of a tick.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Served {
    /// Answered, sooner or later.
    pub answered: f64,
    /// Answered, but later than the objective.
    pub late: f64,
    /// Refused, since they would have waited for too long.
    pub refused: f64,
    /// Time that 95% of them waited for at most, in seconds.
    pub wait_p95_seconds: f64,
}

/// What a tick costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bill {
    /// All of it, in USD.
    pub usd: f64,
    /// What the configured minimum costs, whatever the load.
    pub floor_usd: f64,
}

/// How time and waiting are measured, the same for all clusters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Length of a tick.
    pub tick_seconds: f64,
    /// A request that waits for longer is late; `None` without an objective.
    pub late_after_seconds: Option<f64>,
    /// A request that would wait for longer is refused.
    pub refused_after_seconds: f64,
    /// Part of what a replica can do that it serves within the objective, above 0 and at most 1: the autoscaler adds replicas
    /// from there on, and beyond all of it requests queue.
    pub utilization: f64,
}

#[derive(Clone, Copy, Debug)]
struct Batch {
    ready_at: f64,
    fleet: Fleet,
}

/// A cluster.
#[derive(Clone, Debug)]
pub struct Cluster<'a> {
    replicas: &'a Replicas,
    /// Part of the nodes on spot, as configured.
    pub spot_share: f64,
    per_node: f64,
    disk_usd_per_hour: f64,
    managed: Option<Managed>,
    egress_usd_per_request: f64,
    ready: Fleet,
    starting: VecDeque<Batch>,
    /// Work that waits, in mean requests.
    queue: f64,
    /// Wishes of the last while that no later one exceeds: (tick's end, replicas).
    wishes: VecDeque<(f64, u32)>,
    /// Whether spot nodes were lost in this tick.
    pub interrupted: bool,
}

impl<'a> Cluster<'a> {
    /// An empty cluster; `None` if the backend says not what it can serve.
    pub fn new(backend: &'a Backend, response_bytes: f64) -> Option<Cluster<'a>> {
        let replicas = backend.replicas.as_ref()?;
        let node = backend.node.as_ref().filter(|_| backend.managed.is_none());
        Some(Cluster {
            replicas,
            spot_share: node.map_or(0.0, |node| node.spot.get()),
            per_node: node.map_or(1.0, |node| node.replicas_per_node),
            disk_usd_per_hour: node.map_or(0.0, |node| node.disk_usd_per_hour),
            managed: backend.managed,
            egress_usd_per_request: backend.egress_usd_per_gb.unwrap_or(0.0) * response_bytes / BYTES_PER_GB,
            ready: Fleet::default(),
            starting: VecDeque::new(),
            queue: 0.0,
            wishes: VecDeque::new(),
            interrupted: false,
        })
    }

    /// Replicas that serve.
    pub fn ready(&self) -> Fleet {
        self.ready
    }

    /// Requests per second that are served within the objective.
    pub fn ready_rps(&self) -> f64 {
        self.replicas.capacity_rps(self.ready.total())
    }

    /// Requests per second with all replicas that the autoscaler may have.
    pub fn most_rps(&self) -> f64 {
        self.replicas.capacity_rps(self.replicas.max)
    }

    /// Requests per second of the minimum.
    pub fn least_rps(&self) -> f64 {
        self.replicas.capacity_rps(self.replicas.min)
    }

    /// Work that waits, in mean requests.
    pub fn queued(&self) -> f64 {
        self.queue
    }

    /// How long a request that arrives now waits, in seconds.
    pub fn wait_seconds(&self, pace: &Pace) -> f64 {
        let rate = self.ready_rps() / pace.utilization;
        if self.queue <= 0.0 { 0.0 } else { self.queue / rate.max(f64::MIN_POSITIVE) }
    }

    /// Time begins with what a load needs, ready.
    pub fn start_warm(&mut self, wish: Wish, load_rps: f64, supply: Option<f64>) {
        self.ready = self.wanted(wish, load_rps);
        self.ready.spot = self.ready.spot.min(self.obtainable(supply));
    }

    /// A tick begins: what has started is ready; spot nodes beyond the supply are lost, or by chance where no supply was
    /// recorded.
    pub fn begin(&mut self, now: f64, supply: Option<f64>, chance: &mut Rng, loss_per_node: f64) {
        while let Some(batch) = self.starting.front().filter(|batch| batch.ready_at <= now + 1e-9) {
            self.ready.add(batch.fleet);
            self.starting.pop_front();
        }
        let held = self.held().spot;
        let lost = match supply {
            Some(_) => held.saturating_sub(self.obtainable(supply)),
            // At most one node a tick: of two at once the second follows a tick later.
            None if held > 0 && loss_per_node > 0.0 => {
                let nodes = self.nodes(held);
                // 1 - exp(-x) is never more than x: mostly there is nothing to compute.
                let (drawn, expected) = (chance.f64(), nodes * loss_per_node);
                let happens = drawn < expected && drawn < 1.0 - (-expected).exp();
                if happens { (self.per_node.round().max(1.0) as u32).min(held) } else { 0 }
            }
            None => 0,
        };
        self.interrupted = lost > 0;
        if lost > 0 {
            self.drop_fleet(Fleet { spot: lost, on_demand: 0 });
        }
    }

    /// Requests arrive, evenly over the tick, and wait in one queue. A fluid model: what fits flows through at once.
    pub fn serve(&mut self, requests: f64, work: f64, pace: &Pace) -> Served {
        let rate = self.ready_rps() / pace.utilization;
        // What waits for longer than anybody would has nobody left to wait for.
        let longest = rate * pace.refused_after_seconds;
        let before = self.queue.min(longest);
        let given_up = self.queue - before;
        if rate <= 0.0 {
            self.queue = 0.0;
            return Served { refused: requests + given_up, ..Served::default() };
        }
        let slope = work / pace.tick_seconds - rate;
        let line = Line { from: before, slope, length: pace.tick_seconds };
        let after = (before + slope * pace.tick_seconds).clamp(0.0, longest);
        self.queue = after;
        if before <= 0.0 && after <= 0.0 && slope <= 0.0 {
            return Served { answered: requests, refused: given_up, ..Served::default() };
        }
        // While the queue is as long as it may be, only what is worked off comes in.
        let full_seconds = line.seconds_above(longest - 1e-9);
        let refused_work = full_seconds * slope.max(0.0);
        let refused = if work > 0.0 { requests * (refused_work / work).min(1.0) } else { 0.0 };
        let late = pace.late_after_seconds.map_or(0.0, |seconds| {
            let part = line.seconds_above(rate * seconds) / pace.tick_seconds;
            (requests * part - refused).max(0.0)
        });
        let (low, high) = (before.min(after), before.max(after));
        Served {
            answered: requests - refused,
            late,
            refused: refused + given_up,
            wait_p95_seconds: (high - 0.05 * (high - low)) / rate,
        }
    }

    /// The autoscaler looks at the tick that ends: `load_rps` is the work that arrived.
    pub fn scale(&mut self, wish: Wish, load_rps: f64, supply: Option<f64>, end: f64) {
        let mut wanted = self.wanted(wish, load_rps + self.queue / QUEUE_GONE_WITHIN_SECONDS);
        if let Wish::Load { spot_share, .. } = wish {
            let total = self.stabilized(wanted.total(), end);
            wanted = mixed(total, spot_share);
        }
        let held = self.held();
        let surplus = Fleet {
            spot: held.spot.saturating_sub(wanted.spot),
            on_demand: held.on_demand.saturating_sub(wanted.on_demand),
        };
        if surplus.total() > 0 {
            self.drop_fleet(surplus);
        }
        let more = Fleet {
            spot: wanted.spot.min(self.obtainable(supply)).saturating_sub(held.spot),
            on_demand: wanted.on_demand.saturating_sub(held.on_demand),
        };
        if more.total() > 0 {
            let ready_at = end + self.replicas.cold_start.as_secs_f64();
            self.starting.push_back(Batch { ready_at, fleet: more });
        }
    }

    /// What a tick costs with what runs and starts, at these prices of a node in USD an hour. Prices that are not needed may
    /// be anything.
    pub fn bill(&self, spot_usd: f64, on_demand_usd: f64, answered: f64, pace: &Pace) -> Bill {
        let hours = pace.tick_seconds / HOUR;
        let egress = answered * self.egress_usd_per_request;
        if let Some(managed) = &self.managed {
            let of = |count: u32| f64::from(count) * managed.usd_per_replica_hour * hours;
            let requests = answered * managed.usd_per_request;
            return Bill {
                usd: of(self.held().total()) + requests + egress,
                floor_usd: of(self.replicas.min),
            };
        }
        let of = |fleet: Fleet| {
            let (spot, on_demand) = (self.nodes(fleet.spot), self.nodes(fleet.on_demand));
            let mut usd = (spot + on_demand) * self.disk_usd_per_hour;
            if spot > 0.0 {
                usd += spot * spot_usd;
            }
            if on_demand > 0.0 {
                usd += on_demand * on_demand_usd;
            }
            usd * hours
        };
        let floor_usd = of(mixed(self.replicas.min, self.spot_share));
        Bill { usd: of(self.held()) + egress, floor_usd }
    }

    /// Replicas that can be had on spot nodes.
    pub fn obtainable(&self, supply: Option<f64>) -> u32 {
        supply.map_or(u32::MAX, |nodes| (nodes * self.per_node) as u32)
    }

    fn wanted(&self, wish: Wish, load_rps: f64) -> Fleet {
        match wish {
            Wish::Closed => Fleet::default(),
            Wish::Exactly(fleet) => fleet,
            Wish::Load { planned_rps, spot_share } => {
                let load_rps = load_rps.max(planned_rps);
                let held = self.held().total();
                let ratio = load_rps / self.replicas.capacity_rps(held);
                let count = match (ratio - 1.0).abs() <= TOLERANCE {
                    true => held,
                    // A hair above a whole number counts as that number.
                    false => (load_rps / self.replicas.rps - 1e-6).ceil().max(0.0) as u32,
                };
                mixed(count.clamp(self.replicas.min, self.replicas.max), spot_share)
            }
        }
    }

    /// The greatest wish of the last while.
    fn stabilized(&mut self, wanted: u32, end: f64) -> u32 {
        while self.wishes.back().is_some_and(|(_, earlier)| *earlier <= wanted) {
            self.wishes.pop_back();
        }
        self.wishes.push_back((end, wanted));
        while self.wishes.front().is_some_and(|(at, _)| *at <= end - SCALE_DOWN_AFTER_SECONDS + 1e-9) {
            self.wishes.pop_front();
        }
        self.wishes.front().map_or(wanted, |(_, most)| *most)
    }

    fn held(&self) -> Fleet {
        let mut held = self.ready;
        self.starting.iter().for_each(|batch| held.add(batch.fleet));
        held
    }

    /// Takes away what started last before what is ready.
    fn drop_fleet(&mut self, mut wanted: Fleet) {
        for batch in self.starting.iter_mut().rev() {
            wanted = batch.fleet.take(wanted);
        }
        self.starting.retain(|batch| batch.fleet.total() > 0);
        self.ready.take(wanted);
    }

    fn nodes(&self, replicas: u32) -> f64 {
        if self.per_node == 1.0 { f64::from(replicas) } else { (f64::from(replicas) / self.per_node).ceil() }
    }
}

/// Replicas with this part of them on spot nodes.
pub(super) fn mixed(total: u32, spot_share: f64) -> Fleet {
    if spot_share == 1.0 {
        return Fleet { spot: total, on_demand: 0 };
    }
    let spot = ((f64::from(total) * spot_share).round() as u32).min(total);
    Fleet { spot, on_demand: total - spot }
}

/// A queue over a tick: a straight line.
struct Line {
    from: f64,
    slope: f64,
    length: f64,
}

impl Line {
    /// Seconds of the tick during which it is above a level.
    fn seconds_above(&self, level: f64) -> f64 {
        if self.slope == 0.0 {
            return if self.from > level { self.length } else { 0.0 };
        }
        let crossing = ((level - self.from) / self.slope).clamp(0.0, self.length);
        match (self.slope > 0.0, self.from > level) {
            (true, true) => self.length,
            (true, false) => self.length - crossing,
            (false, true) => crossing,
            (false, false) => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{model::Share, policy::worlds::view};

    const PACE: Pace = Pace {
        tick_seconds: 60.0,
        late_after_seconds: Some(1.0),
        refused_after_seconds: 10.0,
        utilization: 1.0,
    };

    fn backend(min: u32, max: u32, spot: f64, cold_start_seconds: u64) -> Backend {
        let mut backend = (*view("a", 1.0).backend).clone();
        backend.node.as_mut().unwrap().spot = Share::new(spot).unwrap();
        backend.replicas =
            Some(Replicas { min, max, rps: 10.0, cold_start: Duration::from_secs(cold_start_seconds) });
        backend
    }

    fn load(planned_rps: f64) -> Wish {
        Wish::Load { planned_rps, spot_share: 1.0 }
    }

    fn begin(cluster: &mut Cluster<'_>, now: f64, supply: Option<f64>) {
        cluster.begin(now, supply, &mut Rng::with_seed(1), 0.0);
    }

    #[test]
    fn capacity_comes_after_the_cold_start_and_goes_after_the_delay() {
        let backend = backend(1, 9, 1.0, 120);
        let mut cluster = Cluster::new(&backend, 0.0).unwrap();
        cluster.start_warm(load(0.0), 10.0, None);
        let mut ready = Vec::new();
        for tick in 0..12 {
            let now = f64::from(tick) * 60.0;
            begin(&mut cluster, now, None);
            ready.push(cluster.ready().total());
            // Thirty a second for three minutes, then ten.
            let rps = if tick < 3 { 30.0 } else { 10.0 };
            cluster.scale(load(0.0), rps, None, now + 60.0);
        }
        // Wanted from minute 1 on, ready from 3; the last wish for three is of minute 3, and holds until minute 8.
        assert_eq!(ready, [1, 1, 1, 3, 3, 3, 3, 3, 1, 1, 1, 1]);
    }

    #[test]
    fn what_is_announced_is_prepared_for() {
        let backend = backend(0, 4, 1.0, 0);
        let mut cluster = Cluster::new(&backend, 0.0).unwrap();
        cluster.scale(load(25.0), 0.0, None, 60.0);
        begin(&mut cluster, 60.0, None);
        assert_eq!(cluster.ready_rps(), 30.0);
        cluster.scale(load(1e9), 0.0, None, 120.0);
        begin(&mut cluster, 120.0, None);
        assert_eq!(cluster.ready_rps(), 40.0, "never more than the maximum");
        cluster.scale(Wish::Closed, 0.0, None, 180.0);
        assert_eq!(cluster.held(), Fleet::default());
    }

    #[test]
    fn spot_nodes_come_and_go_with_the_supply() {
        let backend = backend(0, 9, 0.5, 0);
        let mut cluster = Cluster::new(&backend, 0.0).unwrap();
        let wish = Wish::Load { planned_rps: 60.0, spot_share: 0.5 };
        cluster.scale(wish, 0.0, Some(2.0), 60.0);
        begin(&mut cluster, 60.0, Some(2.0));
        assert_eq!(cluster.ready(), Fleet { spot: 2, on_demand: 3 });
        begin(&mut cluster, 120.0, Some(1.0));
        assert!(cluster.interrupted);
        assert_eq!(cluster.ready(), Fleet { spot: 1, on_demand: 3 });
    }

    #[test]
    fn a_queue_makes_requests_late_and_then_refuses_them() {
        let backend = backend(1, 9, 1.0, 0);
        let mut cluster = Cluster::new(&backend, 0.0).unwrap();
        cluster.start_warm(load(0.0), 10.0, None);
        assert_eq!(cluster.serve(600.0, 600.0, &PACE), Served { answered: 600.0, ..Served::default() });
        // 12 a second on 10: the queue grows by 2 a second; after 5 s the wait is 1 s, after 50 s it is 10 s.
        let served = cluster.serve(720.0, 720.0, &PACE);
        assert!((served.refused - 20.0).abs() < 1e-6 && (served.answered - 700.0).abs() < 1e-6, "{served:?}");
        assert!((served.late - (660.0 - 20.0)).abs() < 1e-6, "{served:?}");
        assert!((cluster.wait_seconds(&PACE) - 10.0).abs() < 1e-9);
        // Half the load: the queue is gone after 20 s, the wait below a second after 18.
        let served = cluster.serve(300.0, 300.0, &PACE);
        assert!((served.late - 90.0).abs() < 1e-6 && served.refused == 0.0, "{served:?}");
        assert_eq!(cluster.wait_seconds(&PACE), 0.0);
        // What waits when the last replica goes is refused as well.
        cluster.queue = 7.0;
        cluster.ready = Fleet::default();
        assert_eq!(cluster.serve(5.0, 5.0, &PACE).refused, 12.0);
    }

    #[test]
    fn without_patience_whatever_does_not_fit_is_refused() {
        let backend = backend(1, 9, 1.0, 0);
        let mut cluster = Cluster::new(&backend, 0.0).unwrap();
        cluster.start_warm(load(0.0), 10.0, None);
        let served = cluster.serve(720.0, 720.0, &Pace { refused_after_seconds: 0.0, ..PACE });
        assert!((served.refused - 120.0).abs() < 1e-6, "{served:?}");
    }

    #[test]
    fn the_bill_is_nodes_by_the_hour_and_the_minimum_is_paid_anyway() {
        let mut backend = backend(2, 9, 0.5, 0);
        backend.node.as_mut().unwrap().replicas_per_node = 2.0;
        backend.egress_usd_per_gb = Some(0.1);
        let mut cluster = Cluster::new(&backend, 1e6).unwrap();
        cluster.scale(Wish::Load { planned_rps: 60.0, spot_share: 0.5 }, 0.0, None, 60.0);
        let bill = cluster.bill(0.6, 2.4, 1000.0, &PACE);
        // Three replicas of each kind are two nodes of each; a million bytes of each of 1,000 answers are 1 GB.
        assert!((bill.usd - (2.0 * 0.6 + 2.0 * 2.4) / 60.0 - 0.1).abs() < 1e-9, "{bill:?}");
        assert!((bill.floor_usd - (0.6 + 2.4) / 60.0).abs() < 1e-9, "{bill:?}");
        backend.managed = Some(Managed { usd_per_replica_hour: 3.0, usd_per_request: 0.001 });
        let mut cluster = Cluster::new(&backend, 0.0).unwrap();
        cluster.scale(Wish::Load { planned_rps: 60.0, spot_share: 0.0 }, 0.0, None, 60.0);
        let bill = cluster.bill(f64::NAN, f64::NAN, 10.0, &PACE);
        assert!(
            (bill.usd - (6.0 * 3.0 / 60.0 + 0.01)).abs() < 1e-9 && (bill.floor_usd - 0.1).abs() < 1e-9,
            "{bill:?}"
        );
    }

    #[test]
    fn without_a_recorded_supply_nodes_are_lost_at_their_rate() {
        let backend = backend(10, 10, 1.0, 0);
        let mut cluster = Cluster::new(&backend, 0.0).unwrap();
        let mut chance = Rng::with_seed(3);
        let (mut lost, ticks) = (0, 20_000);
        for tick in 0..ticks {
            cluster.scale(load(0.0), 0.0, None, f64::from(tick) * 60.0);
            cluster.begin(f64::from(tick) * 60.0, None, &mut chance, 0.001);
            lost += u32::from(cluster.interrupted);
        }
        let rate = f64::from(lost) / f64::from(ticks) / 10.0;
        assert!((rate / 0.001 - 1.0).abs() < 0.15, "{rate}");
    }
}
