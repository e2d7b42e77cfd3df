"""What benchmarks measure, merged into one file: `{name: {"value": number, "unit": "x", "against": "what"}}`."""

import json
import re
import statistics
from pathlib import Path

from train_scripts.files import write_text


def record(path: str | Path, results: dict[str, dict]) -> None:
    """Adds `results` to the file at `path`, in place of older ones of the same name, and prints them."""
    path = Path(path)
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_text(path, json.dumps({**known, **results}, indent=2) + "\n")
    for name, result in results.items():
        print(f"{name}: {result['value']:.2f} {result['unit']} against {result['against']}")


def against_llava(values: dict[str, list[float]], what: str, name: str = "LiteGPT") -> dict:
    """A figure to record: the paired ratio of `name`; `what` is measured, such as "the time to load"."""
    against = f"{what} LlavaForConditionalGeneration of the same sizes"
    return {"value": paired_ratio(values, name), "unit": "x", "against": against}


def paired_ratio(values: dict[str, list[float]], name: str) -> float:
    """The median ratio of a model's values to LLaVA's, which were measured in turn."""
    return statistics.median(value / llava for value, llava in zip(values[name], values["LLaVA"], strict=True))


def resident_megabytes(field: str) -> float:
    """Memory of this process: `VmRSS` now, `VmHWM` at its peak (Linux)."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024 / 1e6
