"""The model cards (README.md) of LiteGPT checkpoints and adapters, and what is known of how they were made.

What a card says of base models and training stands in the checkpoint's configuration, so that it stays with the
weights when they are trained further, saved or pushed: `base_models`, keys of `BASE_MODELS` (an empty list: fresh
weights), and `training_record`, a list with an entry for each training. Nothing else is claimed. Figures come from the
`metrics.json` of `evaluate_litegpt.py`.
"""

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import DatasetCard, EvalResult, ModelCard, ModelCardData

from datasets_scripts.dataset_card import license_name
from datasets_scripts.vindr_cxr import read_release
from train_scripts.report import Headline, Table, as_markdown, headlines, interval_text, number, tasks_of

if TYPE_CHECKING:  # they import torch, which takes seconds that a push need not wait
    from peft import LoraConfig
    from transformers import TrainingArguments

    from modeling_litegpt import LiteGPTConfig, LiteGPTForConditionalGeneration
    from processing.processing_litegpt import LiteGPTProcessor

# What stands for the repository, and for an adapter's base, until they are pushed.
THIS_REPOSITORY, BASE_REPOSITORY = "path/to/this/folder", "path/to/the/base"

BASE_MODELS = {  # name, repository on the Hub, licence
    "biomedclip": ("BiomedCLIP", "microsoft/BiomedCLIP-PubMedBERT_256-vit_base_patch16_224", "MIT"),
    "pubmedclip": ("PubMedCLIP", "flaviagiammarino/pubmed-clip-vit-base-patch32", "MIT"),
    "llama": ("Llama 2-Chat", "meta-llama/Llama-2-7b-chat-hf", "Llama 2 Community License"),
    "eva_clip": ("EVA-CLIP-g as BLIP-2 publishes it", None, "as its authors state"),
    "minigpt_v2": ("MiniGPT-v2 (stage 3)", None, "as its authors state"),
    "litegpt": (
        "LiteGPT's published weights",
        None,
        "as its authors state; trained on VinDr-CXR (PhysioNet Credentialed Health Data License 1.5.0)",
    ),
}

CARD = """# LiteGPT

A vision-language model for frontal chest radiographs: it names findings, draws their boxes and states diagnoses
([arXiv 2407.12064](https://arxiv.org/abs/2407.12064)). Research software, not a medical device: not for clinical use.

{usage}

## What goes in, what comes out

- In: one radiograph, 8-bit grey; the whole image is squashed to the square input of the vision tower(s), nothing is
  cut off. A prompt is one of those under `instructions` in `processor_config.json`, behind its identifier:
  `[identify]` for findings, `[vqa]` for diagnoses.
- Out: text, of which the pipeline makes findings with boxes in pixels of the radiograph as given, and diagnoses. In
  the text a box is xyxy, integers from 0 to 100 of the whole image. Decode greedily. The pipeline constrains the
  answers to the labels below; with `constrained=False` it does not, and an answer that cannot be parsed is reported
  under `malformed`, with the reason.
- `score` of a box is the probability, as the model sees it, that a finding of its label lies there (IoU above 0.4);
  that of a diagnosis is its probability over all answers. Both are calibrated by `score_temperatures` in
  `processor_config.json`, if it has any but 1; `score_thresholds` are the findings' operating points.
- Findings: {findings}.
- Diagnoses: {diagnoses}.
- Size: {size}

## Intended use and limits

For research on models that read chest radiographs. Not for clinical use: it is not tested for that, and no decision
about a person may rest on an answer.

- It was made for frontal radiographs of the chest. Anything else gets an answer too, which means nothing.
- It knows the labels above and no others; that none is named does not mean that a radiograph is normal.
- It learns the habits of those who annotated its training data, and the equipment and people of their hospitals. What
  it reaches elsewhere has to be measured there. Rare labels are its weakest.
- Boxes are rounded to one hundredth of the image.

## Training data

{training_data}

## Training

{training}

## Figures

{figures}

## Licences

{licences}
"""

CHECKPOINT_USAGE = f"""```python
from transformers import pipeline

pipe = pipeline("chest-xray-findings", model="{THIS_REPOSITORY}", trust_remote_code=True)
pipe("radiograph.dicom")  # DICOM needs `pip install pydicom imagecodecs`; PNG and JPEG need nothing more
```

`AutoModelForImageTextToText`, `AutoProcessor` and `pipeline("image-text-to-text")` load it as well, with
`trust_remote_code=True`: the code lies beside the weights. Name a `revision` (a tag or a commit) to keep code and
weights as you know them.

```python
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained("{THIS_REPOSITORY}", trust_remote_code=True, dtype="auto")
processor = AutoProcessor.from_pretrained("{THIS_REPOSITORY}", trust_remote_code=True)
inputs = processor(images="radiograph.dicom", text=processor.prompt("identify"), return_tensors="pt")
answer = model.generate(**inputs, custom_generate=processor.constrained_greedy())  # without it: any of generate's ways
print(processor.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```

In 8 or 4 bit: `from_pretrained(..., quantization_config=BitsAndBytesConfig(load_in_4bit=True))`. Towers, projector and
head keep their precision. A model that is loaded is asked with
`pipeline("chest-xray-findings", model=model, processor=processor)`."""

ADAPTER_USAGE = f"""This is a PEFT adapter. It needs the checkpoint that it was trained on:

```python
from peft import PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor

base = AutoModelForImageTextToText.from_pretrained("{BASE_REPOSITORY}", trust_remote_code=True)
model = PeftModel.from_pretrained(base, "{THIS_REPOSITORY}")  # or .merge_and_unload() behind it
processor = AutoProcessor.from_pretrained("{BASE_REPOSITORY}", trust_remote_code=True)
```

It holds {{adapter}}."""

NO_FIGURES = "None are stated: no results of an evaluation were given (`push_to_hub.py --metrics`)."
NO_FIGURES_OF_ADAPTER = "None are stated here: they are measured on the merged checkpoint."
HUB_TASKS = {"identify": "object-detection", "grounding": "object-detection", "vqa": "image-classification"}
CONTROL = "**Shuffled**: what the same answers score when every image gets those of another one."


def model_card(model: "LiteGPTForConditionalGeneration", processor: "LiteGPTProcessor") -> str:
    """README.md of a checkpoint; its figures are added by `with_figures`."""
    config = model.config
    size = (
        f"{model.num_parameters():,} parameters; {config.num_visual_tokens} visual tokens from "
        f"{config.num_patch_tokens} patch tokens of {len(config.tower_configs)} tower(s)."
    )
    data = ModelCardData(**_metadata(config), library_name="transformers", base_model=_base_repositories(config))
    return _card(data, config, processor, size, CHECKPOINT_USAGE, NO_FIGURES)


def adapter_card(config: "LiteGPTConfig", processor: "LiteGPTProcessor", adapter: "LoraConfig") -> str:
    """README.md of an adapter; `config` is its base's, with the adapter's training. The push adds the base's name."""
    holds = f"LoRA matrices (r={adapter.r}, alpha={adapter.lora_alpha}) for the language model"
    if adapter.modules_to_save:
        holds += f", and in full: {', '.join(sorted(adapter.modules_to_save))}"
    if adapter.trainable_token_indices:
        holds += ", and the embeddings of LiteGPT's tokens"
    data = ModelCardData(**_metadata(config), library_name="peft", base_model_relation="adapter")
    data.tags = [*data.tags, "lora"]
    usage = ADAPTER_USAGE.format(adapter=holds)
    return _card(data, config, processor, "that of its base, if merged.", usage, NO_FIGURES_OF_ADAPTER)


def for_repository(card: str, repo_id: str, base_model: str | None = None) -> str:
    """A card, of whatever kind, that names the repository it lies in (and an adapter's base) in place of a folder."""
    card = card.replace(THIS_REPOSITORY, repo_id)
    if base_model is None:
        return card
    parsed = ModelCard(card.replace(BASE_REPOSITORY, base_model))
    parsed.data.base_model = base_model
    return str(parsed)


def with_figures(card: str, metrics: dict[str, Any], model_name: str) -> str:
    """A checkpoint's card whose metadata (`model-index`) and section "Figures" say what `metrics.json` says.

    The rest of the card stays as it is, also where a person edited it.

    Args:
        metrics: as `evaluate_litegpt.py` writes it, with `data_set`.
        model_name: what the results are listed under; the repository's id.

    Raises:
        ValueError: the metrics are of an older `evaluate_litegpt.py`.
    """
    data_set, figures = metrics["data_set"], headlines(metrics)
    parsed = ModelCard(card)
    parsed.data.model_name = model_name
    parsed.data.eval_results = [
        EvalResult(
            task_type=HUB_TASKS[figure.task],
            dataset_type=license_name(data_set["name"]),
            dataset_name=data_set["name"],
            dataset_split=data_set["split"],
            metric_type=figure.metric,
            metric_name=figure.name,
            metric_value=round(figure.value, 4),
        )
        for figure in figures
        if figure.value is not None
    ]
    parsed.data.metrics = sorted({figure.metric for figure in figures if figure.value is not None})
    section = f"## Figures\n\n{_figures_table(metrics, figures)}\n\n"
    text, replaced = re.subn(
        r"^## Figures\n.*?(?=^## |\Z)", lambda _: section, parsed.text, count=1, flags=re.M | re.S
    )
    parsed.text = text if replaced else f"{parsed.text.rstrip()}\n\n{section}"
    return str(parsed)


def data_set_facts(data_dir: str) -> dict[str, str | None]:
    """What a card says of a data set: `name`, `license_name` and `license_link`.

    Args:
        data_dir: a prepared folder or a release in VinDr-CXR's layout, as `load_rows` takes it.
    """
    if os.path.isdir(os.path.join(data_dir, "data")):
        card = DatasetCard.load(Path(data_dir) / "README.md").data
        name = card.get("pretty_name") or Path(data_dir).resolve().name
        return {"name": name, "license_name": card.get("license_name"), "license_link": card.get("license_link")}
    release = read_release(data_dir)
    return {
        "name": release.pretty_name,
        "license_name": license_name(release.licence),
        "license_link": release.licence_link or release.homepage,
    }


def training_entry(
    program: str, data_dir: str, radiographs: int, tasks: Sequence[str], trained: str, arguments: "TrainingArguments"
) -> dict[str, Any]:
    """An entry of the training record.

    Args:
        program: such as "sft.py".
        radiographs: how many of the data set's split `train` were trained on.
        tasks: what was asked of them; empty where no question is asked.
        trained: the weights that were trained, in words.
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


def weights_sha256(folder: str | Path) -> dict[str, str]:
    """{file name: SHA-256} of a checkpoint's weights: they tell whether figures were measured on them."""
    digests = {}
    for path in sorted(Path(folder).glob("*.safetensors")):
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        digests[path.name] = digest.hexdigest()
    return digests


# --- The parts of a card ---------------------------------------------------------------------------------------------


def _card(
    data: ModelCardData,
    config: "LiteGPTConfig",
    processor: "LiteGPTProcessor",
    size: str,
    usage: str,
    figures: str,
) -> str:
    text = CARD.format(
        usage=usage,
        findings=", ".join(processor.finding_labels),
        diagnoses=", ".join(processor.diagnosis_labels),
        size=size,
        training_data=_training_data(config),
        training=_training(config),
        figures=figures,
        licences=_licences(config),
    )
    return f"---\n{data}\n---\n\n{text}"


def _training_record(config: "LiteGPTConfig") -> list[dict[str, Any]]:
    return config.to_dict().get("training_record") or []  # a configuration has it only where there was a training


def _base_models(config: "LiteGPTConfig") -> list[tuple[str, str | None, str]]:
    return [BASE_MODELS[key] for key in config.to_dict().get("base_models") or []]


def _base_repositories(config: "LiteGPTConfig") -> list[str] | None:
    return [repository for _, repository, _ in _base_models(config) if repository] or None


def _data_sets(config: "LiteGPTConfig") -> list[dict[str, Any]]:
    """The data sets of the training record, each once, with the largest number of its radiographs."""
    data_sets: dict[str, dict[str, Any]] = {}
    for entry in _training_record(config):
        facts = data_sets.setdefault(entry["data_set"]["name"], {**entry["data_set"], "radiographs": 0})
        facts["radiographs"] = max(facts["radiographs"], entry["radiographs"])
    return list(data_sets.values())


def _metadata(config: "LiteGPTConfig") -> dict[str, Any]:
    if "Llama 2-Chat" in [name for name, _, _ in _base_models(config)]:
        licence = {"license": "llama2"}
    else:
        licence = {"license": "other", "license_name": "see-licences", "license_link": "README.md#licences"}
    return {
        **licence,
        "pipeline_tag": "image-text-to-text",
        "language": "en",
        "tags": ["litegpt", "medical", "radiology", "chest-x-ray", "object-detection", "custom_code"],
        "datasets": [license_name(facts["name"]) for facts in _data_sets(config)] or None,
    }


def _training_data(config: "LiteGPTConfig") -> str:
    lines = [
        f"- {facts['name']}: {facts['radiographs']:,} radiographs of its split `train`. Licence: {_link(facts)}."
        for facts in _data_sets(config)
    ]
    if not lines:
        lines = ["None is recorded: since they were made or converted, the weights have not been trained."]
    bases = [name for name, _, _ in _base_models(config)]
    if bases:
        lines += ["", f"What the models it starts from ({', '.join(bases)}) were trained on, their own cards say."]
    return "\n".join(lines)


def _training(config: "LiteGPTConfig") -> str:
    record, bases = _training_record(config), [name for name, _, _ in _base_models(config)]
    if bases:
        start = f"The weights start from {', '.join(bases)}."
    elif config.to_dict().get("base_models") == []:
        start = "The weights started fresh, at random."
    else:
        start = "What the weights started from is not recorded."
    if not record:
        return start
    lines = [
        start,
        "",
        "| program | data set | asked | trained | steps | batch | learning rate | seed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for entry in record:
        tasks = ", ".join(f"`[{task}]`" for task in entry["tasks"]) or "-"
        lines.append(
            f"| `{entry['program']}` | {entry['data_set']['name']} | {tasks} | {entry['trained']} "
            f"| {entry['steps']:,} | {entry['batch_size']} | {entry['learning_rate']:g} | {entry['seed']} |"
        )
    return "\n".join(lines)


def _licences(config: "LiteGPTConfig") -> str:
    lines = ["- The code (`*.py`): Apache License 2.0."]
    lines += [f"- The weights start from {name}: {licence}." for name, _, licence in _base_models(config)]
    lines += [f"- The weights were trained on {facts['name']}: {_link(facts)}." for facts in _data_sets(config)]
    lines += [
        "",
        "The weights are bound to all that is named here. Who publishes them states a licence that allows for it.",
    ]
    return "\n".join(lines)


def _link(facts: dict[str, str | None]) -> str:
    name = facts["license_name"] or "not stated"
    return f"[{name}]({facts['license_link']})" if facts["license_link"] else name


def _figures_table(metrics: dict[str, Any], figures: list[Headline]) -> str:
    data_set = metrics["data_set"]
    table = Table(
        ["figure", "value", "95 % interval", "shuffled"],
        [[f.name, number(f.value), interval_text(f.interval), number(f.controls["shuffled"])] for f in figures],
    )
    lines = [
        f"{data_set['name']}, split `{data_set['split']}`, {data_set['radiographs']:,} radiographs, greedy answers.",
        CONTROL,
        "",
        as_markdown(table),
        "",
    ]
    for task in tasks_of(metrics):
        scores = metrics[task]
        lines.append(
            f"- `[{task}]`: answers that could not be parsed and count as wrong: {scores['num_malformed']}; "
            f"radiographs of which the data set does not tell the answer, left out: {scores['num_unknown']}."
        )
    return "\n".join(lines)
