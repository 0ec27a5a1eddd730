# Every target works alone on a fresh clone: it makes .venv and installs what is missing.
# `make demo PYTHON=python3.12` chooses the interpreter that .venv is made from (3.11 to 3.13).
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all docs-test api lint format types bench clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /  make \1\t/' | expand -t 18

install: $(STAMP) ## make .venv with the package and its tools

# A new setup.cfg means new requirements.
$(STAMP): setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info < (3, 14); \
	  ok or sys.exit("adaptive needs Python 3.11 to 3.13, and $(PYTHON) is %d.%d: make PYTHON=python3.12" % sys.version_info[:2])'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: $(STAMP) ## Puzzle on a small language model: minutes on two CPU cores
	$(BIN)/python -m adaptive.run +exp=puzzle_tiny $(ARGS)

test: $(STAMP) ## the quick tests, a worker a core (at most 4; ARGS='-n 0' for none)
	$(BIN)/python -m pytest -n auto --maxprocesses=4 --dist=loadfile $(ARGS)

test-all: $(STAMP) ## the slow tests too
	$(BIN)/python -m pytest -m 'not gpu' $(ARGS)

docs-test: $(STAMP) ## what the README, docs/ and the notebooks say, done: a quarter of an hour on two cores
	$(BIN)/python -m pytest -n 0 -m 'not gpu' tests/test_docs.py tests/test_notebooks.py $(ARGS)

api: $(STAMP) ## write the public names to tests/api.txt, after a change that is meant
	$(BIN)/python tests/public_api.py

lint: $(STAMP) ## style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## rewrite what lint complains about
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP) ## static types
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python

bench: $(STAMP) ## solvers on instances of published sizes
	$(BIN)/python experiments/bench/solvers.py $(ARGS)

clean: ## remove what the targets above made, except runs
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
