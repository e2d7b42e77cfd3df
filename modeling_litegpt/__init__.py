"""The network and its checkpoints.

    from litegpt.modeling_litegpt import LiteGPTForConditionalGeneration

Its classes are imported when they are asked for, and then the Auto classes of transformers give them, not the copies
that lie in a checkpoint. What needs no network (`arguments.py`, `model_card.py`) does not wait for torch.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .auto_classes import LiteGPTConfig, LiteGPTForConditionalGeneration, LiteGPTModel, LiteGPTPreTrainedModel

__all__ = ["LiteGPTConfig", "LiteGPTForConditionalGeneration", "LiteGPTModel", "LiteGPTPreTrainedModel"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import auto_classes

    return getattr(auto_classes, name)
