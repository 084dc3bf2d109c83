# make demo   log in three ways, on asyncio and on trio, against the embedded control plane;
#             BROWSER=1 opens a real browser for the one that needs it
# make test   run the tests
# make test-all  the same with the built wheel, on every supported Python that is here, and on uvloop
# make test-servers   run those that are slow: races, and prompts that nobody answers
# make compat the tests of Flyte's tools with the newest releases of those
# make conformance  which requirements are proved by a test
# make docs   write anew what is generated in the documents
# make check  lint, formatting, types
# make fuzz   look for input that breaks a parser, FUZZ_SECONDS for each of them; Linux only
# make mutation  change the pure core in some thousand ways, and see that the tests notice
# make bench  measure what the README promises, alone and beside the peers, for almost
#             an hour; BENCH_ARGS=--quick for less, BENCH_ARGS=--peers for the peers only

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# Many tests wait for processes, so more of them than there are cores may run.
WORKERS ?= $(shell $(PYTHON) -c 'import os; print(max(4, os.cpu_count() or 1))')

.PHONY: demo test test-all test-servers check fuzz mutation bench compat conformance docs clean

demo: $(READY)
	@$(if $(filter 1,$(BROWSER)),env -u BROWSER )$(BIN)/flyteauth demo$(if $(filter 1,$(BROWSER)), --browser)

test: $(READY)
	@$(BIN)/python -m tests.services
	$(BIN)/coverage run -m pytest tests/sansio $(PYTEST_ARGS)
	$(BIN)/coverage report --fail-under=100
	$(BIN)/python -m pytest tests --ignore tests/sansio -m 'not servers' -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

test-servers: $(READY)
	@$(BIN)/python -m tests.services
	$(BIN)/python -m pytest tests -m servers $(PYTEST_ARGS)

test-all: $(READY)
	@$(BIN)/python -m tests.services
	@$(BIN)/python -m tests.interpreters -- -m 'not servers' -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

FUZZ_SECONDS ?= 10

fuzz: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group fuzz
	@$(BIN)/python -m tests.fuzz --seconds $(FUZZ_SECONDS)

mutation: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group mutation
	@$(BIN)/python -m tests.mutation

bench: $(READY)
	@$(BIN)/python -m benchmarks $(BENCH_ARGS)

compat: $(READY)
	@$(BIN)/python -m tests.compat

# Which requirements are proved by a test, which are waived and why, and what is not built.
conformance: $(READY)
	@$(BIN)/python -m tests.requirements

docs: $(READY)
	@$(BIN)/python -m tests.documents

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "flyteauth needs Python 3.11 or later; set PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	@touch $@

clean:
	rm -rf mutants .venv .venv-* .coverage .mypy_cache .ruff_cache .hypothesis
