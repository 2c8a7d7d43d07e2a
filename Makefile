# The commands of this project; README.md says what each prints.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
PY := .venv/bin/python

.PHONY: help setup check test demo sandbox-up sandbox-down sandbox-status score oracle bench

help:                ## list these commands
	@grep -hE '^[a-z-]+: *.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20

setup:               ## make .venv with everything pinned (nothing to do when it is up to date)
	@tools/setup.sh

check: setup         ## lint and unit tests, under 2 minutes
	@$(PY) tools/gate.py check

test: setup          ## everything that must pass, on a sandbox of its own
	@$(PY) tools/gate.py all

demo: setup          ## empty cluster to served, autoscaled, monitored models, and what happens under load
	@$(PY) -m sandbox.demo

sandbox-up: setup    ## start the local cluster (the first time it is built, 12 to 25 minutes)
	@$(PY) -m sandbox up

sandbox-down: setup  ## stop it and leave no process
	@$(PY) -m sandbox down

sandbox-status: setup ## what runs, where, and how much memory it takes
	@$(PY) -m sandbox status

score: setup         ## accuracy of the fit arithmetic on measured vLLM starts
	@$(PY) tests/fit/score.py

oracle: setup        ## compare KV tokens with a real vLLM engine on the CPU (the first run installs 5 GiB outside the clone)
	@$(PY) tests/oracle/run.py

bench: setup         ## timings against Helm and kubectl, as ratios in one run
	@$(PY) bench/apply.py
