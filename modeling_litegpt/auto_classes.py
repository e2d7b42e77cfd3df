"""Our classes as those that the Auto classes of transformers give, in place of the copies that lie in a checkpoint."""

from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText

from .configuration_litegpt import LiteGPTConfig
from .modeling_litegpt import LiteGPTForConditionalGeneration, LiteGPTModel, LiteGPTPreTrainedModel

AutoConfig.register(LiteGPTConfig.model_type, LiteGPTConfig)
AutoModel.register(LiteGPTConfig, LiteGPTModel)
AutoModelForImageTextToText.register(LiteGPTConfig, LiteGPTForConditionalGeneration)

__all__ = ["LiteGPTConfig", "LiteGPTForConditionalGeneration", "LiteGPTModel", "LiteGPTPreTrainedModel"]
