"""A CXR-CLIP, an ECAMP and a radiograph classifier that both a push and a refresh are tried on."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_cxr_clip(tmp_path_factory) -> Path:
    """An untrained checkpoint of small fresh towers."""
    from litegpt.modeling_towers.checkpoints import save_cxr_clip
    from litegpt.modeling_towers.new_cxr_clip import TowerSources, new_cxr_clip
    from tests.small_cxr_clip import BERT, SIDE, VIT

    folder = tmp_path_factory.mktemp("cxr_clip") / "tiny_cxr_clip"
    towers = TowerSources(vision_config=VIT, text_config=BERT, image_size=SIDE, projection_dim=8, max_length=48)
    save_cxr_clip(*new_cxr_clip(towers, ["no edema.", "there is a nodule."]), folder)
    return folder


@pytest.fixture(scope="session")
def tiny_ecamp(tmp_path_factory) -> Path:
    """An untrained checkpoint."""
    from litegpt.modeling_litegpt.checkpoints import image_processor
    from litegpt.modeling_towers import ECAMPConfig
    from litegpt.modeling_towers.ecamp_checkpoints import new_ecamp, save_ecamp
    from tests.small_ecamp import TEXT, VISION

    folder = tmp_path_factory.mktemp("ecamp") / "tiny_ecamp"
    model, tokenizer = new_ecamp(ECAMPConfig(vision_config=VISION, text_config=TEXT), ["there is no edema."])
    save_ecamp(model, tokenizer, image_processor(VISION["image_size"]), folder)
    return folder


@pytest.fixture(scope="session")
def tiny_classifier(tmp_path_factory) -> Path:
    """An untrained checkpoint."""
    from litegpt.modeling_towers.classifier_checkpoints import save_classifier
    from tests.small_classifier import small_classifier

    folder = tmp_path_factory.mktemp("classifier") / "tiny_classifier"
    save_classifier(*small_classifier(), folder)
    return folder
