"""The radiographs that a program is given: which of them are still to be answered, and which can be read.

In: files and folders, and the predictions of an interrupted run. Out: the paths that it did not answer, and one by one
their pictures.

    answered, pending = answered_and_pending(["inbox", "a.dicom"], {"model": "outputs/demo/checkpoint"}, predictions)
    for path, radiograph in readable(pending, windowing="dicom"): ...
"""

import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm.auto import tqdm

from litegpt.common.files import complete_lines
from litegpt.processing.dicom import RadiographError
from litegpt.processing.radiograph import load_radiograph


def answered_and_pending(
    radiographs: Sequence[str], settings: dict[str, Any], predictions: Path
) -> tuple[set[tuple], list[Path]]:
    """What an interrupted run answered, and the radiographs asked for that it did not answer with these settings.

    Args:
        radiographs: files, and folders of them.
        settings: that a line of `predictions` has beside its file: model, constrained, threshold.
        predictions: the file of the run; its folder is made.
    """
    predictions.parent.mkdir(parents=True, exist_ok=True)
    answered = {question(line) for line in complete_lines(predictions)}
    files = files_below([Path(path) for path in radiographs])
    pending = [path for path in files if question({**settings, "file": str(path)}) not in answered]
    return answered, pending


def question(line: dict[str, Any]) -> tuple:
    """What was asked for a line of the predictions: the radiograph, of which model, in which way."""
    # The lines of `ask_server.py` have no threshold, older ones neither of the last two.
    return line["file"], line["model"], line.get("constrained"), line.get("threshold")


def readable(paths: Sequence[Path], windowing: str) -> Iterator[tuple[Path, Image.Image]]:
    """The radiographs that can be used; what is wrong with the others, or odd about these, goes to standard error."""
    for path in paths:
        try:
            with warnings.catch_warnings(record=True) as notes:
                warnings.simplefilter("always")
                radiograph = load_radiograph(path, windowing)
            for note in notes:
                tqdm.write(str(note.message), file=sys.stderr)
            yield path, radiograph
        except RadiographError as error:
            tqdm.write(str(error), file=sys.stderr)


def files_below(paths: Sequence[Path]) -> Iterator[Path]:
    """The files themselves and every file below the folders, in order; hidden files are left out."""
    for path in paths:
        if path.is_dir():
            yield from (file for file in sorted(path.rglob("*")) if file.is_file() and not file.name.startswith("."))
        else:
            yield path
