"""A task's figures by view, sex and age of the radiographs.

In: the statistics of a task, and the rows. Out: the headline figures of each group that is large enough, and how many
radiographs are in none.

    groups, left_out = group_figures(statistics, rows)
    groups["age"]["60-79"]["finding_f1"], left_out["age"]
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from litegpt.evaluation_scripts.figures import (
    DiagnosisStatistics,
    FindingStatistics,
    headline_figures,
    nested,
    row_figures,
)

SMALLEST_GROUP = 10  # images
AGE_BANDS = ((80, "80+"), (60, "60-79"), (40, "40-59"), (0, "0-39"))  # from this year of age on


def group_figures(
    statistics: FindingStatistics | DiagnosisStatistics, rows: Sequence[dict[str, Any]]
) -> tuple[dict[str, dict[str, Any]], dict[str, int]]:
    """A task's figures by view, sex and age, of the columns that the rows have with two values or more.

    Returns:
        {column: {value: {"images": number, the headline figures of this task}}}, and {column: images that are in no
        group: of a value with fewer than ten images, or whose row does not tell}.
    """
    groups, left_out = {}, {}
    is_known = np.zeros(len(rows), dtype=bool)
    is_known[statistics.images] = True
    for column in (column for column in ("view", "sex", "age") if column in rows[0]):
        values = np.array([_group(row, column) for row in rows])
        sizes = Counter(values[is_known].tolist())
        sizes.pop("", None)
        if len(sizes) < 2:
            continue
        large = sorted(value for value, size in sizes.items() if size >= SMALLEST_GROUP)
        left_out[column] = len(statistics.images) - sum(sizes[value] for value in large)
        groups[column] = {}
        if large:
            weights = (values == np.array(large)[:, None]).astype(float)
            figures = headline_figures([statistics], weights)
            for i, value in enumerate(large):
                groups[column][value] = {"images": sizes[value], **nested(row_figures(figures, i))}
    return groups, left_out


def _group(row: dict[str, Any], column: str) -> str:
    """The group of a row; "" where the row does not tell."""
    value = row[column]
    if column != "age":
        return value or ""
    if value is None or value < 0:
        return ""
    return next(band for start, band in AGE_BANDS if value >= start)
