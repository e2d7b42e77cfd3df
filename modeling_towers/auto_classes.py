"""Our classes as those that the Auto classes of transformers give, in place of the copies that lie in a checkpoint."""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageClassification,
    AutoModelForZeroShotImageClassification,
)

from .configuration_classifier import RadiographClassifierConfig
from .configuration_cxr_clip import CXRCLIPConfig
from .configuration_ecamp import ECAMPConfig
from .modeling_classifier import RadiographClassifier
from .modeling_cxr_clip import CXRCLIPModel
from .modeling_ecamp import ECAMPModel

AutoConfig.register(CXRCLIPConfig.model_type, CXRCLIPConfig)
AutoModel.register(CXRCLIPConfig, CXRCLIPModel)
AutoModelForZeroShotImageClassification.register(CXRCLIPConfig, CXRCLIPModel)
AutoConfig.register(ECAMPConfig.model_type, ECAMPConfig)
AutoModel.register(ECAMPConfig, ECAMPModel)
AutoConfig.register(RadiographClassifierConfig.model_type, RadiographClassifierConfig)
AutoModel.register(RadiographClassifierConfig, RadiographClassifier)
AutoModelForImageClassification.register(RadiographClassifierConfig, RadiographClassifier)

__all__ = [
    "CXRCLIPConfig",
    "CXRCLIPModel",
    "ECAMPConfig",
    "ECAMPModel",
    "RadiographClassifier",
    "RadiographClassifierConfig",
]
