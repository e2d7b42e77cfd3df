"""Constrained decoding that jumps ahead against plain greedy `generate`: passes of the language model, and time.

    make demo
    python benchmarks/jump_ahead.py --output outputs/bench.json
    python benchmarks/jump_ahead.py --model_name_or_path outputs/litegpt --data_dir prepared/vindr-cxr

A trained checkpoint answers [identify] for radiographs of its test split, alone and 16 at a time. Plain greedy
`generate` makes a pass for every token of the batch's longest answer. Times are those of the whole call, towers
included, from tensors; both ways answer the same 16 radiographs in turn, and a figure is the median of the paired
ratios. The answers must be those of ordinary constrained greedy decoding (plain `generate` with a logits processor),
token for token, or the program ends with an error. Weights are in float32; a GPU is used where there is one.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from unittest.mock import patch

import torch
from transformers import LogitsProcessorList

from litegpt.benchmarks.results import parsed, progress, record
from litegpt.datasets_scripts.rows import load_rows
from litegpt.modeling_litegpt import LiteGPTForConditionalGeneration
from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.processing import constrained_decoding
from litegpt.processing.processing_litegpt import LiteGPTProcessor

BATCH_SIZE = 16
Inputs = list[dict[str, torch.Tensor]]


def main(
    output: str, model_name_or_path: str, data_dir: str, cache_dir: str | None, images: int, max_new_tokens: int
) -> None:
    if not (Path(model_name_or_path) / "config.json").is_file():
        print(f"No checkpoint at {model_name_or_path}: nothing was measured (`make demo` trains one).")
        return
    model, processor = load_checkpoint(model_name_or_path, dtype=torch.float32)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.eval().to(device)
    rows = load_rows(data_dir, f"test[:{images}]", cache_dir, num_proc=1)
    has_findings = [bool(findings) for findings in rows["findings"][:]]
    inputs = [
        processor(images=image, text=processor.prompt("identify"), add_special_tokens=False, return_tensors="pt")
        .to(device)
        .data
        for image in progress(rows["image"], "reading")
    ]
    groups = [inputs[start : start + BATCH_SIZE] for start in range(0, len(inputs), BATCH_SIZE)]
    batches = [[{name: torch.cat([one[name] for one in group]) for name in group[0]}] for group in groups]

    greedy = {"max_new_tokens": max_new_tokens, "do_sample": False, "num_beams": 1}
    jump = {**greedy, "custom_generate": processor.constrained_greedy(), "return_dict_in_generate": True}
    for calls in (inputs, [batch for (batch,) in batches]):
        check_answers(model, processor, calls, greedy, jump)  # also the warm-up

    results, against = {}, "plain greedy generate of the same model ([identify], {})"
    for name, work in (("batch1", groups), ("batch16", batches)):
        ratios, plain_passes, passes = compare(model, work, greedy, jump)
        with patch.object(constrained_decoding, "LOOKAHEAD", 0):
            calls = progress([one for group in work for one in group], "without guesses")
            forced = [model.generate(**one, **jump).num_forward_passes for one in calls]
        print_passes(name, plain_passes, passes, forced)
        where = "one radiograph at a time" if name == "batch1" else f"{BATCH_SIZE} radiographs at a time"
        if name == "batch1":
            print_passes(
                f"{name}, with findings", *(kept(counts, has_findings) for counts in (plain_passes, passes, forced))
            )
            times_fewer = sum(plain_passes) / sum(passes)
            results["jump_ahead/passes"] = {"value": times_fewer, "unit": "x", "against": against.format(where)}
        results[f"jump_ahead/wall_{name}"] = {
            "value": statistics.median(ratios),
            "unit": "x",
            "against": against.format(where),
        }
    record(output, results)


def check_answers(
    model: LiteGPTForConditionalGeneration, processor: LiteGPTProcessor, calls: Inputs, greedy: dict, jump: dict
) -> None:
    """Ends the program where an answer is not that of ordinary constrained greedy decoding."""
    for number, call in enumerate(progress(calls, "checking answers")):
        processors = LogitsProcessorList([processor.answer_logits_processor(greedy["max_new_tokens"])])
        expected = model.generate(**call, **greedy, logits_processor=processors)
        if not torch.equal(model.generate(**call, **jump).sequences, expected):
            size = len(call["input_ids"])
            sys.exit(f"Call {number} of {size} radiographs: the answer is not that of ordinary constrained decoding.")


def compare(
    model: LiteGPTForConditionalGeneration, work: list[Inputs], greedy: dict, jump: dict
) -> tuple[list[float], list[int], list[int]]:
    """For each group of calls plain `generate`'s time divided by ours; for each call the passes of both."""
    ratios, plain_passes, passes = [], [], []
    for number, group in enumerate(progress(work, "plain and with jumps")):
        seconds, outputs = {}, {}
        for name in ("plain", "jump") if number % 2 else ("jump", "plain"):
            options = greedy if name == "plain" else jump
            start = time.perf_counter()
            outputs[name] = [model.generate(**call, **options) for call in group]
            if model.device.type == "cuda":
                torch.cuda.synchronize()
            seconds[name] = time.perf_counter() - start
        ratios.append(seconds["plain"] / seconds["jump"])
        lengths = [call["input_ids"].shape[1] for call in group]
        plain_passes += [tokens.shape[1] - length for tokens, length in zip(outputs["plain"], lengths, strict=True)]
        passes += [answer.num_forward_passes for answer in outputs["jump"]]
    return ratios, plain_passes, passes


def kept(counts: list[int], is_kept: list[bool]) -> list[int]:
    return [count for count, keep in zip(counts, is_kept, strict=True) if keep]


def print_passes(name: str, plain: list[int], jump: list[int], forced: list[int]) -> None:
    if not plain:
        return
    print(
        f"{name}: {statistics.mean(plain):.2f} passes a call by plain greedy generate, {statistics.mean(jump):.2f} "
        f"with jumps ahead ({sum(plain) / sum(jump):.2f} x fewer), {statistics.mean(forced):.2f} without guesses"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", default="outputs/demo/checkpoint")
    parser.add_argument("--data_dir", default="outputs/demo/phantoms")
    parser.add_argument("--cache_dir", default="outputs/demo/cache")
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--max_new_tokens", type=int, default=512)
    main(
        **parsed(
            parser,
            "passes and time of constrained decoding that jumps ahead, against plain greedy generate",
            seconds=240,
            quick={"images": 48},
            quick_seconds=60,
        )
    )
