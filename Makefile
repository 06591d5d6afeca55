# Every target first runs scripts/prepare, which installs what is missing and is quick when
# nothing is. Paths are relative throughout, so that a checkout may live in "my folder".

PYTHON := .venv/bin/python
LOCK := .venv/bin/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 \
	--generate-hashes --no-emit-index-url --no-annotate --no-header

# The compiled packages in front of the others, also for the processes that tests start. What meets
# no compiled module, or HAProxy's rules and pages only, is not run again: tests/e2e asks the compiled
# agent all that haproxy.cfg asks, through the newest HAProxy.
NOT_COMPILED = --ignore tests/browser --ignore tests/haproxy --ignore tests/host \
	--ignore tests/bench --ignore tests/spoa/bench \
	--ignore-glob 'tests/e2e/test_confluence*' --ignore-glob 'tests/e2e/test_airwatch*' \
	--ignore tests/e2e/test_tproxy.py
ON_COMPILED = KAT_TEST_FORM=compiled PYTHONSAFEPATH=1 PYTHONPATH="$$PWD/build/compiled"

.DEFAULT_GOAL := help
.PHONY: help demo test lint compiled bench peers lock clean

help: ## Show this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

demo: ## A portal, HAProxy with TLS, the agent and an application behind it, to see and to try (ARGS=--once: only the walk)
	@scripts/prepare demo
	@.venv/bin/kat demo $(ARGS)

test: lint ## Every check and every test; the agent's on both forms (ARGS: for pytest, e.g. ARGS='-k replay')
	@$(PYTHON) -m pytest -n 2 $(ARGS)
	@scripts/compiled
	@$(ON_COMPILED) $(PYTHON) -m pytest -n 2 -o 'pythonpath=build/compiled .' $(NOT_COMPILED) $(ARGS)

lint: ## Only the checks: ruff, mypy, import-linter, hadolint
	@scripts/prepare test
	@$(PYTHON) -m ruff check --quiet
	@$(PYTHON) -m ruff format --quiet --check
	@$(PYTHON) -m mypy --no-error-summary
	@report=$$(.venv/bin/lint-imports 2>&1) || { echo "$$report"; exit 1; }
	@.venv/bin/hadolint Dockerfile

compiled: ## The packages with their hot modules compiled: a wheel in dist, its content in build/compiled
	@scripts/prepare bench
	@scripts/compiled

bench: ## How fast the agent is on this machine (ARGS: for the benchmark)
	@scripts/prepare bench
	@.venv/bin/kat bench $(ARGS)

peers: ## Our agent beside others, and beside the obvious design (ARGS: as --help says)
	@scripts/prepare bench
	@scripts/compiled
	@$(PYTHON) -m bench --against build/compiled $(ARGS)

# Renews both locks within what pyproject.toml allows. Existing pins stay unless ARGS says --upgrade.
# uv asks the registry it is configured for, and its name stays out of the files.
lock: ## Pin the dependencies anew (ARGS=--upgrade: take newer versions)
	@scripts/prepare demo
	@$(PYTHON) -m pip install --quiet uv
	@$(LOCK) --all-extras --group dev --group bench -o requirements.lock $(ARGS)
	@$(LOCK) --extra agent --extra inspect -c requirements.lock -o requirements-agent.lock

clean: ## Remove .venv, .haproxy, caches and build results
	@rm -rf .venv .haproxy .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
