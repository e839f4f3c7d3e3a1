# Every command a developer needs. `make help` lists them; each makes the .venv it needs.
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help install demo test test-slow check format audit bench up migrate clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

install: $(STAMP)  ## make .venv with everything, every version pinned by constraints.txt

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[worker,tracing,dev]'
	@touch $@

demo: install  ## train a small net, compress it through the running service, check the result (under a minute)
	$(BIN)/python -m benchmarks.demo

test: install  ## run the whole suite
	$(BIN)/python -m pytest -n 2 --dist loadgroup -m 'not slow'

test-slow: install  ## run the tests that take minutes
	$(BIN)/python -m pytest -m slow

check: install  ## format, lint, types, borders, dependencies and their pins, dead code, schema drift
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/deptry .
	$(BIN)/vulture
	$(BIN)/python -m migrations.drift
	$(BIN)/python -m pytest -q tests/architecture/test_dependencies.py

format: install  ## format and mend what ruff can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

audit:  ## ask the index for known vulnerabilities of every pinned version (online, in an environment of its own)
	$(PYTHON) -m venv build/audit
	build/audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	build/audit/bin/pip-audit --requirement constraints.txt --strict --no-deps --disable-pip --progress-spinner off

bench: install  ## print every ratio the README claims
	$(BIN)/python -m benchmarks.service
	$(BIN)/python -m benchmarks.torch_graph
	$(BIN)/python -m benchmarks.quantization --quick --peers onnxruntime
	$(BIN)/python -m benchmarks.pruning --quick
	$(BIN)/python -m benchmarks.training --quick

up: install  ## everything on one machine, data in ./slimline-data
	$(BIN)/slimline up --data slimline-data

migrate: install  ## bring the database of SLIMLINE_DATABASE_URL to the newest schema
	$(BIN)/slimline migrate

clean:  ## remove .venv and caches
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .hypothesis
