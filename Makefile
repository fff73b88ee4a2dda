# make demo   install, then run a small campaign to its end
# make test   install, then pass every test
# make kill-test    kill a campaign at hundreds of points, and go on each time: hours
# make fault-test   break a campaign in all other ways: half an hour
# make mutation-test   configs and run directories that something happened to, all of them resumed
# make lint   style, types and layers
# make docs   write docs/configuration.md from the code
# make help   this list
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: help install demo test test-fast kill-test fault-test mutation-test lint format docs clean

help:
	@sed -n 's/^# make /make /p' Makefile

# Again only when what it reads has changed. The package itself is not copied, so its byte code is renewed
# each time (a fraction of a second when nothing changed).
install: $(INSTALLED)
	@$(BIN)/python -m compileall -q fff

$(INSTALLED): pyproject.toml .ci/install
	@.ci/install
	@touch $@

# Nothing is overwritten: the second demo goes to runs/quickstart-2, and so on.
demo: install
	@run_dir=runs/quickstart; n=1; \
	while [ -e "$$run_dir" ]; do n=$$((n + 1)); run_dir=runs/quickstart-$$n; done; \
	$(BIN)/python run.py configs/quickstart.yaml --run-dir "$$run_dir"

# On all cores. A file's tests stay together: several share a campaign. The files keep their order, in which the long
# ones come first: the last of them would else run alone.
test: install
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# Seconds: what to run while writing code.
test-fast: install
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not slow and not integration and not science"

# Both write their tables into docs/faults.md.
kill-test: install
	$(BIN)/python -m tests.faults.kill --write

fault-test: install
	$(BIN)/python -m tests.faults.faults --write

mutation-test: install
	FFF_EXHAUSTIVE=1 $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder tests/mutations

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install
	$(BIN)/fff schema --format markdown -o docs/configuration.md

# Takes away what can be made again; runs/ stays.
clean:
	rm -rf .venv .nox .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage* htmlcov
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
