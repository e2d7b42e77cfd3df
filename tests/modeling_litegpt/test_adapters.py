"""LoRA adapters: trained further, loaded by strangers, merged."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
import transformers
from huggingface_hub import ModelCard
from packaging.version import Version
from peft import PeftModel
from safetensors.torch import load_file, save_file
from trl import ModelConfig

from litegpt.command import main as litegpt_command
from litegpt.common.programs import Refusal
from litegpt.evaluation_scripts import evaluate_litegpt, predictions
from litegpt.evaluation_scripts.arguments import EvaluationArguments
from litegpt.inference_scripts import answerers
from litegpt.modeling_litegpt import LiteGPTForConditionalGeneration
from litegpt.modeling_litegpt.adapters import add_adapter, save_adapter
from litegpt.modeling_litegpt.checkpoints import load_checkpoint, save_checkpoint
from litegpt.train_scripts import sft
from tests.small_training import train
from tests.stranger import NOTHING_OF_OURS

LORA = {"use_peft": True, "lora_r": 4, "lora_alpha": 8}
IN_8_BIT = {**LORA, "load_in_8bit": True}
WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model.model."


@pytest.fixture(scope="module")
def adapter(tiny_checkpoint, tmp_path_factory) -> Path:
    """An adapter of the tiny checkpoint whose every weight differs from the base's."""
    model, processor = load_checkpoint(tiny_checkpoint)
    lora = sft.lora_config(ModelConfig(**LORA), processor)
    model = add_adapter(model, lora, trained_dtype=torch.float32)
    torch.manual_seed(0)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.1 * torch.randn_like(parameter)
    folder = tmp_path_factory.mktemp("stage1") / "adapter"
    model.config.training_record = None
    save_adapter(model, processor, folder)
    return folder


@pytest.fixture
def changed(adapter, tmp_path):
    """Copies the adapter with other weights or another configuration."""

    def copy(change_weights=None, **settings) -> Path:
        folder = Path(shutil.copytree(adapter, tmp_path / "changed"))
        if change_weights is not None:
            tensors = load_file(folder / WEIGHTS)
            change_weights(tensors)
            save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
        config = json.loads((folder / "adapter_config.json").read_text()) | settings
        (folder / "adapter_config.json").write_text(json.dumps(config))
        return folder

    return copy


@pytest.fixture
def inputs(tiny_checkpoint, radiographs):
    processor = load_checkpoint(tiny_checkpoint)[1]
    return processor(
        images=radiographs[:1], text=processor.prompt("vqa"), add_special_tokens=False, return_tensors="pt"
    )


def on_its_base(adapter, base) -> torch.nn.Module:
    """As PEFT itself loads it."""
    return PeftModel.from_pretrained(load_checkpoint(base)[0], adapter).eval()


def model_to_train(folder, data=None, **options):
    data_args = sft.DataArguments("", **(data or {}))
    return sft.model_to_train(data_args, ModelConfig(str(folder), **{"dtype": "float32", **LORA, **options}))[0]


def digests(folder) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


# --- Trained further -------------------------------------------------------------------------------------------------


def test_a_second_stage_without_learning_keeps_the_first_ones_adapter_bit_for_bit(
    adapter, tiny_checkpoint, phantom_release, cache_dir, tmp_path
):
    before = digests(tiny_checkpoint)
    train(tmp_path, adapter, phantom_release, cache_dir, IN_8_BIT, tasks=["vqa"], learning_rate=0.0, max_steps=2)
    first, second = load_file(adapter / WEIGHTS), load_file(tmp_path / "adapter" / WEIGHTS)
    assert first.keys() == second.keys()
    assert all(
        torch.equal(second[name], tensor) and second[name].dtype == tensor.dtype for name, tensor in first.items()
    )
    assert digests(tiny_checkpoint) == before
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(tiny_checkpoint)


def test_small_steps_are_not_lost_beside_an_8_bit_base(adapter, phantom_release, cache_dir, tmp_path):
    """In bfloat16, to which SFTTrainer rounds what is trained, weights of this size do not move by 1e-6."""
    train(tmp_path, adapter, phantom_release, cache_dir, IN_8_BIT, learning_rate=1e-6, max_steps=1)
    first, second = load_file(adapter / WEIGHTS), load_file(tmp_path / "adapter" / WEIGHTS)
    for name, tensor in first.items():
        moved = (second[name] - tensor).abs()
        assert second[name].dtype == torch.float32 and moved.max() < 3e-6, name
        if "trainable_tokens" not in name:  # the other identifiers do not occur
            assert (moved > 0).float().mean() > 0.5, name


def test_an_interrupted_8_bit_training_goes_on_to_the_same_adapter(adapter, phantom_release, cache_dir, tmp_path):
    options = {"max_steps": 4, "learning_rate": 1e-5, "save_strategy": "steps", "save_steps": 2}
    train(tmp_path, adapter, phantom_release, cache_dir, IN_8_BIT, **options)
    expected = load_file(tmp_path / "adapter" / WEIGHTS)
    for name in ("adapter", "checkpoint", "checkpoint-4"):
        shutil.rmtree(tmp_path / name)
    train(tmp_path, adapter, phantom_release, cache_dir, IN_8_BIT, **options)
    for name, tensor in load_file(tmp_path / "adapter" / WEIGHTS).items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("options", [{"dtype": "bfloat16"}, {"dtype": "bfloat16", "load_in_8bit": True}])
def test_what_is_trained_is_float32_and_the_rest_as_asked(options, adapter, tiny_checkpoint):
    for folder in (adapter, tiny_checkpoint):
        model = model_to_train(folder, **options)
        dtypes = {True: set(), False: set()}
        for parameter in model.parameters():
            dtypes[parameter.requires_grad].add(parameter.dtype)
        in_8_bit = {torch.int8} if "load_in_8bit" in options else set()
        assert dtypes == {True: {torch.float32}, False: {torch.bfloat16} | in_8_bit}
    saved = load_file(adapter / WEIGHTS)
    loaded = model_to_train(adapter, **options).state_dict()
    lora_b = f"{PREFIX}language_model.layers.1.self_attn.v_proj.lora_B"
    assert torch.equal(loaded[f"{lora_b}.default.weight"], saved[f"{lora_b}.weight"])


def test_an_adapter_of_lora_alone_goes_on_with_the_bases_projector_and_says_so(changed, tiny_checkpoint, capsys):
    """`convert_weights_to_hf.py --merge_lora false` writes such a one."""

    def lora_alone(tensors):
        for name in [name for name in tensors if ".lora_" not in name]:
            del tensors[name]

    model = model_to_train(changed(lora_alone, modules_to_save=None, trainable_token_indices=None))
    output = capsys.readouterr().out
    assert "has no multi_modal_projector: it starts as the base has it" in output and "has no embed_tokens" in output
    base, state = load_checkpoint(tiny_checkpoint)[0].state_dict(), model.state_dict()
    name = "multi_modal_projector.{}linear_1.weight"
    assert torch.equal(state[PREFIX + name.format("modules_to_save.default.")], base["model." + name.format("")])
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert sum("multi_modal_projector" in name for name in trained) == 4
    assert sum("trainable_tokens" in name for name in trained) == 1


def refusal(folder, **options) -> str:
    with pytest.raises((OSError, ValueError)) as error:
        model_to_train(folder, **options)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)
    return str(error.value)


def test_an_adapter_of_another_size_is_refused(changed):
    folder = changed()
    assert "has r 4, where 8 is asked for" in refusal(folder, lora_r=8)
    assert "has lora_alpha 8, where 16 is asked for" in refusal(folder, lora_alpha=16)


def test_an_adapter_whose_tensors_do_not_fit_is_refused(changed, tmp_path):
    lora = f"{PREFIX}language_model.layers.0.self_attn.q_proj.lora_A.weight"
    projector = f"{PREFIX}multi_modal_projector.linear_2.bias"

    def refused(change) -> str:
        shutil.rmtree(tmp_path / "changed", ignore_errors=True)
        return refusal(changed(change))

    assert f"lacks {lora}" in refused(lambda tensors: tensors.pop(lora))
    assert "no place for: x.lora_A" in refused(lambda tensors: tensors.update({"x.lora_A.weight": torch.ones(1)}))
    assert "has shape (3, 32), not (4, 32)" in refused(lambda tensors: tensors.update({lora: torch.ones(3, 32)}))
    assert "a part of multi_modal_projector alone" in refused(lambda tensors: tensors.pop(projector))


def test_an_adapter_for_other_tokens_is_refused(changed):
    assert "tokens of other numbers" in refusal(changed(trainable_token_indices={"embed_tokens": [1, 2, 3, 4, 5, 6]}))


def test_quantized_weights_are_not_trained_without_lora(tiny_checkpoint):
    with pytest.raises(Refusal, match="quantized weights can't be trained"):
        model_to_train(tiny_checkpoint, use_peft=False, load_in_8bit=True)


def test_without_lora_the_merged_model_is_trained(adapter, inputs, tiny_checkpoint):
    model = model_to_train(adapter, use_peft=False).eval()
    assert not isinstance(model, PeftModel)
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen and all("vision_tower" in name for name in frozen)
    expected = on_its_base(adapter, tiny_checkpoint)(**inputs).logits
    torch.testing.assert_close(model(**inputs).logits, expected, atol=1e-4, rtol=1e-3)


def test_towers_are_trained_beside_lora_where_asked(adapter, tiny_checkpoint, phantom_release, cache_dir, tmp_path):
    train(tmp_path, adapter, phantom_release, cache_dir, LORA, train_towers=True, max_steps=1)
    base = load_checkpoint(tiny_checkpoint)[0].state_dict()
    merged = load_checkpoint(tmp_path / "checkpoint")[0].state_dict()
    for tower in ("model.vision_tower.", "model.aux_vision_tower."):
        assert any(not torch.equal(merged[name], base[name]) for name in base if name.startswith(tower))
    # The next stage goes on from it without --train_towers: they stay as the adapter has them.
    weights = {
        n: w for n, w in model_to_train(tmp_path / "adapter").named_parameters() if "tower.modules_to_save" in n
    }
    assert weights and not any(weight.requires_grad for weight in weights.values())
    for name, weight in weights.items():
        torch.testing.assert_close(
            weight, merged[name.removeprefix("base_model.model.").replace(".modules_to_save.default", "")]
        )


def test_one_tower_is_trained_beside_lora_too(tiny_checkpoint, tmp_path):
    config = load_checkpoint(tiny_checkpoint)[0].config
    config.aux_vision_config, config.visual_token_group_size = None, 4
    processor = load_checkpoint(tiny_checkpoint)[1]
    model = add_adapter(
        LiteGPTForConditionalGeneration(config),
        sft.lora_config(ModelConfig(**LORA), processor, ["vision_tower", "aux_vision_tower"]),
    )
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert any(".vision_tower.modules_to_save" in name for name in trained)


def test_the_record_of_both_stages_stands_in_the_card(adapter, tiny_checkpoint, phantom_release, cache_dir, tmp_path):
    for stage, start, task in (("1", tiny_checkpoint, "identify"), ("2", tmp_path / "1" / "adapter", "vqa")):
        train(tmp_path / stage, start, phantom_release, cache_dir, LORA, tasks=[task], max_steps=1)
    assert json.loads((adapter / "training_record.json").read_text()) == []
    for folder in ("adapter", "checkpoint"):
        card = (tmp_path / "2" / folder / "README.md").read_text()
        assert card.count("| `sft.py` |") == 2 and "`[identify]`" in card and "`[vqa]`" in card
    record = load_checkpoint(tmp_path / "2" / "checkpoint")[0].config.training_record
    assert [entry["tasks"] for entry in record] == [["identify"], ["vqa"]]


# --- Its base --------------------------------------------------------------------------------------------------------


def test_an_adapter_inside_a_moved_checkpoint_finds_it(adapter, tiny_checkpoint, inputs, tmp_path):
    moved = Path(shutil.copytree(tiny_checkpoint, tmp_path / "moved"))
    inside = Path(shutil.copytree(adapter, moved / "adapter"))
    config = json.loads((inside / "adapter_config.json").read_text()) | {"base_model_name_or_path": "/not/there"}
    (inside / "adapter_config.json").write_text(json.dumps(config))
    expected = on_its_base(adapter, tiny_checkpoint)(**inputs).logits
    torch.testing.assert_close(load_checkpoint(inside)[0].eval()(**inputs).logits, expected, atol=1e-4, rtol=1e-3)


def test_a_base_that_was_named_relatively_is_found_from_another_folder(
    tiny_checkpoint, phantom_release, cache_dir, tmp_path, monkeypatch
):
    monkeypatch.chdir(tiny_checkpoint.parent)
    train(
        tmp_path,
        tiny_checkpoint.name,
        phantom_release,
        cache_dir,
        LORA,
        max_steps=2,
        save_strategy="steps",
        save_steps=1,
    )
    monkeypatch.chdir(tmp_path)
    for folder in ("adapter", "checkpoint-1"):
        load_checkpoint(tmp_path / folder)


def test_a_base_that_is_gone_is_one_sentence(changed):
    for base in ("/not/there", "outputs/not_there"):
        folder = changed(base_model_name_or_path=base)
        assert f"this adapter's base, {base}, is neither a folder nor" in refusal(folder)
        with pytest.raises(FileNotFoundError, match="this adapter's base"):
            load_checkpoint(folder)
        shutil.rmtree(folder)


# --- Loaded and merged -----------------------------------------------------------------------------------------------

STRANGER = (
    NOTHING_OF_OURS
    + """
import json
import numpy as np
from peft import PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor

adapter, base = sys.argv[1:]
processor = AutoProcessor.from_pretrained(adapter, trust_remote_code=True)
picture = np.random.default_rng(0).integers(0, 256, (80, 60), dtype=np.uint8)
inputs = processor(images=picture, text=processor.prompt("vqa"), add_special_tokens=False, return_tensors="pt")

def logits(model):
    return model.eval()(**inputs).logits[0, -1].tolist()

results = {}
model = AutoModelForImageTextToText.from_pretrained(base, trust_remote_code=True)
results["base"] = logits(model)
results["peft"] = logits(PeftModel.from_pretrained(model, adapter))
try:
    results["auto"] = logits(AutoModelForImageTextToText.from_pretrained(adapter, trust_remote_code=True))
except ValueError as refusal:
    results["refusal"] = str(refusal)
print(json.dumps(results))
"""
)


def test_a_stranger_loads_it_in_one_line(adapter, tiny_checkpoint, tmp_path):
    """With PEFT always; as a checkpoint, but an older transformers refuses what an adapter saves whole."""
    (tmp_path / "stranger.py").write_text(STRANGER)
    process = subprocess.run(
        [sys.executable, "stranger.py", str(adapter), str(tiny_checkpoint)],
        cwd=tmp_path,
        env={**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    results = json.loads(process.stdout.strip().splitlines()[-1])
    auto, with_peft = results.get("auto"), torch.tensor(results["peft"])
    assert not torch.allclose(with_peft, torch.tensor(results["base"]), atol=0.1)
    if Version(transformers.__version__) < Version("5.23") and auto is None:
        assert "the weights do not fit the configuration: missing: " in results["refusal"]
    else:
        torch.testing.assert_close(torch.tensor(auto), with_peft)
    card = (adapter / "README.md").read_text()
    assert "PeftModel.from_pretrained(base, " in card and ModelCard(card).data.library_name == "peft"


def test_an_8_bit_training_is_merged_into_the_base_as_it_is_stored(
    tiny_checkpoint, phantom_release, cache_dir, tmp_path
):
    model, processor = load_checkpoint(tiny_checkpoint, dtype="bfloat16")
    save_checkpoint(model, processor, tmp_path / "base")
    train(tmp_path, tmp_path / "base", phantom_release, cache_dir, IN_8_BIT)
    merged = load_file(tmp_path / "checkpoint" / "model.safetensors")
    assert {tensor.dtype for tensor in merged.values()} == {torch.bfloat16}

    base, _ = load_checkpoint(tmp_path / "base", dtype="float32")
    exact = PeftModel.from_pretrained(base, tmp_path / "adapter").merge_and_unload().eval()
    loaded = load_checkpoint(tmp_path / "checkpoint")[0].state_dict()
    for name, tensor in exact.state_dict().items():
        torch.testing.assert_close(loaded[name].float(), tensor, atol=1e-6, rtol=2**-8, msg=name)


def test_memory_need_not_hold_the_trained_model_and_the_merged_one(
    tiny_checkpoint, phantom_release, cache_dir, tmp_path, monkeypatch
):
    models = []

    class Trainer(sft.LiteGPTTrainer):
        def __init__(self, **options):
            super().__init__(**options)
            models.append(weakref.ref(self.model))
            models.append(weakref.ref(self.model.get_base_model()))

    def load(folder, **options):
        if str(folder).endswith("adapter"):
            models.append([model() for model in models])
        return load_checkpoint(folder, **options)

    monkeypatch.setattr(sft, "LiteGPTTrainer", Trainer)
    monkeypatch.setattr(sft, "load_checkpoint", load)
    train(tmp_path, tiny_checkpoint, phantom_release, cache_dir, LORA, max_steps=1)
    assert models[2] == [None, None]


def test_predict_and_evaluate_take_an_adapter(
    adapter, tiny_checkpoint, inputs, phantom_release, cache_dir, tmp_path, monkeypatch
):
    """They get the model that PEFT makes of adapter and base; what they do with it, their own tests say."""
    models = []

    class Pipeline(Exception):
        def __init__(self, model, **options):
            models.append(model)
            raise self

    for module in (answerers, predictions):
        monkeypatch.setattr(module, "ChestXrayFindingsPipeline", Pipeline)
    radiograph = str(sorted((phantom_release / "test").iterdir())[0])
    with pytest.raises(Pipeline):
        litegpt_command(["predict", "--model_name_or_path", str(adapter), "--output_dir", str(tmp_path), radiograph])
    with pytest.raises(Pipeline):
        arguments = EvaluationArguments(str(adapter), str(phantom_release), str(tmp_path / "2"), cache_dir=cache_dir)
        evaluate_litegpt.main(arguments)
    expected = on_its_base(adapter, tiny_checkpoint)(**inputs).logits
    for model in models:
        torch.testing.assert_close(model(**inputs).logits, expected, atol=1e-4, rtol=1e-3)
