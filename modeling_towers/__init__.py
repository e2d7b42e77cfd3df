"""Networks that become towers, and their checkpoints.

    from litegpt.modeling_towers import CXRCLIPModel

Its classes are imported when they are asked for, and then the Auto classes of transformers give them, not the copies
that lie in a checkpoint.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .auto_classes import (
        CXRCLIPConfig,
        CXRCLIPModel,
        ECAMPConfig,
        ECAMPModel,
        RadiographClassifier,
        RadiographClassifierConfig,
    )

__all__ = [
    "CXRCLIPConfig",
    "CXRCLIPModel",
    "ECAMPConfig",
    "ECAMPModel",
    "RadiographClassifier",
    "RadiographClassifierConfig",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import auto_classes

    return getattr(auto_classes, name)
