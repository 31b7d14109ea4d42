# Everything runs in .venv, which the targets make when they need it. ARGS goes to the command: make serve
# ARGS="--port 9000". PYTHON is the interpreter that .venv is made with.

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help install dev serve test test-fast lint types format check docs bench clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## Make .venv and install mezzo in it

dev: $(VENV)/.installed-dev ## Add what the tests and linters need

# Ctrl-C reaches the whole process group; the trap keeps the shell from reporting as failed what stopped well.
serve: install ## Serve the default weights (ARGS="--port 9000 ...")
	@trap : INT; $(BIN)/mezzo serve $(ARGS) || [ $$? -eq 130 ]

test: dev ## Run all tests, two files at a time (ARGS="-k chat")
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

test-fast: dev ## Run the tests that need no real weights and no server process
	$(BIN)/python -m pytest -m "not slow and not gpu" $(ARGS)

lint: dev ## Check style, formatting and the borders between packages
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports

types: dev ## Check types
	$(BIN)/mypy

format: dev ## Format the sources and fix what can be fixed
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

check: lint types test ## Run lint, types and test

docs: dev ## Write the generated pages of docs/ anew
	for script in scripts/*_doc.py; do $(BIN)/python "$$script" || exit; done

bench: install ## Measure a running server (ARGS="--help" for how)
	@$(BIN)/mezzo bench $(ARGS)

clean: ## Remove .venv, caches and build outputs; fetched weights stay
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src tests benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written last: an installation that was interrupted is done again.
$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt $(wildcard hatch_build.py src/mezzo/model/kernels/csrc/*)
	$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP_INSTALL) -e '.[test,lint]'
	@touch $@

# Order matters to a Python without ensurepip, as some distributions ship it: its own pip fills the environment.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "mezzo needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1 || echo missing)." >&2; \
	  echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(PYTHON) -m venv $(VENV); \
	else $(PYTHON) -m venv --without-pip $(VENV) && $(PYTHON) -m pip --python $@ install pip; fi
