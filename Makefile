# `make demo` and `make test` work from a bare Python 3.11+ on a fresh clone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test check examples clean

demo: $(VENV)/installed-demo
	$(BIN)/python examples/digits_mlp.py
	$(BIN)/python examples/rnn_dropout.py

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n auto

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

examples: $(VENV)/installed-demo
	for script in examples/*.py; do $(BIN)/python $$script --quick || exit 1; done

$(VENV)/installed-%: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) out build dist
