# make demo          the whole pipeline on a simulated workstation (or VIDEO=file.mp4 on your own)
# make demo STORE=s3 the same on an S3 server, started for it; its buckets are folders in S3_FOLDER
# make test          linters, type checker, tests
# make dev           the Dagster UI on what the demo or a backfill made (with STORE=s3 as above)
# make bench         the benchmarks of bench/
# make check-lerobot an export read back by lerobot, in an environment of its own (a large download)
# make docs          docs/tables.md, from the table schemas
# make install       only the installation, into .venv

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
S3_FOLDER := .laps/s3
# lerobot wants an older torch than this project, so it never shares an environment with it.
LEROBOT := .venv-lerobot

.PHONY: install demo test lint dev bench docs clean check-lerobot

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: install
	$(BIN)/laps demo $(if $(VIDEO),--video '$(VIDEO)') $(if $(filter s3,$(STORE)),--s3 '$(S3_FOLDER)')

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Two processes, each with one thread; a module stays in one of them, because its tests share what it made.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

dev: install
	$(if $(filter s3,$(STORE)),$(BIN)/python -m resources.s3_server '$(S3_FOLDER)') $(BIN)/laps dev

bench: install
	$(BIN)/python -m bench.stages

check-lerobot: install $(LEROBOT)/.installed
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
		$(BIN)/python -m tests.check_lerobot.write_export "$$folder" && \
		$(LEROBOT)/bin/python tests/check_lerobot/read_export.py "$$folder"

$(LEROBOT)/.installed:
	$(PYTHON) -m venv $(LEROBOT)
	$(LEROBOT)/bin/pip install --quiet 'lerobot==0.4.4'
	@touch $@

docs: install
	$(BIN)/python -m laps.dictionary docs/tables.md

clean:
	rm -rf .laps .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
