"""How fast LiteGPT answers on a GPU: the paper's model (7B) at batch 1 and 32, eager and compiled with a static cache.

    python benchmarks/gpu_generation.py --output outputs/bench.json
    python benchmarks/gpu_generation.py --device cpu --architecture tiny --new_tokens 8

Random weights in bfloat16 are made on the device: speed does not depend on their values. Decoding one token for every
radiograph of a batch has to read the language model's weights once, and the keys and values of all tokens so far. The
time that this takes at the bandwidth of a copy on the same device, measured in the same run, is the limit; the share
is the limit divided by the measured time. Eager is `generate` as it is; compiled is `generate` with
`cache_implementation="static"`, which compiles decoding (prefill stays eager).
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText, CompileConfig

from benchmarks.generate_vs_llava import NUM_TEXT_TOKENS, answer
from benchmarks.results import record
from modeling_litegpt import LiteGPTConfig, LiteGPTForConditionalGeneration

CONFIGS = Path(__file__).parents[1] / "modeling_litegpt" / "configs"
TINY_TOWER = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
TINY = {
    "vision_config": {"model_type": "vit", **TINY_TOWER},
    "aux_vision_config": {"model_type": "clip_vision_model", **TINY_TOWER},
    "text_config": {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 512,
    },
    "image_token_id": 3,
    "projector_hidden_size": 96,
}
AGAINST = "the speed at which weights, keys and values are read at the bandwidth of a copy"


def main(
    output: str, device: str, architecture: str, batch_sizes: Sequence[int], new_tokens: int, repeats: int
) -> None:
    on_gpu = torch.device(device).type == "cuda"
    if on_gpu and not torch.cuda.is_available():
        print("No GPU here: nothing was measured (--device cpu --architecture tiny runs the same code).")
        return
    wait = torch.cuda.synchronize if on_gpu else lambda: None
    config = architecture_config(architecture)
    with torch.device(device):
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16).eval()
    weights = decoding_bytes(model)
    bandwidth = copy_bandwidth(device, wait)
    name = torch.cuda.get_device_name(device) if on_gpu else device
    print(
        f"{architecture} on {name}: {model.num_parameters():,} parameters in bfloat16, {weights / 1e9:.2f} GB of "
        f"weights a token, {bandwidth / 1e9:.0f} GB/s copied"
    )
    print(f"{'batch':>5} {'mode':>8} {'prefill ms':>10} {'ms/token':>8} {'tokens/s':>8} {'limit ms':>8} {'share':>5}")
    results = {}
    for batch_size in batch_sizes:
        inputs = random_inputs(config, batch_size, device)
        tokens_so_far = inputs["input_ids"].shape[1] + new_tokens / 2
        limit = (weights + batch_size * tokens_so_far * key_value_bytes(config)) / bandwidth
        for mode in ("eager", "compiled"):
            options = {}
            if mode == "compiled":
                torch.compiler.reset()  # forgets what was compiled for another batch size
                options = {"cache_implementation": "static", "compile_config": compile_config()}
            for _ in range(2):  # warm-up: compilation, then the recording of CUDA graphs
                answer(model, inputs, new_tokens, wait, **options)
            runs = [answer(model, inputs, new_tokens, wait, **options)[:2] for _ in range(repeats)]
            prefill, step = (statistics.median(seconds) for seconds in zip(*runs, strict=True))
            print(
                f"{batch_size:>5} {mode:>8} {1000 * prefill:>10.1f} {1000 * step:>8.2f} {batch_size / step:>8.0f} "
                f"{1000 * limit:>8.2f} {limit / step:>5.0%}"
            )
            key = f"generation/{architecture}/batch_{batch_size}/{mode}"
            absolute = f"no reference (on {name})"
            results |= {
                f"{key}/prefill": {"value": prefill, "unit": "s", "against": absolute},
                f"{key}/speed": {"value": batch_size / step, "unit": "tokens/s", "against": absolute},
                f"{key}/share": {"value": limit / step, "unit": "x", "against": f"{AGAINST} ({name})"},
            }
    record(output, results)


def architecture_config(architecture: str) -> LiteGPTConfig:
    """The sizes of one of modeling_litegpt/configs, or `tiny` ones; ends the program where there is none."""
    file = CONFIGS / f"{architecture}.json"
    if architecture == "tiny":
        return LiteGPTConfig(**TINY)
    if not file.is_file():
        sys.exit(f"--architecture {architecture}: no {file.name} in {CONFIGS}, and it is not `tiny` either.")
    return LiteGPTConfig.from_json_file(file)


def decoding_bytes(model: LiteGPTForConditionalGeneration) -> int:
    """Bytes of the weights that one more token needs: the language model's layers and its head.

    The table of embeddings is not among them: of it a token reads one row.
    """
    read = [*model.model.language_model.parameters(), *model.lm_head.parameters()]
    return sum(p.nbytes for p in read) - model.get_input_embeddings().weight.nbytes


def key_value_bytes(config: LiteGPTConfig) -> int:
    """Bytes of keys and values that one token leaves in the cache, in bfloat16."""
    text = config.text_config
    return 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * torch.bfloat16.itemsize


def copy_bandwidth(device: str, wait: Callable[[], None]) -> float:
    """Bytes per second that a copy within the device's memory reads and writes; the best of ten."""
    size = (1 << 30) if torch.device(device).type == "cuda" else (1 << 28)  # far more than any cache holds
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    seconds = []
    for _ in range(10):
        wait()
        start = time.perf_counter()
        target.copy_(source)
        wait()
        seconds.append(time.perf_counter() - start)
    return 2 * size / min(seconds)


def random_inputs(config: LiteGPTConfig, batch_size: int, device: str) -> dict[str, torch.Tensor]:
    """Prompts of the same length with one radiograph each."""
    text = torch.randint(10, 300, (batch_size, NUM_TEXT_TOKENS), device=device)
    visual = torch.full((batch_size, config.num_visual_tokens), config.image_token_id, device=device)
    input_ids = torch.cat([visual, text], dim=1)
    pixels = [
        torch.randn(batch_size, 3, tower.image_size, tower.image_size, device=device, dtype=torch.bfloat16)
        for tower in config.tower_configs
    ]
    return {
        "input_ids": input_ids,
        "attention_mask": torch.ones_like(input_ids),
        **dict(zip(("pixel_values", "aux_pixel_values"), pixels, strict=False)),
    }


def compile_config() -> CompileConfig:
    """As `generate` compiles on a GPU, also on a CPU, but with no part left out and for this batch size only."""
    config = CompileConfig(fullgraph=True, dynamic=False)
    config._compile_all_devices = True
    return config


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", default="outputs/bench.json")
    parser.add_argument("--device", default="cuda", help="without a GPU nothing is measured, unless this says cpu")
    parser.add_argument("--architecture", default="litegpt", help="`tiny`, or one of modeling_litegpt/configs")
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--new_tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    main(**vars(parser.parse_args()))
