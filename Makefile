# `make fit PHOTO=face.jpg` and `make test`. Both set up a virtual environment in .venv on their first run
# (Python 3.11 or newer and pip are all that is needed) and touch nothing outside this folder.

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3.13 python3,$(shell command -v $(name))))
PHOTO ?=
OUTPUT ?= out/$(basename $(notdir $(firstword $(PHOTO))))
FLAGS ?=
PYTEST_FLAGS ?=
# Most of the tests' time is compilation, which uses one core: two processes (of about 3 GB) share the modules.
PROCESSES ?= 2

.PHONY: help fit has-photo test check clean

help:
	@echo 'make fit PHOTO="face.jpg [more photos of the same person]" [OUTPUT=folder] [FLAGS="--preset=..."]'
	@echo 'make test    all tests [PYTEST_FLAGS="-m \"not slow\""] [PROCESSES=2]'
	@echo 'make check   ruff and pyright'
	@echo 'make clean   removes .venv'

fit: has-photo .venv/.installed
	.venv/bin/ganfit $(PHOTO) --output=$(OUTPUT) $(FLAGS)

has-photo:
	@test -n "$(PHOTO)" || { echo 'usage: make fit PHOTO=face.jpg [OUTPUT=folder]' >&2; exit 2; }

test: .venv/.installed-dev
	.venv/bin/python -m pytest -n $(PROCESSES) --dist loadfile $(PYTEST_FLAGS)

check: .venv/.installed-dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/pyright --pythonpath .venv/bin/python

clean:
	rm -rf .venv

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo 'Python 3.11 or newer was not found; set PYTHON=/path/to/python' >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than Python 3.11; set PYTHON=/path/to/python" >&2; exit 2; }
	$(PYTHON) -m venv .venv

.venv/.installed: pyproject.toml | .venv/bin/python
	.venv/bin/python -m pip install --disable-pip-version-check -e .
	@touch $@

.venv/.installed-dev: pyproject.toml | .venv/bin/python
	.venv/bin/python -m pip install --disable-pip-version-check -e '.[dev]'
	@touch $@ .venv/.installed
