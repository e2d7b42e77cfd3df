"""A fresh, untrained LiteGPT checkpoint from a YAML of sizes, with a tokenizer trained on the answers' own language.

    python train_scripts/new_checkpoint.py --config train_scripts/configs/tiny.yaml --output_dir outputs/tiny/new

The labels, and with them the tokenizer and the instructions, are VinDr-CXR's, or those of a prepared folder:

    python train_scripts/new_checkpoint.py --config train_scripts/configs/tiny.yaml --output_dir outputs/tiny/new \\
        --data_dir path/to/prepared

For sizes that a CPU can train. Real runs start from published weights instead.
"""

import train_scripts.startup  # noqa: F401

# isort: split
import math
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerFast, set_seed
from trl import TrlParser

from datasets_scripts import radiograph_dataset
from datasets_scripts.instructions import instructions_for
from datasets_scripts.vindr_cxr import DIAGNOSIS_LABELS, FINDING_LABELS
from modeling_litegpt import LiteGPTConfig, LiteGPTForConditionalGeneration
from processing.answers import Finding, diagnoses_to_text, findings_to_text
from processing.processing_litegpt import VISUAL_TOKEN, add_litegpt_tokens
from train_scripts.checkpoint import new_processor, save_checkpoint
from train_scripts.files import refuse_bad_input


@dataclass
class NewCheckpointArguments:
    output_dir: str = field(metadata={"help": "Where the checkpoint is written."})
    data_dir: str | None = field(
        default=None, metadata={"help": "A prepared folder, whose labels the checkpoint has; VinDr-CXR's by default."}
    )
    vision_config: dict[str, Any] = field(default_factory=dict, metadata={"help": "First tower, with `model_type`."})
    aux_vision_config: dict[str, Any] | None = field(default=None, metadata={"help": "Second tower; none: one tower."})
    text_config: dict[str, Any] = field(default_factory=dict, metadata={"help": "Language model, with `model_type`."})
    visual_token_group_size: int = field(default=5, metadata={"help": "Adjacent patch tokens in one visual token."})
    projector_hidden_size: int | None = field(default=None, metadata={"help": "None: one linear layer."})
    seed: int = field(default=0, metadata={"help": "Seed of the weights."})


def main(arguments: NewCheckpointArguments) -> None:
    with refuse_bad_input():
        finding_labels, diagnosis_labels = labels_of(arguments.data_dir)
    set_seed(arguments.seed)
    tokenizer = train_tokenizer(finding_labels, diagnosis_labels)
    add_litegpt_tokens(tokenizer)
    config = LiteGPTConfig(
        vision_config=arguments.vision_config,
        aux_vision_config=arguments.aux_vision_config,
        text_config={
            **arguments.text_config,
            "vocab_size": len(tokenizer),
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        },
        image_token_id=tokenizer.convert_tokens_to_ids(VISUAL_TOKEN),
        visual_token_group_size=arguments.visual_token_group_size,
        projector_hidden_size=arguments.projector_hidden_size,
    )
    config.base_models = []  # for the model card: the weights start fresh
    model = LiteGPTForConditionalGeneration(config)
    for tower in model.model.towers:
        start_positions_from_sinusoids(tower)
    processor = new_processor(config, tokenizer, finding_labels, diagnosis_labels)
    save_checkpoint(model, processor, arguments.output_dir)
    print(f"{arguments.output_dir}: {model.num_parameters():,} parameters, {len(tokenizer)} tokens")


def labels_of(data_dir: str | None) -> tuple[list[str], list[str]]:
    """The finding and the diagnosis labels of a prepared folder, in its order; VinDr-CXR's if None."""
    if data_dir is None:
        return list(FINDING_LABELS), list(DIAGNOSIS_LABELS)
    splits = radiograph_dataset.load(data_dir, streaming=True)
    features = next(iter(splits.values())).features
    return features["findings"].feature["label"].names, features["diagnoses"].feature.names


def train_tokenizer(finding_labels: Sequence[str], diagnosis_labels: Sequence[str]) -> PreTrainedTokenizerFast:
    """A tokenizer of some 450 tokens to which a label, a coordinate and a stock phrase are one token each.

    Its vocabulary is the pieces that answers and prompts are made of, so sequences are short and the head is small.
    Any other text falls back to bytes, so nothing is unknown to it.
    """
    pieces = Regex(r" ?\w+ diseases of this chest radiograph are |<\d{1,3}>|<p>|</p> \{|\},?|[.,?:]")
    splitter = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(pieces, "isolated"), pre_tokenizers.Metaspace(prepend_scheme="first", split=False)]
    )
    counts: Counter[str] = Counter()
    for text in _tokenizer_corpus(finding_labels, diagnosis_labels):
        counts.update(piece for piece, _ in splitter.pre_tokenize_str(text))
    fallback = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)] + ["▁", "[INST]▁"]
    vocabulary = [(token, -20.0) for token in fallback]
    vocabulary += [(piece, math.log(count / counts.total())) for piece, count in sorted(counts.items())]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Fuse(), decoders.Replace("▁", " "), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
    )


def _tokenizer_corpus(finding_labels: Sequence[str], diagnosis_labels: Sequence[str]) -> Iterator[str]:
    """Random answers, in which every label and every coordinate occurs, and the prompts."""
    rng = random.Random(0)
    instructions = instructions_for(diagnosis_labels)
    for _ in range(4000):
        findings = []
        for label in rng.sample(list(finding_labels), rng.randint(0, min(4, len(finding_labels)))):
            x1, x2 = sorted(rng.sample(range(101), 2))
            y1, y2 = sorted(rng.sample(range(101), 2))
            findings.append(Finding(label, (x1 / 100, y1 / 100, x2 / 100, y2 / 100)))
        yield findings_to_text(findings)
        yield diagnoses_to_text(rng.sample(list(diagnosis_labels), rng.randint(0, min(3, len(diagnosis_labels)))))
        yield from (f" {instruction} [/INST]" for instruction in instructions.values())


def start_positions_from_sinusoids(tower: PreTrainedModel) -> None:
    """Starts a fresh tower's learned patch positions from 2-D sinusoids, so that it need not learn where left is."""
    table = next(parameter for name, parameter in tower.named_parameters() if "position_embedding" in name)
    side = tower.config.image_size // tower.config.patch_size
    quarter = tower.config.hidden_size // 4
    frequencies = math.pi * 2.0 ** (4 * torch.arange(quarter) / quarter - 1)
    centres = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    angles = [axis.reshape(-1, 1) * frequencies for axis in (x, y)]
    positions = 0.5 * torch.cat([function(angle) for angle in angles for function in (torch.sin, torch.cos)], dim=1)
    with torch.no_grad():
        table.view(-1, tower.config.hidden_size)[-side * side :] = positions


if __name__ == "__main__":
    main(TrlParser(NewCheckpointArguments).parse_args_and_config()[0])
