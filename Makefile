# make demo   set up, then pretrain a tiny model on real clips, finetune it, make the table (5 minutes after the set-up)
# make look   what the demo's model sees: interpolation, tracking, attention, embeddings, a page (under 2 minutes)
# make objects  a video and an image model that saw the same frames: objects from few labels, all corruptions (4 minutes)
# make replicate  the paper's four claims at toy scale, from raw footage to a page with verdicts (SCALE=small: under an hour on 2 cores)
# make test   set up (Slurm, a headless browser and FFmpeg, too, on Debian or Ubuntu as root), then run all tests in JOBS=2 processes
# make check  lint, and the quick tests: no Slurm, browser or FFmpeg is needed, under 3 minutes on 2 cores; before each push
# make lint   ruff and mypy (lint-style and lint-types run one of the two)
# make faults break a training job in every way that a cluster does, on a real Slurm, about 50 minutes
# make same   run the demo's pretraining and one cell four times, killed and with other workers, and compare every file, 15 to 30 minutes
# make gpu    check and measure on one GPU, MINUTES=10 minutes; also on a machine that has torch alone and no network. With $(VENV)
#             it then replicates the claims at SCALE=gpu, 8 minutes
# make bench  measure speed and memory against their targets, about 25 minutes
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
JOBS ?= 2
MINUTES ?= 10
SCALE ?= small
GPU_PYTHON = $(firstword $(wildcard $(BIN)/python) $(PYTHON))

.PHONY: demo look objects replicate test check lint lint-style lint-types same bench faults gpu

$(VENV)/.ready: requirements.txt tests/requirements.txt pyproject.toml
	@[ ! -x $(BIN)/python ] || $(BIN)/python tests/setup/check_venv.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --no-compile --requirement tests/requirements.txt
	touch $@

demo: $(VENV)/.ready
	$(BIN)/python jobs/demo.py

look: $(VENV)/.ready
	$(BIN)/python jobs/submit/example/demo_look.py

objects: $(VENV)/.ready
	$(BIN)/python jobs/submit/example/demo_objects.py

replicate: $(VENV)/.ready
	$(BIN)/python jobs/submit/example/replicate.py --scale $(SCALE) $(if $(FOOTAGE),--footage "$(FOOTAGE)") \
		$(if $(LABELLED),--labelled "$(LABELLED)" --split-by '$(SPLIT_BY)') $(if $(OUT),--out "$(OUT)")

test: $(VENV)/.ready
	bash tests/slurm/install.sh
	bash tests/setup/install_browser.sh
	bash tests/setup/install_ffmpeg.sh
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations=25

check: lint
	$(BIN)/python -m pytest --quick -n $(JOBS) --dist loadfile --no-loadscope-reorder

lint: lint-style lint-types

lint-style: $(VENV)/.ready
	$(BIN)/ruff check .

lint-types: $(VENV)/.ready
	$(BIN)/mypy

faults: $(VENV)/.ready
	bash tests/slurm/install.sh
	$(BIN)/python -m tests.slurm.faults

same: $(VENV)/.ready
	$(BIN)/python -m tests.same.run

bench: $(VENV)/.ready
	$(BIN)/python -m tests.bench.run

gpu:
	[ -f tests/gpu/bundle/bundle.json ] || $(GPU_PYTHON) tests/gpu/bundle.py
	$(GPU_PYTHON) tests/gpu/run.py --minutes $(MINUTES) --out gpu-results; done=$$?; \
		if [ -x $(BIN)/python ]; then $(BIN)/python jobs/submit/example/replicate.py --scale gpu --out gpu-results/replicate || exit 1; \
		else echo "make replicate SCALE=gpu was left out: it needs all of tests/requirements.txt in $(VENV)" >&2; fi; exit $$done
