# make demo   pretrain on handwritten digits, transfer with few labels, show whether it paid
# make test   every check: format, lint, types, import floors, docs, tests, notebooks
# make help   the rest

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2
# a worker has a core, takes neighbours, which share fixtures, and at the end what the other has left
PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest -n $(WORKERS) --dist worksteal
NOTEBOOKS = --nbmake --nbmake-timeout=600 notebooks

.PHONY: audit help install demo test test-all test-reliability static lint types floors docs notebooks unit proofs format clean

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

test-reliability: install  ## kill, stop, starve and deceive runs; count it in benchmarks/promises.json
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/promises.py --workers $(WORKERS)

test: static  ## every check
	$(PYTEST) -m "not slow" $(NOTEBOOKS) tests

test-all: static  ## every check, and the slow tests
	$(PYTEST) -m "slow or not slow" $(NOTEBOOKS) tests

static: install  # what runs no code of ours, two at a time
	@$(MAKE) --no-print-directory -j2 -Otarget lint types floors docs

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
	$(PYTEST) -m "not slow"

proofs: install  ## run what is proven of each task, and write benchmarks/proofs.json for the documentation
	$(BIN)/python benchmarks/prove.py --workers $(WORKERS)

audit:  ## compare the pinned packages with the known advisories; asks the network
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet pip-audit
	$(VENV)/audit/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

notebooks: install
	$(PYTEST) $(NOTEBOOKS)

format: install  ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove what was made, except .venv and runs
	rm -rf site dist build .pytest_cache .ruff_cache .hypothesis
