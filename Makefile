# Needs GNU make, /bin/sh and Python 3.11 or later with pip. Everything is installed into .venv.
#
#   make demo        release a real, public-domain table privately: the shortest way to see it work
#   make test        install everything that the tests need, once, and run them
#   make lint types docs statistics    the other checks, each as CI runs it
#   make clean       remove what these made; never a release, a ledger or a demo

PYTHON ?= $(shell if python3.11 -c '' >/dev/null 2>&1; then echo python3.11; else echo python3; fi)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
EXTRAS := dev,demo,deep,baselines,docs,fast,postgres

.PHONY: help demo test lint types docs statistics clean
.DEFAULT_GOAL := help

help:
	@sed -n '3,7s/^# *//p' Makefile

# Stamps: an install is repeated only when pyproject.toml changes.

# Some systems split ensurepip off; then the pip that is there installs one into the environment.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed; this is " + sys.version.split()[0] + ". Try: make PYTHON=/path/to/python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV) || { $(PYTHON) -m venv --clear --without-pip $(VENV) && $(PYTHON) -m pip --python $(BIN)/python install --quiet pip; }
	@touch $@

$(VENV)/.demo: pyproject.toml | $(VENV)/.created
	$(PIP) --editable '.[demo]'
	@touch $@

# torch first and alone: resolved together with the rest, pip may settle for another build of it.
$(VENV)/.torch: | $(VENV)/.created
	$(PIP) 'torch==2.13.0'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/.torch
	$(PIP) --editable '.[$(EXTRAS)]'
	@touch $@

demo: $(VENV)/.demo
	$(BIN)/dpsynth demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev
	$(BIN)/mypy

docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --site-dir site

statistics: $(VENV)/.dev
	$(BIN)/python -m pytest -m slow

clean:
	rm -rf $(VENV) site build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find accounting benchmarks docs dpsynth tests -name __pycache__ -type d -prune -exec rm -rf {} +
