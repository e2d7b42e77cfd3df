"""Answers about a radiograph, as lines of the predictions: made up, since their boxes must be known and be seen.

line = made_up_answer(source, findings=2, diagnoses=("Pneumonia",))
"""

import random
from collections.abc import Sequence
from typing import Any

import pydicom

from litegpt.datasets_scripts.vindr_cxr import DIAGNOSIS_LABELS, FINDING_LABELS

# Of the picture: (xmin, ymin, xmax, ymax). They lie apart from each other and from what the viewer writes over them.
BOXES = ((0.42, 0.50, 0.69, 0.78), (0.20, 0.30, 0.31, 0.41), (0.12, 0.62, 0.35, 0.86))


def made_up_answer(
    source: pydicom.Dataset, findings: int = 2, diagnoses: Sequence[str] = (), seed: int = 0
) -> dict[str, Any]:
    """The line of an answer that names so many findings, at `BOXES`, and these diagnoses."""
    width, height = source.Columns, source.Rows
    labels = random.Random(seed).sample(FINDING_LABELS, findings)
    named = [
        {
            "label": label,
            "score": round(0.97 - 0.28 * number, 2),
            "box": {
                "xmin": round(box[0] * width),
                "ymin": round(box[1] * height),
                "xmax": round(box[2] * width),
                "ymax": round(box[3] * height),
            },
        }
        for number, (label, box) in enumerate(zip(labels, BOXES, strict=False))
    ]
    probabilities = {label: 0.71 if label in diagnoses else 0.02 for label in DIAGNOSIS_LABELS}
    return {
        "checkpoint": "made-up",
        "checkpoint_sha256": "5d" * 32,
        "model": "outputs/made-up",
        "constrained": True,
        "threshold": None,
        "with_candidates": False,
        "views": 0,
        "width": width,
        "height": height,
        "findings": named,
        "diagnoses": [{"label": label, "score": probabilities[label]} for label in diagnoses],
        "probabilities": {"identify": {}, "vqa": probabilities},
        "malformed": {"identify": None, "vqa": None},
        "warnings": [],
        "caution": None,
    }
