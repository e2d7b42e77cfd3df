"""The frozen towers' output for every view of every radiograph, computed once and mapped from a file."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm.auto import tqdm

from modeling_litegpt import LiteGPTModel
from train_scripts.radiograph_store import Movement, RadiographStore, check_free_space

BATCH_SIZE = 32


def patch_feature_file(
    model: LiteGPTModel, store: RadiographStore, views: Sequence[tuple[int, Movement]], folder: str | Path
) -> torch.Tensor:
    """Patch features of `views`, (views, patch tokens, tower width) in the model's dtype, mapped and not in memory.

    The file's name is a digest of the towers' weights, the radiographs and the views: another stage of the same run
    finds it, and changed towers or data do not.

    Args:
        views: pairs of a row number of `store` and how its radiograph is moved.
    """
    path = Path(folder) / f"patch-features-{_digest(model, store, views)}.bin"
    shape = (len(views), model.config.num_patch_tokens, model.config.vision_config.hidden_size)
    size = shape[0] * shape[1] * shape[2]
    if not path.exists():
        check_free_space(path.parent, size * model.dtype.itemsize)
        temporary = path.with_suffix(".incomplete")
        temporary.unlink(missing_ok=True)
        features = torch.from_file(str(temporary), shared=True, size=size, dtype=model.dtype).view(shape)
        for start in tqdm(range(0, len(views), BATCH_SIZE), desc="Patch features", mininterval=1):
            rows, movements = zip(*views[start : start + BATCH_SIZE], strict=True)
            pixels = [pixel_values.to(model.device) for pixel_values in store.pixel_values(rows, movements)]
            with torch.no_grad():
                features[start : start + len(rows)] = model.get_patch_features(*pixels).cpu()
        del features
        temporary.replace(path)
    return torch.from_file(str(path), shared=False, size=size, dtype=model.dtype).view(shape)


def _digest(model: LiteGPTModel, store: RadiographStore, views: Sequence[tuple[int, Movement]]) -> str:
    digest = hashlib.sha256(repr([store.identity, model.dtype, list(views)]).encode())
    for name, tensor in model.state_dict().items():
        if "vision_tower" in name:
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]
