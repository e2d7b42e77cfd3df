"""Radiographs as the towers see them, for training: stored once in 8 bit, moved and normalised by the batch."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from filelock import FileLock
from numpy.lib.format import open_memmap
from PIL import Image
from torch.nn import functional
from tqdm.auto import tqdm

from litegpt.common.programs import Refusal
from litegpt.datasets_scripts.rows import row_picture
from litegpt.processing.radiograph import SquashedRadiograph
from litegpt.train_scripts.views import Movement


class RadiographStore:
    """The radiographs of a data set at each tower's input size, 8-bit grey, in files (n, side, side) that are mapped.

    Resizing is the image processors' own (Pillow, whole image, no crop), so that an unmoved radiograph gives exactly
    the tensors that `LiteGPTProcessor` gives for it.

    Args:
        rows: a data set with an `image` column.
        image_processors: one for each tower.
        folder: where the files are written; the same rows and sizes find them again.

    Raises:
        ValueError: a picture can't be decoded.
    """

    def __init__(self, rows: Dataset, image_processors: Sequence[Any], folder: str | Path):
        self.image_processors = list(image_processors)
        self._inputs = [processor.to_json_string() for processor in self.image_processors]
        self.identity = (rows._fingerprint, *self._inputs)
        scalings = [(p.size["height"], p.size["width"], int(p.resample)) for p in self.image_processors]
        paths = {
            (height, width, resample): Path(folder)
            / f"radiographs-{rows._fingerprint}-{height}x{width}-{resample}.npy"
            for height, width, resample in scalings
        }
        if not all(path.exists() for path in paths.values()):
            # Another program that writes the same file at the same time would truncate what is mapped here.
            Path(folder).mkdir(parents=True, exist_ok=True)
            with FileLock(Path(folder) / "radiographs.lock"):
                _write_missing(rows, paths)
        files = {scaling: np.load(path, mmap_mode="r") for scaling, path in paths.items()}
        self.pictures = [files[scaling] for scaling in scalings]

    def pixel_values(self, rows: Sequence[int], movements: Sequence[Movement]) -> list[torch.Tensor]:
        """One (n, 3, side, side) tensor for each tower; the same one where the towers' input is the same."""
        tensors: dict[str, torch.Tensor] = {}
        for pictures, processor, key in zip(self.pictures, self.image_processors, self._inputs, strict=True):
            if key not in tensors:
                grey = torch.from_numpy(_equalised(pictures[np.asarray(rows)], movements)).float()
                tensors[key] = _normalise(_move(grey, movements), processor)
        return [tensors[key] for key in self._inputs]

    def squashed(self, row: int, movement: Movement) -> SquashedRadiograph:
        """One radiograph, moved, in 8 bit: `LiteGPTProcessor` takes it as an image."""
        shown = {}
        for pictures in self.pictures:
            height, width = pictures.shape[1:]
            grey = torch.from_numpy(np.array(_equalised(pictures[row : row + 1], [movement]))).float()
            shown[width, height] = Image.fromarray(_move(grey, [movement])[0].round().byte().numpy())
        return SquashedRadiograph(next(iter(shown)), shown)


def _write_missing(rows: Dataset, paths: dict[tuple[int, int, int], Path]) -> None:
    """Writes the files of `paths`, keyed by height, width and Pillow's resampling filter, that do not exist."""
    missing = {scaling: path for scaling, path in paths.items() if not path.exists()}
    if not missing:  # another program has written them in the meantime
        return
    files = {}
    try:
        for (height, width, resample), path in missing.items():
            check_free_space(path.parent, len(rows) * height * width)
            shape = (len(rows), height, width)
            files[height, width, resample] = open_memmap(path.with_suffix(".incomplete"), "w+", np.uint8, shape)
        for index in tqdm(range(len(rows)), desc="Radiographs at the towers' size", mininterval=1):
            image = _picture(rows, index)
            for (height, width, resample), file in files.items():
                file[index] = np.asarray(image.resize((width, height), Image.Resampling(resample)))
        for scaling, path in missing.items():
            files[scaling].flush()
            path.with_suffix(".incomplete").replace(path)
    finally:
        for path in missing.values():
            path.with_suffix(".incomplete").unlink(missing_ok=True)


def _picture(rows: Dataset, index: int) -> Image.Image:
    try:
        return row_picture(rows, index)
    except ValueError as error:
        image_id = rows.select_columns("image_id")[index]["image_id"]
        raise ValueError(f"{image_id}: {error}") from None


def check_free_space(folder: Path, size: int) -> None:
    """Makes the folder; refuses before a mapped file of `size` bytes would kill the process on a full disk."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if size > free:
        raise Refusal(f"{folder}: {size / 1e9:.1f} GB are needed for training data, {free / 1e9:.1f} GB are free.")


def _equalised(pictures: np.ndarray, movements: Sequence[Movement]) -> np.ndarray:
    """(n, height, width) uint8, with equalised contrast where a movement says so.

    Source: CLAHE, Pizer et al. (1990), with the limit and the tiles of CXR-CLIP's published settings.
    """
    chosen = [index for index, movement in enumerate(movements) if movement.equalised]
    if not chosen:
        return pictures
    import cv2  # of the extra `clahe`: only where it is asked for

    clahe = cv2.createCLAHE(clipLimit=4.0, tileGridSize=(8, 8))
    pictures = np.array(pictures)
    for index in chosen:
        pictures[index] = clahe.apply(pictures[index])
    return pictures


def _move(grey: torch.Tensor, movements: Sequence[Movement]) -> torch.Tensor:
    """(n, height, width) in 0..255, moved; an unmoved radiograph stays exactly as it is."""
    if all(movement == Movement() for movement in movements):
        return grey
    shown = moved(grey, movements)
    contrast = torch.tensor([movement.contrast for movement in movements], dtype=torch.float32).view(-1, 1, 1)
    brightness = torch.tensor([255 * movement.brightness for movement in movements], dtype=torch.float32).view(
        -1, 1, 1
    )
    gamma = torch.tensor([movement.gamma for movement in movements], dtype=torch.float32).view(-1, 1, 1)
    if (gamma != 1).any():
        shown = 255 * (shown / 255) ** gamma
    shown = (shown * contrast + brightness).clamp(0, 255)
    unmoved = torch.tensor([movement == Movement() for movement in movements]).view(-1, 1, 1)
    return torch.where(unmoved, grey, shown)


def moved(pictures: torch.Tensor, movements: Sequence[Movement], outside: str = "border") -> torch.Tensor:
    """(n, height, width) pictures or masks, scaled and shifted; what they show is as bright as it was.

    Args:
        outside: "border", or "zeros": what lies beyond the picture's edge.
    """
    scale = torch.tensor([movement.scale for movement in movements], dtype=torch.float32)
    shift = torch.tensor([movement.shift for movement in movements], dtype=torch.float32)
    # affine_grid maps output to input in [-1, 1]: the inverse of Movement's formula.
    theta = torch.zeros(len(pictures), 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = 1 / scale[:, 0], 1 / scale[:, 1]
    theta[:, :, 2] = -2 * shift / scale
    grid = functional.affine_grid(theta, (len(pictures), 1, *pictures.shape[1:]), align_corners=False)
    return functional.grid_sample(pictures[:, None], grid, padding_mode=outside, align_corners=False)[:, 0]


def _normalise(grey: torch.Tensor, processor: Any) -> torch.Tensor:
    # One multiplication and one addition a pixel: this runs for every radiograph of every step.
    statistics = list(zip(processor.image_mean, processor.image_std, strict=True))
    channels = {
        (mean, std): torch.add(grey * (processor.rescale_factor / std), -mean / std) for mean, std in set(statistics)
    }
    if len(channels) == 1:  # the channels are one and the same
        return channels[statistics[0]].unsqueeze(1).expand(-1, len(statistics), -1, -1)
    return torch.stack([channels[mean_and_std] for mean_and_std in statistics], dim=1)
