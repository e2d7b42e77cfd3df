"""ECAMP's and MRM's published weights -> an image tower that loads with transformers alone.

    litegpt convert-ecamp --weights ECAMP_ViT_Base_16.pth --output_dir outputs/ecamp_tower
    litegpt convert-ecamp --weights MRM.pth --weights_of mrm --output_dir outputs/mrm_tower

In: the published file (a ViT-B/16 in MAE's names, beside all that it was trained with); only tensors are read of it.
Out: a folder with the encoder as a `ViTModel`, its image processor and a card. How many tensors of what were left out
is printed. Both were trained on MIMIC-CXR, whose licence forbids to share what shows its patients: the card says so.
"""

import litegpt.common.startup  # noqa: F401

# isort: split
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import torch

from litegpt.common.arguments import parse
from litegpt.common.files import refuse_filled_folder
from litegpt.common.programs import program, refuse_bad_input
from litegpt.modeling_litegpt.published_weights import timm_vit
from litegpt.modeling_litegpt.taken_tower import TakenTower
from litegpt.modeling_towers.arguments import ECAMPConversionArguments
from litegpt.modeling_towers.image_towers import ImageTower, built_tower, save_image_tower
from litegpt.modeling_towers.tensors_only import tensors_only

# ViT-B/16; timm's epsilon, which `ViTConfig`'s default is not.
VIT: dict[str, Any] = {"model_type": "vit", "image_size": 224, "patch_size": 16, "layer_norm_eps": 1e-6}


class Release(NamedTuple):
    """Published weights: their key of `BASE_MODELS`, and the mean and deviation of the pixels they were trained on."""

    base_model: str
    mean: float
    std: float


RELEASES = {"ecamp": Release("ecamp", 0.4721, 0.3037), "mrm": Release("mrm", 0.4978, 0.2449)}


@program
def main(arguments: ECAMPConversionArguments) -> None:
    with refuse_bad_input():
        refuse_filled_folder(arguments.output_dir)
        tower, left_out = converted(Path(arguments.weights), RELEASES[arguments.weights_of])
        save_image_tower(tower, arguments.output_dir)
    print(f"{arguments.weights}: {len(tower.network.state_dict())} tensors of the encoder")
    for part, count in sorted(Counter(name.partition(".")[0] for name in left_out).items()):
        print(f"    left out: {part}, {count} tensors")
    print(f"{arguments.output_dir}: ready. The weights were trained on MIMIC-CXR, see the card before you share them.")


def converted(path: Path, release: Release) -> tuple[ImageTower, list[str]]:
    """The tower of a published file, in float32, and the published names that it has no use for.

    Raises:
        OSError, ValueError: the file is missing or damaged, or a tensor of the encoder is missing or of another shape.
    """
    tensors, left_out = {}, []
    for key, name, tensor in timm_vit(tensors_only(path, "model").items(), "", ""):
        if name == key:  # no name of the encoder's
            left_out.append(key)
        else:
            tensors[name] = tensor.to(torch.float32)
    record = {"base_models": [release.base_model]}  # for the card
    taken = TakenTower(VIT, tensors, [release.mean] * 3, [release.std] * 3, record)
    return built_tower(taken, str(path)), left_out


if __name__ == "__main__":
    main(*parse([ECAMPConversionArguments], None, "convert_ecamp.py", __doc__))
