# `make demo` and `make test` are all that a newcomer needs; both build .venv on their first run.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt

DATA   := data
RUN    := runs/rehearsal

.PHONY: help demo test lint fuzz options lock qgis smoke docs reference rehearsal tiles weights gpu-pack clean

help:
	@echo "make demo   register the real Sentinel-1 / Sentinel-2 pair that ships with somareg"
	@echo "make test   linters, types, import contract and tests"
	@echo "make lint   the same without the tests"
	@echo "make fuzz MINUTES=60   spoil files of every format that is read; what breaks something is kept in runs/fuzz"
	@echo "make options    after a change of RegisterConfig: write RegisterOptions, the QGIS plugin's options and the reference"
	@echo "make reference  after a change of a command or docstring: write docs/commands.md and docs/api.md"
	@echo "make lock   write requirements.lock: the dependencies that users need, at the versions of constraints.txt, with hashes"
	@echo "make qgis   pack the QGIS plugin into build/somareg-qgis.zip"
	@echo "make smoke  build sdist and wheel, install the wheel into a clean environment, use it there"
	@echo "make docs   build the documentation site into build/site"
	@echo "make rehearsal DATA=DIR   train a tiny network for five minutes on the pairs in DIR, export it, use it"
	@echo "make weights DATA=DIR     train the network that ships from nothing, 80 minutes on one core, into runs/compact"
	@echo "make gpu-pack DATA=DIR    one file of at most 55 MB from which tools/gpu_hour.py trains, into runs/gpu"
	@echo "make clean  remove .venv, caches and the demo's outputs"

demo: $(VENV)/.demo
	$(BIN)/somareg demo -o somareg-demo

# Two processes of one thread each: tests are many and small. A file stays in one process, with what its tests share.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The tests try a few cases of it, always the same ones; here every hunt has new dice.
fuzz: MINUTES = 10
fuzz: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.t90_security.fuzz --minutes $(MINUTES) --out runs/fuzz

options: $(VENV)/.docs
	$(PYTHON) tools/options.py
	PYTHONPATH=src $(BIN)/python tools/qgis_plugin.py options
	PYTHONPATH=src $(BIN)/python tools/reference.py

# docs/commands.md and docs/api.md, which are committed: they can be read without a build.
reference: $(VENV)/.docs
	PYTHONPATH=src $(BIN)/python tools/reference.py

# The versions of constraints.txt with the hashes of their files, for every system: CONTRIBUTING.md. One dependency of the
# documentation needs Python 3.11.5, hence the last digit.
lock: $(VENV)/.demo
	$(PIP) uv
	$(BIN)/uv pip compile pyproject.toml --constraint constraints.txt --universal --python-version 3.11.5 \
		--generate-hashes --no-annotate --custom-compile-command "make lock" --quiet --output-file requirements.lock

# What QGIS installs by Plugins > Install from ZIP: docs/qgis.md.
qgis:
	@$(PYTHON) tools/qgis_plugin.py zip

# Does the package work where nothing but the package is? Takes some minutes: PyTorch is installed once more.
smoke:
	PYTHON=$(PYTHON) tools/smoke.sh

docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict --clean
	@echo "build/site/index.html; with search: $(PYTHON) -m http.server --bind 127.0.0.1 --directory build/site"

# A folder that is there is whole: it is made under another name, by a command that ends in --out FOLDER, then renamed.
folder = test -d $(1) || { rm -rf $(1).part && $(2) --out $(1).part && mv $(1).part $(1); }
PACK   = $(BIN)/python -m somareg.lab.data.pack --data $(DATA)
CLEAN  = $(BIN)/python -m somareg.lab.data.clean

# The whole road from pairs to a model that registers: docs/training.md. Killed? Say it again: it goes on.
rehearsal: $(VENV)/.train
	$(call folder,$(RUN)/tiles,$(PACK) --sets ombria --roles train)
	test -f $(RUN)/val.safetensors || $(BIN)/python -m somareg.lab.data.samples --data $(DATA) --sets ombria --levels m --limit 40 --out $(RUN)/val.safetensors
	$(BIN)/somareg train --config configs/tiny.yaml -o $(RUN)/tiny --data $(RUN)/tiles --validation $(RUN)/val.safetensors \
		$$(test -f $(RUN)/tiny/last.ckpt && echo --resume)
	$(BIN)/somareg export $(RUN)/tiny/best.ckpt -o $(RUN)/tiny.safetensors --overwrite
	$(BIN)/somareg demo --model $(RUN)/tiny.safetensors -o $(RUN)/demo || test $$? -eq 3

# Tiles with labels measured again, from all pairs in DATA that may be learned from: docs/data.md.
SHIP := runs/compact
tiles: $(VENV)/.train
	$(call folder,$(SHIP)/raw/ombria,$(PACK) --sets ombria --roles train)
	$(call folder,$(SHIP)/raw/places,$(PACK) --sets sen12scenes sen12patches --roles train)
	$(call folder,$(SHIP)/raw/unaligned,$(PACK) --sets sen12scenes sen12patches --roles train-unaligned)
	$(call folder,$(SHIP)/raw/volkov,$(PACK) --sets volkov --roles train-unaligned --max-residual 1.4)
	$(call folder,$(SHIP)/tiles/ombria,$(CLEAN) --tiles $(SHIP)/raw/ombria --by pair)
	$(call folder,$(SHIP)/tiles/places,$(CLEAN) --tiles $(SHIP)/raw/places)
	$(call folder,$(SHIP)/tiles/unaligned,$(CLEAN) --tiles $(SHIP)/raw/unaligned --drop)
	$(call folder,$(SHIP)/tiles/volkov,$(CLEAN) --tiles $(SHIP)/raw/volkov --by tile --drop)

# From the pairs in DATA to a file of weights (docs/weights.md says how those that ship were made). configs/compact.yaml names
# the tiles and the samples.
MINUTES ?= 80
weights: tiles
	test -f $(SHIP)/val.safetensors || $(BIN)/python -m somareg.lab.data.samples --data $(DATA) --limit 100 --out $(SHIP)/val.safetensors
	$(BIN)/somareg train --config configs/compact.yaml -o $(SHIP)/run --max-minutes $(MINUTES) \
		$$(test -f $(SHIP)/run/last.ckpt && echo --resume)
	$(BIN)/somareg export $(SHIP)/run/last.ckpt -o $(SHIP)/compact.safetensors --validation $(SHIP)/val.safetensors --overwrite

# Everything that a machine with a GPU needs, in one file: docs/training.md, "An hour of GPU".
GPU := runs/gpu
gpu-pack: tiles
	test -f $(GPU)/val.safetensors || $(BIN)/python -m somareg.lab.data.samples --data $(DATA) --levels m H A --limit 60 \
		--hold-out sen12patches --out $(GPU)/val.safetensors
	test -f $(GPU)/pack.safetensors || $(BIN)/python -m somareg.lab.data.bundle --tiles $(SHIP)/tiles/* \
		--samples $(GPU)/val.safetensors --out $(GPU)/pack.safetensors

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $(PYTHON) is missing or older than 3.11; run make with PYTHON=python3.11 or newer" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
		|| { rm -rf $(VENV); echo "error: no venv module; on Debian or Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }

# A stamp is newer than the files that name the dependencies once those are installed.
$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e .
	@touch $@

$(VENV)/.train: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e '.[train]'
	@touch $@ $(VENV)/.demo

$(VENV)/.docs: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e '.[docs]'
	@touch $@ $(VENV)/.demo

$(VENV)/.test: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) -e '.[test]'
	@touch $@ $(VENV)/.demo $(VENV)/.train $(VENV)/.docs

clean:
	rm -rf $(VENV) somareg-demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
