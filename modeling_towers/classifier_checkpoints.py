"""Radiograph classifiers to train, and their checkpoints as folders that are ready for the Hub.

    model, processor = new_classifier(trunk, ["Atelectasis", ...], pooling="lse")
    save_classifier(model, processor, "outputs/classifier/checkpoint")
    model, processor = load_classifier("outputs/classifier/checkpoint")    # or OWNER/NAME on the Hub

A trunk is what `load_trunk` takes: an image tower out of any checkpoint, or a network of the Hub. A checkpoint is
whole: weights, processor, the code that loads them, a model card.
"""

import litegpt.common.startup  # noqa: F401

# isort: split
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoImageProcessor, AutoModel

from litegpt.common.files import replacing_folder
from litegpt.modeling_litegpt.checkpoints import check_checkpoint_exists, image_processor
from litegpt.modeling_towers import RadiographClassifier, RadiographClassifierConfig
from litegpt.modeling_towers.image_towers import ImageTower, load_image_tower
from litegpt.modeling_towers.tower_card import tower_card
from litegpt.modeling_towers.tower_network import tower_hidden_state
from litegpt.processing.processing_classifier import RadiographClassifierProcessor

AUTO_MAP = {
    "AutoConfig": "configuration_classifier.RadiographClassifierConfig",
    "AutoModel": "modeling_classifier.RadiographClassifier",
    "AutoModelForImageClassification": "modeling_classifier.RadiographClassifier",
    "AutoProcessor": "processing_classifier.RadiographClassifierProcessor",
}
CUSTOM_PIPELINES = {
    "image-classification": {
        "impl": "image_classification_pipeline.RadiographClassificationPipeline",
        "pt": ["AutoModelForImageClassification"],
        "type": "image",
    }
}


def load_trunk(name: str, image_size: int | None = None) -> ImageTower:
    """The network that a classifier starts from.

    Args:
        name: a folder, see `load_image_tower`, or of a network of timm; or a network of the Hub, such as
            microsoft/resnet-50 or timm/densenet121.ra_in1k. Networks of timm need it installed.
        image_size: pixels of the square input, where it is not the network's own; of convolutional networks alone.

    Raises:
        OSError: there is no such network.
        ValueError: it has no image tower, or another input size than it can have.
        ImportError: it is of timm, which is not installed.
    """
    tower = load_image_tower(name) if Path(name).is_dir() and not _is_of_timm(name) else _published(name)
    if image_size is not None and image_size != tower.processor.size["height"]:
        if getattr(tower.config, "patch_size", None) is not None:
            raise ValueError(f"{name}: its input has {tower.config.image_size} pixels a side, and no other.")
        tower.config.image_size = image_size
        tower.processor.size = {"height": image_size, "width": image_size}
    return tower


def _is_of_timm(folder: str) -> bool:
    config = Path(folder, "config.json")
    return config.is_file() and "architecture" in json.loads(config.read_text(encoding="utf-8"))


def _published(name: str) -> ImageTower:
    """A network as the library loads it, with the pixels that it was trained on."""
    network = AutoModel.from_pretrained(name)
    published = getattr(network.config, "pretrained_cfg", None)
    if published is None:
        processor = AutoImageProcessor.from_pretrained(name)
        published = {"mean": processor.image_mean, "std": processor.image_std}
    side = getattr(network.config, "image_size", None) or published.get("input_size", (3, 224, 224))[-1]
    tower = ImageTower(network, image_processor(side, published["mean"], published["std"]))
    tower.config.base_models = [Path(name).name if Path(name).is_dir() else name]
    return tower


def new_classifier(
    trunk: ImageTower, labels: Sequence[str], **options: Any
) -> tuple[RadiographClassifier, RadiographClassifierProcessor]:
    """A classifier with a trunk's weights; its transition and prediction layers are fresh.

    Args:
        options: for `RadiographClassifierConfig`.

    Raises:
        ValueError: the trunk cannot end at a stage.
    """
    if options.get("trunk_stage") is not None and trunk.config.model_type != "resnet":
        raise ValueError(f"trunk_stage: a {trunk.config.model_type} ends where it ends; a ResNet has stages.")
    # What is known of the trunk's making.
    record = {name: getattr(trunk.config, name, None) or [] for name in ("base_models", "training_record")}
    side = trunk.processor.size["height"]
    if getattr(trunk.config, "hidden_sizes", None) is None and getattr(trunk.config, "hidden_size", None) is None:
        options["trunk_width"] = _width(trunk, side)
    config = RadiographClassifierConfig(
        trunk_config=trunk.config,
        image_size=side,
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
        **record,
        **options,
    )
    model = RadiographClassifier(config)
    weights = {key: tensor for key, tensor in trunk.network.state_dict().items() if not key.startswith("pooler.")}
    wanted = model.trunk.state_dict().keys()  # a trunk that ends at a stage has no later ones
    model.trunk.load_state_dict({key: tensor for key, tensor in weights.items() if key in wanted})
    return model, RadiographClassifierProcessor(trunk.processor)


def _width(trunk: ImageTower, side: int) -> int:
    """Of the tokens of a network whose configuration does not say."""
    network = trunk.network.eval()
    with torch.no_grad():
        return tower_hidden_state(network, torch.zeros(1, 3, side, side)).shape[1]


def save_classifier(model: RadiographClassifier, processor: RadiographClassifierProcessor, folder: str | Path) -> None:
    """Writes `folder` so that it loads with transformers alone (`trust_remote_code=True`), nothing of ours installed.

    The folder is written under a temporary name first: an interrupted save leaves an older checkpoint as it was.
    """
    RadiographClassifierConfig.register_for_auto_class()
    RadiographClassifier.register_for_auto_class("AutoModel")
    RadiographClassifierProcessor.register_for_auto_class()
    model.config.auto_map = dict(AUTO_MAP)
    model.config.custom_pipelines = CUSTOM_PIPELINES
    with replacing_folder(Path(folder)) as temporary:
        model.save_pretrained(temporary)
        processor.save_pretrained(temporary)
        card = tower_card(
            "classifier_card.md.jinja",
            model.config,
            "image-classification",
            ["chestx-ray8", "weakly-supervised-localization", "custom_code"],
            num_parameters=model.num_parameters(),
        )
        (temporary / "README.md").write_text(card, encoding="utf-8")


def load_classifier(
    folder: str | Path, revision: str | None = None, **kwargs: Any
) -> tuple[RadiographClassifier, RadiographClassifierProcessor]:
    """Model and processor, with this repository's code rather than the checkpoint's copy of it.

    Raises:
        OSError: there is no such checkpoint.
        ValueError: it is no classifier, or its weights do not fit.
    """
    check_checkpoint_exists(folder)
    config, _ = RadiographClassifierConfig.get_config_dict(folder, revision=revision)
    kind = RadiographClassifierConfig.model_type
    if config.get("model_type") != kind:
        raise ValueError(f"{folder}: a checkpoint of {config.get('model_type')}, not of {kind}.")
    model = RadiographClassifier.from_pretrained(folder, revision=revision, **kwargs)
    return model, RadiographClassifierProcessor.from_pretrained(folder, revision=revision)
