//! What a plan promises, for any backends and prices.

use std::time::Duration;

use proptest::{
    prelude::{Just, ProptestConfig, prop},
    prop_assert, prop_assert_eq, prop_oneof, proptest,
    strategy::Strategy as _,
};

use super::*;
use crate::{
    cost,
    model::{Interruptions, Managed, Node, Replicas, Share},
    policy::worlds::{at, price, view},
};

/// What a test sets about a backend.
#[derive(Clone, Debug)]
struct Case {
    cloud: Cloud,
    region: String,
    spot: f64,
    on_demand: f64,
    spot_share: f64,
    disk: f64,
    min: u32,
    max: u32,
    rps: f64,
    per_node: f64,
    egress: f64,
    cold_start: u64,
}

impl Case {
    fn new(region: &str, spot: f64, on_demand: f64) -> Case {
        Case {
            cloud: Cloud::Other,
            region: region.into(),
            spot,
            on_demand,
            spot_share: 0.0,
            disk: 0.0,
            min: 0,
            max: 1000,
            rps: 10.0,
            per_node: 1.0,
            egress: 0.0,
            cold_start: 0,
        }
    }

    fn backend(&self) -> Backend {
        let world = view(&self.region, 1.0);
        let mut backend = (*world.backend).clone();
        (backend.cloud, backend.region) = (self.cloud, self.region.clone());
        backend.egress_usd_per_gb = Some(self.egress);
        backend.node = Some(Node {
            spot: Share::new(self.spot_share).unwrap(),
            replicas_per_node: self.per_node,
            disk_usd_per_hour: self.disk,
            interruptions: Interruptions {
                per_node_hour: Some(0.25),
                work_lost: Duration::from_secs(self.cold_start / 2),
            },
            ..backend.node.unwrap()
        });
        let cold_start = Duration::from_secs(self.cold_start);
        backend.replicas = Some(Replicas { min: self.min, max: self.max, rps: self.rps, cold_start });
        backend
    }
}

fn course(steps: &[(usize, f64)]) -> Course {
    let step = |(from_hour, usd_per_hour): &(usize, f64)| Step {
        from_hour: *from_hour,
        usd_per_hour: *usd_per_hour,
        observed_at: at(0),
    };
    Course { source: "test".into(), steps: steps.iter().map(step).collect(), note: None }
}

/// A plan for these backends at their prices, over the range and at the traffic.
fn planned(cases: &[Case], day: &Day, traffic: (f64, f64, usize), at_rps: f64) -> Plan {
    let prices = |case: &Case| {
        let spot = Ok(course(&[(0, case.spot)]));
        Some(NodePrices { spot, on_demand: Ok(course(&[(0, case.on_demand)])) })
    };
    let prices: Vec<_> = cases.iter().map(prices).collect();
    let backends: Vec<_> = cases.iter().map(|case| Arc::new(case.backend())).collect();
    asked(&backends, &prices, &Window::DAY, day, traffic, at_rps)
}

fn asked(
    backends: &[Arc<Backend>],
    prices: &[Option<NodePrices>],
    window: &Window,
    day: &Day,
    (from, to, points): (f64, f64, usize),
    at_rps: f64,
) -> Plan {
    let question = Question {
        backends,
        prices,
        window,
        fees: Fees::builtin(),
        day,
        response_bytes: 4096.0,
        operation_usd_per_cluster: 0.0,
        assumed_interruptions: |_| 0.381,
    };
    plan(&question, &Traffic::new(from, to, points).unwrap(), at_rps)
}

fn bill<'p>(point: &'p Point, id: &str) -> &'p Bill {
    point.bills.iter().find(|bill| bill.id == id).unwrap_or_else(|| panic!("no {id}"))
}

fn total(point: &Point, id: &str) -> f64 {
    bill(point, id).usd_per_month.unwrap_or_else(|| panic!("{id} does not carry it"))
}

fn sum(bill: &Bill, kinds: &[LineKind]) -> f64 {
    bill.lines.iter().filter(|line| kinds.contains(&line.kind)).map(|line| line.usd_per_month).sum()
}

fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-6)
}

#[test]
fn a_month_in_the_head() {
    // 100 requests/s all day on replicas of 10: 10 nodes, 7,300 node-hours at 1 and 0.2 USD.
    let plan = planned(&[Case::new("r", 0.2, 1.0)], &Day::flat(), (1.0, 200.0, 3), 100.0);
    assert!(near(total(&plan.at, "static_on_demand/r"), 7300.0));
    assert!(near(total(&plan.at, "autoscale_on_demand/r"), 7300.0));
    // 90% at 0.2 and 10% at 1.
    assert!(near(total(&plan.at, "autoscale_spot/r"), 7300.0 * 0.28));
    assert_eq!(plan.at.cheapest.as_deref(), Some("autoscale_spot/r"));
    let why: Vec<_> = plan.unknown.iter().map(|unknown| (unknown.kind, unknown.why.as_str())).collect();
    let none = "there is no second backend, whose cost as spot is known, outside of other r";
    assert_eq!(why, [(Kind::TwoCloudsFixed, none), (Kind::TwoCloudsShifting, none)]);
}

/// The router and the plan must not tell two stories.
#[test]
fn a_full_node_costs_what_the_router_says() {
    let case = Case {
        spot_share: 0.75,
        disk: 0.02,
        egress: 0.09,
        cold_start: 300,
        per_node: 2.0,
        ..Case::new("r", 0.3, 1.1)
    };
    let plan = planned(std::slice::from_ref(&case), &Day::flat(), (1.0, 200.0, 3), 160.0);
    let mut world = view("r", 0.3);
    world.backend = Arc::new(case.backend());
    world.on_demand = Some(price(1.1));
    world.interruptions.per_node_hour = 0.25;
    let unit = cost::cost_of(&world, 4096.0).unwrap().unit;
    let requests = 160.0 * MONTH_HOURS * 3600.0;
    let said = unit.total() * requests / 1000.0;
    let billed = total(&plan.at, "autoscale_spot/r");
    assert!(near(billed, said), "{billed} against {said}");
}

#[test]
fn static_capacity_is_for_the_busiest_hour() {
    let mut day = Day::flat();
    day.hourly_factors = [0.5; HOURS];
    day.hourly_factors[7] = 12.5;
    let plan = planned(&[Case::new("r", 0.2, 1.0)], &day, (1.0, 200.0, 3), 20.0);
    // 250 requests/s in one hour, 10 in the others: 25 nodes, or 1.
    assert!(near(total(&plan.at, "static_on_demand/r"), 25.0 * 730.0));
    assert!(near(total(&plan.at, "autoscale_on_demand/r"), (25.0 + 23.0) * 730.0 / 24.0));
}

#[test]
fn what_is_beyond_the_replicas_is_not_priced() {
    let case = Case { max: 5, ..Case::new("r", 0.2, 1.0) };
    let plan = planned(&[case], &Day::flat(), (1.0, 200.0, 3), 51.0);
    let said = bill(&plan.at, "autoscale_spot/r");
    assert_eq!((said.usd_per_month, said.lines.len()), (None, 0));
    assert_eq!(
        said.not_carried.as_deref(),
        Some("`r` would need 6 replicas in the busiest hour (51.0 requests/s), and may have 5")
    );
    assert_eq!(plan.at.cheapest, None);
    let change = plan.break_even.changes.last().unwrap();
    assert_eq!(change.after, None);
    assert!(change.above_rps < 50.001 && change.at_rps > 50.0, "{change:?}");
}

#[test]
fn a_missing_price_is_unknown_and_not_free() {
    let case = Case::new("r", 0.2, 1.0);
    let prices = NodePrices { spot: Err("no spot price".into()), on_demand: Ok(course(&[(0, 1.0)])) };
    let backends = [Arc::new(case.backend())];
    let plan = asked(&backends, &[Some(prices)], &Window::DAY, &Day::flat(), (1.0, 9.0, 2), 5.0);
    let priced: Vec<_> = plan.strategies.iter().map(|strategy| strategy.id.as_str()).collect();
    assert_eq!(priced, ["static_on_demand/r", "autoscale_on_demand/r"]);
    assert_eq!(plan.unknown[0].why, "no spot price");
}

#[test]
fn two_clouds_share_as_they_say() {
    let cheap = Case { min: 1, max: 10, ..Case::new("a", 0.1, 0.1) };
    let dear = Case { min: 2, max: 10, ..Case::new("b", 0.2, 0.2) };
    let plan = planned(&[dear, cheap], &Day::flat(), (1.0, 300.0, 5), 90.0);
    // Half each: 45 requests/s are 5 nodes.
    assert!(near(total(&plan.at, "two_clouds_fixed/a+b"), 730.0 * (5.0 * 0.1 + 5.0 * 0.2)));
    // 10 on the paid node of a, 20 on those of b, 60 more at a: 7 and 2 nodes.
    assert!(near(total(&plan.at, "two_clouds_shifting/a+b"), 730.0 * (7.0 * 0.1 + 2.0 * 0.2)));
    let shifting = plan.strategies.iter().find(|strategy| strategy.kind == Kind::TwoCloudsShifting).unwrap();
    assert!(shifting.notes.last().unwrap().contains("`a` is the cheaper one in every hour"));
}

#[test]
fn traffic_follows_the_price_hour_by_hour() {
    let backends = ["a", "b"].map(|name| Arc::new(Case::new(name, 1.0, 1.0).backend()));
    // `a` costs 1, but 5 for the second half of the two days; `b` always 2.
    let prices = [course(&[(0, 1.0), (24, 5.0)]), course(&[(0, 2.0)])];
    let prices = prices.map(|course| Some(NodePrices { spot: Ok(course.clone()), on_demand: Ok(course) }));
    let window = Window { from: Some(at(0)), first_hour_of_day: 22, hours: 48 };
    let plan = asked(&backends, &prices, &window, &Day::flat(), (1.0, 300.0, 5), 10.0);
    assert!(near(total(&plan.at, "autoscale_on_demand/a"), 730.0 * 3.0));
    assert!(near(total(&plan.at, "two_clouds_fixed/b+a"), 730.0 * (3.0 + 2.0)));
    assert!(near(total(&plan.at, "two_clouds_shifting/b+a"), 730.0 * (0.5 * 1.0 + 0.5 * 2.0)));
    let shifting = plan.strategies.iter().find(|strategy| strategy.kind == Kind::TwoCloudsShifting).unwrap();
    insta::assert_snapshot!(
        shifting.notes.last().unwrap(),
        @"`b` is the cheaper one in 24 of 48 hours, `a` in 24; the traffic moves 1 times, at once and free of charge"
    );
}

#[test]
fn managed_replicas_are_billed_by_hour_and_request() {
    let mut backend = Case { min: 2, ..Case::new("m", 1.0, 1.0) }.backend();
    (backend.node, backend.managed) =
        (None, Some(Managed { usd_per_replica_hour: 2.0, usd_per_request: 1e-6 }));
    let plan = asked(&[Arc::new(backend)], &[None], &Window::DAY, &Day::flat(), (1.0, 300.0, 5), 50.0);
    let expected = 5.0 * 730.0 * 2.0 + 50.0 * 730.0 * 3600.0 * 1e-6;
    assert!(near(total(&plan.at, "managed/m"), expected));
    assert!(plan.strategies.len() == 1, "nobody rents its nodes");
}

#[test]
fn break_evens_are_where_costs_cross() {
    // `a` has a paid minimum of one large node, `b` starts small nodes at twice the price for a request.
    let large = Case { min: 1, rps: 100.0, ..Case::new("a", 10.0, 10.0) };
    let small = Case { rps: 10.0, ..Case::new("b", 2.0, 2.0) };
    let plan = planned(&[large, small], &Day::flat(), (1.0, 400.0, 9), 50.0);
    let first = &plan.break_even.changes[0];
    // 5 small nodes cost as much as the large one, and the first in the list is taken; it is the sixth that costs more.
    assert!(first.before.as_ref().unwrap().ends_with("/b") && first.after.as_ref().unwrap().ends_with("/a"));
    assert!((40.0..=40.01).contains(&first.at_rps), "{first:?}");
    assert!(first.above_rps < first.at_rps && first.at_rps - first.above_rps <= first.above_rps * 1.1e-4);
    let nowhere = &plan.break_even.nowhere_cheapest;
    assert!(nowhere.contains(&"two_clouds_fixed/a+b".to_owned()), "{nowhere:?}");
}

fn cases() -> impl proptest::strategy::Strategy<Value = Vec<Case>> {
    let one = (
        (0.01f64..5.0, 0.01f64..5.0, 0.0f64..=1.0, 0.0f64..0.1),
        (0u32..4, 1u32..400, 0.5f64..50.0, prop_oneof![Just(0.5), Just(1.0), Just(3.0)]),
        (0.0f64..0.2, 0u64..900),
    );
    let case =
        one.prop_map(|((spot, on_demand, spot_share, disk), (min, more, rps, per_node), (egress, cold))| {
            Case {
                spot_share,
                disk,
                min,
                max: min + more,
                rps,
                per_node,
                egress,
                cold_start: cold,
                ..Case::new("", spot, on_demand)
            }
        });
    prop::collection::vec(case, 1..4).prop_map(|mut cases| {
        for (index, case) in cases.iter_mut().enumerate() {
            case.region = format!("r{index}");
        }
        cases
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Every amount is its quantity times its price, no less than nothing, and the total is their sum.
    #[test]
    fn bills_add_up(cases in cases(), at_rps in 0.001f64..2000.0) {
        let plan = planned(&cases, &Day::recorded(), (1.0, 1000.0, 4), at_rps);
        for point in plan.points.iter().chain([&plan.at]) {
            let mut least = f64::INFINITY;
            for bill in &point.bills {
                let mut sum = 0.0;
                for line in &bill.lines {
                    prop_assert!(line.usd_per_month.is_finite() && line.usd_per_month >= 0.0, "{line:?}");
                    prop_assert!(near(line.usd_per_month, line.quantity * line.usd_per_unit));
                    sum += line.usd_per_month;
                }
                prop_assert_eq!(bill.usd_per_month.is_none(), bill.not_carried.is_some());
                if let Some(usd) = bill.usd_per_month {
                    prop_assert!(near(usd, sum));
                    least = least.min(usd);
                }
            }
            match &point.cheapest {
                Some(id) => prop_assert_eq!(total(point, id), least),
                None => prop_assert!(least.is_infinite()),
            }
        }
    }

    #[test]
    fn prices_times_k_are_costs_times_k(cases in cases(), k in 0.1f64..10.0, at_rps in 0.1f64..500.0) {
        let scale = |case: &Case| Case { spot: case.spot * k, on_demand: case.on_demand * k, disk: case.disk * k, ..case.clone() };
        let scaled: Vec<Case> = cases.iter().map(scale).collect();
        let [before, after] =
            [&cases, &scaled].map(|cases| planned(cases, &Day::recorded(), (1.0, 10.0, 2), at_rps).at);
        for kind in ["static_on_demand", "autoscale_on_demand", "autoscale_spot"] {
            for case in &cases {
                let id = format!("{kind}/{}", case.region);
                let of_nodes = [LineKind::Compute, LineKind::Storage, LineKind::Interruption];
                let (old, new) = (bill(&before, &id), bill(&after, &id));
                prop_assert!(near(sum(old, &of_nodes) * k, sum(new, &of_nodes)));
                prop_assert!(near(sum(old, &[LineKind::Egress]), sum(new, &[LineKind::Egress])));
            }
        }
    }

    #[test]
    fn more_traffic_never_costs_less(cases in cases(), rps in 0.1f64..300.0, more in 1.0f64..3.0) {
        let at = |rps: f64| planned(&cases, &Day::recorded(), (1.0, 10.0, 2), rps).at;
        let (low, high) = (at(rps), at(rps * more));
        for (low, high) in low.bills.iter().zip(&high.bills) {
            if let Some(high_usd) = high.usd_per_month {
                let low_usd = low.usd_per_month;
                prop_assert!(low_usd.is_some_and(|usd| usd <= high_usd * (1.0 + 1e-9)), "{}: {low_usd:?} {high_usd}", low.id);
            }
        }
    }
}
