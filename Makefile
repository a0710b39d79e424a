# Everything a fresh machine needs is Python 3.11 or newer, pip and make.
PYTHON ?= python3
BIN := .venv/bin
# Which build of PyTorch to install: cpu needs a tenth of the space; also cu126 and so on. Empty: PyPI's build.
TORCH ?=
INDEX := $(if $(TORCH),--extra-index-url https://download.pytorch.org/whl/$(TORCH))

.PHONY: help demo demo-quick test quick science check bench docs clean

help:
	@echo "make demo        install, then run the full pipeline on a generated data set (a quarter of an hour)"
	@echo "make demo-quick  the same in about a minute, which is too short to learn"
	@echo "make test        install, check and run all tests"
	@echo "make quick       the tests that take less than a minute together"
	@echo "make science     does it learn? toy ablations with three seeds (two hours, resumes), and claims about the data"
	@echo "make check       lint, format and types"
	@echo "make bench       measure reading and training beside the peers that are installed"
	@echo "make docs        bring the generated parts of docs/ up to date"
	@echo "With TORCH=cpu the first installation takes PyTorch without CUDA: a tenth of the space."

demo: .venv/installed
	$(BIN)/tubelet demo

demo-quick: .venv/installed
	$(BIN)/tubelet demo --quick

test: check
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not science"

quick: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not science"

science: .venv/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m science
	$(BIN)/tubelet prepare synthetic runs/science/data
	$(BIN)/tubelet sweep science data.root=runs/science/data pretrain.data.root=runs/science/data --out runs/science
	$(BIN)/python benchmarks/science.py runs/science

check: .venv/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/installed-dev
	$(BIN)/python benchmarks/reading.py
	$(BIN)/python benchmarks/step.py

docs: .venv/installed-dev
	$(BIN)/python docs/generate.py

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache

# The tested versions; torch and torchvision must match, so they come in one step.
.venv/installed: pyproject.toml constraints.txt | .venv
	@echo "Installing Tubelet and PyTorch into .venv (a few minutes, once) ..."
	$(BIN)/python -m pip install --disable-pip-version-check $(INDEX) -c constraints.txt -e .
	@touch $@

.venv/installed-dev: pyproject.toml constraints.txt | .venv
	@echo "Installing Tubelet, PyTorch and the tools to test it into .venv (a few minutes, once) ..."
	$(BIN)/python -m pip install --disable-pip-version-check $(INDEX) -c constraints.txt -e '.[dev]'
	@touch $@ .venv/installed

.venv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Tubelet needs Python 3.11 or newer; found $$($(PYTHON) --version). Try: make PYTHON=python3.12 ..."; exit 2; }
	$(PYTHON) -m venv .venv || { rm -rf .venv; echo "On Debian and Ubuntu: apt install python3-venv"; exit 2; }
