# The two commands of the README are `make demo` and `make test`; both make what they need first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.synced
CODE := src tests bench

.PHONY: help setup demo test interop check format lock docs bench fuzz soak clean
help:
	@echo "make demo   doorward, three machines, ssh lines to paste and an app to open"
	@echo "make test   the whole test suite        make check  format, lint, types, import rules"
	@echo "make interop  every client of the issuer that nobody here wrote, in a table"
	@echo "make setup  .venv and the stock clients  make bench  what we measure   make fuzz  every parser, SECONDS=30 each"
	@echo "make soak   an hour of churn, and what it leaves; MINUTES=60"

$(STAMP): requirements/dev.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip sync --quiet --python $(BIN)/python --require-hashes requirements/dev.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

setup: $(STAMP)
	@$(BIN)/doorward setup client

demo: setup
	@$(BIN)/doorward demo --data-dir .demo $(if $(DEMO_CHECK),--check)

test: setup
	@$(BIN)/python -m pytest --durations=10 $(TESTS)

interop: setup
	@DOORWARD_REQUIRE=all $(BIN)/python -m tests.interop.clients $(TESTS)

check: $(STAMP)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(STAMP)
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

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
	rm -rf $(VENV) .demo .mypy_cache .ruff_cache .pytest_cache
