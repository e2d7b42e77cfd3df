"""Whether two reports say the same of CheXpert's 14 labels."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from litegpt.metrics.report_labels import agreement_scores, label_agreement

_DESCRIPTION = """\
F1 of what answered reports call positive against what the true reports do, over CheXpert's 14 labels and the five of
its competition: of all pairs together (micro), of each label, and the mean over labels (macro).
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of list of dict): per image the labels that the answered report speaks of, {"label": str,
        "state": "positive", "negative" or "uncertain"}; others are left out.
    references (list of list of dict): the same of the true report.
    uncertain (str): what an uncertain label counts as on both sides, "positive" or "negative". Default "positive".
Returns:
    micro_f1, macro_f1 (dict): {"14": ..., "5": ...}.
    per_label (dict): {label: {"precision", "recall", "f1", "named", "true", "right"}}; the last three are images.
    num_images (int).
    A figure with nothing to divide by is None, and stands in no mean.
Raises:
    ValueError: a label is none of the 14 or stands twice, or a state is none of the three.
Examples:
    >>> metric = evaluate.load("metrics/report_label_agreement")
    >>> results = metric.compute(
    ...     predictions=[[{"label": "Edema", "state": "positive"}], [{"label": "Edema", "state": "negative"}]],
    ...     references=[[{"label": "Edema", "state": "uncertain"}], [{"label": "Fracture", "state": "positive"}]],
    ... )
    >>> results["micro_f1"]["5"], results["per_label"]["Fracture"]["f1"]
    (1.0, 0.0)
"""

_CITATION = """\
@inproceedings{irvin2019chexpert,
  title={CheXpert: A Large Chest Radiograph Dataset with Uncertainty Labels and Expert Comparison},
  author={Irvin, Jeremy and Rajpurkar, Pranav and Ko, Michael and Yu, Yifan and Ciurea-Ilcus, Silviana and others},
  booktitle={AAAI Conference on Artificial Intelligence},
  year={2019}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class ReportLabelAgreement(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        states = datasets.List({"label": datasets.Value("string"), "state": datasets.Value("string")})
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": states, "references": states}),
            reference_urls=["https://arxiv.org/abs/1901.07031", "https://arxiv.org/abs/2004.09167"],
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[dict[str, str]]],
        references: Sequence[Sequence[dict[str, str]]],
        uncertain: str = "positive",
    ) -> dict[str, Any]:
        if uncertain not in ("positive", "negative"):
            raise ValueError(f"`uncertain` is {uncertain!r}, not positive or negative.")
        states = (_read(images, what) for images, what in ((predictions, "predictions"), (references, "references")))
        return agreement_scores(label_agreement(*states, uncertain))


def _read(images: Sequence[Sequence[dict[str, str]]], what: str) -> list[dict[str, str]]:
    """{label: state} of each image."""
    read = []
    for image, items in enumerate(images):
        states = {item["label"]: item["state"] for item in items}
        if len(states) < len(items):
            raise ValueError(f"{what}[{image}] has a label twice.")
        read.append(states)
    return read
