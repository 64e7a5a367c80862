#!/bin/sh
# Fuzzes one target with libFuzzer: from its corpus, with what was found new kept outside the repository.
#
#   scripts/fuzz.sh usage                      a minute
#   scripts/fuzz.sh config -max_total_time=600 arguments from the second on go to libFuzzer as they are
#
# Not by `cargo fuzz`, which instruments every crate: the AWS SDKs then take more memory than a small machine has. Here only
# Tradewind is instrumented, and what reads text for it.
set -eu

cd "$(dirname "$0")/../fuzz"
target=${1:-}
[ -f "fuzz_targets/$target.rs" ] || {
    echo "fuzz: there is no target '$target'; there are: $(cd fuzz_targets && ls | sed 's/\.rs$//' | tr '\n' ' ')" >&2
    exit 1
}
shift
[ "$#" -gt 0 ] || set -- -max_total_time=60

# The versions that are built otherwise, too; libfuzzer-sys is added to them.
cp ../Cargo.lock .
# Its own target directory: Cargo does not see that crates are instrumented, and would take them for the ordinary ones.
build=${CARGO_TARGET_DIR:-../target}/fuzz
found=$build/found/$target
mkdir -p "$found"
build=$(cd "$build" && pwd)
CARGO_TARGET_DIR=$build RUSTC_WRAPPER=$PWD/rustc.sh cargo build --bin "$target"

artifacts=$PWD/artifacts/$target
mkdir -p "$artifacts"
exec "$build/debug/$target" -artifact_prefix="$artifacts/" "$@" "$found" "corpus/$target"
