"""How well the boxes of phrases are found, and whether phrases that an image does not show get none."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from litegpt.metrics.phrases import phrase_overlaps, phrase_scores

_DESCRIPTION = """\
Each phrase has any number of boxes. Its IoU is that of the union of the answered boxes with the union of the true
ones. Over phrases that are present: mean IoU and the share with an IoU of at least 0.3 and 0.5; over phrases that are
absent: the share answered with no box.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of list of list of float): per phrase its answered boxes, [x1, y1, x2, y2], xyxy in [0, 1] of the
        whole image. [] says that there is none; None is an answer that cannot be read.
    references (list of list of list of float): per phrase its true boxes; [] where the image does not show it.
    probabilities (sequence of float): of each phrase that it is present, in [0, 1]; None where an answer has none.
        Optional.
Returns:
    mean_iou (float): over the phrases that are present.
    accuracy_at_iou (dict): {"0.3": ..., "0.5": ...}, the share of them with an IoU of at least that.
    answered_none (float): the share of them that are answered with no box.
    no_box_correct (float): the share answered with no box of the phrases that are absent.
    auroc (float): of the probabilities, over the phrases that have one.
    num_present, num_absent, num_malformed (int): phrases.
    A figure without any phrase to compute it of is None.
Raises:
    ValueError: a box lies outside [0, 1], a true box has no area, a probability is none.
Examples:
    >>> metric = evaluate.load("metrics/phrase_grounding")
    >>> results = metric.compute(
    ...     predictions=[[[0, 0, 0.5, 0.5]], [], []],
    ...     references=[[[0, 0, 0.5, 0.25], [0, 0.25, 0.5, 0.5]], [[0.2, 0.2, 0.4, 0.4]], []],
    ... )
    >>> results["mean_iou"], results["no_box_correct"]
    (0.5, 1.0)
"""

_CITATION = """\
@inproceedings{boecking2022making,
  title={Making the Most of Text Semantics to Improve Biomedical Vision-Language Processing},
  author={Boecking, Benedikt and Usuyama, Naoto and Bannur, Shruthi and Castro, Daniel C. and Schwaighofer, Anton and
          Hyland, Stephanie and Wetscherek, Maria and Naumann, Tristan and Nori, Aditya and Alvarez-Valle, Javier and
          Poon, Hoifung and Oktay, Ozan},
  booktitle={European Conference on Computer Vision (ECCV)},
  year={2022}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class PhraseGrounding(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        boxes = datasets.List(datasets.List(datasets.Value("float64"), length=4))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": boxes, "references": boxes}),
            reference_urls=["https://arxiv.org/abs/2204.09817"],
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[Sequence[float]] | None],
        references: Sequence[Sequence[Sequence[float]]],
        probabilities: Sequence[float | None] | None = None,
    ) -> dict[str, Any]:
        return phrase_scores(phrase_overlaps(predictions, references, probabilities=probabilities))
