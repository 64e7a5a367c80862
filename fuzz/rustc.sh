#!/bin/sh
# rustc, with the coverage that libFuzzer reads in the crates that are fuzzed, and in no other. Cargo calls it in place of rustc
# (scripts/fuzz.sh); the flags are those of cargo-fuzz 0.13 without a sanitizer.
set -eu

name=
previous=
for argument; do
    [ "$previous" != --crate-name ] || name=$argument
    previous=$argument
done
case $name in
tradewind | usage | peek | matcher | config | toml | toml_parser | toml_edit | serde_json)
    exec "$@" -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
        -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0 -Ccodegen-units=1
    ;;
*) exec "$@" ;;
esac
