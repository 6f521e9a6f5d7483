# make quickstart   install into .venv and train the first ensemble
# make test         all tests but the longer ones; make test-gpu: those on pretended GPUs, all of them
# make test-fast    without Ray, launchers, browsers, whole commands and what takes seconds
# make test-all     those too that try every call to a disk in turn, where make test takes a sample
# make check        lint, types, layers
# make docs         the documentation as a site, build/docs/index.html; a warning is an error
# make coverage     which lines the quick tests reach, as a table
# make benchmark    our speed beside torch-uncertainty, Ensemble-PyTorch, torch.func and a loop by hand (build/peers, installed on demand)
# make benchmarks   that and every other claim of speed; refreshes docs/results/speed.md, roofline.md, alone.md

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# One thread per process: several processes share the cores better than several threads share a process.
export OMP_NUM_THREADS ?= 1
# Compiled once and kept: without its caches every process compiles torch and Ray anew, for seconds (docs/log.md).
unexport PYTHONDONTWRITEBYTECODE

.PHONY: quickstart install test test-fast test-all test-gpu check docs coverage format benchmark benchmarks requirements clean

quickstart: install
	$(BIN)/ensemble train configs/quickstart.yaml

install: $(STAMP)

$(STAMP): requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python >= 3.11 is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	touch $(STAMP)

# As many at a time as there are cores (tests/conftest.py); those with a limit in seconds run alone.
SIDE_BY_SIDE := -n auto --dist worksteal
# The files that hold the latter: collecting all others takes longer than these tests.
TIMED_FILES = $(shell grep -rl --include='*.py' 'mark\.timed' tests)

test: install
	$(BIN)/python -m pytest -q -m "timed and not gpu_full and not long" $(TIMED_FILES)
	$(BIN)/python -m pytest -q $(SIDE_BY_SIDE) -m "not timed and not gpu_full and not long"

test-fast: install
	$(BIN)/python -m pytest -q $(SIDE_BY_SIDE) -m "not timed and not gpu_full and not long and not slow"

test-all: install
	$(BIN)/python -m pytest -q -m "timed and not gpu_full" $(TIMED_FILES)
	$(BIN)/python -m pytest -q $(SIDE_BY_SIDE) -m "not timed and not gpu_full"

test-gpu: install
	$(BIN)/python -m pytest -q -m "" tests/gpu

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: install
	$(BIN)/python -m sphinx -E -W --keep-going -q docs build/docs

coverage: install
	mkdir -p build/coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q $(SIDE_BY_SIDE) -m "not timed and not gpu_full and not long and not slow"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: install
	$(BIN)/python -m benchmarks.peers

benchmarks: benchmark
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps torchensemble==0.2.0
	$(BIN)/python -m benchmarks.against_ensemble_pytorch
	$(BIN)/python -m benchmarks.speed
	$(BIN)/python -m benchmarks.roofline --out docs/results/roofline.md
	$(BIN)/python -m benchmarks.alone --out docs/results/alone.md

requirements: install
	$(BIN)/uv pip compile --quiet --universal --no-header --no-annotate --no-emit-index-url --python-version 3.11 --extra dev pyproject.toml -o requirements.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
