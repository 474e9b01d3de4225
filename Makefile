# `make demo` and `make test` are all that a newcomer needs; both build .venv on their first run.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

.PHONY: help demo test lint clean

help:
	@echo "make demo   register the real Sentinel-1 / Sentinel-2 pair that ships with somareg"
	@echo "make test   linters, types, import contract and tests"
	@echo "make lint   the same without the tests"
	@echo "make clean  remove .venv, caches and the demo's outputs"

demo: $(VENV)/.demo
	$(BIN)/somareg demo -o somareg-demo

test: lint
	$(BIN)/python -m pytest

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $(PYTHON) is missing or older than 3.11; run make with PYTHON=python3.11 or newer" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
		|| { rm -rf $(VENV); echo "error: no venv module; on Debian or Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }

# A stamp is newer than the files that name the dependencies once those are installed.
$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e .
	@touch $@

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e '.[test]'
	@touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) somareg-demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
