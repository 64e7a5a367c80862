//! The book and its sources together.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::SignedDuration;
use proptest::prelude::*;
use tokio::sync::watch;

use super::*;
use crate::{
    model::{Backend, Price, PriceState, ZonePrice},
    signals::fixture,
};

const SOURCE: &str = "file:p.csv";

fn settings(names: &[&str]) -> PriceSettings {
    let file = |name: &&str| PriceSource::File { path: name.into(), replay: None };
    PriceSettings {
        sources: names.iter().map(file).collect(),
        refresh: Duration::from_secs(300),
        stale_after: Duration::from_secs(7200),
        max_step: 5.0,
    }
}

fn book() -> PriceBook {
    PriceBook::new(&settings(&["p.csv"]))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_614_643_200 + second).unwrap()
}

fn quote(zone: &str, offer: Offer, usd_per_hour: f64) -> Quote {
    let zone = (!zone.is_empty()).then(|| zone.into());
    let key = PriceKey {
        cloud: Cloud::Aws,
        region: "us-east-1".into(),
        zone,
        instance_type: "p3.2xlarge".into(),
        offer,
    };
    Quote { key, at: at(-60), usd_per_hour }
}

fn backend(zones: &[&str]) -> Backend {
    let mut backend = (*fixture::backend("eks-use1", "http", "127.0.0.1", 80)).clone();
    backend.zones = zones.iter().map(|zone| zone.to_string()).collect();
    backend
}

/// `source` says these prices (zone, offer, USD per hour) at that second.
fn say(book: &mut PriceBook, source: &str, quotes: &[(&str, Offer, f64)], second: i64) -> Vec<News> {
    let quotes = quotes.iter().map(|(zone, offer, usd)| quote(zone, *offer, *usd)).collect();
    book.apply(&source.into(), Ok(quotes).into(), at(second))
}

fn spot(book: &PriceBook, zones: &[&str], second: i64) -> (f64, PriceState, String) {
    shown(book.view(&backend(zones), at(second)).0)
}

fn on_demand(book: &PriceBook, zones: &[&str], second: i64) -> (f64, PriceState, String) {
    shown(book.view(&backend(zones), at(second)).1)
}

fn shown(price: Option<Price>) -> (f64, PriceState, String) {
    let price = price.expect("a price");
    (price.usd_per_hour.get(), price.state, price.note.as_deref().unwrap_or_default().to_owned())
}

#[test]
fn of_several_zones_the_cheapest_that_the_backend_uses_counts() {
    let mut book = book();
    say(&mut book, SOURCE, &[("a", Offer::Spot, 1.0), ("b", Offer::Spot, 0.9), ("c", Offer::Spot, 1.1)], 0);
    assert_eq!(spot(&book, &[], 0), (0.9, PriceState::Fresh, String::new()));
    assert_eq!(spot(&book, &["a", "c"], 0).0, 1.0);
    assert!(book.view(&backend(&["d"]), at(0)).0.is_none());
    say(&mut book, SOURCE, &[("", Offer::Spot, 0.95)], 1);
    assert_eq!(spot(&book, &["a"], 1).0, 0.95, "a price for the region holds in each zone");
}

#[test]
fn a_backend_pays_for_its_zones_by_its_policy() {
    let mut book = book();
    say(&mut book, SOURCE, &[("a", Offer::Spot, 1.0), ("b", Offer::Spot, 0.9), ("c", Offer::Spot, 1.4)], 0);
    let pays = |book: &PriceBook, zone_price, second| {
        let backend = Backend { zone_price, ..backend(&[]) };
        shown(book.view(&backend, at(second)).0)
    };
    assert_eq!(pays(&book, ZonePrice::Cheapest, 0).0, 0.9);
    assert_eq!(pays(&book, ZonePrice::Dearest, 0).0, 1.4);
    let (usd, state, note) = pays(&book, ZonePrice::Mean, 0);
    assert!((usd - 1.1).abs() < 1e-12);
    assert_eq!((state, &*note), (PriceState::Fresh, "the mean of 3 zones"));
    // One zone in doubt makes the mean doubtful; it counts with its last good price.
    say(&mut book, SOURCE, &[("a", Offer::Spot, 100.0), ("b", Offer::Spot, 0.9)], 60);
    let (usd, state, note) = pays(&book, ZonePrice::Mean, 60);
    assert!((usd - 1.1).abs() < 1e-12 && state == PriceState::Held, "{usd} {state:?}");
    assert!(note.starts_with("the mean of 3 zones; file:p.csv says something else"), "{note}");
    // A zone that is no longer confirmed does not count beside those that are.
    assert_eq!(pays(&book, ZonePrice::Dearest, 7230).0, 0.9);
}

#[test]
fn what_is_wrong_with_one_part_stays_until_that_part_is_asked_again() {
    let mut book = book();
    let good = || Ok(vec![quote("a", Offer::OnDemand, 1.0)]).into();
    let denied = || Fetched::from(Err(FeedFault("spot prices are denied".into())));
    book.apply_part(&SOURCE.into(), "spot", denied(), at(0));
    for second in [1, 2, 3] {
        assert!(book.apply_part(&SOURCE.into(), "on_demand", good(), at(second)).news.is_empty());
        assert_eq!(book.faults()[0].fault.as_deref(), Some("spot prices are denied"));
    }
    let applied =
        book.apply_part(&SOURCE.into(), "spot", Ok(vec![quote("a", Offer::Spot, 0.0)]).into(), at(4));
    assert!(matches!(&applied.news[..], [News::Works { .. }, News::Held { .. }]), "{:?}", applied.news);
    assert_eq!(applied.held, 1);
    assert_eq!(
        book.apply_part(&SOURCE.into(), "on_demand", good(), at(5)).held,
        0,
        "what others say is not of this fetch"
    );
}

#[test]
fn a_doubt_that_is_not_renewed_is_forgotten() {
    let mut book = book();
    say(&mut book, SOURCE, &[("a", Offer::Spot, 0.0), ("b", Offer::Spot, 1.0)], 0);
    say(&mut book, SOURCE, &[("b", Offer::Spot, 1.0)], 7200);
    assert_eq!(book.faults()[0].held, 1);
    say(&mut book, SOURCE, &[("b", Offer::Spot, 1.0)], 7201);
    assert_eq!(book.faults()[0].held, 0);
}

#[test]
fn a_price_for_the_whole_region_hides_what_later_sources_say_of_its_zones() {
    let mut book = PriceBook::new(&settings(&["own.csv", "list.csv"]));
    say(&mut book, "file:list.csv", &[("a", Offer::Spot, 0.5), ("b", Offer::Spot, 0.6)], 0);
    say(&mut book, "file:own.csv", &[("", Offer::Spot, 0.9)], 0);
    assert_eq!(spot(&book, &[], 0).0, 0.9);
    assert_eq!(spot(&book, &["b"], 0).0, 0.9);
    // While it cannot be trusted, the others count.
    say(&mut book, "file:own.csv", &[("", Offer::Spot, -1.0)], 1);
    assert_eq!(spot(&book, &["b"], 1).0, 0.6);
}

#[test]
fn what_was_damaged_on_disk_is_no_price() {
    let mut old = book();
    say(&mut old, SOURCE, &[("a", Offer::Spot, 0.25), ("b", Offer::Spot, 0.75)], 0);
    let text = old.to_json(&[Arc::new(backend(&[]))]).unwrap().replace("0.25", "1e-10");
    let mut again = book();
    assert_eq!(again.restore_json(&text, at(10)), Ok(1));
    assert_eq!(spot(&again, &[], 10).0, 0.75);
}

#[test]
fn what_is_asked_for_is_what_some_backend_needs() {
    let with = |zones: &[&str], spot: f64| {
        let mut backend = backend(zones);
        backend.node.as_mut().unwrap().spot = crate::model::Share::new(spot).unwrap();
        Arc::new(backend)
    };
    let want = |backends: &[Arc<Backend>]| {
        let [want] = &Want::of(backends, Cloud::Aws)[..] else { panic!("one machine in one region") };
        want.clone()
    };
    let named = want(&[with(&["use1-az1"], 0.0)]);
    assert_eq!((named.zones.len(), named.every_zone, named.spot), (1, false, false));
    let both = want(&[with(&["use1-az1"], 0.0), with(&[], 0.5)]);
    assert_eq!((both.zones.len(), both.every_zone, both.spot), (1, true, true));
    assert!(Want::of(&[with(&[], 1.0)], Cloud::Gcp).is_empty());
}

#[test]
fn a_live_file_is_confirmed_as_often_as_it_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.csv");
    write(&path, &row("2021-03-02T00:00:00Z", "1"));
    let source = PriceSource::File { path, replay: None };
    let mut file = FileSource::new(&source, Duration::from_secs(5), at(0)).unwrap();
    let told = |file: &mut FileSource, second: i64| file.poll(at(100_000 + second)).is_some();
    assert!(told(&mut file, 0) && !told(&mut file, 4) && told(&mut file, 5) && told(&mut file, 10));
}

#[test]
fn what_a_source_could_not_say_is_told_and_what_it_said_is_used() {
    let mut book = book();
    let partly = |usd: f64, faults: &[&str]| Fetched {
        quotes: vec![quote("a", Offer::Spot, usd)],
        faults: faults.iter().map(|fault| FeedFault((*fault).into())).collect(),
    };
    let news = book.apply(&SOURCE.into(), partly(1.0, &["one", "two", "three", "four", "five"]), at(0));
    assert!(matches!(&news[..], [News::Failed { .. }]), "{news:?}");
    let status = &book.faults()[0];
    assert_eq!(status.fault.as_deref(), Some("one; two; three; and 2 more"));
    assert_eq!(status.last_good, Some(at(0)));
    assert_eq!(spot(&book, &[], 0).0, 1.0);
    assert!(
        book.apply(&SOURCE.into(), partly(1.1, &["one", "two", "three", "four", "five"]), at(60)).is_empty()
    );
    assert!(matches!(&book.apply(&SOURCE.into(), partly(1.1, &[]), at(120))[..], [News::Works { .. }]));
}

#[test]
fn a_price_that_is_not_believed_leaves_the_last_good_one_in_use() {
    let mut book = book();
    say(&mut book, SOURCE, &[("a", Offer::Spot, 1.0), ("b", Offer::Spot, 1.2)], 0);
    for (second, nonsense) in [0.0, -1.0, f64::NAN, f64::INFINITY, 1000.0].into_iter().enumerate() {
        let news = say(
            &mut book,
            SOURCE,
            &[("a", Offer::Spot, nonsense), ("b", Offer::Spot, 1.2)],
            second as i64 + 1,
        );
        assert!(matches!(&news[..], [News::Held { .. }]), "{nonsense}: {news:?}");
        let (usd, state, note) = spot(&book, &[], second as i64 + 1);
        assert_eq!((usd, state), (1.0, PriceState::Held), "{nonsense}");
        assert!(note.contains(&format!("{nonsense} USD/h")), "{note}");
        assert!(
            say(&mut book, SOURCE, &[("a", Offer::Spot, nonsense)], second as i64 + 1).is_empty(),
            "no news twice"
        );
    }
    assert_eq!(book.faults()[0].held, 1);
    insta::assert_snapshot!(
        spot(&book, &[], 5).2,
        @"file:p.csv says something else that is not believed: 1000 USD/h is higher than the last good price of 1 USD/h by more than a factor of 5; it counts once a fetch at least 5m after 2021-03-02T00:00:05Z still says so"
    );
}

#[test]
fn a_jump_counts_after_a_fetch_a_refresh_later() {
    let mut book = book();
    say(&mut book, SOURCE, &[("", Offer::Spot, 1.0)], 0);
    say(&mut book, SOURCE, &[("", Offer::Spot, 6.0)], 10);
    say(&mut book, SOURCE, &[("", Offer::Spot, 6.0)], 309);
    assert_eq!(spot(&book, &[], 309).0, 1.0);
    let news = say(&mut book, SOURCE, &[("", Offer::Spot, 6.0)], 310);
    assert!(matches!(news[..], [News::Cleared { .. }]), "{news:?}");
    assert_eq!(spot(&book, &[], 310), (6.0, PriceState::Fresh, String::new()));
}

#[test]
fn a_source_that_fails_changes_nothing_and_is_seen() {
    let mut book = book();
    say(&mut book, SOURCE, &[("", Offer::Spot, 1.0)], 0);
    let failed = |book: &mut PriceBook, second| {
        book.apply(&SOURCE.into(), Err(FeedFault("p.csv, line 3: garbage".into())).into(), at(second))
    };
    assert_eq!(failed(&mut book, 10).len(), 1);
    assert_eq!(failed(&mut book, 11).len(), 0, "the same fault is no news");
    let (usd, state, note) = spot(&book, &[], 11);
    assert_eq!((usd, state), (1.0, PriceState::Fresh));
    assert_eq!(note, "file:p.csv does not work now: p.csv, line 3: garbage");
    let status = &book.faults()[0];
    assert_eq!((status.last_good, status.fault.as_deref()), (Some(at(0)), Some("p.csv, line 3: garbage")));
    assert_eq!(say(&mut book, SOURCE, &[], 12).len(), 1, "an empty answer is a fault");
    assert_eq!(spot(&book, &[], 12).0, 1.0);
    assert!(matches!(say(&mut book, SOURCE, &[("", Offer::Spot, 1.0)], 13)[..], [News::Works { .. }]));
    assert_eq!(spot(&book, &[], 13), (1.0, PriceState::Fresh, String::new()));
}

#[test]
fn a_stale_spot_price_gives_way_to_the_on_demand_price() {
    let mut book = book();
    say(&mut book, SOURCE, &[("a", Offer::Spot, 1.0), ("", Offer::OnDemand, 3.0)], 0);
    say(&mut book, SOURCE, &[("", Offer::OnDemand, 3.0)], 7000);
    assert_eq!(spot(&book, &[], 7200).0, 1.0);
    let (usd, state, note) = spot(&book, &[], 7201);
    assert_eq!((usd, state), (3.0, PriceState::Fallback));
    insta::assert_snapshot!(
        note,
        @"the on-demand price stands in for the spot price, last known as 1 USD/h: not confirmed since 2021-03-02T00:00:00Z, for longer than 2h"
    );
    assert_eq!(on_demand(&book, &[], 7201).1, PriceState::Fresh);
    assert_eq!(on_demand(&book, &[], 14_201).1, PriceState::Stale);
    assert_eq!(spot(&book, &[], 14_201).0, 3.0);
}

#[test]
fn silence_never_makes_a_backend_cheaper() {
    let mut book = book();
    say(
        &mut book,
        SOURCE,
        &[("a", Offer::Spot, 4.0), ("b", Offer::Spot, 9.0), ("", Offer::OnDemand, 3.0)],
        0,
    );
    assert_eq!(spot(&book, &[], 0), (4.0, PriceState::Fresh, "above the on-demand price of 3 USD/h".into()));
    assert_eq!(spot(&book, &[], 7201).1, PriceState::Stale, "on demand would be cheaper");
    say(&mut book, SOURCE, &[("b", Offer::Spot, 9.0)], 7300);
    assert_eq!(spot(&book, &[], 7300).0, 9.0, "a zone of which nothing is heard does not undercut another");
}

#[test]
fn without_an_on_demand_price_a_stale_spot_price_stays_and_is_marked() {
    let mut book = book();
    say(&mut book, SOURCE, &[("", Offer::Spot, 1.0)], 0);
    let (usd, state, note) = spot(&book, &[], 7201);
    assert_eq!((usd, state), (1.0, PriceState::Stale));
    assert!(note.starts_with("not confirmed since"), "{note}");
    assert_eq!(spot(&book, &[], -100_000).1, PriceState::Fresh, "the clock was set back");
}

#[test]
fn the_earlier_source_counts_while_it_can_be_trusted() {
    let mut book = PriceBook::new(&settings(&["own.csv", "list.csv"]));
    say(&mut book, "file:list.csv", &[("", Offer::Spot, 1.0)], 0);
    assert_eq!(spot(&book, &[], 0).0, 1.0);
    say(&mut book, "file:own.csv", &[("", Offer::Spot, 2.0)], 0);
    assert_eq!(spot(&book, &[], 0).0, 2.0);
    say(&mut book, "file:own.csv", &[("", Offer::Spot, -2.0)], 1);
    assert_eq!(spot(&book, &[], 1).0, 1.0);
    book.reconfigure(&settings(&["own.csv"]));
    assert_eq!(spot(&book, &[], 1).0, 2.0, "a source that is gone takes its prices along");
    assert!(
        say(&mut book, "file:list.csv", &[("", Offer::Spot, 0.5)], 2).is_empty(),
        "and is not heard any more"
    );
    assert_eq!(spot(&book, &[], 2).0, 2.0);
}

#[test]
fn prices_survive_a_restart() {
    let mut old = book();
    say(&mut old, SOURCE, &[("a", Offer::Spot, 1.0), ("", Offer::OnDemand, 3.0)], 0);
    let mut unused = quote("", Offer::Spot, 7.0);
    unused.key.instance_type = "p2.xlarge".into();
    old.apply(&SOURCE.into(), Ok(vec![unused]).into(), at(0));
    let saved = old.to_json(&[Arc::new(backend(&[]))]).unwrap();
    assert!(!saved.contains("p2.xlarge"), "only what is in use is kept");

    let mut new = book();
    assert_eq!(new.restore_json(&saved, at(60)), Ok(2));
    assert_eq!(new.view(&backend(&[]), at(60)), old.view(&backend(&[]), at(60)));
    say(&mut new, SOURCE, &[("a", Offer::Spot, 1000.0)], 61);
    assert_eq!(spot(&new, &[], 61).1, PriceState::Held, "the guard remembers");
    assert_eq!(PriceBook::new(&settings(&["other.csv"])).restore_json(&saved, at(60)), Ok(0));
    for bad in ["", "[]", "{\"version\":2,\"prices\":[]}", &saved.replace(":1.0", ":-1.0")] {
        assert!(book().restore_json(bad, at(0)).is_err(), "{bad}");
    }
    let mut ahead = book();
    ahead.restore_json(&saved, at(-10_000)).unwrap();
    assert_eq!(
        spot(&ahead, &[], -2000).1,
        PriceState::Fallback,
        "a clock that was ahead keeps nothing fresh"
    );
}

#[test]
fn the_report_shows_what_is_in_use_and_what_is_missing() {
    let mut book = book();
    say(&mut book, SOURCE, &[("b", Offer::Spot, 1.0), ("", Offer::OnDemand, f64::NAN)], 0);
    let report = book.report(&backend(&["a", "b"]), at(0));
    insta::assert_snapshot!(serde_json::to_string_pretty(&report).unwrap(), @r#"
    [
      {
        "backend": "eks-use1",
        "instance_type": "p3.2xlarge",
        "region": "us-east-1",
        "zone": "b",
        "offer": "spot",
        "usd_per_hour": 1.0,
        "source": "file:p.csv",
        "observed_at": "2021-03-01T23:59:00Z",
        "fetched_at": "2021-03-02T00:00:00Z",
        "state": "fresh",
        "note": null
      },
      {
        "backend": "eks-use1",
        "instance_type": "p3.2xlarge",
        "region": "us-east-1",
        "zone": null,
        "offer": "on_demand",
        "usd_per_hour": null,
        "source": null,
        "observed_at": null,
        "fetched_at": null,
        "state": "missing",
        "note": "no source states a price for on_demand p3.2xlarge in aws us-east-1 (zone a or b, or the whole region); file:p.csv says something that is not believed: NaN USD/h is not a price: expected a number between 0.00001 and 100000"
      }
    ]
    "#);
    let mut without_node = backend(&[]);
    without_node.node = None;
    assert!(book.report(&without_node, at(0)).is_empty());
    assert_eq!(book.view(&without_node, at(0)), (None, None));
}

fn row(at: &str, usd: &str) -> String {
    format!("{at},aws,us-east-1,us-east-1a,p3.2xlarge,spot,{usd}\n")
}

fn write(path: &Path, rows: &str) {
    let new = path.with_extension("new");
    fs::write(&new, format!("at,cloud,region,zone,instance_type,offer,usd_per_hour\n{rows}")).unwrap();
    fs::rename(new, path).unwrap();
}

fn file_settings(path: &Path, replay: Option<Replay>) -> PriceSettings {
    let sources = vec![PriceSource::File { path: path.to_owned(), replay }];
    PriceSettings { sources, ..settings(&[]) }
}

#[test]
fn a_replay_goes_on_through_a_reload_and_confirms_jumps_at_its_own_speed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.csv");
    let rows = row("2021-03-02T00:00:00Z", "1") + &row("2021-03-02T01:00:00Z", "100");
    write(&path, &rows);
    let replay = Replay { from: "2021-03-02T00:00:00Z".parse().unwrap(), speed: 3600.0 };
    let settings = file_settings(&path, Some(replay));
    let book = Arc::new(Mutex::new(PriceBook::new(&settings)));
    let says = |second: f64| {
        let moment = at(0) + SignedDuration::try_from_secs_f64(second).unwrap();
        PriceFeed::new(&settings, &[], book.clone(), moment).load_now(moment);
        let price = book.lock().unwrap().view(&backend(&[]), moment).0;
        shown(price).0
    };
    assert_eq!(says(0.0), 1.0);
    assert_eq!(says(1.0), 1.0, "held back: five minutes of the recording must pass");
    assert_eq!(says(1.05), 1.0);
    assert_eq!(says(1.1), 100.0);
    assert_eq!(
        book.lock().unwrap().to_json(&[Arc::new(backend(&[]))]).unwrap(),
        r#"{"version":1,"prices":[]}"#
    );
}

#[tokio::test]
async fn the_feed_follows_its_file_until_it_is_told_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.csv");
    write(&path, &row("2021-03-02T00:00:00Z", "1"));
    let settings = PriceSettings { refresh: Duration::from_millis(20), ..file_settings(&path, None) };
    let book = Arc::new(Mutex::new(PriceBook::new(&settings)));
    let mut feed = PriceFeed::new(&settings, &[], book.clone(), Timestamp::now());
    feed.load_now(Timestamp::now());
    let usd = || shown(book.lock().unwrap().view(&backend(&[]), Timestamp::now()).0).0;
    assert_eq!(usd(), 1.0);
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(feed.run(stopped));
    let until = async |condition: &dyn Fn() -> bool| {
        let look = async {
            while !condition() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), look).await.expect("in time");
    };
    write(&path, &row("2021-03-02T00:00:00Z", "2"));
    until(&|| usd() == 2.0).await;
    fs::remove_file(&path).unwrap();
    until(&|| book.lock().unwrap().faults()[0].fault.is_some()).await;
    assert_eq!(usd(), 2.0);
    write(&path, &row("2021-03-02T00:00:00Z", "3"));
    until(&|| usd() == 3.0 && book.lock().unwrap().faults()[0].fault.is_none()).await;
    stop.send(true).unwrap();
    running.await.unwrap();
}

proptest! {
    /// Whatever a source says, and whenever: a price in use is finite and above zero, and moves by more than `max_step` in
    /// one fetch only when an earlier fetch, at least a refresh before, said about the same.
    #[test]
    fn whatever_a_source_says_the_price_in_use_stays_plausible(
        said in prop::collection::vec(
            (prop_oneof![3 => 0.01f64..1000.0, 1 => any::<f64>(), 1 => Just(0.0), 1 => Just(f64::NAN), 2 => Just(50.0)], 1i64..400),
            1..60,
        )
    ) {
        let mut book = book();
        let (mut second, mut last): (i64, Option<f64>) = (0, None);
        let mut history: Vec<(i64, f64)> = Vec::new();
        for (usd, pause) in said {
            second += pause;
            say(&mut book, SOURCE, &[("", Offer::Spot, usd)], second);
            let Some(price) = book.view(&backend(&[]), at(second)).0 else { continue };
            let now = price.usd_per_hour.get();
            prop_assert!(now.is_finite() && now > 0.0);
            if let Some(before) = last {
                let step = (now / before).max(before / now);
                let confirmed = history.iter().any(|(then, other)| {
                    second - then >= 300 && (now / other).max(other / now) <= 2.0
                });
                prop_assert!(step <= 5.0 || confirmed, "{before} became {now} unconfirmed");
            }
            last = Some(now);
            history.push((second, usd));
        }
    }
}
