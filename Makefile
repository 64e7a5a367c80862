# What a person does with this repository. `make` alone lists it.
#
# CARGO_TARGET_DIR is honoured throughout; ARGS goes to the command that a target is for:
#   make demo ARGS='--for 60s'      make test ARGS='walls'      make bench ARGS='pick'

SHELL := /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo test check bench setup

# Where rustup puts cargo, for a shell that was opened before rustup ran.
export PATH := $(PATH):$(HOME)/.cargo/bin
target_dir := $(abspath $(or $(CARGO_TARGET_DIR),target))
test_python := $(or $(TRADEWIND_TEST_PYTHON),$(target_dir)/py/bin/python)

help:
	@echo 'make demo     build Tradewind and watch it route between three simulated clusters at real prices'
	@echo 'make test     run all tests'
	@echo 'make check    formatting, lints, dependencies, scripts, manifests: says all there is to fix'
	@echo 'make bench    measure picking a backend, counting tokens, taking a decision and reading prices'
	@echo 'make setup    install what a build needs beside Rust (demo and test do that too)'

setup:
	@sh scripts/setup.sh

demo: setup
	@cargo run --release --locked -- demo $(ARGS)

test:
	@sh scripts/setup.sh test
	@TRADEWIND_TEST_PYTHON='$(test_python)' cargo test --locked --no-fail-fast $(ARGS)

bench: setup
	@cargo bench --locked --bench '*' $(ARGS)
	@echo 'Side by side with nginx, HAProxy and Envoy: benches/proxy/run; with prices refreshed and not: benches/prices-refresh/run'

check: setup
	@sh scripts/check.sh
