"""CXR-CLIP checkpoints as folders that are ready for the Hub, saved and loaded; and image towers taken out of them.

    model, processor = load_cxr_clip("outputs/cxr_clip/checkpoint")   # or OWNER/NAME on the Hub
    save_cxr_clip(model, processor, "outputs/copy")

A checkpoint is whole: weights, processor, the code that loads them, a model card.
"""

import litegpt.common.startup  # noqa: F401

# isort: split
from pathlib import Path

from transformers import CLIPImageProcessorPil
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, IMAGENET_STANDARD_MEAN

from litegpt.common.files import replacing_folder
from litegpt.modeling_litegpt.checkpoints import check_checkpoint_exists
from litegpt.modeling_towers import CXRCLIPConfig, CXRCLIPModel
from litegpt.modeling_towers.cxr_clip_card import cxr_clip_card
from litegpt.processing.processing_cxr_clip import CXRCLIPProcessor

AUTO_MAP = {
    "AutoConfig": "configuration_cxr_clip.CXRCLIPConfig",
    "AutoModel": "modeling_cxr_clip.CXRCLIPModel",
    "AutoModelForZeroShotImageClassification": "modeling_cxr_clip.CXRCLIPModel",
    "AutoProcessor": "processing_cxr_clip.CXRCLIPProcessor",
}
CUSTOM_PIPELINES = {
    "zero-shot-image-classification": {
        "impl": "zero_shot_pipeline_cxr_clip.RadiographZeroShotPipeline",
        "pt": ["AutoModelForZeroShotImageClassification"],
        "type": "multimodal",
    }
}


def save_cxr_clip(model: CXRCLIPModel, processor: CXRCLIPProcessor, folder: str | Path) -> None:
    """Writes `folder` so that it loads with transformers alone (`trust_remote_code=True`), nothing of ours installed.

    The folder is written under a temporary name first: an interrupted save leaves an older checkpoint as it was.
    """
    CXRCLIPConfig.register_for_auto_class()
    CXRCLIPModel.register_for_auto_class("AutoModel")
    CXRCLIPProcessor.register_for_auto_class()
    model.config.auto_map = dict(AUTO_MAP)
    model.config.custom_pipelines = CUSTOM_PIPELINES
    with replacing_folder(Path(folder)) as temporary:
        model.save_pretrained(temporary)
        processor.save_pretrained(temporary)
        card = cxr_clip_card(model.config, processor, model.num_parameters())
        (temporary / "README.md").write_text(card, encoding="utf-8")


def load_cxr_clip(folder: str | Path, revision: str | None = None, **kwargs) -> tuple[CXRCLIPModel, CXRCLIPProcessor]:
    """Model and processor, with this repository's code rather than the checkpoint's copy of it.

    Args:
        folder: a checkpoint's folder, or a repository on the Hub.
        kwargs: for `from_pretrained`.

    Raises:
        OSError: there is no such checkpoint.
        ValueError: it is none of CXR-CLIP, or its weights do not fit.
    """
    check_checkpoint_exists(folder)
    config, _ = CXRCLIPConfig.get_config_dict(folder, revision=revision)
    if config.get("model_type") != CXRCLIPConfig.model_type:
        raise ValueError(f"{folder}: a checkpoint of {config.get('model_type')}, not of {CXRCLIPConfig.model_type}.")
    model = CXRCLIPModel.from_pretrained(folder, revision=revision, **kwargs)
    return model, CXRCLIPProcessor.from_pretrained(folder, revision=revision)


def release_image_processor(side: int, is_resnet: bool) -> CLIPImageProcessorPil:
    """As CXR-CLIP's published code: shorter side to `side`, middle of the longer one, ImageNet's mean for ResNet."""
    mean, std = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD) if is_resnet else (IMAGENET_STANDARD_MEAN,) * 2
    return CLIPImageProcessorPil(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        do_center_crop=True,
        image_mean=list(mean),
        image_std=list(std),
    )
