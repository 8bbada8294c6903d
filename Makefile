# Everything here sets itself up: python3 and make are all a machine needs. `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
# Two at a time: most tests wait for processes of their own. By files, so that what a module makes is made once.
TEST_WORKERS ?= 2
# schemathesis gives every operation the same test id, and of equal ids only one would run in such a process.
TEST_ALONE := tests/embedded_server/test_openapi.py
ONE_PROCESS = $(TEST_ENV) $(BIN)/python -m pytest $(TEST_ALONE)
PROCESSES = $(TEST_ENV) $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --ignore=$(TEST_ALONE)
# For each target of make fuzz.
FUZZ_SECONDS ?= 60
# A worker that spins while it waits takes the cores from its neighbours; offscreen needs no display.
TEST_ENV := QT_QPA_PLATFORM=offscreen OMP_WAIT_POLICY=PASSIVE

.DEFAULT_GOAL := help
.PHONY: help run setup setup-test lint types contracts test test-all test-gpu fuzz screenshots translations bench bench-gpu lock audit sbom

help: ## list the targets
	@sed -n 's/^\([a-z][a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done

run: ## set up, then open the window on a sample model (no display: serve it and print the URL)
	@$(PYTHON) packaging/setup_env.py run

setup: ## install what running needs
	@$(PYTHON) packaging/setup_env.py app

setup-test: ## install what testing needs
	@$(PYTHON) packaging/setup_env.py test

lint: setup-test ## style: ruff check and ruff format
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --check .

types: setup-test ## mypy, strict
	$(BIN)/mypy

contracts: setup-test ## who may import whom: import-linter
	$(BIN)/lint-imports

test: lint types contracts ## set up, then lint, types, contracts and all tests but the slow ones
	$(PROCESSES) -m "not slow"
	$(ONE_PROCESS) -m "not slow"

test-all: lint types contracts ## the same with every test, however long it takes
	$(PROCESSES)
	$(ONE_PROCESS)

test-gpu: ## tests on this machine's GPU, with PYTHON's own PyTorch (no Qt, no TensorFlow needed)
	$(PYTHON) -m pytest -c tests/gpu/pytest.ini tests/gpu

# Where atheris cannot be installed its tests are skipped, and say so.
fuzz: setup-test ## every fuzzer for FUZZ_SECONDS (60), and 40,000 files changed at random: about half an hour
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-input --require-hashes --only-binary :all: --requirement locks/fuzz.txt
	DESKSIDE_FUZZ=40000 FUZZ_SECONDS=$(FUZZ_SECONDS) $(TEST_ENV) $(BIN)/python -m pytest -m slow tests/fuzz

screenshots: setup-test ## render the window into docs/screenshots, its other sizes and languages into .screenshots
	$(TEST_ENV) $(BIN)/python packaging/screenshots.py --looks

translations: setup-test ## collect the window's sentences and compile its catalogs (gui/resources/languages)
	$(BIN)/python packaging/translations.py

# ONLY=s,m takes some parts, REPORT=1 composes the report of those that were taken: see benchmarks/compare.py.
bench: setup-test ## measure beside other servers, 40 minutes, into docs/performance.md (QUICK=1: some; FULL=1: all of it)
	$(TEST_ENV) $(BIN)/python -m benchmarks.compare
ifdef FULL
	$(TEST_ENV) $(BIN)/python -m benchmarks.responsiveness
	$(TEST_ENV) $(BIN)/python -m benchmarks.front_door
endif

bench-gpu: ## how near this machine's GPU is brought to what it can do (with PYTHON's own PyTorch, as test-gpu)
	$(PYTHON) -m benchmarks.gpu

lock: setup-test ## rewrite the lock files (locks/) after a change of pyproject.toml (UPGRADE=1: with newer versions)
	$(BIN)/python packaging/lock.py $(if $(UPGRADE),--upgrade)

audit: setup-test ## ask PyPI's advisories about every locked package; fails too where they cannot be asked
	$(BIN)/python packaging/audit.py

sbom: setup-test ## write the list of what is inside (CycloneDX) into build/deskside.cdx.json
	$(BIN)/python packaging/sbom.py
