"""A tiny radiograph classifier, and a training of it that a test can afford."""

from pathlib import Path
from typing import Any

import torch

from litegpt.modeling_litegpt.checkpoints import image_processor
from litegpt.modeling_towers import RadiographClassifier
from litegpt.modeling_towers.classifier_checkpoints import new_classifier
from litegpt.modeling_towers.image_towers import new_image_tower
from litegpt.processing.processing_classifier import RadiographClassifierProcessor
from litegpt.train_scripts import train_classifier
from litegpt.train_scripts.arguments import ClassifierArguments
from tests.small_finetune import SIDE

RESNET = {
    "model_type": "resnet",
    "image_size": SIDE,
    "layer_type": "basic",
    "embedding_size": 16,
    "hidden_sizes": [32],
    "depths": [2],
}


def small_classifier(
    labels: tuple[str, ...] = ("Mass", "Nodule"), trunk: dict[str, Any] = RESNET, **options: Any
) -> tuple[RadiographClassifier, RadiographClassifierProcessor]:
    """With weights that a seed gives; in evaluation."""
    torch.manual_seed(0)
    tower = new_image_tower(trunk, image_processor(trunk["image_size"], [0.5] * 3, [0.5] * 3))
    model, processor = new_classifier(tower, labels, **options)
    with torch.no_grad():
        model.prediction.bias.copy_(torch.linspace(-0.3, 0.4, len(labels)))
    return model.eval(), processor


def train(output_dir: Path | str, data_dir: str, **options: Any) -> None:
    """Runs `train_classifier.main`; `options` are those of either of its argument classes."""
    ours = {name: options.pop(name) for name in list(options) if name in ClassifierArguments.__dataclass_fields__}
    if "trunk" not in ours:
        ours.setdefault("trunk_config", RESNET)
    defaults = {"max_steps": 4, "per_device_train_batch_size": 16, "learning_rate": 3e-3, "logging_steps": 1}
    defaults |= {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 100, "save_steps": 100}
    defaults |= {"report_to": "none", "disable_tqdm": True, "use_cpu": True, "lr_scheduler_type": "cosine"}
    train_classifier.main(
        ClassifierArguments(data_dir, **ours),
        train_classifier.ClassifierTrainingArguments(str(output_dir), **{**defaults, **options}),
    )
