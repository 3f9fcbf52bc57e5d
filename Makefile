# The only door. `make serve` and `make test` set up whatever they need, each in its own environment.
#   make serve [HOST=127.0.0.1] [PORT=8000] [BUNDLE=RUN/bundle]    the service, on the embedded default
#   make test                                                      the tests
#   make check                                                     format, lint, types, floor plan
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
BUNDLE ?=

SERVE := .venv-serve
TRAIN := .venv
RUNTIME := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU && echo gpu || echo cpu)

.PHONY: serve test test-all check format train-demo clean help

help:
	@sed -n '2,4s/^# *//p' Makefile

serve: $(SERVE)/.ready-$(RUNTIME)
	$(SERVE)/bin/tessera serve --host $(HOST) --port $(PORT) $(foreach b,$(BUNDLE),--bundle $(b))

test: $(TRAIN)/.ready
	$(TRAIN)/bin/python -m pytest

test-all: $(TRAIN)/.ready
	$(TRAIN)/bin/python -m pytest -m ""

check: $(TRAIN)/.ready
	$(TRAIN)/bin/ruff format --check .
	$(TRAIN)/bin/ruff check .
	$(TRAIN)/bin/mypy
	$(TRAIN)/bin/lint-imports

format: $(TRAIN)/.ready
	$(TRAIN)/bin/ruff format .
	$(TRAIN)/bin/ruff check --fix .

# The smallest environment that serves: no torch, and CUDA only where there is a GPU.
$(SERVE)/.ready-$(RUNTIME): pyproject.toml
	$(PYTHON) -m venv --clear $(SERVE)
	$(SERVE)/bin/python -m pip install --quiet --upgrade pip
	$(SERVE)/bin/python -m pip install --quiet -e '.[$(RUNTIME)]'
	$(SERVE)/bin/python -c 'from models.crf import warm; warm()'
	@touch $@

$(TRAIN)/.ready: pyproject.toml
	$(PYTHON) -m venv --clear $(TRAIN)
	$(TRAIN)/bin/python -m pip install --quiet --upgrade pip
	$(TRAIN)/bin/python -m pip install --quiet torch timm
	$(TRAIN)/bin/python -m pip install --quiet -e '.[cpu,training,dev]'
	@touch $@

clean:
	rm -rf $(SERVE) $(TRAIN)
