# Every target sets up what it needs in .venv, from a machine that has only Python 3.11 or newer.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
export MEDBOOK_DATA ?= $(wildcard $(CURDIR)/../shared/data)
export TF_CPP_MIN_LOG_LEVEL ?= 3
export JUPYTER_PLATFORM_DIRS := 1

.PHONY: help install backends demo test check lab run export readme bench results lint lock chromium clean

help:            ## list the targets
	@sed -n 's/^\([a-z]*\): .*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

install: $(READY)  ## set up .venv with the versions in constraints.txt

$(READY): settings.ini setup.py pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "medbook needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || { echo "Python's venv module is missing (Debian: apt install python3-venv)"; exit 1; }
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	@touch $@

BACKENDS := .venv/.backends

backends: $(BACKENDS)  ## JAX and PyTorch beside TensorFlow, for the tests that run on all three

$(BACKENDS): $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[backends]'
	@touch $@

demo: install    ## the main job on built-in data: write DICOM, read, split, train, evaluate, report
	$(BIN)/medbook demo

test: install backends chromium  ## everything that CI checks
	$(MAKE) --no-print-directory lint
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest tests -n 2 --dist loadgroup  # two workers, a thread of matrix products each

check: lint      ## the quick half, for the inner loop: lint, and the tests that need neither browser, nor training, nor another backend
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m pytest tests -n 2 --dist loadgroup -m "not slow"

lint: install    ## style, the order of the parts, the size of chapters, and that the library is what the notebooks say
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/python -m tests.check_house
	$(BIN)/python tests/check_export.py

lab: install     ## open the book in JupyterLab
	$(BIN)/medbook lab

export: install  ## write medbook/ from nbs/
	$(BIN)/nbdev-export
	$(BIN)/nbdev-clean

run: install     ## execute every notebook in a fresh kernel and store its outputs
	$(BIN)/python tests/run_notebooks.py
	$(MAKE) --no-print-directory export readme

readme: install  ## README.md from nbs/index.ipynb
	$(BIN)/jupyter nbconvert --log-level=ERROR --to markdown --output-dir=. --output=README nbs/index.ipynb
	@sed -E -i.bak 's#\]\((pictures/|[0-9]_|00_core\.ipynb|cli\.ipynb)#](nbs/\1#g; s#\]\(\.\./#](#g' README.md && rm README.md.bak
	@awk '/^```/ { if (!open && $$0 == "```") $$0 = "```python"; open = !open } { print }' README.md > README.tmp && mv README.tmp README.md

bench: install   ## measure speeds as ratios in one run and write BENCHMARKS.md
	$(BIN)/python -m tests.bench

results: install  ## train the default network on real sets, three seeds each, and write RESULTS.md (half an hour)
	$(BIN)/python -m tests.results

lock: install    ## resolve the newest versions again and write constraints.txt
	$(BIN)/uv pip compile --quiet --universal --no-header --no-annotate --no-emit-index-url --no-emit-find-links --upgrade --extra dev setup.py --output-file constraints.txt

chromium:        # the browser that the tests drive
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || { \
	  sudo=$$(test "$$(id -u)" = 0 || command -v sudo); \
	  $$sudo apt-get update -qq && $$sudo apt-get install -y -qq --no-install-recommends chromium >/dev/null; } \
	  || { echo "install chromium for the browser tests"; exit 1; }

clean:           ## remove what make made
	rm -rf .venv build dist *.egg-info runs demo
