# Two commands matter: `make demo` and `make test`. Both set up what they need.
.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo methods test lint types unit engine chart mixup bench docs clean
PY := .venv/bin/python
RUN := .venv/bin

help: ## This list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: ## Virtual environment with everything the demo runs
	@scripts/setup demo

setup-dev: ## ... and the test tools
	@scripts/setup dev

demo: setup ## The main job: train, attest and serve three tenants' adapters (ARGS="--keep --fresh")
	@$(RUN)/tenon demo run $(ARGS)

lint: setup-dev ## Style, types and the import law
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/lint-imports
	$(RUN)/mypy

test: lint ## Everything: lint, types, architecture, unit, property, journeys, chart, real engine
	@scripts/run-tests

unit: setup-dev ## The fast tests only
	$(PY) -m pytest -m "not engine and not slow" -n 2

engine: setup-dev ## The tests on a real vLLM
	$(PY) -m pytest -m "engine"

methods: setup-dev ## Train every method on the demo base, measure it, write docs/methods.md (30 min)
	$(PY) -m bench.methods $(ARGS)

mixup: setup-dev ## Look for mix-ups: ours, bare vLLM, the controls; writes docs/mixup.md (15 min; ARGS="--device cuda")
	$(PY) -m bench.mixup $(ARGS)

bench: setup-dev ## Measure; writes bench/results and docs/performance.md
	$(PY) -m bench.peers install
	$(PY) -m bench

docs: setup ## Write the generated reference pages
	$(PY) -m server.reference

clean: ## Remove caches and the demo's workspace (not .venv)
	rm -rf .tenon .cache .mypy_cache .ruff_cache .hypothesis
