PYTHON ?= python3
BIN = .venv/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: play demo test lint soak policies clean

play: .venv/.run
	$(BIN)/worldsim serve --world crafter --open

demo: .venv/.run
	$(BIN)/worldsim generate --world crafter --actions worldsim/assets/crafter/demo.jsonl --start 3 --seed 0 --seconds 20 -o out/demo.mp4

test: lint
	$(BIN)/pytest --numprocesses 2 --dist loadfile

lint: .venv/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

soak: .venv/.dev
	$(BIN)/python -m benchmarks.live --share 10 --name soak

policies: .venv/.dev
	$(BIN)/python -m benchmarks.cost
	$(BIN)/python -m benchmarks.drift_policies --end 60 --name drift_policies_60s --workers 2
	$(BIN)/python -m benchmarks.memory --away 15 --loops 50 --workers 2
	$(BIN)/python -m benchmarks.plots
	$(BIN)/python -m benchmarks.report

clean:
	rm -rf .venv out build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/.run: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "worldsim needs Python 3.11 or newer; name one: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(INSTALL) "$$(grep '^torch==' constraints.txt)"
	$(INSTALL) --editable .
	touch $@

.venv/.dev: .venv/.run
	$(INSTALL) --editable '.[worlds,ui,wan,dev]'
	touch $@
