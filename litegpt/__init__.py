"""LiteGPT: chest radiographs in; findings with boxes, and diagnoses, out.

    import litegpt

    model, processor = litegpt.load_checkpoint("outputs/demo/checkpoint")
    rows = litegpt.load_rows("prepared/vindr-cxr", "train[:100]")

What is in `API` is imported when it is asked for. Everything else is imported as `litegpt.FOLDER.FILE`; in a clone the
folders lie beside this one, and are those of the clone, whatever else is installed.
"""

import os
from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

API = {  # name -> the module that has it
    "ChestXrayFindingsPipeline": "litegpt.processing.pipeline_litegpt",
    "LiteGPTConfig": "litegpt.modeling_litegpt",
    "LiteGPTForConditionalGeneration": "litegpt.modeling_litegpt",
    "LiteGPTModel": "litegpt.modeling_litegpt",
    "LiteGPTProcessor": "litegpt.processing.processing_litegpt",
    "load_checkpoint": "litegpt.modeling_litegpt.checkpoints",
    "load_processor": "litegpt.modeling_litegpt.checkpoints",
    "load_radiograph": "litegpt.processing.radiograph",
    "load_rows": "litegpt.datasets_scripts.rows",
    "overlay": "litegpt.common.overlay",
    "result_objects": "litegpt.dicom_output.result_objects",
    "save_checkpoint": "litegpt.modeling_litegpt.checkpoints",
    "source_header": "litegpt.dicom_output.source_header",
}
__all__ = list(API)

# Read when torch is loaded: threads that have nothing to do sleep. By default they spin, and beside another program
# each small operation then waits for a thread that has no core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

_CLONE = Path(__file__).resolve().parent.parent
if (_CLONE / "setup.py").is_file():
    __path__.append(str(_CLONE))


def __getattr__(name: str) -> Any:
    if name not in API:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(API[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *API})
