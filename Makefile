# Every task of this repository; `make help` lists them.
SHELL := /bin/bash
.DEFAULT_GOAL := help
CARGO ?= cargo
SEEDS ?= 200

.PHONY: help run test bench sim fmt lint check toolchain

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

toolchain:
	@command -v $(CARGO) >/dev/null || { echo "Rust is missing: install it from your distribution or with rustup (https://rustup.rs), then run make again."; exit 1; }

run: toolchain ## build and start one node; data in ./wukongimdata, HTTP 5001, TCP 5100, WebSocket 5200
	@$(CARGO) build --release --locked -p wukongim
	@WK_ROOTDIR=$${WK_ROOTDIR:-./wukongimdata} exec ./target/release/wukongim

test: toolchain ## the whole suite
	@$(CARGO) test --workspace --locked

bench: toolchain ## measure a node on this machine (writes to a temporary directory)
	@$(CARGO) build --release --locked -p wukongim
	@./target/release/wukongim bench

sim: toolchain ## the simulator: SEEDS=200 runs so many seeds, SEED=n replays one; SCENARIO, PLANT, TRACE=1
	@$(CARGO) run --release --locked -p wk-sim -- $(if $(SEED),--seed $(SEED),--seeds $(SEEDS)) \
	  $(if $(SCENARIO),--scenario $(SCENARIO)) $(if $(PLANT),--plant $(PLANT)) $(if $(TRACE),--trace)

fmt: toolchain ## format
	@$(CARGO) fmt --all

lint: toolchain ## lints, warnings are errors
	@$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

check: fmt lint test ## before a commit: format, lints, the whole suite
