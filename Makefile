# `make demo` and `make test` need python3 (3.11 to 3.13), a C++ compiler and make; the rest is set up once
# in .venv and used again. `make gpu` needs no .venv: it uses the machine's own python3 and PyTorch.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.imagen-fast-installed
NATIVE := setup.py CMakeLists.txt $(shell find csrc -type f)
# The benchmark suites; a new one joins here.
SUITES ?= attention decode dropin pixels sample train
RESULTS := benchmarks/results
REPORT = $(BIN)/imagen-fast bench report $(RESULTS)/
SITE := build/site
# -P: with this folder on the path, transformers would take kernels/ for the package of that name.
PYTEST := $(BIN)/python -P -m pytest -q

.PHONY: help install demo test lint format build bench fuzz gpu traces aot tables docs clean
.DEFAULT_GOAL := help

help:
	@echo "make demo | test | lint | format | build | bench | fuzz | gpu | traces | aot | tables | docs | clean"

# --- the environment ----------------------------------------------------------------------------------

install: $(INSTALLED)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || \
	{ echo "imagen_fast needs Python 3.11 to 3.13, not `$(PYTHON) --version 2>&1`; make PYTHON=python3.12 names another."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# The build requirements live in .venv too: with the same paths each time, only what changed is compiled.
$(INSTALLED): pyproject.toml $(NATIVE) | $(BIN)/python
	@echo "setting up $(VENV)"
	@$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' \
		> $(VENV)/build-requirements.txt
	$(BIN)/python -m pip install --quiet -r $(VENV)/build-requirements.txt
	@# The warnings are about what an editable install is; ours are printed below.
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --no-build-isolation -e '.[dev]'
	@$(BIN)/python -c 'from imagen_fast import native; left = native.build_info()["left_out"]; left and print("built without", left)'
	@touch $@

# --- the jobs -----------------------------------------------------------------------------------------

demo: $(INSTALLED)
	$(BIN)/imagen-fast demo --out out/demo

# The kernels' tests start a run of their own under Triton's interpreter, which is chosen at its import.
# A file runs whole on one processor, so that it makes what its tests share once. One thread each: two pools of
# waiting threads on the same processors take four times as long.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(PYTEST) -m "not gpu" \
		--numprocesses logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	find csrc tests -name "*.h" -o -name "*.cpp" -o -name "*.cu" | xargs $(BIN)/clang-format --dry-run -Werror

format: $(INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	find csrc tests -name "*.h" -o -name "*.cpp" -o -name "*.cu" | xargs $(BIN)/clang-format -i

build: $(INSTALLED)
	rm -rf build/lib* build/bdist*
	$(BIN)/python -m build --no-isolation --outdir dist

bench: $(INSTALLED)
	mkdir -p $(RESULTS)
	for suite in $(SUITES); do \
		$(BIN)/imagen-fast bench $$suite --device cpu --json $(RESULTS)/$$suite-cpu.json || exit 1; \
		$(BIN)/imagen-fast bench $$suite --curves --json $(RESULTS)/$$suite-curves-cpu.json || exit 1; \
	done

# The decoder under sanitizers: files of every odd kind, and a million mutations of them.
MUTATIONS ?= 1000000
SEED ?= 1
fuzz: $(INSTALLED)
	$(BIN)/python tests/jpegs/odd_jpegs.py build/fuzz/corpus
	cmake -S tests/fuzz -B build/fuzz/program
	cmake --build build/fuzz/program --parallel
	build/fuzz/program/fuzz_decode $(MUTATIONS) $(SEED) build/fuzz/corpus/*.jpg

aot: $(INSTALLED)
	$(BIN)/python -P -m imagen_fast.kernels.aot

# Where the figures of a suite stand.
PAGE_attention := docs/attention-cpu.md
PAGE_decode := docs/decode-cpu.md
PAGE_dropin := docs/accelerate.md
PAGE_pixels := docs/pixels-cpu.md
PAGE_sample := docs/pixels-cpu.md
PAGE_train := README.md

# All tables and pictures that are made from records or from compiled kernels.
tables: $(INSTALLED)
	$(foreach suite,$(SUITES),$(REPORT)$(suite)-cpu.json --readme $(PAGE_$(suite)) && \
	$(REPORT)$(suite)-curves-cpu.json --readme $(PAGE_$(suite)) --pictures docs/pictures &&) true
	$(BIN)/python -P -m imagen_fast.kernels.aot --markdown
	$(BIN)/python -P -m imagen_fast.benchmarks.operations

docs: $(INSTALLED)
	$(BIN)/python -P -m sphinx -q -W --keep-going docs $(SITE)
	@echo "the site is in $(SITE)/index.html"

# For a machine with a GPU, on which nothing need be downloaded. A failed test keeps no benchmark from
# running, and a native build that fails keeps nothing from it: the status says at the end that something did.
gpu:
	@status=0; out="$${OUT:-$(RESULTS)}"; mkdir -p "$$out"; \
	export PIP_BREAK_SYSTEM_PACKAGES=1; \
	install="$(PYTHON) -m pip install --no-build-isolation --no-deps -e ."; \
	$$install || { status=1; IMAGEN_FAST_NATIVE=OFF $$install; }; \
	$(PYTHON) -P -m pytest -m gpu || status=1; \
	for suite in $(SUITES); do \
		$(PYTHON) -P -m imagen_fast bench $$suite --device cuda --json "$$out/$$suite.json" || status=1; \
	done; \
	exit $$status

# The programs that are held up on purpose, recorded for the profiler's tests: some five minutes on a machine that
# does nothing else, with a GPU or without.
traces:
	PYTHONPATH=tests/profiling $(firstword $(wildcard $(BIN)/python) $(PYTHON)) -P tests/profiling/record_traces.py

clean:
	rm -rf build dist out *.egg-info imagen_fast/native/*.so .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
