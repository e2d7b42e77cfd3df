"""Retrieval between radiographs and their texts, both ways: recall at 1, 5 and 10, mean and median rank."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from litegpt.metrics.ranks import retrieval_scores

_DESCRIPTION = """\
How well a radiograph finds its own text among all texts, and a text its radiograph, by the cosine of their embeddings:
recall at 1, 5 and 10, mean and median rank, with what chance gives beside them. Equal texts count as one; of equal
scores each has the worst rank.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of list of float): the embeddings of the images.
    references (list of list of float): per image the embedding of its text; of equal texts the first one's is taken.
    texts (list of str): per image its text.
Returns:
    image_to_text, text_to_image (dict): "recall_at_1", "recall_at_5", "recall_at_10" (share of queries), "mean_rank",
        "median_rank" (from 1 on), and "chance": what a random order gives, {the same but the median}.
    num_images (int): images, the candidates of a text.
    num_texts (int): unique texts, the candidates of an image.
Examples:
    >>> metric = evaluate.load("metrics/retrieval")
    >>> results = metric.compute(
    ...     predictions=[[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]],
    ...     references=[[1.0, 0.2], [0.2, 1.0], [1.0, 0.2]],
    ...     texts=["clear lungs.", "the heart is enlarged.", "clear lungs."],
    ... )
    >>> round(results["image_to_text"]["recall_at_1"], 3), results["text_to_image"]["recall_at_1"]
    (0.667, 1.0)
"""

_CITATION = """\
@inproceedings{you2023cxrclip,
  title={{CXR-CLIP}: Toward Large Scale Chest {X}-ray Language-Image Pre-training},
  author={You, Kihyun and Gu, Jawook and Ham, Jiyeon and Park, Beomhee and Kim, Jiho and Hong, Eun K. and
          Baek, Woonhyuk and Roh, Byungseok},
  booktitle={Medical Image Computing and Computer Assisted Intervention (MICCAI)},
  year={2023}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class Retrieval(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        embeddings = datasets.List(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {"predictions": embeddings, "references": embeddings, "texts": datasets.Value("string")}
            ),
            reference_urls=["https://arxiv.org/abs/2310.13292"],
        )

    def _compute(
        self, predictions: Sequence[Sequence[float]], references: Sequence[Sequence[float]], texts: Sequence[str]
    ) -> dict[str, Any]:
        return retrieval_scores(predictions, references, texts)
