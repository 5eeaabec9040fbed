# For a machine with Python 3.11 or newer and make:
#   make demo             set up, then a phantom prostate study in the browser
#   make demo DATA=X      the study in folder X
#   make demo HEADLESS=1  the same without a browser: report, scene and pictures in demo/
#   make demo-training    set up, then scans -> pre-training -> fine-tuning -> package -> Slicer scene
#                         (DATA=X: on the labelled data set in folder X)
#   make test             set up, then the tests (make test-all: the slow ones too;
#                         JOBS=4: four at once, with 3 GB of memory each)
#   make bench-setup      set up, and the peers that benchmarks/ compares with

PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
DEMO_READY := $(VENV)/.ready-demo
PIP := $(RUN) -m pip install --quiet --disable-pip-version-check
DATA ?=
HEADLESS ?=
OUT ?= $@
# Phantoms: short, to show the path. Real data: the recipes' own lengths, larger crops.
DEMO_OPTIONS ?= $(if $(DATA),--patch-voxels 150000,--pretrain loop.steps=300 --finetune loop.steps=600)

# nnU-Net's networks, to test ours against; without its dependencies, which it needs elsewhere.
ORACLE := dynamic-network-architectures==0.4.4

# nnU-Net and what it imports beside the training tree's own requirements.
BENCH := .venv-bench
PEERS := benchmarks/requirements-peers.txt
PEERS_NEED := blosc2 nibabel pandas scikit-image scikit-learn seaborn threadpoolctl

# What drawing without a screen and the tests need of a bare Debian.
DRAWING := libegl1 libgl1-mesa-dri
TESTING := $(DRAWING) libgl1 libatomic1 $(if $(shell command -v chromium || command -v google-chrome),,chromium)
# Installs what is missing where we may, else says what is missing; what needs it then says so too.
debian = command -v dpkg >/dev/null || exit 0; dpkg -s $(1) >/dev/null 2>&1 && exit 0; \
	if [ "$$(id -u)" = 0 ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	apt-get install -y -qq --no-install-recommends $(1) >/dev/null && exit 0; fi; \
	echo "Missing, please install: apt-get install $(1)"

.PHONY: demo demo-training test test-all phantom-packages bench-setup lint setup clean \
	libraries test-libraries

demo: $(DEMO_READY) libraries
	$(RUN) -m mimsegment_web.demo $(if $(DATA),"$(DATA)") -o $(OUT) $(if $(HEADLESS),--headless)

demo-training: $(READY) libraries
	$(RUN) training/demo.py $(if $(DATA),"$(DATA)") -o $(OUT) $(DEMO_OPTIONS)

# The networks of the tests are so small that a second thread costs more than it gives; a second
# process does not. What a file prepares for its tests is prepared once: they stay together.
JOBS ?= 2
PYTEST := OMP_NUM_THREADS=1 $(RUN) -m pytest -q -n $(JOBS) --dist loadfile

test: $(READY) test-libraries lint
	$(PYTEST)

test-all: $(READY) test-libraries lint
	$(PYTEST) -m "slow or not slow"

# The packages that come with the module, trained on phantoms (half an hour to an
# hour on two cores).
phantom-packages: $(READY)
	$(RUN) training/phantom_packages.py runs/phantom_packages

lint: $(READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

setup: $(READY)

libraries:
	@$(call debian,$(DRAWING))

test-libraries:
	@$(call debian,$(TESTING))

$(RUN):
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'Python 3.11 or newer is needed; set PYTHON=')"
	$(PYTHON) -m venv $(VENV)

# What the page needs, without PyTorch.
$(DEMO_READY): pyproject.toml | $(RUN)
	@echo "Installing what the page needs into $(VENV) (1.8 GB); this takes a few minutes."
	$(PIP) -e ".[runtime,openvino,report,web]"
	touch $(DEMO_READY)

# torch first and by its exact number: a range would fetch gigabytes of CUDA packages.
$(READY): pyproject.toml | $(RUN)
	$(PIP) torch==2.13.0
	$(PIP) -e ".[runtime,training,web,tests]"
	$(PIP) --no-deps $(ORACLE)
	touch $(DEMO_READY) $(READY)

bench-setup: $(READY) $(BENCH)/.ready

$(BENCH)/.ready: $(PEERS) pyproject.toml
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check -e ".[runtime,training]" $(PEERS_NEED)
	$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r $(PEERS)
	touch $(BENCH)/.ready

clean:
	rm -rf $(VENV) $(BENCH) demo demo-training runs build
