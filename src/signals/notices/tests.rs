//! The board.

use proptest::prelude::*;

use super::{board::EVENTS_MAX, *};
use crate::{
    model::{Cloud, InterruptionRate, RateBasis},
    signals::fixture,
};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_772_445_600 + second).unwrap()
}

fn id(name: &str) -> BackendId {
    name.parse().unwrap()
}

fn notice(kind: NoticeKind, lost: Lost) -> Notice {
    Notice { backend: id("eks"), kind, lost, at: at(0), id: None, instance: None }
}

fn interruption(nodes: u32) -> Notice {
    notice(NoticeKind::SpotInterruption, Lost::Nodes(nodes))
}

fn named(event: &str, instance: Option<&str>) -> Notice {
    Notice { id: Some(event.into()), instance: instance.map(Into::into), ..interruption(1) }
}

/// Looks every minute from one second to another, with so many spot nodes.
fn watch(board: &mut NoticeBoard, seconds: std::ops::RangeInclusive<i64>, nodes: f64) {
    for second in seconds.step_by(60) {
        board.advance(at(second), [(id("eks"), nodes)]);
    }
}

fn rate(board: &NoticeBoard) -> InterruptionRate {
    board.rate(&id("eks"), Cloud::Aws)
}

fn per_node_hour(board: &NoticeBoard) -> f64 {
    rate(board).per_node_hour
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-3 * b.abs()
}

#[test]
fn silence_teaches_nothing() {
    let mut board = NoticeBoard::default();
    watch(&mut board, 0..=30 * DAY, 100.0);
    assert_eq!(rate(&board), InterruptionRate { per_node_hour: 0.387, basis: RateBasis::Assumed });
    assert_eq!(board.rate(&id("gke"), Cloud::Gcp).per_node_hour, 0.223);
}

#[test]
fn an_interruption_is_weighed_against_the_assumption() {
    let mut board = NoticeBoard::default();
    watch(&mut board, 0..=DAY, 10.0);
    assert_eq!(board.record(&interruption(2), at(DAY)), Outcome::Counted { nodes: 2.0 });
    // The day before it is not observed, for nobody knows whether anything would have been sent: (0.387 x 20 + 2) / 20.
    assert_eq!(rate(&board).basis, RateBasis::Learned);
    assert!(close(per_node_hour(&board), 0.487), "{board:?}");
    // Ten hours of ten nodes later: (0.387 x 20 + 2) / (20 + 100), hardly faded.
    watch(&mut board, DAY..=DAY + 10 * HOUR, 10.0);
    assert!((per_node_hour(&board) - 9.74 / 120.0).abs() < 0.001, "{board:?}");
    // Others are not concerned.
    assert_eq!(board.rate(&id("other"), Cloud::Aws).basis, RateBasis::Assumed);
}

#[test]
fn what_is_observed_for_long_is_believed() {
    let mut board = NoticeBoard::default();
    // Two of 20 nodes a day: 0.1 a node each day.
    for day in 0..120 {
        board.record(&interruption(2), at(day * DAY));
        watch(&mut board, day * DAY..=(day + 1) * DAY, 20.0);
    }
    let truth = 0.1 / 24.0;
    let learned = per_node_hour(&board);
    assert!(learned > truth && learned < truth * 1.2, "{learned} for {truth}");
}

#[test]
fn old_observations_fade() {
    let mut board = NoticeBoard::default();
    watch(&mut board, 0..=HOUR, 1.0);
    board.record(&interruption(10), at(HOUR));
    let fresh = per_node_hour(&board);
    watch(&mut board, HOUR..=HOUR + 30 * DAY, 0.0);
    // Half of what it lies above the assumption.
    let half = per_node_hour(&board);
    assert!(close(half - 0.387, (fresh - 0.387) / 2.0), "{fresh}, then {half}");
}

#[test]
fn after_a_long_silence_the_assumption_returns() {
    let mut board = NoticeBoard::default();
    board.record(&interruption(1), at(0));
    watch(&mut board, 0..=30 * DAY, 10.0);
    let calm = per_node_hour(&board);
    assert!(calm < 0.01, "{calm}");
    watch(&mut board, 30 * DAY..=240 * DAY, 10.0);
    let silent = per_node_hour(&board);
    assert!(silent > 10.0 * calm && silent < 0.387, "{calm}, then {silent}");
    watch(&mut board, 240 * DAY..=301 * DAY, 10.0);
    assert_eq!(rate(&board), InterruptionRate { per_node_hour: 0.387, basis: RateBasis::Assumed });
}

#[test]
fn only_interruptions_count() {
    let mut board = NoticeBoard::default();
    for kind in NoticeKind::ALL {
        let outcome = board.record(&notice(kind, Lost::Nodes(3)), at(0));
        let expected = match kind {
            NoticeKind::SpotInterruption | NoticeKind::Preemption => Outcome::Counted { nodes: 3.0 },
            _ => Outcome::Noted,
        };
        assert_eq!(outcome, expected, "{kind}");
    }
    assert!(close(per_node_hour(&board), (0.387 * 20.0 + 6.0) / 20.0));
}

#[test]
fn a_part_is_a_part_of_the_nodes_at_that_time() {
    let mut board = NoticeBoard::default();
    let part = notice(NoticeKind::Preemption, Lost::Part(Share::new(0.4).unwrap()));
    // As long as no nodes are known, one at least is lost.
    assert_eq!(board.record(&part, at(0)), Outcome::Counted { nodes: 1.0 });
    board.advance(at(1), [(id("eks"), 10.0)]);
    assert_eq!(board.record(&part, at(2)), Outcome::Counted { nodes: 4.0 });
    board.advance(at(3), [(id("eks"), f64::NAN)]);
    assert_eq!(board.record(&part, at(4)), Outcome::Counted { nodes: 1.0 });
}

#[test]
fn the_same_event_counts_once_within_an_hour() {
    let mut board = NoticeBoard::default();
    let counted = Outcome::Counted { nodes: 1.0 };
    assert_eq!(board.record(&named("e1", Some("i-1")), at(0)), counted);
    assert_eq!(board.record(&named("e1", Some("i-1")), at(HOUR)), Outcome::Duplicate);
    // Machines that go in the same second have the same event id.
    assert_eq!(board.record(&named("e1", Some("i-2")), at(HOUR)), counted);
    let elsewhere = Notice { backend: id("gke"), ..named("e1", Some("i-1")) };
    assert_eq!(board.record(&elsewhere, at(HOUR)), counted);
    // A duplicate does not begin the hour anew.
    assert_eq!(board.record(&named("e1", Some("i-1")), at(HOUR + 1)), counted);
    // Without a name nothing is known again.
    assert_eq!(board.record(&interruption(1), at(HOUR + 1)), counted);
    assert_eq!(board.record(&interruption(1), at(HOUR + 1)), counted);
}

#[test]
fn only_so_many_events_are_remembered() {
    let mut board = NoticeBoard::default();
    for n in 0..EVENTS_MAX + 10 {
        board.record(&named(&format!("e{n}"), None), at(0));
    }
    board.advance(at(1), []);
    assert_eq!(board.events.len(), EVENTS_MAX);
    assert_eq!(board.record(&named("e0", None), at(1)), Outcome::Counted { nodes: 1.0 });
    assert_eq!(board.record(&named("e100", None), at(1)), Outcome::Duplicate);
}

#[test]
fn time_that_was_not_watched_is_not_observed() {
    let mut board = NoticeBoard::default();
    board.advance(at(0), [(id("eks"), 10.0)]);
    board.record(&interruption(1), at(0));
    let before = per_node_hour(&board);
    board.advance(at(HOUR), [(id("eks"), 10.0)]);
    assert!(close(per_node_hour(&board), before), "a stopped process");
    // A clock that is set back, and goes on from there.
    board.advance(at(0), [(id("eks"), 10.0)]);
    assert!(close(per_node_hour(&board), before));
    watch(&mut board, 0..=HOUR, 10.0);
    assert!(per_node_hour(&board) < 0.8 * before);
}

#[test]
fn the_configured_rate_comes_first_and_none_without_spot_nodes() {
    let mut board = NoticeBoard::default();
    let mut backend = (*fixture::backend("eks", "http", "127.0.0.1", 80)).clone();
    backend.cloud = Cloud::Aws;
    board.record(&interruption(2), at(0));
    let node = |backend: &mut crate::model::Backend, spot: f64, configured| {
        let node = backend.node.as_mut().unwrap();
        node.spot = Share::new(spot).unwrap();
        node.interruptions.per_node_hour = configured;
    };
    node(&mut backend, 0.9, None);
    assert_eq!(board.rate_in_force(&backend), rate(&board));
    node(&mut backend, 0.9, Some(0.01));
    let configured = InterruptionRate { per_node_hour: 0.01, basis: RateBasis::Configured };
    assert_eq!(board.rate_in_force(&backend), configured);
    node(&mut backend, 0.0, Some(0.01));
    assert_eq!(board.rate_in_force(&backend), InterruptionRate::default());
    backend.node = None;
    assert_eq!(board.rate_in_force(&backend), InterruptionRate::default());
}

#[test]
fn what_was_learned_survives_a_restart() {
    let mut board = NoticeBoard::default();
    board.advance(at(0), [(id("eks"), 10.0)]);
    board.record(&named("e1", Some("i-1")), at(0));
    watch(&mut board, 0..=HOUR, 10.0);

    let mut again = NoticeBoard::default();
    assert_eq!(again.restore_json(&board.to_json().unwrap(), at(HOUR)), Ok(1));
    assert_eq!(rate(&again), rate(&board));
    assert_eq!(again.record(&named("e1", Some("i-1")), at(HOUR)), Outcome::Duplicate);
    // A month of standstill fades what was observed, and adds nothing.
    let mut later = NoticeBoard::default();
    later.restore_json(&board.to_json().unwrap(), at(HOUR + 30 * DAY)).unwrap();
    let (fresh, faded) = (board.records[&id("eks")], later.records[&id("eks")]);
    assert!(close(faded.node_hours, fresh.node_hours / 2.0) && close(faded.interruptions, 0.5), "{faded:?}");
    // A clock that was ahead when it was saved.
    let mut earlier = NoticeBoard::default();
    earlier.restore_json(&board.to_json().unwrap(), at(-DAY)).unwrap();
    watch(&mut earlier, -DAY..=-DAY + HOUR, 10.0);
    assert!(close(earlier.records[&id("eks")].node_hours, 20.0), "{earlier:?}");
}

#[test]
fn what_cannot_be_read_changes_nothing() {
    let mut board = NoticeBoard::default();
    board.record(&interruption(1), at(0));
    let before = rate(&board);
    let record = |interruptions: &str| {
        format!(
            r#"{{"version":1,"seen_until":null,"events":[],"records":[{{"backend":"eks","interruptions":{interruptions},
               "node_hours":1.0,"last":"2026-03-02T10:00:00Z"}}]}}"#
        )
    };
    for (text, why) in [
        ("", "cannot be read"),
        (&*board.to_json().unwrap().replace("\"version\":1", "\"version\":2"), "have version 2, expected 1"),
        (&*record("-1.0"), "have -1 interruptions in 1 node-hours of eks; expected numbers from 0 on"),
        (&*record("null"), "cannot be read"),
    ] {
        let error = board.restore_json(text, at(0)).unwrap_err();
        assert!(error.contains(why), "{error}");
        assert_eq!(rate(&board), before);
    }
    assert_eq!(board.restore_json(&record("1.0"), at(0)), Ok(1));
}

#[test]
fn a_notice_is_written_as_it_is_sent() {
    let sent = r#"{"backend":"eks","kind":"spot-interruption","lost":0.4,"at":"2026-03-02T10:00:00Z"}"#;
    let notice: Notice = serde_json::from_str(sent).unwrap();
    assert_eq!(serde_json::to_string(&notice).unwrap(), sent);
    let nodes = Notice { lost: Lost::Nodes(2), ..notice };
    assert!(serde_json::to_string(&nodes).unwrap().contains(r#""nodes":2"#));
}

#[derive(Clone, Debug)]
enum Step {
    Pass { seconds: i64, nodes: f64 },
    Receive(Lost),
}

fn step() -> impl Strategy<Value = Step> {
    let nodes = prop_oneof![0.0..50.0, Just(f64::INFINITY), Just(-1.0), Just(1e300), Just(f64::NAN)];
    prop_oneof![
        8 => (-600i64..10_000, nodes).prop_map(|(seconds, nodes)| Step::Pass { seconds, nodes }),
        1 => (1u32..=10_000).prop_map(|nodes| Step::Receive(Lost::Nodes(nodes))),
        1 => (0.001..=1.0).prop_map(|part| Step::Receive(Lost::Part(Share::new(part).unwrap()))),
    ]
}

proptest! {
    #[test]
    fn a_rate_lies_between_assumption_and_observation(steps in prop::collection::vec(step(), 1..200)) {
        let (mut board, mut now) = (NoticeBoard::default(), 0);
        for step in steps {
            match step {
                Step::Pass { seconds, nodes } => {
                    now += seconds;
                    board.advance(at(now), [(id("eks"), nodes)]);
                }
                Step::Receive(lost) => {
                    board.record(&notice(NoticeKind::Preemption, lost), at(now));
                }
            }
            let rate = per_node_hour(&board);
            prop_assert!(rate.is_finite() && rate >= 0.0, "{rate}");
            let observed = match board.records.get(&id("eks")) {
                None => 0.387,
                Some(record) if record.node_hours > 0.0 => record.interruptions / record.node_hours,
                Some(_) => f64::INFINITY,
            };
            prop_assert!(observed >= 0.0);
            let slack = 1.0 + 1e-9;
            prop_assert!(rate * slack >= f64::min(0.387, observed) && rate <= f64::max(0.387, observed) * slack);
        }
    }

    #[test]
    fn more_interruptions_never_lower_the_rate(nodes in 0.1..50.0, hours in 0i64..100, lost in 1u32..100) {
        let learned = |lost: u32| {
            let mut board = NoticeBoard::default();
            board.advance(at(0), [(id("eks"), nodes)]);
            board.record(&interruption(lost), at(0));
            watch(&mut board, 0..=hours * HOUR, nodes);
            per_node_hour(&board)
        };
        prop_assert!(learned(lost) <= learned(lost + 1));
    }
}
