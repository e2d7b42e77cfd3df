"""What the benchmarks share: their options, how they show what they do, and the file of their figures.

The file is `{name: {"value": number, "unit": "x", "against": "what"}}`. Every program has `--output` and, where fewer
repetitions make it shorter, `--quick`; it begins with a line that says what it measures, against what, and how long
that takes.
"""

import argparse
import json
import re
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from litegpt.common.files import write_text

OUTPUT = "outputs/bench.json"


def parsed(
    parser: argparse.ArgumentParser,
    measures: str,
    seconds: float,
    quick: dict[str, Any] | None = None,
    quick_seconds: float = 0,
    where: str = "two CPU cores",
    arguments: Sequence[str] | None = None,
) -> dict[str, Any]:
    """The options of a program, after its first line is printed.

    Args:
        measures: what is measured, against what.
        seconds, quick_seconds: that it takes, roughly, in full and with `--quick`.
        quick: what `--quick` sets, where there is no such flag on the command line; without it there is no `--quick`.
        where: it takes so long.
    """
    parser.add_argument("--output", default=OUTPUT, help="figures are added to this file, in place of older ones")
    if quick:
        settings = " ".join(f"--{name} {_as_flag(value)}" for name, value in quick.items())
        parser.add_argument("--quick", action="store_true", help=f"shorter: as with {settings}")
    options = vars(parser.parse_args(arguments))
    is_quick = options.get("quick", False)
    if is_quick:
        parser.set_defaults(**quick)  # what the command line says still counts
        options = vars(parser.parse_args(arguments))
    options.pop("quick", None)
    form = " (--quick)" if is_quick else " (--quick is shorter)" if quick else ""
    print(
        f"{parser.prog}: {measures}. About {_duration(quick_seconds if is_quick else seconds)} on {where}{form}.",
        flush=True,
    )
    return options


def _as_flag(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def progress(items: Iterable | None, what: str, total: int | None = None) -> tqdm:
    """A bar on standard error for `items` (or calls of its `update`); it goes away in the end."""
    return tqdm(items, desc=what, total=total, leave=False, dynamic_ncols=True)


def record(path: str | Path, results: dict[str, dict]) -> None:
    """Adds `results` to the file at `path`, in place of older ones of the same name, and prints them."""
    merge(path, results)
    for name, result in results.items():
        print(f"{name}: {as_text(result)}")


def merge(path: str | Path, results: dict[str, dict]) -> None:
    """Adds `results` to the file at `path`, in place of older ones of the same name."""
    write_text(Path(path), json.dumps({**read(path), **results}, indent=2) + "\n")


def read(path: str | Path) -> dict[str, dict]:
    """The results in the file at `path`; none where there is no such file."""
    path = Path(path)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def as_text(result: dict) -> str:
    return f"{result['value']:.2f} {result['unit']} against {result['against']}"


def against_llava(values: dict[str, list[float]], what: str, name: str = "LiteGPT") -> dict:
    """A figure to record: the paired ratio of `name`; `what` is measured, such as "the time to load"."""
    against = f"{what} LlavaForConditionalGeneration of the same sizes"
    return {"value": paired_ratio(values, name), "unit": "x", "against": against}


def paired_ratio(values: dict[str, list[float]], name: str, reference: str = "LLaVA") -> float:
    """The median ratio of a model's values to the reference's, which were measured in turn."""
    return statistics.median(value / other for value, other in zip(values[name], values[reference], strict=True))


def resident_megabytes(field: str) -> float:
    """Memory of this process: `VmRSS` now, `VmHWM` at its peak (Linux)."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024 / 1e6
