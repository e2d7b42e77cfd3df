"""Retrieval: at which place a radiograph's own report stands among all reports, and a report's own radiograph.

    pairs = study_pairs(rows)   # one radiograph and one text a study
    retrieval_figures(image_vectors, text_vectors, pairs.texts)["figures"]["image_to_text"]["mean_rank"]   # 46.1

In: rows with reports; vectors of radiographs and of their texts. Out: figures. A study's radiograph is its first
frontal one (the first where no view is known), its text the longer one of findings and impression, without the marks
of de-identification. Equal texts are one; ranks and ties: `metrics/ranks.py`.

Source: CXR-CLIP (arXiv 2310.13292), section 4.3; that the longer section is taken: its released code.
"""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset

from litegpt.datasets_scripts.image_labels import each_row
from litegpt.datasets_scripts.report_texts import without_masks
from litegpt.evaluation_scripts.controls import random_cycle
from litegpt.evaluation_scripts.figures import nested
from litegpt.evaluation_scripts.ranking import figures_and_intervals
from litegpt.metrics.intervals import Figures
from litegpt.metrics.ranks import KS, RetrievalRanks, chance, mean_rank, recall_at, retrieval_ranks, retrieval_scores

REPORTS = ("report_findings", "report_impression")
FRONTAL = ("PA", "AP", "FRONTAL")  # how frontal views begin: AP AXIAL


class StudyPairs(NamedTuple):
    """A radiograph and a text of each study that has one.

    Attributes:
        indices: (studies,) rows of the radiographs.
        texts: of the studies.
        without_text: how many studies have none and are left out.
    """

    indices: np.ndarray
    texts: list[str]
    without_text: int


def has_reports(rows: Dataset) -> bool:
    return any(column in rows.column_names for column in REPORTS)


def is_frontal(view: str) -> bool:
    return view.upper().startswith(FRONTAL)


def study_pairs(rows: Dataset) -> StudyPairs:
    """The pairs of all studies, in the order of their first radiographs; no picture is read.

    A row without `study_id` is a study of its own.
    """
    columns = [name for name in ("study_id", "view", *REPORTS) if name in rows.column_names]
    first: dict[Any, tuple[int, bool]] = {}  # of each study the radiograph chosen so far, and whether it is frontal
    texts: dict[Any, str] = {}
    for index, row in enumerate(each_row(rows.select_columns(columns))):
        study = row.get("study_id") or index
        frontal = is_frontal(row.get("view") or "")
        if study not in first or frontal and not first[study][1]:
            first[study] = (index, frontal)
        texts[study] = texts.get(study) or longer_section(row)
    kept = [study for study in first if texts[study]]
    indices = np.array([first[study][0] for study in kept], dtype=np.int64)
    return StudyPairs(indices, [texts[study] for study in kept], len(first) - len(kept))


def longer_section(row: dict[str, Any]) -> str:
    """The longer one of a row's findings and impression, without masks; "" where there is neither."""
    return max((without_masks(row.get(name) or "") for name in REPORTS), key=len)


def retrieval_figures(
    image_vectors: np.ndarray,
    text_vectors: np.ndarray,
    texts: Sequence[str],
    training_texts: Collection[str] | None = None,
    patients: np.ndarray | None = None,
) -> dict[str, Any]:
    """What metrics.json says of retrieval.

    "figures" and "intervals": {"image_to_text" and "text_to_image": {"recall_at_1", ..., "mean_rank"}}, the same below
    "shuffled" (each text with another study's radiograph) and "less_shuffled"; "chance"; and "new_texts": image to
    text among those texts alone that no training study has, so that it is no memory (None: not asked, or none left).

    Args:
        image_vectors, text_vectors: (studies, dimensions).
        texts: of the studies.
        training_texts: of the training studies; None: unknown.
        patients: (studies,) as `bootstrap_intervals` takes them.
    """
    found = retrieval_ranks(image_vectors, text_vectors, texts)
    others = random_cycle(len(texts), np.random.default_rng(0)) if len(texts) > 1 else np.zeros(1, dtype=int)
    shuffled = retrieval_ranks(np.asarray(image_vectors)[others], text_vectors, texts)

    def statistic(weights: np.ndarray) -> Figures:
        own, control = _figures(found, weights), _figures(shuffled, weights)
        figures = own | {("shuffled", *name): values for name, values in control.items()}
        return figures | {("less_shuffled", *name): own[name] - values for name, values in control.items()}

    points, intervals = figures_and_intervals(statistic, len(texts), patients)
    plain_scores = retrieval_scores(image_vectors, text_vectors, texts)
    result = {
        "studies": len(texts),
        "texts": plain_scores["num_texts"],
        "chance": {name: plain_scores[name]["chance"] for name in ("image_to_text", "text_to_image")},
        "figures": nested(points),
        "intervals": nested(intervals),
        "new_texts": None,
    }
    new = np.array([training_texts is not None and text not in training_texts for text in texts])
    if new.any():
        new_ranks = retrieval_ranks(
            np.asarray(image_vectors)[new],
            text_vectors[new],
            [t for t, is_new in zip(texts, new, strict=True) if is_new],
        )
        renumbered = None if patients is None else np.unique(patients[new], return_inverse=True)[1]
        points, intervals = figures_and_intervals(
            lambda weights: _direction(new_ranks.image_to_text, weights), int(new.sum()), renumbered
        )
        num_texts = len({text for text, is_new in zip(texts, new, strict=True) if is_new})
        result["new_texts"] = {
            "studies": int(new.sum()),
            "texts": num_texts,
            "chance": chance(np.ones(1, dtype=int), num_texts),
            "figures": nested(points),
            "intervals": nested(intervals),
        }
    return result


def _figures(found: RetrievalRanks, weights: np.ndarray) -> Figures:
    directions = (
        ("image_to_text", found.image_to_text, weights),
        ("text_to_image", found.text_to_image, weights * found.share),  # a text that several images have is one query
    )
    return {
        (direction, *name): values
        for direction, ranks, counts in directions
        for name, values in _direction(ranks, counts).items()
    }


def _direction(ranks: np.ndarray, weights: np.ndarray) -> Figures:
    recalls = {(f"recall_at_{k}",): recall_at(ranks, k, weights) for k in KS}
    return {**recalls, ("mean_rank",): mean_rank(ranks, weights)}
