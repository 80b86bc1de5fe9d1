# Each target sets up what it needs in a fresh clone: a virtual environment with pinned packages, and two system
# libraries for the renderers if they are missing. `make demo` installs only what the demo needs.
#
# The environment counts as whole only when its stamp exists, and the stamp is written last. An install that was cut
# short leaves `.installing` behind, with its process number; the next run then builds the environment anew rather than
# trust half a package.

PYTHON ?= python3
VENV ?= .venv
DEMO_EXTRAS ?= control
TEST_EXTRAS ?= dev,envs,features,formats,ray
ALL_EXTRAS := $(DEMO_EXTRAS),$(TEST_EXTRAS)
PROCGEN_EXTRAS := $(ALL_EXTRAS),procgen
WORKERS ?= auto
ARGS ?=

BIN := $(VENV)/bin
PINS := pyproject.toml constraints.txt
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet
export PATH := $(abspath $(BIN)):$(PATH):/usr/sbin:/sbin

.NOTPARALLEL:
.PHONY: help demo test bench lint format docs-check results procgen browser clean
.DEFAULT_GOAL := help

help:
	@echo "make demo        from action-free video to a policy that acts, in a few minutes; writes out/demo/report.html"
	@echo "make test        the whole test suite            (ARGS='-k clip' chooses, WORKERS=0 runs in one process)"
	@echo "make lint        ruff and mypy                   (make format writes what ruff would have)"
	@echo "make docs-check  runs the commands and checks the numbers of README.md and docs/"
	@echo "make bench       speed, as ratios against named peers, measured in one run"
	@echo "make results     every claimed number as one table, the failed ones first"
	@echo "make procgen     adds the Procgen simulator, which pip alone cannot install beside numpy 2"
	@echo "make browser     adds Chromium, in which a test opens the pages; without one it is skipped"

demo: $(VENV)/.ready
	$(BIN)/tacit demo $(ARGS)

test: $(VENV)/.whole
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder --durations=15 $(ARGS)

bench: $(VENV)/.whole
	@status=0; for file in clips step recipes; do \
	  echo "== $$file"; $(BIN)/python bench/$$file.py $(ARGS) || status=1; done; exit $$status

lint: $(VENV)/.whole
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.whole
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs-check: $(VENV)/.whole
	$(BIN)/python docs/check.py $(ARGS)

results: $(VENV)/.ready
	@$(BIN)/python docs/check.py --results

procgen: $(VENV)/.procgen

# Like the renderers: where that can be done without asking anybody, and else the test says what is missing.
browser:
	@for name in chromium chromium-browser google-chrome google-chrome-stable; do \
	  command -v $$name >/dev/null && exit 0; done; \
	command -v apt-get >/dev/null && [ "`id -u`" = 0 ] || exit 0; \
	echo "installing Chromium"; export DEBIAN_FRONTEND=noninteractive; \
	apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium >/dev/null || echo "that failed"

clean:
	rm -rf $(VENV) out .pytest_cache .mypy_cache .ruff_cache

# $(call install,EXTRAS): quick when everything is already there, and always an error when anything is not. What is
# installed is compiled on every core, which pip does on one; a few files in it are no Python 3, and stay as they are.
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "tacit needs Python 3.11 or later; $(PYTHON) is `$(PYTHON) -V 2>&1`. Try: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	@if [ -e $(VENV)/.installing ]; then \
	  other=`cat $(VENV)/.installing`; \
	  if kill -0 "$$other" 2>/dev/null; then \
	    echo "process $$other is installing into $(VENV); wait for it (if it is not: rm $(VENV)/.installing)"; exit 1; fi; \
	  echo "an earlier install was cut short: starting it anew"; rm -rf $(VENV); fi
	@mkdir -p $(VENV) && echo $$PPID > $(VENV)/.installing
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip
	@echo "installing tacit[$(1)] into $(VENV): about two minutes the first time"
	@$(PIP) install --no-compile -c constraints.txt -e '.[$(1)]' || { \
	  echo "the install failed: see above, then run make again."; exit 1; }
	@PYTHONWARNINGS=ignore $(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	@rm -f $(VENV)/.installing
endef

# Only the MuJoCo environments render through these. Without root or apt it is the tests of those that will say so.
define renderers
	@[ "`uname`" = Linux ] || exit 0; \
	if ldconfig -p | grep -q 'libEGL\.so\.1' && ldconfig -p | grep -qE 'lib(Open)?GL\.so\.[01]' \
	  && ls /usr/lib*/dri/*_dri.so /usr/lib/*/dri/*_dri.so 2>/dev/null | grep -q .; then exit 0; fi; \
	command -v apt-get >/dev/null && [ "`id -u`" = 0 ] || exit 0; \
	echo "installing the software renderer: libegl1 libopengl0 libgl1-mesa-dri"; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get update -qq && apt-get install -y -qq --no-install-recommends libegl1 libopengl0 libgl1-mesa-dri >/dev/null || \
	  echo "that failed; the MuJoCo environments may not render."
endef

# What the demo needs, and what everything needs.
$(VENV)/.ready: $(PINS)
	$(renderers)
	$(call install,$(DEMO_EXTRAS))
	@touch $@

$(VENV)/.whole: $(PINS)
	$(renderers)
	$(call install,$(ALL_EXTRAS))
	@touch $(VENV)/.ready $@

# Procgen's package asks for numpy below 2 and an old gym, and works without either: so it goes in without its wishes.
$(VENV)/.procgen: $(VENV)/.whole
	@echo "installing the Procgen simulator (Python 3.11 wheels only)"
	$(call install,$(PROCGEN_EXTRAS))
	@$(PIP) install -c constraints.txt --no-deps procgen-mirror gym3
	@touch $@
