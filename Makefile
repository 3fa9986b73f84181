# One entry for each job; every target sets up what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: run install test slow-test validate check dist ngspice compiler bench gpu-test stand-in-test gpu-bench gpu-table1 fuzz nonideal report clean
.PHONY: docs browser-test

run: $(STAMP)  ## solve the first example
	$(BIN)/circuitsim solve netlists/drn_1h.cir

install: $(STAMP)  ## virtual environment with the package and its development tools

$(STAMP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev,bench,plot,dataframe,spice,fuzz,parallel,parquet,docs]"
	touch $@

# Three processes on two cores: some tests wait, for compilers and other programs.
NEEDS := CIRCUITSIM_NEEDS_NGSPICE=1 CIRCUITSIM_NEEDS_COMPILERS=1
test: $(STAMP) ngspice compiler check  ## style, types and tests; under ten minutes on two cores
	$(NEEDS) $(BIN)/python -m pytest -n 3 --dist loadfile -m "not slow"

slow-test: $(STAMP) ngspice compiler  ## the tests that take longer
	$(NEEDS) $(BIN)/python -m pytest -n 2 --dist loadfile -m slow

validate: $(STAMP) ngspice  ## the suites against ngspice and other references; their results go to build/validation
	CIRCUITSIM_NEEDS_NGSPICE=1 $(BIN)/python -m pytest validation/ -n 2

browser-test: $(STAMP)  ## the live page in Chromium, from Debian's packages; pictures of it go to build/browser
	command -v chromium >/dev/null || { \
	  SUDO=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$SUDO apt-get update -qq && $$SUDO apt-get install -y -qq chromium; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[browser]"
	CIRCUITSIM_NEEDS_BROWSER=1 $(BIN)/python -m pytest tests/test_view_browser.py

check: $(STAMP)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(STAMP) ngspice  ## build/docs: the documentation, its notebooks run; a warning is an error
	$(BIN)/mkdocs build --strict

dist: $(STAMP)  ## dist/: wheel and source distribution
	$(BIN)/python -m build --no-isolation

ngspice:  ## the peer that some tests compare with
	{ command -v ngspice && /sbin/ldconfig -p | grep libngspice; } >/dev/null || { \
	  SUDO=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$SUDO apt-get update -qq && $$SUDO apt-get install -y -qq ngspice libngspice0 libngspice0-dev; }

compiler:  ## compiles the GPU's kernels for the host in the tests
	command -v g++ >/dev/null || { \
	  SUDO=$$([ "$$(id -u)" = 0 ] || echo sudo); \
	  $$SUDO apt-get update -qq && $$SUDO apt-get install -y -qq g++; }

bench: $(STAMP) ngspice  ## the tables of docs/performance.md
	mkdir -p build
	$(BIN)/python -m validation.benchmarks --json build/bench.json

SOLVING := gpu gpu_newton gpu_mesh gpu_steps backends laws hard residual held gallery uniqueness feasibility problem
gpu-test:  ## where there is a GPU, CuPy and pytest: the solver's and the training steps' tests on it, from the source tree
	CIRCUITSIM_NEEDS_GPU=1 $(PYTHON) -W default -m pytest -p no:cacheprovider -W default \
	  --continue-on-collection-errors -k "not nvrtc and not nvcc" $(SOLVING:%=tests/test_%.py)

stand-in-test: $(STAMP) compiler  ## most of these tests where there is no GPU, on a stand-in for CuPy
	CIRCUITSIM_NEEDS_GPU=stand-in $(NEEDS) $(BIN)/python -m pytest -n 2 --dist loadfile \
	  -m "not slow" -k "not nvrtc and not nvcc" $(SOLVING:%=tests/test_%.py)

OUT ?= build
gpu-bench:  ## where there is a GPU, too: the tables of docs/gpu.md; OUT=build: where the figures go
	mkdir -p $(OUT)
	$(PYTHON) -m validation.gpu --json $(OUT)/gpu.json
	$(PYTHON) -m validation.gpu_training --json $(OUT)/gpu-training.json

gpu-table1:  ## there too: trains the paper's five networks, by EP and by BP; goes on where it was interrupted
	mkdir -p $(OUT)
	$(PYTHON) -m validation.gpu_training --table1 --json $(OUT)/table1.json

MINUTES ?= 10
fuzz: $(STAMP)  ## odd netlists for MINUTES=10: whatever goes wrong is kept in build/fuzz
	$(BIN)/python -m validation.fuzz --minutes $(MINUTES)

nonideal: $(STAMP)  ## a trained network with perfect and with real diodes
	mkdir -p build
	$(BIN)/python -m validation.nonideal --json build/nonideal.json

report: $(STAMP)  ## build/report.html: agreement, diodes, speed, training
	$(BIN)/python -m validation.report

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
