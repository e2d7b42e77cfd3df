"""Answers that `litegpt predict-many` wrote, as lines of a predictions file: nobody is asked again.

    given_predictions(args, rows, Path("outputs/demo/predictions.jsonl"))     # args.answers: "outputs/archive"
    # [{"image_id": "c0ffee", "task": "identify", "answer": "Local ...", "findings": [...], ...}, ...]

In: the output folder of `predict-many`, and a split's rows, whose `image_id` its results have. Out: a line a row and
task, in the file too. Boxes come back from whole pixels to fractions of the picture, so figures may differ in their
last digits from those of answers that were asked for here.
"""

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq
from datasets import Dataset
from tqdm.auto import tqdm

from litegpt.common.addresses import entries_of, exists, open_address, resolved
from litegpt.common.digests import Digests
from litegpt.common.files import write_text
from litegpt.common.programs import Refusal
from litegpt.evaluation_scripts.arguments import EvaluationArguments
from litegpt.evaluation_scripts.predictions import BESIDE_ANSWER, prediction_line, refuse_other_settings
from litegpt.processing.tasks import DEFAULT_TASKS

NAMED = 5  # image ids in a message


def given_predictions(args: EvaluationArguments, rows: Dataset, path: Path) -> list[dict[str, Any]]:
    """The predictions of all rows and tasks, which `path` then has.

    Raises:
        Refusal: the answers are another checkpoint's, were made in another way, or lack a radiograph; `path` holds
            other predictions.
        OSError: the folder cannot be read.
    """
    folder = args.answers.rstrip("/")
    sha256 = _check_plan(args, folder)
    image_ids = rows["image_id"][:]
    found: dict[str, dict[str, Any]] = {}
    for row in _results(folder, set(image_ids)):
        if row["image_id"] in found:
            raise Refusal(
                f"{folder} has two answers to {row['image_id']}: {found[row['image_id']]['file']} and {row['file']}."
            )
        found[row["image_id"]] = row
    missing = [image_id for image_id in image_ids if image_id not in found]
    unusable = [image_id for image_id in image_ids if image_id in found and found[image_id]["answers"] is None]
    for ids, what in ((missing, "lacks answers to"), (unusable, "says that it could not use")):
        if ids:
            more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
            raise Refusal(
                f"{folder} {what} {len(ids)} of {len(image_ids)} radiographs: {', '.join(ids[:NAMED])}{more}."
            )
    settings = {
        "answers": sha256,
        "data": resolved(args.data_dir),
        "split": args.split,
        "tasks": args.tasks,
    }
    refuse_other_settings(settings, path, "of other answers, another split or data set")
    sizes = zip(rows["width"][:], rows["height"][:], strict=True)
    lines = [
        {**prediction_line(image_id, task, _output(found[image_id])), "width": width, "height": height}
        for image_id, (width, height) in zip(image_ids, sizes, strict=True)
        for task in args.tasks
    ]
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))
    return lines


def _check_plan(args: EvaluationArguments, folder: str) -> str:
    """The plan's digest; refuses answers that are not those of the evaluated checkpoint, asked in the same way."""
    if not exists(f"{folder}/plan.json"):
        raise Refusal(f"{folder} is no output folder of litegpt predict-many: it has no plan.json.")
    with open_address(f"{folder}/plan.json") as file:
        plan = json.load(file)
    settings = plan["settings"]
    asked = settings.get("tasks", DEFAULT_TASKS)
    others = [task for task in args.tasks if task not in asked]
    if others:
        raise Refusal(f"{folder} has no answers to {', '.join(others)}: it was asked {', '.join(asked)}.")
    if settings["checkpoint_sha256"] != Digests().checkpoint(args.model_name_or_path):
        raise Refusal(
            f"{folder} has answers of another checkpoint ({settings['checkpoint']}) or of its earlier state."
        )
    if settings["constrained"] != args.constrained:
        raise Refusal(
            f"{folder} has answers with --constrained {str(settings['constrained']).lower()}: say the same here."
        )
    if settings["threshold"] is not None:
        raise Refusal(f"{folder} lacks findings below a threshold: an evaluation needs answers without --threshold.")
    return plan["sha256"]


def _results(folder: str, image_ids: Collection[str]) -> Iterator[dict[str, Any]]:
    """The rows about some radiographs; files that are no radiographs may have their names."""
    for name in tqdm(entries_of(f"{folder}/results")[1], desc="Answers", unit="shard", disable=None):
        with open_address(f"{folder}/results/{name}") as file:
            if name.endswith(".jsonl"):
                rows = [row for row in map(json.loads, file) if row["image_id"] in image_ids]
            elif name.endswith(".parquet"):
                rows = pq.read_table(file, filters=ds.field("image_id").isin(list(image_ids))).to_pylist()
            else:
                continue
        yield from (row for row in rows if row["kind"] is None)


def _output(row: dict[str, Any]) -> dict[str, Any]:
    """What the pipeline returns, asked for `relative_boxes`."""
    by_side = {"xmin": row["width"], "xmax": row["width"], "ymin": row["height"], "ymax": row["height"]}
    beside = {name: row[name] for name in ("findings", *BESIDE_ANSWER) if row[name] is not None}
    relative = {
        name: [
            {key: value for key, value in item.items() if value is not None and key != "box"}
            | {"score": item["score"], "box": {side: value / by_side[side] for side, value in item["box"].items()}}
            for item in items
        ]
        for name, items in beside.items()
    }
    probabilities = {
        task: {item["label"]: item["probability"] for item in items} for task, items in row["probabilities"].items()
    }
    kept = {name: row[name] for name in ("diagnoses", "answers", "malformed", "warnings")}
    return {**kept, **relative, "probabilities": probabilities}
