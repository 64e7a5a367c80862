use std::{os::unix::fs::PermissionsExt, thread};

use super::*;

fn files_in(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn what_was_put_is_there_after_a_restart() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("a/b/state");
    let dir = LocalDir::open(&path).unwrap();
    assert_eq!(dir.get("policy.json").unwrap(), None);
    dir.put("policy.json", b"first").unwrap();
    dir.put("policy.json", b"second").unwrap();
    drop(dir);

    let dir = LocalDir::open(&path).unwrap();
    assert_eq!(dir.get("policy.json").unwrap().unwrap(), b"second");
    assert_eq!(files_in(&path), ["lock", "policy.json"]);
    dir.delete("policy.json").unwrap();
    dir.delete("policy.json").unwrap();
    assert_eq!(dir.get("policy.json").unwrap(), None);
}

#[test]
fn only_its_user_can_read_it() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("state");
    LocalDir::open(&path).unwrap().put("policy.json", b"{}").unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join("policy.json")), 0o600);
    assert_eq!(mode(&path.join("lock")), 0o600);
}

#[test]
fn a_second_process_is_told_who_holds_the_lock() {
    let home = tempfile::tempdir().unwrap();
    // A longer number than any pid, left by a process before.
    fs::write(home.path().join("lock"), "4294967295\n").unwrap();
    let first = LocalDir::open(home.path()).unwrap();
    let error = LocalDir::open(home.path()).unwrap_err();
    let own = std::process::id();
    assert!(matches!(error, StoreError::InUse { pid: Some(pid), .. } if pid == own), "{error:?}");
    assert!(error.to_string().contains(&format!("the process with pid {own}")), "{error}");
    drop(first);
    LocalDir::open(home.path()).unwrap();
}

#[test]
fn what_a_cut_short_write_left_is_removed() {
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join(".policy.json.7.tmp"), "half").unwrap();
    fs::write(home.path().join("policy.json"), "whole").unwrap();
    let dir = LocalDir::open(home.path()).unwrap();
    assert_eq!(files_in(home.path()), ["lock", "policy.json"]);
    assert_eq!(dir.get("policy.json").unwrap().unwrap(), b"whole");
}

#[test]
fn names_cannot_leave_the_directory() {
    let home = tempfile::tempdir().unwrap();
    let dir = LocalDir::open(home.path()).unwrap();
    let long = "x".repeat(BLOB_NAME_LEN_MAX + 1);
    for bad in ["", ".", "..", "../x", "a/b", "/etc/x", ".hidden", "a\0b", "a b", "lock", &long] {
        let error = dir.put(bad, b"x").unwrap_err();
        assert!(matches!(error, StoreError::Refused { .. }), "{bad:?}: {error}");
    }
    dir.put(&"x".repeat(BLOB_NAME_LEN_MAX), b"x").unwrap();
}

#[test]
fn a_directory_that_cannot_be_synced_refuses_and_keeps_what_was() {
    let home = tempfile::tempdir().unwrap();
    let mut dir = LocalDir::open(home.path()).unwrap();
    dir.put("policy.json", b"old").unwrap();
    // The system refuses to sync this device, as it refuses a directory on some file systems.
    dir.directory = File::open("/dev/null").unwrap();
    assert!(matches!(dir.put("policy.json", b"new").unwrap_err(), StoreError::Io { action: "sync", .. }));
    assert!(dir.put("other.json", b"new").is_err());
    assert_eq!(dir.get("policy.json").unwrap().unwrap(), b"old");
    assert_eq!(dir.get("other.json").unwrap(), None);
    assert_eq!(files_in(home.path()), ["lock", "policy.json"]);
}

#[test]
fn a_target_that_cannot_be_replaced_leaves_no_trace() {
    let home = tempfile::tempdir().unwrap();
    let dir = LocalDir::open(home.path()).unwrap();
    fs::create_dir(home.path().join("taken")).unwrap();
    let target = home.path().join("taken");
    assert!(dir.replace(&target, "taken", b"x").is_err());
    assert_eq!(files_in(home.path()), ["lock", "taken"]);
}

#[test]
fn readers_see_the_old_or_the_new_content_and_never_a_mixture() {
    let home = tempfile::tempdir().unwrap();
    let dir = LocalDir::open(home.path()).unwrap();
    let values: [Vec<u8>; 2] = [vec![b'a'; 100_000], vec![b'b'; 60_000]];
    dir.put("value", &values[0]).unwrap();
    thread::scope(|scope| {
        let writers: Vec<_> = values
            .iter()
            .map(|value| scope.spawn(|| (0..20).for_each(|_| dir.put("value", value).unwrap())))
            .collect();
        while !writers.iter().all(thread::ScopedJoinHandle::is_finished) {
            let seen = dir.get("value").unwrap().unwrap();
            assert!(values.contains(&seen), "{} bytes that nobody put", seen.len());
        }
    });
    assert_eq!(files_in(home.path()), ["lock", "value"]);
}

#[test]
fn what_the_system_says_is_sorted_by_who_can_repair_it() {
    let sorted = |errno| StoreError::from_io("write", Path::new("x"), io::Error::from_raw_os_error(errno));
    // Linux: ENOSPC, EDQUOT, EFBIG.
    for errno in [28, 122, 27] {
        assert!(matches!(sorted(errno), StoreError::NoSpace { .. }), "{:?}", sorted(errno));
    }
    // Linux: EACCES, EPERM, EROFS.
    for errno in [13, 1, 30] {
        assert!(matches!(sorted(errno), StoreError::NotWritable { .. }), "{:?}", sorted(errno));
    }
    // Linux: EIO.
    assert!(matches!(sorted(5), StoreError::Io { .. }));
}
