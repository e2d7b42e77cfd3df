"""What the programs of this folder take; their `main`s get instances of these classes."""

from dataclasses import dataclass
from typing import Any

from litegpt.common.arguments import Count, Place, WholeNumber, argument


@dataclass(kw_only=True)
class DetectorArguments:
    """Dense heads beside the language model."""

    detector: bool = argument("Dense heads that name findings with boxes beside the answer.", default=False)
    detector_hidden_size: Count | None = argument(
        "Width of their convolutions; by default that of the towers, 256 at most.", default=None
    )
    detector_scales: list[float] = argument(
        "Sides of their maps, as shares of the finest tower's grid.", default=[2, 1, 0.5]
    )
    num_candidate_tokens: WholeNumber = argument(
        "Visual tokens that tell the language model of the heads' best boxes; 0: it does not hear of them.", default=0
    )


@dataclass
class NewCheckpointArguments(DetectorArguments):
    output_dir: str = argument("Where the checkpoint is written; must not exist or be empty.")
    data_dir: Place | None = argument(
        "A prepared folder, whose labels the checkpoint has; VinDr-CXR's by default.", default=None
    )
    text_dirs: list[Place] = argument(
        "Prepared folders whose reports, sentences, phrases, questions and chats give the vocabulary its words: the "
        "most frequent of all splits but test.",
        default=[],
    )
    vision_config: dict[str, Any] = argument("First tower, with `model_type`.", default={})
    aux_vision_config: dict[str, Any] | None = argument("Second tower; none: one tower.", default=None)
    vision_tower: str | None = argument(
        "First tower taken as it is from a checkpoint's folder, such as a CXR-CLIP's; else fresh.", default=None
    )
    aux_vision_tower: str | None = argument("Second tower, taken likewise.", default=None)
    text_config: dict[str, Any] = argument("Language model, with `model_type`.", default={})
    visual_token_group_size: Count = argument("Adjacent patch tokens in one visual token.", default=5)
    projector_hidden_size: Count | None = argument("None: one linear layer.", default=None)
    seed: WholeNumber = argument("Seed of the weights.", default=0)


@dataclass
class ConversionArguments:
    llama: str = argument("Folder of Llama 2-Chat in transformers' format, with its tokenizer.")
    output_dir: str = argument("Where the checkpoint is written; must not exist or be empty.")
    architecture: str = argument(
        "litegpt, biomedclip, pubmedclip, minigpt_v2, or a JSON file like those of configs/.", default="litegpt"
    )
    biomedclip: str | None = argument("BiomedCLIP: open_clip_pytorch_model.bin.", default=None)
    pubmedclip: str | None = argument("PubMedCLIP: folder or file of a CLIPModel.", default=None)
    eva_clip: str | None = argument("EVA-CLIP-g: eva_vit_g.pth.", default=None)
    minigpt_v2: str | None = argument(
        "MiniGPT-v2: checkpoint_stage3.pth, for LoRA and the projector's last layer.", default=None
    )
    litegpt: str | None = argument("LiteGPT's own release, for LoRA and the whole projector.", default=None)
    merge_lora: bool = argument(
        "Merge LoRA into the language model, so that nobody can forget it. False keeps it apart in "
        "OUTPUT_DIR/adapter, as PEFT saves it, to be trained further.",
        default=True,
    )
    skip_keys: list[str] = argument(
        "Published keys to leave out instead of refusing them, with wildcards: 'audio.*'.", default=[]
    )
    dtype: str | None = argument(
        "Of all weights; by default each tensor keeps the one that it was published in.",
        default=None,
        choices=["float32", "bfloat16", "float16"],
    )
    max_shard_size: str = argument("Of one file of weights, such as 500MB or 2GB.", default="2GB")
    seed: WholeNumber = argument("Of weights that no file has, such as the projector's first layer.", default=0)
