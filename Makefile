# The newcomer's commands: make demo, make test. Everything lives in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help

.PHONY: help setup demo test check bench docs clean

help: ## what there is
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

setup: $(VENV)/.dev ## create .venv and install Martlet with its developer tools

# pip comes last into an environment: one that was cut short has none, and is made once more.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	  || { echo "$(PYTHON) is not Python 3.11 to 3.13: install one of them and name it, as in" \
	  "'make demo PYTHON=python3.12'" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
	  || { echo "$(PYTHON) cannot make an environment: apt-get install python3-venv (or" \
	  "$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'))" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: pyproject.toml | $(BIN)/pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(VENV)/.ready $@

demo: $(VENV)/.ready ## real data, end to end: fit, compress, measure, report, bundle
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
