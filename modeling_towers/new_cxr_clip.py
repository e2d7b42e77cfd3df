"""A CXR-CLIP to train: of two towers, published or fresh, with a processor that fits both.

    parts = TowerSources(vision_model="microsoft/resnet-50", text_config={"model_type": "bert", ...})
    model, processor = new_cxr_clip(parts, corpus=["the lungs are clear.", ...])

A fresh text tower's tokenizer (WordPiece, lower case) learns from the corpus; published towers bring theirs, and the
image tower's mean and deviation.
"""

import litegpt.common.startup  # noqa: F401

# isort: split
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import BertWordPieceTokenizer, Tokenizer
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer, PreTrainedTokenizerFast
from transformers.image_utils import IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from litegpt.modeling_litegpt.checkpoints import image_processor
from litegpt.modeling_towers import CXRCLIPConfig, CXRCLIPModel
from litegpt.processing.processing_cxr_clip import CXRCLIPProcessor

SPECIAL_TOKENS = {
    name: f"[{name.upper()[:3] if name != 'mask_token' else 'MASK'}]"
    for name in ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
}
# What a card calls published towers by; others bear their own names.
KNOWN_TOWERS = {
    "emilyalsentzer/Bio_ClinicalBERT": "bio_clinical_bert",
    "microsoft/swin-tiny-patch4-window7-224": "swin_tiny",
    "microsoft/resnet-50": "resnet_50",
}


@dataclass(frozen=True)
class TowerSources:
    """What the two towers are made of: of each a model's name or folder, or the configuration of a fresh one.

    Raises:
        ValueError: a tower has neither or both.
    """

    vision_model: str | None = None
    vision_config: dict[str, Any] | None = None
    text_model: str | None = None
    text_config: dict[str, Any] | None = None
    image_size: int = 224
    projection_dim: int = 512
    max_length: int = 256
    image_pooling: str = "mean"

    def __post_init__(self):
        for tower, model, config in (
            ("vision", self.vision_model, self.vision_config),
            ("text", self.text_model, self.text_config),
        ):
            if (model is None) == (config is None):
                raise ValueError(
                    f"{tower}_model, {tower}_config: name a model to start from, or the configuration of a fresh one."
                )


def new_cxr_clip(sources: TowerSources, corpus: Iterable[str]) -> tuple[CXRCLIPModel, CXRCLIPProcessor]:
    """Model and processor.

    Args:
        corpus: texts that a fresh text tower's tokenizer learns from.

    Raises:
        OSError: there is no such model.
        ValueError: texts of `max_length` tokens are longer than the text tower's positions.
    """
    if sources.text_model is None:
        tokenizer = word_pieces(corpus, sources.text_config.get("vocab_size", 30522), sources.max_length)
        text_config: Any = {**sources.text_config, "vocab_size": len(tokenizer)}
        text_config |= {"pad_token_id": tokenizer.pad_token_id}
    else:
        tokenizer = AutoTokenizer.from_pretrained(sources.text_model)
        text_config = AutoConfig.from_pretrained(sources.text_model)
    vision_config: Any = sources.vision_config
    if sources.vision_model is not None:
        vision_config = AutoConfig.from_pretrained(sources.vision_model)
    config = CXRCLIPConfig(
        vision_config=vision_config,
        text_config=text_config,
        image_size=sources.image_size,
        projection_dim=sources.projection_dim,
        image_pooling=sources.image_pooling,
    )
    positions = getattr(config.text_config, "max_position_embeddings", None)
    if positions is not None and sources.max_length > positions:
        raise ValueError(
            f"max_length: {sources.max_length} tokens are more than the text tower's {positions} positions."
        )
    named = [name for name in (sources.vision_model, sources.text_model) if name is not None]
    # For the card; a folder by its own name, since where it lies is nobody's business.
    config.base_models = [
        Path(name).resolve().name if Path(name).is_dir() else KNOWN_TOWERS.get(name, name) for name in named
    ]
    model = CXRCLIPModel(config)
    pictures = image_processor(config.image_size, IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD)  # -1 to 1
    if sources.vision_model is not None:
        _take_weights(model.vision_model, sources.vision_model)
        published = AutoImageProcessor.from_pretrained(sources.vision_model)
        pictures = image_processor(config.image_size, published.image_mean, published.image_std)
    if sources.text_model is not None:
        _take_weights(model.text_model, sources.text_model)
    return model, CXRCLIPProcessor(pictures, tokenizer, max_length=sources.max_length)


def word_pieces(corpus: Iterable[str], vocab_size: int, max_length: int) -> PreTrainedTokenizerBase:
    """A WordPiece tokenizer in lower case, [CLS] before a text and [SEP] after it, that learns from a corpus.

    Equally frequent pieces stand in no order, and the last ones may be others, from one process to the next.
    """
    learned = BertWordPieceTokenizer(lowercase=True)
    learned.train_from_iterator(
        corpus, vocab_size=vocab_size, special_tokens=list(SPECIAL_TOKENS.values()), show_progress=False
    )
    # Written anew of its vocabulary: what is trained has no template of special tokens yet.
    whole = BertWordPieceTokenizer(vocab=learned.get_vocab(), lowercase=True)
    # The tokenizer itself, not that class around it, which cannot cut texts as the library asks it to.
    tokenizer = Tokenizer.from_str(whole.to_str())
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_length, **SPECIAL_TOKENS)


def _take_weights(tower: torch.nn.Module, name: str) -> None:
    published = AutoModel.from_pretrained(name).state_dict()
    own = tower.state_dict()
    missing = sorted(own.keys() - published.keys())
    if missing:
        raise ValueError(f"{name} lacks {len(missing)} tensors of this tower, such as {missing[0]}.")
    tower.load_state_dict({key: published[key] for key in own})  # without a pooler, which nothing here reads
