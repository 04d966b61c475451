# Two commands on a fresh machine: `make demo` and `make test`. Each sets up what it needs first.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
OUT ?= demo-output
ARGS ?=

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(READY) ## a virtual environment in .venv with everything pinned; does nothing when it is up to date

$(READY): pyproject.toml constraints.txt .ci/setup
	@.ci/setup $(VENV)
	@touch $@

demo: setup ## the main job on the bundled cohort: real patients in, risks with intervals out (OUT=demo-output, ARGS=...)
	$(BIN)/sequela demo --out $(OUT) $(ARGS)

# Two workers with one thread each: threads of both that wait for each other on two cores cost several times as much.
# A module goes to one worker, so that what its tests share is made once.
test: setup ## the tests that take less than ten minutes on two cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope -m "not slow" $(ARGS)

test-all: setup ## every test, the slow ones too
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadscope $(ARGS)

check: setup ## style (ruff), floors (import-linter) and types of the public API (ty)
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/ty check sequela/__init__.py sequela/serve

picture: setup ## draw docs/picture.svg from the folder of a demo (OUT=demo-output)
	$(BIN)/python -m docs.picture $(OUT)

tree: ## draw the package's tree into README.md and docs/ARCHITECTURE.md
	python3 docs/tree.py

docs: setup ## write the pages in docs/reference that follow from the code
	$(BIN)/python -m docs.reference

bench: setup ## every benchmark in bench/, each in its quick form (ARGS= for the full one)
	@for script in bench/*.py; do [ -e "$$script" ] || { echo "bench/ holds no benchmark yet"; exit 0; }; \
	  echo "== $$script"; $(BIN)/python "$$script" $(or $(ARGS),--quick); done

clean: ## remove the environment and everything that was made
	rm -rf $(VENV) demo-output build dist .pytest_cache .ruff_cache .import_linter_cache .hypothesis

.PHONY: help setup demo test test-all check picture tree docs bench clean
