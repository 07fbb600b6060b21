# make demo   install into .venv and go from motion to tokens and back on sample_data (some four minutes)
# make test   install the test extra into .venv and run ruff, mypy and pytest
# make docs   install the docs extra into .venv and build README and docs/ into site/ (a broken link ends it)
# PYTHON=python3.12 make demo   with another Python (3.11 or newer)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

.PHONY: demo test docs clean

demo: $(VENV)/demo.installed
	@rm -rf demo && mkdir demo
	$(BIN)/vqtool train sample_data/wrist_imu.h5 -o demo/run --model rvq --steps 200
	$(BIN)/vqtool encode demo/run sample_data/wrist_imu.h5 -o demo/tokens.h5
	$(BIN)/vqtool inspect-codebook demo/tokens.h5 --top 4
	$(BIN)/vqtool decode demo/run demo/tokens.h5 -o demo/decoded.h5
	@echo
	@echo "What came back of clips that training never saw:"
	$(BIN)/vqtool evaluate demo/run sample_data/wrist_imu.h5 --split test
	$(BIN)/vqtool report demo/run sample_data/wrist_imu.h5 --split test -o demo/report.html
	@echo
	@echo "Look at demo/report.html. The files are in demo/. Your own motion: $(BIN)/vqtool train YOUR.h5 -o runs/mine"

test: $(VENV)/test.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile

docs: $(VENV)/docs.installed
	@rm -rf site
	$(BIN)/python -m sphinx --fresh-env --fail-on-warning --keep-going --quiet -c docs -d $(VENV)/doctrees . site
	@cp site/README.html site/index.html
	@echo "The site is in site/; begin at site/index.html"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "vqtool needs Python 3.11 or newer: PYTHON=python3.12 make ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/demo.installed: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable .
	@touch $@

$(VENV)/test.installed: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable '.[test]'
	@touch $@

$(VENV)/docs.installed: $(BIN)/python pyproject.toml constraints.txt
	$(PIP) --editable '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) demo site
