# dialoop: `make help` lists the targets.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PORT ?= 8000
MODEL ?= dialoop-base
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false
export DIALOOP_ENVIRONMENTS ?= $(CURDIR)/.environments

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo serve test lint types imports check test-slow environments bench docs clean

help: ## Show this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The environment is made without python3-venv: pip is the system's, pointed at it.
$(VENV)/.made: constraints.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv --without-pip $(VENV)
	$(PYTHON) -m pip --python $(BIN)/python install -c constraints.txt -e '.[client]'
	@touch $@

$(VENV)/.made-dev: $(VENV)/.made
	$(PYTHON) -m pip --python $(BIN)/python install -c constraints.txt -e '.[dev]'
	@touch $@

setup: $(VENV)/.made ## Make .venv and install dialoop with pinned dependencies

setup-dev: $(VENV)/.made-dev ## The same with the tools for development

demo: setup ## Fine-tune the shipped model on the sample dialogues and compare before with after
	$(BIN)/dialoop quickstart

serve: setup ## Serve MODEL (default dialoop-base) on PORT (default 8000)
	$(BIN)/dialoop serve $(MODEL) --port $(PORT)

lint: setup-dev ## Style: ruff
	$(BIN)/ruff check . && $(BIN)/ruff format --check src tests bench tools examples

types: setup-dev ## Types: mypy --strict
	$(BIN)/mypy

imports: setup-dev ## Import contracts: import-linter
	$(BIN)/lint-imports

check: lint types imports ## Lint, types and import contracts

test: check ## Everything that CI runs: checks and the fast tests
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile

test-slow: setup-dev ## Tests that need public data (DIALOOP_DATA), other tools or minutes
	$(BIN)/python -m pytest -q -m slow --timeout 1800

environments: ## Environments of other people's software in DIALOOP_ENVIRONMENTS, for test-slow (docs/ecosystem.md)
	@for file in examples/*/requirements/*.txt; do \
	  home=$(DIALOOP_ENVIRONMENTS)/$$(basename $$file .txt); \
	  test -x $$home/bin/python || $(PYTHON) -m venv --without-pip $$home || exit 1; \
	  $(PYTHON) -m pip --python $$home/bin/python install -r $$file || exit 1; \
	done

bench: setup-dev ## Side-by-side measurements against named peers (bench/README.md)
	$(BIN)/python bench/data.py

docs: setup-dev ## Check that the commands and links in the documentation are real
	$(BIN)/python -m pytest -q tests/docs

clean: ## Remove the environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
