#!/bin/sh
# All that can be found wrong without running a test. It goes on after a failure, so that one run says all there is to
# fix, names at the end what failed, and exits with 1 if anything did.
set -u

cd "$(dirname "$0")/.." || exit 1
failed=""

# check NAME COMMAND...
check() {
    name=$1
    shift
    echo "check: $name" >&2
    "$@" || failed="$failed, $name"
}

skip() {
    echo "check: $1: skipped, $2" >&2
}

# Every package: the tools of the benchmarks are one of their own, which `cargo fmt` does not reach from here.
formatting() {
    status=0
    for manifest in $(find . -name Cargo.toml -not -path '*/target/*' | sort); do
        cargo fmt --check --manifest-path "$manifest" || status=1
    done
    return $status
}

# Every script by its first line, wherever it is: new ones are checked without being listed.
scripts() {
    status=0
    for script in $(find scripts .ci deploy benches -type f 2>/dev/null | sort); do
        case "$(head -n 1 "$script" | tr -d '\0')" in
            '#!'*bash*) shell="bash" ;;
            '#!'*/sh | '#!'*/sh\ * | '#!'*\ sh) shell="sh" ;;
            *) continue ;;
        esac
        "$shell" -n "$script" || status=1
        if command -v shellcheck >/dev/null 2>&1; then
            shellcheck --severity=warning "$script" || status=1
        fi
    done
    return $status
}

# What is at stake without the network is only what was published since: bans, licences and sources are in the tree.
dependencies() {
    if ! cargo deny --version >/dev/null 2>&1; then
        skip dependencies "there is no cargo-deny ('cargo install --locked cargo-deny' brings it)"
        return 0
    fi
    status=0
    cargo deny --locked check --hide-inclusion-graph bans licenses sources || status=1
    if cargo deny fetch db >/dev/null 2>&1; then
        cargo deny --locked check --hide-inclusion-graph advisories || status=1
    else
        skip advisories "their database could not be fetched"
    fi
    return $status
}

check formatting formatting
check clippy cargo clippy --locked --all-targets -- -D warnings
check dependencies dependencies
check scripts scripts
check manifests sh deploy/check.sh

if [ -n "$failed" ]; then
    echo "check: failed: ${failed#, }" >&2
    exit 1
fi
echo "check: nothing to fix" >&2
