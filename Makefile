# make demo: install and run the main job on embedded data.   make test: install and run every check.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The data folder: LOCAPPROX_DATA if set, a shared copy beside the repository if there is one, else a download.
ifneq ($(wildcard ../shared/data),)
export LOCAPPROX_DATA ?= $(abspath ../shared/data)
endif
export MPLBACKEND ?= Agg
INPUTS := setup.cfg pyproject.toml constraints.txt

.PHONY: demo test paper paper-images theory bench lint clean
.DELETE_ON_ERROR:

demo: $(VENV)/.experiments
	$(BIN)/python -m experiments.demo

test: $(VENV)/.dev lint
	$(BIN)/python -m pytest -n auto

paper: $(VENV)/.experiments
	$(BIN)/python -m experiments.paper

paper-images: $(VENV)/.experiments
	$(BIN)/python -m experiments.paper_images

theory: $(VENV)/.experiments
	$(BIN)/python -m theory_checks

bench: $(VENV)/.dev
	$(BIN)/python -m experiments.bench

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/basedpyright

clean:
	rm -rf $(VENV) results

$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is missing: install it, or say PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed, $(PYTHON) is older: say PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "Python's venv module is missing: install it (Debian: apt install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.experiments: $(VENV)/bin/python $(INPUTS)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[experiments]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python $(INPUTS)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@
