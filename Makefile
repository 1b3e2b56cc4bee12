# The whole interface of this checkout; continuous integration calls the same targets. `make` alone lists them.
SHELL := /bin/sh
.DEFAULT_GOAL := help
empty :=
space := $(empty) $(empty)
# Debian keeps initdb and postgres off the PATH.
POSTGRES_BIN := $(subst $(space),:,$(strip $(wildcard /usr/lib/postgresql/*/bin)))
export PATH := $(CURDIR)/.venv/bin:$(PATH)$(if $(POSTGRES_BIN),:$(POSTGRES_BIN))
# Without this a run inside somebody's own virtual environment would install there.
unexport VIRTUAL_ENV

PYTEST := python -m pytest
ARGS ?=
DEMO_HOME := $(CURDIR)/.demo/home

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-9s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: ## The taxi lab: a pipeline from nothing to 246,414 fares, in a folder of its own (.demo); ARGS=--force runs every step
	@.ci/setup demo
	@sh examples/nyc-taxi-lab/demo.sh $(ARGS)

.PHONY: test
test: lint ## Lint, then every test but the torture
	@.ci/setup azureml
	@.ci/setup postgres
	@.ci/setup azurite
	@.ci/setup browser
	@.ci/setup promtool
# In the order of their names the long stories come first, and the short ones fill what is left of the time.
	$(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder -m "not torture" $(ARGS)

.PHONY: lint
lint: ## Style, types and the import contracts
	@.ci/setup dev
	ruff check .
	ruff format --check .
	mypy
	lint-imports

.PHONY: fix
fix: ## Repair what the linter and the formatter can repair
	@.ci/setup dev
	ruff check --fix .
	ruff format .

.PHONY: up
up: ## Start the server on the demo's folder, with the taxi endpoint registered
	@.ci/setup demo
	@sh examples/nyc-taxi-fares/demo.sh --register-only
	BATCHPOINT_HOME=$(DEMO_HOME) batchpoint up

.PHONY: bench
bench: ## Measure against hand-written floors; ARGS=--quick for a short look
	@.ci/setup demo
	python benchmarks/run.py $(ARGS)

.PHONY: torture
torture: ## Kill workers, runner and server at random, many times, and compare every byte
	@.ci/setup dev
	$(PYTEST) -m torture --timeout 7200 $(ARGS)

.PHONY: docs
docs: ## Check that the documentation is complete and that its links lead somewhere
	@.ci/setup dev
	$(PYTEST) tests/project $(ARGS)

.PHONY: pictures
pictures: ## Take the README's pictures of the studio again, in Chromium
	@.ci/setup dev
	@.ci/setup browser
	PYTHONPATH=src:tests python docs/pictures.py

.PHONY: clean
clean: ## Remove everything that can be made again, the demo's folder and the virtual environment included
	@if [ -x .venv/bin/batchpoint ] && [ -d .demo/home ]; then BATCHPOINT_HOME=$(DEMO_HOME) .venv/bin/batchpoint down || true; fi
	rm -rf .venv .demo .batchpoint build dist benchmarks/results benchmarks/data
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
