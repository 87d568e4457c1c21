# Everything a fresh machine needs is Python >= 3.11, make and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
COUNTED := $(addprefix tests/,adapters core entities events facades log test_app.py transfer/test_targets.py $(addprefix workflow/test_,arguments.py at_rest.py atomic_foreign.py auto_checkpoint.py boundary.py calls_in_transactions.py definitions_once.py direct_recording.py frozen_definitions.py inbox.py nothing_grows.py pruning.py start_in_transaction.py))
UNCOUNTED := $(addprefix tests/core/test_,forks.py process_end.py)
COUNTING := -n 2 --dist worksteal $(addprefix --cov=symphony_es.,events log core) --cov-branch --cov-report=
SOURCES := $(shell find symphony_es projections tests -name '*.py') Makefile pyproject.toml
COMPILE := $(BIN)/python -m compileall -q symphony_es projections tests  # once, and not in each process that a test starts

.PHONY: demo test lint bench bench-peers coverage fuzz fuzz-decoders fuzz-workflows model past damage kills soak matrix clean

demo: $(VENV)/.installed  ## a workflow is killed in the middle, resumed, and looked at
	$(BIN)/python examples/crash_and_resume.py

test: $(VENV)/.test  ## all tests; those that stand in one process are counted for `make coverage`
	rm -f $(VENV)/.counted
	$(COMPILE)
	COUNTED='$(COUNTED)' UNCOUNTED='$(UNCOUNTED)' $(BIN)/python -m pytest $(COUNTING)
	touch $(VENV)/.counted

lint: $(VENV)/.lint  ## formatting rules, types, layers
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/mypy --explicit-package-bases examples/*.py
	$(BIN)/pyright
	$(BIN)/lint-imports

coverage: $(VENV)/.counted  ## branch coverage of the layers that keep the data, by the tests of what stands in one process; then those that have not compared objects at each flush do
	$(BIN)/coverage report --fail-under=95
	REST=1 SYMPHONY_CHECK=1 $(BIN)/python -m pytest -n 2 --dist worksteal -q -m 'not exhaustive' $(COUNTED) $(addprefix --ignore=,$(UNCOUNTED))

fuzz: $(VENV)/.test  ## minutes; a million random expressions: nothing but the declared error and plain values comes out
	$(BIN)/python -m tests.workflow.fuzz_expressions --inputs 1000000

fuzz-decoders: $(VENV)/.test  ## some minutes; a million hostile values, events, snapshots, databases, exports and texts: refused with a declared error, or read as they are
	$(BIN)/python -m tests.fuzz decoders --executions 1000000

fuzz-workflows: $(VENV)/.test  ## half an hour; random workflows, whose processes die or are killed, against a plain interpreter of the same programs
	$(BIN)/python -m tests.fuzz --programs 2000

model: $(VENV)/.test  ## half an hour; random programs over tracked and plain objects
	$(BIN)/python -m tests.model --programs 20000 --operations 50

past: $(VENV)/.test  ## half an hour; random logs are asked of their past, by the API and the command line, against brute force
	$(BIN)/python -m tests.past --logs 2000

damage: $(VENV)/.test  ## minutes; random damages of databases, write-ahead files, snapshots, and all that stands beside a log
	$(BIN)/python -m tests.faults.damage --count 2000 --what database
	$(BIN)/python -m tests.faults.damage --count 2000 --what wal
	$(BIN)/python -m tests.faults.damage --count 2000 --what snapshots
	$(BIN)/python -m tests.faults.side_files --count 2000

kills: $(VENV)/.test  ## minutes; kill -9 in the middle of backups, exports, forks, rebuilds and the like: the target is whole or absent
	$(BIN)/python -m tests.faults.kills --kills 50

soak: $(VENV)/.test  ## ten minutes; a web service that is killed every 20 s: no order, charge or mail is lost or doubled
	$(BIN)/python -m tests.soak --minutes 10 --orders-per-s 30 --kill-every 20

matrix: $(VENV)/.test  ## an hour or more; the tests on each Python that is here, 3.11 to 3.14, and with the oldest dependencies
	$(BIN)/python -m tests.matrix

bench: $(VENV)/.installed  ## minutes; prints ratios to what the disk and the codec allow
	$(BIN)/python -m benchmarks --out docs/benchmarks

bench-peers: $(VENV)/.peers  ## half an hour; the same with the peers in turns, and at full size; draws the plots
	$(BIN)/python -m benchmarks --peers --full --out docs/benchmarks

clean:
	rm -rf $(VENV) .venv-matrix

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "symphony_es needs Python 3.11 or later: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group test
	touch $@

$(VENV)/.counted: $(VENV)/.test $(SOURCES)
	$(COMPILE)
	$(BIN)/python -m pytest -q -m 'not exhaustive' $(COUNTED) $(addprefix --ignore=,$(UNCOUNTED)) $(COUNTING)
	touch $@

$(VENV)/.lint: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --group lint
	touch $@

$(VENV)/.peers: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group peers
	touch $@
