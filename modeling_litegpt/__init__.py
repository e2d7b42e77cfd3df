from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText

from .configuration_litegpt import LiteGPTConfig
from .modeling_litegpt import LiteGPTForConditionalGeneration, LiteGPTModel, LiteGPTPreTrainedModel

# Whoever imports this package gets these classes from the Auto classes, not the copies that lie in a checkpoint.
AutoConfig.register(LiteGPTConfig.model_type, LiteGPTConfig)
AutoModel.register(LiteGPTConfig, LiteGPTModel)
AutoModelForImageTextToText.register(LiteGPTConfig, LiteGPTForConditionalGeneration)

__all__ = ["LiteGPTConfig", "LiteGPTForConditionalGeneration", "LiteGPTModel", "LiteGPTPreTrainedModel"]
