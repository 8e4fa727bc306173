# The commands for people and CI. `make` alone lists them.
SHELL := /bin/sh
PY := .venv/bin/python
JSON ?=

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 18

setup:  ## make .venv from the hash-pinned lock
	@scripts/setup.sh

demo: setup  ## run the main job: the example app on a real model, profiled end to end
	@$(PY) scripts/demo.py

# Tests start some four hundred processes: with bytecode kept each needs a third less to start.
test test-long: export PYTHONDONTWRITEBYTECODE =
WORKERS ?= 4
test: setup  ## pass the tests (under 8 minutes on 2 cores), WORKERS=4 files at a time
	@$(PY) -m pytest -q -n $(WORKERS) --dist loadfile

test-long: setup  ## the tests that take longer, named in docs/testing.md
	@$(PY) -m pytest -q -m long -n 2 --dist worksteal

FUZZ ?= 5000
fuzz: setup  ## the fuzz targets for longer, other inputs each time (FUZZ=5000 inputs a target)
	@TIDEGATE_FUZZ=$(FUZZ) $(PY) -m pytest -q --timeout 3600 tests/fuzz tests/console/test_protocol.py

check: setup  ## lint, types, import contracts, rules of the house, generated pages
	@.venv/bin/ruff check src tests scripts bench examples
	@.venv/bin/ruff format --check src tests scripts bench examples
	@.venv/bin/mypy
	@.venv/bin/lint-imports
	@$(PY) scripts/check_house.py
	@$(PY) scripts/generate.py --check

fix: setup  ## mend what a machine can mend: format, imports, generated pages
	@.venv/bin/ruff check --fix src tests scripts bench examples
	@.venv/bin/ruff format src tests scripts bench examples
	@$(PY) scripts/generate.py

lock:  ## renew requirements.lock from the ranges in pyproject.toml
	@.venv/bin/python -m pip install --quiet uv
	@.venv/bin/uv pip compile --universal --python-version 3.11 --generate-hashes --extra dev --extra examples \
	    --no-emit-index-url --no-emit-find-links --no-header --quiet pyproject.toml -o requirements.lock

bench: bench-gateway bench-faults bench-switches bench-keys  ## every benchmark

bench-peers:  ## make the environments of the peers that the benchmarks measure against
	@bench/peers/make.sh

bench-gateway: setup bench-peers  ## the gateway against nginx, TensorZero, Portkey and LiteLLM (JSON=1: one object as last line)
	@$(PY) -m bench.gateway $(if $(JSON),--json)

bench-quick: setup bench-peers  ## a minute and a half: nginx, TensorZero, Tidegate; no memory run
	@$(PY) -m bench.gateway --quick $(if $(JSON),--json)

BASE ?= main
bench-commit: setup  ## the working tree against a commit, five runs of each in turns (BASE=main, HEAD=, RUNS=5, JSON=1)
	@bench/peers/make.sh tools
	@$(PY) -m bench.commits --base $(BASE) $(if $(HEAD),--head $(HEAD)) --runs $(or $(RUNS),5) $(if $(JSON),--json)

soak: setup  ## an hour of bounded traffic with faults: nothing may grow (MINUTES=5 for less)
	@$(PY) -m bench.soak --minutes $(or $(MINUTES),60) $(if $(JSON),--json)

bench-faults: setup bench-peers  ## sixteen upstream faults: the scorecard of Tidegate and its peers, in three minutes (JSON=1)
	@$(PY) -m bench.faults --explain $(if $(JSON),--json)

bench-switches: setup  ## 200 switches of an app under load: how long each takes to every worker, in a minute (JSON=1)
	@$(PY) -m bench.switches $(if $(JSON),--json)

bench-keys: setup  ## what a change of a switch or a key costs a worker beside 100,000 keys (JSON=1)
	@$(PY) -m bench.switches.keys $(if $(JSON),--json)

clean:  ## remove what the targets made
	rm -rf .venv build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

.PHONY: help setup demo test test-long fuzz check fix lock bench bench-peers bench-gateway bench-quick bench-commit bench-faults bench-keys bench-switches soak clean
