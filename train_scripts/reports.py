"""What ECAMP trains on: each radiograph with its study's report, whose facts stand in it once more, distilled.

    reports = Reports(rows, ReportArguments(distilled="distilled.jsonl"), seed=0)
    reports.text(7, np.random.default_rng(0))
    # "There is no effusion. The lungs are clear. No effusion or pneumothorax."

In: rows with the columns `report_findings` and `report_impression`, or labels, which become prompts
(`label_prompts.py`). Out: a text of each radiograph that has one, drawn anew each time.

Source: arXiv 2312.13316, section 3.1; how the two reports are put together is the published code's: the distilled one
stands at the end of a random sentence of the original.
"""

import random
from collections.abc import Iterator
from typing import Any

import datasets
import numpy as np

from litegpt.datasets_scripts.distil_reports import read_distilled
from litegpt.datasets_scripts.image_labels import abnormal, each_row, states_of
from litegpt.datasets_scripts.label_prompts import text_of
from litegpt.datasets_scripts.report_texts import without_masks
from litegpt.evaluation_scripts.retrieval import REPORTS
from litegpt.train_scripts.arguments import ReportArguments
from litegpt.train_scripts.studies import NO_TEXT, SENTENCE_END


class Reports:
    """The radiographs of one data set that have a text.

    Args:
        rows: of `annotations.row_features`.
        seed: of the control `shuffle_reports`.

    Attributes:
        rows: (radiographs,) numbers of their rows.
        abnormal: (radiographs,) bool, which have findings.
        left_out: how many rows have no text.
        without_distilled: how many radiographs have a report and no distilled one.

    Raises:
        OSError, ValueError: no row has a text; the file of distilled reports is missing or damaged.
    """

    def __init__(self, rows: datasets.Dataset, arguments: ReportArguments, seed: int = 0):
        self.arguments = arguments
        self._said = rows.select_columns([name for name in rows.column_names if name not in ("image", "mask")])
        self._has_reports = set(REPORTS) <= set(rows.column_names)
        self._distilled = read_distilled(arguments.distilled) if arguments.distilled else {}
        rng = random.Random(0)
        tells_distilled = self._has_reports and (self._distilled or "report_distilled" in rows.column_names)
        self.without_distilled = 0
        speaking = np.zeros(len(rows), dtype=bool)
        for number, row in enumerate(each_row(self._said)):
            speaking[number] = bool(self._text(row, rng))
            self.without_distilled += bool(tells_distilled and self._original(row) and not self._distilled_of(row))
        if not speaking.any():
            raise ValueError(NO_TEXT)
        self.rows = np.flatnonzero(speaking)
        self.left_out = int((~speaking).sum())
        self.abnormal = abnormal(rows)[self.rows]
        # Whose text a radiograph is given: its own, but in the control.
        self._text_of = np.random.default_rng(seed).permutation(self.rows) if arguments.shuffle_reports else self.rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def remarks(self) -> str:
        """What a run says of them, beside their number."""
        said = f", {self.left_out:,} without a text left out" if self.left_out else ""
        return said + (f", {self.without_distilled:,} reports not distilled" if self.without_distilled else "")

    def text(self, number: int, rng: np.random.Generator) -> str:
        """A text of a radiograph."""
        return self._text(self._said[int(self._text_of[number])], random.Random(int(rng.integers(2**62))))

    def boxes(self, number: int) -> list[list[float]]:
        """Of a radiograph's findings, xyxy in [0, 1]."""
        return [finding["box"] for finding in self._said[int(self.rows[number])]["findings"]]

    def corpus(self) -> Iterator[str]:
        """All texts that a tokenizer learns from: reports, distilled ones too."""
        for row in each_row(self._said):
            yield from filter(None, (self._original(row), self._distilled_of(row)))

    def _text(self, row: dict[str, Any], rng: random.Random) -> str:
        original, distilled = self._original(row), self._distilled_of(row)
        if not original:
            return distilled or self._prompts(row, rng)
        if distilled and rng.random() < self.arguments.distilled_share:
            sentences = SENTENCE_END.split(original)
            place = rng.randint(0, len(sentences))
            return " ".join([*sentences[:place], distilled, *sentences[place:]])
        return original

    def _original(self, row: dict[str, Any]) -> str:
        if not self._has_reports:
            return ""
        return " ".join(filter(None, (without_masks(row[section] or "") for section in REPORTS)))

    def _distilled_of(self, row: dict[str, Any]) -> str:
        return self._distilled.get(row.get("study_id") or "", "") or row.get("report_distilled") or ""

    def _prompts(self, row: dict[str, Any], rng: random.Random) -> str:
        negatives = None if "mentioned" in row else self.arguments.negatives
        return text_of(states_of(row, self._said.features), rng, negatives)
