import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from transformers import LlavaForConditionalGeneration

from litegpt.benchmarks.load_vs_llava import ROUTES
from litegpt.benchmarks.results import paired_ratio
from litegpt.benchmarks.same_size_llava import same_size_configs
from litegpt.modeling_litegpt import LiteGPTForConditionalGeneration

ROOT = Path(__file__).parents[2]


def test_a_quick_run_records_time_and_memory_of_loading(tmp_path):
    options = ["--output", str(tmp_path / "bench.json"), "--hidden_size", "48", "--num_layers", "2", "--repeats", "1"]
    process = subprocess.run(
        [sys.executable, "benchmarks/load_vs_llava.py", *options],
        cwd=ROOT,
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    results = json.loads((tmp_path / "bench.json").read_text())
    assert set(results) == {"load_vs_llava", "load_memory_vs_llava"}
    assert all(result["value"] > 0 and result["unit"] == "x" for result in results.values())
    assert all(process.stdout.count(f"  {route}: ") == 2 for route in ROUTES)
    # The third route loads what lies in the checkpoint: its code went through the cache of such modules.
    assert list((tmp_path / "modules").glob("**/modeling_litegpt.py"))


def test_a_ratio_is_ours_divided_by_llavas_and_the_median_of_pairs():
    values = {"LLaVA": [1.0, 2.0, 10.0], "LiteGPT": [2.0, 2.0, 15.0]}
    assert paired_ratio(values, "LiteGPT") == 1.5


def test_models_that_are_compared_have_the_same_sizes():
    with torch.device("meta"):
        two_towers, one_tower, llava = (
            model_class(config)
            for model_class, config in zip(
                (LiteGPTForConditionalGeneration, LiteGPTForConditionalGeneration, LlavaForConditionalGeneration),
                same_size_configs(768, 12, 32008),
                strict=True,
            )
        )
    shapes = {name: tensor.shape for name, tensor in llava.state_dict().items()}
    assert {name: tensor.shape for name, tensor in one_tower.state_dict().items()} == shapes
    assert two_towers.config.num_visual_tokens == llava.config.image_seq_length
    second_patch_embedding = 32 * 32 * 3 * 768
    surplus = two_towers.num_parameters() - llava.num_parameters()
    assert 0 <= surplus - second_patch_embedding < 0.001 * llava.num_parameters()
