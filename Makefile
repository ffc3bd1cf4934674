# `make help` lists the targets. Those that need .venv create it first.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# With a default DVC remote, download results that another machine has pushed. Without one,
# `dvc repro --pull` fails with "no remote specified" once the run cache has an entry for a stage.
PULL = $(if $(shell $(BIN)/dvc config core.remote 2>/dev/null),--pull)

# `make server` starts a Prefect server on PORT; agent and deploy connect to it, or to PREFECT_API_URL
# if that is set.
HOST ?= 127.0.0.1
PORT ?= 4200
POOL ?= gpu
MINUTES ?= 5
SEED ?= 1
agent deploy: export PREFECT_API_URL ?= http://127.0.0.1:$(PORT)/api

.DEFAULT_GOAL := help
.PHONY: help install repro test test-slow test-portable fuzz lint format photos flow server agent deploy bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(READY) ## create .venv with the versions of constraints.txt

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON): Python 3.11 or newer is required; select another interpreter, for example make PYTHON=python3.12" >&2; exit 1; }
	@echo "Installing into .venv (3 to 10 minutes the first time: torch is large)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

repro: $(READY) ## pull the sample photos, run the stages whose inputs changed, print the metrics
	@$(BIN)/python -m catdog params >/dev/null
	@[ -e data/raw ] || $(BIN)/dvc pull data/raw.dvc
	@[ -e data/.sample ] || ! grep -qs 'path: .sample' data/raw.dvc || $(BIN)/dvc pull data/.sample
	@$(BIN)/python flows/runs/missing_outputs.py
	@$(BIN)/dvc repro $(PULL)
	@$(BIN)/python -m catdog results

# Two processes with one thread each: with more threads, training runs that share cores slow each other down.
test: lint ## lint, type-check and run the tests (under 15 minutes on 2 cores)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-slow: $(READY) ## run the slow tests, which take minutes each
	@$(BIN)/python -m pytest -m slow

test-portable: $(READY) ## compare the results of other processors, emulated by QEMU: [QEMU=qemu-x86_64]
	@$(BIN)/python -m tools.portability $(if $(QEMU),--emulator $(QEMU))

fuzz: $(READY) ## fuzz the readers of photos, archives, params and models: [MINUTES=5] [SEED=1]
	@OMP_NUM_THREADS=1 $(BIN)/python -m tools.fuzz --minutes $(MINUTES) --seed $(SEED)

lint: $(READY) ## check code (ruff, mypy) and workflows (check-jsonschema, zizmor)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(BIN)/zizmor --offline --quiet --pedantic .github/workflows/*.yml

format: $(READY) ## fix and format code with ruff
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

photos: $(READY) ## import photos: ARCHIVE=PATH (zip, tar or folder; default: download Microsoft's 25,000)
	@$(BIN)/python -m catdog fetch $(if $(ARCHIVE),--archive "$(ARCHIVE)") --replace \
	  $(if $(CLASS_LEVEL),--class-level "$(CLASS_LEVEL)") $(if $(ENCODING),--encoding "$(ENCODING)")

flow: $(READY) ## run the stages of the last commit as a Prefect flow: ARGS='--recipe quick'
	@$(BIN)/python -m flows.pipeline $(ARGS)

# PREFECT_API_URL is unset because the UI would otherwise connect to that server.
server: $(READY) ## start the Prefect server and its UI: [PORT=4200] [HOST=127.0.0.1] [DATABASE=URL]
	@env -u PREFECT_API_URL PREFECT_SERVER_API_HOST=$(HOST) PREFECT_SERVER_API_PORT=$(PORT) \
	  $(if $(DATABASE),PREFECT_SERVER_DATABASE_CONNECTION_URL="$(DATABASE)") \
	  $(BIN)/python -m flows.server

agent: $(READY) ## start a Prefect worker on this machine: POOL=gpu or POOL=cpu [LIMIT=number of runs]
	@$(BIN)/python -m flows.agent --pool $(POOL) $(if $(LIMIT),--limit $(LIMIT))

deploy: $(READY) ## install pools, deployments, schedules and automations on the server
	@$(BIN)/python -m flows.deploy

bench: $(READY) ## run the short benchmarks (all except orchestration.py and imbalance.py)
	@for name in $(filter-out orchestration imbalance,$(basename $(notdir $(wildcard benchmarks/*.py)))); do \
	  echo "benchmarks/$$name.py"; $(BIN)/python -m benchmarks.$$name || exit 1; \
	done

clean: ## delete stage outputs and checkpoints (keeps photos, the DVC cache, flow runs and .venv)
	rm -rf data/prepared models reports .catdog/checkpoints dvc_plots
