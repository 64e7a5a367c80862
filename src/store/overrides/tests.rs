use std::{collections::HashSet, thread, time::Duration};

use super::*;
use crate::{model::OverrideKind, store::LocalDir};

fn at(second: u64) -> Timestamp {
    "2025-06-01T12:00:00Z".parse::<Timestamp>().unwrap() + Duration::from_secs(second)
}

/// An override given at second 0 that ends at second `end`.
fn drain(id: &str, end: u64) -> Override {
    Override {
        id: id.into(),
        kind: OverrideKind::Drain,
        route: None,
        backend: Some("eks-use1".parse().unwrap()),
        share: None,
        reason: "node pool upgrade".into(),
        author: "oncall".into(),
        created_at: at(0),
        expires_at: at(end),
    }
}

fn ids(overrides: &[Override]) -> Vec<&str> {
    overrides.iter().map(|o| o.id.as_str()).collect()
}

fn open(path: &std::path::Path, now: Timestamp) -> (Overrides, Option<StoreError>, Arc<LocalDir>) {
    let blobs = Arc::new(LocalDir::open(path).unwrap());
    let (overrides, warning) = Overrides::open(blobs.clone(), now).unwrap();
    (overrides, warning, blobs)
}

fn stored(blobs: &dyn Blobs) -> Vec<String> {
    let list = parse(&blobs.get(BLOB).unwrap().unwrap()).unwrap();
    list.into_iter().map(|o| o.id).collect()
}

#[test]
fn what_was_acknowledged_holds_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let (overrides, warning, blobs) = open(home.path(), at(0));
    assert!(warning.is_none());
    overrides.add(drain("one", 60)).unwrap();
    overrides.add(drain("two", 90)).unwrap();
    overrides.add(drain("three", 90)).unwrap();
    assert_eq!(overrides.end("two").unwrap().unwrap(), drain("two", 90));
    assert_eq!(overrides.end("two").unwrap(), None);
    drop((overrides, blobs));

    let (overrides, warning, _blobs) = open(home.path(), at(30));
    assert!(warning.is_none());
    assert_eq!(overrides.active(at(30))[..], [drain("one", 60), drain("three", 90)]);
}

#[test]
fn what_ends_while_nothing_runs_is_announced_at_the_start_and_once() {
    let home = tempfile::tempdir().unwrap();
    let (overrides, _, blobs) = open(home.path(), at(0));
    overrides.add(drain("short", 60)).unwrap();
    overrides.add(drain("long", 600)).unwrap();
    drop((overrides, blobs));

    let (overrides, _, blobs) = open(home.path(), at(60));
    assert_eq!(ids(&overrides.active(at(60))), ["long"]);
    assert_eq!(ids(&overrides.expire(at(60))), ["short"]);
    overrides.tidy();
    assert!(overrides.expire(at(60)).is_empty());
    assert_eq!(stored(blobs.as_ref()), ["long"]);
}

#[test]
fn a_clock_that_is_set_back_brings_nothing_back() {
    let home = tempfile::tempdir().unwrap();
    let (overrides, _, blobs) = open(home.path(), at(0));
    overrides.add(drain("short", 60)).unwrap();
    overrides.add(drain("long", 600)).unwrap();
    // Seen as ended by a reader, before anyone announced it.
    assert_eq!(ids(&overrides.active(at(61))), ["long"]);
    assert_eq!(ids(&overrides.active(at(10))), ["long"]);
    assert_eq!(ids(&overrides.expire(at(10))), ["short"]);
    overrides.tidy();
    assert_eq!(ids(&overrides.active(at(10))), ["long"]);
    drop((overrides, blobs));

    let (overrides, _, _blobs) = open(home.path(), at(10));
    assert_eq!(ids(&overrides.active(at(10))), ["long"]);
}

#[test]
fn a_clock_that_ran_ahead_for_a_while_does_not_end_what_is_given_later() {
    let home = tempfile::tempdir().unwrap();
    let (overrides, _, _blobs) = open(home.path(), at(0));
    assert!(overrides.active(at(1_000_000)).is_empty());
    overrides.add(drain("later", 60)).unwrap();
    assert_eq!(ids(&overrides.active(at(1))), ["later"]);
}

#[test]
fn a_corrupt_file_is_kept_aside_and_said_loudly() {
    let home = tempfile::tempdir().unwrap();
    let newer = br#"{"version":2,"overrides":[]}"#.to_vec();
    let bad = [b"{\"version\":1,\"overri".to_vec(), Vec::new(), vec![0; 4096], newer];
    for (index, bytes) in bad.iter().enumerate() {
        let kept = format!("overrides.json.corrupt-{}", index + 1);
        std::fs::write(home.path().join(BLOB), bytes).unwrap();
        let (overrides, warning, blobs) = open(home.path(), at(0));
        let warning = warning.unwrap();
        assert!(matches!(warning, StoreError::Corrupt { .. }));
        assert!(warning.to_string().contains(&kept), "{warning}");
        assert!(overrides.active(at(0)).is_empty());
        assert_eq!(blobs.get(&kept).unwrap().unwrap(), *bytes);
        assert_eq!(blobs.get(BLOB).unwrap(), None);
        overrides.add(drain("new", 60)).unwrap();
        assert_eq!(stored(blobs.as_ref()), ["new"]);
    }
}

#[test]
fn the_same_corrupt_file_is_kept_once() {
    let home = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        std::fs::write(home.path().join(BLOB), "garbage").unwrap();
        assert!(open(home.path(), at(0)).1.is_some());
    }
    assert!(home.path().join("overrides.json.corrupt-1").exists());
    assert!(!home.path().join("overrides.json.corrupt-2").exists());
}

#[test]
fn there_is_a_limit() {
    let home = tempfile::tempdir().unwrap();
    let list: Vec<Override> = (0..OVERRIDES_MAX).map(|n| drain(&format!("ov-{n}"), 60)).collect();
    let bytes = serde_json::to_vec(&Stored { version: VERSION, overrides: list }).unwrap();
    std::fs::write(home.path().join(BLOB), bytes).unwrap();
    let (overrides, warning, _blobs) = open(home.path(), at(0));
    assert!(warning.is_none());
    let error = overrides.add(drain("one-more", 60)).unwrap_err();
    assert!(matches!(error, StoreError::TooMany));
    assert!(error.to_string().starts_with("1000 overrides are active"), "{error}");
    overrides.end("ov-7").unwrap().unwrap();
    overrides.add(drain("one-more", 60)).unwrap();
    assert_eq!(overrides.active(at(0)).len(), OVERRIDES_MAX);
}

#[test]
fn senseless_overrides_are_refused() {
    let home = tempfile::tempdir().unwrap();
    let (overrides, _, _blobs) = open(home.path(), at(0));
    overrides.add(drain("one", 60)).unwrap();
    assert!(matches!(overrides.add(drain("one", 90)), Err(StoreError::Refused { .. })));
    assert!(matches!(overrides.add(drain("two", 0)), Err(StoreError::Refused { .. })));
    assert_eq!(overrides.active(at(0))[..], [drain("one", 60)]);
}

#[test]
fn changes_at_the_same_time_are_all_kept() {
    let home = tempfile::tempdir().unwrap();
    let (overrides, _, blobs) = open(home.path(), at(0));
    (0..4).for_each(|n| overrides.add(drain(&format!("short-{n}"), 5)).unwrap());
    let (added, ended) = thread::scope(|scope| {
        let adders: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let give = |_| {
                        let id = overrides.unused_id();
                        overrides.add(drain(&id, 60)).unwrap();
                        id
                    };
                    (0..5).map(give).collect::<Vec<_>>()
                })
            })
            .collect();
        let mut ended = Vec::new();
        while !adders.iter().all(thread::ScopedJoinHandle::is_finished) {
            ended.extend(overrides.expire(at(10)));
        }
        let added: HashSet<String> = adders.into_iter().flat_map(|a| a.join().unwrap()).collect();
        (added, ended)
    });
    overrides.expire(at(10));
    assert_eq!(ended.len(), 4);
    assert_eq!(added.len(), 20);
    assert_eq!(stored(blobs.as_ref()).into_iter().collect::<HashSet<_>>(), added);
    assert_eq!(overrides.active(at(10)).iter().map(|o| o.id.clone()).collect::<HashSet<_>>(), added);
}
