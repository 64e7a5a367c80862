use super::*;
use crate::{
    model::{BackendId, HostPattern, OutlierSpec, PathPattern, RouteId, RouteMatch, Share, Slo},
    policy::worlds,
    signals::traffic::Outcome,
};

fn spec() -> EjectionSpec {
    let half = Share::new(0.5).unwrap();
    EjectionSpec {
        consecutive: 5,
        error_rate: half,
        min_requests: 20,
        window: Duration::from_secs(10),
        time: Duration::from_secs(30),
        time_max: Duration::from_secs(300),
        max_ejected: half,
        latency: Some(OutlierSpec {
            factor: 5.0,
            margin: Duration::from_millis(500),
            min_requests: 20,
            window: Duration::from_secs(60),
        }),
    }
}

struct World {
    meters: Arc<Meters>,
    board: EjectionBoard,
    backends: Vec<Arc<Backend>>,
    routes: Vec<Arc<Route>>,
}

impl World {
    fn new(names: &[&str]) -> World {
        let meters = Arc::new(Meters::default());
        let backends: Vec<Arc<Backend>> = names
            .iter()
            .map(|name| {
                let backend = worlds::view(name, 1.0).backend;
                Arc::new(Backend { ejection: Some(spec()), ..(*backend).clone() })
            })
            .collect();
        let routes = vec![Arc::new(Route {
            id: "chat".parse().unwrap(),
            matches: RouteMatch {
                host: HostPattern::Any,
                path: PathPattern::Prefix(String::new()),
                models: Vec::new(),
                headers: Vec::new(),
            },
            aliases: Default::default(),
            backends: backends.iter().map(|backend| backend.id.clone()).collect(),
            policy: Arc::new(worlds::policy()),
            shadow: Vec::new(),
            slo: Slo::default(),
            retry: Default::default(),
            priority: Default::default(),
            silence_timeout: None,
            affinity: None,
            hedge: None,
            tokens_per_request: None,
        })];
        World { board: EjectionBoard::new(meters.clone()), meters, backends, routes }
    }

    fn requests(&self, name: &str, code: u16, count: usize) {
        let route: RouteId = "chat".parse().unwrap();
        let backend: BackendId = name.parse().unwrap();
        let meter = self.meters.get(Some(&route), Some(&backend));
        let (duration, failed) = (Duration::from_millis(1), code >= 500);
        let outcome = Outcome { code, failed, duration, bytes_received: 0, bytes_sent: 0 };
        (0..count).for_each(|_| meter.finish(&outcome));
    }

    /// Answers whose first bytes took so long.
    fn answers(&self, name: &str, count: usize, ms: u64) {
        let route: RouteId = "chat".parse().unwrap();
        let meter = self.meters.get(Some(&route), Some(&name.parse().unwrap()));
        (0..count).for_each(|_| meter.first_byte.record(Duration::from_millis(ms)));
    }

    /// Who is out after a turn.
    fn out_at(&self, second: i64) -> Vec<String> {
        self.board.advance(&self.backends, &self.routes, at(second));
        let all = self.board.all().into_iter();
        all.filter(|(_, out, _)| *out).map(|(id, ..)| id.to_string()).collect()
    }

    fn views(&self, unhealthy: &[&str]) -> Vec<BackendView> {
        let mut views: Vec<BackendView> = self
            .backends
            .iter()
            .map(|backend| {
                let mut view = worlds::view(backend.id.as_str(), 1.0);
                if unhealthy.contains(&backend.id.as_str()) {
                    view.health = Health::Unhealthy;
                }
                view
            })
            .collect();
        self.board.mark(&mut views);
        views
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

#[test]
fn failures_in_a_row_eject_and_a_success_between_them_does_not() {
    let world = World::new(&["a", "b"]);
    assert!(world.out_at(0).is_empty());
    world.requests("a", 503, 4);
    world.requests("a", 200, 1);
    world.requests("a", 503, 4);
    assert!(world.out_at(1).is_empty());
    world.requests("a", 499, 1);
    world.requests("a", 503, 1);
    assert_eq!(world.out_at(2), ["a"], "a client that left says nothing");
    let views = world.views(&[]);
    assert_eq!(views[0].ejected.as_ref().unwrap().why, "5 requests in a row failed");
    assert_eq!((views[0].ejected.as_ref().unwrap().until, &views[1].ejected), (at(32), &None));
}

#[test]
fn a_part_of_many_ejects_within_the_window_only() {
    let world = World::new(&["a", "b"]);
    assert!(world.out_at(0).is_empty());
    for _ in 0..9 {
        world.requests("a", 500, 1);
        world.requests("a", 200, 1);
    }
    assert!(world.out_at(5).is_empty(), "18 requests say nothing");
    assert!(world.out_at(16).is_empty());
    world.requests("a", 500, 1);
    world.requests("a", 200, 1);
    assert!(world.out_at(17).is_empty(), "the others are too long ago");
    for _ in 0..10 {
        world.requests("a", 200, 1);
        world.requests("a", 500, 1);
    }
    assert_eq!(world.out_at(18), ["a"]);
    assert_eq!(world.views(&[])[0].ejected.as_ref().unwrap().why, "11 of 22 requests failed (50%)");
}

#[test]
fn each_time_in_a_row_is_twice_as_long_and_then_it_is_forgotten() {
    let world = World::new(&["a", "b"]);
    let mut second = 0;
    for time in [30, 60, 120, 240, 300, 300] {
        world.requests("a", 500, 5);
        assert_eq!(world.out_at(second), ["a"]);
        assert_eq!(world.out_at(second + time - 1), ["a"], "{time}");
        assert!(world.out_at(second + time).is_empty(), "{time}");
        second += time + 1;
    }
    second += 301;
    assert!(world.out_at(second).is_empty());
    world.requests("a", 500, 5);
    assert_eq!(world.out_at(second), ["a"]);
    assert!(world.out_at(second + 30).is_empty());
}

#[test]
fn no_more_than_a_part_of_a_route_is_out() {
    let three = World::new(&["a", "b", "c"]);
    ["a", "b", "c"].iter().for_each(|name| three.requests(name, 500, 5));
    assert_eq!(three.out_at(0), ["a"]);
    let alone = World::new(&["a"]);
    alone.requests("a", 500, 50);
    assert!(alone.out_at(0).is_empty());
}

#[test]
fn where_more_than_half_are_missing_nobody_is_ejected() {
    let world = World::new(&["a", "b"]);
    world.requests("a", 500, 5);
    assert_eq!(world.out_at(0), ["a"]);
    assert!(world.views(&[])[0].ejected.is_some());
    assert!(world.views(&["a"])[0].ejected.is_some());
    assert_eq!(world.views(&["b"])[0].ejected, None);
}

#[test]
fn one_that_is_far_slower_than_its_peers_is_ejected() {
    let world = World::new(&["a", "b", "c"]);
    assert!(world.out_at(0).is_empty());
    [("a", 2000), ("b", 200), ("c", 300)].iter().for_each(|(name, ms)| world.answers(name, 20, *ms));
    assert_eq!(world.out_at(10), ["a"]);
    let out = world.views(&[])[0].ejected.clone().unwrap();
    assert_eq!((out.reason, out.until), (EjectedFor::Latency, at(40)));
    assert!(out.why.contains("median time to first byte is 2.") && out.why.contains("chat"), "{}", out.why);
    let counts: Vec<_> = world.board.all().into_iter().map(|(_, _, counts)| counts).collect();
    assert_eq!(counts, [[0, 1], [0, 0], [0, 0]]);
    // What was slow before is forgotten; the next time is twice as long.
    assert!(world.out_at(41).is_empty());
    assert!(world.out_at(42).is_empty());
    [("a", 2000), ("b", 200), ("c", 300)].iter().for_each(|(name, ms)| world.answers(name, 20, *ms));
    assert_eq!(world.out_at(43), ["a"]);
    assert_eq!(world.views(&[])[0].ejected.as_ref().unwrap().until, at(103));
}

/// Who is out after so many answers of so many milliseconds of each.
fn out_after(answers: &[(&str, usize, u64)]) -> Vec<String> {
    let names: Vec<&str> = answers.iter().map(|(name, ..)| *name).collect();
    let world = World::new(&names);
    world.out_at(0);
    answers.iter().for_each(|(name, count, ms)| world.answers(name, *count, *ms));
    world.out_at(10)
}

#[test]
fn what_is_slower_by_nature_is_not_ejected() {
    assert!(out_after(&[("a", 50, 900), ("b", 50, 200)]).is_empty(), "not five times as slow");
    assert!(out_after(&[("a", 50, 400), ("b", 50, 10)]).is_empty(), "not half a second slower");
    assert_eq!(out_after(&[("a", 50, 2000), ("b", 50, 200)]), ["a"], "one peer is enough");
    // Most answers count, not the slowest.
    let world = World::new(&["a", "b"]);
    world.out_at(0);
    world.answers("a", 30, 200);
    world.answers("a", 25, 20_000);
    world.answers("b", 50, 200);
    assert!(world.out_at(10).is_empty());
}

#[test]
fn too_few_answers_on_either_side_say_nothing() {
    assert!(out_after(&[("a", 19, 2000), ("b", 50, 200)]).is_empty());
    assert!(out_after(&[("a", 50, 2000), ("b", 19, 200)]).is_empty());
    assert!(out_after(&[("a", 50, 2000)]).is_empty(), "there is nobody to compare with");
    let world = World::new(&["a", "b"]);
    world.out_at(0);
    world.answers("a", 50, 2000);
    world.out_at(1);
    world.answers("b", 50, 200);
    assert_eq!(world.out_at(59), ["a"]);
    let late = World::new(&["a", "b"]);
    late.out_at(0);
    late.answers("a", 50, 2000);
    late.out_at(1);
    late.out_at(62);
    late.answers("b", 50, 200);
    assert!(late.out_at(63).is_empty(), "they are too long ago");
}

#[test]
fn most_of_the_others_must_be_faster() {
    assert!(out_after(&[("a", 50, 2000), ("b", 50, 2100), ("c", 50, 200)]).is_empty());
    // Those that are out are not compared with.
    let answers = [("a", 50, 9000), ("b", 50, 9000), ("c", 50, 200), ("d", 50, 210), ("e", 50, 220)];
    assert_eq!(out_after(&answers), ["a", "b"]);
    // Never more than a part of them.
    let answers = [("a", 50, 90_000), ("b", 50, 9000), ("c", 50, 200)];
    assert_eq!(out_after(&answers), ["a"]);
}
