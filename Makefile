# Two commands for a machine with Python 3.11 or newer and make:
#   make demo          set up, then scans -> pre-training -> fine-tuning -> package -> Slicer scene
#   make demo DATA=X   the same on the labelled data set in folder X
#   make test          set up, then the tests (make test-all: the slow ones too)
#   make bench-setup   set up, and the peers that benchmarks/ compares with

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
DATA ?=
OUT ?= demo
# Phantoms: short, to show the path. Real data: the recipes' own lengths, larger crops.
DEMO_OPTIONS ?= $(if $(DATA),--patch-voxels 150000,--pretrain loop.steps=300 --finetune loop.steps=600)

# nnU-Net's networks, to test ours against; without its dependencies, which it needs elsewhere.
ORACLE := dynamic-network-architectures==0.4.4

# nnU-Net and what it imports beside the training tree's own requirements.
BENCH := .venv-bench
PEERS := benchmarks/requirements-peers.txt
PEERS_NEED := blosc2 nibabel pandas scikit-image scikit-learn seaborn threadpoolctl

.PHONY: demo test test-all phantom-packages bench-setup lint setup clean

demo: $(READY)
	$(RUN) training/demo.py $(DATA) -o $(OUT) $(DEMO_OPTIONS)

test: $(READY) lint
	$(RUN) -m pytest -q

test-all: $(READY) lint
	$(RUN) -m pytest -q -m "slow or not slow"

# The packages that come with the module, trained on phantoms (about an hour).
phantom-packages: $(READY)
	$(RUN) training/phantom_packages.py runs/phantom_packages

lint: $(READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

setup: $(READY)

# torch first and by its exact number: a range would fetch gigabytes of CUDA packages.
$(READY): pyproject.toml
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed; set PYTHON=')"
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(RUN) -m pip install --quiet --disable-pip-version-check -e ".[runtime,training,web,tests]"
	$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps $(ORACLE)
	touch $(READY)

bench-setup: $(READY) $(BENCH)/.ready

$(BENCH)/.ready: $(PEERS) pyproject.toml
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -e ".[runtime,training]" $(PEERS_NEED)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $(PEERS)
	touch $(BENCH)/.ready

clean:
	rm -rf $(VENV) $(BENCH) demo runs build
