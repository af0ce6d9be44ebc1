# The two commands that do all the set-up: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
# The CPU build of torch that is put in first where no NVIDIA driver is found.
TORCH_CPU ?= torch==2.13.0
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check

.PHONY: demo test test-gpu lint clean

demo: $(VENV)/.runtime
	$(BIN)/leaf-rt video examples/demo.mp4 --out demo-out

test: $(VENV)/.dev lint
	$(BIN)/python -m pytest --cov=leaf_rt --cov=train --cov=engines --cov-report=term:skip-covered

# On a machine with an NVIDIA GPU: TensorRT from NVIDIA's package index, then every test that needs the GPU.
test-gpu: $(VENV)/.dev
	$(PIP) --editable ".[dev,tensorrt]"
	@$(BIN)/python -c "import sys; from leaf_rt.backends.tensorrt.cuda import probe; gpu = probe(); sys.exit(gpu if isinstance(gpu, str) else 0)"
	$(BIN)/python -m pytest -m gpu

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) demo-out build *.egg-info

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The runtime alone: no torch.
$(VENV)/.runtime: pyproject.toml | $(VENV)/bin/python
	$(PIP) --editable .
	touch $@

# A plain `torch` brings gigabytes of CUDA; where there is no NVIDIA driver the CPU build comes first.
$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	@if ! command -v nvidia-smi >/dev/null 2>&1; then $(BIN)/python -c "import torch" 2>/dev/null || $(PIP) $(TORCH_CPU); fi
	$(PIP) --editable ".[dev]"
	touch $@
