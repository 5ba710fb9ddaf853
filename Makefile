# make demo          the whole pipeline on a simulated workstation (or VIDEO=file.mp4 on your own)
# make test          linters, type checker, tests
# make dev           the Dagster UI on what the demo or a backfill made
# make bench         the benchmarks of bench/
# make docs          docs/tables.md, from the table schemas
# make install       only the installation, into .venv

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install demo test lint dev bench docs clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: install
	$(BIN)/laps demo $(if $(VIDEO),--video '$(VIDEO)')

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/pytest

dev: install
	$(BIN)/laps dev

bench: install
	$(BIN)/python -m bench.stages

docs: install
	$(BIN)/python -m laps.dictionary docs/tables.md

clean:
	rm -rf .laps .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
