"""Boxes of findings: which labels are learnt, where cells learn from, what is measured.

    task = Detection.of(train_rows, asked=None, grid=14)
    boxes = task.truths(rows)                        # of a split
    boxes.targets([0, 7], movements)                 # {"known", "inside", ...}, see `dense_box_loss.py`
    task.loss(output, batch)

In: rows with boxes. Out: the loss of a `DetectionHead`'s output, candidates, scores.

Where tables state findings of radiographs that no box shows (rows with the column `image_labels`), nobody says where
they are: a radiograph with labels and no box at all is left out, and in one with other boxes nothing is learnt of such
a label, nor is a box of it held for wrong.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset

from litegpt.common.files import write_text
from litegpt.datasets_scripts.image_labels import abnormal, label_matrix
from litegpt.evaluation_scripts.tower_scores.detection import (
    ANY,
    box_scores,
    mean_precisions,
)
from litegpt.modeling_litegpt.modeling_detector import best_candidates, cells_of
from litegpt.processing.box_fusion import kept_boxes
from litegpt.train_scripts.dense_box_loss import CellTargets, cell_targets, dense_box_loss
from litegpt.train_scripts.views import Movement

STATED = "image_labels"  # the column of labels that no box need show


def boxes_are_known(rows: Dataset) -> np.ndarray:
    """(rows,) bool: whether a radiograph's boxes are all there is; False where it has labels and no box at all."""
    if STATED not in rows.column_names:
        return np.ones(len(rows), dtype=bool)
    return np.array([bool(findings) for findings in rows["findings"][:]]) | ~abnormal(rows)


@dataclass(frozen=True)
class BoxTruths:
    """What is true of a split's radiographs.

    Attributes:
        findings: of each radiograph {"label": number among the task's labels, "box": xyxy in [0, 1]}.
        known: (radiographs, labels) bool, of which labels the boxes are known.
        positive: (radiographs,) bool, which have a box.
        labels: the task's.
        grid: of the tower.
    """

    findings: list[list[dict[str, Any]]]
    known: np.ndarray
    positive: np.ndarray
    labels: list[str]
    grid: int

    def __len__(self) -> int:
        return len(self.findings)

    def targets(self, numbers: Sequence[int], movements: Sequence[Movement]) -> dict[str, torch.Tensor]:
        moved = [movement.findings(self.findings[number]) for number, movement in zip(numbers, movements, strict=True)]
        targets = cell_targets(moved, cells_of(self.grid), len(self.labels))
        known = torch.ones(len(moved), len(self.labels) + 1)
        known[:, :-1] = torch.from_numpy(self.known[np.asarray(numbers)]).float()
        return {"known": known, **targets._asdict()}

    def named(self, number: int) -> list[dict[str, Any]]:
        """The boxes of a radiograph with the names of their labels."""
        return [{"label": self.labels[found["label"]], "box": found["box"]} for found in self.findings[number]]


@dataclass(frozen=True)
class Detection:
    """Boxes of several labels, and of any of them.

    Attributes:
        labels: names, of the data's own features.
        grid: of the tower.
        left_out: {label: why it is not learnt}.
    """

    labels: list[str]
    grid: int
    left_out: dict[str, str] = field(default_factory=dict)
    name = "detection"
    single_label = False
    metric = "ap_any_0.4"

    @classmethod
    def of(cls, rows: Dataset, asked: Sequence[str] | None, grid: int) -> "Detection":
        """The task whose labels have a box among the training rows.

        Raises:
            ValueError: a label that is asked for is none of boxes, or there is no box.
        """
        names = rows.features["findings"].feature["label"].names
        unknown = [name for name in asked or () if name not in names]
        if unknown:
            raise ValueError(f"The data has no boxes of {unknown[0]!r}, only of {', '.join(names) or 'nothing'}.")
        counts = np.zeros(len(names), dtype=int)
        for findings in rows["findings"][:]:
            for found in findings:
                counts[found["label"]] += 1
        chosen = list(asked or names)
        labels = [name for name in chosen if counts[names.index(name)]]
        if not labels:
            raise ValueError("The training radiographs have no boxes: there is nothing to learn.")
        return cls(labels, grid, {name: "no training box" for name in chosen if name not in labels})

    def truths(self, rows: Dataset, folder: Path | None = None) -> BoxTruths:
        names = rows.features["findings"].feature["label"].names
        place = {names.index(label): number for number, label in enumerate(self.labels)}
        findings = [
            [
                {"label": place[found["label"]], "box": list(found["box"])}
                for found in of_row
                if found["label"] in place
            ]
            for of_row in rows["findings"][:]
        ]
        known = np.ones((len(rows), len(self.labels)), dtype=bool)
        if STATED in rows.column_names:
            known = label_matrix(rows, self.labels) == 0
            for number, of_row in enumerate(findings):
                known[number, [found["label"] for found in of_row]] = True
        return BoxTruths(findings, known, np.array(list(map(bool, findings))), self.labels, self.grid)

    def cannot_measure(self, truths: BoxTruths, least: int) -> str | None:
        return None if truths.positive.any() else "no radiograph has a box of a label that is learnt"

    def loss(self, output: torch.Tensor, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        cells = cells_of(self.grid).to(output.device)
        targets = CellTargets(batch["inside"], batch["counted"], batch["boxes"])
        return dense_box_loss(output.float(), targets, batch["known"], cells)

    def answers(self, output: torch.Tensor) -> torch.Tensor:
        """(images, candidates, 6): channel, score, box."""
        return best_candidates(output, cells_of(self.grid).to(output.device))

    def predictions(self, answers: np.ndarray, truths: BoxTruths) -> list[list[dict[str, Any]]]:
        """Of each radiograph the boxes that stay, with names; none of a label whose boxes are not known."""
        return [
            [
                {"label": label, "box": box, "score": score}
                for channel, label in enumerate((*self.labels, ANY))
                if label == ANY or truths.known[number, channel]
                for score, *box in kept_boxes(candidates, channel).tolist()
            ]
            for number, candidates in enumerate(answers)
        ]

    def validation_figures(self, answers: np.ndarray, truths: BoxTruths) -> dict[str, float]:
        references = [truths.named(number) for number in range(len(truths))]
        return mean_precisions(self.predictions(answers, truths), references)

    def scores(
        self,
        answers: np.ndarray,
        truths: BoxTruths,
        train: BoxTruths,
        patients: np.ndarray | None,
        min_positives: int,
    ) -> dict[str, Any]:
        references = [truths.named(number) for number in range(len(truths))]
        training = [train.named(number) for number in range(len(train))]
        predictions = self.predictions(answers, truths)
        found = box_scores(predictions, references, self.labels, training, patients, min_positives)
        return found | {"left_out": self.left_out | found["left_out"]}

    def write_predictions(
        self, answers: np.ndarray, truths: BoxTruths, image_ids: Sequence[str], folder: Path
    ) -> None:
        """predictions.jsonl: a line a radiograph, image_id, task, findings, and boxes of any finding."""
        lines = []
        for image_id, boxes in zip(image_ids, self.predictions(answers, truths), strict=True):
            of_labels = [box for box in boxes if box["label"] != ANY]
            of_any = [{"box": box["box"], "score": box["score"]} for box in boxes if box["label"] == ANY]
            line = {"image_id": image_id, "task": self.name, "findings": of_labels, "any_finding": of_any}
            lines.append(json.dumps(line) + "\n")
        write_text(folder / "predictions.jsonl", "".join(lines))
