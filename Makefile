# `make demo` and `make test` set everything up themselves: a virtual environment in .venv, filled by pip alone.
# STACK=3.5 uses the set of versions for Spark 3.5 instead of the newest, in an environment of its own (.venv-3.5).
PYTHON ?= python3
STACK ?=
comma := ,
SET := $(if $(STACK),-$(STACK))
VENV := .venv$(SET)
CONSTRAINTS := constraints$(SET).txt
BIN := $(VENV)/bin
READY := $(VENV)/ready
EXTRAS := dev$(if $(STACK),,$(comma)docs)
ROOMS := features training pipelines jobs

.PHONY: demo test pytest stack slow lint names site format clean

demo: $(READY)
	$(BIN)/fieldwise demo

test: $(READY)
	$(MAKE) --jobs 2 lint pytest

pytest: $(READY)
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

# What meets Spark, Arrow, numpy and pandas: enough for a second set, beside `make test` on the first. `make slow` has its cluster.
stack: $(READY)
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder tests/features/engine tests/training/data \
		tests/pipelines/test_engines.py

slow: $(READY)
	$(if $(STACK),,$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[notebooks]')
	$(BIN)/pytest -m slow --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: $(READY) names
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd build/imports && ../../$(BIN)/lint-imports --config ../../pyproject.toml

# The folders under their one name, for tools that look at files: links for mypy, copies where links are not followed.
names:
	rm -rf build/tree build/imports
	mkdir -p build/tree/fieldwise build/imports
	cd build/tree/fieldwise && ln -s ../../../fieldwise/*.py* ../../../fieldwise/py.typed ../../../fieldwise/api $(ROOMS:%=../../../%) .
	cp -R fieldwise build/imports/ && cp -R $(ROOMS) build/imports/fieldwise/

# The documentation as a site, in build/site; a link or anchor to nothing is an error.
site: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# An environment with GPUs installs its own torch first; the constraints pin what was tested.
$(READY): pyproject.toml $(CONSTRAINTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[$(EXTRAS)]'
	touch $@

clean:
	rm -rf .venv .venv-3.5 work build *.egg-info
