"""What `gpu.sh` measured: one JSON file with the machine it was measured on, and a section of GPU.md for it.

python benchmarks/gpu_report.py collect --folder FOLDER --output outputs/gpu/gpu.json
python benchmarks/gpu_report.py append --output outputs/gpu/gpu.json
"""

import argparse
import datetime
import importlib.metadata
import json
import subprocess
from pathlib import Path

REPORT = Path(__file__).with_name("GPU.md")
NOT_YET = "Not yet measured.\n"
HEADING = """# The 7B model on a GPU

```
benchmarks/gpu.sh wheels    # with a network: packages that the machine may lack, into outputs/gpu-wheels (45 MB)
benchmarks/gpu.sh run       # on the machine, without one: at most eight minutes; adds its figures below
OUT=folder benchmarks/gpu.sh report    # adds the gpu.json in a folder that was brought back
```

Weights are random, in bfloat16, of the paper's sizes: speed does not depend on their values, except for how many
guesses of `jump_ahead` are right. What the figures mean is written at the top of `gpu_generation.py` and
`gpu_training.py`.

"""


def collect(folder: Path, output: Path) -> None:
    """Writes the machine and, from `folder`, what `parts.tsv` and `figures.json` hold."""
    parts = [line.split("\t") for line in (folder / "parts.tsv").read_text(encoding="utf-8").splitlines()]
    figures = folder / "figures.json"
    measured = {
        **machine(),
        "parts": [{"name": name, "seconds": int(seconds), "outcome": outcome} for name, seconds, outcome in parts],
        "figures": json.loads(figures.read_text(encoding="utf-8")) if figures.exists() else {},
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")


def machine() -> dict[str, str]:
    """Date, card, driver, and releases of the libraries that the speed depends on."""
    try:
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        found = subprocess.run(query, capture_output=True, text=True, check=True).stdout
        card, driver = found.splitlines()[0].split(", ")
    except (OSError, subprocess.CalledProcessError, IndexError):
        card, driver = "CPU", "none"
    date = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    releases = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
    return {"date": date, "card": card, "driver": driver, **releases}


def append(output: Path, report: Path) -> None:
    """Adds a section for `output` to the report, which is created if need be."""
    text = report.read_text(encoding="utf-8") if report.exists() else HEADING
    report.write_text(text.replace(NOT_YET, "") + section(json.loads(output.read_text())), encoding="utf-8")


def section(measured: dict) -> str:
    lines = [
        f"## {measured['card']}, {measured['date']}",
        "",
        f"Driver {measured['driver']}, torch {measured['torch']}, transformers {measured['transformers']}. "
        + "; ".join(f"{part['name']}: {part['outcome']}, {part['seconds']} s" for part in measured["parts"])
        + ".",
        "",
        "| | | | against |",
        "|---|---:|---|---|",
    ]
    for name, figure in measured["figures"].items():
        lines.append(f"| {name} | {figure['value']:.3g} | {figure['unit']} | {figure['against']} |")
    return "\n".join([*lines, "", ""])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("collect", "append"))
    parser.add_argument("--output", type=Path, required=True, help="gpu.json")
    parser.add_argument("--folder", type=Path, help="with parts.tsv and figures.json")
    parser.add_argument("--report", type=Path, default=REPORT)
    args = parser.parse_args()
    if args.what == "collect":
        collect(args.folder, args.output)
    else:
        append(args.output, args.report)
