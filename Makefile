# Everything a person or a script does with this repository. Needs Python >= 3.11 and make.

PYTHON ?= python3
BREAKING_AGAINST ?= $(shell git merge-base HEAD origin/main 2>/dev/null || git rev-parse HEAD~1 2>/dev/null)

# They wait more than they work: three on two cores take half the time that one takes. In the order
# of their names the long ones (e2e) begin first, and none is left to run alone at the end.
TEST_PROCESSES ?= 3

BIN := .venv/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
PYTHON_OLD := UsageFlow needs Python 3.11 or newer: make PYTHON=/path/to/python3.11

# The stamps carry a checksum of what was installed, so a new checkout of the same files (with new
# times) installs nothing again.
checksum = $(shell cat $(1) pyproject.toml | cksum | tr -d ' ')
RUN_STAMP := .venv/.run-$(call checksum,requirements/run.txt)
DEV_STAMP := .venv/.dev-$(call checksum,requirements/dev.txt)

.DEFAULT_GOAL := help
.PHONY: help run demo test bench chaos rolling lint proto breaking

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(RUN_STAMP) ## Run the whole stack here; Ctrl-C stops it and keeps the data
	@$(BIN)/usageflow up --stop-with-parent

demo: $(RUN_STAMP) ## Run the stack and play the whole billing flow on it
	@$(BIN)/usageflow demo --stop-with-parent

test: $(DEV_STAMP) ## Run all tests
	@$(BIN)/python -m pytest --numprocesses=$(TEST_PROCESSES) --dist=loadfile --no-loadscope-reorder $(ARGS)

bench: $(DEV_STAMP) ## Run the benchmarks (QUICK=1: under 3 minutes)
	@$(BIN)/python -m benchmarks $(if $(QUICK),--quick)

chaos: $(DEV_STAMP) ## Break everything under load and check every promise (SEED=n MINUTES=n)
	@$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES))

rolling: $(DEV_STAMP) ## Restart two gateways in turn under load, 50 times (RESTARTS=n); no request may fail
	@USAGEFLOW_ROLLING_RESTARTS=$(or $(RESTARTS),50) $(BIN)/python -m pytest -q -s -p no:cacheprovider tests/integration/gateway/test_rolling_restarts.py

lint: $(DEV_STAMP) breaking ## Check style, types and the contracts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/buf lint
	@$(BIN)/buf format --diff --exit-code

proto: $(DEV_STAMP) ## Make the gRPC stubs in gen/ from proto/
	@$(BIN)/python proto/generate.py

breaking: $(DEV_STAMP)
	@if [ -n "$$(git ls-tree -r --name-only '$(BREAKING_AGAINST)' proto 2>/dev/null)" ]; then \
		$(BIN)/buf breaking --against '.git#ref=$(BREAKING_AGAINST)'; \
	else \
		echo '*** buf breaking SKIPPED: no proto/ in "$(BREAKING_AGAINST)" ***' >&2; \
	fi

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("$(PYTHON_OLD)" if sys.version_info < (3, 11) else 0)'
	@$(PYTHON) -m venv .venv

$(RUN_STAMP): | $(BIN)/python
	@echo 'installing (once; requirements/run.txt)'
	@$(PIP) install --require-hashes -r requirements/run.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

# dev.txt holds everything of run.txt too, in the same versions.
$(DEV_STAMP): | $(BIN)/python
	@echo 'installing (once; requirements/dev.txt)'
	@$(PIP) install --require-hashes -r requirements/dev.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@ $(RUN_STAMP)
