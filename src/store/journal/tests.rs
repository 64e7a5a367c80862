use std::{thread, time::Duration};

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn at(second: u64) -> Timestamp {
    "2025-06-01T12:00:00Z".parse::<Timestamp>().unwrap() + Duration::from_secs(second)
}

/// The entry number `n`, of second `n`, with a line of some `size` bytes or more.
fn entry(n: u64, size: usize) -> JournalEntry {
    let route = if n.is_multiple_of(2) { "chat" } else { "embed" };
    let body = json!({"n": n, "filler": "x".repeat(size)});
    JournalEntry { at: at(n), kind: EntryKind::Decision, route: Some(route.parse().unwrap()), body }
}

fn numbers(entries: &[Value]) -> Vec<u64> {
    entries.iter().map(|e| e["n"].as_u64().unwrap()).collect()
}

fn all() -> JournalQuery {
    JournalQuery { limit: QUERY_ENTRIES_MAX, ..JournalQuery::default() }
}

fn small(file_bytes: u64, files: usize) -> JournalLimits {
    JournalLimits { file_bytes, files }
}

#[test]
fn a_line_starts_with_what_every_entry_has() {
    let home = tempfile::tempdir().unwrap();
    let journal = Journal::open(home.path(), JournalLimits::default()).unwrap();
    journal.append(&entry(0, 1)).unwrap();
    let config = JournalEntry { at: at(1), kind: EntryKind::Config, route: None, body: Value::Null };
    journal.append_durable(&config).unwrap();
    assert_eq!(
        fs::read_to_string(home.path().join("journal/current.jsonl")).unwrap(),
        "{\"at\":\"2025-06-01T12:00:00Z\",\"kind\":\"decision\",\"route\":\"chat\",\"n\":0,\"filler\":\"x\"}\n\
         {\"at\":\"2025-06-01T12:00:01Z\",\"kind\":\"config\"}\n"
    );
    let read = journal.read(&all()).unwrap();
    assert_eq!(serde_json::from_value::<JournalEntry>(read[1].clone()).unwrap(), entry(0, 1));
}

#[test]
fn a_body_cannot_contradict_the_entry() {
    let home = tempfile::tempdir().unwrap();
    let journal = Journal::open(home.path(), JournalLimits::default()).unwrap();
    let with = |body| JournalEntry { body, ..entry(0, 0) };
    journal.append(&with(json!({"at": "2025-06-01T12:00:00Z", "n": 0}))).unwrap();
    for bad in [json!({"kind": "drain"}), json!({"route": null}), json!([1]), json!("text")] {
        let error = journal.append(&with(bad)).unwrap_err();
        assert!(matches!(error, StoreError::Refused { .. }), "{error}");
    }
    let too_long = journal.append(&entry(0, LINE_BYTES_MAX)).unwrap_err();
    assert!(matches!(too_long, StoreError::Refused { .. }), "{too_long}");
    assert_eq!(numbers(&journal.read(&all()).unwrap()), [0]);
}

#[test]
fn the_newest_come_first_across_files_and_the_oldest_go() {
    let home = tempfile::tempdir().unwrap();
    let journal = Journal::open(home.path(), small(1_000, 3)).unwrap();
    (0..40).for_each(|n| journal.append(&entry(n, 100)).unwrap());
    let read = numbers(&journal.read(&all()).unwrap());
    // 5 lines a file.
    assert_eq!(read, (25..40).rev().collect::<Vec<_>>());
    let mut names: Vec<_> =
        fs::read_dir(home.path().join("journal")).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names.iter().all(|path| fs::metadata(path).unwrap().len() <= 1_000));

    let journal = Journal::open(home.path(), small(1_000, 1)).unwrap();
    journal.append(&entry(40, 2_000)).unwrap();
    journal.append(&entry(41, 0)).unwrap();
    assert_eq!(numbers(&journal.read(&all()).unwrap()), [41]);
}

#[test]
fn queries_choose_by_route_and_time_and_are_limited() {
    let home = tempfile::tempdir().unwrap();
    let journal = Journal::open(home.path(), small(8_000, 100)).unwrap();
    (0..1_200).for_each(|n| journal.append(&entry(n, 0)).unwrap());
    let read = |query: JournalQuery| numbers(&journal.read(&query).unwrap());

    let route = Some("chat".parse().unwrap());
    assert_eq!(read(JournalQuery { route: route.clone(), limit: 3, ..all() }), [1198, 1196, 1194]);
    assert_eq!(read(JournalQuery { since: Some(at(1_197)), ..all() }), [1199, 1198, 1197]);
    assert_eq!(
        read(JournalQuery { route, since: Some(at(1_197)), until: None, limit: 9, kind: None }),
        [1198]
    );
    assert_eq!(read(JournalQuery { until: Some(at(1)), ..all() }), [1, 0]);
    assert_eq!(read(JournalQuery { route: Some("none".parse().unwrap()), ..all() }), [0; 0]);
    assert_eq!(read(JournalQuery { limit: 0, ..all() }), [0; 0]);
    assert_eq!(read(JournalQuery { limit: usize::MAX, ..all() }).len(), QUERY_ENTRIES_MAX);

    // A clock that was behind for a while hides nothing.
    journal.append(&JournalEntry { at: Timestamp::UNIX_EPOCH, ..entry(5_000, 0) }).unwrap();
    assert_eq!(read(JournalQuery { since: Some(at(1_199)), ..all() }), [1199]);
}

#[test]
fn an_answer_is_limited_in_bytes() {
    let home = tempfile::tempdir().unwrap();
    let journal = Journal::open(home.path(), JournalLimits::default()).unwrap();
    (0..50).for_each(|n| journal.append(&entry(n, 200_000)).unwrap());
    let read = numbers(&journal.read(&all()).unwrap());
    assert_eq!(read.len(), QUERY_BYTES_MAX / 200_100);
    assert_eq!(read[0], 49);
}

#[test]
fn files_that_an_operator_deletes_do_not_stop_it() {
    let home = tempfile::tempdir().unwrap();
    let journal = Journal::open(home.path(), JournalLimits::default()).unwrap();
    journal.append(&entry(0, 0)).unwrap();
    fs::remove_dir_all(home.path().join("journal")).unwrap();
    assert!(journal.read(&all()).unwrap().is_empty());
    journal.append(&entry(1, 0)).unwrap();
    assert_eq!(numbers(&journal.read(&all()).unwrap()), [1]);
}

#[test]
fn other_files_in_its_directory_are_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let journal = Journal::open(home.path(), small(200, 1)).unwrap();
    for name in ["7.jsonl", "notes.jsonl", "current.jsonl.bak"] {
        fs::write(home.path().join("journal").join(name), "mine").unwrap();
    }
    (0..10).for_each(|n| journal.append(&entry(n, 50)).unwrap());
    for name in ["7.jsonl", "notes.jsonl", "current.jsonl.bak"] {
        assert_eq!(fs::read_to_string(home.path().join("journal").join(name)).unwrap(), "mine");
    }
}

#[test]
fn readers_see_no_gap_while_files_are_rotated() {
    let home = tempfile::tempdir().unwrap();
    let journal = Journal::open(home.path(), small(500, 4)).unwrap();
    journal.append(&entry(0, 0)).unwrap();
    thread::scope(|scope| {
        let writer = scope.spawn(|| (1..2_000).for_each(|n| journal.append(&entry(n, 20)).unwrap()));
        let mut newest = 0;
        while !writer.is_finished() {
            let read = numbers(&journal.read(&all()).unwrap());
            assert!(read.windows(2).all(|pair| pair[0] == pair[1] + 1), "{read:?}");
            assert!(read[0] >= newest);
            newest = read[0];
        }
    });
    assert_eq!(numbers(&journal.read(&all()).unwrap())[0], 1_999);
}

/// Truncates the current file at `cut` and adds `tail`, as a crash may, then checks reading before and after an append.
fn check_torn(home: &Path, limits: JournalLimits, cut: u64, tail: &[u8]) -> Result<(), TestCaseError> {
    let current = home.join("journal/current.jsonl");
    let before = fs::read(&current).unwrap();
    let journal = Journal::open(home, limits).unwrap();
    let rotated =
        numbers(&journal.read(&all()).unwrap()).len() - before.iter().filter(|&&b| b == b'\n').count();

    let mut torn = before[..cut as usize].to_vec();
    // A line is whole with its last brace; only the line end may be missing.
    let whole = torn.iter().filter(|&&b| b == b'}').count();
    torn.extend(tail);
    // Bytes in the place of a missing line end spoil the line before them.
    let spoilt = usize::from(!tail.is_empty() && torn[..cut as usize].last() == Some(&b'}'));
    fs::write(&current, torn).unwrap();

    let expected: Vec<u64> = (0..(rotated + whole - spoilt) as u64).rev().collect();
    prop_assert_eq!(numbers(&journal.read(&all()).unwrap()), expected.clone());
    journal.append(&entry(1_000_000, 3)).unwrap();
    journal.append(&entry(1_000_001, 3)).unwrap();
    let mut read = numbers(&journal.read(&all()).unwrap());
    prop_assert_eq!(&read[..2], &[1_000_001, 1_000_000][..]);
    read.drain(..2);
    prop_assert_eq!(read, expected);
    Ok(())
}

#[test]
fn a_crash_at_any_byte_loses_no_whole_line() {
    let limits = small(400, 100);
    let lines = [entry(0, 5), entry(1, 40), entry(2, 1), entry(3, 17), entry(4, 30)];
    let len = |home: &Path| fs::metadata(home.join("journal/current.jsonl")).unwrap().len();
    let mut cut = 0;
    loop {
        let home = tempfile::tempdir().unwrap();
        let journal = Journal::open(home.path(), limits).unwrap();
        lines.iter().for_each(|line| journal.append(line).unwrap());
        if cut > len(home.path()) {
            break;
        }
        check_torn(home.path(), limits, cut, b"").unwrap();
        cut += 1;
    }
    assert!(cut > 100);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn torn_writes_lose_no_whole_line(
        sizes in prop::collection::vec(0_usize..300, 1..20),
        file_bytes in 100_u64..3_000,
        cut in any::<prop::sample::Index>(),
        // Blocks that were never written read as zeros; other bytes stand for a disk that lies.
        tail in prop_oneof![Just(Vec::new()), Just(vec![0; 500]), prop::collection::vec(0x80_u8.., 0..40)],
    ) {
        let home = tempfile::tempdir().unwrap();
        let limits = small(file_bytes, 1_000);
        let journal = Journal::open(home.path(), limits).unwrap();
        for (n, size) in sizes.iter().enumerate() {
            journal.append(&entry(n as u64, *size)).unwrap();
        }
        let len = fs::metadata(home.path().join("journal/current.jsonl")).unwrap().len();
        check_torn(home.path(), limits, cut.index(len as usize + 1) as u64, &tail)?;
    }
}
