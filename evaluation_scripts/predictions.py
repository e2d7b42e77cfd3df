"""The answers of a checkpoint to the radiographs of a split, as lines of a predictions file.

In: a split's rows and what is asked of them (`EvaluationArguments`). Out: a line an image and task, in `path` and as a
list; those that `path` already has are not asked for again.

    predict(args, rows, Path("outputs/demo/predictions.jsonl"))
    # [{"image_id": "c0ffee", "task": "vqa", "answer": "Global ...", "diagnoses": [{"label": "COPD", "score": 0.9}],
    #   "probabilities": {"COPD": 0.9, ...}, "malformed": None, "width": 2336, "height": 2836}, ...]
"""

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tqdm.auto import tqdm
from transformers.pipelines.pt_utils import KeyDataset

from litegpt.common.addresses import resolved
from litegpt.common.cpus import threads_for
from litegpt.common.files import complete_lines, each_line, write_text
from litegpt.common.programs import Refusal
from litegpt.datasets_scripts.rows import check_labels
from litegpt.evaluation_scripts.arguments import EvaluationArguments, SplitArguments
from litegpt.modeling_litegpt.checkpoints import load_checkpoint, load_processor
from litegpt.processing.pipeline_litegpt import ChestXrayFindingsPipeline
from litegpt.processing.tasks import TASKS

# Beside the answer's findings: what it leaves out, what several views say, what a model with a detector has.
BESIDE_ANSWER = ("candidates", "view_findings", "detected_findings", "fused_findings")


def load_pipeline(args: SplitArguments, rows: Dataset) -> ChestXrayFindingsPipeline:
    """The pipeline of the checkpoint that is evaluated.

    Raises:
        OSError, ValueError: the checkpoint cannot be loaded, or the rows have other labels.
    """
    model, processor = load_checkpoint(args.model_name_or_path, dtype=args.dtype)
    template_words = vars(args).get("template_words", False)  # they are made of labels
    told = [task for task in args.tasks if task != "describe" or any(rows["findings"])]
    check_labels(rows, processor, None if template_words else told)
    for task in args.tasks:
        if task not in TASKS or TASKS[task].about is None:
            processor.prompt(task)  # a ValueError where the checkpoint does not know it
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_num_threads(threads_for(model.num_parameters()))
    return ChestXrayFindingsPipeline(model=model.eval(), processor=processor, device=device)


def predict(
    args: EvaluationArguments,
    rows: Dataset,
    path: Path,
    pipe: Callable[[], ChestXrayFindingsPipeline] | None = None,
) -> list[dict[str, Any]]:
    """The predictions of all rows and tasks, those that `path` already has and the missing ones, which are appended.

    Args:
        pipe: gives the pipeline, where an answer is missing; by default it is loaded then.

    Raises:
        Refusal: `path` holds predictions of another checkpoint, of other data or of another way of decoding.
        OSError: the checkpoint cannot be loaded.
    """
    _check_settings(args, path)
    done = {(line["image_id"], line["task"]): line for line in complete_lines(path)}
    image_ids = rows["image_id"][:]
    pending = {
        task: [index for index, image_id in enumerate(image_ids) if (image_id, task) not in done]
        for task in args.tasks
    }
    if any(pending.values()):
        asked = load_pipeline(args, rows) if pipe is None else pipe()
    with path.open("a", encoding="utf-8") as file, doubts_unsaid():
        # A task at a time: the answers of one are of similar length, so a batch waits less for its longest.
        for task in (task for task in args.tasks if pending[task]):
            lines = answer_lines(asked, rows.select(pending[task]), task, **pipeline_options(args))
            for line in tqdm(lines, total=len(pending[task]), desc=f"Answers [{task}]", mininterval=1):
                done[line["image_id"], line["task"]] = line
                file.write(json.dumps(line) + "\n")
                file.flush()
    return [done[image_id, task] for image_id in image_ids for task in args.tasks]


def pipeline_options(args: EvaluationArguments) -> dict[str, Any]:
    """What the pipeline is called with."""
    return {
        "batch_size": args.batch_size,
        "max_new_tokens": args.max_new_tokens,
        "constrained": args.constrained,
        "candidates": args.candidates and args.constrained,
        "views": args.views,
        "written_boxes": args.written_boxes,
    }


def answer_lines(
    pipe: ChestXrayFindingsPipeline, rows: Dataset, task: str, **options: Any
) -> Iterator[dict[str, Any]]:
    """The answers to `task` as lines of the predictions file, one a row, with the radiograph's size in pixels.

    Args:
        options: the pipeline's.
    """
    outputs = pipe(KeyDataset(rows, "image"), tasks=[task], relative_boxes=True, **options)
    of_rows = zip(rows["image_id"][:], rows["width"][:], rows["height"][:], strict=True)
    for (image_id, width, height), output in zip(of_rows, outputs, strict=True):
        yield {**prediction_line(image_id, task, output), "width": width, "height": height}


def prediction_line(image_id: str, task: str, output: dict[str, Any]) -> dict[str, Any]:
    """The pipeline's output for one task; boxes are xyxy in [0, 1].

    What it has beside the answer's findings stands in its own fields (`BESIDE_ANSWER`); what is doubtful about the
    picture in `warnings`, where there is anything.
    """
    kind = TASKS[task].kind
    named = output[kind.output]
    if kind.has_boxes:
        named = [{**item, "box": [round(v, 5) for v in item["box"].values()]} for item in named]
    return {
        "image_id": image_id,
        "task": task,
        "answer": output["answers"][task],
        kind.output: named,
        **{name: _relative(output[name]) for name in BESIDE_ANSWER if kind.has_boxes and name in output},
        "probabilities": output["probabilities"][task],
        "malformed": output["malformed"][task],
        **({"warnings": output["warnings"]} if output.get("warnings") else {}),
    }


def _relative(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Findings of the pipeline, asked for `relative_boxes`, with boxes and scores to five digits: there are many."""
    return [
        {**item, "box": [round(v, 5) for v in item["box"].values()], "score": float(f"{item['score']:.5g}")}
        for item in items
    ]


def what_is_asked(args: SplitArguments) -> dict[str, Any]:
    """The checkpoint and the data that answers are of, as their settings say it."""
    weights = sorted(Path(args.model_name_or_path).glob("*.safetensors"))
    return {
        "model": args.model_name_or_path,
        "weights": [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in weights],
        "data": resolved(args.data_dir),
        "split": args.split,
    }


def _check_settings(args: EvaluationArguments, path: Path) -> None:
    settings = {
        **what_is_asked(args),
        **{name: value for name, value in pipeline_options(args).items() if name != "batch_size"},
        "temperatures": load_processor(args.model_name_or_path).score_temperatures,
    }
    refuse_other_settings(
        settings, path, "of another checkpoint, split or data set, or decoded or calibrated in another way"
    )


def refuse_other_settings(settings: dict[str, Any], path: Path, other: str) -> None:
    """Keeps what a predictions file is made with; predictions that were made otherwise are refused.

    Args:
        other: what such predictions are, in words.

    Raises:
        Refusal: `path` holds predictions, and its settings are others.
    """
    settings_path = path.with_suffix(".settings.json")
    # A run that failed before its first answer does not stand in the way of the corrected one.
    if settings_path.exists() and json.loads(settings_path.read_text()) != settings and any(each_line(path)):
        raise Refusal(f"{path} holds predictions {other}; remove it or choose another output_dir.")
    write_text(settings_path, json.dumps(settings, indent=2) + "\n")


@contextmanager
def doubts_unsaid() -> Iterator[None]:
    """A doubt about a picture stands in its line; on the terminal it would name no radiograph."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="the given image: ", category=UserWarning)
        yield
