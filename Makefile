# `make demo` and `make test` set everything up themselves: a virtual environment in .venv, filled by pip alone.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
ROOMS := features training pipelines jobs

.PHONY: demo test slow lint names format clean

demo: $(READY)
	$(BIN)/fieldwise demo

test: lint
	$(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

slow: $(READY)
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
	cd build/tree/fieldwise && ln -s ../../../fieldwise/*.py ../../../fieldwise/py.typed $(ROOMS:%=../../../%) .
	cp -R fieldwise build/imports/ && cp -R $(ROOMS) build/imports/fieldwise/

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# An environment with GPUs installs its own torch first; constraints.txt pins what was tested.
$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) work build *.egg-info
