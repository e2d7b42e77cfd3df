"""How well definitions of a box's score rank right boxes above wrong ones, and how well they are calibrated.

    make demo
    python benchmarks/box_score_definitions.py --output outputs/bench.json
    python benchmarks/box_score_definitions.py --model_name_or_path CHECKPOINT --data_dir DATA

The checkpoint answers [identify] once; every definition scores the same boxes. A box is right if its IoU with a still
free true box of its label exceeds 0.4. AUROC: of right above wrong boxes. mAP: at 0.4 and 0.5. ECE: of the score as it
is, without a temperature.
"""

import argparse
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers.pipelines.pt_utils import KeyDataset

from litegpt.benchmarks.results import parsed, progress, record
from litegpt.common.programs import refuse_bad_input
from litegpt.datasets_scripts.rows import check_labels, load_rows
from litegpt.metrics.boxes import match, mean_average_precision
from litegpt.metrics.probabilities import auroc, expected_calibration_error
from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.processing.answers import AnswerError, Finding, text_to_findings
from litegpt.processing.box_scores import BoxProbabilities, box_probabilities, box_score
from litegpt.processing.findings_language import GRID
from litegpt.processing.pipeline_litegpt import ChestXrayFindingsPipeline

TASK = "identify"


class WrittenBox(NamedTuple):
    finding: Finding
    probabilities: BoxProbabilities

    def coordinates(self, near: int = 0) -> np.ndarray:
        """(4,): the probability of each coordinate's value, or of one within `near` units of it."""
        values = np.arange(GRID + 1)
        written = np.round(GRID * np.array(self.finding.box))[:, None]
        return np.where(abs(values - written) <= near, self.probabilities.coordinates, 0).sum(axis=1)


OURS, REFERENCE = "the pipeline's box_score", "label x coordinates"
DEFINITIONS: dict[str, Callable[[WrittenBox], float]] = {
    OURS: lambda box: box_score(box.finding.box, box.probabilities),
    "label": lambda box: box.probabilities.label,
    "coordinates": lambda box: box.coordinates().prod(),
    REFERENCE: lambda box: box.probabilities.label * box.coordinates().prod(),
    "entry x label x coordinates": lambda box: (
        box.probabilities.entry * box.probabilities.label * box.coordinates().prod()
    ),
    "geometric mean of label and coordinates": lambda box: (box.probabilities.label * box.coordinates().prod()) ** 0.2,
    "mean of label and coordinates": lambda box: (box.probabilities.label + box.coordinates().sum()) / 5,
    "mean of coordinates": lambda box: box.coordinates().mean(),
    "minimum of label and coordinates": lambda box: min(box.probabilities.label, *box.coordinates()),
    "label x coordinates within 2": lambda box: box.probabilities.label * box.coordinates(near=2).prod(),
    "entry x label x coordinates within 2": lambda box: (
        box.probabilities.entry * box.probabilities.label * box.coordinates(near=2).prod()
    ),
}


class WrittenBoxes(ChestXrayFindingsPipeline):
    """For each radiograph the boxes that the answer names, without a score; none of a malformed answer."""

    def postprocess(self, outputs: list[dict[str, Any]], **kwargs) -> list[WrittenBox]:
        answer = self.scored_answers(outputs)[TASK]
        try:
            findings = text_to_findings(answer.text, self.processor.finding_labels)
        except AnswerError:
            return []
        return list(map(WrittenBox, findings, box_probabilities(findings, answer)))


def main(
    output: str, model_name_or_path: str, data_dir: str, cache_dir: str | None, split: str, batch_size: int
) -> None:
    with refuse_bad_input():
        rows = load_rows(data_dir, split, cache_dir, num_proc=1)
        model, processor = load_checkpoint(model_name_or_path)
        check_labels(rows, processor)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipe = WrittenBoxes(model=model.eval(), processor=processor, device=device)
    answers = pipe(KeyDataset(rows, "image"), batch_size=batch_size, tasks=[TASK])
    images = list(progress(answers, "answering", total=len(rows)))
    names = rows.features["findings"].feature["label"].names
    truths = [
        [{"label": names[finding["label"]], "box": finding["box"]} for finding in findings]
        for findings in rows["findings"]
    ]
    boxes = [box for image in images for box in image]
    print(f"{len(boxes)} boxes in {len(images)} radiographs, {sum(map(len, truths))} true ones\n")
    print("| Score of a box | AUROC | mAP@0.4 | mAP@0.5 | ECE |\n|---|---|---|---|---|")
    ranking = {
        name: print_row(name, images, truths, [definition(box) for box in boxes])
        for name, definition in DEFINITIONS.items()
    }
    if not math.isnan(ranking[OURS]):  # there are right and wrong boxes
        against = f"{ranking[REFERENCE]:.3f} of {REFERENCE} (right above wrong boxes)"
        record(output, {"box_score/auroc": {"value": ranking[OURS], "unit": "AUROC", "against": against}})


def print_row(name: str, images: list[list[WrittenBox]], truths: list[list[dict]], scores: list[float]) -> float:
    """Prints a row of the table and returns the AUROC; `scores`: of the boxes of all images, in their order."""
    remaining = iter(scores)
    predictions = [
        [{"label": box.finding.label, "box": box.finding.box, "score": next(remaining)} for box in image]
        for image in images
    ]
    matches = match(predictions, truths, 0.4)
    right = matches.is_true.astype(float)
    values = (
        auroc(matches.score, right),
        mean_average_precision(matches),
        mean_average_precision(match(predictions, truths, 0.5)),
        expected_calibration_error(matches.score, right),
    )
    print(f"| {name} | {' | '.join(f'{value:.3f}' for value in values)} |")
    return values[0]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", default="outputs/demo/checkpoint")
    parser.add_argument(
        "--data_dir", default="outputs/demo/phantoms", help="VinDr-CXR's layout, or a prepared data set"
    )
    parser.add_argument("--cache_dir", default="outputs/demo/cache", help="prepared data")
    parser.add_argument("--split", default="test")
    parser.add_argument("--batch_size", type=int, default=16)
    main(
        **parsed(
            parser,
            "how well the score of a box ranks right boxes above wrong ones, against other definitions of it",
            seconds=40,
            quick={"split": "test[:100]"},
            quick_seconds=25,
        )
    )
