# The doors of the checkout. `make` alone lists them.
#
# Everything is built once, in the dev profile, and the tests, the demo and the
# lab share it: a second profile would double the time from nothing to a result.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export MARGAY_CACHE ?= $(HOME)/.cache/margay
export PATH := $(PATH):$(MARGAY_CACHE)/tools/bin

TARGET := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
PROFILE ?= dev
BIN = $(TARGET)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
CTL = $(BIN)/margayctl
# The whole workspace, always: cargo chooses the features of a dependency by
# what is built together, so a narrower build would compile kube and tokio anew.
# `make test` says --all-targets for the same reason: tests add features.
TARGETS ?= --bins
CARGO_BUILD = cargo build --locked --workspace --profile $(PROFILE)
STEP := scripts/step.sh

# The lab that lab-up starts.
NODES ?= 4
SEGMENTS ?= 2
TOR ?= bird
RUNS ?= 5
# Software emulation is about ten times slower than the host.
VM_TIMEOUT ?= 1200

##@ Try it

.NOTPARALLEL:

.PHONY: demo
demo: build lab-packages ## A cluster in namespaces: pods, BGP with real routers, pings across (root)
	@$(STEP) "demo" $(CTL) lab demo

.PHONY: demo-vm
demo-vm: build lab-packages ## The same in a VM on Debian's kernel, which has IPIP: pods across two segments
	@$(STEP) "demo-vm" scripts/vm.sh --timeout $(VM_TIMEOUT) -- $(CTL) lab demo --require-tunnel ipip

.PHONY: lab-up
lab-up: build lab-packages ## Start a lab and leave it running (NODES=4 SEGMENTS=2 TOR=bird|frr|none)
	$(CTL) lab up --nodes $(NODES) --segments $(SEGMENTS) --tor $(TOR)

.PHONY: lab-down
lab-down: build ## Stop the lab and remove its namespaces
	$(CTL) lab down

##@ Build

.PHONY: build
build: ## margay, margayctl and margay-cni
	@scripts/packages.sh build
	@$(STEP) "build" $(CARGO_BUILD) $(TARGETS)

.PHONY: generate
generate: build ## Write anew what is generated: the CRD manifests, the chart's schema and README
	$(BIN)/gen-crds
	scripts/chart-readme.sh

.PHONY: helm
helm: ## helm and kubectl into MARGAY_CACHE, once
	@$(STEP) "helm" scripts/helm.sh

.PHONY: static
static: build
	@$(STEP) "static" scripts/static.sh $(PROFILE) $(BIN)

.PHONY: image
image: static ## The image as an OCI layout in a tarball, and what it is made of; without a container engine
	@scripts/packages.sh image
	@$(STEP) "image" scripts/image.sh $(BIN) $(TARGET)/image/margay.tar

.PHONY: fmt
fmt: ## Format the code
	cargo fmt --all

.PHONY: clean
clean: ## Remove what was built (kernels and tools stay in MARGAY_CACHE)
	cargo clean

##@ Check

.PHONY: test
test: TARGETS := --all-targets
test: check build generated lint docs test-chart unit demo ## Everything a change must pass: checks, tests, demo (root)

.PHONY: check
check: ## The checks that need no build: tree rules, licences, scripts, formatting
	@scripts/packages.sh build test
	@$(STEP) "tree" scripts/check-tree.sh
	@$(STEP) "scripts" shellcheck scripts/*.sh .ci/run
	@$(STEP) "format" cargo fmt --all --check

.PHONY: test-chart
test-chart: ## The chart without a cluster: lint, rendered values, refusals; with one: make test-kube ONLY=chart
	@scripts/packages.sh test
	@$(STEP) "chart" scripts/chart-tests.sh

.PHONY: generated
generated: build
	@$(STEP) "generated files" $(BIN)/gen-crds --check

.PHONY: lint
lint: ## clippy, with warnings as errors; and that the pure core of bgp/ builds alone
	@scripts/packages.sh build
	@$(STEP) "clippy" cargo clippy --locked --workspace --all-targets -- -D warnings
	@$(STEP) "bgp without its shell" cargo clippy --locked -p margay-bgp --lib -- -D warnings

.PHONY: docs
docs: ## The API documentation: broken links are errors, its examples are run
	@RUSTDOCFLAGS="-D warnings" $(STEP) "docs" cargo doc --locked --workspace --no-deps
	@$(STEP) "doc examples" cargo test --locked --workspace --doc --quiet

.PHONY: unit
unit: TARGETS := --all-targets
unit: build lab-packages ## All tests, those in network namespaces too; one that cannot run is a failure (root)
	@scripts/packages.sh nextest kubectl interop
	@$(STEP) "tests" scripts/rust-tests.sh

.PHONY: test-interop
test-interop: TARGETS := --all-targets
test-interop: build ## The speaker with BIRD, FRR, GoBGP, OpenBGPD and ExaBGP; UPDATE=1 writes docs/interop.md, ONLY="frr bird/md5" runs some (root)
	@scripts/packages.sh interop
	@MARGAY_BIN_DIR=$(BIN) $(STEP) "interop" cargo test --quiet --locked --workspace --test interop -- run $(if $(UPDATE),--update) $(ONLY)

.PHONY: fuzz
fuzz: ## Fuzz the speaker with libFuzzer: TARGET=codec|session|config|bfd|discovery SECONDS=60; SECONDS=merge renews that corpus
	@scripts/packages.sh build fuzz
	scripts/fuzz.sh $(if $(filter command,$(firstword $(origin TARGET))),$(TARGET),session) $(or $(SECONDS),60)

.PHONY: kube-binaries
kube-binaries: ## A real control plane from Debian's source package into MARGAY_CACHE, once (6 minutes)
	@scripts/packages.sh build
	@$(STEP) "kube-binaries" scripts/kube-binaries.sh

.PHONY: test-vm
test-vm: TARGETS := --all-targets
test-vm: build ## What only Debian's kernel has, in a VM on it: policies behind the real kube-proxy's IPVS mode
	@scripts/packages.sh cluster vm
	@MARGAY_KUBE_PROGRAMS="kube-apiserver kube-proxy" $(STEP) "kube-binaries" scripts/kube-binaries.sh
	@MARGAY_BIN_DIR=$(BIN) $(STEP) "test-vm" cargo test --quiet --locked --workspace \
		--config 'target."cfg(all())".runner = ["$(CURDIR)/scripts/vm.sh", "--timeout", "$(VM_TIMEOUT)", "--"]' \
		--test kube -- run ipvs

.PHONY: test-kube
test-kube: TARGETS := --all-targets
test-kube: build ## Margay on a real kube-apiserver with etcd; ONLY="rules" runs some, HAMMER=100000 the whole hammer
	@MARGAY_KUBE_PROGRAMS=kube-apiserver $(STEP) "kube-binaries" scripts/kube-binaries.sh
	@scripts/helm.sh >/dev/null
	@MARGAY_BIN_DIR=$(BIN) HAMMER=$(HAMMER) $(STEP) "kube" cargo test --quiet --locked --workspace --test kube -- run $(ONLY)

.PHONY: test-cluster
test-cluster: TARGETS := --all-targets
test-cluster: image helm ## Margay on a genuine cluster of three nodes with kubelets and containerd; ONLY="reference" runs a part (root)
	@scripts/packages.sh cluster
	@$(STEP) "kube-binaries" scripts/kube-binaries.sh
	@MARGAY_BIN_DIR=$(BIN) MARGAY_IMAGE_TAR=$(TARGET)/image/margay.tar $(STEP) "cluster" cargo test --quiet --locked --workspace --test cluster -- run $(ONLY)

.PHONY: test-image
test-image: static ## The Containerfile by buildah, and that it makes the same image as make image (root)
	@scripts/packages.sh image engine
	@$(STEP) "Containerfile" scripts/containerfile-test.sh $(BIN)

.PHONY: bench-lab
bench-lab: PROFILE := release
bench-lab: build lab-packages ## Route latency, CNI ADD and memory in RUNS=5 labs of a release build (root)
	@scripts/packages.sh test
	@$(STEP) "bench-lab" scripts/bench-lab.sh $(CTL) $(RUNS)

.PHONY: bench-bgp
bench-bgp: PROFILE := release
bench-bgp: static ## The speaker beside BIRD, FRR, GoBGP and OpenBGPD: docs/bench/bgp.md; BENCH="--daemons margay,bird --runs 1" for a minute (root)
	@scripts/packages.sh daemons
	$(BIN)/bench-bgp $(if $(BENCH),$(BENCH),--out docs/bench)

.PHONY: bench-routes
bench-routes: PROFILE := release
bench-routes: build lab-packages ## A block and a Service's endpoint until the route is in another kernel, beside BIRD fed by files: docs/bench/bgp-cluster.md (root)
	@scripts/packages.sh daemons
	$(BIN)/bench-bgp --cases none --failures none --cluster-runs $(or $(RUNS_OF_EACH),200) --out docs/bench

.PHONY: test-policy-worlds
test-policy-worlds: ## WORLDS=100000 random clusters with events: engine, compiler, ruleset and evaluator agree; SEED=1 is the first
	@# The one crate optimised, with all checks of a debug build; what it needs is there from the other tests.
	@MARGAY_POLICY_WORLDS=$(or $(WORLDS),100000) MARGAY_POLICY_SEED=$(or $(SEED),1) $(STEP) "policy worlds" \
		cargo test --quiet --locked --config 'profile.dev.package.margay-policy.opt-level=3' \
			-p margay-policy --all-features --lib -- --nocapture worlds host_endpoints_answer

.PHONY: bench-policy
bench-policy: lab-packages ## Policy: compiling, events, packets beside iptables, memory: docs/bench/policy.md; BENCH="events" runs a part (root)
	@$(STEP) "bench-policy" cargo build --quiet --locked --release -p margay-policy --all-features --example bench-policy
	$(TARGET)/release/examples/bench-policy $(if $(BENCH),$(BENCH),--out docs/bench)

.PHONY: bench-ipam
bench-ipam: PROFILE := release
bench-ipam: TARGETS := --bins --examples
bench-ipam: static lab-packages ## Addresses beside ptp and host-local, requests by the API server's count: docs/bench/ipam.md; BENCH="--runs 5 --rounds 1" for a minute (root)
	@scripts/packages.sh cni
	@MARGAY_KUBE_PROGRAMS=kube-apiserver $(STEP) "kube-binaries" scripts/kube-binaries.sh
	$(BIN)/bench-ipam --plugin $(BIN)/static/margay-cni $(if $(BENCH),$(BENCH),--out docs/bench)

.PHONY: bench-cluster
bench-cluster: PROFILE := release
bench-cluster: image helm ## Pods on a genuine cluster beside ptp and host-local, the agent while nothing happens: docs/bench/cluster.md; BENCH="--rounds 1 --idle 60" for a few minutes (root)
	@scripts/packages.sh cluster
	@$(STEP) "kube-binaries" scripts/kube-binaries.sh
	MARGAY_IMAGE_TAR=$(TARGET)/image/margay.tar $(BIN)/bench-cluster $(if $(BENCH),$(BENCH),--out docs/bench)

.PHONY: lab-packages
lab-packages:
	@scripts/packages.sh lab

.PHONY: help
help:
	@awk 'BEGIN { FS = ":.*## "; print "Margay: a Kubernetes network for routed data centres.\n\nmake TARGET, where TARGET is one of" } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@printf '\nThe lab and the tests build network namespaces of their own: run them as root.\n'
