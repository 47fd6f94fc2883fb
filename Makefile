# `make demo` and `make test` are all one needs; `make help` lists the rest.

PYTHON ?= python3
WORKERS ?= 3
VENV := .venv
LOWEST := .venv-lowest
BIN := $(VENV)/bin
PIP_INSTALL := bin/pip install --no-compile --quiet --disable-pip-version-check

unexport PYTHONDONTWRITEBYTECODE  # the tests start hundreds of processes: each would compile all that it imports

.DEFAULT_GOAL := help
.PHONY: help demo test test-quick test-lowest check bench generate format constraints servers python clean
.NOTPARALLEL:

help:  ## this list
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' Makefile | expand -t 16

demo: $(VENV)/installed  ## real jobs on a real scheduler, watched; Ctrl-C ends it
	@# With job control of its own the demo alone gets the Ctrl-C, so that make ends with 0 as the demo does.
	@if [ -t 0 ]; then set -m; $(BIN)/taskscope demo; else exec $(BIN)/taskscope demo; fi

test: $(VENV)/installed servers check  ## every check and every test
	@echo "== tests, $(WORKERS) at a time"
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadgroup --durations 10 --durations-min 5

test-quick: $(VENV)/installed  ## the tests that take no longer than a moment
	@$(BIN)/python -m pytest -m "not slow"

test-lowest: $(LOWEST)/installed servers  ## the same with the oldest dependencies that pyproject.toml allows
	@echo "== tests with the oldest dependencies, $(WORKERS) at a time"
	@$(LOWEST)/bin/python -m pytest -m "not slow" --numprocesses $(WORKERS) --dist loadgroup

check: $(VENV)/installed  ## ruff, mypy and the import rules
	@echo "== ruff"
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@echo "== mypy"
	@$(BIN)/mypy
	@echo "== import rules"
	@$(BIN)/lint-imports --no-cache

bench: $(VENV)/installed  ## the benchmarks, side by side with peers
	@$(BIN)/python -m benchmarks

generate: $(VENV)/installed  ## refresh the generated docs and dashboards
	@$(BIN)/python -m taskscope.generate
	@$(BIN)/python -m dashboards

format: $(VENV)/installed  ## format the code and sort its imports
	@$(BIN)/ruff check --fix --quiet
	@$(BIN)/ruff format

constraints: python  ## lock the newest and the oldest dependencies anew
	@$(PYTHON) -m venv --clear $(VENV)
	@$(VENV)/$(PIP_INSTALL) --editable '.[all,dev,bench]'
	@$(BIN)/pip freeze --exclude-editable > constraints.txt
	@$(PYTHON) -m venv --clear $(LOWEST)
	@$(PYTHON) tests/lowest.py > $(LOWEST)/bounds.txt
	@$(LOWEST)/$(PIP_INSTALL) --constraint $(LOWEST)/bounds.txt --editable '.[all,dev]'
	@$(LOWEST)/bin/pip freeze --exclude-editable > constraints-lowest.txt
	@touch $(VENV)/installed $(LOWEST)/installed

servers:
	@bash tests/services/install.sh

python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "taskscope needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }

$(VENV)/installed: pyproject.toml constraints.txt | python
	@echo "== installing into $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/$(PIP_INSTALL) --constraint constraints.txt --editable '.[all,dev,bench]'
	@touch $@

$(LOWEST)/installed: pyproject.toml constraints-lowest.txt | python
	@echo "== installing the oldest dependencies into $(LOWEST)"
	@$(PYTHON) -m venv $(LOWEST)
	@$(LOWEST)/$(PIP_INSTALL) --constraint constraints-lowest.txt --editable '.[all,dev]'
	@touch $@

clean:  ## remove what was installed and built
	@rm -rf $(VENV) $(LOWEST) build dist
