"""A checkpoint's weights in every dtype, on device maps, in shards, in 8 bit; refused where they do not fit."""

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from packaging.version import Version
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForImageTextToText, BitsAndBytesConfig

from litegpt.modeling_litegpt import LiteGPTForConditionalGeneration, LiteGPTModel, modeling_litegpt
from litegpt.modeling_litegpt.adapters import LORA_TARGET_MODULES
from litegpt.modeling_litegpt.new_checkpoint import main as new_checkpoint
from litegpt.processing.processing_litegpt import LiteGPTProcessor

ROOT = Path(__file__).resolve().parents[2]

A_TENSOR = "model.multi_modal_projector.linear_1.weight"


@pytest.fixture(scope="module")
def model(tiny_checkpoint) -> LiteGPTForConditionalGeneration:
    return LiteGPTForConditionalGeneration.from_pretrained(tiny_checkpoint)


@pytest.fixture
def inputs(tiny_checkpoint, radiographs) -> dict[str, torch.Tensor]:
    processor = LiteGPTProcessor.from_pretrained(tiny_checkpoint)
    prompts = [processor.prompt(task) for task in ("identify", "vqa")]
    return processor(images=radiographs[:2], text=prompts, padding=True, add_special_tokens=False, return_tensors="pt")


@pytest.fixture
def copy(tiny_checkpoint, tmp_path) -> Path:
    """A copy of the checkpoint that a test may damage."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "copy"))


@pytest.fixture
def shards(copy, model) -> list[Path]:
    """The weight files of a copy of the checkpoint in several shards."""
    (copy / "model.safetensors").unlink()
    model.save_pretrained(copy, max_shard_size="50KB")
    files = sorted(copy.glob("model-*.safetensors"))
    assert len(files) > 3
    return files


def load_as_a_stranger(folder: Path, **kwargs) -> torch.nn.Module:
    return AutoModelForImageTextToText.from_pretrained(folder, trust_remote_code=True, **kwargs)


def change_weights(folder: Path, **changes: torch.Tensor | None) -> None:
    """Replaces tensors of a checkpoint's weight file, or takes them out (None)."""
    tensors = load_file(folder / "model.safetensors")
    tensors = {name: tensor for name, tensor in {**tensors, **changes}.items() if tensor is not None}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({A_TENSOR: None}, f"the weights do not fit the configuration: missing: {A_TENSOR}. "),
        ({"lm_head.bias": torch.zeros(3)}, "the weights do not fit the configuration: unexpected: lm_head.bias. "),
        (
            {A_TENSOR: torch.zeros(3, 160)},
            f"the weights do not fit the configuration: of another shape: {A_TENSOR} (3, 160) instead of (48, 160). ",
        ),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_weights_that_do_not_fit_are_refused_in_one_sentence(copy, change, sentence):
    change_weights(copy, **change)
    with pytest.raises(ValueError) as refusal:
        load_as_a_stranger(copy)
    assert str(refusal.value) == f"{copy}: {sentence}(output_loading_info=True loads what fits.)"


def test_many_missing_tensors_are_counted_not_listed(copy):
    names = [name for name in load_file(copy / "model.safetensors") if "vision_tower" in name]
    change_weights(copy, **dict.fromkeys(names))
    with pytest.raises(ValueError, match=f"missing: [^,]+, [^,]+, [^,]+ and {len(names) - 3} more. "):
        load_as_a_stranger(copy)


def test_a_missing_shard_is_refused(shards):
    shards[1].unlink()
    with pytest.raises(OSError, match=shards[1].name):
        load_as_a_stranger(shards[1].parent)


@pytest.mark.parametrize("rest", [0.5, 0.0001, 0])
def test_a_shard_that_was_cut_off_is_refused_by_its_name(shards, rest):
    os.truncate(shards[1], int(shards[1].stat().st_size * rest))
    with pytest.raises(ValueError, match="the weights are damaged or cut off") as refusal:
        load_as_a_stranger(shards[1].parent)
    assert str(refusal.value).startswith(f"{shards[1]}: ")


def test_a_shard_that_lacks_what_the_index_promises_is_refused(shards):
    tensors = load_file(shards[1])
    lost = sorted(tensors)[0]
    save_file({name: tensor for name, tensor in tensors.items() if name != lost}, shards[1], {"format": "pt"})
    with pytest.raises(ValueError, match=f"missing: {lost}"):
        load_as_a_stranger(shards[1].parent)


def test_the_base_model_loads_from_the_whole_checkpoint_and_refuses_a_partial_one(copy):
    base = AutoModel.from_pretrained(copy, trust_remote_code=True)
    assert type(base).__name__ == "LiteGPTModel"
    change_weights(copy, **{A_TENSOR: None})
    with pytest.raises(ValueError, match=f"missing: {A_TENSOR.removeprefix('model.')}"):
        AutoModel.from_pretrained(copy, trust_remote_code=True)


def test_the_answering_model_refuses_weights_of_the_base_model(model, tmp_path):
    model.model.save_pretrained(tmp_path)
    LiteGPTModel.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="missing: lm_head.weight"):
        LiteGPTForConditionalGeneration.from_pretrained(tmp_path)


def test_the_caller_may_ask_for_what_fits(copy):
    change_weights(copy, **{A_TENSOR: torch.zeros(3, 160)})
    loaded = load_as_a_stranger(copy, ignore_mismatched_sizes=True)
    assert loaded.get_parameter(A_TENSOR).shape == (48, 160)
    change_weights(copy, **{A_TENSOR: None})
    with pytest.raises(ValueError, match=f"missing: {A_TENSOR}"):
        load_as_a_stranger(copy, ignore_mismatched_sizes=True)
    loaded, info = load_as_a_stranger(copy, output_loading_info=True)
    assert info["missing_keys"] == {A_TENSOR} and loaded.get_parameter(A_TENSOR).isfinite().all()


def test_a_tied_head_is_not_missing(tiny_checkpoint, tmp_path):
    config = LiteGPTForConditionalGeneration.config_class.from_pretrained(tiny_checkpoint, tie_word_embeddings=True)
    tied = LiteGPTForConditionalGeneration(config)
    tied.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    loaded = LiteGPTForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(loaded.lm_head.weight, tied.model.language_model.embed_tokens.weight)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_dtype_is_kept_and_auto_is_the_one_that_was_saved(tiny_checkpoint, model, inputs, tmp_path, dtype):
    asked = LiteGPTForConditionalGeneration.from_pretrained(tiny_checkpoint, dtype=dtype)
    asked.save_pretrained(tmp_path)
    again = LiteGPTForConditionalGeneration.from_pretrained(tmp_path, dtype="auto")
    for loaded in (asked, again):
        assert {parameter.dtype for parameter in loaded.parameters()} == {dtype}
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == str(dtype).removeprefix("torch.")
    logits = again(**inputs).logits
    assert logits.dtype == dtype
    torch.testing.assert_close(logits, asked(**inputs).logits)
    expected = model(**inputs).logits
    tolerance = 1e-4 if dtype == torch.float32 else 0.1
    assert (logits - expected).norm() / expected.norm() < tolerance


def test_a_model_in_bfloat16_answers(tiny_checkpoint, inputs):
    loaded = LiteGPTForConditionalGeneration.from_pretrained(tiny_checkpoint, dtype=torch.bfloat16)
    assert loaded.generate(**inputs, max_new_tokens=4).shape == (2, inputs["input_ids"].shape[1] + 4)


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}])
def test_a_device_map_changes_nothing(tiny_checkpoint, model, inputs, device_map):
    loaded = LiteGPTForConditionalGeneration.from_pretrained(tiny_checkpoint, device_map=device_map)
    inputs = inputs.to(loaded.device)
    torch.testing.assert_close(loaded(**inputs).logits.cpu(), model(**inputs.to("cpu")).logits, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("on_disk", ["model.language_model", "model.vision_tower", "model.multi_modal_projector"])
def test_a_part_may_stay_on_disk(tiny_checkpoint, model, inputs, tmp_path, on_disk):
    parts = [f"model.{name}" for name, _ in model.model.named_children()] + ["lm_head"]
    device_map = {part: "disk" if part == on_disk else "cpu" for part in parts}
    loaded = LiteGPTForConditionalGeneration.from_pretrained(
        tiny_checkpoint, device_map=device_map, offload_folder=tmp_path
    )
    assert any(parameter.is_meta for parameter in loaded.parameters())
    torch.testing.assert_close(loaded(**inputs).logits, model(**inputs).logits)


def test_shards_hold_what_one_file_holds(shards, model):
    index = json.loads((shards[0].parent / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"].values()) == {file.name for file in shards}
    loaded = load_as_a_stranger(shards[0].parent).state_dict()
    assert loaded.keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded[name], tensor), name


@pytest.mark.parametrize(
    "quantization",
    [
        BitsAndBytesConfig(load_in_8bit=True),
        BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=["lm_head"]),
        {"load_in_8bit": True, "quant_method": "bitsandbytes"},
    ],
    ids=["as strangers write it", "a list of their own", "a dictionary"],
)
def test_8_bit_weights_are_loaded_answer_and_are_saved(tiny_checkpoint, model, inputs, tmp_path, quantization):
    loaded = LiteGPTForConditionalGeneration.from_pretrained(tiny_checkpoint, quantization_config=quantization)
    in_8_bit = {name for name, parameter in loaded.named_parameters() if parameter.dtype == torch.int8}
    assert in_8_bit and all(name.startswith("model.language_model.layers") for name in in_8_bit)
    torch.testing.assert_close(loaded(**inputs).image_hidden_states, model(**inputs).image_hidden_states)
    logits, expected = loaded(**inputs).logits, model(**inputs).logits
    assert 0 < (logits - expected).norm() / expected.norm() < 0.2
    answers = loaded.generate(**inputs, max_new_tokens=4)
    loaded.save_pretrained(tmp_path)
    again = LiteGPTForConditionalGeneration.from_pretrained(tmp_path)
    assert torch.equal(again.generate(**inputs, max_new_tokens=4), answers)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("projector_hidden_size", [None, 64], ids=["one linear layer", "two linear layers"])
@pytest.mark.parametrize("auto", [AutoModelForImageTextToText, AutoModel])
def test_quantization_is_for_the_language_model_alone(tiny_arguments, tmp_path, bits, projector_hidden_size, auto):
    # 4 bit takes widths that are multiples of 64 alone.
    sizes = {"hidden_size": 64, "intermediate_size": 64}
    arguments = replace(
        tiny_arguments,
        output_dir=str(tmp_path / "wide"),
        vision_config=tiny_arguments.vision_config | sizes,
        aux_vision_config=tiny_arguments.aux_vision_config | sizes,
        text_config=tiny_arguments.text_config | sizes,
        projector_hidden_size=projector_hidden_size,
    )
    new_checkpoint(arguments)
    processor = LiteGPTProcessor.from_pretrained(arguments.output_dir)
    inputs = processor(
        images=torch.rand(1, 40, 50), text=processor.prompt("vqa"), add_special_tokens=False, return_tensors="pt"
    )
    whole = auto.from_pretrained(arguments.output_dir).eval()
    loaded = auto.from_pretrained(
        arguments.output_dir, quantization_config=BitsAndBytesConfig(**{f"load_in_{bits}bit": True})
    )
    stored = {name: parameter.dtype for name, parameter in loaded.named_parameters()}
    quantized = {name for name, dtype in stored.items() if not dtype.is_floating_point}
    assert quantized and all("language_model.layers" in name for name in quantized)
    torch.testing.assert_close(loaded(**inputs).image_hidden_states, whole(**inputs).image_hidden_states)


def test_others_may_read_the_weights_as_they_may_read_the_configuration(model, tmp_path):
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    modes = {file.name: file.stat().st_mode for file in tmp_path.iterdir()}
    assert len(modes) > 3 and set(modes.values()) == {modes["config.json"]}


def test_a_transformers_that_is_newer_than_the_tested_ones_is_named(tiny_checkpoint, monkeypatch, caplog):
    library = logging.getLogger("transformers")
    monkeypatch.setattr(library, "propagate", True)
    LiteGPTForConditionalGeneration.from_pretrained(tiny_checkpoint)
    assert not caplog.records
    monkeypatch.setattr(modeling_litegpt, "TESTED_TRANSFORMERS", "5.3")
    LiteGPTForConditionalGeneration.from_pretrained(tiny_checkpoint)
    (record,) = caplog.records
    assert "was tested with transformers up to 5.3" in record.getMessage()


def test_the_tested_release_is_the_locked_one():
    lock = (ROOT / "requirements" / "main.txt").read_text(encoding="utf-8")
    newest = max(map(Version, re.findall(r"^transformers==([\d.]+)", lock, re.MULTILINE)))
    assert newest.release[:2] == Version(modeling_litegpt.TESTED_TRANSFORMERS).release


def test_a_torch_without_distributed_loads_the_model_and_trains_it(tiny_checkpoint, phantom_release):
    program = f"""
import torch
torch.distributed.is_available = lambda: False
sys_modules = __import__("sys").modules
sys_modules["torch.distributed.fsdp"] = None  # as an import of what is not there
from transformers import AutoModelForImageTextToText, AutoProcessor
model = AutoModelForImageTextToText.from_pretrained({str(tiny_checkpoint)!r}, trust_remote_code=True)
processor = AutoProcessor.from_pretrained({str(tiny_checkpoint)!r}, trust_remote_code=True)
radiograph = {str(next((phantom_release / "test").iterdir()))!r}
inputs = processor(images=radiograph, text=processor.prompt("vqa"), add_special_tokens=False, return_tensors="pt")
model(**inputs, labels=inputs["input_ids"], skip_logits=True).loss.backward()
print("trained", model.lm_head.weight.grad.norm() > 0)
"""
    command = [sys.executable, "-c", program]
    process = subprocess.run(command, capture_output=True, text=True, cwd=tiny_checkpoint.parent)
    assert process.stdout.split() == ["trained", "tensor(True)"], process.stderr[-2000:]


@pytest.mark.parametrize("modules_to_save", [None, ["multi_modal_projector"]])
def test_an_adapter_loads_with_peft_and_as_a_checkpoint(copy, inputs, tmp_path, modules_to_save):
    base = LiteGPTForConditionalGeneration.from_pretrained(copy)
    lora = LoraConfig(
        target_modules=LORA_TARGET_MODULES,
        modules_to_save=modules_to_save,
        init_lora_weights=False,
    )
    adapted = get_peft_model(base, lora).eval()
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.01)
    expected = adapted(**inputs).logits
    adapted.save_pretrained(tmp_path / "adapter")

    base = LiteGPTForConditionalGeneration.from_pretrained(copy)
    torch.testing.assert_close(PeftModel.from_pretrained(base, tmp_path / "adapter")(**inputs).logits, expected)
    try:
        loaded = load_as_a_stranger(tmp_path / "adapter")
    except ValueError as refusal:
        # transformers 5.17 does not load the modules that an adapter saves whole: refused, not left as they were.
        assert modules_to_save and "missing: model.multi_modal_projector.modules_to_save" in str(refusal)
    else:
        torch.testing.assert_close(loaded(**inputs).logits, expected)


def test_no_model_class_tells_an_engine_to_leave_out_a_tensor_of_a_checkpoint(tiny_checkpoint):
    """vLLM builds from the base class and drops, without a word, whatever this attribute matches."""
    keys = load_file(tiny_checkpoint / "model.safetensors")
    for model_class in (LiteGPTModel, LiteGPTForConditionalGeneration):
        patterns = model_class.from_pretrained(tiny_checkpoint)._keys_to_ignore_on_load_unexpected
        assert not [key for key in keys if any(re.search(pattern, key) for pattern in patterns)]
