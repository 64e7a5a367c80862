//! What happens on a disk that is really full: each test runs itself again in a process with a tiny disk of its own.

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::Duration,
};

use serde_json::json;

use super::{
    Blobs, EntryKind, Journal, JournalEntry, JournalLimits, JournalQuery, LocalDir, Overrides, StoreError,
};
use crate::model::{Override, OverrideKind, Timestamp};

/// Set for the second process: the directory on the tiny disk.
const TINY_DISK: &str = "TRADEWIND_TEST_TINY_DISK";
const NOT_PERMITTED: i32 = 77;

/// Runs the test `name` again under a shell that first does `prepare`, with the directory as `$0`. `false` if the system
/// does not permit the preparation.
fn run_again(name: &str, launcher: &[&str], prepare: &str) -> bool {
    let home = tempfile::tempdir().unwrap();
    let script = format!("{{ {prepare}; }} || exit {NOT_PERMITTED}; exec \"$@\"");
    let mut words = launcher.iter().copied().chain(["sh", "-c", &script]);
    let output = Command::new(words.next().unwrap())
        .args(words)
        .arg(home.path())
        .arg(env::current_exe().unwrap())
        .args(["--exact", &format!("store::full_disk::{name}"), "--nocapture"])
        .env(TINY_DISK, home.path())
        .output();
    let Ok(output) = output else { return false };
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => assert!(text.contains("1 passed"), "the second process ran no test:\n{text}"),
        // 1 is how `unshare` itself fails; a failed test ends with 101.
        Some(1 | NOT_PERMITTED) => return false,
        code => panic!("in the second process ({code:?}):\n{text}"),
    }
    true
}

/// The directory on the tiny disk, if this is the second process. The mount is in a namespace of that process, so nothing
/// is left mounted whatever happens to it.
fn tiny_disk(name: &str) -> Option<PathBuf> {
    if let Some(dir) = env::var_os(TINY_DISK) {
        return Some(dir.into());
    }
    let mount = "mount -t tmpfs -o size=64k,mode=0700 tradewind-test \"$0\"";
    let done = run_again(name, &["unshare", "--mount"], mount)
        || run_again(name, &["unshare", "--user", "--map-root-user", "--mount"], mount);
    if !done {
        eprintln!("SKIPPED {name}: this system does not permit mounting a tmpfs in a namespace");
    }
    None
}

/// Writes until nothing more fits.
fn fill(dir: &Path) -> PathBuf {
    let path = dir.join("ballast");
    let mut file = fs::File::create(&path).unwrap();
    for size in [4096, 1] {
        while file.write_all(&vec![b'x'; size]).is_ok() {
            assert!(file.metadata().unwrap().len() < 1_000_000, "the disk is not tiny");
        }
    }
    path
}

fn at(second: u64) -> Timestamp {
    "2025-06-01T12:00:00Z".parse::<Timestamp>().unwrap() + Duration::from_secs(second)
}

fn freeze(id: &str, end: u64) -> Override {
    Override {
        id: id.into(),
        kind: OverrideKind::Freeze,
        route: None,
        backend: None,
        share: None,
        reason: "x".repeat(5_000),
        author: "oncall".into(),
        created_at: at(0),
        expires_at: at(end),
    }
}

fn entry(n: u64) -> JournalEntry {
    JournalEntry {
        at: at(n),
        kind: EntryKind::Decision,
        route: None,
        body: json!({"n": n, "filler": "x".repeat(900)}),
    }
}

fn ids(overrides: &Overrides, now: Timestamp) -> Vec<String> {
    overrides.active(now).iter().map(|o| o.id.clone()).collect()
}

fn temps(dir: &Path) -> usize {
    fs::read_dir(dir)
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().ends_with(".tmp"))
        .count()
}

fn is_full<T>(result: Result<T, StoreError>) -> bool {
    match result {
        Ok(_) => false,
        Err(StoreError::NoSpace { .. }) => true,
        Err(other) => panic!("expected that no space is left, found: {other}"),
    }
}

#[test]
fn a_full_disk_refuses_overrides_and_changes_nothing() {
    let Some(disk) = tiny_disk("a_full_disk_refuses_overrides_and_changes_nothing") else { return };
    let state = disk.join("state");
    let blobs = Arc::new(LocalDir::open(&state).unwrap());
    let (overrides, _) = Overrides::open(blobs.clone(), at(0)).unwrap();
    overrides.add(freeze("brief", 60)).unwrap();
    overrides.add(freeze("kept", 600)).unwrap();
    let before = blobs.get("overrides.json").unwrap();

    let ballast = fill(&disk);
    assert!(is_full(overrides.add(freeze("refused", 600))));
    assert!(is_full(overrides.end("kept")));
    assert_eq!(ids(&overrides, at(0)), ["brief", "kept"]);
    assert_eq!(blobs.get("overrides.json").unwrap(), before);
    assert_eq!(temps(&state), 0);
    // What ends by time does so without the disk, and does not come back with the clock.
    assert_eq!(overrides.expire(at(60)), [freeze("brief", 60)]);
    assert_eq!(overrides.expire(at(60)), []);
    assert_eq!(ids(&overrides, at(0)), ["kept"]);
    assert_eq!(blobs.get("overrides.json").unwrap(), before);

    fs::remove_file(ballast).unwrap();
    assert_eq!(overrides.expire(at(60)), []);
    overrides.add(freeze("new", 600)).unwrap();
    drop((overrides, blobs));
    let (overrides, warning) = Overrides::open(Arc::new(LocalDir::open(&state).unwrap()), at(0)).unwrap();
    assert!(warning.is_none());
    assert_eq!(ids(&overrides, at(0)), ["kept", "new"]);
}

#[test]
fn a_corrupt_file_is_not_overwritten_before_it_could_be_copied() {
    let Some(disk) = tiny_disk("a_corrupt_file_is_not_overwritten_before_it_could_be_copied") else { return };
    let blobs = Arc::new(LocalDir::open(disk.join("state")).unwrap());
    let garbage = vec![b'?'; 9_000];
    blobs.put("overrides.json", &garbage).unwrap();

    let ballast = fill(&disk);
    let (overrides, warning) = Overrides::open(blobs.clone(), at(0)).unwrap();
    assert!(warning.unwrap().to_string().contains("stays where it is"));
    assert!(is_full(overrides.add(freeze("refused", 600))));
    assert_eq!(blobs.get("overrides.json").unwrap().unwrap(), garbage);

    fs::remove_file(ballast).unwrap();
    overrides.add(freeze("new", 600)).unwrap();
    assert_eq!(blobs.get("overrides.json.corrupt-1").unwrap().unwrap(), garbage);
    let (overrides, warning) = Overrides::open(blobs, at(0)).unwrap();
    assert!(warning.is_none());
    assert_eq!(ids(&overrides, at(0)), ["new"]);
}

/// Appends until nothing more fits; gives how many lines did.
fn append_until_full(journal: &Journal) -> u64 {
    let fitted = (0..1_000).find(|&n| is_full(journal.append(&entry(n)))).expect("the disk is not tiny");
    for _ in 0..3 {
        assert!(is_full(journal.append(&entry(fitted))));
        assert!(is_full(journal.append_durable(&entry(fitted))));
    }
    fitted
}

fn check_journal(journal: &Journal, dir: &Path, lines: u64) {
    let read = journal.read(&JournalQuery { limit: 1_000, ..JournalQuery::default() }).unwrap();
    let numbers: Vec<u64> = read.iter().map(|e| e["n"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (0..lines).rev().collect::<Vec<_>>());
    let raw = fs::read_to_string(dir.join("journal/current.jsonl")).unwrap();
    assert!(raw.ends_with('\n'));
    assert_eq!(raw.lines().count() as u64, lines);
}

#[test]
fn a_journal_on_a_full_disk_goes_on_when_there_is_room() {
    let Some(disk) = tiny_disk("a_journal_on_a_full_disk_goes_on_when_there_is_room") else { return };
    let journal = Journal::open(&disk, JournalLimits::default()).unwrap();
    let ballast = fill(&disk);
    fs::OpenOptions::new().write(true).open(&ballast).unwrap().set_len(20_000).unwrap();
    let fitted = append_until_full(&journal);
    // The line that did not fit began in a block that was there already: without repair it would be torn.
    assert!(fitted > 3);
    check_journal(&journal, &disk, fitted);
    fs::remove_file(ballast).unwrap();
    journal.append(&entry(fitted)).unwrap();
    journal.append_durable(&entry(fitted + 1)).unwrap();
    check_journal(&journal, &disk, fitted + 2);
}

#[test]
fn a_journal_starts_on_a_full_disk() {
    let Some(disk) = tiny_disk("a_journal_starts_on_a_full_disk") else { return };
    let ballast = fill(&disk);
    let journal = Journal::open(&disk, JournalLimits::default()).unwrap();
    assert!(is_full(journal.append(&entry(0))));
    fs::remove_file(ballast).unwrap();
    journal.append(&entry(0)).unwrap();
    check_journal(&journal, &disk, 1);
}

/// Needs no permission: the system itself limits the size of each file (EFBIG).
#[test]
fn a_limit_on_file_sizes_counts_as_full() {
    let Some(dir) = env::var_os(TINY_DISK).map(PathBuf::from) else {
        // In blocks of 512 or 1,024 bytes, depending on the shell.
        let permitted =
            run_again("a_limit_on_file_sizes_counts_as_full", &[], "trap '' XFSZ && ulimit -f 10");
        assert!(permitted, "the shell cannot limit the size of files");
        return;
    };
    let blobs = LocalDir::open(&dir).unwrap();
    blobs.put("policy.json", b"old").unwrap();
    assert!(is_full(blobs.put("policy.json", &vec![b'x'; 20_000])));
    assert_eq!(blobs.get("policy.json").unwrap().unwrap(), b"old");
    assert_eq!(temps(&dir), 0);

    let journal = Journal::open(&dir, JournalLimits::default()).unwrap();
    let fitted = append_until_full(&journal);
    check_journal(&journal, &dir, fitted);
    // A new file has room again.
    let journal = Journal::open(&dir, JournalLimits { file_bytes: 1, files: 2 }).unwrap();
    journal.append(&entry(fitted)).unwrap();
}
