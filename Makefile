# make install | demo | up | test | check | clean. Needs Python 3.11 or newer, make and a package registry.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: help install demo up test check bench-relay bench-tools bench-search clean

help:
	@echo "make install   create .venv with the locked packages; .venv/bin/qlaud is the command"
	@echo "make demo      run the main job once and show what it cost"
	@echo "make up        start everything on this machine; Ctrl-C stops it"
	@echo "make test      all checks and all tests"
	@echo "make check     format, lint, types, import contracts"
	@echo "make bench-relay  what the relay costs beside a bare proxy (docs/benchmarks.md)"
	@echo "make bench-search how well and how fast messages are found (docs/benchmarks.md)"
	@echo "make bench-tools  what the search over tools finds, and how fast (docs/benchmarks.md)"
	@echo "make clean     remove .venv and caches; data in .qlaud is kept"

install: $(STAMP)

# The lock names every package with its hashes. Our own package is linked, not copied: setuptools
# (pinned in pyproject.toml) is fetched for that moment only.
$(STAMP): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; try make PYTHON=python3.13")'
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@

demo: install
	@$(BIN)/qlaud demo

up: install
	@$(BIN)/qlaud up

check: install
	@scripts/check

# What Python compiles is kept, whatever the shell says: that saves 6 s in each of pytest's processes.
test: check
	@scripts/install-chromium
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest

bench-relay: install
	@$(BIN)/python -m benchmarks.relay

bench-search: install
	@$(BIN)/python -m benchmarks.search

bench-tools: install
	@$(BIN)/python -m benchmarks.tool_search

clean:
	rm -rf .venv build *.egg-info .ruff_cache .mypy_cache .pytest_cache .hypothesis .import_linter_cache
