PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCKS := deploy/requirements
MODELS := .demo/models

.DEFAULT_GOAL := help
.PHONY: help lock

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.serve: $(LOCKS)/serve.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(LOCKS)/serve.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

$(VENV)/.dev: $(LOCKS)/dev.txt $(VENV)/.serve
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(LOCKS)/dev.txt
	@touch $@

lock: $(VENV)/.dev  ## re-pin every dependency to its newest allowed version
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url pyproject.toml -o $(LOCKS)/serve.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url --extra dev -c $(LOCKS)/serve.txt pyproject.toml -o $(LOCKS)/dev.txt
