"""Answers of a checkpoint over a split, and their scores beside those of a model that is blind to the image.

    litegpt evaluate --model_name_or_path outputs/demo/checkpoint --data_dir outputs/demo/phantoms \\
        --output_dir outputs/demo

Writes `predictions.jsonl` (one line an image and task; an interrupted run resumes after the last one),
`metrics.json`, `report.md` and `report.html`. Decoding is greedy, and constrained to answers with the checkpoint's own
labels (`--constrained false`: plain). Beside the answers stand the findings that they leave out (`--candidates`), and
with `--views 4` what several moved views of each radiograph say together; neither changes an answer. There are three
controls: every image is given the answer to another one, drawn at random; the answer to a black image; and those to
images of noise (`controls.jsonl` has them). Boxes also stand beside a location prior, which knows where the boxes of
`--prior_split` lie, and no image. With `--explain` the gallery of `report.html` has maps of the findings that the
answers of `predictions.jsonl` name. With `--answers FOLDER` the answers are those that `litegpt predict-many` wrote
there; the controls alone are then asked for.

The reports and `metrics.json` name checkpoint and data, and have no path of this machine in them.
"""

import functools
import json
import platform
from collections.abc import Callable, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from PIL import Image
from tqdm.auto import tqdm

from litegpt.common.arguments import parse
from litegpt.common.files import weights_sha256, write_text
from litegpt.common.programs import program, refuse_bad_input
from litegpt.datasets_scripts.rows import data_set_facts, load_rows
from litegpt.evaluation_scripts.arguments import EvaluationArguments
from litegpt.evaluation_scripts.given_answers import given_predictions
from litegpt.evaluation_scripts.predictions import doubts_unsaid, load_pipeline, predict
from litegpt.evaluation_scripts.questions import label_names
from litegpt.evaluation_scripts.reports.gallery import AnswerMaps
from litegpt.evaluation_scripts.reports.html import html_report
from litegpt.evaluation_scripts.reports.sections import write_report
from litegpt.evaluation_scripts.row_priors import other_rows, row_priors
from litegpt.evaluation_scripts.scoring import Calibration, score_predictions
from litegpt.metrics.intervals import NUM_RESAMPLES, SEED, patient_numbers
from litegpt.modeling_litegpt.checkpoints import load_processor
from litegpt.modeling_litegpt.provenance import provenance, recorded_config
from litegpt.processing.answer_maps import DEFAULT_METHOD, METHODS, text_maps
from litegpt.processing.answers import text_to_findings
from litegpt.processing.pipeline_litegpt import ChestXrayFindingsPipeline
from litegpt.processing.processing_litegpt import LiteGPTProcessor
from litegpt.processing.tasks import TASKS

NUM_NOISE_IMAGES = 8


@program
def main(args: EvaluationArguments) -> None:
    with refuse_bad_input():
        rows = load_rows(args.data_dir, args.split, args.cache_dir, args.num_proc)
        data_set = data_set_facts(args.data_dir)
        processor = load_processor(args.model_name_or_path)
        others = other_rows(args.data_dir, args.prior_split, rows, args.cache_dir, args.num_proc)
        source = provenance(args.model_name_or_path, recorded_config(args.model_name_or_path))
    source.warn()
    split = args.split
    if args.with_findings_only:
        rows = rows.select([index for index, findings in enumerate(rows["findings"]) if findings])
        split = f"{args.split}, with findings"
    output_dir = Path(args.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)

    @functools.cache
    def pipe() -> ChestXrayFindingsPipeline:
        with refuse_bad_input():
            return load_pipeline(args, rows)

    path = output_dir / "predictions.jsonl"
    predictions = predict(args, rows, path, pipe) if args.answers is None else given_predictions(args, rows, path)
    control_lines = predict(args, control_images(processor), output_dir / "controls.jsonl", pipe)
    controls = {
        name: [line for line in control_lines if line["image_id"].startswith(name)] for name in ("noise", "black")
    }
    source_thresholds = {
        "candidates": processor.candidate_thresholds,
        "views": processor.view_thresholds,
        "detector": processor.detector_thresholds,
        "fused": processor.fused_thresholds,
    }
    calibration = Calibration(processor.score_temperatures, processor.score_thresholds, source_thresholds)
    metrics = score_predictions(
        predictions,
        rows.remove_columns("image"),
        args.tasks,
        label_names(rows),
        controls,
        calibration,
        row_priors(rows, others) if any(TASKS[task].kind.has_boxes for task in args.tasks) else None,
    )
    metrics |= calibration._asdict()
    # For the model card: what was measured on what, and that the figures are of these weights.
    metrics["data_set"] = {**data_set, "split": split, "radiographs": len(rows)}
    metrics["weights"] = weights_sha256(args.model_name_or_path)
    names = (source.checkpoint, Path(args.data_dir).resolve().name)
    metrics["run"] = {**source.line(), "constrained": args.constrained, **versions()}
    metrics["bootstrap"] = bootstrap_facts(rows)
    write_text(output_dir / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    write_text(output_dir / "report.md", write_report(metrics, *names))
    with tqdm(desc="Maps", unit=" radiographs", delay=1e-3) as progress:  # delay: without a map it is not shown
        maps = answer_maps(pipe, progress) if args.explain else None
        write_text(output_dir / "report.html", html_report(metrics, predictions, rows, *names, maps))
    doubtful = {line["image_id"] for line in predictions if line.get("warnings")}
    if doubtful:
        print(f"{len(doubtful)} of {len(rows)} radiographs are doubtful; why, predictions.jsonl says (`warnings`).")
    print(f"{output_dir / 'report.md'}: Finding F1 {metrics['finding_f1']}, Acc@IoU {metrics['accuracy_at_iou']}")


def answer_maps(pipe: Callable[[], ChestXrayFindingsPipeline], progress: tqdm) -> AnswerMaps:
    """Maps of what lines of a predictions file name.

    Args:
        pipe: gives the pipeline; nothing asks for it before the first map.
        progress: gets a step a radiograph.
    """

    def grids(radiograph: Image.Image, line: dict[str, Any], numbers: Sequence[int]) -> np.ndarray:
        model, processor, task, answer = pipe().model, pipe().processor, line["task"], line["answer"]
        named = text_to_findings(answer, processor.finding_labels)
        with doubts_unsaid():
            pixels = processor(
                images=radiograph, text=processor.prompt(task), add_special_tokens=False, return_tensors="pt"
            )
        words = [[named[number].label_span] for number in numbers]
        (maps,) = text_maps(model, processor, pixels, [answer], [words], task=task)
        progress.update()
        return maps

    return AnswerMaps(METHODS[DEFAULT_METHOD], grids)


def versions() -> dict[str, str]:
    """The date, and the releases that an answer can depend on."""
    packages = {name: version(name) for name in ("litegpt", "transformers", "torch")}
    return {"date": date.today().isoformat(), **packages, "python": platform.python_version()}


def bootstrap_facts(rows: Dataset) -> dict[str, Any]:
    """How the intervals were made; where the rows tell no patients, `unit` is "radiograph" and `patients` None."""
    names = rows["patient_id"][:] if "patient_id" in rows.column_names else []
    patients = len(np.unique(patient_numbers(names))) if any(names) else None
    unit = "radiograph" if patients is None else "patient"
    return {"resamples": NUM_RESAMPLES, "seed": SEED, "unit": unit, "patients": patients}


def control_images(processor: LiteGPTProcessor) -> Dataset:
    """Rows of images that are no radiographs: one all black, eight of uniform noise, the same in every run.

    They have the size of the towers' input: squashed to it, noise of a larger image would become an even grey.
    """
    side = max(tower.size["height"] for tower in processor.tower_image_processors)
    noise = np.random.default_rng(0).integers(0, 256, (NUM_NOISE_IMAGES, side, side), dtype=np.uint8)
    return Dataset.from_dict(
        {
            "image_id": ["black", *(f"noise-{number}" for number in range(NUM_NOISE_IMAGES))],
            "image": [Image.fromarray(pixels) for pixels in (np.zeros_like(noise[0]), *noise)],
            "width": [side] * (1 + NUM_NOISE_IMAGES),
            "height": [side] * (1 + NUM_NOISE_IMAGES),
        }
    )


if __name__ == "__main__":
    main(*parse([EvaluationArguments], None, "evaluate_litegpt.py", __doc__))
