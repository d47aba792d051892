# Cofferdam: build, run, test. Each target says in one line what is missing, or installs it (test).
SHELL := /bin/bash
PACKAGES := gcc libc6-dev procps python3-minimal
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: build run test deny bench need cargo

cargo:
	@command -v cargo >/dev/null || { echo "missing: cargo 1.95 or newer (https://rustup.rs)"; exit 1; }

need: cargo
	@command -v gcc >/dev/null && command -v ps >/dev/null && command -v python3 >/dev/null || \
	  { echo "missing packages: apt-get install -y $(PACKAGES)"; exit 1; }

build: need
	cargo build --workspace --exclude cofferdam-integration --release

run: build
	$(TARGET)/release/cofferdam do -- sh -c 'uname -a; dmesg | head; ps ax; python3 -c "print(sum(range(100)))"'

# Installs the packages that it needs, so it needs root for the first time. PARTS="format clippy ...": only these.
test: cargo
	tests/run

# Licences, versions, sources and known faults of the crates that we use; a part of `make test`.
deny: cargo
	PARTS=deny tests/run

bench: build
	command -v runsc >/dev/null && command -v runc >/dev/null || apt-get install -y --no-install-recommends runc runsc
	unshare -m $(TARGET)/release/cofferdam-bench
