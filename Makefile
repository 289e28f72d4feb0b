# Needs Python 3.11, make and PyPI. `make` alone lists what there is to do.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
# Where PyTorch comes from. On Linux, PyPI's build brings several GB of CUDA libraries; for the small CPU build:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
RUN := .venv/bin/python
PIP := $(RUN) -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo space test quality docs clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/.installed  ## Generate a week of traffic at four scales for central Helsinki, into outputs/demo
	$(RUN) examples/demo.py --output outputs/demo

space: .venv/.installed  ## Start the page of spaces/zoomdiff on http://127.0.0.1:7860
	$(RUN) spaces/zoomdiff/app.py

test: .venv/.installed  ## Run the tests
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(RUN) -m pytest -n 2 --dist loadfile

docs: .venv/.installed  ## Build the documentation, into build/docs
	NO_MKDOCS_2_WARNING=1 $(RUN) -m mkdocs build

quality: .venv/.installed  ## Check style and imports
	$(PIP) --constraint constraints.txt --editable '.[quality]'
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

clean:  ## Remove the environment and everything that was generated
	rm -rf .venv outputs build dist

# PyTorch goes first and on its own: asked for by another package, with an open range, it can come in another version.
.venv/.installed: constraints.txt pyproject.toml setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; found " + sys.version)'
	@echo 'Building .venv with the versions in constraints.txt (once; a few minutes) ...'
	$(PYTHON) -m venv .venv
	$(PIP) $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) $$(grep '^torch==' constraints.txt)
	$(PIP) --constraint constraints.txt --editable '.[test]'
	@touch $@
