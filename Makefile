# Two commands matter: `make reproduce` and `make test`. Each sets everything up first; `make` alone lists all of them.
VENV ?= .venv
PYTHON ?= python3
BUDGET ?= laptop
TARGET ?= all
JOBS ?= 2

BIN := $(VENV)/bin
READY ?= $(VENV)/.ready
SPACE := 10
PEERS := kornia>=0.9,<0.10 lightly>=1.6,<2 albumentations>=2.0.8,<2.1
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))

.PHONY: help setup reproduce report lab peers bench bench-gpu wheels readme test test-export test-notebooks test-python
.DEFAULT_GOAL := help

help: ## Say what there is
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/make \1	\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

setup: $(READY) ## Make the environment in .venv (VENV=folder for another one)
	@echo "$(VENV) is ready"

# Made again only when settings.ini or setup.py changes. uv where it can be had, plain pip otherwise.
$(READY): settings.ini setup.py
	@set -e; python=; \
	for name in $(PYTHON) python3 python3.14 python3.13 python3.12 python3.11; do \
		if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then python="$$name"; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "Python 3.11 or newer is needed, and '$(PYTHON)' is: $$($(PYTHON) --version 2>&1 | head -1). Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11" >&2; exit 1; \
	fi; \
	if [ ! -x "$(BIN)/clusterlab" ]; then \
		mkdir -p "$(VENV)"; free=$$(( $$(df -Pk "$(VENV)" | awk 'NR == 2 {print $$4}') / 1048576 )); \
		if [ "$$free" -lt $(SPACE) ]; then \
			echo "The environment needs $(SPACE) GB of free disk, and $$(cd "$(VENV)" && pwd) has $$free GB. Free some, or put it elsewhere: make $(MAKECMDGOALS) VENV=/roomy/folder" >&2; exit 1; \
		fi; \
	fi; \
	echo "Setting up $(VENV) with $$("$$python" --version): about 7 GB, a minute with uv, three with pip."; \
	uv=; for try in uv "$$python -m uv"; do if $$try --version >/dev/null 2>&1; then uv="$$try"; break; fi; done; \
	if [ ! -x "$(BIN)/python" ]; then \
		if [ -n "$$uv" ]; then $$uv venv --quiet --allow-existing --seed --python "$$(command -v "$$python")" "$(VENV)"; \
		else "$$python" -m venv "$(VENV)" || { echo "Python's venv is missing. Install it (Debian: apt install python3-venv) or install uv." >&2; exit 1; }; fi; \
	fi; \
	if [ -z "$$uv" ] && "$(BIN)/python" -m pip install --quiet --disable-pip-version-check uv; then uv="$(BIN)/python -m uv"; fi; \
	if [ -n "$$uv" ]; then $$uv pip install --quiet --compile-bytecode --python "$(BIN)/python" -e '.[dev]'; \
	else "$(BIN)/python" -m pip install --quiet --disable-pip-version-check -e '.[dev]'; fi; \
	"$(BIN)/python" -m ipykernel install --sys-prefix --name python3 --display-name python3 >/dev/null; \
	"$(BIN)/python" -m jupyter kernelspec list 2>/dev/null | grep -q python3 || { echo "jupyter finds no kernel named python3 in $(VENV)." >&2; exit 1; }; \
	"$(BIN)/clusterlab" --help >/dev/null; \
	touch "$(READY)"

# FRESH=1 goes on where it stopped, as the usual command does.
reproduce: $(READY) ## Train what is missing, write tables and figures (FRESH=1: everything again, in fresh/; delete that folder to begin again)
	@"$(BIN)/clusterlab" reproduce $(TARGET) --budget $(BUDGET) --jobs $(JOBS) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(FRESH),--runs_root fresh/runs --out fresh)

report: $(READY) ## Write tables and figures from the records, without running anything
	@"$(BIN)/clusterlab" report

lab: $(READY) ## Open the notebooks in JupyterLab
	@"$(BIN)/jupyter" lab nbs/index.ipynb

# Only the benchmarks use them, and run without them: what is missing is said and left out. The bounds of settings.ini hold.
peers: $(READY)
	@for pip in "uv pip install --python $(BIN)/python" "$(BIN)/python -m uv pip install --python $(BIN)/python" "$(BIN)/python -m pip install --disable-pip-version-check"; do \
		if $$pip --help >/dev/null 2>&1; then sed -n 's/^requirements = //p' settings.ini | tr ' ' '\n' | $$pip --quiet -c /dev/stdin $(patsubst %,'%',$(PEERS)) && exit 0; fi; \
	done; echo "Other libraries could not be installed: $(PEERS)" >&2

bench: peers ## Measure speed on CPU cores that have nothing else to do, beside kornia, lightly and albumentations, which it installs, and write tables/speed.md (15 minutes)
	@set -e; for name in step knn kmeans views photos tsne unions growth trunk five; do echo "bench/$$name.py"; "$(BIN)/python" bench/$$name.py; done; "$(BIN)/python" bench/speed.py

# What broke or had no time is named, and the page is written from all the rest.
bench-gpu: peers ## The same on a GPU, the most valuable first, in 26 minutes (MINUTES=10: no part begins after so many; PARTS="step knn": only these)
	@"$(BIN)/python" bench/gpu.py $(PARTS) $(if $(MINUTES),--minutes $(MINUTES)); status=$$?; "$(BIN)/python" bench/speed.py && exit $$status

# What such a machine has is not asked for: torch, numpy and what stands on them. openTSNE is for maps of more points than a run draws.
wheels: $(READY) ## Fetch into wheels/ what a GPU machine without network lacks (Linux, Python 3.12, 5 MB)
	@set -e; rm -rf wheels; \
	bounds() { sed -n 's/^requirements = //p' settings.ini | tr ' ' '\n' | grep -E "^($$1)>="; }; \
	fetch() { "$(BIN)/python" -m pip download --quiet --dest wheels --only-binary=:all: --python-version 3.12 --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 "$$@"; }; \
	fetch $$(bounds 'fastcore|safetensors|jaxtyping|beartype|pydantic|tqdm'); \
	du -sh wheels

readme: $(READY) ## Write README.md from nbs/index.ipynb
	@"$(BIN)/python" tests/readme.py README.md

test: $(READY) ## Export and clean leave no difference, every notebook runs, pytest
	@started=$$(date +%s); \
	$(MAKE) --no-print-directory test-export && $(MAKE) --no-print-directory test-notebooks && $(MAKE) --no-print-directory test-python; \
	status=$$?; seconds=$$(( $$(date +%s) - started )); \
	if [ $$status = 0 ]; then echo "make test: everything passed in $$(( seconds / 60 )) min $$(( seconds % 60 )) s"; \
	else echo "make test: FAILED after $$(( seconds / 60 )) min $$(( seconds % 60 )) s" >&2; exit 1; fi

# A copy is exported into an empty package and cleaned, so that a deleted notebook leaves no module behind and your own edits stay yours.
test-export: $(READY)
	@set -e; echo "export and clean:"; copy=$$(mktemp -d); trap 'rm -rf "$$copy"' EXIT; bin=$$(cd "$(BIN)" && pwd); \
	cp -R settings.ini setup.py pyproject.toml README.md nbs "$$copy"; \
	find "$$copy" -name .ipynb_checkpoints -prune -exec rm -rf {} +; cp -R "$$copy/nbs" "$$copy/kept"; \
	(cd "$$copy" && PATH="$$bin:$$PATH" nbdev_export && PATH="$$bin:$$PATH" nbdev_clean); \
	diff -r -x __pycache__ "$$copy/clusterlab" clusterlab >"$$copy/said" || { head -40 "$$copy/said"; echo "clusterlab/ is not what the notebooks export: run nbdev_export, and delete modules whose notebook is gone" >&2; exit 1; }; \
	diff -r "$$copy/nbs" "$$copy/kept" >"$$copy/said" || { head -40 "$$copy/said"; echo "nbs/ is not clean: run nbdev_clean" >&2; exit 1; }; \
	echo "no difference"

test-notebooks: $(READY)
	@echo "every notebook:"; PATH="$$(cd "$(BIN)" && pwd):$$PATH" OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 nbdev_test --n_workers 2

test-python: $(READY)
	@PATH="$$(cd "$(BIN)" && pwd):$$PATH" OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 python -m pytest --durations=5
