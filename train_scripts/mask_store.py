"""Masks at a tower's input size, stored once, moved along with their radiographs.

    masks = MaskStore(rows, side=224, folder="outputs/run/cache")
    masks.targets([3, 5], movements)   # {"masks": (2, 224, 224) float32, 0 or 1}
    masks.true                         # (rows, 224, 224) uint8, mapped and not in memory
    masks.positive                     # (rows,) bool, which have any

In: rows with the column `mask` (SIIM-ACR), of which null means that there is nothing; or rows with boxes, which are
filled (RSNA Pneumonia). Out: masks of the whole radiograph squashed to a square, as the tower sees it: of a picture by
its nearest pixels, of boxes the pixels whose centre lies inside.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from filelock import FileLock
from numpy.lib.format import open_memmap
from PIL import Image
from tqdm.auto import tqdm

from litegpt.common.files import replacing
from litegpt.datasets_scripts.image_labels import each_row
from litegpt.train_scripts.radiograph_store import check_free_space, moved
from litegpt.train_scripts.views import Movement


class MaskStore:
    """The masks of a data set, 0 or 1, in a file (rows, side, side) that is mapped.

    Args:
        rows: with the column `mask`, or else with `findings`, whose boxes are filled.
        side: pixels of the square.
        folder: where the file is written; the same rows and size find it again.

    Raises:
        ValueError: a mask cannot be decoded.
    """

    def __init__(self, rows: Dataset, side: int, folder: str | Path):
        path = Path(folder) / f"masks-{rows._fingerprint}-{side}.npy"
        if not path.exists():
            # Another program that writes the same file at the same time would truncate what is mapped here.
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(path.parent / "masks.lock"):
                if not path.exists():
                    _write(rows, side, path)
        self.true = np.load(path, mmap_mode="r")
        self.positive = np.array([bool(mask.any()) for mask in self.true], dtype=bool)

    def __len__(self) -> int:
        return len(self.true)

    def targets(self, numbers: Sequence[int], movements: Sequence[Movement]) -> dict[str, torch.Tensor]:
        """{"masks": (n, side, side) float32}: 1 where the moved mask covers at least half of a pixel."""
        masks = torch.from_numpy(self.true[np.asarray(numbers)]).float()
        if any(movement != Movement() for movement in movements):
            masks = (moved(masks, movements, outside="zeros") >= 0.5).float()
        return {"masks": masks}


def _write(rows: Dataset, side: int, path: Path) -> None:
    check_free_space(path.parent, len(rows) * side * side)
    pictures = "mask" in rows.column_names
    entries = rows.select_columns(["image_id", "mask" if pictures else "findings"])
    with replacing(path) as temporary:
        masks = open_memmap(temporary, "w+", np.uint8, (len(rows), side, side))
        named = each_row(entries.select_columns("image_id")) if pictures else each_row(entries)
        for number, row in enumerate(tqdm(named, desc="Masks", total=len(rows), mininterval=1)):
            if pictures:
                masks[number] = _picture_mask(entries, number, row["image_id"], side)
            else:
                masks[number] = filled_boxes(row["findings"], side)
        masks.flush()


def _picture_mask(entries: Dataset, number: int, image_id: str, side: int) -> np.ndarray:
    try:
        picture = entries[number]["mask"]
    # SyntaxError: Pillow's for broken PNG chunks.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{image_id}: the mask can't be decoded ({error}).") from None
    if picture is None:
        return np.zeros((side, side), dtype=np.uint8)
    return np.asarray(picture.convert("L").resize((side, side), Image.Resampling.NEAREST)) > 127


def filled_boxes(findings: Sequence[dict[str, Any]], side: int) -> np.ndarray:
    """(side, side) uint8: 1 at the pixels whose centre lies in a box; a box without any has the one of its centre."""
    centres = (np.arange(side) + 0.5) / side
    mask = np.zeros((side, side), dtype=np.uint8)
    for finding in findings:
        x1, y1, x2, y2 = finding["box"]
        columns, rows = (centres >= x1) & (centres <= x2), (centres >= y1) & (centres <= y2)
        columns[min(side - 1, int(side * (x1 + x2) / 2))] = True
        rows[min(side - 1, int(side * (y1 + y2) / 2))] = True
        mask |= rows[:, None] & columns[None, :]
    return mask
