"""Prefill and decode of `generate`: LiteGPT against transformers' LLaVA of the same sizes, one radiograph at a time.

    python benchmarks/generate_vs_llava.py --output outputs/bench.json

Prefill is the time from the call to the first token's logits (towers, projector, prompt), decode the time of one more
token. The models answer in turn; a figure is the median of the paired ratios, LiteGPT's divided by LLaVA's. What is
recorded is LiteGPT with two towers. Printed beside: LiteGPT with LLaVA's one tower and LLaVA's weights, whose answer
must be LLaVA's, token for token. Weights are random, in float32.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from transformers import LlavaForConditionalGeneration, LogitsProcessor, LogitsProcessorList, PreTrainedModel, set_seed

from litegpt.benchmarks.results import against_llava, paired_ratio, parsed, progress, record
from litegpt.benchmarks.same_size_llava import (
    IMAGE_SIZE,
    IMAGE_TOKEN_ID,
    NUM_VISUAL_TOKENS,
    same_size_configs,
)
from litegpt.modeling_litegpt import LiteGPTForConditionalGeneration

VOCAB_SIZE = 32008
NUM_TEXT_TOKENS = 40  # about as many as the prompt of `[identify]` has around its radiograph


class Clock(LogitsProcessor):
    """Notes when the logits of each token are there; changes nothing."""

    def __init__(self, wait: Callable[[], None]):
        self.wait = wait
        self.times: list[float] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        self.wait()
        self.times.append(time.perf_counter())
        return scores


def main(output: str, hidden_size: int, num_layers: int, new_tokens: int, repeats: int) -> None:
    set_seed(0)
    two_towers, one_tower, llava = same_size_configs(hidden_size, num_layers, VOCAB_SIZE)
    models = {
        "LLaVA": LlavaForConditionalGeneration(llava),
        "LiteGPT": LiteGPTForConditionalGeneration(two_towers),
        "LiteGPT with LLaVA's weights": LiteGPTForConditionalGeneration(one_tower),
    }
    models["LiteGPT with LLaVA's weights"].load_state_dict(models["LLaVA"].state_dict(), assign=True)
    for name, model in models.items():
        model.eval()
        print(f"{name}: {model.num_parameters():,} parameters", flush=True)

    pixel_values = torch.randn(1, 3, IMAGE_SIZE, IMAGE_SIZE)
    text = torch.randint(10, VOCAB_SIZE, (1, NUM_TEXT_TOKENS))
    inputs = {
        "input_ids": torch.cat([torch.full((1, NUM_VISUAL_TOKENS), IMAGE_TOKEN_ID), text], dim=1),
        "pixel_values": pixel_values,
    }
    calls = {name: inputs for name in models} | {"LiteGPT": inputs | {"aux_pixel_values": pixel_values}}
    answers = {name: answer(model, calls[name], new_tokens)[2] for name, model in models.items()}  # also the warm-up
    if not torch.equal(answers["LiteGPT with LLaVA's weights"], answers["LLaVA"]):
        sys.exit("With LLaVA's weights LiteGPT does not answer as LLaVA does: this compares different networks.")

    prefill: dict[str, list[float]] = {name: [] for name in models}
    decode: dict[str, list[float]] = {name: [] for name in models}
    for repeat in progress(range(repeats), "repeats"):
        for name in models if repeat % 2 else reversed(models):
            seconds = answer(models[name], calls[name], new_tokens)
            prefill[name].append(seconds[0])
            decode[name].append(seconds[1])
    for name in models:
        print(
            f"{name}: prefill {1000 * statistics.median(prefill[name]):.0f} ms ({paired_ratio(prefill, name):.3f} x), "
            f"{1 / statistics.median(decode[name]):.1f} tokens/s ({paired_ratio(decode, name):.3f} x the time)"
        )
    record(
        output,
        {
            "prefill_vs_llava": against_llava(prefill, "the time to the first token of"),
            "decode_vs_llava": against_llava(decode, "the time for a further token of"),
        },
    )


def answer(
    model: PreTrainedModel,
    inputs: dict[str, torch.Tensor],
    new_tokens: int,
    wait: Callable[[], None] = lambda: None,
    **kwargs,
) -> tuple[float, float, torch.Tensor]:
    """Seconds to the first token's logits, seconds that a further token takes (the median), and the tokens.

    Args:
        wait: returns when the device has done its work; a CPU has by the time it is called.
        kwargs: go to `generate`.
    """
    clock = Clock(wait)
    wait()
    start = time.perf_counter()
    tokens = model.generate(
        **inputs,
        max_new_tokens=new_tokens,
        min_new_tokens=new_tokens,
        do_sample=False,
        pad_token_id=0,
        logits_processor=LogitsProcessorList([clock]),
        **kwargs,
    )
    steps = [later - earlier for earlier, later in zip(clock.times, clock.times[1:], strict=False)]
    return clock.times[0] - start, statistics.median(steps), tokens


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden_size", type=int, default=768, help="of towers and language model, a multiple of 24")
    parser.add_argument("--num_layers", type=int, default=12, help="of LLaVA's tower and of the language model, even")
    parser.add_argument("--new_tokens", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=11)
    main(
        **parsed(
            parser,
            "prefill and decode of LiteGPT, against transformers' LLaVA of the same sizes",
            seconds=180,
            quick={"new_tokens": 8, "repeats": 3},
            quick_seconds=40,
        )
    )
