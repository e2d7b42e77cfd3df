"""Every minor release of transformers that we promise, from 5.17 to the newest, and a table of what works on each.

    python tests/versions/run_versions.py --output_dir outputs/versions           # make test-versions
    python tests/versions/run_versions.py --output_dir outputs/versions --versions 5.17.0 5.24.0

The release is overlaid on this environment (`pip install --target`, with what it needs in another version, such as
tokenizers), so all else is as locked. For each: `stranger.py` (load by every Auto class, plain and constrained
generation, all pipelines, saving), two steps of `sft.py` and of the programs of `TOWERS`, and checkpoints exchanged
with the locked version both ways, whose outputs must be equal (`TOLERANCE`). Ends with status 1 if anything is not
green.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, distribution, distributions, version
from pathlib import Path

import numpy as np
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
OLDEST = Version("5.17")
SFT = ["--config", "train_scripts/configs/tiny_stage1.yaml", "--max_steps", "2", "--report_to", "none"]
SFT += ["--save_strategy", "no", "--per_device_train_batch_size", "4", "--cache_features", "false"]
EXCHANGED = ("its own, trained", "the locked one's, trained", "its own CXR-CLIP", "the locked one's CXR-CLIP")
EXCHANGED = (*EXCHANGED, "its own ECAMP", "the locked one's ECAMP")
EXCHANGED = (*EXCHANGED, "its own classifier", "the locked one's classifier")
# What trains each, and how it takes its data; of each a recipe lies beside this file.
TOWERS = {
    "cxr_clip": ("pretrain_cxr_clip.py", "--data_dirs"),
    "ecamp": ("pretrain_ecamp.py", "--data_dirs"),
    "classifier": ("train_classifier.py", "--data_dir"),
}
# CPU kernels may sum in another order from one process to the next, also on one release: 3e-5 was seen once.
TOLERANCE = 1e-4
# Warnings that point at a line of ours, and what the library's logger calls deprecated: calls of ours, except for one
# that older releases' own image-text-to-text pipeline makes.
DEPRECATED = r"\[transformers\] (?!Passing `generation_config` together).*deprecated"
OURS = re.compile(
    rf"^(({re.escape(str(ROOT))}/(?!\.venv)|.*transformers_modules).*Warning: |{DEPRECATED})", re.MULTILINE
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=ROOT / "outputs" / "versions")
    parser.add_argument("--versions", nargs="+", help="releases; by default the last one of every minor")
    args = parser.parse_args()
    output = args.output_dir.resolve()
    releases = args.versions or minors(released())
    shutil.rmtree(output / "runs", ignore_errors=True)

    print(f"Locked: transformers {version('transformers')}; to try: {', '.join(releases)}", flush=True)
    phantoms, locked = output / "phantoms", output / "runs" / "locked"
    if not (phantoms / "annotations" / "image_labels_test.csv").exists():
        shutil.rmtree(phantoms, ignore_errors=True)
        phantom_options = ["--num_train", "24", "--num_test", "4", "--size", "128", "--output_dir", str(phantoms)]
        run(["datasets_scripts/phantom_cxr.py", *phantom_options], locked)
    new = ["--config", "train_scripts/configs/tiny.yaml", "--output_dir", str(locked / "new")]
    new += ["--num_candidate_tokens", "3"]  # of its detector, so that all that travels is tried
    run(["modeling_litegpt/new_checkpoint.py", *new], locked)
    train(phantoms, locked / "new", locked)
    for tower in TOWERS:
        train_tower(tower, phantoms, locked)
    radiograph = str(next((phantoms / "test").iterdir()))

    results = {}
    for release in releases:
        start, folder = time.monotonic(), output / "runs" / release
        results[release] = try_release(release, overlay(release, output), folder, locked, phantoms, radiograph)
        red = {step: reason for step, reason in results[release].items() if reason is not None}
        print(
            f"transformers {release}: {'green' if not red else 'RED'} ({time.monotonic() - start:.0f} s)", flush=True
        )
        for step, reason in red.items():
            print(f"    {step}: {reason}", flush=True)
    print(table(results))
    (output / "versions.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    return 1 if any(reason is not None for steps in results.values() for reason in steps.values()) else 0


def try_release(
    release: str, python_path: Path | None, folder: Path, locked: Path, phantoms: Path, radiograph: str
) -> dict[str, str | None]:
    """{step: None where it is green, otherwise the reason}."""
    steps: dict[str, str | None] = {}
    try:
        steps["sft.py"] = warning_of_ours(train(phantoms, locked / "new", folder, python_path))
    except subprocess.CalledProcessError as error:
        return {"sft.py": last_line(error.stderr)}
    for tower, (program, _) in TOWERS.items():
        try:
            steps[program] = warning_of_ours(train_tower(tower, phantoms, folder, python_path))
        except subprocess.CalledProcessError as error:
            return steps | {program: last_line(error.stderr)}
    checkpoints = [place / kind / "checkpoint" for kind in ("sft", *TOWERS) for place in (folder, locked)]
    try:
        mine = stranger(radiograph, folder / "mine.npz", checkpoints, folder, python_path)
        theirs = stranger(radiograph, folder / "locked.npz", checkpoints, folder, None)
    except subprocess.CalledProcessError as error:
        return steps | {"stranger.py": last_line(error.stderr)}
    steps |= {line["step"]: line["reason"] for line in mine if "step" in line and "outputs" not in line["step"]}
    if mine[0]["transformers"] != release:
        steps["release"] = f"transformers {mine[0]['transformers']} ran, not {release}"
    ours, locks = np.load(folder / "mine.npz"), np.load(folder / "locked.npz")
    failed = {line["step"]: line["reason"] for line in [*theirs, *mine] if not line.get("ok", True)}
    for number, name in enumerate(EXCHANGED):
        reason = failed.get(f"outputs {number}")
        if reason is None and (difference := np.abs(ours[str(number)] - locks[str(number)]).max()) > TOLERANCE:
            reason = f"outputs differ by up to {difference:.2g}"
        steps[f"exchange: {name}"] = reason
    return steps


def train(phantoms: Path, checkpoint: Path, folder: Path, python_path: Path | None = None) -> str:
    options = ["--data_dir", phantoms, "--cache_dir", phantoms.with_name("prepared"), "--output_dir", folder / "sft"]
    options += ["--detector_loss_weight", "1"]  # it is as fresh as the rest
    command = ["train_scripts/sft.py", *SFT, "--model_name_or_path", checkpoint, *options]
    return run([str(part) for part in command], folder, python_path)[1]


def train_tower(tower: str, phantoms: Path, folder: Path, python_path: Path | None = None) -> str:
    program, data = TOWERS[tower]
    options = [data, phantoms, "--cache_dir", phantoms.with_name("prepared")]
    options += ["--config", f"tests/versions/{tower}.yaml", "--output_dir", folder / tower]
    command = [f"train_scripts/{program}", *options]
    return run([str(part) for part in command], folder, python_path)[1]


def stranger(
    radiograph: str, output: Path, checkpoints: list[Path], folder: Path, python_path: Path | None
) -> list[dict]:
    command = ["tests/versions/stranger.py", radiograph, str(output), *map(str, checkpoints)]
    printed, errors = run(command, folder, python_path)
    lines = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
    reason = warning_of_ours(errors)
    return lines if reason is None else [*lines, {"step": "warnings", "ok": False, "reason": reason}]


def run(command: list[str], folder: Path, python_path: Path | None = None) -> tuple[str, str]:
    """Standard output and error of one of our programs, which are also kept in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [str(path) for path in (python_path, ROOT) if path is not None]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONWARNINGS": "default",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",  # how many threads there are decides how a sum is rounded
        "HF_HOME": str(folder / "hf"),  # for the code that a checkpoint brings along
    }
    process = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    log = folder / f"{Path(command[0]).stem}.log"
    log.write_text(process.stdout + process.stderr, encoding="utf-8")
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command, process.stdout, process.stderr)
    return process.stdout, process.stderr


def warning_of_ours(errors: str) -> str | None:
    found = OURS.search(errors)
    return None if found is None else f"warning of ours: {errors[found.start() :].splitlines()[0]}"


def last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "no output")[:300]


def released() -> list[str]:
    """All releases of transformers that this Python can take."""
    command = [sys.executable, "-m", "pip", "index", "versions", "transformers", "--disable-pip-version-check"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return re.search(r"Available versions: (.*)", printed)[1].split(", ")


def minors(releases: list[str]) -> list[str]:
    """The last release of each minor from `OLDEST` on, oldest first."""
    last: dict[tuple[int, ...], Version] = {}
    for release in map(Version, releases):
        if release >= OLDEST:
            minor = release.release[:2]
            last[minor] = max(release, last.get(minor, release))
    return [str(last[minor]) for minor in sorted(last)]


def overlay(release: str, output: Path) -> Path | None:
    """A folder for PYTHONPATH with the release and what it needs in another version; None: it is installed."""
    if release == version("transformers"):
        return None
    folder = output / "overlays" / release
    if not (folder / "complete").exists():
        shutil.rmtree(folder, ignore_errors=True)
        wanted = [Requirement(f"transformers=={release}")]
        while wanted:
            install(wanted, folder)
            wanted = unmet(folder)
        (folder / "complete").touch()
    return folder


def install(requirements: list[Requirement], folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check"]
    command += ["--target", str(folder), "--upgrade", *map(str, requirements)]
    subprocess.run(command, check=True)


def unmet(folder: Path) -> list[Requirement]:
    """What the packages of an overlay need and neither it nor this environment has."""
    overlaid = {package.name.lower().replace("-", "_"): package for package in distributions(path=[str(folder)])}
    wanted = []
    for package in overlaid.values():
        for requirement in map(Requirement, package.requires or ()):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                found = overlaid.get(requirement.name.lower().replace("-", "_")) or installed(requirement.name)
                if found is None or not requirement.specifier.contains(found.version, prereleases=True):
                    wanted.append(requirement)
    return wanted


def installed(name: str):
    try:
        return distribution(name)
    except PackageNotFoundError:
        return None


def table(results: dict[str, dict[str, str | None]]) -> str:
    """Markdown: a row a release, a column a step."""
    columns = list(dict.fromkeys(step for steps in results.values() for step in steps))
    lines = [f"| transformers | {' | '.join(columns)} |", f"|---|{'---|' * len(columns)}"]
    for release, steps in results.items():
        cells = ["-" if step not in steps else "ok" if steps[step] is None else "FAILS" for step in columns]
        lines.append(f"| {release} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
