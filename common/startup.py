"""What libraries print when they are imported, and nobody can act on, stays away: programs import this file first.

import litegpt.common.startup  # noqa: F401
# isort: split
import peft
"""

import logging
import warnings

# It looks for a faster 4-bit kernel for CPUs in a package that we don't need.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
# What 8-bit weights are multiplied by is rounded to half precision: said at every layer of every step.
logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)
# Of CLIP's image processors the library loads the one without torchvision, whose values are the same to us.
logging.getLogger("transformers.utils.import_utils").addFilter(
    lambda record: "requires torchvision (not installed); falling back" not in record.getMessage()
)
# Renamed in transformers 5.24; releases before it, which we run on as well, know the old name alone.
warnings.filterwarnings("ignore", message=".*gradient_checkpointing.* is deprecated", category=FutureWarning)
