"""A checkpoint or an adapter -> its model card (README.md), and what is known of how it was made.

    model_card(model, processor)                                 # README.md of a checkpoint: "# LiteGPT ..."
    adapter_card(model.config, processor, lora)                  # README.md of an adapter
    for_repository(card, "acme/litegpt")                         # the same card, where the folder is pushed to
    add_training(model.config, training_entry(...), steps=1200)  # what the next card says of a training

In: a configuration, a processor and an adapter's settings. Out: text, which `model_card.md.jinja` lays out. What a
card says of base models and training stands in the checkpoint's configuration, so that it stays with the weights when
they are trained further, saved or pushed: `base_models`, keys of `BASE_MODELS` (an empty list: fresh weights), and
`training_record`, a list with an entry for each training. Nothing else is claimed. Figures come later, from the
`metrics.json` of `evaluate_litegpt.py` (`hub/figures_of_card.py`).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from huggingface_hub import ModelCard, ModelCardData

from litegpt.common.templates import template
from litegpt.datasets_scripts.preparation.dataset_card import license_name
from litegpt.datasets_scripts.rows import data_set_facts
from litegpt.processing.tasks import DEFAULT_TASKS, TASKS, WORD_TASKS, Task

if TYPE_CHECKING:  # they import torch, which takes seconds that a push need not wait
    from peft import LoraConfig
    from transformers import TrainingArguments

    from litegpt.modeling_litegpt import LiteGPTConfig, LiteGPTForConditionalGeneration
    from litegpt.processing.processing_litegpt import LiteGPTProcessor

# What stands for the repository, and for an adapter's base, until they are pushed.
THIS_REPOSITORY, BASE_REPOSITORY = "path/to/this/folder", "path/to/the/base"


class BaseModel(NamedTuple):
    """What weights may start from: its name, repository on the Hub and licence, as a card states them."""

    name: str
    repository: str | None
    licence: str


BASE_MODELS = {
    "biomedclip": BaseModel("BiomedCLIP", "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224", "MIT"),
    "pubmedclip": BaseModel("PubMedCLIP", "flaviagiammarino/pubmed-clip-vit-base-patch32", "MIT"),
    "llama": BaseModel("Llama 2-Chat", "meta-llama/Llama-2-7b-chat-hf", "Llama 2 Community License"),
    "eva_clip": BaseModel("EVA-CLIP-g as BLIP-2 publishes it", None, "as its authors state"),
    "minigpt_v2": BaseModel("MiniGPT-v2 (stage 3)", None, "as its authors state"),
    "litegpt": BaseModel(
        "LiteGPT's published weights",
        None,
        "as its authors state; trained on VinDr-CXR (PhysioNet Credentialed Health Data License 1.5.0)",
    ),
    # Of CXR-CLIPs, and so of LiteGPTs with one's tower.
    "cxr_clip": BaseModel(
        "CXR-CLIP's published weights",
        None,
        "CC BY-NC 4.0 (its README) or CC BY-NC-SA 4.0 (its file LICENSE), for non-commercial use alone either way; "
        "trained on MIMIC-CXR, some on CheXpert and ChestX-ray14 too",
    ),
    "ecamp": BaseModel(
        "ECAMP's published weights",
        None,
        "MIT as its code; trained on MIMIC-CXR (PhysioNet Credentialed Health Data License 1.5.0), from MAE's weights "
        "(CC BY-NC 4.0), which are for non-commercial use alone",
    ),
    "mrm": BaseModel(
        "MRM's published weights",
        None,
        "MIT as its code; trained on MIMIC-CXR (PhysioNet Credentialed Health Data License 1.5.0), from MAE's weights "
        "(CC BY-NC 4.0), which are for non-commercial use alone",
    ),
    "bio_clinical_bert": BaseModel("Bio_ClinicalBERT", "emilyalsentzer/Bio_ClinicalBERT", "MIT; trained on MIMIC-III"),
    "swin_tiny": BaseModel("Swin-Tiny", "microsoft/swin-tiny-patch4-window7-224", "Apache 2.0; trained on ImageNet"),
    "resnet_50": BaseModel("ResNet-50", "microsoft/resnet-50", "Apache 2.0; trained on ImageNet"),
}


class Example(NamedTuple):
    """A question string, and what an answer to it may say."""

    question: str
    answer: str


EXAMPLES = {  # of each task in words that a pipeline is asked with a question string
    "refer": Example("refer: enlarged heart", "whether the radiograph shows it, how probable that is, and its boxes"),
    "describe": Example("describe: 389 532 829 758", "Cardiomegaly, in the box of these pixels"),
    "report": Example("report", "There is cardiomegaly. There is no pleural effusion."),
    "grounded_report": Example("grounded_report", "There is cardiomegaly., with its boxes, and so each sentence"),
    "question": Example("question: Is there a fracture?", "No."),
    "chat": Example('chat: [{"role": "user", "content": "Is the heart large?"}]', "Yes."),
}


def base_model(key: str) -> BaseModel:
    """Of a key of `BASE_MODELS`, or of another name, which a person gave: on the Hub it has an owner before it."""
    return BASE_MODELS.get(key) or BaseModel(key, key if "/" in key else None, "as its card states")


def model_card(model: "LiteGPTForConditionalGeneration", processor: "LiteGPTProcessor") -> str:
    """README.md of a checkpoint; its figures are added by `with_figures`."""
    config = model.config
    repositories = [base.repository for base in _base_models(config) or [] if base.repository]
    data = ModelCardData(**_metadata(config), library_name="transformers", base_model=repositories or None)
    return _card(data, config, processor, num_parameters=model.num_parameters())


def adapter_card(config: "LiteGPTConfig", processor: "LiteGPTProcessor", adapter: "LoraConfig") -> str:
    """README.md of an adapter; `config` is its base's, with the adapter's training. The push adds the base's name."""
    data = ModelCardData(**_metadata(config), library_name="peft", base_model_relation="adapter")
    data.tags = [*data.tags, "lora"]
    return _card(data, config, processor, adapter=adapter)


def for_repository(card: str, repo_id: str, base_model: str | None = None) -> str:
    """A card, of whatever kind, that names the repository it lies in (and an adapter's base) in place of a folder."""
    card = card.replace(THIS_REPOSITORY, repo_id)
    if base_model is None:
        return card
    parsed = ModelCard(card.replace(BASE_REPOSITORY, base_model))
    parsed.data.base_model = base_model
    return str(parsed)


def training_entry(
    program: str, data_dir: str, radiographs: int, tasks: Sequence[str], trained: str, arguments: "TrainingArguments"
) -> dict[str, Any]:
    """An entry of the training record.

    Args:
        program: such as "sft.py".
        data_dir: what it was trained on, as `load_rows` takes it.
        radiographs: how many of the data set's split `train` were trained on.
        tasks: what was asked of them; empty where no question is asked.
        trained: the weights that were trained, in words.
        arguments: how, of which batch size, learning rate and seed are recorded.

    Raises:
        OSError, ValueError: `data_dir` holds no data set.
    """
    per_device = arguments.per_device_train_batch_size * arguments.gradient_accumulation_steps
    return {
        "program": program,
        "data_set": data_set_facts(data_dir),
        "radiographs": radiographs,
        "tasks": list(tasks),
        "trained": trained,
        "batch_size": per_device * arguments.world_size,
        "learning_rate": arguments.learning_rate,
        "seed": arguments.seed,
    }


def add_training(config: "LiteGPTConfig", entry: dict[str, Any], steps: int) -> None:
    """Appends to the configuration's record what was trained in `steps` optimiser steps."""
    config.training_record = [*_training_record(config), {**entry, "steps": steps}]


# --- The parts of a card ---------------------------------------------------------------------------------------------


def _card(
    data: ModelCardData,
    config: "LiteGPTConfig",
    processor: "LiteGPTProcessor",
    num_parameters: int | None = None,
    adapter: "LoraConfig | None" = None,
) -> str:
    """The card of an adapter, if one is given, or else of a checkpoint with `num_parameters`."""
    from litegpt.processing.sentence_truth import CALIBRATION  # it imports torch, as the processor's module has

    text = template(__file__, "model_card.md.jinja").render(
        this_repository=THIS_REPOSITORY,
        base_repository=BASE_REPOSITORY,
        config=config,
        processor=processor,
        adapter=adapter,
        num_parameters=num_parameters,
        tasks=[TASKS[name] for name in DEFAULT_TASKS],
        words=trained_in_words(config),
        calibrated_sentences=processor.sentence_calibration != CALIBRATION,
        base_models=_base_models(config),
        trainings=_training_record(config),
        data_sets=recorded_data_sets(config),
    )
    return f"---\n{data}\n---\n\n{text}"


def _training_record(config: "LiteGPTConfig") -> list[dict[str, Any]]:
    return config.to_dict().get("training_record") or []  # a configuration has it only where there was a training


def trained_in_words(config: "LiteGPTConfig") -> list[tuple[Task, Example]]:
    """The tasks in words that the training record names, each with an example."""
    asked = {name for entry in _training_record(config) for name in entry["tasks"]}
    return [(task, EXAMPLES[name]) for name, task in WORD_TASKS.items() if name in asked]


def _base_models(config: "LiteGPTConfig") -> list[BaseModel] | None:
    """What the weights start from; None where it is not recorded."""
    keys = config.to_dict().get("base_models")
    return None if keys is None else [base_model(key) for key in keys]


def recorded_data_sets(config: "LiteGPTConfig") -> list[dict[str, Any]]:
    """The data sets of the training record, each once, with the largest number of its radiographs."""
    data_sets: dict[str, dict[str, Any]] = {}
    for entry in _training_record(config):
        facts = data_sets.setdefault(entry["data_set"]["name"], {**entry["data_set"], "radiographs": 0})
        facts["radiographs"] = max(facts["radiographs"], entry["radiographs"])
    return list(data_sets.values())


def _metadata(config: "LiteGPTConfig") -> dict[str, Any]:
    if BASE_MODELS["llama"] in (_base_models(config) or []):
        licence = {"license": "llama2"}
    else:
        licence = {"license": "other", "license_name": "see-licences", "license_link": "README.md#licences"}
    return {
        **licence,
        "pipeline_tag": "image-text-to-text",
        "language": "en",
        "tags": ["litegpt", "medical", "radiology", "chest-x-ray", "object-detection", "custom_code"],
        "datasets": [license_name(facts["name"]) for facts in recorded_data_sets(config)] or None,
    }
