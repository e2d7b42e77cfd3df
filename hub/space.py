"""The page of `litegpt app` as a Hugging Face Space: what it consists of, on disk or on the Hub.

    files = space_files("acme/litegpt")       # {"app.py": b"...", "litegpt/inference_scripts/app/page.py": Path(...)}
    write_space(files, Path("outputs/space"))
    push_space(files, "acme/litegpt-page", private=False)

A Space is `app.py`, `requirements.txt`, and a README.md whose head says how it is started. The package's code goes
into it as an installed one lies on a disk, because there is no release of it to name. The checkpoint stays where it
is: the Space loads it from its repository. `app.py` runs anywhere else as well, with the same folder alone.
"""

import re
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

import litegpt
from litegpt.common.files import replacing_folder

SDK_VERSION = "6.31.0"  # of Gradio: the first of the versions that setup.py allows
# What the page imports, from the ground up.
FOLDERS = (
    "processing",
    "metrics",
    "dicom_output",
    "common",
    "datasets_scripts",
    "modeling_litegpt",
    "inference_scripts",
)
SUFFIXES = (".py", ".jinja", ".html", ".css", ".js", ".json")
# Of the package's requirements, what answering needs: no trainer, no metric. The lines are the package's own.
NEEDED = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "huggingface_hub",
    "datasets",
    "accelerate",
    "peft",
    "bitsandbytes",  # of checkpoints in 8 bits
    "jinja2",
    "matplotlib",
    "pydicom",
    "imagecodecs",
    "pylibjpeg",
    "pylibjpeg-openjpeg",
    "pylibjpeg-rle",
    "pyjpegls",
    "pillow",
    "numpy",
    "scipy",
    "highdicom",
)

APP = '''"""The page of `litegpt app` for {repo_id}. Written by `litegpt push`; change it there."""

import os

from litegpt.inference_scripts.app.app import main
from litegpt.inference_scripts.arguments import AppArguments

if __name__ == "__main__":
    main(
        AppArguments(
            model_name_or_path="{repo_id}",
            host=os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0"),
            port=int(os.environ.get("GRADIO_SERVER_PORT", "7860")),
        )
    )
'''

CARD = """---
title: LiteGPT
sdk: gradio
sdk_version: {sdk_version}
app_file: app.py
license: apache-2.0
models:
  - {repo_id}
pinned: false
short_description: Findings in chest radiographs
---

# Findings in chest radiographs

The page of `litegpt app` for [{repo_id}](https://huggingface.co/{repo_id}): drop a DICOM, PNG or JPEG file and see
findings as outlines, diagnoses with probabilities, and what speaks against the answer. Nothing is kept: a file leaves
the Space's disk when it is read, and its memory when the page is closed. Still, the file goes to a computer of Hugging
Face: do not send radiographs that tell who a patient is.

Research software, not a medical device, not for diagnosis. The code is under Apache-2.0; what the checkpoint may be
used for, its own card says.
"""


def space_files(repo_id: str) -> dict[str, Path | bytes]:
    """{path in the Space: file or bytes} of the page for a checkpoint's repository.

    Raises:
        ValueError: the package is not installed, so that nobody knows what it needs.
    """
    files: dict[str, Path | bytes] = {
        "app.py": APP.format(repo_id=repo_id).encode(),
        "README.md": CARD.format(repo_id=repo_id, sdk_version=SDK_VERSION).encode(),
        "requirements.txt": "".join(f"{line}\n" for line in requirements()).encode(),
    }
    roots = [Path(root) for root in litegpt.__path__]  # of a clone two: `litegpt/`, and the folders beside it
    for path in sorted(roots[0].glob("*.py")):
        files[f"litegpt/{path.name}"] = path
    for name in FOLDERS:
        folder = next(root / name for root in reversed(roots) if (root / name).is_dir())
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.suffix in SUFFIXES:
                files[f"litegpt/{name}/{path.relative_to(folder).as_posix()}"] = path
    return files


def requirements() -> list[str]:
    """Of the package's requirements those that the page needs, with their versions.

    Raises:
        ValueError: the package is not installed.
    """
    try:
        lines = requires("litegpt") or []
    except PackageNotFoundError:
        raise ValueError("a Space's requirements are those of the installed package: pip install -e .") from None
    found = {re.split(r"[^A-Za-z0-9_.-]", line)[0].lower(): line.partition(";")[0].strip() for line in lines}
    return [found[name] for name in NEEDED]


def write_space(files: dict[str, Path | bytes], folder: Path) -> None:
    """Writes a Space's files into a folder, in place of an earlier Space's."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.exists() and any(folder.iterdir()) and not (folder / "requirements.txt").is_file():
        raise ValueError(f"{folder} holds something else than a Space: choose another folder.")
    with replacing_folder(folder) as temporary:
        for name, file in files.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file if isinstance(file, bytes) else file.read_bytes())


def push_space(files: dict[str, Path | bytes], space_id: str, private: bool) -> None:
    """Makes the Space if it does not exist, and commits its files; what it had of the package and is gone, goes.

    Raises:
        HTTPError, RuntimeError: the Hub refused, or the connection was lost.
    """
    api = HfApi()
    api.create_repo(space_id, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
    stale = [
        CommitOperationDelete(name)
        for name in api.list_repo_files(space_id, repo_type="space")
        if name.startswith("litegpt/") and name not in files
    ]
    additions = [CommitOperationAdd(name, file) for name, file in files.items()]
    commit = api.create_commit(space_id, [*additions, *stale], commit_message="Upload the page", repo_type="space")
    print(f"{commit.commit_url}: {len(additions)} files")
