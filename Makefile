# make demo | test | lint | clean: each fills .venv first when it is missing or out of date.
#
# Needs Debian or alike with python3.11 (and python3.11-venv), gcc, make.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# torch and its torchvision are named together and first: an unpinned torchvision would bring another torch.
PAIR := torch==2.13.0 torchvision==0.28.0

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint format clean

help:
	@echo "make demo   train, evaluate and search a tiny model from nothing (writes demo/)"
	@echo "make test   all tests"
	@echo "make lint   ruff and mypy"
	@echo "make format let ruff rewrite the files"
	@echo "make clean  remove .venv, caches and demo/"

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "umr needs Python 3.11 or newer on the path, or PYTHON=/path/to/python"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "umr needs Python 3.11 or newer; $(PYTHON) is older"; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV) || { echo "no venv: apt-get install python3.11-venv"; exit 1; }
	$(BIN)/pip install --quiet --constraint constraints.txt $(PAIR)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(READY)
	HF_HUB_OFFLINE=1 $(BIN)/umr demo --out demo

# Two workers with one thread each: more threads than cores make torch several times slower. A worker that is done takes from the other:
# the long tests are neighbours, and would all go to one.
test: $(READY)
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -q

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
