"""The frozen towers' output for every view of every radiograph, computed once and mapped from a file."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from filelock import FileLock
from tqdm.auto import tqdm

from litegpt.modeling_litegpt import LiteGPTModel
from litegpt.modeling_litegpt.configuration_litegpt import tower_width
from litegpt.train_scripts.radiograph_store import RadiographStore, check_free_space
from litegpt.train_scripts.views import Movement

BATCH_SIZE = 32


def patch_feature_file(
    model: LiteGPTModel, store: RadiographStore, views: Sequence[tuple[int, Movement]], folder: str | Path
) -> torch.Tensor:
    """Patch features of `views`, (views, patch tokens, tower width) in the model's dtype, mapped and not in memory.

    Args:
        views: pairs of a row number of `store` and how its radiograph is moved.
    """
    return map_patch_features(write_patch_features(model, store, views, folder), model, len(views))


def write_patch_features(
    model: LiteGPTModel, store: RadiographStore, views: Sequence[tuple[int, Movement]], folder: str | Path
) -> Path:
    """The file with the patch features of `views`, written unless it exists.

    Its name is a digest of the towers' weights, the radiographs and the views: another stage of the same run finds it,
    and changed towers or data do not.
    """
    path = Path(folder) / f"patch-features-{_digest(model, store, views)}.bin"
    if path.exists():
        return path
    shape = _shape(model, len(views))
    path.parent.mkdir(parents=True, exist_ok=True)
    # Another program that writes the same file at the same time would take it away from under the mapping.
    with FileLock(path.with_suffix(".lock")):
        if not path.exists():
            check_free_space(path.parent, math.prod(shape) * model.dtype.itemsize)
            temporary = path.with_suffix(".incomplete")
            temporary.unlink(missing_ok=True)
            features = torch.from_file(str(temporary), shared=True, size=math.prod(shape), dtype=model.dtype)
            _compute(features.view(shape), model, store, views)
            temporary.replace(path)
    return path


def map_patch_features(path: Path, model: LiteGPTModel, num_views: int) -> torch.Tensor:
    """What `write_patch_features` wrote; of the model only sizes and dtype are needed."""
    shape = _shape(model, num_views)
    return torch.from_file(str(path), shared=False, size=math.prod(shape), dtype=model.dtype).view(shape)


def _shape(model: LiteGPTModel, num_views: int) -> tuple[int, int, int]:
    return num_views, model.config.num_patch_tokens, tower_width(model.config.vision_config)


def _compute(
    features: torch.Tensor, model: LiteGPTModel, store: RadiographStore, views: Sequence[tuple[int, Movement]]
) -> None:
    home = model.device
    # The trainer moves the model to the GPU later; without one there is nowhere to go.
    device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else home
    for tower in model.towers:
        tower.to(device)
    for start in tqdm(range(0, len(views), BATCH_SIZE), desc="Patch features", mininterval=1):
        rows, movements = zip(*views[start : start + BATCH_SIZE], strict=True)
        pixels = [pixel_values.to(device) for pixel_values in store.pixel_values(rows, movements)]
        with torch.no_grad():
            features[start : start + len(rows)] = model.get_patch_features(*pixels).cpu()
    for tower in model.towers:
        tower.to(home)


def _digest(model: LiteGPTModel, store: RadiographStore, views: Sequence[tuple[int, Movement]]) -> str:
    digest = hashlib.sha256(repr([store.identity, model.dtype, list(views)]).encode())
    for name, tensor in model.state_dict().items():
        if "vision_tower" in name:
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]
