# Cofferdam: build, run, test. Each target says in one line what is missing, or installs it (test).
SHELL := /bin/bash
PACKAGES := gcc libc6-dev procps python3-minimal
TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: build run test deny bench need cargo fuzz-syscalls

cargo:
	@command -v cargo >/dev/null || { echo "missing: cargo 1.95 or newer (https://rustup.rs)"; exit 1; }

need: cargo
	@command -v gcc >/dev/null && command -v ps >/dev/null && command -v python3 >/dev/null || \
	  { echo "missing packages: apt-get install -y $(PACKAGES)"; exit 1; }

# Relocations are packed (glibc 2.36 reads them): up to 0.4 MiB less for a service to have in memory when it starts.
build: need
	RUSTFLAGS="$${RUSTFLAGS-} -C link-arg=-Wl,-z,pack-relative-relocs" cargo build --workspace --exclude cofferdam-integration --release

run: build
	$(TARGET)/release/cofferdam do -- sh -c 'uname -a; dmesg | head; ps ax; python3 -c "print(sum(range(100)))"'

# Installs the packages that it needs, so it needs root for the first time. PARTS="format clippy ...": only these.
test: cargo
	tests/run

# Ten minutes of system calls at random inside a sandbox, five on each platform; a minute of it is a part of `make test`.
fuzz-syscalls: need
	cargo build --workspace --bins
	FUZZ_SECONDS=$${FUZZ_SECONDS:-600} FUZZ_SEED=$${FUZZ_SEED:-$$RANDOM} cargo test -p cofferdam-integration --test fuzz_calls -- --nocapture

# Licences, versions, sources and known faults of the crates that we use; a part of `make test`.
deny: cargo
	PARTS=deny tests/run

# crun refuses hosts with cgroups of both versions: in a mount namespace of the benchmark's own there are those of version 1, for all.
bench: build
	for p in runc runsc crun podman containerd busybox ip iperf3 redis-benchmark redis-server nginx wrk ping; do \
	  command -v $$p >/dev/null || missing=1; done; [ -z "$$missing" ] || \
	  apt-get install -y --no-install-recommends runc runsc crun podman containerd busybox-static iproute2 iperf3 redis-tools \
	    redis-server nginx-light wrk iputils-ping
	unshare -m sh -c 'umount /sys/fs/cgroup/unified 2>/dev/null; exec "$$@"' sh $(TARGET)/release/cofferdam-bench $(PARTS)
