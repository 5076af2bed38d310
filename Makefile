# Every target makes what it needs first, so `make demo` and `make test` are all that a fresh
# machine is asked for. Needed beforehand: make, Python 3.11 or newer and its venv module.

PYTHON ?= python3
ARGS ?=

BIN := .venv/bin
PIP_INSTALL := -m pip install --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

.PHONY: help
help: ## list the targets
	@echo 'usage: make TARGET [ARGS="..."] [PYTHON=python3.12]'
	@awk -F ':.*## ' '/^[a-z]+:.* ## / { printf "  %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# ------------------------------------------------------------------------------------- to use

.PHONY: setup
setup: .venv/.installed ## make .venv from the lock, once (the others do this by themselves)

.PHONY: demo
demo: setup ## watch it work: simulator, daemon and receivers, live (ARGS=--keep, ARGS=--chaos)
	$(BIN)/batchwatch demo $(ARGS)

# --------------------------------------------------------------------------------- to work on

.PHONY: test
test: setup ## run the tests (ARGS="-k outbox" for some of them)
	$(BIN)/python -m pytest --numprocesses auto $(ARGS)

.PHONY: check
check: setup ## run every static check: the line that CI runs beside the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/yamllint --strict .
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml deploy/compose.live.yaml deploy/compose.replicas.yaml

.PHONY: bench
bench: setup ## measure it beside the bare alternatives (ARGS=--help lists the benchmarks)
	$(BIN)/python -m benchmarks $(ARGS)

.PHONY: docs
docs: setup ## write again the pages and schemas that are made from the code
	$(BIN)/python docs/generate.py

.PHONY: fmt
fmt: setup ## format the code and mend what ruff can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# --------------------------------------------------------------------------------- to release

# The lock is for every Python and platform that the project supports, and names no index, so
# that it installs from whichever one the machine is set up for. dev.txt is resolved first and
# the others from it: what is tested is what ships. The extras ed25519, otel and postgres ship,
# too: they cost nothing until somebody uses them, and an image cannot be added to.
LOCK = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command 'make lock' $(ARGS)

.PHONY: lock
lock: ## resolve the requirements anew into requirements/ (ARGS=--upgrade; needs uv)
	@command -v uv >/dev/null || { echo 'make lock: uv is not on the PATH; see its docs, or: pipx install uv' >&2; exit 1; }
	$(LOCK) --output-file requirements/dev.txt --group dev pyproject.toml
	$(LOCK) --output-file requirements/run.txt --no-annotate --constraint requirements/dev.txt --extra ed25519 --extra otel --extra postgres pyproject.toml
	$(LOCK) --output-file requirements/build.txt --no-annotate --constraint requirements/dev.txt --group build

.PHONY: dist
dist: setup ## build the wheel into dist/ and prove it: alone in an empty environment it runs the demo
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@set -e; alone=$$(mktemp -d); trap 'rm -rf "$$alone"' EXIT; set -x; \
	$(PYTHON) -m venv "$$alone"; \
	"$$alone/bin/python" $(PIP_INSTALL) --require-hashes --requirement requirements/run.txt; \
	"$$alone/bin/python" $(PIP_INSTALL) --no-deps --no-index dist/*.whl; \
	cd "$$alone"; \
	bin/batchwatch version; \
	bin/batchwatch demo $(ARGS)

.PHONY: clean
clean: ## remove all that make made
	rm -rf .venv dist .import_linter_cache .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# -------------------------------------------------------------------------------- .venv itself

# Made anew when the lock changes, so that nothing stays which the lock no longer names.
.venv/.locked: requirements/dev.txt
	@$(PYTHON) -c '' || { echo 'make: $(PYTHON) does not run; on Debian: apt install python3 python3-venv' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "make: Python 3.11 or newer is needed, and $$($(PYTHON) -V) was found; name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo 'make: $(PYTHON) lacks its venv module; on Debian: apt install python3-venv' >&2; exit 1; }
	@echo 'Making .venv from requirements/dev.txt; this happens once and takes about a minute.'
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python $(PIP_INSTALL) --require-hashes --requirement requirements/dev.txt
	@touch $@

# pip has compiled the dependencies to byte code; an editable install leaves our own to us.
.venv/.installed: .venv/.locked pyproject.toml
	@$(BIN)/python $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q batchwatch
	@touch $@
