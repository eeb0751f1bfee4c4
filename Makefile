# Needs git, make and Python 3.11 to 3.13; the rest goes into .venv and .tox. `make help` lists the targets.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
TOX := $(BIN)/tox

# Interpreters that pyenv built are used too, whichever of them is the shell's.
PYENV_ROOT ?= $(HOME)/.pyenv
EMPTY :=
SPACE := $(EMPTY) $(EMPTY)
PYENV_BINS := $(wildcard $(foreach minor,11 12 13,$(PYENV_ROOT)/versions/3.$(minor).*/bin))
export PATH := $(PATH)$(if $(PYENV_BINS),:$(subst $(SPACE),:,$(strip $(PYENV_BINS))))

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# uv does not read pip's settings: where pip is told of a mirror, so is uv.
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: $(VENV)/.installed ## Start the server on port 8080; more flags: make run ARGS="--ttl 60"
	@exec $(BIN)/coral-discovery --port 8080 $(ARGS)

.PHONY: test
test: $(VENV)/.tox ## Run all that needs no root: lint, types, proto, tests on each Python
	@$(TOX) run

.PHONY: lint
lint: $(VENV)/.tox ## Check style, format and import directions
	@$(TOX) run -e lint

.PHONY: fmt
fmt: $(VENV)/.tox ## Format the code, and mend what ruff can mend
	@$(TOX) run -e fmt

.PHONY: types
types: $(VENV)/.tox ## Check types
	@$(TOX) run -e types

.PHONY: proto
proto: $(VENV)/.tox ## Generate src/discovery/_gen from proto/, then check both
	@$(TOX) run -e generate,proto

.PHONY: docs
docs: dev ## Generate the references in docs/ from the protocol, the settings and the commands
	@$(BIN)/python tools/docs.py
	@$(BIN)/python tools/helm_readme.py

.PHONY: site
site: dev ## Build docs/ into build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict --site-dir build/site
	@echo "build/site/index.html"

.PHONY: bench
bench: dev ## Run ours beside what a user would pick instead; fewer: make bench ARGS="--quick"
	@$(BIN)/python -m benchmarks --readme $(ARGS)

.PHONY: dev
dev: $(VENV)/.installed $(VENV)/.tox ## Install every tool into .venv, for editors and for running pytest by hand
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable . --group dev

.PHONY: pins
pins: $(VENV)/.tox ## Write constraints.txt anew, with the newest versions
	@$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-annotate --no-header \
		--group dev --output-file constraints.txt pyproject.toml

.PHONY: clean
clean: ## Remove environments, caches and builds
	rm -rf $(VENV) .tox build dist .coverage .coverage.* .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Installation talks on stderr, so that `make run` prints the server's lines and nothing else.
$(VENV)/.made: tools/find-python.sh
	@python="$${PYTHON:-$$(tools/find-python.sh)}" && \
		echo "Making $(VENV) with $$python" >&2 && \
		"$$python" -m venv --clear $(VENV) && touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml constraints.txt src/discovery/__init__.py
	@echo "Installing coral-discovery into $(VENV)" >&2
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable . >&2
	@touch $@

# tox does not look into constraints.txt, so what it installed under older pins goes.
$(VENV)/.tox: $(VENV)/.made constraints.txt
	@echo "Installing tox into $(VENV)" >&2
	@rm -rf .tox
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt tox tox-uv >&2
	@touch $@
