# `make help` lists the targets. Everything runs in .venv, which is made from requirements.lock.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
# The stages call `python`: whatever is run here finds the one of .venv first.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
CODE := src stages tests benchmarks

.DEFAULT_GOAL := help
.PHONY: help repro train-all test check format bench profile finalize new-dataset check-data \
	prove-repeatable prove-resumable prove-sealed tune tuning-report \
	studies-report studies budget seeds augmentation

help:  ## this list
	@awk -F ':.*## ' '/^[a-z -]+:.*## / {printf "  make %-24s %s\n", $$1, $$2}' Makefile

.venv/installed: requirements.lock
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
		echo "error: Python 3.11 is needed, found '$(PYTHON)'. Install it, or say" \
			"make PYTHON=/path/to/python3.11" >&2; exit 2; }
	"$(PYTHON)" -m venv .venv
	.venv/bin/python -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements.lock
# The command `roofseg`: called anywhere, it runs the src beside this .venv.
	@printf '%s\n' '#!/bin/sh' \
		'bin=$$(dirname -- "$$(readlink -f -- "$$0")")' \
		'PYTHONPATH="$$bin/../../src$${PYTHONPATH:+:$$PYTHONPATH}" exec "$$bin/python" -P -m roofseg "$$@"' \
		> .venv/bin/roofseg
	@chmod +x .venv/bin/roofseg
	touch .venv/installed

# The value of a variable as one word of the shell; as an option, if it is set; as several words.
quoted = '$(subst ','\'',$(value $(1)))'
option = $(if $(value $(2)),--$(1) $(call quoted,$(2)))
each_quoted = $(foreach each,$(value $(1)),'$(subst ','\'',$(each))')

repro: .venv/installed  ## tiles to leaderboard: every stage that is not up to date
	dvc repro

train-all: .venv/installed  ## train all attempts, JOBS at once: make train-all JOBS=2 (default: one per GPU)
	@roofseg train-all $(call option,jobs,JOBS)

test: .venv/installed  ## the tests (minutes)
	python -m pytest -n auto --dist loadfile

check: .venv/installed  ## ruff, format, mypy and the contracts of imports
	ruff check $(CODE)
	ruff format --check $(CODE)
	mypy
	PYTHONPATH=src lint-imports

format: .venv/installed  ## mend what ruff can mend
	ruff check --fix $(CODE)
	ruff format $(CODE)

new-dataset: .venv/installed  ## bring tiles of your own: make new-dataset NAME=oslo IMGS=... MSKS=... (README)
	@roofseg new-dataset $(call quoted,NAME) \
		$(call option,imgs,IMGS) $(call option,msks,MSKS) $(call option,layer,LAYER) \
		$(call option,gsd,GSD) $(call option,base,BASE) $(call option,split,SPLIT) \
		$(call option,seed,SEED) $(call option,val,VAL) $(call option,test,TEST) \
		$(call option,block,BLOCK)

check-data: .venv/installed  ## read all tiles of a dataset, name what is wrong: make check-data NAME=oslo
	@roofseg check-data $(call quoted,NAME)

bench: .venv/installed  ## speed, as ratios to plain baselines
	python -m benchmarks

profile: .venv/installed  ## put profiles/NAME.yaml in force: make profile NAME=inria
	@roofseg profile $(call quoted,NAME)

finalize: .venv/installed  ## mark recipes as final: make finalize ATTEMPTS="unet_imagenet ..."
	@roofseg finalize $(call each_quoted,ATTEMPTS)

tune: .venv/installed  ## run what studies/tuning.yaml declares: make tune JOBS=2 (docs/studies.md)
	@roofseg tune $(call option,jobs,JOBS)

tuning-report: .venv/installed  ## compare the runs of `make tune`, and say how to apply the best
	@roofseg tuning-report

studies: .venv/installed  ## all studies of studies/studies.yaml, and their page (docs/studies.md)
	@roofseg studies

budget seeds augmentation: .venv/installed  ## one study: make budget, make seeds or make augmentation
	@roofseg studies $@

studies-report: .venv/installed  ## studies/report.html, one page of the studies that were run
	@roofseg studies report

prove-repeatable: .venv/installed  ## proofs that `dvc repro --force` gives the same bytes
	@python -m pytest -m '' --proofs -s tests/pipeline/test_repeat.py

prove-resumable: .venv/installed  ## proofs that killed runs go on to the same bytes (20 kills)
	@python -m pytest -m '' --proofs -s tests/pipeline/test_kill.py

prove-sealed: .venv/installed  ## proofs that training and tuning cannot reach test
	@python -m pytest -n auto --dist load -m '' --proofs tests/pipeline/test_graph.py tests/pipeline/test_seal.py
