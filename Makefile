PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
OLDEST ?= .venv-oldest
CORE = tests/core/store tests/core/data tests/core/nets tests/core/game tests/core/studies tests/flows/cli/test_terminal.py \
	tests/core/analysis/test_significance.py tests/flows/running/test_embedded.py \
	tests/e2e/test_stopping.py
PREPARED = @test -d $(VENV) || $(PYTHON) -m venv $(VENV); \
	echo 'Installing into $(VENV): a few minutes; with the CUDA build of PyTorch 6 GB.'

.PHONY: setup run test check docs lint bench faults together fuzz oldest clean

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

together: $(VENV)/.installed-test  ## eight processes on one store that is pruned and verified meanwhile
	$(BIN)/python -m tests.faults.together

fuzz: $(VENV)/.installed-test  ## hostile input at every entry point for half an hour
	$(BIN)/python -m tests.faults.fuzz --minutes 30

oldest: $(OLDEST)/.installed  ## tests of the core with the lowest versions that pyproject.toml declares, PyTorch apart
	PYTHONPATH=$(CURDIR) $(OLDEST)/bin/python -m pytest $(CORE)

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

$(OLDEST)/.installed: pyproject.toml tests/oldest.py
	test -d $(OLDEST) || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/pip install -q torch torchvision uv
	$(OLDEST)/bin/python -m tests.oldest > $(OLDEST)/declared.txt
	$(OLDEST)/bin/pip freeze | grep -i '^torch' > $(OLDEST)/kept.txt
	VIRTUAL_ENV=$(OLDEST) $(OLDEST)/bin/uv pip install -q --upgrade --resolution lowest-direct \
		-c $(OLDEST)/kept.txt -r $(OLDEST)/declared.txt
	touch $@

clean:
	rm -rf $(VENV) $(OLDEST) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
