# The front door. Needs Python 3.11 to 3.13, make and git; everything else goes into .venv.
.DEFAULT_GOAL := help
.PHONY: help setup demo test trials lint lock clean

PYTHON = $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$python && break; done)
BIN := .venv/bin

help: ## Show what there is to make
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: .venv/.installed ## Land one trading day from a RAP on localhost with Airflow, and look at the lake
	@$(BIN)/python -m airflow_provider_hkex_rap.testing.demo

test: .venv/.installed ## Run the tests
	$(BIN)/python -m pytest -n auto

trials: .venv/.installed ## Run the trials under a running Airflow: ten minutes
	$(BIN)/python -m pytest -m slow

lint: .venv/.installed ## Check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

setup: .venv/.installed ## Install the package, editable, with its locked dependencies into .venv

lock: $(BIN)/uv ## Lock the dependencies in constraints.txt; LOCK=--upgrade takes the newest
	UV_CUSTOM_COMPILE_COMMAND="make lock" $(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 \
		--generate-hashes --no-annotate --no-emit-index-url --extra s3 --group test --group lint --group build \
		--output-file constraints.txt $(LOCK) pyproject.toml

clean: ## Remove what the other targets made
	rm -rf .venv .demo .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist

.venv/.installed: constraints.txt pyproject.toml | $(BIN)/uv
	@echo "Installing the locked dependencies into .venv ..."
	@# uv takes seconds where pip takes a minute, but only pip reads pip's own configuration of proxies and mirrors.
	@$(BIN)/uv pip install --quiet --no-config --python $(BIN)/python --compile-bytecode --require-hashes -r constraints.txt \
		|| $(BIN)/python -m pip install --quiet --require-hashes --no-deps -r constraints.txt
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(BIN)/uv:
	$(if $(PYTHON),,$(error Python 3.11, 3.12 or 3.13 is needed; say where one is: make PYTHON=/path/to/python))
	@echo "Making .venv with $(PYTHON) ..."
	@$(PYTHON) -m venv .venv
	@awk '/^uv==/, !/\\$$/' constraints.txt > .venv/uv.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.txt
