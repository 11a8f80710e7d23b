# Needs Python 3.11 to 3.13 and make; everything else goes into $(VENV). Start with: make quickstart

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= requirements/constraints.txt
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

bin := $(VENV)/bin
pip := $(bin)/python -m pip install --quiet --disable-pip-version-check --constraint $(CONSTRAINTS)
requirements := setup.cfg pyproject.toml $(CONSTRAINTS)

.PHONY: quickstart install test test-thorough test-oldest test-all lint format check wheel clean
.DELETE_ON_ERROR:

quickstart: $(VENV)/.installed  ## Installs the library and trains, evaluates and exports a small encoder.
	$(bin)/python examples/quickstart.py

install: $(VENV)/.installed

test: $(VENV)/.installed-test  ## What every change must pass: CPU, no downloads.
	$(bin)/python -m pytest -n 2 -q

test-thorough: $(VENV)/.installed-test  ## What `test` leaves out and the pipeline runs too.
	$(bin)/python -m pytest -n 2 -q -m "thorough and not slow"

test-oldest:  ## The same with the oldest TensorFlow and Keras that setup.cfg allows; needs Python 3.11.
	$(MAKE) test VENV=$(VENV)-oldest CONSTRAINTS=requirements/oldest.txt

test-all: $(VENV)/.installed-test  ## The slow tests too.
	$(bin)/python -m pytest -n 2 -q -m "not download"

lint: $(VENV)/.installed-test
	$(bin)/ruff check .
	$(bin)/ruff format --check .

format: $(VENV)/.installed-test
	$(bin)/ruff format .
	$(bin)/ruff check --fix .

check: lint test test-thorough  ## Exactly what the pipeline runs.

wheel: $(VENV)/.installed-test
	rm -rf build  # what is left of an earlier build would be packed too
	$(bin)/python -m build --wheel --no-isolation

clean:
	rm -rf $(VENV) build dist *.egg-info

# The stamps make a second call start at once; a change of the requirements installs again.
$(VENV)/.installed: $(requirements)
	@command -v $(PYTHON) > /dev/null || { \
	  echo "keras_ssl needs Python 3.11, 3.12 or 3.13, and there is no '$(PYTHON)' here. Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	  echo "keras_ssl needs Python 3.11, 3.12 or 3.13. Received: $$($(PYTHON) --version 2>&1). Name another one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2> /dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments. On Debian or Ubuntu: sudo apt install python3-venv"; exit 1; }
	@test -x $(bin)/pip || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing TensorFlow, Keras and keras_ssl into $(VENV). It is done once and takes some minutes."
	$(pip) setuptools
	$(pip) --no-build-isolation --editable .
	@touch $@

# PyTorch is what converted weights are compared with. Its CPU build is a tenth of what PyPI has for Linux; where
# its index cannot be reached, the next line takes what pip finds.
$(VENV)/.installed-test: $(VENV)/.installed
	@$(pip) --retries 1 --timeout 10 --index-url $(TORCH_INDEX) torch 2> /dev/null || true
	$(pip) --no-build-isolation --editable '.[test]'
	@touch $@
