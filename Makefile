PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PREPARED = @test -d $(VENV) || $(PYTHON) -m venv $(VENV); \
	echo 'Installing into $(VENV): a few minutes; with the CUDA build of PyTorch 6 GB.'

.PHONY: setup run test check docs lint bench faults clean

setup: $(VENV)/.installed  ## the environment in .venv, with featcx and what it needs

run: setup  ## set up everything and analyse the default target
	$(BIN)/featcx run mnist

test: lint  ## set up everything, lint, check types, run every test
	$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder

check: test

bench: $(VENV)/.installed-bench  ## side-by-side timings, appended to docs/results/benchmarks.md; wants a quiet machine
	$(BIN)/python -m benchmarks

docs: $(VENV)/.installed-test  ## the manual, in build/site
	$(BIN)/mkdocs build

faults: $(VENV)/.installed-test  ## 300 faults in real runs and what came of each; wants a C compiler and a quiet machine
	$(BIN)/python -m tests.faults --count 300 --results faults.jsonl

lint: $(VENV)/.installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

$(VENV)/.installed: pyproject.toml
	$(PREPARED)
	$(BIN)/pip install -q -e .
	touch $@

$(VENV)/.installed-test: pyproject.toml
	$(PREPARED)
	$(BIN)/pip install -q -e '.[test]'
	touch $(VENV)/.installed $@

$(VENV)/.installed-bench: pyproject.toml
	$(PREPARED)
	$(BIN)/pip install -q -e '.[bench]'
	touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
