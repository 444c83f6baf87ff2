# `make run` and `make test` set up everything they need in .venv.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= auto

.PHONY: help setup run test lint type unit bench bench-engine wheel clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.ready ## make .venv with everything in it

$(VENV)/.ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "error: no Python found; install Python 3.11 or say make PYTHON=/path/to/python"; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is older than Python 3.11; say make PYTHON=/path/to/python3.11"; exit 2; }
	"$(PYTHON)" -m venv "$(VENV)"
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

run: setup ## MemRoPE and two baselines on the embedded suite, about three minutes
	$(BIN)/magbench run --method memrope

test: lint type unit ## everything the gate checks

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: setup
	$(BIN)/mypy

unit: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(WORKERS) --dist loadfile

bench: setup ## what each policy costs beside plain attention: docs/benchmarks.md
	$(BIN)/python -m tests.benchmarks.policies

bench-engine: setup ## memory and time of scoring 30 s, 5 min and an hour: docs/engine.md
	$(BIN)/python -m tests.benchmarks.engine

wheel: setup ## sdist and wheel in dist/
	$(BIN)/python -m build --outdir dist .

clean: ## remove .venv and build products, keep runs
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
