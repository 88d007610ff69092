# Targets for people; `make` alone lists them. Everything runs in .venv, made once.
PYTHON ?= python3
JOBS ?= 2
TORCH ?= auto
BIN := .venv/bin
INSTALL = $(BIN)/uv pip install -q --python $(BIN)/python
export OMP_NUM_THREADS ?= 1
# Containers often set it; then every kernel and test worker compiles PyTorch anew, seconds each time.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help reports test results notebooks student instructor nbgrader otter site lab clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## (.*)/  make \1|\2/' | column -t -s '|' 2>/dev/null \
	  || grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST)

# uv installs several times faster, and finds the PyTorch that fits the machine (TORCH=auto, cpu, cu130, ...). Where
# PyTorch's own index cannot be reached, or without uv, it comes from the usual one. A torch that is there stays.
EXTRAS := notebooks,test,photographs
.venv/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Name another one: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@{ $(BIN)/python -m pip install -q uv \
	   && { UV_HTTP_RETRIES=0 $(INSTALL) --torch-backend=$(TORCH) -e ".[$(EXTRAS)]" 2>/dev/null || $(INSTALL) -e ".[$(EXTRAS)]"; }; } \
	  || $(BIN)/python -m pip install -q -e ".[$(EXTRAS)]"
	@touch $@

# Extras that only some need: make .venv/.with-site
.venv/.with-%: .venv/.installed
	@$(INSTALL) -e ".[$*]" || $(BIN)/python -m pip install -q -e ".[$*]"
	@touch $@

reports: .venv/.installed ## run the notebooks, train SD-AANet beside PANet, write runs/index.html
	@$(BIN)/python -m fsslib reports

test: .venv/.installed ## style, unit tests, and the notebooks' stored outputs
	@$(BIN)/python -m fsslib test -n $(JOBS)

results: .venv/.installed ## recompute data/results with the shipped weights
	@$(BIN)/python -m fsslib results

notebooks: .venv/.installed ## rebuild the notebooks that are out of date
	@$(BIN)/python -m fsslib notebooks

student: .venv/.installed ## the edition for students: editions/student.zip
	@$(BIN)/python -m fsslib student

instructor: .venv/.installed ## the edition for instructors: solutions, times, marking notes
	@$(BIN)/python -m fsslib instructor

nbgrader: .venv/.installed ## the course for nbgrader: editions/nbgrader
	@$(BIN)/python -m fsslib nbgrader

otter: .venv/.installed ## the course for otter-grader: masters for `otter assign` in editions/otter
	@$(BIN)/python -m fsslib otter

site: .venv/.with-site ## notebooks, guides, reference and reports as a web site: site/index.html
	@$(BIN)/python -m fsslib site

lab: .venv/.installed ## open JupyterLab at the first notebook
	@$(BIN)/python -m fsslib lab

clean: ## remove caches and unfinished runs; finished runs and .venv stay
	@rm -rf .pytest_cache .ruff_cache .hypothesis runs/*.part runs/.*.lock notebooks/*.part editions/*.part .site-*.part
	@find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
