"""Our classes as those that the Auto classes of transformers give, in place of the copies that lie in a checkpoint."""

from transformers import AutoConfig, AutoModel, AutoModelForZeroShotImageClassification

from .configuration_cxr_clip import CXRCLIPConfig
from .modeling_cxr_clip import CXRCLIPModel

AutoConfig.register(CXRCLIPConfig.model_type, CXRCLIPConfig)
AutoModel.register(CXRCLIPConfig, CXRCLIPModel)
AutoModelForZeroShotImageClassification.register(CXRCLIPConfig, CXRCLIPModel)

__all__ = ["CXRCLIPConfig", "CXRCLIPModel"]
