# make demo   pretrain on handwritten digits, transfer with few labels, show whether it paid
# make test   every check: format, lint, types, import floors, docs, tests, notebooks
# make help   the rest

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2

.PHONY: help install demo test test-all lint types floors docs notebooks unit proofs format clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | expand -t 12

install: $(VENV)/.installed  ## create .venv and install everything, once

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make $(MAKECMDGOALS) PYTHON=python3.11"; exit 1; }
	@echo "Installing into $(VENV): a few minutes and about 6 GB, the first time."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . --group dev
	@touch $@

demo: install  ## pretrain on digits and transfer with few labels, in under 3 minutes
	$(BIN)/ssl-framework demo

test: lint types floors docs unit notebooks  ## every check

test-all: lint types floors docs notebooks  ## every check, and the slow tests
	$(BIN)/pytest -n $(WORKERS) -m "slow or not slow"

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install
	$(BIN)/basedpyright

floors: install
	$(BIN)/lint-imports

docs: install  ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

unit: install
	$(BIN)/pytest -n $(WORKERS) -m "not slow"

proofs: install  ## run what is proven of each task, and write benchmarks/proofs.json for the documentation
	$(BIN)/python benchmarks/prove.py --workers $(WORKERS)

notebooks: install
	$(BIN)/pytest --nbmake --nbmake-timeout=300 -p no:cacheprovider notebooks

format: install  ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove what was made, except .venv and runs
	rm -rf site dist build .pytest_cache .ruff_cache .hypothesis
