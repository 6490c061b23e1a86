# Two commands do all the set-up: `make paint` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PROMPT ?= a red house with two old trees and yellow flowers
export PROMPT
ARGS ?=
HOST ?= --constraint .ci/oldest.txt
MARKS ?= -m "not slow"

.PHONY: paint test check lessons notebook parity parity-full wheel bench train speedrun figures clean

paint: $(VENV)/installed  ## paint PROMPT into picture.png: make paint PROMPT="a blue house at night"
	$(BIN)/diffusion paint "$$PROMPT" $(ARGS)

test: $(VENV)/installed-dev  ## the tests, without the slow ones: make test, or make test MARKS= for all
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile $(MARKS) $(ARGS)

check: $(VENV)/installed-dev  ## style, types, the tests without the slow ones
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile -x -q $(MARKS) $(ARGS)

lessons: $(VENV)/installed-course  ## notebooks from the lessons, executed: make lessons ARGS="3" or ARGS=--check
	$(BIN)/python -m diffusion.course.notebooks $(ARGS)

notebook: $(VENV)/installed-course  ## the course in Jupyter
	$(BIN)/jupyter notebook notebooks/en

parity: $(VENV)/installed-reference  ## compare with PyTorch diffusers and transformers, block by block
	$(BIN)/python -m parity $(ARGS)

parity-full: $(VENV)/installed-reference  ## the same for official models at full size (10 GiB of memory)
	$(BIN)/python -m parity --full $(ARGS)

wheel: $(VENV)/installed  ## the package beside the oldest JAX and Flax, as on a course's host: make wheel ARGS="8 9 12"
	rm -rf build/wheel && $(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	$(PYTHON) -m venv --clear build/host
	build/host/bin/python -m pip install --quiet $(HOST) "$$(echo build/wheel/*.whl)[course]"
	cd build && host/bin/python ../.ci/host.py $(ARGS)

# Huge pages, where there are any: a fifth less time for a training step, and good for PyTorch, too.
bench: export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
bench: $(VENV)/installed-reference  ## how fast everything is beside PyTorch: make bench ARGS="unet vae --repeats 3"
	$(BIN)/python -m benchmarks $(ARGS)

train: export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
train: $(VENV)/installed  ## train every part from nothing into runs/garden
	$(BIN)/diffusion train all --output runs/garden $(ARGS)

speedrun: export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
speedrun: $(VENV)/installed  ## train everything from nothing, and watch the pictures become right
	$(BIN)/python -m benchmarks.speedrun $(ARGS)

clean:  ## remove the environment and caches; runs/ and pictures stay
	rm -rf $(VENV) build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "diffusion needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/installed-dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/installed

$(VENV)/installed-course: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[course]'
	touch $@ $(VENV)/installed

$(VENV)/installed-reference: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[reference]'
	touch $@ $(VENV)/installed

figures: $(VENV)/installed  ## the pictures of README and model card, from the shipped weights
	$(BIN)/python -m diffusion.inspection.figures.prompts data/garden/prompts.webp
	$(BIN)/python -m diffusion.inspection.figures.overview data/garden/art_class.webp
	$(BIN)/python -m diffusion.inspection.figures.film data/garden/painting.webp
	$(BIN)/python -m diffusion.inspection.figures.films data/garden/films.webp
	$(BIN)/python -m diffusion.inspection.figures.museum data/museum.webp
