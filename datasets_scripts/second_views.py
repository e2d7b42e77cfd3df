"""Which radiographs show one study from the front and from the side.

    second_views(rows)    # {0: 1}: row 1 is the lateral view of the study of row 0, a frontal one

In: rows with `study_id` and `view`. Out: numbers of rows; pictures are not read.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from litegpt.datasets_scripts.annotations import is_lateral

if TYPE_CHECKING:  # it takes a second to import
    from datasets import Dataset


def second_views(rows: "Dataset", laterals_among: Iterable[int] | None = None) -> dict[int, int]:
    """{a frontal row: the first lateral row of its study}, of studies that have both.

    Args:
        laterals_among: numbers of the rows that may be a study's lateral one; None: all.

    Raises:
        ValueError: the rows do not say which study they are of.
    """
    if "study_id" not in rows.column_names:
        raise ValueError("second_view: the rows have no study_id, so nobody knows which radiographs belong together.")
    keys = [column for column in ("patient_id", "study_id") if column in rows.column_names]
    studies = list(zip(*(rows[column][:] for column in keys), strict=True))
    views = [view or "" for view in rows["view"][:]]
    laterals: dict[tuple[str, ...], int] = {}
    for row in range(len(rows)) if laterals_among is None else laterals_among:
        if studies[row][-1] and is_lateral(views[row]):
            laterals.setdefault(studies[row], row)
    frontal = (row for row, view in enumerate(views) if view and not is_lateral(view))
    return {row: laterals[studies[row]] for row in frontal if studies[row] in laterals}
