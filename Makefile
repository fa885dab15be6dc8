# Everything a developer types. `make demo` and `make test` set up all they need by themselves.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
SOURCES := installer tests bench demo

.PHONY: setup demo test lint fuzz kill-loop test-vm test-frozen bench dist deb docs clean

setup: .venv/.stamp

.venv/.stamp: requirements.lock pyproject.toml packaging/setup-venv.sh
	PYTHON=$(PYTHON) bash packaging/setup-venv.sh
	@$(MAKE) --no-print-directory catalogs
	@touch $@

.PHONY: catalogs
catalogs:
	@$(BIN)/python -m keyfit.publisher.compile drivers installer/keyfit/data

demo: setup catalogs
	$(BIN)/python demo/run.py

test: setup catalogs
	bash tests/platforms/install-packages.sh
	$(BIN)/pytest -q -n auto --dist loadfile

lint: setup
	$(BIN)/ruff check $(SOURCES)
	for system in linux win32 darwin; do $(BIN)/mypy --platform $$system || exit 1; done
	$(BIN)/lint-imports

fuzz: setup  # FUZZ_SECONDS for each target; the short run is the same each time, FUZZ_SEED=0 for another one
	$(BIN)/python -m tests.fuzz --seconds $(or $(FUZZ_SECONDS),5) --seed $(or $(FUZZ_SEED),1)

test-vm: deb
	bash tests/vm/install-packages.sh
	$(BIN)/pytest -q tests/vm

dist: setup catalogs
	bash packaging/dist-needs.sh
	$(BIN)/pyinstaller --noconfirm --log-level WARN --distpath dist --workpath build/pyinstaller build.spec
	$(BIN)/python packaging/searchpaths.py dist/keyfit
	$(BIN)/python packaging/bundle.py dist/keyfit

deb: dist
	$(BIN)/python packaging/linux/deb.py

test-frozen: dist
	KEYFIT_PROGRAM=$(CURDIR)/dist/keyfit/keyfit $(BIN)/pytest -q tests/flow/test_first_commands.py

bench: setup catalogs
	$(BIN)/python bench/devices.py
	$(BIN)/python bench/repository.py
	$(BIN)/python bench/poll.py
	$(BIN)/python bench/payload.py
	$(BIN)/python bench/install.py

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir build/site  # with --quiet nothing would be strict

clean:
	rm -rf build dist .venv installer/*.egg-info installer/keyfit/data/catalog-*.json
