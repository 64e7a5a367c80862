#!/bin/sh
# Makes this machine able to build Tradewind, and says nothing when it already is.
#
#   scripts/setup.sh         what a build needs beside Rust: cmake (Pingora builds zlib-ng with it), a C compiler, make
#   scripts/setup.sh test    also a Python environment: the clients and servers in PYTHON_PACKAGES; Node with NODE_PACKAGES; curl; a
#                            browser with its driver, in which the dashboard is tested; and promtool and amtool, which test alert rules
#
# On Debian and Ubuntu it installs what is missing, as root or with a sudo that asks no password. Anywhere else it
# names the command that does, and exits with 1.
set -eu

# What the tests drive, and are served by: real clients and servers that others wrote. Raised by hand, with a run of the tests: what
# they show is that these very versions work. moto[server] would bring all its services, and what they need: more than
# twice as much.
PYTHON_PACKAGES="openai==3.54.0 moto[ec2]==5.2.5 flask==3.1.3 flask-cors==6.0.5 \
    grpcio==1.85.3 tritonclient[grpc]==2.73.0 websockets==17.4 schemathesis==4.32.5"
NODE_PACKAGES="openai@6.49.0"

cd "$(dirname "$0")/.."
# Right after rustup has finished, the shell that ran it does not have cargo on its PATH yet.
PATH="$PATH:${HOME:-/root}/.cargo/bin"

die() {
    echo "setup: $1" >&2
    exit 1
}

# Distributions ship a cargo too, often one that is too old to read our Cargo.toml and fails on it without saying why.
require_rust() {
    command -v cargo >/dev/null 2>&1 ||
        die "there is no cargo on PATH or in ~/.cargo/bin: install Rust as https://rustup.rs says, then run this again."
    found=$(cargo --version 2>/dev/null) ||
        die "cargo is there but does not run ('cargo --version' failed): 'rustup default stable' sets a toolchain."
    while read -r key equals wanted; do
        [ "$key $equals" = "rust-version =" ] && break
    done <Cargo.toml
    wanted=${wanted#\"}
    wanted=${wanted%%\"*}
    found=${found#cargo }
    found=${found%% *}
    older "$found" "$wanted" || return 0
    die "Rust $found is too old, Tradewind needs $wanted or later: 'rustup update stable' brings it (rustup: https://rustup.rs)."
}

# Whether version $1 comes before version $2, by major and minor number.
older() {
    major=${1%%.*} minor=${1#*.}
    wanted_major=${2%%.*} wanted_minor=${2#*.}
    [ "$major" -lt "$wanted_major" ] || { [ "$major" -eq "$wanted_major" ] && [ "${minor%%.*}" -lt "${wanted_minor%%.*}" ]; }
}

# The Debian packages that the build lacks, as words.
missing_for_build() {
    command -v cmake >/dev/null 2>&1 || echo cmake
    command -v make >/dev/null 2>&1 || echo make
    # A compiler alone cannot compile: without recommended packages, gcc comes without the C library's headers.
    if ! command -v cc >/dev/null 2>&1; then
        echo gcc libc6-dev
    elif [ ! -e /usr/include/stdlib.h ] && ! echo '#include <stdlib.h>' | cc -E - >/dev/null 2>&1; then
        echo libc6-dev
    fi
}

# install_packages WHAT_FOR PACKAGE...: by apt-get, or the sentence that says how.
install_packages() {
    what_for=$1
    shift
    command -v apt-get >/dev/null 2>&1 ||
        die "$what_for needs these, by their Debian names: $*. Install them with this system's package manager, then run this again."
    if [ "$(id -u)" -eq 0 ]; then
        root=""
    elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
        root="sudo -n"
    else
        die "$what_for needs $*: run 'sudo apt-get update && sudo apt-get install -y --no-install-recommends $*', then run this again."
    fi
    echo "setup: $what_for needs $*: installing with apt-get" >&2
    log=$(mktemp)
    # An update can fail for a source that is none of ours, so only the install's own result counts. The lock
    # is waited for, since a new Ubuntu machine upgrades itself in its first minutes.
    if ! {
        $root apt-get -o DPkg::Lock::Timeout=300 update
        $root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300 install -y --no-install-recommends "$@"
    } </dev/null >"$log" 2>&1; then
        cat "$log" >&2
        rm -f "$log"
        die "apt-get could not install $*: its own words are above; mend that, then run this again."
    fi
    rm -f "$log"
}

# Prints the first Python that can make an environment and that the client runs on. Debian's has `venv` but, without
# python3-venv, no `ensurepip`.
capable_python() {
    for python in python3 /usr/bin/python3; do
        if "$python" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then
            echo "$python"
            return
        fi
    done
    return 1
}

# The Python environment of the tests: built once for each version of what is in it, or the caller's own.
python_environment() {
    if [ -n "${TRADEWIND_TEST_PYTHON:-}" ]; then
        "$TRADEWIND_TEST_PYTHON" -c 'import grpc, moto.server, openai, schemathesis, tritonclient.grpc, websockets' 2>/dev/null ||
            die "TRADEWIND_TEST_PYTHON is '$TRADEWIND_TEST_PYTHON', which lacks some of $PYTHON_PACKAGES: unset it, and an environment is made here."
        return
    fi
    dir=${CARGO_TARGET_DIR:-target}/py
    stamp=$dir/$(echo "$PYTHON_PACKAGES" | cksum | tr -d ' ').installed
    [ -e "$stamp" ] && [ -x "$dir/bin/python" ] && return
    capable_python >/dev/null || install_packages "the Python environment of the tests" python3 python3-venv
    python=$(capable_python) ||
        die "no Python here can make an environment (tried python3 and /usr/bin/python3, 3.10 or later with venv and ensurepip)."
    echo "setup: making $dir for the tests, with $PYTHON_PACKAGES" >&2
    rm -rf "$dir"
    mkdir -p "${dir%/*}"
    "$python" -m venv "$dir"
    # One word a package, which is what the split makes.
    # shellcheck disable=SC2086
    "$dir/bin/python" -m pip install --quiet --disable-pip-version-check --no-input $PYTHON_PACKAGES ||
        die "pip could not install $PYTHON_PACKAGES into $dir: its own words are above; run this again, or set TRADEWIND_TEST_PYTHON to a Python that has them."
    : >"$stamp"
}

# The Debian packages that clients of the tests lack, as words.
missing_for_clients() {
    command -v curl >/dev/null 2>&1 || echo curl
    command -v node >/dev/null 2>&1 || echo nodejs
    command -v npm >/dev/null 2>&1 || echo npm
}

# The packages for Node: as the Python environment, made once for each version of what is in it.
node_packages() {
    dir=${CARGO_TARGET_DIR:-target}/node
    stamp=$dir/$(echo "$NODE_PACKAGES" | cksum | tr -d ' ').installed
    [ -e "$stamp" ] && return
    echo "setup: installing $NODE_PACKAGES for Node into $dir for the tests" >&2
    rm -rf "$dir"
    mkdir -p "$dir"
    # One word a package, which is what the split makes. No package runs anything of its own here.
    # shellcheck disable=SC2086
    npm install --prefix "$dir" --silent --no-audit --no-fund --no-save --ignore-scripts $NODE_PACKAGES >&2 ||
        die "npm could not install $NODE_PACKAGES into $dir: its own words are above; run this again."
    : >"$stamp"
}

# The Debian packages that the browser of the tests lacks, as words. Without fonts it draws empty boxes.
missing_for_browser() {
    command -v chromedriver >/dev/null 2>&1 || echo chromium chromium-driver fonts-dejavu-core
}

# promtool and amtool, out of Debian's packages and beside what the tests build: installed, the packages would start a
# Prometheus and an Alertmanager on this machine.
prometheus_tools() {
    dir=${CARGO_TARGET_DIR:-target}/prometheus
    if command -v promtool >/dev/null 2>&1 && command -v amtool >/dev/null 2>&1; then return; fi
    if [ -x "$dir/usr/bin/promtool" ] && [ -x "$dir/usr/bin/amtool" ]; then return; fi
    command -v apt-get >/dev/null 2>&1 && command -v dpkg-deb >/dev/null 2>&1 ||
        die "the tests of alert rules need promtool and amtool on PATH: https://prometheus.io/download has both."
    echo "setup: unpacking promtool and amtool into $dir for the tests" >&2
    rm -rf "$dir"
    mkdir -p "$dir"
    # In a subshell, since apt-get downloads into where it is.
    (
        cd "$dir" || exit 1
        for package in prometheus prometheus-alertmanager; do
            apt-get download "$package" >log 2>&1 || { apt-get update >log 2>&1; apt-get download "$package" >log 2>&1; } || exit 1
            for archive in "$package"_*.deb; do dpkg-deb --extract "$archive" . || exit 1; done
        done
        # Three hundred megabytes of a server that no test starts.
        rm -rf ./*.deb usr/share etc var lib usr/bin/prometheus usr/bin/prometheus-alertmanager
    ) || { cat "$dir/log" >&2; die "apt-get could not download Debian's prometheus and prometheus-alertmanager: its own words are above."; }
}

case "$#:${1:-}" in
    0: | 1:test) ;;
    *)
        echo "usage: scripts/setup.sh [test]" >&2
        exit 2
        ;;
esac
require_rust
packages=$(missing_for_build)
# One word a package, which is what the split makes.
# shellcheck disable=SC2086
[ -z "$packages" ] || install_packages "the build" $packages
[ "${1:-}" = test ] || exit 0
python_environment
packages=$(missing_for_clients)
# shellcheck disable=SC2086
[ -z "$packages" ] || install_packages "the tests with real clients" $packages
node_packages
packages=$(missing_for_browser)
# shellcheck disable=SC2086
[ -z "$packages" ] || install_packages "the test of the dashboard" $packages
prometheus_tools
