"""ECAMPs to train, and their checkpoints as folders that are ready for the Hub.

    model, tokenizer = new_ecamp(ECAMPConfig(...), corpus=["the lungs are clear.", ...])
    save_ecamp(model, tokenizer, processor, "outputs/ecamp/checkpoint")
    model, tokenizer, processor = load_ecamp("outputs/ecamp/checkpoint")   # or OWNER/NAME on the Hub

A checkpoint has the whole model, the tokenizer, the image processor of its encoder, the code and a card; `litegpt new
--vision_tower` and `load_image_tower` take the encoder out of it.
"""

import litegpt.common.startup  # noqa: F401

# isort: split
from collections.abc import Iterable
from pathlib import Path

from transformers import AutoTokenizer, BertConfig, CLIPImageProcessorPil
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from litegpt.common.files import replacing_folder
from litegpt.modeling_litegpt.checkpoints import check_checkpoint_exists
from litegpt.modeling_towers import ECAMPConfig, ECAMPModel
from litegpt.modeling_towers.new_cxr_clip import word_pieces
from litegpt.modeling_towers.tower_card import tower_card

AUTO_MAP = {"AutoConfig": "configuration_ecamp.ECAMPConfig", "AutoModel": "modeling_ecamp.ECAMPModel"}
CUSTOM_PIPELINES: dict[str, dict] = {}  # it answers nothing


def new_ecamp(
    config: ECAMPConfig, corpus: Iterable[str], tokenizer: str | None = None
) -> tuple[ECAMPModel, PreTrainedTokenizerBase]:
    """A fresh model, and the tokenizer of a folder or one that learns from a corpus.

    Raises:
        OSError: there is no such tokenizer.
        ValueError: it has no token to mask with or to fill up with.
    """
    text = config.text_config
    if tokenizer is None:
        words = word_pieces(corpus, text.vocab_size, text.max_position_embeddings)
    else:
        words = AutoTokenizer.from_pretrained(tokenizer)
        if words.mask_token_id is None or words.pad_token_id is None:
            raise ValueError(f"{tokenizer}: the tokenizer has no [MASK] or no [PAD].")
    sizes = {"vocab_size": len(words), "pad_token_id": words.pad_token_id}
    config.text_config = BertConfig(**{**text.to_dict(), **sizes})
    return ECAMPModel(config), words


def save_ecamp(
    model: ECAMPModel, tokenizer: PreTrainedTokenizerBase, processor: CLIPImageProcessorPil, folder: str | Path
) -> None:
    """Writes `folder` so that it loads with transformers alone (`trust_remote_code=True`), nothing of ours installed.

    The folder is written under a temporary name first: an interrupted save leaves an older checkpoint as it was.

    Args:
        processor: squashes whole radiographs to the encoder's size.
    """
    ECAMPConfig.register_for_auto_class()
    ECAMPModel.register_for_auto_class("AutoModel")
    model.config.auto_map = dict(AUTO_MAP)
    with replacing_folder(Path(folder)) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)
        processor.save_pretrained(temporary)
        card = tower_card(
            "ecamp_card.md.jinja",
            model.config,
            "image-feature-extraction",
            ["ecamp", "custom_code"],
            num_parameters=model.num_parameters(),
            tower_parameters=model.mae.vit.num_parameters(),
        )
        (temporary / "README.md").write_text(card, encoding="utf-8")


def load_ecamp(
    folder: str | Path, revision: str | None = None
) -> tuple[ECAMPModel, PreTrainedTokenizerBase, CLIPImageProcessorPil]:
    """Model, tokenizer and image processor, with this repository's code rather than the checkpoint's copy of it.

    Raises:
        OSError: there is no such checkpoint.
        ValueError: it is none of ECAMP, or its weights do not fit.
    """
    check_checkpoint_exists(folder)
    config, _ = ECAMPConfig.get_config_dict(folder, revision=revision)
    if config.get("model_type") != ECAMPConfig.model_type:
        raise ValueError(f"{folder}: a checkpoint of {config.get('model_type')}, not of {ECAMPConfig.model_type}.")
    return (
        ECAMPModel.from_pretrained(folder, revision=revision),
        AutoTokenizer.from_pretrained(folder, revision=revision),
        CLIPImageProcessorPil.from_pretrained(folder, revision=revision),
    )
