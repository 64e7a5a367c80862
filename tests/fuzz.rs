//! The entry points of the fuzz targets: over their corpus, and over what grows from it by chance.

#[path = "../fuzz/entries.rs"]
mod entries;

use std::{fs, path::Path};

use proptest::{prelude::*, test_runner::TestRunner};

/// The seeds of a target.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files: Vec<_> =
        fs::read_dir(&dir).expect("there is a corpus").map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 5, "{} has {} seeds", dir.display(), files.len());
    files.iter().map(|file| fs::read(file).expect("it can be read")).collect()
}

/// Runs a target over its seeds, and over seeds with bytes changed, cut out and doubled.
fn run(target: &str, entry: impl Fn(&[u8]), cases: u32) {
    let seeds = corpus(target);
    seeds.iter().for_each(|seed| entry(seed));
    let mut runner =
        TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() });
    let edits =
        proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0..4u8, 0..16usize), 0..8);
    let outcome = runner.run(&(any::<prop::sample::Index>(), edits), |(seed, edits)| {
        let mut bytes = seed.get(&seeds).clone();
        for (at, byte, kind, len) in edits {
            if bytes.is_empty() {
                break;
            }
            let at = at.index(bytes.len());
            let end = (at + len).min(bytes.len());
            match kind {
                0 => bytes[at] = byte,
                1 => drop(bytes.drain(at..end)),
                2 => bytes.insert(at, byte),
                _ => {
                    let piece = bytes[at..end].to_vec();
                    bytes.splice(at..at, piece);
                }
            }
        }
        entry(&bytes);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{target}: {error}");
    }
}

#[test]
fn usage() {
    run("usage", entries::usage, 20_000);
}

#[test]
fn peek() {
    run("peek", entries::peek, 20_000);
}

#[test]
fn matcher() {
    run("matcher", entries::matcher, 20_000);
}

#[test]
fn config() {
    run("config", entries::config, 500);
}
