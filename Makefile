# `make demo`, `make test` and `make bench` need Python 3.11 or newer, make, and a package registry; they set up the rest.
PYTHON ?= python3
# `make test TORCH=2.9.0` tests with that torch and the torchvision that belongs to it, in an environment of its own:
# PYTHON=python3.13 with that interpreter, EXTRAS=test without any optional library.
EXTRAS ?= all,test
ifdef TORCH
VENV := .venv-$(notdir $(PYTHON))-torch-$(TORCH)-$(EXTRAS)
PACKAGES := '.[$(EXTRAS)]' torch==$(TORCH)
UNPINNED := ^torch
else
VENV := .venv
PACKAGES := '.[dev,docs]'
UNPINNED := ^\#
endif
BIN := $(VENV)/bin
INSTALL = grep -v '$(UNPINNED)' constraints.txt >$(VENV)/constraints.txt && $(BIN)/pip install --quiet \
	--disable-pip-version-check --constraint $(VENV)/constraints.txt --editable
# What is measured in full, and what would take long in full; without a download.
BENCHMARKS := data selection skeletonization slim_latency start stream training_step
SHORTENED := memory sweeps time_split whole_run

.PHONY: demo test test-extended bench docs tour lint clean
.DELETE_ON_ERROR:

$(VENV)/created:
	$(PYTHON) -m venv $(VENV)
	touch $@

# The package and a sample of MNIST. torch is most of it, and on Linux brings the libraries of CUDA along.
$(VENV)/demo: pyproject.toml constraints.txt $(VENV)/created
	@echo "installing softprune, torch and onnxruntime into $(VENV): 6 GB, some minutes the first time"
	$(INSTALL) '.[sample]'
	touch $@

$(VENV)/installed: pyproject.toml constraints.txt $(VENV)/created
	@echo "installing what tests and documentation need into $(VENV): 7 GB, some minutes the first time"
	$(INSTALL) $(PACKAGES)
	touch $@

demo: $(VENV)/demo
	$(BIN)/compress demo --out runs/demo --force

test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist worksteal

# The tests that would make `make test` longer than four minutes.
test-extended: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --dist worksteal -m extended

# With COMPRESS_DATA=DIR the digits are MNIST's, from there. Afterwards, `git diff docs` shows what has changed.
bench: $(VENV)/installed
	set -e; for name in $(BENCHMARKS); do echo "# $$name"; $(BIN)/python benchmarks/$$name.py; done
	set -e; for name in $(SHORTENED); do echo "# $$name, shortened"; \
		$(BIN)/python benchmarks/$$name.py --quick --json runs/bench/$$name.json; done
	$(BIN)/python benchmarks/tables.py

# The documentation as a site, in site/: open site/index.html, no server and no network needed.
docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# What README and docs tell a reader to do, done in a fresh environment; some minutes.
tour:
	docs/tour.sh

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv .venv-* build dist *.egg-info runs site
