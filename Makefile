# Every target installs what it needs into .venv first.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: install demo lint test test-real test-cluster proof bench zoo clean

install: .venv/.installed

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: install  ## prepare, train, evaluate and predict on synthetic data; writes demo/report.html
	$(BIN)/landscale demo --out demo

lint: install  ## style, spelling, types, and the direction of the imports
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/mypy --follow-imports=silent benchmarks/*.py examples/*.py
	$(BIN)/lint-imports

test: lint  ## the tests that need neither published data nor long; three processes, as many tests wait for others
	$(BIN)/pytest -m "not slow and not real_data" -n 3 --dist worksteal

test-real: install  ## the tests on published data sets: LANDSCALE_REAL_DATA=FOLDER make test-real
	@test -n "$$LANDSCALE_REAL_DATA" || { echo "make test-real: LANDSCALE_REAL_DATA is not set; set it to a folder of published data sets (see CONTRIBUTING.md)" >&2; exit 2; }
	@test -d "$$LANDSCALE_REAL_DATA" || { echo "make test-real: LANDSCALE_REAL_DATA: $$LANDSCALE_REAL_DATA is not a folder" >&2; exit 2; }
	$(BIN)/pytest -m real_data -rs tests/real_data

proof: install  ## the slow tests (80 kills of prepare, 20 of train, 2,000 damaged inputs of each format), the fuzz suite, then mutation testing
	$(BIN)/pytest -m "slow and not real_data" --hypothesis-profile=proof
	$(BIN)/python tests/proof/fuzz
	$(BIN)/python tests/proof/mutation.py

test-cluster: install  ## training by torchrun, SLURM and Open MPI, which it installs (Debian, as root)
	@command -v sbatch munged mpirun > /dev/null || (apt-get update -qq && apt-get install -y -qq slurm-wlm munge openmpi-bin)
	$(BIN)/pytest -m cluster

bench: install  ## benchmarks of reading, preparation and training
	$(BIN)/python benchmarks/store_reads.py
	$(BIN)/python benchmarks/lmdb_reads.py
	$(BIN)/python benchmarks/prepare.py
	$(BIN)/python benchmarks/archive.py
	$(BIN)/python benchmarks/tiles.py
	$(BIN)/python benchmarks/training_loop.py
	$(BIN)/python benchmarks/two_ranks.py

zoo: install  ## measures the networks for at most 25 minutes and writes docs/zoo.md; run it again to resume, and on quiet cores
	$(BIN)/landscale benchmark zoo --device cpu --max-time 25m --out benchmarks/results/zoo.json
	$(BIN)/landscale benchmark zoo --out benchmarks/results/zoo.json --learning benchmarks/results/learning.json --markdown docs/zoo.md

clean:
	rm -rf .venv demo build dist
