"""An image tower with a head that answers one question, as a folder that is saved and loaded.

    model = load_finetuned("outputs/finetuned/checkpoint")
    model.task, model.labels                       # "classification", ["Atelectasis", ...]
    pixels = model.tower.processor(images, return_tensors="pt")["pixel_values"]
    model(pixels)                                  # logits; what they are, `tower_heads.py` says

The folder is the tower's own, which every program takes as `--tower` and transformers loads; `head.safetensors` and
`head.json` lie beside it.
"""

import json
from contextlib import nullcontext
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from litegpt.common.files import give_usual_permissions, replacing_folder
from litegpt.modeling_litegpt.modeling_detector import DetectionHead
from litegpt.modeling_towers.image_towers import ImageTower, load_image_tower, save_image_tower
from litegpt.modeling_towers.tower_heads import ClassificationHead, SegmentationHead

WEIGHTS, DESCRIPTION = "head.safetensors", "head.json"
TASKS = ("classification", "segmentation", "detection")
CARD = """
## Head

Beside the tower lie `head.safetensors` and `head.json`: a head for {task} of {labels}. It is loaded with the tower by
LiteGPT's `litegpt.modeling_towers.finetuned_tower.load_finetuned`.
"""


class FinetunedTower(nn.Module):
    """A tower and a head.

    Args:
        task: one of `TASKS`.
        labels: what the head's columns are called; of a segmentation the one thing that masks show.
        single_label: of a classification: exactly one of the labels holds.
        frozen: only the head learns; the tower computes as in evaluation, without gradient.
    """

    def __init__(
        self,
        tower: ImageTower,
        task: str,
        labels: list[str],
        single_label: bool = False,
        frozen: bool = False,
    ):
        super().__init__()
        self.tower, self.task, self.labels = tower, task, list(labels)
        self.single_label, self.frozen = single_label, frozen
        if task == "classification":
            self.head = ClassificationHead(tower.width, len(labels))
        elif task == "segmentation":
            self.head = SegmentationHead(tower.width, tower.grid, tower.config.image_size)
        else:
            self.head = DetectionHead(tower.width, len(labels))
        self.tower.requires_grad_(not frozen)

    def train(self, mode: bool = True) -> "FinetunedTower":
        super().train(mode)
        if self.frozen:
            self.tower.eval()
        return self

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """(images, 1 or 3, side, side) -> the head's logits."""
        with torch.no_grad() if self.frozen else nullcontext():
            maps = self.tower.maps(pixel_values)
        return self.head(maps)


def save_finetuned(model: FinetunedTower, folder: str | Path) -> None:
    """Writes `folder`: the tower as `save_image_tower` does, and the head; under a temporary name first."""
    with replacing_folder(Path(folder)) as temporary:
        save_image_tower(model.tower, temporary)
        tensors = {name: tensor.contiguous() for name, tensor in model.head.state_dict().items()}
        save_file(tensors, temporary / WEIGHTS, metadata={"format": "pt"})
        give_usual_permissions(temporary / WEIGHTS)
        description = {"task": model.task, "labels": model.labels, "single_label": model.single_label}
        (temporary / DESCRIPTION).write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
        with (temporary / "README.md").open("a", encoding="utf-8") as card:
            card.write(CARD.format(task=model.task, labels=", ".join(model.labels)))


def load_finetuned(folder: str | Path) -> FinetunedTower:
    """The tower and the head of a folder that `save_finetuned` wrote, to evaluate.

    Raises:
        OSError: there is no checkpoint.
        ValueError: the folder has no head, or weights that do not fit.
    """
    tower = load_image_tower(folder)
    try:
        description = json.loads(Path(folder, DESCRIPTION).read_text(encoding="utf-8"))
        model = FinetunedTower(tower, **description)
        model.head.load_state_dict(_todays_names(load_file(Path(folder, WEIGHTS))))
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{folder}: has no whole head ({DESCRIPTION}, {WEIGHTS}): {error}") from error
    return model.eval()


def _todays_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Weights of a detection head under the names that they have since its maps may be others than three."""
    names = {"finer": "levels.0", "same": "levels.1", "coarser": "levels.2"}
    parts = {name: name.partition(".") for name in weights}
    return {names.get(first, first) + dot + rest: weights[name] for name, (first, dot, rest) in parts.items()}
