# `make demo` and `make test` work from a bare Python 3.11+ on a fresh clone.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# what is tested on the oracle first, and then on the backend that users get by default
ON_LLVM := $(patsubst %,tests/test_%.py,autodiff checkpoint cond dropout function index mc_dropout memory nn optim \
  promises published_failures random recurrent scan scan_rewrites scan_unrolled sparse sparse_scan train)

# and then as CUDA kernels that run on the CPU
ON_CUDA := $(patsubst %,tests/test_%.py,dropout random scan checkpoint)

.PHONY: demo test check examples cuda bench bench-gpu clean

demo: $(VENV)/installed-demo
	$(BIN)/python examples/digits_mlp.py
	$(BIN)/python examples/rnn_dropout.py

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n auto
	$(BIN)/python -m pytest -n auto --backend llvm $(ON_LLVM)
	$(BIN)/python -m pytest -n auto --backend shim $(ON_CUDA)

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# every example, two at a time, each with its output whole; `make example-blobs` is one of them
EXAMPLES := $(patsubst examples/%.py,%,$(wildcard examples/*.py))
examples: $(VENV)/installed-demo
	$(MAKE) --jobs 2 --output-sync $(addprefix example-,$(EXAMPLES))

example-%: $(VENV)/installed-demo
	$(BIN)/python examples/$*.py --quick

# every example as CUDA kernels on the CPU; then all kernels that ran so, compiled for GPUs
cuda: $(VENV)/installed-dev $(VENV)/installed-nvrtc
	$(MAKE) --jobs 2 --output-sync $(addprefix cuda-example-,$(EXAMPLES))
	$(BIN)/python -m tests.nvrtc

cuda-example-%: $(VENV)/installed-dev
	CUDASHIM_FLAGS=-O2 $(BIN)/python -m tests.cudashim examples/$*.py --quick

# peers are measured where they are installed: .venv/bin/pip install torch jax
bench: $(VENV)/installed-demo
	$(BIN)/python benchmarks/bench.py

bench-gpu: $(VENV)/installed-demo
	$(BIN)/python benchmarks/bench.py --device gpu

$(VENV)/installed-%: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) out build dist
