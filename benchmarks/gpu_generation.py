"""How fast LiteGPT answers on a GPU: the paper's 7B model at batch 1 and 32, plain and constrained, with jumps ahead.

    python benchmarks/gpu_generation.py --output outputs/bench.json
    python benchmarks/gpu_generation.py --device cpu --architecture tiny --modes eager jump_ahead

Random weights in bfloat16 are made on the device: speed does not depend on their values. Decoding one token for every
radiograph of a batch has to read the language model's weights once, and the keys and values of all tokens so far. The
time that this takes at the bandwidth of a copy on the same device, measured in the same run, is the limit; the share
is the limit divided by the measured time. Eager is `generate` as it is; compiled is `generate` with
`cache_implementation="static"`, which compiles decoding (prefill stays eager).

The other modes answer in the answer language, greedily, in the same decoding loop: `constrained` reads a token a pass;
`jump_certain` also reads with it what the grammar leaves no choice about; `jump_ahead` also guesses, as `predict.py`
does; `jump_compiled` does so by compiled passes of a fixed width (`block_reader.py`), CUDA graphs on a GPU, whose
share of the limit is given too: of a pass over all rows and up to 16 tokens of each. Answers name findings as long as
there is room. Figures are tokens of answers a second, of the whole call, and tokens a pass beside those of
`constrained`. How many guesses are right is the weights' doing, and random ones tell nothing about trained ones
(`jump_ahead.py` measures a trained checkpoint); what is certain hangs on the grammar alone.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm
from transformers import AutoModelForImageTextToText, CompileConfig

from litegpt.benchmarks.generate_vs_llava import NUM_TEXT_TOKENS, answer
from litegpt.benchmarks.measured_training import SIDE, processor_for
from litegpt.benchmarks.results import merge, parsed, progress
from litegpt.modeling_litegpt import LiteGPTConfig, LiteGPTForConditionalGeneration
from litegpt.processing import constrained_decoding
from litegpt.processing.answer_automaton import State
from litegpt.processing.answer_grammar import AnswerGrammar
from litegpt.processing.block_reader import CompiledPass
from litegpt.processing.constrained_decoding import ConstrainedGreedyOutput
from litegpt.processing.processing_litegpt import LiteGPTProcessor

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
PLAIN, CONSTRAINED = ("eager", "compiled"), ("constrained", "jump_certain", "jump_ahead", "jump_compiled")
MODES = (*PLAIN, *CONSTRAINED)
WARM_UP = 2  # calls: compilation, then the recording of CUDA graphs
LOOKAHEAD = constrained_decoding.LOOKAHEAD
AGAINST = "the speed at which weights, keys and values are read at the bandwidth of a copy"


def main(
    output: str,
    device: str,
    architecture: str,
    modes: Sequence[str],
    batch_sizes: Sequence[int],
    new_tokens: int,
    repeats: int,
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
        f"weights a token, {bandwidth / 1e9:.0f} GB/s copied",
        flush=True,
    )
    processor = processor_for(config)
    if set(modes) & set(CONSTRAINED):
        keep_answering(model, processor.answer_grammar)
    speeds = {}  # of the constrained modes, by batch size and mode

    def calls(call: Callable[[], Any]) -> list:
        """What `call` returns, as often as it counts after the warm-up."""
        returned = []
        for _ in range(WARM_UP + repeats):
            returned.append(call())
            bar.update()
        return returned[WARM_UP:]

    with progress(None, "calls", total=len(batch_sizes) * len(modes) * (WARM_UP + repeats)) as bar:
        for batch_size in batch_sizes:
            for mode in modes:
                if mode in PLAIN:
                    inputs = random_inputs(config, batch_size, device)
                    prefill, step = plain_seconds(model, inputs, mode, new_tokens, wait, calls)
                    speed = batch_size / step
                    figures = {"prefill": (prefill, "s", None)}
                else:
                    inputs = questions(processor, batch_size, device)
                    speed, per_pass, step = constrained_speed(model, processor, inputs, mode, new_tokens, wait, calls)
                    speeds[batch_size, mode] = speed
                    figures = {"tokens_a_pass": (per_pass, "tokens", "1 of constrained decoding without jumps")}
                    if one_token_a_pass := speeds.get((batch_size, "constrained")):
                        figures["gain"] = (speed / one_token_a_pass, "x", "constrained decoding without jumps")
                if step is not None:
                    tokens_so_far = inputs["input_ids"].shape[1] + new_tokens / 2
                    limit = (weights + batch_size * tokens_so_far * key_value_bytes(config)) / bandwidth
                    figures["share"] = (limit / step, "x", AGAINST)
                figures["speed"] = (speed, "tokens/s", None)
                shown = ", ".join(f"{figure} {value:.3g} {unit}" for figure, (value, unit, _) in figures.items())
                tqdm.write(f"batch {batch_size}, {mode}: {shown}")
                merge(
                    output,
                    {
                        f"generation/{architecture}/batch_{batch_size}/{mode}/{figure}": {
                            "value": value,
                            "unit": unit,
                            "against": f"{against or 'no reference'} (on {name})",
                        }
                        for figure, (value, unit, against) in figures.items()
                    },
                )


def keep_answering(model: LiteGPTForConditionalGeneration, grammar: AnswerGrammar) -> None:
    """Lets random weights name findings as long as there is room: an answer of a few tokens would measure little."""
    bias = torch.zeros(model.lm_head.out_features, dtype=model.dtype, device=model.device)
    for node, tokens in enumerate(grammar.allowed):
        ending = [token for token in tokens if constrained_decoding._ends(grammar, State(node), token)]
        if len(ending) < len(tokens):  # where nothing else may follow, they still do
            bias[ending] = -1000
    model.lm_head.bias = torch.nn.Parameter(bias, requires_grad=False)


def plain_seconds(
    model: LiteGPTForConditionalGeneration,
    inputs: dict[str, torch.Tensor],
    mode: str,
    new_tokens: int,
    wait: Callable[[], None],
    calls: Callable[[Callable[[], Any]], list],
) -> tuple[float, float]:
    """Seconds to the first token's logits, and of a further token, by plain `generate`, eager or compiled."""
    options = {}
    if mode == "compiled":
        torch.compiler.reset()  # forgets what was compiled for another batch size
        options = {"cache_implementation": "static", "compile_config": compile_config()}
    runs = calls(lambda: answer(model, inputs, new_tokens, wait, **options)[:2])
    prefill, step = (statistics.median(seconds) for seconds in zip(*runs, strict=True))
    return prefill, step


def constrained_speed(
    model: LiteGPTForConditionalGeneration,
    processor: LiteGPTProcessor,
    inputs: dict[str, torch.Tensor],
    mode: str,
    new_tokens: int,
    wait: Callable[[], None],
    calls: Callable[[Callable[[], Any]], list],
) -> tuple[float, float, float | None]:
    """Tokens of answers a second, tokens that a pass adds to an answer, and seconds of a compiled pass, if it is one.

    An answer ends within `new_tokens`, or the fewest that the grammar can do with.
    """
    pad = processor.tokenizer.pad_token_id
    options = {
        "custom_generate": processor.constrained_greedy(mode != "constrained", compiled=mode == "jump_compiled"),
        "return_dict_in_generate": True,
        "max_new_tokens": max(new_tokens, processor.answer_grammar.least_room("identify")),
        "do_sample": False,
        "pad_token_id": pad,
    }

    def timed() -> tuple[float, ConstrainedGreedyOutput]:
        wait()
        start = time.perf_counter()
        output = model.generate(**inputs, **options)
        wait()
        return time.perf_counter() - start, output

    steps: dict[int, list[float]] = {}  # by rows
    read = CompiledPass.read

    def timed_read(compiled: CompiledPass, lines: torch.Tensor, most_read: int) -> tuple[torch.Tensor, ...]:
        wait()
        start = time.perf_counter()
        output = read(compiled, lines, most_read)
        wait()
        steps.setdefault(len(lines), []).append(time.perf_counter() - start)
        return output

    guesses = LOOKAHEAD if mode in ("jump_ahead", "jump_compiled") else 0
    with patch.object(constrained_decoding, "LOOKAHEAD", guesses), patch.object(CompiledPass, "read", timed_read):
        seconds, outputs = zip(*calls(timed), strict=True)
    output = outputs[-1]
    tokens = (output.sequences[:, inputs["input_ids"].shape[1] :] != pad).sum().item()
    rows = len(output.sequences)
    # As answers end, passes are over fewer rows.
    step = statistics.median(steps[max(steps)]) if steps else None
    return tokens / statistics.median(seconds), tokens / rows / output.num_forward_passes, step


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


def questions(processor: LiteGPTProcessor, batch_size: int, device: str) -> dict[str, torch.Tensor]:
    """The prompt of [identify] about one radiograph of noise each."""
    noise = np.random.default_rng(0).integers(0, 256, (batch_size, SIDE, SIDE), dtype=np.uint8)
    inputs = processor(
        images=[Image.fromarray(picture) for picture in noise],
        text=[processor.prompt("identify")] * batch_size,
        add_special_tokens=False,
        return_tensors="pt",
    ).to(device)
    return {
        name: tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor for name, tensor in inputs.items()
    }


def compile_config() -> CompileConfig:
    """As `generate` compiles on a GPU, also on a CPU, but with no part left out and for this batch size only."""
    config = CompileConfig(fullgraph=True, dynamic=False)
    config._compile_all_devices = True
    return config


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", help="without a GPU nothing is measured, unless this says cpu")
    parser.add_argument("--architecture", default="litegpt", help="`tiny`, or one of modeling_litegpt/configs")
    parser.add_argument("--modes", nargs="+", choices=MODES, default=list(MODES))
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--new_tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    main(
        **parsed(
            parser,
            "how fast the 7B model answers, against reading its weights at the speed of a copy",
            seconds=400,
            quick={"new_tokens": 64, "repeats": 1},
            quick_seconds=200,
            where="an H100 (an estimate; without a GPU nothing is measured)",
        )
    )
