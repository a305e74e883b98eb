# `make` or `make help` lists what there is. Nothing here needs an activated environment: everything runs in .venv.

PYTHON ?= python3
CONF ?= conf/server.toml
PYTEST_ARGS ?=
BENCH_ARGS ?=
CHAOS_ARGS ?=
RELIABILITY_ARGS ?=

VENV := .venv
PY := $(VENV)/bin/python
ROOMS := codec poller governance idlc prefork weego
CYTHON_SOURCES := $(shell find $(ROOMS) -name '*.pyx' -o -name '*.pxd' -o -name '*.pxi' -o -name '*.h')
IDLC_SOURCES := $(shell find idlc -name '*.py') $(wildcard weego/cli/gen.py)
INTEROP := $(addprefix tests/interop/test_,$(addsuffix .py,kitex kitex_protobuf kitex_stream peers_call_weego weego_calls_peers thrifttest))
STUBS := examples/echo/gen/.made
RIVALS := build/rivals/bin/.made

# Each stamp says: this was done, and nothing it depends on has changed since.
ENVIRONMENT := $(VENV)/.weego-environment
EXTENSIONS := $(VENV)/.weego-extensions

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup run test check bench interop chaos reliability build clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(EXTENSIONS) $(STUBS)  ## environment in .venv, compiled extensions, the example's stubs

run: setup  ## set up and serve conf/server.toml (another one: make run CONF=…)
	@exec $(PY) bin/weego-master $(CONF)

test: setup  ## set up and run the tests (PYTEST_ARGS="-k codec")
	$(PY) -m pytest $(PYTEST_ARGS)

check: setup  ## ruff and mypy --strict
	$(PY) -m ruff check .
	$(PY) -m mypy
	$(PY) -m mypy -m examples.echo.service
	$(PY) -m mypy examples/echo/client.py

bench: setup  ## weego, its peers and the floor in one run (BENCH_ARGS=--smoke)
	$(PY) -m bench $(BENCH_ARGS)
	$(PY) -m bench.grpc $(filter --smoke,$(BENCH_ARGS))
	$(PY) -m bench.thrift_streams $(filter --smoke,$(BENCH_ARGS))

interop: setup  ## weego against Kitex, Apache Thrift and thriftpy2, and the table of docs/interop.md (needs Go and Apache's compiler)
	WEEGO_CI=1 $(PY) -m pytest $(INTEROP) --interop-table docs/interop.md $(PYTEST_ARGS)

chaos: setup  ## reload storms, faults drawn with a seed, goals in milliseconds: half an hour (CHAOS_ARGS="--help")
	$(PY) -m tests.chaos $(CHAOS_ARGS)

reliability: setup $(RIVALS)  ## weego, gunicorn, uvicorn and granian hurt in the same ways (RELIABILITY_ARGS="--help")
	$(PY) -m tests.chaos.reliability --peers $(dir $(RIVALS)) $(RELIABILITY_ARGS)

build: $(ENVIRONMENT)  ## sdist and wheel in dist/
	$(PY) -m build --no-isolation

clean:  ## everything that was made, the environment included
	rm -rf $(VENV) build dist run *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis bench/out
	rm -rf examples/*/gen
	find $(ROOMS) bench tests examples -name '__pycache__' -prune -exec rm -rf {} +
	find $(ROOMS) -name '*.so' -delete
	find $(ROOMS) -name '*.pyx' | sed 's/pyx$$/c/' | xargs -r rm -f

# One line for each thing that may be missing, before pip gets a chance to say it in a hundred.
$(ENVIRONMENT): pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "weego needs Python 3.11 or later: apt-get install python3 python3-venv python3-dev" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "weego needs Python 3.11 or later; name one: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "weego needs Python's venv: apt-get install python3-venv" >&2; exit 1; }
	@echo '#include <Python.h>' | cc -fsyntax-only -x c -I"$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')" - 2>/dev/null || { echo "weego needs a C compiler: apt-get install gcc python3-dev" >&2; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' > $(VENV)/build-requires.txt
	@echo "setting up $(VENV)"
	@$(PY) -m pip install --quiet --disable-pip-version-check -r $(VENV)/build-requires.txt
	@WEEGO_WITHOUT_EXTENSIONS=1 $(PY) -m pip install --quiet --disable-pip-version-check --no-build-isolation -e '.[dev]'
	@touch $@

$(EXTENSIONS): $(ENVIRONMENT) setup.py $(CYTHON_SOURCES)
	@echo "compiling the extensions"
	@$(PY) setup.py --quiet build_ext --inplace
	@touch $@

# Servers to compare with, in an environment of their own: their dependencies are none of weego's.
$(RIVALS): tests/chaos/rivals.txt | $(ENVIRONMENT)
	@$(PYTHON) -m venv build/rivals
	@build/rivals/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

$(STUBS): examples/echo/echo.thrift $(IDLC_SOURCES) | $(EXTENSIONS)
	@rm -rf $(@D)
	@$(PY) bin/weego gen $< -o $(@D)
	@touch $@
