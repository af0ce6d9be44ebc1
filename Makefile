# `make help` lists the commands. `make demo` and `make test` do all the set-up.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# The CPU build of PyTorch, installed first where no NVIDIA driver is found: a plain `torch` brings gigabytes of CUDA.
TORCH_CPU ?= torch==2.13.0
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check
PYTEST = $(BIN)/python -m pytest
# The processes fill the cores, so one thread each. "worksteal" gives each of them its share of the files, in order, so that
# tests that share something expensive stay together; whoever is done first takes tests from the others.
PROCESSES ?= 2
TESTS = OMP_NUM_THREADS=1 $(PYTEST) --numprocesses $(PROCESSES) --dist worksteal --durations 30

.PHONY: help demo test test-slow attack test-gpu bench-gpu coverage lint docs model-card lock clean

help: ## List these commands.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.runtime ## Install the runtime and run it on the bundled clip; results in demo-out/.
	$(BIN)/leaf-rt video examples/demo.mp4 --out demo-out

test: $(VENV)/.dev lint ## Install everything for development, then run lint, types and the quick tests.
	$(TESTS) -m "not slow and not gpu"

test-slow: $(VENV)/.dev ## Run the tests that `make test` leaves out because they take seconds each.
	$(TESTS) -m "slow and not gpu"

attack: $(VENV)/.dev ## Attack every input and output at random, for about an hour.
	LEAF_ATTACK=long $(PYTEST) tests/attack

# Says what is missing, before minutes are spent.
GPU = $(BIN)/python -c "import sys; from leaf_rt.backends.tensorrt.cuda import driver_problem; sys.exit(driver_problem())"
# TensorRT comes from NVIDIA's package index.
test-gpu: $(VENV)/.dev ## Run every test that needs an NVIDIA GPU.
	@$(GPU)
	$(PIP) --editable ".[dev,tensorrt]"
	$(PYTEST) -m gpu

bench-gpu: $(VENV)/.dev ## Measure training, inference and whole runs on an NVIDIA GPU: a table and a line of JSON.
	@$(GPU)
	$(BIN)/python -m experiments gpu --clip examples/demo.mp4

coverage: $(VENV)/.dev ## Run all tests and report the lines that no test runs.
	$(TESTS) -m "not gpu" --cov=leaf_rt --cov=train --cov=engines --cov-report=term:skip-covered

lint: $(VENV)/.dev ## Run ruff, codespell and mypy.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy

docs: $(VENV)/.dev ## Build the documentation site into site/; a broken link is an error.
	$(BIN)/mkdocs build --strict --quiet

FERPLUS ?= ../shared/data/ferplus
WEBFACES ?= ../shared/data/webfaces
model-card: $(VENV)/.dev ## Measure the bundled model, and write its model card.
	$(BIN)/python -m engines model-card --data $(FERPLUS) --others $(WEBFACES)

# PyTorch and its CUDA packages stay out of the lock: each machine takes the build that fits it.
UNLOCKED = torch triton cuda-toolkit nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13 \
  nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse nvidia-cusparselt-cu13 nvidia-nccl-cu13 \
  nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx
lock: ## Pin the versions of all dependencies in requirements.lock (needs uv).
	echo "$(TORCH_CPU)" | uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
	  --no-header --no-annotate --constraints - $(foreach p,$(UNLOCKED),--no-emit-package $(p)) --output-file requirements.lock

clean: ## Remove everything that these commands made.
	rm -rf $(VENV) demo-out build site *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The runtime and the live page: no PyTorch.
$(VENV)/.runtime: pyproject.toml requirements.lock | $(VENV)/bin/python
	$(PIP) --constraint requirements.lock --editable ".[web]"
	touch $@

$(VENV)/.dev: pyproject.toml requirements.lock | $(VENV)/bin/python
	@if ! command -v nvidia-smi >/dev/null 2>&1; then $(BIN)/python -c "import torch" 2>/dev/null || $(PIP) --no-compile $(TORCH_CPU); fi
	$(PIP) --no-compile --constraint requirements.lock --editable ".[dev]"
	@# pip would compile with one core. A few files are templates, which do not compile.
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	touch $@ $(VENV)/.runtime
