"""What `gpu.sh` measured: one JSON file with the machine it was measured on, and a section of GPU.md for it.

python benchmarks/gpu_report.py begin --folder FOLDER
python benchmarks/gpu_report.py collect --folder FOLDER --output outputs/gpu/gpu.json
python benchmarks/gpu_report.py append --output outputs/gpu/gpu.json

Others read the figures back: `newest(GPU.md or gpu.json)`, `answers_a_second(figures)`.
"""

import argparse
import datetime
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import runpy
import subprocess
from pathlib import Path
from typing import Any

REPORT = Path(__file__).with_name("GPU.md")
NOT_YET = "Not yet measured.\n"
HEADING = """# The 7B model on a GPU

```
benchmarks/gpu.sh wheels    # with a network: packages that the machine may lack, into outputs/gpu-wheels (50 MB)
benchmarks/gpu.sh run       # on the machine, without one: at most eight minutes; adds its figures below
OUT=folder benchmarks/gpu.sh report    # adds the gpu.json in a folder that was brought back
```

Weights are random, in bfloat16, of the paper's sizes: speed does not depend on their values, except for how many
guesses of `jump_ahead` are right. What the figures mean is written at the top of `gpu_generation.py`,
`gpu_training.py`, `gpu_towers.py` and `gpu_pixels.py`.

"""
PACKAGES = ("torch", "transformers", "triton", "peft", "bitsandbytes", "numpy")
# What nvidia-smi tells of the card, only ever asked: `card` and `driver` stay, the others change with the work.
CARD = {"card": "name", "driver": "driver_version"}
STATE = {
    "SM": "clocks.sm",
    "SM at most": "clocks.max.sm",
    "memory": "clocks.mem",
    "memory at most": "clocks.max.mem",
    "power limit": "power.limit",
    "power": "power.draw",
    "temperature": "temperature.gpu",
}
BEGIN = "begin.json"
ROW = re.compile(r"\| (\S+) \| ([\d.e+-]+) \| (\S+) \| (.+) \|")  # of the table of a section
ANSWER_TOKENS = 64  # three findings


def begin(folder: Path) -> None:
    """Notes the card's clocks before anything is measured."""
    (folder / BEGIN).write_text(json.dumps(asked(STATE)), encoding="utf-8")


def collect(folder: Path, output: Path) -> None:
    """Writes the machine and, from `folder`, what `parts.tsv` and `figures.json` hold."""
    parts = [line.split("\t") for line in (folder / "parts.tsv").read_text(encoding="utf-8").splitlines()]
    figures = folder / "figures.json"
    before = folder / BEGIN
    measured = {
        **machine(),
        "before": json.loads(before.read_text(encoding="utf-8")) if before.exists() else {},
        "after": asked(STATE),
        "parts": [{"name": name, "seconds": int(seconds), "outcome": outcome} for name, seconds, outcome in parts],
        "figures": json.loads(figures.read_text(encoding="utf-8")) if figures.exists() else {},
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")


def machine() -> dict[str, str]:
    """Date, card, driver, cores, and releases of what the speed depends on."""
    date = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
    releases = {"Python": platform.python_version(), "CUDA": cuda_release()}
    for name in PACKAGES:
        try:
            releases[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            releases[name] = "not installed"
    card = asked(CARD) or {"card": "CPU", "driver": "none"}
    return {"date": date, **card, "cores": str(os.cpu_count()), "releases": releases}


def asked(fields: dict[str, str]) -> dict[str, str]:
    """What nvidia-smi says of the first card, in its units; nothing where there is none."""
    query = ["nvidia-smi", f"--query-gpu={','.join(fields.values())}", "--format=csv,noheader"]
    try:
        found = subprocess.run(query, capture_output=True, text=True, check=True).stdout
        return dict(zip(fields, found.splitlines()[0].split(", "), strict=True))
    except (OSError, subprocess.CalledProcessError, IndexError, ValueError):
        return {}


def cuda_release() -> str:
    """That torch was built for. Torch itself is not imported: that takes seconds, and this runs after every part."""
    torch = importlib.util.find_spec("torch")
    return runpy.run_path(str(Path(torch.origin).with_name("version.py")))["cuda"] or "none"


def append(output: Path, report: Path) -> None:
    """Adds a section for `output` to the report, which is created if need be."""
    text = report.read_text(encoding="utf-8") if report.exists() else HEADING
    report.write_text(text.replace(NOT_YET, "") + section(json.loads(output.read_text())), encoding="utf-8")


def section(measured: dict) -> str:
    releases = ", ".join(f"{name} {release}" for name, release in measured["releases"].items())
    lines = [
        f"## {measured['card']}, {measured['date']}",
        "",
        f"Driver {measured['driver']}, {releases}; {measured['cores']} cores. "
        + "; ".join(f"{part['name']}: {part['outcome']}, {part['seconds']} s" for part in measured["parts"])
        + ".",
        "",
    ]
    for when in ("before", "after"):
        if measured[when]:
            state = ", ".join(f"{name} {value}" for name, value in measured[when].items())
            lines += [f"The card {when} it: {state} (nvidia-smi; °C).", ""]
    lines += [
        "| | | | against |",
        "|---|---:|---|---|",
    ]
    for name, figure in measured["figures"].items():
        lines.append(f"| {name} | {figure['value']:.3g} | {figure['unit']} | {figure['against']} |")
    return "\n".join([*lines, "", ""])


def newest(path: Path) -> tuple[str, dict[str, dict[str, Any]]]:
    """Card and date, and the figures, of a gpu.json or of a report's last section."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        measured = json.loads(text)
        return f"{measured['card']}, {measured['date']}", measured["figures"]
    title, _, rest = text.rpartition("\n## ")[2].partition("\n")
    rows = (ROW.fullmatch(line) for line in rest.splitlines())
    figures = {row[1]: {"value": float(row[2]), "unit": row[3], "against": row[4]} for row in rows if row}
    return title, figures


def answers_a_second(figures: dict[str, dict[str, Any]]) -> tuple[float, str] | None:
    """Radiographs that are answered a second, where that is fastest with jumps ahead, and how that is known.

    Where only tokens a second were measured, an answer is taken to have `ANSWER_TOKENS`.
    """
    found = []
    for name, measured in figures.items():
        if not name.startswith("generation/") or "/jump_ahead/" not in name:
            continue
        if measured["unit"] == "images/s":
            found.append((True, measured["value"], f"{measured['value']:.1f} images/s of {name}"))
        elif measured["unit"] == "tokens/s":
            speed = measured["value"] / ANSWER_TOKENS
            found.append((False, speed, f"{speed:.1f} images/s: {name}, and {ANSWER_TOKENS} tokens an answer"))
    return max(found)[1:] if found else None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("begin", "collect", "append"))
    parser.add_argument("--output", type=Path, help="gpu.json")
    parser.add_argument("--folder", type=Path, help="with parts.tsv and figures.json")
    parser.add_argument("--report", type=Path, default=REPORT)
    args = parser.parse_args()
    if args.what == "begin":
        begin(args.folder)
    elif args.what == "collect":
        collect(args.folder, args.output)
    else:
        append(args.output, args.report)
