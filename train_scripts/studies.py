"""Rows of radiographs -> studies, of which CXR-CLIP draws pictures and texts (arXiv 2310.13292, section 3.1).

    studies = Studies(rows, StudyArguments(), seed=0)
    len(studies)                                   # studies with a text or labels; the rows without either are counted
    drawn = studies.draw([4, 17], rng)
    drawn.rows                                     # (views, 2): the pictures' row numbers
    drawn.texts                                    # [["Heart size is normal. ..."], ["No acute ..."]] by view

In: rows (an image a row), with `study_id` where a study has several, and reports or labels. A study's pictures are of
two distinct views if it has them, else two of its pictures, else one twice (shown in two ways). Its texts are both
sections of its report, or the one and the same with its sentences in another order; without a report two texts of its
labels' prompts. Only row numbers and views are held in memory: texts stay in the rows' files until they are drawn.
"""

import random
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import datasets
import numpy as np

from litegpt.datasets_scripts.image_labels import abnormal, each_row, rows_of_batch, states_of
from litegpt.datasets_scripts.label_prompts import text_of
from litegpt.datasets_scripts.report_texts import without_masks
from litegpt.evaluation_scripts.retrieval import REPORTS, is_frontal
from litegpt.train_scripts.arguments import StudyArguments

NO_TEXT = "No row has a report, or a label that there are prompts for: there is no text to train on."
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


class DrawnStudies(NamedTuple):
    """What a batch shows.

    Attributes:
        rows: (views, studies), numbers of the pictures' rows.
        texts: for each view a text of each study.
    """

    rows: np.ndarray
    texts: list[list[str]]


class Studies:
    """The studies of one data set.

    Args:
        rows: of `annotations.row_features`.
        arguments: how pictures and texts are drawn.
        seed: of the control `shuffle_reports`.

    Raises:
        ValueError: no row has a report or a label that there are prompts for.
    """

    def __init__(self, rows: datasets.Dataset, arguments: StudyArguments, seed: int = 0):
        self.arguments = arguments
        columns = [column for column in rows.column_names if column not in ("image", "mask")]
        self._said = rows.select_columns(columns)
        self._has_reports = set(REPORTS) <= set(columns) and not arguments.labels_only
        self._order, self._starts = _grouped(rows)
        self._views = np.array(rows["view"][:], dtype=object)
        speaking = self._speaking()
        self.left_out = int(len(speaking) - speaking.sum())
        if not speaking.any():
            raise ValueError(NO_TEXT)
        self._numbers = np.flatnonzero(speaking)
        # Whose text a study is given: its own, but in the control.
        self._text_of = self._numbers.copy()
        if arguments.shuffle_reports:
            self._text_of = np.random.default_rng(seed).permutation(self._numbers)
        has_findings = np.logical_or.reduceat(abnormal(rows)[self._order], self._starts[:-1])
        self.abnormal = has_findings[self._numbers]

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def radiographs(self) -> int:
        """Of the studies that are drawn from."""
        return int(np.diff(self._starts)[self._numbers].sum())

    def draw(self, studies: Sequence[int], rng: np.random.Generator) -> DrawnStudies:
        """Pictures and texts of studies, drawn with `rng`; one of each where there is one view."""
        sentences = random.Random(int(rng.integers(2**62)))
        pictures = [self._pictures(self._rows_of(self._numbers[study]), rng) for study in studies]
        said = self._said[[int(self._rows_of(self._text_of[study])[0]) for study in studies]]
        texts = [self._texts(row, sentences) for row in rows_of_batch(said)]
        views = 2 if self.arguments.multi_view else 1
        return DrawnStudies(np.array(pictures).T[:views], [list(texts) for texts in zip(*texts, strict=True)][:views])

    def first(self, studies: Sequence[int]) -> DrawnStudies:
        """The same each time: a study's first frontal picture, and its whole report or its labels' prompts."""
        rows = [self._first_picture(self._rows_of(self._numbers[study])) for study in studies]
        said = self._said[[int(self._rows_of(self._text_of[study])[0]) for study in studies]]
        texts = []
        for study, row in zip(studies, rows_of_batch(said), strict=True):
            texts.append(" ".join(self._sections(row)) or self._prompts(row, random.Random(int(study))))
        return DrawnStudies(np.array([rows]), [texts])

    def first_rows(self) -> datasets.Dataset:
        """The row of each study's first frontal picture, without the picture."""
        return self._said.select([self._first_picture(self._rows_of(number)) for number in self._numbers])

    def corpus(self) -> Iterator[str]:
        """All texts that a tokenizer learns from."""
        for row in each_row(self._said):
            yield from self._sections(row)

    def _rows_of(self, number: int) -> np.ndarray:
        return self._order[self._starts[number] : self._starts[number + 1]]

    def _pictures(self, rows: np.ndarray, rng: np.random.Generator) -> tuple[int, int]:
        if not self.arguments.study_sampling:
            first = self._first_picture(rows)
            return first, first
        first, *others = rng.permutation(rows).tolist()
        distinct = [row for row in others if self._views[row] != self._views[first]]
        return first, (distinct or others or [first])[0]

    def _first_picture(self, rows: np.ndarray) -> int:
        """A study's first frontal picture; the first where no view says that it is one."""
        return int(next((row for row in rows if is_frontal(self._views[row])), rows[0]))

    def _texts(self, row: dict[str, Any], rng: random.Random) -> tuple[str, str]:
        sections = self._sections(row)
        if not sections:
            return self._prompts(row, rng), self._prompts(row, rng)
        if not self.arguments.study_sampling:
            sections = [" ".join(sections)]
        if self.arguments.release:
            texts = [rng.choice(sections), rng.choice(sections)]
        elif len(sections) > 1:
            texts = rng.sample(sections, 2)
            if self.arguments.augment:
                texts = [swapped_sentences(text, rng) if rng.random() < 0.5 else text for text in texts]
        else:
            text = sections[0]
            texts = [text, swapped_sentences(text, rng)] if self.arguments.augment else [text, text]
            rng.shuffle(texts)
        if rng.random() < self.arguments.prompts and (prompts := self._prompts(row, rng)):
            texts[rng.randrange(2)] = prompts
        return texts[0], texts[1]

    def _sections(self, row: dict[str, Any]) -> list[str]:
        if not self._has_reports:
            return []
        return [text for section in REPORTS if (text := without_masks(row[section] or ""))]

    def _prompts(self, row: dict[str, Any], rng: random.Random) -> str:
        negatives = None if "mentioned" in row else self.arguments.negatives
        states = states_of(row, self._said.features)
        return text_of(states, rng, negatives, normal=not self.arguments.release)

    def _speaking(self) -> np.ndarray:
        """(studies,) whether there is a text: by the study's first row, which speaks for all of it."""
        rng = random.Random(0)
        firsts = self._said.select(self._order[self._starts[:-1]])
        return np.array([bool(self._sections(row) or self._prompts(row, rng)) for row in each_row(firsts)], dtype=bool)


def swapped_sentences(text: str, rng: random.Random) -> str:
    """The text with its sentences in another order; the same where it has one alone."""
    sentences = SENTENCE_END.split(text.strip())
    rng.shuffle(sentences)
    return " ".join(sentences)


def _grouped(rows: datasets.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers in the order of their studies, and where each study starts; (rows,) and (studies + 1,).

    A row without a study is one of its own. Studies stand in the order of their first rows.
    """
    names = rows["study_id"][:] if "study_id" in rows.column_names else [None] * len(rows)
    numbers: dict[Any, int] = {}
    of_row = np.array([numbers.setdefault(name or ("row", row), len(numbers)) for row, name in enumerate(names)])
    order = np.argsort(of_row, kind="stable")
    return order, np.searchsorted(of_row[order], np.arange(len(numbers) + 1))
