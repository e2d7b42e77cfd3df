"""A checkpoint in a process and folder of its own, where nothing of this repository can be imported."""

import json
import os
import subprocess
import sys

import pytest
import torch

from litegpt.modeling_litegpt.checkpoints import load_checkpoint, save_checkpoint
from tests.stranger import NOTHING_OF_OURS

STRANGER = (
    NOTHING_OF_OURS
    + """
import json
import torch
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor, pipeline

checkpoint, again, *radiographs = sys.argv[1:]
remote = {"trust_remote_code": True}
results = {"classes": [type(AutoConfig.from_pretrained(checkpoint, **remote)).__name__,
                       type(AutoModel.from_pretrained(checkpoint, **remote)).__name__]}

def answers(folder, images):
    model = AutoModelForImageTextToText.from_pretrained(folder, **remote).eval()
    processor = AutoProcessor.from_pretrained(folder, **remote)
    prompts = [processor.prompt(task) for task in ("identify", "vqa")] * len(images)
    inputs = processor(images=[image for image in images for _ in range(2)], text=prompts, padding=True,
                       add_special_tokens=False, return_tensors="pt")
    tokens = model.generate(**inputs, max_new_tokens=16, do_sample=False)[:, inputs["input_ids"].shape[1]:]
    return model, processor, processor.batch_decode(tokens, skip_special_tokens=True)

model, processor, results["batch"] = answers(checkpoint, radiographs)
results["single"] = [text for image in radiographs for text in answers(checkpoint, [image])[2]]
model.save_pretrained(again)
processor.save_pretrained(again)
results["again"] = answers(again, radiographs)[2]

chat = pipeline("image-text-to-text", model=checkpoint, **remote)
content = [{"type": "image", "path": radiographs[0]},
           {"type": "text", "text": "[identify] " + processor.instructions["identify"]}]
output = chat(text=[{"role": "user", "content": content}], max_new_tokens=16, return_full_text=False,
              generate_kwargs={"do_sample": False})
results["chat"] = output[0]["generated_text"]
for name, folder in (("findings", checkpoint), ("findings_again", again)):
    ask = pipeline("chest-xray-findings", model=folder, **remote)
    results[name] = ask(radiographs, max_new_tokens=64, batch_size=3)
results["plain findings"] = ask(radiographs, max_new_tokens=16, batch_size=3, constrained=False)
print(json.dumps(results))
"""
)


@pytest.fixture(scope="module")
def stranger(tiny_checkpoint, phantom_release, tmp_path_factory) -> dict:
    """What a stranger gets from the tiny checkpoint for three DICOM files."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "stranger.py").write_text(STRANGER)
    radiographs = sorted(str(path) for path in (phantom_release / "test").iterdir())[:3]
    process = subprocess.run(
        [sys.executable, "stranger.py", str(tiny_checkpoint), str(folder / "again"), *radiographs],
        cwd=folder,
        env={**os.environ, "HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )
    assert process.returncode == 0, process.stderr[-3000:]
    return json.loads(process.stdout.strip().splitlines()[-1])


def test_auto_classes_load_it(stranger):
    assert stranger["classes"] == ["LiteGPTConfig", "LiteGPTModel"]


def test_answers_alone_equal_answers_in_a_padded_batch(stranger):
    assert stranger["single"] == stranger["batch"]
    assert len(set(stranger["batch"])) > 2


def test_saved_again_it_answers_the_same(stranger):
    assert stranger["again"] == stranger["batch"]
    assert stranger["findings_again"] == stranger["findings"]


def test_both_pipelines_give_the_models_answers(stranger):
    assert stranger["chat"].strip() == stranger["batch"][0].strip()
    assert [result["answers"] for result in stranger["plain findings"]] == [
        {"identify": identify, "vqa": vqa}
        for identify, vqa in zip(stranger["batch"][::2], stranger["batch"][1::2], strict=True)
    ]


def test_a_stranger_s_answers_are_constrained_and_scored(stranger):
    for result in stranger["findings"]:
        assert result["malformed"] == {"identify": None, "vqa": None}
        assert 0 < result["probabilities"]["vqa"]["COPD"] < 1 and result["diagnoses"][0]["score"] > 0


def test_it_brings_its_code_its_model_card_and_its_generation_settings(tiny_checkpoint):
    files = {path.name for path in tiny_checkpoint.iterdir()}
    code = {"configuration_litegpt.py", "modeling_litegpt.py", "processing_litegpt.py", "pipeline_litegpt.py"}
    assert code | {"answers.py", "dicom.py", "README.md", "model.safetensors", "chat_template.jinja"} <= files
    card = (tiny_checkpoint / "README.md").read_text()
    assert card.startswith("---\n") and "not a medical device" in card and "Cardiomegaly" in card
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    assert set(config["auto_map"]) >= {"AutoConfig", "AutoModel", "AutoModelForImageTextToText", "AutoProcessor"}
    assert "chest-xray-findings" in config["custom_pipelines"]


def test_an_interrupted_save_leaves_the_older_checkpoint(tiny_checkpoint, tmp_path, monkeypatch):
    model, processor = load_checkpoint(tiny_checkpoint)
    save_checkpoint(model, processor, tmp_path / "checkpoint")
    weights = (tmp_path / "checkpoint" / "model.safetensors").read_bytes()
    torch.nn.init.zeros_(model.lm_head.weight)
    monkeypatch.setattr(type(processor), "save_pretrained", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(model, processor, tmp_path / "checkpoint")
    assert (tmp_path / "checkpoint" / "model.safetensors").read_bytes() == weights
