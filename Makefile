# Cofferdam: build, run, test. Each target says in one line what is missing.
SHELL := /bin/bash
PACKAGES := gcc libc6-dev procps python3-minimal
# What only tests need; each test installs its own too, when run by itself.
TEST_PACKAGES := diod busybox-static runc util-linux

.PHONY: build run test bench need

need:
	@command -v cargo >/dev/null || { echo "missing: cargo 1.95 or newer (https://rustup.rs)"; exit 1; }
	@command -v gcc >/dev/null && command -v ps >/dev/null && command -v python3 >/dev/null || \
	  { echo "missing packages: apt-get install -y $(PACKAGES)"; exit 1; }

build: need
	cargo build --workspace --release

run: build
	target/release/cofferdam do -- sh -c 'uname -a; dmesg | head; ps ax; python3 -c "print(sum(range(100)))"'

test:
	@for p in gcc ps python3 diod busybox runc unshare; do command -v $$p >/dev/null || exit 1; done || \
	  { apt-get update -q && apt-get install -y --no-install-recommends $(PACKAGES) $(TEST_PACKAGES); }
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo build --workspace --bins
	cargo test --workspace
	fuzz/run

bench: build
	command -v runsc >/dev/null && command -v runc >/dev/null || apt-get install -y --no-install-recommends runc runsc
	unshare -m target/release/cofferdam-bench
