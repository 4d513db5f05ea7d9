# The newcomer's commands: make demo, make test. Everything lives in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help

.PHONY: help setup demo test check bench docs clean

help: ## what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

setup: $(VENV)/.ready ## create .venv and install Martlet with its developer tools

$(VENV)/.ready: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: setup ## real data, end to end: fit, compress, measure, report, bundle
	$(BIN)/martlet demo --out demo

test: setup ## every test
	$(BIN)/python -m pytest

check: setup ## formatting, lint, types, package borders
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup ## one benchmark: make bench Q=int8_search [ARGS=--tiny]
	$(BIN)/python benchmarks/$(Q).py $(ARGS)

docs: setup ## run the documentation: README, examples, doctests
	$(BIN)/python -m pytest tests/docs

clean: ## remove what was built
	rm -rf $(VENV) demo build dist src/*.egg-info
