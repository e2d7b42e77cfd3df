import os
import re
import shutil
import subprocess
import sys
import warnings
from types import SimpleNamespace

import pytest
from huggingface_hub import ModelCard
from jinja2 import UndefinedError
from peft import LoraConfig

from litegpt.common.files import weights_sha256
from litegpt.datasets_scripts.rows import data_set_facts
from litegpt.datasets_scripts.vindr_cxr import read_release
from litegpt.modeling_litegpt import LiteGPTConfig
from litegpt.modeling_litegpt.checkpoints import load_checkpoint, save_checkpoint
from litegpt.modeling_litegpt.model_card import (
    BASE_MODELS,
    EXAMPLES,
    THIS_REPOSITORY,
    adapter_card,
    add_training,
    for_repository,
    model_card,
    training_entry,
)
from litegpt.processing.answers import FINDINGS_PREFIX, text_to_diagnoses
from litegpt.processing.tasks import WORD_TASKS
from tests.stranger import NOTHING_OF_OURS

ARGUMENTS = SimpleNamespace(
    per_device_train_batch_size=4, gradient_accumulation_steps=2, world_size=2, learning_rate=1e-4, seed=3
)


@pytest.fixture(scope="module")
def checkpoint(tiny_checkpoint):
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture
def model_and_processor(checkpoint):
    """The tiny checkpoint with a configuration that a test may change."""
    model, processor = checkpoint
    config = model.config
    model.config = LiteGPTConfig.from_dict(config.to_dict())
    yield model, processor
    model.config = config


def trained_on(release) -> dict:
    return training_entry("sft.py", str(release), 24, ["identify", "vqa"], "projector, language model", ARGUMENTS)


def test_only_what_is_known_is_claimed(model_and_processor):
    model, processor = model_and_processor
    model.config.base_models = None
    card = model_card(model, processor)
    for name in ("VinDr-CXR", "ChestX-ray14", "PhysioNet", "BiomedCLIP", "Llama", "at random"):
        assert name not in card
    assert "What the weights started from is not recorded." in card and "None is recorded" in card
    assert "not for clinical use" in card and "not a medical device" in card
    metadata = ModelCard(card).data
    assert metadata.base_model is None and metadata.datasets is None and metadata.license == "other"
    assert f"{model.num_parameters():,} parameters" in card
    model.config.base_models = []
    assert "started fresh, at random" in model_card(model, processor)


def test_base_models_and_their_licences_are_named(model_and_processor):
    model, processor = model_and_processor
    model.config.base_models = ["biomedclip", "llama"]
    card = model_card(model, processor)
    metadata = ModelCard(card).data
    assert metadata.base_model == [BASE_MODELS["biomedclip"][1], BASE_MODELS["llama"][1]]
    assert metadata.license == "llama2"
    assert "The weights start from BiomedCLIP: MIT." in card and "PubMedCLIP" not in card


def test_training_on_phantoms_is_not_called_training_on_vindr_cxr(model_and_processor, phantom_release):
    model, processor = model_and_processor
    add_training(model.config, trained_on(phantom_release), steps=1200)
    add_training(model.config, {**trained_on(phantom_release), "tasks": ["vqa"]}, steps=50)
    card = model_card(model, processor)
    assert "- Phantoms in VinDr-CXR's layout: 24 radiographs of its split `train`." in card
    assert (
        "[apache-license-2.0](https://www.apache.org/licenses/LICENSE-2.0)" in card and "physionet" not in card.lower()
    )
    row = (
        "| `sft.py` | Phantoms in VinDr-CXR's layout | `[identify]`, `[vqa]` | projector, language model | 1,200 | 16 "
    )
    assert row in card and card.count("| `sft.py` |") == 2
    assert card.count("The weights were trained on Phantoms") == 1
    assert ModelCard(card).data.datasets == ["phantoms-in-vindr-cxr-s-layout"]


def test_tasks_in_words_have_examples_and_the_caution_where_they_were_trained(model_and_processor, phantom_release):
    model, processor = model_and_processor
    add_training(model.config, trained_on(phantom_release), steps=5)
    card = model_card(model, processor)
    assert "unverified" not in card and "refer: " not in card
    add_training(model.config, {**trained_on(phantom_release), "tasks": ["refer", "report"]}, steps=5)
    card = model_card(model, processor)
    assert 'pipe("radiograph.dicom", tasks=["refer: enlarged heart", "report"])' in card
    assert '"tasks": ["report"]})  # with a second view' in card and "question: " not in card
    assert "**Free text is unverified**" in card and "which nobody has calibrated; below 0.5" in card
    assert "| `refer: enlarged heart` | `phrases` |" in card
    model.config.training_record[-1]["tasks"] = list(EXAMPLES)
    for example in EXAMPLES.values():
        assert f"`{example.question}`" in model_card(model, processor)


def test_every_task_in_words_has_an_example():
    assert EXAMPLES.keys() == WORD_TASKS.keys()


def test_words_of_others_cannot_break_the_table_of_trainings(model_and_processor, phantom_release):
    model, processor = model_and_processor
    entry = trained_on(phantom_release)
    entry = {**entry, "data_set": {**entry["data_set"], "name": 'A|B <i> & "C"'}, "trained": "head | 'tail'"}
    add_training(model.config, entry, steps=5)
    row = "| `sft.py` | A\\|B &lt;i> &amp; \"C\" | `[identify]`, `[vqa]` | head \\| 'tail' | 5 | 16 | 0.0001 | 3 |\n"
    assert row in model_card(model, processor)


def test_what_is_missing_in_the_record_is_an_error_and_no_gap(model_and_processor, phantom_release):
    model, processor = model_and_processor
    entry = trained_on(phantom_release)
    del entry["trained"]
    add_training(model.config, entry, steps=5)
    with pytest.raises(UndefinedError, match="trained"):
        model_card(model, processor)


def test_the_record_of_training_stays_with_the_weights(model_and_processor, phantom_release, tmp_path):
    model, processor = model_and_processor
    add_training(model.config, trained_on(phantom_release), steps=3)
    save_checkpoint(model, processor, tmp_path / "one")
    again, processor = load_checkpoint(tmp_path / "one")
    add_training(again.config, trained_on(phantom_release), steps=4)
    save_checkpoint(again, processor, tmp_path / "two")
    assert [entry["steps"] for entry in load_checkpoint(tmp_path / "two")[0].config.training_record] == [3, 4]
    assert "steps" in (tmp_path / "two" / "README.md").read_text()


def test_a_prepared_folder_and_its_release_are_told_alike(phantom_release, tmp_path):
    from litegpt.datasets_scripts.preparation.prepare import prepare

    prepare(read_release(phantom_release), tmp_path / "prepared")
    facts = data_set_facts(str(phantom_release))
    assert data_set_facts(str(tmp_path / "prepared")) == facts
    assert facts["name"] == "Phantoms in VinDr-CXR's layout" and facts["license_name"] == "apache-license-2.0"
    (phantom_release / "phantom.json").rename(tmp_path / "phantom.json")
    try:
        assert data_set_facts(str(phantom_release))["name"] == "VinDr-CXR"
    finally:
        (tmp_path / "phantom.json").rename(phantom_release / "phantom.json")


def test_an_adapters_card_says_what_it_holds_and_how_to_load_it(model_and_processor):
    model, processor = model_and_processor
    adapter = LoraConfig(
        r=4, lora_alpha=8, modules_to_save=["multi_modal_projector"], trainable_token_indices={"embed_tokens": [1]}
    )
    card = for_repository(adapter_card(model.config, processor, adapter), "acme/adapter", "acme/litegpt")
    assert 'PeftModel.from_pretrained(base, "acme/adapter")' in card
    assert 'AutoModelForImageTextToText.from_pretrained("acme/litegpt", trust_remote_code=True)' in card
    assert "r=4, alpha=8" in card and "multi_modal_projector" in card and "embeddings" in card
    metadata = ModelCard(card).data
    assert (metadata.library_name, metadata.base_model) == ("peft", "acme/litegpt")
    assert metadata["base_model_relation"] == "adapter" and "lora" in metadata.tags
    assert "path/to" not in card and "not for clinical use" in card


def test_another_byte_in_the_weights_gives_another_digest(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    digest = weights_sha256(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"Weights")
    assert list(digest) == ["model.safetensors"] and weights_sha256(tmp_path) != digest


def test_the_cards_snippets_run_as_they_are_written(tiny_checkpoint, phantom_release, tmp_path):
    card = (tiny_checkpoint / "README.md").read_text(encoding="utf-8")
    snippets = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert len(snippets) == 2
    shutil.copy(next((phantom_release / "test").iterdir()), tmp_path / "radiograph.dicom")
    program = NOTHING_OF_OURS + "".join(snippets).replace(THIS_REPOSITORY, str(tiny_checkpoint))
    result = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.startswith(FINDINGS_PREFIX) and result.stdout.endswith(".\n")


def test_generate_without_options_gives_a_whole_answer(checkpoint, radiographs, tmp_path):
    model, processor = checkpoint
    save_checkpoint(model, processor, tmp_path / "saved")
    model, processor = load_checkpoint(tmp_path / "saved")
    assert model.generation_config.max_new_tokens == 512 and not model.generation_config.do_sample
    inputs = processor(images=radiographs[0], text=processor.prompt("vqa"), return_tensors="pt")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        answer = model.generate(**inputs, custom_generate=processor.constrained_greedy())
    text = processor.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert text_to_diagnoses(text, processor.diagnosis_labels)
