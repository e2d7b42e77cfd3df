"""A CXR-CLIP that both a push and a refresh are tried on."""

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
