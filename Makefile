# `make help` lists the targets. All of them create .venv first if need be.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
export DO_NOT_TRACK := 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# With a default remote, take from it what another machine has done. Without one, `dvc repro --pull`
# ends with "no remote specified" as soon as the run cache knows a stage.
PULL = $(if $(shell $(BIN)/dvc config core.remote 2>/dev/null),--pull)

# Which Prefect server: `make server` starts one at PORT; agent and deploy talk to that, or to the one
# that PREFECT_API_URL names.
HOST ?= 127.0.0.1
PORT ?= 4200
POOL ?= gpu
agent deploy: export PREFECT_API_URL ?= http://127.0.0.1:$(PORT)/api

.DEFAULT_GOAL := help
.PHONY: help install repro test test-slow lint format photos flow server agent deploy bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(READY) ## create .venv with the tested versions of everything (constraints.txt)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "catdog needs Python 3.11 or newer, and $(PYTHON) is older; run make PYTHON=python3.12 (or so)" >&2; exit 1; }
	@echo "Installing into .venv (torch is large: 3 to 10 minutes the first time)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

repro: $(READY) ## bring the photos, run the stages whose inputs changed, print the results
	@$(BIN)/catdog params >/dev/null
	@[ -e data/raw ] || $(BIN)/dvc pull data/raw.dvc
	@$(BIN)/dvc repro $(PULL)
	@$(BIN)/catdog results

# Two processes with a thread each: trainings that share cores wait for each other's threads.
test: lint ## lint, type-check and test (under 15 minutes on 2 cores)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-slow: $(READY) ## the proofs that take minutes
	@$(BIN)/python -m pytest -m slow

lint: $(READY) ## ruff and mypy
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(READY) ## let ruff mend what it can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

photos: $(READY) ## take in photos: make photos ARCHIVE=PATH (zip, tar, folder), or without it the original 25,000
	@$(BIN)/catdog fetch $(if $(ARCHIVE),--archive "$(ARCHIVE)") --replace

flow: $(READY) ## run the stages of HEAD as a Prefect flow, in a clone: make flow ARGS='--recipe quick'
	@$(BIN)/python -m flows.pipeline $(ARGS)

# Without PREFECT_API_URL, which would let the UI in the browser talk to another server.
server: $(READY) ## the Prefect server and its UI: make server [PORT=4200] [DATABASE=URL]
	@env -u PREFECT_API_URL PREFECT_SERVER_API_HOST=$(HOST) PREFECT_SERVER_API_PORT=$(PORT) \
	  $(if $(DATABASE),PREFECT_SERVER_DATABASE_CONNECTION_URL="$(DATABASE)") \
	  $(BIN)/python -m flows.server

agent: $(READY) ## a worker on this machine: make agent POOL=gpu (or POOL=cpu) [LIMIT=runs at once]
	@$(BIN)/python -m flows.agent --pool $(POOL) $(if $(LIMIT),--limit $(LIMIT))

deploy: $(READY) ## tell the server of the pools, deployments, schedules and automations
	@$(BIN)/python -m flows.deploy

bench: $(READY) ## run the short benchmarks and print ratios (all but benchmarks/orchestration.py)
	@for name in $(filter-out orchestration,$(basename $(notdir $(wildcard benchmarks/*.py)))); do \
	  echo "benchmarks/$$name.py"; $(BIN)/python -m benchmarks.$$name || exit 1; \
	done

clean: ## remove what the stages made, and checkpoints; photos, DVC's cache, runs and .venv stay
	rm -rf data/prepared models reports .catdog/checkpoints dvc_plots
