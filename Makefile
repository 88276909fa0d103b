# make demo: the main job, on a fresh machine with Python and make only.
# make test: all checks and tests. make torture: the long forms of the tests, with a summary. make bench: the figures.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
PEERS := .venv/.peers
BENCH_OUT ?= build/bench
BASELINE ?=

.PHONY: demo test check unit torture bench bench-full bench-functions clean

demo: $(READY)
	$(BIN)/shardlog demo

test: check unit

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

unit: $(READY)
	$(BIN)/pytest -q

# Fails on any loss, on a control that finds nothing, and where too little was tried (tests/support/tally.py).
torture: $(READY)
	$(BIN)/pytest -q --torture

# Ten minutes at most; results and pictures go to $(BENCH_OUT). What cannot be installed is skipped and named.
bench: $(PEERS)
	$(BIN)/python -m bench --out $(BENCH_OUT)

# What takes longer: growth up to 50 million records (10 GB of disk), leases, and what waiting costs.
bench-full: $(PEERS)
	$(BIN)/python -m bench --long --out $(BENCH_OUT)/full

# Single functions against the stored baseline; BASELINE=write stores a new one.
bench-functions: $(READY)
	BENCH_BASELINE=$(BASELINE) $(BIN)/pytest -q bench/test_hot_functions.py --benchmark-disable-gc --benchmark-columns=min,median,rounds

$(PEERS): $(READY)
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --group peers
	touch $(PEERS)

# pip older than 25.1 does not know dependency groups, so the group is installed by a pip that does.
$(READY): pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	touch $(READY)

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .benchmarks .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
