"""What the programs of this folder take; their `main`s get instances of these classes."""

from dataclasses import dataclass
from typing import Literal

from litegpt.common.arguments import argument


@dataclass
class CXRCLIPConversionArguments:
    weights: str = argument("A published file of CXR-CLIP: r50 or swint with m, mc or mcc, such as r50_mcc.tar.")
    tokenizer: str = argument("Folder of Bio_ClinicalBERT's tokenizer: its vocab.txt.")
    output_dir: str = argument("Where the checkpoint is written; must not exist or be empty.")
    squash: bool = argument(
        "Show it whole radiographs, as LiteGPT's towers see them. The weights were trained with the longer side cut.",
        default=False,
    )


@dataclass
class ECAMPConversionArguments:
    weights: str = argument("The published file: ECAMP_ViT_Base_16.pth, or MRM.pth.")
    output_dir: str = argument("Where the tower is written; must not exist or be empty.")
    weights_of: Literal["ecamp", "mrm"] = argument("Whose they are.", default="ecamp")
