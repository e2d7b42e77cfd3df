"""Where of each radiograph super-resolution is judged: ECAMP's context window, 6/7 of a side.

    windows_of_boxes([[[0.1, 0.2, 0.3, 0.4]], []])    # (2, 4) around the boxes; the whole where there are none
    windows_of_similarity(model, processor, store, reports, folder)    # around what a CXR-CLIP sees of the report

In: boxes, or a dual encoder with radiographs and their texts. Out: (radiographs, 4) float32, xyxy in [0, 1] of the
whole image. ECAMP (arXiv 2312.13316, section 3.3) takes the attention of a retrained GLoRIA, whose windows were never
published: the similarity of a dual encoder's patches to the report stands for it.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from litegpt.common.files import replacing
from litegpt.modeling_towers import CXRCLIPModel
from litegpt.processing.processing_cxr_clip import CXRCLIPProcessor
from litegpt.train_scripts.radiograph_store import RadiographStore
from litegpt.train_scripts.reports import Reports
from litegpt.train_scripts.views import Movement

SIDE = 6 / 7  # 12 of 14 cells, in the published code
WHOLE = (0.0, 0.0, 1.0, 1.0)
MOST_SIMILAR = 0.1  # of the patches, in whose middle the window stands
BATCH_SIZE = 64


def window_around(x: float, y: float) -> tuple[float, float, float, float]:
    """The window whose middle is nearest to a point, xyxy; it lies within the image."""
    left, top = (min(max(middle - SIDE / 2, 0.0), 1 - SIDE) for middle in (x, y))
    return left, top, left + SIDE, top + SIDE


def windows_of_boxes(boxes: Sequence[Sequence[Sequence[float]]]) -> np.ndarray:
    """(radiographs, 4): around the mean of each radiograph's boxes' centres; the whole image where it has none."""
    windows = []
    for of_image in boxes:
        corners = np.array(of_image).reshape(-1, 2, 2)
        windows.append(window_around(*corners.mean(axis=(0, 1))) if len(corners) else WHOLE)
    return np.array(windows, dtype=np.float32).reshape(-1, 4)


def window_of_map(similarity: np.ndarray) -> tuple[float, float, float, float]:
    """Around the middle of the most similar places of a (rows, columns) map."""
    count = max(1, round(MOST_SIMILAR * similarity.size))
    places = np.argsort(-similarity, axis=None, kind="stable")[:count]
    rows, columns = np.unravel_index(places, similarity.shape)
    return window_around(
        float((columns.mean() + 0.5) / similarity.shape[1]), float((rows.mean() + 0.5) / similarity.shape[0])
    )


@torch.no_grad()
def windows_of_similarity(
    model: CXRCLIPModel, processor: CXRCLIPProcessor, store: RadiographStore, reports: Reports, folder: str | Path
) -> np.ndarray:
    """(radiographs, 4): around the patches that are most similar to each radiograph's text.

    Args:
        store: of the data set's radiographs at the dual encoder's size.
        folder: where the windows are kept; the same radiographs and weights find them again.
    """
    path = Path(folder) / f"windows-{_identity(model, store, reports)}.npy"
    if path.is_file():
        return np.load(path)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = model.eval().to(device)
    windows = np.empty((len(reports), 4), dtype=np.float32)
    for start in tqdm(range(0, len(reports), BATCH_SIZE), desc="Where reports are seen", mininterval=1):
        numbers = range(start, min(start + BATCH_SIZE, len(reports)))
        (pixels,) = store.pixel_values(reports.rows[list(numbers)], [Movement()] * len(numbers))
        texts = [reports.text(number, np.random.default_rng(number)) for number in numbers]
        vectors = model(**processor(text=texts).to(device)).text_embeds
        similarity = (model.get_patch_embeddings(pixels.to(device)) @ vectors.unsqueeze(-1)).squeeze(-1)
        side = round(similarity.shape[1] ** 0.5)
        maps = similarity.float().cpu().numpy().reshape(-1, side, side)
        windows[start : start + len(maps)] = [window_of_map(of_image) for of_image in maps]
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, windows)
    return windows


def _identity(model: CXRCLIPModel, store: RadiographStore, reports: Reports) -> str:
    digest = hashlib.sha256(repr([store.identity, reports.arguments, len(reports)]).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.float().sum().item()!r}".encode())
    return digest.hexdigest()[:16]
