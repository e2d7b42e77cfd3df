"""Time and memory of `from_pretrained`: LiteGPT against transformers' LLaVA of the same sizes.

    python benchmarks/load_vs_llava.py --output outputs/bench.json

Every load has a process of its own that has imported all it needs and loaded a tiny checkpoint before. The loads are
interleaved; a figure is the median of the paired ratios, LiteGPT's divided by LLaVA's. The time is that of
`from_pretrained` alone: weights of the saved dtype are then mapped, not read. The memory is the peak of the resident
size after every weight was read once (Linux). Printed beside: the same with weights converted to bfloat16, and LiteGPT
with the checkpoint's own code (`trust_remote_code=True` in a process that does not know ours).
"""

import argparse
import multiprocessing
import statistics
import tempfile
import time
from multiprocessing.pool import Pool
from pathlib import Path

import torch
from transformers import AutoModelForImageTextToText
from transformers.utils import logging

from litegpt.benchmarks.results import against_llava, paired_ratio, parsed, progress, record, resident_megabytes

# `modeling_litegpt` is imported in functions only: without it a process takes the code that lies in the checkpoint.
IMPORTS = [f"transformers.models.{name}.modeling_{name}" for name in ("auto", "clip", "llama", "llava", "vit")]
ROUTES = ("LLaVA", "LiteGPT", "LiteGPT, the checkpoint's own code")


def main(output: str, hidden_size: int, num_layers: int, repeats: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoints(Path(folder), hidden_size, num_layers, vocab_size=32008)
        write_checkpoints(Path(folder) / "tiny", 24, 2, vocab_size=512)
        # A server imports what is needed, then forks a process for every load; no thread of this process goes along.
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["litegpt.benchmarks.load_vs_llava", *IMPORTS])
        results = {}
        with context.Pool(1, maxtasksperchild=1) as pool:
            for dtype in ("auto", "bfloat16"):
                seconds, megabytes = interleaved_loads(pool, Path(folder), dtype, repeats)
                print(f"{'as saved (float32)' if dtype == 'auto' else 'converted to ' + dtype}:")
                for route in ROUTES:
                    times, memory = paired_ratio(seconds, route), paired_ratio(megabytes, route)
                    print(
                        f"  {route}: {statistics.median(seconds[route]):.2f} s ({times:.2f} x), "
                        f"{statistics.median(megabytes[route]):.0f} MB ({memory:.2f} x)"
                    )
                if dtype == "auto":
                    results["load_vs_llava"] = against_llava(seconds, "the time to load")
                    results["load_memory_vs_llava"] = against_llava(megabytes, "the peak memory of")
        record(output, results)


def write_checkpoints(folder: Path, hidden_size: int, num_layers: int, vocab_size: int) -> None:
    """Random weights in float32, LLaVA's in `folder`/LLaVA, LiteGPT's in `folder`/LiteGPT."""
    from transformers import LlavaForConditionalGeneration

    from litegpt.benchmarks.same_size_llava import same_size_configs
    from litegpt.datasets_scripts.vindr_cxr import DIAGNOSIS_LABELS, FINDING_LABELS
    from litegpt.modeling_litegpt import LiteGPTForConditionalGeneration
    from litegpt.modeling_litegpt.answer_tokenizer import train_tokenizer
    from litegpt.modeling_litegpt.checkpoints import new_processor, save_checkpoint
    from litegpt.processing.processing_litegpt import add_litegpt_tokens

    two_towers, _, llava = same_size_configs(hidden_size, num_layers, vocab_size)
    model = LlavaForConditionalGeneration(llava)
    print(f"LLaVA: {model.num_parameters():,} parameters")
    model.save_pretrained(folder / "LLaVA")
    model = LiteGPTForConditionalGeneration(two_towers)
    print(f"LiteGPT: {model.num_parameters():,} parameters")
    tokenizer = train_tokenizer(FINDING_LABELS, DIAGNOSIS_LABELS)
    add_litegpt_tokens(tokenizer)
    processor = new_processor(two_towers, tokenizer, FINDING_LABELS, DIAGNOSIS_LABELS)
    save_checkpoint(model, processor, folder / "LiteGPT")


def interleaved_loads(
    pool: Pool, folder: Path, dtype: str, repeats: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds and megabytes of every load, by route."""
    seconds: dict[str, list[float]] = {route: [] for route in ROUTES}
    megabytes: dict[str, list[float]] = {route: [] for route in ROUTES}
    for repeat in progress(range(repeats), f"loads, dtype {dtype}"):
        for route in ROUTES if repeat % 2 else ROUTES[::-1]:
            taken = pool.apply(load, (folder, route, dtype))
            seconds[route].append(taken[0])
            megabytes[route].append(taken[1])
    return seconds, megabytes


def load(folder: Path, route: str, dtype: str) -> tuple[float, float]:
    """Seconds of `from_pretrained`, and MB by which it and one reading of all weights make this process grow."""
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    if route == "LiteGPT":
        import litegpt.modeling_litegpt  # noqa: F401  its classes now come before the checkpoint's own
    name = "LLaVA" if route == "LLaVA" else "LiteGPT"
    AutoModelForImageTextToText.from_pretrained(folder / "tiny" / name, dtype=dtype, trust_remote_code=True)
    Path("/proc/self/clear_refs").write_text("5")  # the peak is the present size
    before = resident_megabytes("VmRSS")
    start = time.perf_counter()
    model = AutoModelForImageTextToText.from_pretrained(folder / name, dtype=dtype, trust_remote_code=True)
    seconds = time.perf_counter() - start
    for parameter in model.parameters():
        parameter.view(torch.uint8).max()
    return seconds, resident_megabytes("VmHWM") - before


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hidden_size", type=int, default=768, help="of towers and language model, a multiple of 24")
    parser.add_argument("--num_layers", type=int, default=12, help="of LLaVA's tower and of the language model, even")
    parser.add_argument("--repeats", type=int, default=11)
    main(
        **parsed(
            parser,
            "time and memory of from_pretrained of LiteGPT, against transformers' LLaVA of the same sizes",
            seconds=80,
            quick={"repeats": 3},
            quick_seconds=30,
        )
    )
