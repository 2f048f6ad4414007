# Needs Python 3.11 to 3.13, make and git. Everything else is installed into .venv.
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-ui azurite test trials test-cluster bench bench-scale lowest newest dist docs coverage lint words lock clean

PYTHON = $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin
# The newest supported Python that this machine has, on the PATH or in pyenv.
NEWEST_PYTHON = $(shell for python in python3.13 $(HOME)/.pyenv/versions/3.13.*/bin/python \
	python3.12 $(HOME)/.pyenv/versions/3.12.*/bin/python $(BIN)/python; do \
	$$python -c '' 2>/dev/null && echo $$python && break; done)
AZURITE := build/azurite/node_modules/.package-lock.json

help: ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 21

demo: .venv/.installed ## Land one trading day from a simulated RAP with Airflow, and show the lake
	@$(BIN)/python -m airflow_provider_hkex_rap.testing.demo

demo-ui: .venv/.installed ## Show the board of the demo in Airflow's UI, until Ctrl-C
	@exec $(BIN)/python -m airflow_provider_hkex_rap.testing.demo_ui

azurite: $(AZURITE) ## Install the Azure Storage server of the tests, which are skipped without it; needs npm

test: .venv/.installed ## Run the tests; takes about four minutes
	$(BIN)/python -m pytest -n auto --dist worksteal

trials: .venv/.installed ## Run the slow tests with a running Airflow; takes about fifteen minutes
	$(BIN)/python -m pytest -m "slow and not alone" -n 2 --dist loadfile
	$(BIN)/python -m pytest -m "slow and alone"

test-cluster: .venv/.installed ## Run the trial of workers that are killed; needs PostgreSQL and Redis
	$(BIN)/python -m pytest -m cluster

bench: .venv/.installed ## Compare the speed with other programs, and write benchmarks/RESULTS.md; see benchmarks/README.md
	$(BIN)/python -m benchmarks $(or $(ARGS),--parse --write benchmarks)

bench-scale: .venv/.installed ## Measure work that grows: days, accounts, history, long listings, a large file
	$(BIN)/python -m benchmarks --scale $(ARGS)

# The bounds of the versions: the unit tests, and one session, download, sensor and renewal at a time. The lakes
# need a newer moto than the lowest one that the other tests need.
AT_THE_BOUNDS = tests/unit $(patsubst %,tests/integration/test_%.py,session download report_sensor key_exchange \
	key_renewal)
lowest: RESOLUTION = lowest-direct
lowest: AT = $(BIN)/python
lowest: .venv/.installed ## Run the main tests with the lowest versions of the direct dependencies
newest: RESOLUTION = highest
newest: AT = $(NEWEST_PYTHON)
newest: .venv/.installed ## Run the main tests with the newest versions of all dependencies, and the newest Python
lowest newest:
	@$(AT) -m venv --clear --without-pip build/$@
	@$(BIN)/uv pip install --quiet --no-config --python build/$@/bin/python --resolution $(RESOLUTION) \
		--group test --editable '.[s3]'
	@build/$@/bin/python --version
	build/$@/bin/python -m pytest -n auto --dist worksteal $(AT_THE_BOUNDS)

dist: .venv/.installed ## Build sdist and wheel in dist, install the wheel into build/installed, and check all of it
	@rm -rf dist
	$(BIN)/uv build --quiet --no-config --no-build-isolation --python $(BIN)/python
	@$(BIN)/python -m venv --clear --without-pip build/installed
	@$(BIN)/uv pip install --quiet --no-config --python build/installed/bin/python --constraint constraints.txt dist/*.whl
	$(BIN)/python -m pytest tests/distribution.py

coverage: .venv/.installed ## Run the tests, and report the lines that no test runs
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n auto --dist worksteal
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

lint: .venv/.installed ## Check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: .venv/.installed ## Build the documentation as a site in build/site; a broken link is an error
	@rm -rf build/site
	@mkdir -p build/docs
	@$(BIN)/python -m pytest --quiet --quiet --collect-only -m "" --guide-page=build/docs/guide.md tests \
		>build/docs/collected || { grep -v '^tests.*: [0-9]*$$' build/docs/collected; exit 1; }
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going -d build/docs/doctrees docs build/site
	@echo "Open build/site/index.html."

words: .venv/.installed ## Count conditions and question words in the prose; IN="path path" for other directories
	@$(BIN)/python tests/style/words.py $(IN)

setup: .venv/.installed ## Install the package, editable, and its locked dependencies into .venv

lock: $(BIN)/uv ## Lock the dependencies in constraints.txt; LOCK=--upgrade for the newest versions
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 \
		--generate-hashes --no-annotate --no-emit-index-url --extra s3 --group test --group lint --group docs --group dist --group bench --group build \
		--output-file constraints.txt $(LOCK) pyproject.toml

clean: ## Remove all files that the other targets created
	rm -rf .coverage* .venv .demo .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist

.venv/.installed: constraints.txt pyproject.toml | $(BIN)/uv
	@echo "Installing the locked dependencies into .venv ..."
	@# uv takes seconds and pip a minute, but only pip reads its own configuration of proxies and mirrors.
	@$(BIN)/uv pip install --quiet --no-config --python $(BIN)/python --compile-bytecode --require-hashes -r constraints.txt \
		|| $(BIN)/python -m pip install --quiet --require-hashes --no-deps -r constraints.txt
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(AZURITE): tests/integration/azurite/package.json tests/integration/azurite/package-lock.json
	@echo "Installing Azurite into build/azurite ..."
	@mkdir -p build/azurite
	@cp $^ build/azurite
	@cd build/azurite && npm ci --loglevel=error --no-audit --no-fund --ignore-scripts
	@touch $@

$(BIN)/uv:
	$(if $(PYTHON),,$(error Python 3.11, 3.12 or 3.13 is needed. If it is not on the PATH: make PYTHON=/path/to/python))
	@echo "Creating .venv with $(PYTHON) ..."
	@$(PYTHON) -m venv .venv
	@awk '/^uv==/, !/\\$$/' constraints.txt > .venv/uv.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.txt
