"""What benchmarks measure, merged into one file: `{name: {"value": number, "unit": "x", "against": "what"}}`."""

import json
from pathlib import Path

from train_scripts.files import write_text


def record(path: str | Path, results: dict[str, dict]) -> None:
    """Adds `results` to the file at `path`, in place of older ones of the same name, and prints them."""
    path = Path(path)
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    write_text(path, json.dumps({**known, **results}, indent=2) + "\n")
    for name, result in results.items():
        print(f"{name}: {result['value']:.2f} {result['unit']} against {result['against']}")
