# make demo and make test do everything, set-up included. They need Python 3.11 to 3.13 and a package registry.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTHONS := $(or $(PYTHON),python3.11 python3.12 python3.13 python3 python)
UNIT_TESTS := $(filter-out %/__pycache__/,$(wildcard tests/unit/*/)) $(wildcard tests/unit/test_*.py)
LONG_UNIT_TESTS := tests/unit/steps/ tests/unit/training/ tests/unit/serving/
LOCAL_TESTS := tests/e2e $(LONG_UNIT_TESTS) tests/contract tests/faults $(filter-out $(LONG_UNIT_TESTS),$(UNIT_TESTS))
LONGEST := tests/services/test_mlflow.py
SERVICE_TESTS := $(LONGEST) $(filter-out $(LONGEST),$(wildcard tests/services/test_*.py))
# one thread a process and a file's tests in one process; whole runs, the longest, start first
PARALLEL := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# one process more than cores: these tests also wait, for servers and for what they kill
WAITING := -n $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1) --maxprocesses 4 --dist loadfile --no-loadscope-reorder

NEVER_IMPORTED := /tests?/|/transformers/models/(?!auto/|bert/|__init__)

export PATH := $(abspath $(BIN)):$(PATH)
export DVC_NO_ANALYTICS := 1
export MLFLOW_DISABLE_TELEMETRY := true
export GX_ANALYTICS_ENABLED := false
export ORT_DISABLE_TELEMETRY := 1
# DVC's caches hold pickles: not in /var/tmp, which all users of a machine share
export DVC_SITE_CACHE_DIR ?= $(CURDIR)/.dvc/tmp/site
# container images often set it; then every process compiles capnet/, and every process of the tests all tests, anew
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help:  ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

.PHONY: env
env: $(STAMP)  ## Make the virtual environment .venv
	@if [ -n "$(PYTHON)" ] && [ "$$($(BIN)/python -V)" != "$$($(PYTHON) -V)" ]; then \
	  echo "make: $(VENV) was made with $$($(BIN)/python -V), not with $(PYTHON)." >&2; \
	  echo "  to do: rm -r $(VENV), then the same command again" >&2; \
	  exit 1; \
	fi

$(STAMP): pyproject.toml constraints.txt
	@fits='import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))'; \
	python=; for name in $(PYTHONS); do \
	  if "$$name" -c "$$fits" >/dev/null 2>&1; then python=$$name; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "make: no Python 3.11 to 3.13 with the module venv was found." >&2; \
	  echo "  where: $(PYTHONS)" >&2; \
	  echo "  to do: install one (Debian: apt install python3 python3-venv), or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; \
	  exit 1; \
	fi; \
	test -x $(BIN)/python || "$$python" -m venv $(VENV)
	@echo "Installing into $(VENV): two minutes, 2.3 GB; with torch for CUDA three, 6 GB (docs/troubleshooting.md)"
	@# this pip finds out in a third of the time what to install; it shows a warning about every editable installation
	@$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-compile pip==26.3
	@# compiled here by all processors rather than by pip, without what nobody imports; a few files of tests are no valid Python
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --disable-pip-version-check --quiet --no-compile -c constraints.txt -e '.[dev]'
	@$(BIN)/python -m compileall -q -j 0 -x '$(NEVER_IMPORTED)' $(VENV)/lib >/dev/null 2>&1 || true
	@touch $@

.PHONY: demo
demo: env  ## Draw the demo images, train, evaluate, register; show the results
	@if [ -z "$$(ls -A data 2>/dev/null)" ]; then capnet demo-data --out data; fi
	dvc repro
	@capnet register --check
	@capnet summary

.PHONY: data-remote
data-remote: env  ## Say where DVC stores data versions: URL=s3://bucket/folder, ENDPOINT=http://... if not Amazon's
	@if [ -z "$(URL)" ]; then \
	  echo "make: no address. to do: make data-remote URL=s3://bucket/folder (for MinIO and the like also ENDPOINT=http://host:9000)" >&2; exit 2; \
	fi
	@mkdir -p .dvc/tmp && cp .dvc/config .dvc/tmp/config.before
	@# DVC writes ASCII only, and leaves an empty file behind where it fails
	dvc remote add --default --force store "$(URL)" || { cp .dvc/tmp/config.before .dvc/config; \
	  echo "make: .dvc/config stays as it was. to do: see DVC's message; it takes addresses of ASCII letters only" >&2; exit 1; }
	@# else DVC takes whatever bytes a store has under a file's md5
	dvc remote modify store verify true
	@if [ -n "$(ENDPOINT)" ]; then dvc remote modify store endpointurl "$(ENDPOINT)"; fi
	@echo "Commit .dvc/config. Credentials stay in the environment or in ~/.aws; capnet doctor says which ones are found."

# what DVC's own message about a missing remote does not say
FAILED := { [ -n "$$(dvc remote list)" ] || echo "make: no DVC remote is set. to do: make data-remote URL=s3://bucket/folder" >&2; exit 1; }

.PHONY: data-push
data-push: env  ## Upload the images that data.dvc names to the remote
	dvc push data.dvc || $(FAILED)

.PHONY: data-pull
data-pull: env  ## Fetch the images that data.dvc names from the remote
	dvc pull data.dvc || $(FAILED)

.PHONY: data-version
data-version: env  ## Switch data/ to the version of a git revision: REV=v2
	@if [ -z "$(REV)" ]; then echo "make: no revision. to do: make data-version REV=tag-or-commit" >&2; exit 2; fi
	@mkdir -p .dvc/tmp && cp data.dvc .dvc/tmp/data.dvc.before
	@git show "$(REV):./data.dvc" > .dvc/tmp/data.dvc.wanted
	@# DVC replaces no unsaved images. Then data.dvc stays, too: else dvc repro would train on a mixture
	@cp .dvc/tmp/data.dvc.wanted data.dvc; trap : INT TERM; \
	if dvc fetch data.dvc && dvc checkout data.dvc; then \
	  git add data.dvc; \
	else \
	  cp .dvc/tmp/data.dvc.before data.dvc; \
	  echo "make: data.dvc stays as it was. to do: see DVC's message; what is new in data/ is kept by dvc add data and git commit, or thrown away by dvc checkout --force data.dvc" >&2; \
	  $(FAILED); \
	fi

FOLDER ?= overlays/standalone

.PHONY: deploy
deploy: env  ## Apply deploy/FOLDER (overlays/standalone) to the cluster of kubectl's context, with the images of LOCK
	@command -v kubectl >/dev/null || { echo "make deploy takes kubectl, and its context names the cluster: https://kubernetes.io/docs/tasks/tools" >&2; exit 1; }
	kubectl kustomize deploy/$(FOLDER) | python -m components.manifests "$(or $(LOCK),components/images.lock.yaml)" | kubectl apply -f -

.PHONY: cluster-test
cluster-test: env  ## The demo on kind with Kubeflow Pipelines, compared with a run here. Never run so far
	tests/cluster/run

.PHONY: lint
lint: env  ## Style and types
	ruff check .
	ruff format --check .
	mypy

.PHONY: test-fast
test-fast: env  ## Unit and contract tests that train nothing and start no server
	CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 python -m pytest $(PARALLEL) -m "not slow" tests/contract tests/unit

.PHONY: test
test: lint  ## Style and types, then all tests that need neither servers nor root
	CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 python -m pytest $(WAITING) $(LOCAL_TESTS)

.PHONY: test-faults
test-faults: env  ## All hostile files, kills and faults: the long run of tests/faults
	FAULTS=all CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 python -m pytest $(PARALLEL) tests/faults

$(VENV)/.fuzz: $(STAMP) tests/faults/requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --require-hashes -r tests/faults/requirements.txt
	@touch $@

FUZZED := coco camera_traps csv parquet voc_xml voc_list nus_wide settings classes evaluation split predictions tensors image request

.PHONY: fuzz
fuzz: env $(VENV)/.fuzz  ## Coverage-guided fuzzing of all readers, SECONDS each (60), or of some: FUZZED='coco image'
	@for target in $(FUZZED); do \
	  echo "fuzz $$target"; \
	  PYTHONPATH=.:tests OMP_NUM_THREADS=1 python -m faults.fuzz $$target -max_total_time=$(or $(SECONDS),60) -print_final_stats=1 -verbosity=0; \
	done

$(VENV)/.services: $(STAMP) tests/services/requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps --require-hashes -r tests/services/requirements.txt
	@touch $@

.PHONY: test-services
test-services: env $(VENV)/.services  ## Tests against servers on loopback that they start and stop
	CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 python -m pytest $(WAITING) $(SERVICE_TESTS)

$(VENV)/audit/.installed: Makefile
	python3 -m venv $(VENV)/audit
	$(VENV)/audit/bin/pip install --disable-pip-version-check --quiet pip-audit==2.10.1 cyclonedx-bom==7.5.0
	@touch $@

.PHONY: audit
audit: env $(VENV)/audit/.installed  ## Vulnerabilities, licences and a list (audit/sbom.json) of pinned packages, and of IMAGES='...'
	@python -m components.audit --tools $(VENV)/audit/bin --service "$(or $(SERVICE),pypi)" $(IMAGES:%=--image %)

.PHONY: images
images: env  ## Build the container images: TORCH=cuda for GPUs, OPTIONS='...' for docker build
	@python -m components.build images --torch "$(or $(TORCH),cpu)" --options "$(OPTIONS)"

.PHONY: push
push: env  ## Push them and lock their digests: REGISTRY=registry.example.com/team, LOCK=file
	@python -m components.build push --registry "$(REGISTRY)" --torch "$(or $(TORCH),cpu)" --lock "$(or $(LOCK),components/images.lock.yaml)"

.PHONY: test-container
test-container: env $(VENV)/.services $(VENV)/audit/.installed  ## The images and the whole pipeline in a Docker engine of its own (Linux, root)
	CUDA_VISIBLE_DEVICES= python -m pytest tests/container

.PHONY: clean
clean:  ## Remove the environment and the caches; data, outputs and the model store stay
	rm -rf $(VENV) .capnet .mypy_cache .pytest_cache .ruff_cache
