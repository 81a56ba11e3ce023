# Every target works on a fresh machine: `setup` makes .venv, the others depend on it.
#
# Settings: PYTHON=python3.12 (what .venv is made with), N=100000 (histories of `sim`),
# INPUT=dir (your own files for `demo`), KILLS=50 (of `soak`), ONLY=hot-big (of `bench`).

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(firstword $(foreach name,python3.11 python3 python3.12 python3.13,\
	$(if $(shell command -v $(name) 2>/dev/null),$(name))))
N ?= 5000
BUILD := build
# loaders of torch's, without what else they require: an older numpy, torch's large default, six clouds' libraries
STREAMING := mosaicml-streaming brotli catalogue cramjam pillow python-snappy tqdm zstd
RUNAI := runai-model-streamer runai-model-streamer-s3 humanize

# every node that a test starts would compile the program anew: 0.25 s each
unexport PYTHONDONTWRITEBYTECODE

PROTOS := proto/cachesvc/wire/v1/cache.proto proto/cachesvc/wire/v1/cluster.proto
STUBS := cachesvc/wire/v1

# $(call protoc,FOLDER): the stubs of all protos, under FOLDER
protoc = $(BIN)/python -m grpc_tools.protoc -I proto --python_out=$(1) --grpc_python_out=$(1) \
	--plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy --mypy_out=quiet:$(1) $(PROTOS)

.DEFAULT_GOAL := help
.PHONY: help
help: ## this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1|/' \
		| while IFS='|' read -r name text; do printf '  make %-8s %s\n' "$$name" "$$text"; done

.PHONY: setup
setup: $(VENV)/.ready ## make .venv with everything that the other targets need

$(VENV)/.ready: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no python3 found: install Python 3.11 or newer" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is older than 3.11: name another one, as in make PYTHON=python3.11" >&2; \
		exit 1; }
	@echo "making $(VENV), once: 2 GB of packages, about three minutes" >&2
	@test -x $(BIN)/pip || $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		package=$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'); \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			apt-get -qq update && \
			DEBIAN_FRONTEND=noninteractive apt-get -qq install -y $$package >/dev/null; \
		else \
			echo "$(PYTHON) cannot make virtual environments: install $$package" >&2; exit 1; \
		fi; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q --disable-pip-version-check --root-user-action=ignore \
		-c constraints.txt -e '.[dev]'
	@# torch's CPU build where pip finds it by its exact name, never the large default; with it what
	@# would have pip get that default
	@$(BIN)/pip install -q --disable-pip-version-check --root-user-action=ignore \
		-c constraints.txt torch==2.13.0+cpu s3torchconnector 2>/dev/null \
		|| echo "no CPU build of torch 2.13.0 here: what needs torch is left out, and its tests are skipped"
	@! $(BIN)/pip show -q torch 2>/dev/null || for loader in "$(STREAMING)" "$(RUNAI)"; do \
		$(BIN)/pip install -q --disable-pip-version-check --root-user-action=ignore \
			-c constraints.txt --no-deps $$loader 2>/dev/null \
			|| echo "$${loader%% *} is not to be had here: its tests are skipped"; \
	done
	@touch $@

$(BUILD):
	@mkdir -p $@

.PHONY: stubs
stubs: setup ## write the stubs of proto/ again
	$(call protoc,.)

.PHONY: check
check: setup check-stubs ## lint, format, types, layers, stubs, house rules
	$(BIN)/ruff check -q .
	$(BIN)/ruff format -q --check . || { $(BIN)/ruff format --diff . 2>&1 | grep -E '^(---|[0-9])'; \
		exit 1; }
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --no-header tests/test_tidy.py

.PHONY: check-stubs
check-stubs: setup
	@rm -rf $(BUILD)/stubs && mkdir -p $(BUILD)/stubs
	@$(call protoc,$(BUILD)/stubs)
	@diff -r -q -x __init__.py -x __pycache__ $(BUILD)/stubs/$(STUBS) $(STUBS) || { \
		echo "the stubs in $(STUBS) are not those of proto/: run make stubs" >&2; exit 1; }

.PHONY: test
test: setup ## the whole test suite; a suite without tests is a failure
	$(BIN)/python -m tests

.PHONY: sim
sim: setup ## the simulator: make sim N=100000
	$(BIN)/python -m tests.sim $(N)

KILLS ?= 50
.PHONY: soak
soak: setup ## nodes killed under load: make soak KILLS=50
	KILLS=$(KILLS) $(BIN)/python -m pytest --no-header -s tests/integration/promises/test_kills.py -k kill

.PHONY: demo
demo: setup $(BUILD) ## three nodes, cold and hot reads: make demo INPUT=dir for your own files
	$(BIN)/cachesvc demo $(if $(INPUT),--input "$(INPUT)")

.PHONY: bench
bench: setup $(BUILD) ## the benchmarks, beside the peers: make bench ONLY=hot-big QUICK=1
	$(BIN)/python -m benchmarks $(ONLY) $(if $(QUICK),--quick)

.PHONY: clean
clean: ## remove what was built; .venv stays
	rm -rf $(BUILD) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find cachesvc client tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
