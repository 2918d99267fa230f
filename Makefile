# Two commands do everything on a fresh machine:
#   make demo   create the environment and run the main job (report in demo/report.html)
#   make test   create the environment and run every check
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v $$p; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt
JOBS ?= 2

.PHONY: full demo test check suite fuzz docs dist clean python-version

demo: $(VENV)/.demo
	$(BIN)/python examples/demo.py --out demo

# every check: the linter, layers and types, then the tests
test: check suite

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python

suite: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist worksteal

# the long form of tests/fuzz: about half an hour on two cores
fuzz: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python tests/fuzz/harness.py --inputs 1000 --kills 20 --out benchmarks/results/files.json

# everything in its long form
full: export RAGSCALE_FULL := 1
full: test docs fuzz

docs: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

# the wheel and the source archive in dist/, tried in fresh environments of every Python 3.11 to 3.13 that is there
dist: $(VENV)/.dev
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python tests/dist/try_dist.py dist

python-version:
	@test -n "$(PYTHON)" || { echo "ragscale needs Python 3.11 or newer; the newest on the PATH is $$(python3 --version 2>&1 || echo none): install one, or run make PYTHON=/path/to/python3.11"; exit 1; }
	@command -v $(PYTHON) >/dev/null || { echo "PYTHON=$(PYTHON) is not there"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "ragscale needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1): install a newer one, or run make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) cannot create virtual environments: install its venv package (Debian: apt-get install python3-venv)"; exit 1; }

$(BIN)/python: | python-version
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"

$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) torch -e ".[study]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) torch -e ".[all]" --group dev
	@touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) demo docs/_build docs/gallery docs/notebooks docs/reference/generated
