PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-slow style bench clean

demo: .venv/.runtime  ## the main job on the embedded default
	env -u VIRTUAL_ENV ./train.sh

test: .venv/.dev  ## the tests of minutes, offline, a file at a time on each of two workers
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

test-slow: .venv/.dev  ## the others: kills, stops, whole jobs behind the real launcher
	$(BIN)/python -m pytest -m slow

style: .venv/.dev  ## formatting, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/.dev  ## measurements on any machine; not part of the tests; bench/gpu/run.sh is for a GPU
	for script in bench/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or 3.12 is needed, this is " + sys.version.split()[0] + "; name one with PYTHON=...") if not (3, 11) <= sys.version_info < (3, 13) else None'
	$(PYTHON) -m venv .venv

# A stamp is newer than the requirements that it was made from: a second run installs nothing.
.venv/.runtime: .venv/bin/python requirements.txt
	$(BIN)/python -m pip install -r requirements.txt
	touch $@

.venv/.dev: .venv/.runtime requirements-dev.txt
	$(BIN)/python -m pip install -r requirements-dev.txt
	touch $@

clean:
	rm -rf .venv build finetuned_models
