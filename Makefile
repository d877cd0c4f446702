# `make help` lists the targets. They run in .venv, which is installed from requirements.lock. Many are
# aliases of `roofseg` commands; `roofseg COMMAND --help` explains those.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
# The stages call `python`, so .venv must come first on the path.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
CODE := src stages tests benchmarks docs

.DEFAULT_GOAL := help
.PHONY: help repro train-all test check format bench profile finalize new-dataset check-data \
	prove-repeatable prove-resumable prove-sealed tune tuning-report \
	pictures studies-report studies budget seeds augmentation

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z -]+:.*## / {printf "  make %-24s %s\n", $$1, $$2}' Makefile

.venv/installed: requirements.lock
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { \
		echo "error: Python 3.11 is needed, found '$(PYTHON)'. Install it, or say" \
			"make PYTHON=/path/to/python3.11" >&2; exit 2; }
	"$(PYTHON)" -m venv .venv
	.venv/bin/python -m pip install --disable-pip-version-check --quiet --require-hashes -r requirements.lock
# The command `roofseg` runs the src beside this .venv, from whatever folder it is called.
	@printf '%s\n' '#!/bin/sh' \
		'bin=$$(dirname -- "$$(readlink -f -- "$$0")")' \
		'PYTHONPATH="$$bin/../../src$${PYTHONPATH:+:$$PYTHONPATH}" exec "$$bin/python" -P -m roofseg "$$@"' \
		> .venv/bin/roofseg
	@chmod +x .venv/bin/roofseg
	touch .venv/installed

# quoted: the value of a variable as one shell word. option: `--name VALUE` if the variable is set.
# each_quoted: every word of the value as a shell word.
quoted = '$(subst ','\'',$(value $(1)))'
option = $(if $(value $(2)),--$(1) $(call quoted,$(2)))
each_quoted = $(foreach each,$(value $(1)),'$(subst ','\'',$(each))')

repro: .venv/installed  ## run every stage that is not up to date, from tiles to report
	dvc repro

train-all: .venv/installed  ## train all attempts: make train-all JOBS=2 (roofseg train-all)
	@roofseg train-all $(call option,jobs,JOBS)

test: .venv/installed  ## run the tests (minutes)
	python -m pytest -n auto --dist loadfile

check: .venv/installed  ## run ruff, mypy and the import contracts
	ruff check $(CODE)
	ruff format --check $(CODE)
	mypy
	PYTHONPATH=src lint-imports

format: .venv/installed  ## format the code and apply ruff's fixes
	ruff check --fix $(CODE)
	ruff format $(CODE)

new-dataset: .venv/installed  ## make a dataset of your tiles: make new-dataset NAME=oslo IMGS=... MSKS=... (docs/own-tiles.md)
	@roofseg new-dataset $(call quoted,NAME) \
		$(call option,imgs,IMGS) $(call option,msks,MSKS) $(call option,layer,LAYER) \
		$(call option,gsd,GSD) $(call option,base,BASE) $(call option,split,SPLIT) \
		$(call option,seed,SEED) $(call option,val,VAL) $(call option,test,TEST) \
		$(call option,block,BLOCK)

check-data: .venv/installed  ## check every tile of a dataset: make check-data NAME=oslo
	@roofseg check-data $(call quoted,NAME)

bench: .venv/installed  ## measure speed as ratios to plain baselines (benchmarks/README.md)
	python -m benchmarks

profile: .venv/installed  ## put profiles/NAME.yaml in force: make profile NAME=inria
	@roofseg profile $(call quoted,NAME)

finalize: .venv/installed  ## mark attempts as final: make finalize ATTEMPTS="unet_imagenet ..."
	@roofseg finalize $(call each_quoted,ATTEMPTS)

tune: .venv/installed  ## run the recipes of studies/tuning.yaml: make tune JOBS=2 (docs/studies.md)
	@roofseg tune $(call option,jobs,JOBS)

tuning-report: .venv/installed  ## compare the runs of `make tune`, and print how to apply the best
	@roofseg tuning-report

studies: .venv/installed  ## run all studies, and make their page (docs/studies.md)
	@roofseg studies

budget:  ## run the study of the data budget
seeds:  ## run the study of seeds
augmentation:  ## run the study of augmentation
budget seeds augmentation: .venv/installed
	@roofseg studies $@

studies-report: .venv/installed  ## make studies/report.html from the studies that were run
	@roofseg studies report

pictures: .venv/installed  ## draw docs/images again, from what `make repro` left
	PYTHONPATH=src python docs/images/make.py

prove-repeatable: .venv/installed  ## prove that `dvc repro --force` gives the same bytes
	@python -m pytest -m '' --proofs -s tests/pipeline/test_repeat.py

prove-resumable: .venv/installed  ## prove that killed runs resume to the same bytes (20 kills)
	@python -m pytest -m '' --proofs -s tests/pipeline/test_kill.py

prove-sealed: .venv/installed  ## prove that training and tuning cannot reach test
	@python -m pytest -n auto --dist load -m '' --proofs tests/pipeline/test_graph.py tests/pipeline/test_seal.py
