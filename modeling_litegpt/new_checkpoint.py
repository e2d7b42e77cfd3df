"""A fresh, untrained LiteGPT checkpoint from a YAML of sizes, with a tokenizer trained on the answers' own language.

    litegpt new --config tiny --output_dir outputs/tiny/new

The labels, and with them the tokenizer and the instructions, are VinDr-CXR's, or those of a prepared folder:

    litegpt new --config tiny --output_dir outputs/tiny/new \\
        --data_dir path/to/prepared

Words of reports and questions beyond those of templates are tokens where data sets that have them are named:

    litegpt new --config tiny --text_dirs prepared/open-i prepared/vqa-rad --output_dir outputs/tiny/new

A tower can be another checkpoint's, taken as it is, such as that of a CXR-CLIP:

    litegpt new --config tiny --vision_tower outputs/cxr_clip/checkpoint --aux_vision_config null \\
        --visual_token_group_size 1 --output_dir outputs/tiny/new

For sizes that a CPU can train. Real runs start from published weights instead.
"""

import litegpt.common.startup  # noqa: F401

# isort: split
import math
from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedModel, set_seed

from litegpt.common.arguments import parse
from litegpt.common.files import refuse_filled_folder
from litegpt.common.programs import program, refuse_bad_input
from litegpt.datasets_scripts.preparation.prepare import load
from litegpt.datasets_scripts.vindr_cxr import DIAGNOSIS_LABELS, FINDING_LABELS
from litegpt.modeling_litegpt import LiteGPTConfig, LiteGPTForConditionalGeneration
from litegpt.modeling_litegpt.answer_tokenizer import WORD_COLUMNS, frequent_words, texts_of, train_tokenizer
from litegpt.modeling_litegpt.arguments import NewCheckpointArguments
from litegpt.modeling_litegpt.checkpoints import new_processor, save_checkpoint
from litegpt.modeling_litegpt.configuration_litegpt import tower_grid
from litegpt.modeling_litegpt.taken_tower import taken_tower
from litegpt.processing.processing_litegpt import VISUAL_TOKEN, add_litegpt_tokens


@program
def main(arguments: NewCheckpointArguments) -> None:
    with refuse_bad_input():
        refuse_filled_folder(arguments.output_dir)
        finding_labels, diagnosis_labels = labels_of(arguments.data_dir)
        words = words_of_folders(arguments.text_dirs)
        folders = (arguments.vision_tower, arguments.aux_vision_tower)
        taken = [None if folder is None else taken_tower(folder) for folder in folders]
    set_seed(arguments.seed)
    tokenizer = train_tokenizer(finding_labels, diagnosis_labels, words)
    add_litegpt_tokens(tokenizer)
    tower_configs = [
        config if tower is None else tower.config
        for config, tower in zip((arguments.vision_config, arguments.aux_vision_config), taken, strict=True)
    ]
    config = LiteGPTConfig(
        vision_config=tower_configs[0],
        aux_vision_config=tower_configs[1],
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
        num_detector_labels=len(finding_labels) if arguments.detector else 0,
        detector_hidden_size=arguments.detector_hidden_size,
        detector_scales=arguments.detector_scales,
        num_candidate_tokens=arguments.num_candidate_tokens,
    )
    # For the model card: the weights start fresh, but for towers, whose making goes with them.
    config.base_models = [key for tower in taken if tower for key in tower.record.get("base_models") or []]
    trainings = [entry for tower in taken if tower for entry in tower.record.get("training_record") or []]
    if trainings:
        config.training_record = trainings
    model = LiteGPTForConditionalGeneration(config)
    statistics = []
    for tower, source, folder in zip(model.model.towers, taken, folders, strict=False):
        if source is None:
            start_positions_from_sinusoids(tower)
        else:
            with refuse_bad_input():
                source.load_into(tower, folder)
        statistics.append(None if source is None else (source.mean, source.std))
    processor = new_processor(config, tokenizer, finding_labels, diagnosis_labels, statistics)
    save_checkpoint(model, processor, arguments.output_dir)
    print(f"{arguments.output_dir}: {model.num_parameters():,} parameters, {len(tokenizer)} tokens")


def labels_of(data_dir: str | None) -> tuple[list[str], list[str]]:
    """The finding and the diagnosis labels of a prepared folder, in its order; VinDr-CXR's if None."""
    if data_dir is None:
        return list(FINDING_LABELS), list(DIAGNOSIS_LABELS)
    splits = load(data_dir, streaming=True)
    features = next(iter(splits.values())).features
    return features["findings"].feature["label"].names, features["diagnoses"].feature.names


def words_of_folders(data_dirs: Sequence[str]) -> list[str]:
    """The most frequent words of prepared folders' texts, read one row after another; those of a split test are not.

    Raises:
        OSError, ValueError: a folder is not a prepared data set, or has no texts.
    """

    def texts() -> Iterator[str]:
        for data_dir in data_dirs:
            splits = load(data_dir, streaming=True)
            columns = [column for column in WORD_COLUMNS if column in next(iter(splits.values())).features]
            if not columns:
                raise ValueError(f"--text_dirs {data_dir}: its rows have none of {', '.join(WORD_COLUMNS)}.")
            for name, rows in splits.items():
                if name != "test":
                    yield from texts_of(rows.select_columns(columns))

    return frequent_words(texts())


def start_positions_from_sinusoids(tower: PreTrainedModel) -> None:
    """Starts a fresh tower's learned patch positions from 2-D sinusoids, so that it need not learn where left is.

    Towers that have none, such as a ResNet, stay as they are.
    """
    table = next((parameter for name, parameter in tower.named_parameters() if "position_embedding" in name), None)
    if table is None:
        return
    side = tower_grid(tower.config)
    quarter = tower.config.hidden_size // 4
    frequencies = math.pi * 2.0 ** (4 * torch.arange(quarter) / quarter - 1)
    centres = (torch.arange(side) + 0.5) / side
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    angles = [axis.reshape(-1, 1) * frequencies for axis in (x, y)]
    positions = 0.5 * torch.cat([function(angle) for angle in angles for function in (torch.sin, torch.cos)], dim=1)
    with torch.no_grad():
        table.view(-1, tower.config.hidden_size)[-side * side :] = positions


if __name__ == "__main__":
    main(*parse([NewCheckpointArguments], None, "new_checkpoint.py", __doc__))
