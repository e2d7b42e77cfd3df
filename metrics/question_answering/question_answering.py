"""Short answers to closed and open questions about images."""

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

from litegpt.metrics.short_answers import answer_scores, question_answering_scores

_DESCRIPTION = """\
How many closed questions are answered exactly, and how many of the true answer's words the answers to open questions
have: exact match, recall and F1 of words. Case, punctuation and articles do not count.
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions (list of str): the answers; "" for none.
    references (list of str): the true answers.
    is_closed (sequence of bool): whether each question is closed: to be answered by yes or no, or by one of a few
        choices that it names.
Returns:
    closed_accuracy (float): the share of closed questions answered exactly. Where the truth is yes or no, an answer
        that begins with it is exact: "Yes, there is."
    open_exact (float): the share of open questions answered exactly.
    open_recall (float): mean share of the true answer's words that the answer has.
    open_f1 (float): mean F1 of words.
    num_closed, num_open (int): questions. A figure without a question is None.
Raises:
    ValueError: a true answer has no word.
Examples:
    >>> metric = evaluate.load("metrics/question_answering")
    >>> metric.compute(
    ...     predictions=["Yes, there is.", "in the left lobe"],
    ...     references=["yes", "Left lung"],
    ...     is_closed=[True, False],
    ... )
    {'closed_accuracy': 1.0, 'open_exact': 0.0, 'open_recall': 0.5, 'open_f1': 0.4, 'num_closed': 1, 'num_open': 1}
"""

_CITATION = """\
@inproceedings{li2023llavamed,
  title={LLaVA-Med: Training a Large Language-and-Vision Assistant for Biomedicine in One Day},
  author={Li, Chunyuan and Wong, Cliff and Zhang, Sheng and Usuyama, Naoto and Liu, Haotian and Yang, Jianwei and
          Naumann, Tristan and Poon, Hoifung and Gao, Jianfeng},
  booktitle={Advances in Neural Information Processing Systems (NeurIPS)},
  year={2023}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class QuestionAnswering(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
            reference_urls=["https://arxiv.org/abs/2306.00890", "https://arxiv.org/abs/1606.05250"],
        )

    def _compute(
        self, predictions: Sequence[str], references: Sequence[str], is_closed: Sequence[bool]
    ) -> dict[str, Any]:
        return question_answering_scores(answer_scores(predictions, references, is_closed))
