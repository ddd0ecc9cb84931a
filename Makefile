PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: run test check lint clean

run: $(VENV)/.installed  ## set up everything and analyse the default target
	$(BIN)/featcx run mnist

test: lint  ## set up everything, lint, check types, run every test
	$(BIN)/python -m pytest

check: test

lint: $(VENV)/.installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy



$(VENV)/.installed: pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -e .
	touch $@

$(VENV)/.installed-test: pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -e '.[test]'
	touch $(VENV)/.installed $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
