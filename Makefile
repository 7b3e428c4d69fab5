# Two commands matter: `make demo` and `make test`. Both set up what they need on
# a Debian 12 with a Rust toolchain.

CARGO ?= cargo
# Nothing of the tests' tools may hide in /usr/sbin.
export PATH := $(PATH):/usr/sbin:/sbin
# Errors of the tests say what they were doing; stack traces would bury it.
export RUST_LIB_BACKTRACE ?= 0

include deploy/install.mk
include deploy/deb.mk
include deploy/image.mk

.PHONY: help setup setup-kubernetes build build-tests demo demo-cluster demo-kubernetes test bench bench-overlay test-upgrade build-arm64 check-arm64 test-machines soak fuzz lint deny clean-testbed

help:
	@sed -n 's/^\([a-z0-9-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 24

setup-kubernetes: setup ## Debian's Kubernetes, built once into the user's cache (five minutes)
	@tests/kubernetes/setup.sh

setup: ## packages and containerds that the tests need (idempotent)
	@tests/setup.sh

build: build-plugin ## debug build of netd, netd-hook and the demonstration
	$(CARGO) build --workspace
	cp --remove-destination $(PLUGIN) $(CARGO_TARGET_DIR)/debug/

# With the features that the tests' dependencies switch on, in one go: `build` and `cargo test` after
# it compile nearly all dependencies twice.
build-tests: build-plugin ## debug build of all programs and tests
	$(CARGO) build --workspace --bins --tests
	cp --remove-destination $(PLUGIN) $(CARGO_TARGET_DIR)/debug/

demo: setup build ## netd, a real containerd and two pods; shows who reaches whom
	@$(CARGO) run -q -p netd-tests --bin netd-demo

demo-cluster: setup build ## three nodes on one etcd, pods everywhere, each backend in turn
	@$(CARGO) run -q -p netd-tests --bin netd-demo-cluster

demo-kubernetes: setup setup-kubernetes build ## a Kubernetes of two nodes, netd by its manifest, a Deployment and a Service
	@$(CARGO) run -q -p netd-tests --bin netd-demo-kubernetes

lint: ## formatting, clippy
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

# The Debian releases on which the short half of the tests on machines runs; none where it is
# empty.
SHORT_MACHINES ?= bookworm

# The end-to-end tests execute netd, netd-hook and netd-cni, so build-tests comes first.
test: setup setup-kubernetes lint check-arm64 build-tests ## everything: lint, unit tests, end-to-end tests
	$(if $(SHORT_MACHINES),tests/machines/setup.sh $(SHORT_MACHINES))
	NETD_TEST_PATIENCE=$${NETD_TEST_PATIENCE:-3} NETD_MACHINES_SHORT="$(SHORT_MACHINES)" \
	  $(CARGO) test --workspace --no-fail-fast

bench: setup build-release ## ADD and DEL against Debian's CNI plugins (release build)
	$(CARGO) build --release -p netd-tests --bin netd-bench
	@target/release/netd-bench

bench-overlay: setup build-release ## 10,000 nodes in etcd; each backend beside bare routing (release build)
	$(CARGO) build --release -p netd-tunnel -p netd-tests --bin netd-tunnel --bin netd-bench-overlay
	@target/release/netd-bench-overlay

# The commit to upgrade from; built in a work tree of its own.
FROM ?= 2540bef
FROM_DIR = .testbed/from-$(FROM)

test-upgrade: setup build ## replace the netd of commit FROM by this one under running pods
	test -d $(FROM_DIR) || git worktree add --detach $(FROM_DIR) $(FROM)
	$(MAKE) -C $(FROM_DIR) build CARGO_TARGET_DIR=$(CURDIR)/$(FROM_DIR)/target
	$(CARGO) run -q -p netd-tests --bin netd-upgrade -- $(FROM_DIR)/target/debug

# Debian releases to boot, each with its own kernel, systemd and userland.
MACHINES ?= bullseye bookworm trixie forky

# Debian's cross compiler, for the dependencies that have C in them.
ARM64 = CC_aarch64_unknown_linux_musl=aarch64-linux-gnu-gcc \
	CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER=aarch64-linux-gnu-gcc

# For machines with that processor.
build-arm64: setup
	@CARGO_BUILD_TARGET=aarch64-unknown-linux-gnu deploy/plugin-target.sh >/dev/null
	$(ARM64) $(CARGO) build --target aarch64-unknown-linux-musl $(PROGRAMS:%=--bin %)

check-arm64: setup ## programs and libraries compile for arm64
	@target=$$(CARGO_BUILD_TARGET=aarch64-unknown-linux-gnu deploy/plugin-target.sh 2>/dev/null); \
	if [ "$$target" = aarch64-unknown-linux-musl ]; then \
	  $(ARM64) $(CARGO) check --workspace --target $$target; \
	else \
	  echo "skipped: rustup can't add aarch64-unknown-linux-musl, so nothing is compiled for arm64"; \
	fi

test-machines: setup build-tests ## the package on whole Debian machines in QEMU (docs/machines.md)
	tests/machines/setup.sh $(MACHINES)
	$(if $(findstring -arm64,$(MACHINES)),$(MAKE) build-arm64)
	$(CARGO) test --workspace --no-run
	rm -f target/machines/results
	NETD_MACHINES="$(MACHINES)" $(CARGO) test --workspace --test machines -- --nocapture --test-threads 1; \
	  status=$$?; tests/machines/table target/machines/results; exit $$status

soak: setup build-release ## 100,000 pods, 1,000 kills of netd, other faults (release build, resumable)
	$(CARGO) build --release -p netd-tests --bin netd-soak
	@target/release/netd-soak

# Seconds a target.
FUZZ_SECONDS ?= 20

# Not part of `test`: the instrumented build compiles every dependency again, six minutes
# of processor time. `test` replays the seeds instead (*/tests/fuzz_seeds.rs).
fuzz: ## each fuzz target for FUZZ_SECONDS (20); what crashes is kept in fuzz/artifacts
	CARGO="$(CARGO)" FUZZ_SECONDS=$(FUZZ_SECONDS) fuzz/run.sh

deny: ## licences, sources, duplicates and advisories of the dependencies
	@CARGO="$(CARGO)" .ci/deny

clean-testbed: ## delete what setup fetched
	rm -rf .testbed
