# `make help` lists the targets. They run in .venv, which is installed from requirements.lock. Many are
# aliases of `roofseg` commands; `roofseg COMMAND --help` explains those.

# The Pythons that .venv can be made with, the best first. make PYTHON=... names another.
PYTHONS := python3.13 python3.12 python3.11 python3
# The stages call `python`, so .venv must come first on the path.
export PATH := $(CURDIR)/.venv/bin:$(PATH)
CODE := src stages tests benchmarks docs

.DEFAULT_GOAL := help
.PHONY: help repro train-all test test-all check format docs bench profile finalize new-dataset check-data \
	prove-installable prove-repeatable prove-resumable prove-sealed tune tuning-report \
	pictures studies-report studies budget seeds augmentation folds

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z -]+:.*## / {printf "  make %-24s %s\n", $$1, $$2}' Makefile

# A Python on the path may fail to run (as pyenv's shims do) or lack ensurepip (as Debian's does). --clear:
# nothing stays of an older lock, or of another Python.
.venv/installed: requirements.lock
	@found=; \
	for python in $(if $(value PYTHON),$(call quoted,PYTHON),$(PYTHONS)); do \
		case $$python in '~/'*) python=$$HOME/$${python#'~/'} ;; esac; \
		version=$$("$$python" -c 'import platform, ensurepip; print(platform.python_version())' 2> /dev/null); \
		case $$version in 3.1[123].*) break ;; esac; \
		found="$$found$${found:+, }$$python ($${version:-does not run, or has no ensurepip})"; \
		python=; \
	done; \
	if [ -z "$$python" ]; then \
		echo "error: Python 3.11, 3.12 or 3.13 is needed; found: $$found. Install one with its venv module" \
			"(Debian 12 and 13, Ubuntu 24.04: apt install python3-venv), or name one:" \
			"make PYTHON=/path/to/python3.13" >&2; \
		exit 2; \
	fi; \
	echo "Making .venv with Python $$version ($$(command -v "$$python"))"; \
	"$$python" -m venv --clear .venv
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
	@echo "The results: report.html"

train-all: .venv/installed  ## train all attempts: make train-all JOBS=2 (roofseg train-all)
	@roofseg train-all $(call option,jobs,JOBS)

test: .venv/installed  ## run the fast tests, with one pipeline among them (3 minutes)
	python -m pytest

test-all: .venv/installed  ## run the other tests too: pipelines, kills, seals, Ray, DDP, ONNX
	python -m pytest -m 'not slow and not release' --hypothesis-profile all

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
		$(call option,block,BLOCK) $(call option,merge,MERGE) \
		$(call option,unknown,UNKNOWN) $(call option,areas,AREAS) $(call option,areas-layer,AREAS_LAYER) \
		$(call option,max-expansion,MAX_EXPANSION) $(if $(ALLOW_BALLPARK),--allow-ballpark)

check-data: .venv/installed  ## check every tile of a dataset: make check-data NAME=oslo
	@roofseg check-data $(call quoted,NAME) $(call option,max-expansion,MAX_EXPANSION)

docs: .venv/installed  ## build the site of all pages and the API in site/; a warning is an error
	rm -rf site
	PYTHONPATH=src python -m sphinx --fail-on-warning --keep-going --quiet -c docs . site
	@echo "site/index.html"

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
folds:  ## compare attempts by cross-validation over train and val
budget seeds augmentation folds: .venv/installed
	@roofseg studies $@

studies-report: .venv/installed  ## make studies/report.html from the studies that were run
	@roofseg studies report

pictures: .venv/installed  ## draw docs/images again, from what `make repro` left
	PYTHONPATH=src python docs/images/make.py

prove-repeatable: .venv/installed  ## prove that `dvc repro --force` gives the same bytes
	@python -m pytest -n 0 -m '' --proofs -s tests/pipeline/test_repeat.py

prove-resumable: .venv/installed  ## prove that killed runs resume to the same bytes (20 kills)
	@python -m pytest -n 0 -m '' --proofs -s tests/pipeline/test_kill.py

prove-sealed: .venv/installed  ## prove that training and tuning cannot reach test
	@python -m pytest --dist load -m '' --proofs tests/pipeline/test_graph.py tests/pipeline/test_seal.py

prove-installable: .venv/installed  ## prove that the wheel and its extras serve in an empty environment
	@python -m pytest -n 0 -m '' --proofs -s tests/pipeline/test_install.py
