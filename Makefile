# `make demo` and `make test` set up what they need; everything lives in .venv.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo test test-cluster lint proof bench clean

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: install  ## the whole road on a synthetic landscape, ends with demo/report.html
	$(BIN)/landscale demo --out demo

lint: install  ## style, types, and the direction of the imports
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint  ## one thread a process: two that share the cores would wait for each other
	$(BIN)/pytest -m "not slow" -n 2 --dist worksteal

proof: install  ## the long forms: some 80 kills of prepare, 20 of train, 2,000 damaged inputs of each kind
	$(BIN)/pytest -m slow

test-cluster: install  ## ranks of torchrun, of a real SLURM and of Open MPI, which it installs (Debian, as root)
	@command -v sbatch munged mpirun > /dev/null || (apt-get update -qq && apt-get install -y -qq slurm-wlm munge openmpi-bin)
	$(BIN)/pytest -m cluster

bench: install  ## reads, preparation and the training loop against their floors
	$(BIN)/python benchmarks/store_reads.py
	$(BIN)/python benchmarks/lmdb_reads.py
	$(BIN)/python benchmarks/prepare.py
	$(BIN)/python benchmarks/archive.py
	$(BIN)/python benchmarks/tiles.py
	$(BIN)/python benchmarks/training_loop.py
	$(BIN)/python benchmarks/two_ranks.py

clean:
	rm -rf .venv demo build dist
