use serde_json::{Map, Value, json};

use super::*;
use crate::record::{Account, BackendAccount, ShadowAccount, Stay};

/// `02T10:00:00` of March 2026.
pub(crate) fn at(text: &str) -> Timestamp {
    format!("2026-03-{text}Z").parse().unwrap()
}

/// The first week of March.
pub(crate) fn gathering() -> Gathering {
    Gathering::new(at("01T00:00:00"), at("08T00:00:00"), None)
}

fn body(value: Value) -> Map<String, Value> {
    value.as_object().unwrap().clone()
}

fn backend(name: &str, requests: u64, usd: f64, instead_usd: f64) -> BackendAccount {
    BackendAccount {
        requests,
        usd,
        instead_usd: Some(instead_usd),
        possible: 1000,
        minimum_usd: Some(0.25),
        ..BackendAccount::new(name.parse().unwrap())
    }
}

/// A minute up to `to` with 1,000 requests at b, which cost 1 USD. At a, where the day began, they would have cost 1.5; at c
/// 0.9.
fn account(to: &str) -> Account {
    Account {
        from: Some(at(to) - std::time::Duration::from_secs(60)),
        seconds: 60.0,
        backends: vec![backend("a", 0, 0.0, 0.5), backend("b", 1000, 1.0, 0.0), backend("c", 0, 0.0, -0.1)],
        stay: Some(Stay { backend: "a".parse().unwrap(), since: at("02T00:00:00") }),
        saved_usd: 0.5,
        ..Account::default()
    }
}

fn take(gathering: &mut Gathering, to: &str, route: &str, account: &Account) {
    let fields = body(serde_json::to_value(account).unwrap());
    gathering.take(at(to), "account", Some(&route.parse().unwrap()), &fields);
}

fn order(event: &str, author: Option<&str>) -> Value {
    json!({"event": event, "author": author, "override": {
        "id": "o-1", "kind": "drain", "backend": "a", "reason": "bad image", "author": "oncall",
        "created_at": at("02T10:00:30"), "expires_at": at("02T11:00:30"),
    }})
}

/// Two routes, two days, all that can happen.
pub(crate) fn example() -> Report {
    let mut all = gathering();
    all.take(at("02T09:58:59"), "process", None, &body(json!({"event": "started"})));
    take(&mut all, "02T10:00:00", "chat", &account("02T10:00:00"));
    let mut late = account("02T10:01:00");
    (late.slo_seconds, late.refused) = (Some(0.8), 3);
    (late.backends[1].timed, late.backends[1].over_slo, late.backends[1].errors) = (1000, 60, 2);
    late.shadows = vec![ShadowAccount {
        policy: "eager".parse().unwrap(),
        backend: Some("c".parse().unwrap()),
        more_usd: -0.05,
        moves: 2,
        uncompared: 0,
    }];
    take(&mut all, "02T10:01:00", "chat", &late);
    let mut other = account("02T10:01:00");
    (other.saved_usd, other.standby_usd, other.doubtful_usd) = (-0.25, 0.125, 0.0625);
    (other.backends[0].unpriced, other.uncompared) = (7, 7);
    take(&mut all, "02T10:01:00", "embed", &other);
    all.take(at("02T10:00:30"), "override", None, &body(order("added", Some("oncall"))));
    let reason = json!({"code": "gap_reached", "from": "a", "to": "b", "gap": 0.25, "threshold": 0.15});
    for action in ["place", "shift", "stay"] {
        let decision = body(json!({"action": action, "decision": {"action": action, "reason": reason}}));
        all.take(at("02T10:00:10"), "decision", Some(&"chat".parse().unwrap()), &decision);
    }
    all.take(at("02T10:02:00"), "override", None, &body(order("ended", Some("lead"))));
    all.take(at("02T10:01:00"), "process", None, &body(json!({"event": "stopped"})));
    take(&mut all, "03T10:00:00", "chat", &account("03T10:00:00"));
    all.damaged("journal/00000001.jsonl:7", "it is no whole JSON object");
    all.finish()
}

fn close(found: f64, expected: f64) {
    assert!((found - expected).abs() < 1e-9, "{found} instead of {expected}");
}

#[test]
fn amounts_add_up_over_routes_backends_and_days() {
    let report = example();
    close(report.money.requests_usd, 4.0);
    close(report.money.avoidable_usd, 4.125);
    close(report.money.saved_usd, 0.5 * 3.0 - 0.25);
    // Two routes say what b's minimum cost in the same minute: it is paid once.
    close(report.minimum_usd, 3.0 * 3.0 * 0.25);
    close(report.spent_usd, report.minimum_usd + 4.125);
    for of in [
        report.routes.iter().map(|r| r.money).collect::<Vec<_>>(),
        report.days.iter().map(|d| d.money).collect(),
    ] {
        close(of.iter().map(|money| money.saved_usd).sum(), report.money.saved_usd);
        let against = of.iter().map(|money| money.saved_against_cheapest_usd).sum();
        close(against, report.money.saved_against_cheapest_usd);
        close(of.iter().map(|money| money.avoidable_usd).sum(), report.money.avoidable_usd);
    }
    let by_backend: f64 = report.backends.iter().map(|of| of.requests_usd).sum();
    close(by_backend, report.money.requests_usd);
    assert_eq!(report.traffic.requests, 4000);
    assert_eq!(
        (report.traffic.refused, report.traffic.errors, report.traffic.over_slo_seconds),
        (3, 2, 60.0)
    );
}

/// chat: 1.5 saved against a; at c, which turned out the cheapest, it would have cost 0.3 less.
#[test]
fn the_interval_reaches_to_the_cheapest_in_hindsight_and_by_what_is_in_doubt() {
    let report = example();
    let [chat, embed] = &report.routes[..] else { panic!("two routes") };
    assert_eq!(chat.cheapest_alone.as_ref().unwrap().as_str(), "c");
    close(chat.money.saved_low_usd, -0.3);
    close(chat.money.saved_high_usd, 1.5);
    close(embed.money.saved_low_usd, -0.25 - 0.0625);
    close(embed.money.saved_high_usd, -0.1 - 0.125 + 0.0625);
}

/// On one day 0.5 were saved and 0.1 lost against c, on the other the same: the interval of both is from the sums.
#[test]
fn the_interval_of_a_sum_is_that_of_the_sums() {
    let mut all = gathering();
    for (to, saved) in [("02T10:00:00", 0.5), ("03T10:00:00", -0.7)] {
        take(&mut all, to, "chat", &Account { saved_usd: saved, ..account(to) });
    }
    let report = all.finish();
    let interval = |money: &Money| (money.saved_low_usd, money.saved_high_usd);
    assert_eq!(interval(&report.days[0].money), (-0.1, 0.5));
    assert_eq!(interval(&report.days[1].money), (-0.7, -0.1));
    close(report.money.saved_low_usd, -0.2);
    close(report.money.saved_high_usd, -0.2);
}

#[test]
fn a_backend_that_could_seldom_have_served_is_no_place_to_have_been() {
    let mut all = gathering();
    let mut account = account("02T10:00:00");
    account.backends[2].possible = 499;
    take(&mut all, "02T10:00:00", "chat", &account);
    assert_eq!(all.finish().routes[0].cheapest_alone.as_ref().unwrap().as_str(), "b");
}

#[test]
fn what_is_outside_the_period_or_of_another_route_is_left_out() {
    let mut all = Gathering::new(at("02T00:00:00"), at("03T00:00:00"), Some("chat".parse().unwrap()));
    for (to, route) in
        [("01T10:00:00", "chat"), ("02T10:00:00", "chat"), ("02T10:00:00", "embed"), ("03T10:00:00", "chat")]
    {
        take(&mut all, to, route, &account(to));
    }
    let report = all.finish();
    assert_eq!((report.traffic.requests, report.routes.len()), (1000, 1));
    // The journal goes back further than the period, so nothing is missing but what comes after the last account.
    assert_eq!(report.notes, Vec::<String>::new());
    assert_eq!(report.gaps.len(), 1);
}

#[test]
fn gaps_damaged_lines_and_overrides_are_told() {
    let report = example();
    let [restart, end] = &report.gaps[..] else { panic!("{:?}", report.gaps) };
    assert_eq!(
        (restart.from, restart.to, restart.why),
        (at("02T10:01:00"), at("03T09:59:00"), "Tradewind was stopped")
    );
    assert_eq!((end.from, end.to), (at("03T10:00:00"), at("08T00:00:00")));
    let [held] = &report.overrides[..] else { panic!("{:?}", report.overrides) };
    assert_eq!((held.held_seconds, held.ended_by.as_deref()), (90.0, Some("lead")));
    assert_eq!(report.moves.len(), 1);
    assert_eq!(report.routes[0].moves, 1);
    assert!(report.notes.iter().any(|note| note.contains("00000001.jsonl:7")), "{:?}", report.notes);
    assert!(report.notes.iter().any(|note| note.contains("the journal begins at 2026-03-02 09:58:59Z")));
}

#[test]
fn a_crash_leaves_another_gap_than_a_stop() {
    let mut all = gathering();
    take(&mut all, "02T10:00:00", "chat", &account("02T10:00:00"));
    all.take(at("02T11:00:00"), "process", None, &body(json!({"event": "started"})));
    take(&mut all, "02T12:00:00", "chat", &account("02T12:00:00"));
    assert!(all.finish().gaps[0].why.contains("without saying so"));
}

#[test]
fn an_orderly_restart_is_no_crash() {
    let mut all = gathering();
    take(&mut all, "02T10:00:00", "chat", &account("02T10:00:00"));
    all.take(at("02T10:01:00"), "process", None, &body(json!({"event": "stopped"})));
    all.take(at("02T11:00:00"), "process", None, &body(json!({"event": "started"})));
    take(&mut all, "02T12:00:00", "chat", &account("02T12:00:00"));
    assert_eq!(all.finish().gaps[0].why, "Tradewind was stopped");
}

#[test]
fn a_minute_that_ends_after_midnight_is_of_the_day_before() {
    let mut all = gathering();
    take(&mut all, "03T00:00:20", "chat", &account("03T00:00:20"));
    let days: Vec<String> = all.finish().days.iter().map(|day| day.day.to_string()).collect();
    assert_eq!(days, ["2026-03-02"]);
}

#[test]
fn no_figure_is_in_two_rows_of_the_spreadsheet() {
    let report = example();
    let sum = |column: &str| {
        let place = csv::COLUMNS.iter().position(|name| *name == column).unwrap();
        report.rows.iter().filter_map(|row| row.figures[place]).sum::<f64>()
    };
    assert_eq!(sum("requests"), 4000.0);
    close(sum("requests_usd"), report.money.requests_usd);
    close(sum("saved_usd"), report.money.saved_usd);
    close(sum("doubtful_usd"), report.money.doubtful_usd);
    assert_eq!((sum("refused"), sum("over_slo_seconds"), sum("uncompared_requests")), (3.0, 60.0, 7.0));
    let text = csv::text(&report.rows);
    let columns = text.lines().next().unwrap().split(',').count();
    assert!(text.lines().all(|line| line.split(',').count() == columns), "{text}");
}

#[test]
fn the_page_needs_nothing_else_and_foreign_text_cannot_end_its_element() {
    let mut report = example();
    report.overrides[0].order.reason = "<script>alert(1)</script>".into();
    let page = html::page(&report);
    assert!(!page.contains("<script") && !page.contains("http://") && !page.contains("https://"), "{page}");
    for part in [
        "&lt;script&gt;",
        "<svg",
        "viewport",
        "@media print",
        "By route",
        "requests, USD",
        "Gaps",
        "drain a by oncall",
    ] {
        assert!(page.contains(part), "{part} is not in\n{page}");
    }
    let open = page.matches("<tr>").count();
    assert_eq!(open, page.matches("</tr>").count());
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert!(!page.contains("NaN") && !page.contains("inf\""), "{page}");
}
