# make demo    set up .venv, run a shipped program and show its page faults
# make test    set up .venv and run the whole test suite
# make proof   the long-running evidence: property tests with many more examples
# make bench   the speed table, with ratios taken in the same run
# make lint    ruff and mypy
# make clean   remove .venv and everything generated

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
RUN_STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
PIP := $(BIN)/python -m pip --quiet --quiet --disable-pip-version-check
DEMO := images/faults

MAKEFLAGS += --no-print-directory
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help bytecode demo test proof bench lint clean

help:
	@sed -n 's/^# make /make /p' Makefile

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "pagewalk needs Python 3.11 or newer, $(PYTHON) is not: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "$(PYTHON) cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }

$(RUN_STAMP): pyproject.toml | $(BIN)/python
	@$(PIP) install --editable .
	@touch $@

$(DEV_STAMP): pyproject.toml | $(BIN)/python
	@$(PIP) install --editable '.[dev]'
	@touch $@ $(RUN_STAMP)

# Bytecode even where PYTHONDONTWRITEBYTECODE is set: without it every start costs a third of a second more.
bytecode: $(RUN_STAMP)
	@$(BIN)/python -m compileall -q emu kernel mmu

demo: bytecode
	@echo '$$ pagewalk run -- $(DEMO)'
	@$(BIN)/pagewalk run -- $(DEMO)
	@echo
	@echo '$$ pagewalk trace -e faults -- $(DEMO)'
	@$(BIN)/pagewalk trace -e faults -- $(DEMO)
	@for program in images/p1 images/p2; do \
	  echo; echo "\$$ pagewalk compare -- $$program"; \
	  $(BIN)/pagewalk compare -- $$program || test $$? = 1 || exit 1; \
	done

test: $(DEV_STAMP) bytecode
	@$(BIN)/python -m pytest -q -n auto

proof: $(DEV_STAMP) bytecode
	@$(BIN)/python -m pytest -q -n auto -m 'proof or hypothesis' --hypothesis-profile=proof
	@$(BIN)/python -m tests.differential.proof

bench: $(DEV_STAMP) bytecode
	@$(BIN)/python -m tests.bench
	@echo
	@$(BIN)/python -m tests.bench.pressure
	@echo
	@$(BIN)/python -m tests.bench.off_is_free

lint: $(DEV_STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/mypy --strict kernel mmu
	@$(BIN)/mypy emu

clean:
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
