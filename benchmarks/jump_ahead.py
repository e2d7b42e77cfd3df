"""Constrained decoding that jumps ahead against plain greedy `generate`: passes of the language model, and time.

    make demo
    python benchmarks/jump_ahead.py --output outputs/bench.json
    python benchmarks/jump_ahead.py --model_name_or_path outputs/litegpt --data_dir prepared/vindr-cxr

A trained checkpoint answers [identify] for radiographs of its test split, alone and 16 at a time. Plain greedy
`generate` makes a pass for every token of the batch's longest answer. Times are those of the whole call, towers
included, from tensors; all ways answer the same 16 radiographs in turn, and a figure is the median of the paired
ratios. What towers and prompt take, which no way of decoding makes shorter, is timed too: the ratio of the rest is
that of decoding. With `--compiled` passes are compiled as well, and with `--before` the same is asked of an earlier
commit of this repository, in the same run. The answers must be those of ordinary constrained greedy decoding (plain
`generate` with a logits processor), token for token, or the program ends with an error. Weights are in float32; a GPU
is used where there is one.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, fields
from pathlib import Path
from unittest.mock import patch

import torch
from transformers import LogitsProcessorList

from litegpt.benchmarks.predict_speed import taken_from_git
from litegpt.benchmarks.results import parsed, progress, read, record
from litegpt.datasets_scripts.rows import load_rows
from litegpt.modeling_litegpt import LiteGPTForConditionalGeneration
from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.processing import constrained_decoding
from litegpt.processing.processing_litegpt import LiteGPTProcessor

BATCH_SIZE = 16
Inputs = list[dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Asked:
    """What is asked of whom: of a checkpoint, about the first images of a data set's test split."""

    model_name_or_path: str
    data_dir: str
    cache_dir: str | None
    images: int
    max_new_tokens: int


def main(output: str, asked: Asked, compiled: bool = False, before: str | None = None) -> None:
    """Measures and records.

    Args:
        compiled: compiled passes as well.
        before: a commit of this repository that is measured as well.
    """
    if not (Path(asked.model_name_or_path) / "config.json").is_file():
        print(f"No checkpoint at {asked.model_name_or_path}: nothing was measured (`make demo` trains one).")
        return
    model, processor = load_checkpoint(asked.model_name_or_path, dtype=torch.float32)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.eval().to(device)
    rows = load_rows(asked.data_dir, f"test[:{asked.images}]", asked.cache_dir, num_proc=1)
    has_findings = [bool(findings) for findings in rows["findings"][:]]
    inputs = [
        processor(images=image, text=processor.prompt("identify"), add_special_tokens=False, return_tensors="pt")
        .to(device)
        .data
        for image in progress(rows["image"], "reading")
    ]
    groups = [inputs[start : start + BATCH_SIZE] for start in range(0, len(inputs), BATCH_SIZE)]
    batches = [[{name: torch.cat([one[name] for one in group]) for name in group[0]}] for group in groups]

    greedy = {"max_new_tokens": asked.max_new_tokens, "do_sample": False, "num_beams": 1}
    jump = {**greedy, "custom_generate": processor.constrained_greedy(), "return_dict_in_generate": True}
    compiled_passes = {"custom_generate": processor.constrained_greedy(compiled=True)}
    for calls in (inputs, [batch for (batch,) in batches]):
        for ours in (jump, {**jump, **compiled_passes})[: 1 + compiled]:
            check_answers(model, processor, calls, greedy, ours)  # also the warm-up

    results, against = {}, "plain greedy generate of the same model ([identify], {})"
    for name, work in (("batch1", groups), ("batch16", batches)):
        ways = {"plain": greedy, "jump": jump} | ({"compiled": {**jump, **compiled_passes}} if compiled else {})
        seconds, plain_passes, passes = compare(model, work, ways)
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
        print_seconds(name, seconds)
        prompt = seconds.pop("prompt")
        for way in ("jump", "compiled")[: 1 + compiled]:
            suffix = "" if way == "jump" else "_compiled"
            ratios = {
                "wall": [plain / ours for plain, ours in zip(seconds["plain"], seconds[way], strict=True)],
                "decoding": [
                    (plain - before) / (ours - before)
                    for plain, ours, before in zip(seconds["plain"], seconds[way], prompt, strict=True)
                ],
            }
            for figure, values in ratios.items():
                results[f"jump_ahead/{figure}_{name}{suffix}"] = {
                    "value": statistics.median(values),
                    "unit": "x",
                    "against": against.format(where) + (", without towers and prompt" if figure == "decoding" else ""),
                }
    if before is not None:
        results |= compared_with(before, asked, results)
    record(output, results)


def compared_with(commit: str, asked: Asked, results: dict[str, dict]) -> dict[str, dict]:
    """What this program of an earlier commit says of wall time, and ours by that."""
    with tempfile.TemporaryDirectory() as folder:
        if not taken_from_git(commit, Path(folder, "before")):
            print(f"No commit {commit} in git: there is nothing to compare with.")
            return {}
        words = ["--model_name_or_path", Path(asked.model_name_or_path).resolve(), "--images", asked.images]
        words += ["--data_dir", Path(asked.data_dir).resolve(), "--cache_dir", Path(folder, "cache")]
        words += ["--max_new_tokens", asked.max_new_tokens, "--output", Path(folder, "bench.json")]
        subprocess.run(
            [sys.executable, "benchmarks/jump_ahead.py", *map(str, words)],
            cwd=Path(folder, "before"),
            env={**os.environ, "PYTHONPATH": str(Path(folder, "before"))},
            check=True,
        )
        then = read(Path(folder, "bench.json"))
    return {
        f"{name}_vs_before": {
            "value": results[name]["value"] / then[name]["value"],
            "unit": "x",
            "against": f"the same figure of the commit {commit}, {then[name]['value']:.2f}",
        }
        for name in ("jump_ahead/wall_batch1", "jump_ahead/wall_batch16")
    }


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
    model: LiteGPTForConditionalGeneration, work: list[Inputs], ways: dict[str, dict]
) -> tuple[dict[str, list[float]], list[int], list[int]]:
    """Seconds of each group of calls, by way, and of its towers and prompts; for each call the passes of both.

    Args:
        ways: options of `generate`: "plain", "jump" and maybe others.
    """
    seconds: dict[str, list[float]] = {name: [] for name in (*ways, "prompt")}
    plain_passes, passes = [], []
    for number, group in enumerate(progress(work, "plain and with jumps")):
        outputs = {}
        for name in list(seconds) if number % 2 else reversed(seconds):
            start = time.perf_counter()
            if name == "prompt":
                with torch.no_grad():
                    for call in group:
                        model(**call, logits_to_keep=1)
            else:
                outputs[name] = [model.generate(**call, **ways[name]) for call in group]
            if model.device.type == "cuda":
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
        lengths = [call["input_ids"].shape[1] for call in group]
        plain_passes += [tokens.shape[1] - length for tokens, length in zip(outputs["plain"], lengths, strict=True)]
        passes += [answer.num_forward_passes for answer in outputs["jump"]]
    return seconds, plain_passes, passes


def print_seconds(name: str, seconds: dict[str, list[float]]) -> None:
    """Of a group, by way."""
    medians = ", ".join(f"{way} {statistics.median(values):.3f}" for way, values in seconds.items())
    print(f"{name}: seconds for {BATCH_SIZE} radiographs: {medians} (towers and prompt alone)")


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
    parser.add_argument("--compiled", action="store_true", help="passes that torch compiles, too: a minute longer")
    parser.add_argument("--before", help="a commit of this repository")
    options = parsed(
        parser,
        "passes and time of constrained decoding that jumps ahead, against plain greedy generate",
        seconds=240,
        quick={"images": 48},
        quick_seconds=60,
    )
    asked = Asked(**{field.name: options.pop(field.name) for field in fields(Asked)})
    main(**options, asked=asked)
