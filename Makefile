# Targets for people; `make` alone lists them. Everything runs in .venv, made once.
PYTHON ?= python3
JOBS ?= 2
EXTRAS ?= notebooks,test,photographs
BIN := .venv/bin
export OMP_NUM_THREADS ?= 1
# Containers often set it; then every kernel and test worker compiles PyTorch anew, seconds each time.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help reports test results notebooks student instructor lab clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## (.*)/  make \1|\2/' | column -t -s '|' 2>/dev/null \
	  || grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST)

# uv installs several times faster; without it (or when it fails) pip does the same.
.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Name another one: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@{ $(BIN)/python -m pip install -q uv \
	   && $(BIN)/uv pip install -q --python $(BIN)/python -e ".[$(EXTRAS)]"; } \
	  || $(BIN)/python -m pip install -q -e ".[$(EXTRAS)]"
	@touch $@

reports: .venv/.installed ## run the notebooks, train SD-AANet beside PANet, write runs/index.html
	@$(BIN)/python -m fsslib.experiments reports

test: .venv/.installed ## style, unit tests, and the notebooks' stored outputs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -q -n $(JOBS)

results: .venv/.installed ## recompute data/results with the shipped weights
	@$(BIN)/python tools/results.py

notebooks: .venv/.installed ## rebuild the notebooks that are out of date
	@$(BIN)/python tools/build.py

student: .venv/.installed ## the edition for students: editions/student.zip
	@$(BIN)/python tools/editions.py student

instructor: .venv/.installed ## the edition for instructors: solutions, times, marking notes
	@$(BIN)/python tools/editions.py instructor

lab: .venv/.installed ## open JupyterLab at the first notebook
	$(BIN)/jupyter lab notebooks/00_start_here.ipynb

clean: ## remove caches and unfinished runs; finished runs and .venv stay
	@rm -rf .pytest_cache .ruff_cache .hypothesis runs/*.part runs/.*.lock notebooks/*.part editions/*.part
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
