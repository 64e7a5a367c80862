#!/bin/sh
# Mutation testing of what decides and what counts the dollars: `cost` and `policy`. Changes one expression after the
# other and tells which changes no test notices.
#
#   scripts/mutants.sh                     all mutants of both rooms: an hour or two on 2 cores
#   scripts/mutants.sh --shard 1/20        every twentieth; further arguments go to cargo-mutants as they are
#
# The two rooms stand on `model` alone, so they are built as a crate of their own: a mutant takes seconds there, and half a
# minute in the whole of Tradewind. Only their unit tests run; what tests/ catches beyond them is not counted.
set -eu

cd "$(dirname "$0")/.."
command -v cargo-mutants >/dev/null 2>&1 || {
    echo "mutants: cargo-mutants is missing: 'cargo install --locked cargo-mutants' installs it" >&2
    exit 1
}

crate=${CARGO_TARGET_DIR:-target}/mutants
mkdir -p "$crate/src"
crate=$(cd "$crate" && pwd)
rm -rf "$crate/src"
mkdir "$crate/src"
cp -R src/model src/cost src/policy "$crate/src/"
cp Cargo.lock "$crate/"
[ ! -d proptest-regressions ] || cp -R proptest-regressions "$crate/"
# What sizes the property tests is theirs: `cargo mutants` only sees whether a test fails.
cat >"$crate/src/lib.rs" <<'END'
//! The pure rooms of Tradewind.
#![allow(missing_docs)]
pub mod cost;
pub mod model;
pub mod policy;
END
awk '
    /^\[/ { keep = ($0 == "[dependencies]" || $0 == "[dev-dependencies]"); if (keep) print; next }
    keep && /^(csv|jiff|schemars|serde|serde_json|sha2|thiserror|utoipa|insta|microlp|proptest) / { print }
' Cargo.toml >"$crate/dependencies"
{
    printf '[package]\nname = "tradewind"\nversion = "0.0.0"\nedition = "2024"\n\n'
    cat "$crate/dependencies"
    printf '\n[workspace]\n\n[profile.test]\nopt-level = 1\ndebug = false\n'
} >"$crate/Cargo.toml"

cd "$crate"
# Its own target directory: what is built here has other features than the same crates have in Tradewind.
unset CARGO_TARGET_DIR
# A mutant that never ends is ended by the processor time it has used, far more than tests and compiler need: by the clock, a machine
# with other work to do would end tests that are merely slow, and they would count as caught.
ulimit -t 200
exec cargo mutants --in-place --timeout 3600 --file 'src/cost/**' --file 'src/policy/**' --exclude 'src/policy/worlds.rs' \
    --exclude '**/tests.rs' --exclude '**/tests/**' --exclude '**/*_tests.rs' "$@"
