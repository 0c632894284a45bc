# `make` alone lists the commands. Everything that is installed goes into the git-ignored folder .setup.
.DEFAULT_GOAL := help
.PHONY: help setup demo batch film evaluate train card quality bench gpu gpu-bundle soak faults manager inputs pages test \
	lint format parity workflows clean

PYTHON3 ?= python3
SETUP := $(or $(STEM_SETUP_DIR),.setup)
ifeq ($(OS),Windows_NT)
PYTHON := $(SETUP)/venv/Scripts/python.exe
else
PYTHON := $(SETUP)/venv/bin/python
endif
HOST := $(or $(COMFYUI_HOST),$(abspath $(SETUP))/host)
GOLDEN ?= $(wildcard ../shared/golden/a)

# Quoted by the shell rather than by make, so that paths and prompts may hold spaces and quotation marks.
export VIDEO CHECKPOINT SOURCE TARGET JOBS WORKFLOW OUT CUTS CLIPS PROMPTS CLIP_VISION CLIP_TEXT FLOW

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what the other commands need, once
	@"$(PYTHON3)" tools/launch.py host.environment

demo: setup ## edit a clip in a real ComfyUI: [ALL=1] [VIDEO=clip.mp4] [CHECKPOINT=sd15.safetensors] [SOURCE="..."] [TARGET="..."]
	@"$(PYTHON)" tools/launch.py demo --all="$(ALL)" --video="$$VIDEO" --checkpoint="$$CHECKPOINT" --source="$$SOURCE" --target="$$TARGET"

batch: setup ## edit many clips: JOBS=jobs.csv WORKFLOW=workflow.json OUT=folder [WORKERS=2] [ADDRESS=host:6379] [ARGS="--dry-run"]
	@"$(PYTHON)" batch run "$$JOBS" "$$WORKFLOW" "$$OUT" --comfyui "$(HOST)" --address "$(or $(ADDRESS),local)" \
		--workers $(if $(filter command line,$(origin WORKERS)),$(WORKERS),auto) $(ARGS)

film: setup ## edit a film shot by shot: VIDEO=film.mp4 OUT=folder SOURCE="..." TARGET="..." [CUTS=cuts.csv] [WORKFLOW=workflow.json]
	@"$(PYTHON)" batch film "$$VIDEO" "$$OUT" --comfyui "$(HOST)" --address "$(or $(ADDRESS),local)" \
		--source "$$SOURCE" --target "$$TARGET" $${CUTS:+--cuts "$$CUTS"} $${WORKFLOW:+--workflow "$$WORKFLOW"} \
		--workers $(if $(filter command line,$(origin WORKERS)),$(WORKERS),auto) $(ARGS)

evaluate: setup ## the paper's tables on your clips: CLIPS=folder PROMPTS=prompts.csv CHECKPOINT=sd15.safetensors [METHODS="..."] [ARGS=--help]
	@COMFYUI_HOST="$(HOST)" "$(PYTHON)" tools/launch.py measured.evaluate --clips="$$CLIPS" --prompts="$$PROMPTS" \
		$(if $(CHECKPOINT),--checkpoint="$$CHECKPOINT") --methods="$(METHODS)" --bases="$(BASES)" --size="$(SIZE)" \
		--frames="$(FRAMES)" --steps="$(STEPS)" --seed="$(SEED)" --clip-vision="$$CLIP_VISION" \
		--clip-text="$$CLIP_TEXT" --flow="$$FLOW" --out="$$OUT" --address "$(or $(ADDRESS),local)" \
		--workers $(if $(filter command line,$(origin WORKERS)),$(WORKERS),auto) $(ARGS)

# As many workers as CPU cores, each with one thread; on a GPU one is enough.
WORKERS ?= $(shell "$(PYTHON)" -c "import os, torch; print(1 if torch.cuda.is_available() else os.cpu_count())")
train: setup ## train the small model of the demo again, or go on: [WORKERS=2] [STEPS=n] [START=file]
	@OMP_NUM_THREADS=1 COMFYUI_HOST="$(HOST)" "$(PYTHON)" -m torch.distributed.run --standalone \
		--nproc-per-node=$(WORKERS) tools/launch.py small_model.training $(if $(STEPS),--steps $(STEPS)) $(if $(START),--start "$(START)")

card: setup ## measure what the small model has learned, write docs/model_card.json: [ARGS="--samples 512"]
	@COMFYUI_HOST="$(HOST)" "$(PYTHON)" tools/launch.py measured.model_card $(ARGS)

quality: setup ## measure reconstructions and edits with the small model, write docs/quality.md: [ARGS="--clips 24"]
	@COMFYUI_HOST="$(HOST)" "$(PYTHON)" tools/launch.py measured.quality $(ARGS)

bench: setup ## measure time and memory with SD1.5 at full size, write docs/benchmarks.md: [ARGS="--only inversion"]
	@OMP_NUM_THREADS=$(or $(OMP_NUM_THREADS),1) COMFYUI_HOST="$(HOST)" "$(PYTHON)" tools/launch.py measured.bench $(ARGS)

gpu: setup ## on an NVIDIA GPU: what only one can show, most important first, into docs/benchmarks.json: [ARGS="--minutes 8"]
	@COMFYUI_HOST="$(HOST)" "$(PYTHON)" tools/launch.py measured.gpu $(ARGS)

gpu-bundle: setup ## pack .setup/gpu, with which a machine with a GPU but no package index runs `make gpu`
	@COMFYUI_HOST="$(HOST)" "$(PYTHON)" tools/launch.py measured.gpu.bundle $(ARGS)

# Each process has a host of its own; a file's tests stay together.
PROCESSES ?= 3
test: setup lint ## run all tests: [PROCESSES=3]
	@OMP_NUM_THREADS=1 COMFYUI_HOST="$(HOST)" "$(PYTHON)" -m pytest -c tests/pytest.ini -n $(PROCESSES) --dist loadfile \
		--no-loadscope-reorder tests

lint: setup
	@"$(PYTHON)" -m ruff check .
	@"$(PYTHON)" -m ruff format --check .

format: setup ## format the code
	@"$(PYTHON)" -m ruff check --fix .
	@"$(PYTHON)" -m ruff format .

parity: setup ## compare with recorded results of the reference implementations: GOLDEN=folder
	@OMP_NUM_THREADS=1 COMFYUI_HOST="$(HOST)" "$(PYTHON)" tools/launch.py measured.parity --golden "$(GOLDEN)"

workflows: setup ## generate the workflows again
	@COMFYUI_HOST="$(HOST)" "$(PYTHON)" tools/launch.py shipped.workflows

soak: setup ## many runs in one host: memory, files, time; writes docs/soak.json: [ARGS="--runs 50"]
	@OMP_NUM_THREADS=1 COMFYUI_HOST="$(HOST)" "$(PYTHON)" tools/launch.py robustness.soak $(ARGS)

manager: setup ## install the last commit with ComfyUI-Manager into a fresh environment, and run it there
	@OMP_NUM_THREADS=1 COMFYUI_HOST="$(HOST)" "$(PYTHON)" tools/launch.py robustness.manager_install

faults: setup ## faults in a real host, and what the next run is worth; writes docs/faults.md: [ARGS="--only disk"]
	@OMP_NUM_THREADS=1 COMFYUI_HOST="$(HOST)" "$(PYTHON)" tools/launch.py robustness.faults $(ARGS)

pages: setup ## generate help pages and locales again: [ARGS="--pictures"]
	@OMP_NUM_THREADS=1 COMFYUI_HOST="$(HOST)" "$(PYTHON)" tools/launch.py shipped.pages $(ARGS)

inputs: setup ## odd clips, names, files, prompts and sizes through a real host, write docs/faults_inputs.json
	@OMP_NUM_THREADS=1 COMFYUI_HOST="$(HOST)" "$(PYTHON)" tools/launch.py robustness.inputs $(ARGS)

clean: ## remove outputs and caches; delete the folder .setup too to set up afresh
	rm -rf output .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path "./.setup/*" -prune -exec rm -rf {} +
