"""Boxes of a predictions file for the tools that people correct boxes with, and for a challenge.

    litegpt export outputs/predictions/predictions.jsonl --format label-studio --output_dir outputs/correct --pictures

In: `predictions.jsonl` of `litegpt predict`, `ask` or `evaluate`. Out, in pixels of the radiographs as given:

    --format coco            results.json (boxes with scores), and images.json, which it refers to
    --format kaggle          submission.csv for Kaggle's VinBigData challenge
    --format label-studio    tasks.json with the boxes as pre-annotations, and labels.xml, the labeling interface
    --format cvat            annotations.xml ("CVAT for images 1.1"), and cvat_labels.json, the labels of a task

Beside them stand litegpt_labels.json, by which corrected boxes come back under the checkpoint's labels, and with
`--pictures` the radiographs in 8 bits and their own size, `pictures/NAME.png`, since the tools read no DICOM. The same
command writes only the pictures that are missing.

    ... --source fused_findings --threshold 0.3    # what answer and detector say together, if that sure
    ... --source candidates                        # the findings, and those that the answer does not name

A radiograph whose picture cannot be written is named and left out, and the status is 1.
"""

import hashlib
import json
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tqdm.auto import tqdm

from litegpt.common.addresses import is_remote, place, read_bytes
from litegpt.common.arguments import parse
from litegpt.common.digests import Digests
from litegpt.common.files import replacing
from litegpt.common.programs import program, refuse_bad_input
from litegpt.datasets_scripts.corrected_boxes import Labels, write_labels
from litegpt.datasets_scripts.image_files import image_id_of
from litegpt.datasets_scripts.vindr_cxr import DIAGNOSIS_LABELS, FINDING_LABELS
from litegpt.inference_scripts.arguments import ExportArguments
from litegpt.inference_scripts.box_formats import FORMATS, Answered, LabelledBox
from litegpt.inference_scripts.listing import DIGESTS
from litegpt.processing.dicom import MAX_BYTES
from litegpt.processing.radiograph import load_radiograph

PICTURES = "pictures"
SHOWN = (".png", ".jpg", ".jpeg")  # files that the tools show as they are
SIDES = ("xmin", "ymin", "xmax", "ymax")
# Whose boxes a line may lack.
ASKED_FOR = dict.fromkeys(("detected_findings", "fused_findings"), "checkpoints with a detector")
ASKED_FOR["view_findings"] = "answers to several views (`litegpt predict --views 4`)"
# What is left out or added on the way, in words.
IN_WORDS = {
    "malformed": "answers that could not be parsed: {:,}",
    "below": "boxes left out that score less than the threshold: {:,}",
    "without area": "boxes left out that have no area in pixels: {:,}",
    "unscored": "boxes without a score, for which COCO and Kaggle, which need one, get 1: {:,}",
}


@program
def main(args: ExportArguments) -> int:
    folder, counts = Path(args.output_dir), Counter()
    with refuse_bad_input():
        labels = labels_to_choose_from(args.model_name_or_path)
        names = picture_names(Path(args.predictions), args.task)
        folder.mkdir(parents=True, exist_ok=True)
        answers = answered(args, labels, names, counts)
        if args.pictures:
            answers = with_pictures(answers, folder, counts)
        progress = tqdm(answers, total=len(names), desc="Radiographs", unit="image", disable=None)
        notes = FORMATS[args.format](progress, labels.findings, folder)
        write_labels(folder, labels)
    for note in [*(words.format(counts[what]) for what, words in IN_WORDS.items() if counts[what]), *notes]:
        print(note, file=sys.stderr)
    if args.source == "candidates" and not counts["with candidates"]:
        print("no line has candidates: these are the findings alone", file=sys.stderr)
    failed = counts["without picture"]
    print(f"{folder}: {len(names) - failed:,} radiographs with {counts['boxes']:,} boxes; {failed:,} left out")
    return 1 if failed else 0


def labels_to_choose_from(checkpoint: str | None) -> Labels:
    """The checkpoint's labels; VinDr-CXR's where none is given."""
    if checkpoint is None:
        return Labels(FINDING_LABELS, DIAGNOSIS_LABELS)
    from litegpt.modeling_litegpt.checkpoints import load_processor  # it takes seconds, which others need not wait

    processor = load_processor(checkpoint)
    return Labels(tuple(processor.finding_labels), tuple(processor.diagnosis_labels))


def picture_names(predictions: Path, task: str) -> dict[str, str]:
    """{a line's file, or its image_id: the radiograph's name}, as all that is written calls it.

    That is the file's name without its suffix; where files of several folders share one, eight digits of their paths'
    digest tell them apart.

    Raises:
        OSError, ValueError: as `lines_about`; or no radiograph is answered, or one twice.
    """
    numbers: dict[str, int] = {}
    for number, line in lines_about(predictions, task):
        key = _key(line)
        if key in numbers:
            raise ValueError(
                f"{predictions}, line {number}: {key} is answered in line {numbers[key]} too; give a file with one "
                "answer to each radiograph: of one checkpoint, asked in one way."
            )
        numbers[key] = number
    if not numbers:
        raise ValueError(f"{predictions} has no answers to [{task}].")
    sharing = Counter(image_id_of(key).casefold() for key in numbers)
    names = {}
    for key in numbers:
        names[key] = image_id_of(key)
        if sharing[names[key].casefold()] > 1:
            names[key] += f"-{hashlib.sha256(key.encode()).hexdigest()[:8]}"
    return names


def lines_about(predictions: Path, task: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines with findings, with their numbers; of `litegpt evaluate`'s those of one task.

    A last line that is cut off, as of a run that is still answering, is left out.

    Raises:
        OSError: there is no such file, or it cannot be read.
        ValueError: a line is none of a predictions file.
    """
    with predictions.open(encoding="utf-8") as file:
        for number, text in enumerate(file, start=1):
            if not text.endswith("\n"):
                return
            try:
                line = json.loads(text)
                if line.get("task", task) != task or task not in line.get("tasks", [task]):
                    continue
                is_one = isinstance(line["findings"], list) and isinstance(_key(line), str)
            except (ValueError, KeyError, AttributeError):
                is_one = False
            if not is_one:
                raise ValueError(f"{predictions}, line {number} is none of `litegpt predict`, `ask` or `evaluate`.")
            yield number, line


def _key(line: dict[str, Any]) -> str:
    return line["file"] if "file" in line else line["image_id"]


# --- A line to boxes in pixels ---------------------------------------------------------------------------------------


def answered(args: ExportArguments, labels: Labels, names: dict[str, str], counts: Counter[str]) -> Iterator[Answered]:
    """The radiographs that the lines answer, one by one.

    Args:
        names: of `picture_names`.
        counts: what of `IN_WORDS` is met is added.

    Raises:
        ValueError: a line lacks the radiograph's size or the boxes asked for, or has others than `labels`.
    """
    for number, line in lines_about(Path(args.predictions), args.task):
        where, key = f"{args.predictions}, line {number}", _key(line)
        file, name = line.get("file"), names[key]
        width, height = line.get("width"), line.get("height")
        if not (isinstance(width, int) and isinstance(height, int) and width > 0 and height > 0):
            raise ValueError(
                f"{where}: it does not say how many pixels {key} has (width, height), as lines of earlier versions: "
                "answer anew, into another output_dir."
            )
        if args.pictures and file is None:
            raise ValueError(
                f"{where} names no file, as lines of `litegpt evaluate`: answer with `litegpt predict`, or leave out "
                "--pictures."
            )
        is_malformed = line.get("malformed")
        if isinstance(is_malformed, dict):  # of `litegpt predict`: by task
            is_malformed = is_malformed.get(args.task)
        counts["malformed"] += bool(is_malformed)
        as_it_is = not args.pictures and file is not None and image_id_of(file) == name
        picture = Path(file).name if as_it_is and file.lower().endswith(SHOWN) else f"{name}.png"
        yield Answered(
            name=name,
            picture=picture,
            url=args.picture_url + quote(picture),
            size=(width, height),
            boxes=tuple(_boxes(line, args, labels, where, counts)),
            line=line,
        )


def _boxes(
    line: dict[str, Any], args: ExportArguments, labels: Labels, where: str, counts: Counter[str]
) -> Iterator[LabelledBox]:
    found = line.get("findings" if args.source == "candidates" else args.source)
    if found is None:
        raise ValueError(
            f"{where} has no {args.source}, which are of {ASKED_FOR[args.source]}: take --source findings."
        )
    if args.source == "candidates" and "candidates" in line:
        counts["with candidates"] += 1
        found = [*found, *line["candidates"]]
    for item in found:
        try:
            label, score = item["label"], None if item["score"] is None else float(item["score"])
            box = _in_pixels(item["box"], line["width"], line["height"])
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"{where}: a finding without label, score or box: {json.dumps(item)}.") from None
        if label not in labels.findings:
            raise ValueError(
                f"{where}: {label!r} is no label of {args.model_name_or_path or 'VinDr-CXR'}: name the checkpoint "
                "that answered, --model_name_or_path."
            )
        if score is not None and score < args.threshold:
            counts["below"] += 1
        elif not (box[0] < box[2] and box[1] < box[3]):
            counts["without area"] += 1
        else:
            counts["boxes"] += 1
            counts["unscored"] += score is None
            yield LabelledBox(label, box, score)


def _in_pixels(box: Any, width: int, height: int) -> tuple[float, float, float, float]:
    """A line's box as xyxy: `litegpt predict` writes pixels by name, `evaluate` four fractions of the whole."""
    if isinstance(box, dict):
        return tuple(float(box[side]) for side in SIDES)
    xmin, ymin, xmax, ymax = map(float, box)
    return xmin * width, ymin * height, xmax * width, ymax * height


# --- Pictures --------------------------------------------------------------------------------------------------------


def with_pictures(answers: Iterator[Answered], folder: Path, counts: Counter[str]) -> Iterator[Answered]:
    """The radiographs whose picture is in the folder or could be written; what is wrong with others to stderr."""
    digests = Digests(folder / DIGESTS)
    (folder / PICTURES).mkdir(exist_ok=True)
    for answer in answers:
        path = folder / PICTURES / answer.picture
        try:
            picture = None if _is_written(answer, path) else _picture_of(answer, digests)
        except (OSError, ValueError) as error:
            counts["without picture"] += 1
            counts["boxes"] -= len(answer.boxes)
            tqdm.write(str(error), file=sys.stderr)
            continue
        if picture is not None:
            source = PngInfo()
            source.add_text("Source", answer.line.get("sha256", ""))
            with replacing(path) as temporary:
                picture.save(temporary, format="PNG", pnginfo=source)
        yield answer


def _is_written(answer: Answered, path: Path) -> bool:
    """Whether a picture is there that was made of the file that was answered."""
    if not path.is_file() or "sha256" not in answer.line:
        return path.is_file()
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            return picture.info.get("Source") == answer.line["sha256"]
    except (OSError, ValueError):
        return False


def _picture_of(answer: Answered, digests: Digests) -> Image.Image:
    """The radiograph as it was given, in 8-bit grey.

    Raises:
        OSError, ValueError: it cannot be used, or is not the one that was answered.
    """
    file, sha256 = answer.line["file"], answer.line.get("sha256")
    if sha256 is not None and digests.file(place(file)) != sha256:
        raise ValueError(f"{file} is not what was answered, it has changed since: answer anew.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is doubtful about it was said when it was answered
        picture = load_radiograph({"bytes": read_bytes(file, MAX_BYTES), "path": file} if is_remote(file) else file)
    if picture.size != answer.size:
        raise ValueError(f"{file} has {picture.width} x {picture.height} pixels, its line says otherwise.")
    return picture


if __name__ == "__main__":
    sys.exit(main(*parse([ExportArguments], None, "export_boxes.py", __doc__)))
