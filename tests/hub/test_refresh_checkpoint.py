"""An older checkpoint gets today's code and answers as before; its weights stay; on the Hub one commit does it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from litegpt.hub import refresh_checkpoint
from litegpt.hub.arguments import RefreshArguments
from litegpt.hub.refresh_checkpoint import code_files, main, refreshed_files
from litegpt.modeling_litegpt.adapters import LORA_TARGET_MODULES, add_adapter, save_adapter
from litegpt.modeling_litegpt.checkpoints import load_checkpoint
from litegpt.processing.answers import FINDINGS_PREFIX
from tests.hub_stand_in import HubStandIn
from tests.stranger import NOTHING_OF_OURS

ROOT = str(Path(refresh_checkpoint.__file__).resolve().parents[1])
STRANGER = f"""
import sys
{NOTHING_OF_OURS}
from transformers import AutoModelForImageTextToText, AutoProcessor
checkpoint, radiograph = sys.argv[1:]
model = AutoModelForImageTextToText.from_pretrained(checkpoint, trust_remote_code=True)
processor = AutoProcessor.from_pretrained(checkpoint, trust_remote_code=True)
inputs = processor(images=radiograph, text=processor.prompt("identify"), return_tensors="pt")
tokens = model.generate(**inputs, custom_generate=processor.constrained_greedy())[0, inputs["input_ids"].shape[1]:]
print(processor.decode(tokens, skip_special_tokens=True))
"""


@pytest.fixture
def older(tiny_checkpoint, tmp_path) -> Path:
    """A checkpoint whose code is of another time: it does not run, and lacks a file that came later."""
    folder = Path(shutil.copytree(tiny_checkpoint, tmp_path / "older"))
    code = folder / "modeling_litegpt.py"
    code.write_text(code.read_text().replace("import torch\n", "import torch\nfrom transformers import Gone\n", 1))
    (folder / "chat_pipeline_litegpt.py").unlink()
    change(folder / "config.json", custom_pipelines={})
    (folder / "generation_config.json").write_text('{"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 415}')
    (folder / "notes.py").write_text("mine = True\n")
    return folder


def change(file: Path, **values) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def answer(checkpoint: str, radiograph: Path, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess:
    (tmp_path / "stranger.py").write_text(STRANGER)
    return subprocess.run(
        [sys.executable, "stranger.py", checkpoint, str(radiograph)],
        cwd=tmp_path,
        env={**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1", **environment},
        capture_output=True,
        text=True,
    )


def test_an_older_checkpoint_loads_again_with_its_own_weights(
    older, tiny_checkpoint, phantom_release, tmp_path, capsys
):
    radiograph = next((phantom_release / "test").iterdir())
    assert "Gone" in answer(str(older), radiograph, tmp_path).stderr
    before = contents(older)
    main(RefreshArguments(folder=str(older)))
    after = contents(older)
    assert "modeling_litegpt.py" in capsys.readouterr().out
    for name in ("model.safetensors", "tokenizer.json", "processor_config.json", "README.md", "notes.py"):
        assert after[name] == before[name], name
    assert json.loads(after["generation_config.json"])["max_new_tokens"] == 512
    assert not [name for name in after if name.endswith(".incomplete")]
    code = {name for name in after if name.endswith(".py")} - {"notes.py"}
    assert code == {file.name for file in tiny_checkpoint.glob("*.py")} == {file.name for file in code_files()}
    result = answer(str(older), radiograph, tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.startswith(FINDINGS_PREFIX)
    assert result.stdout == answer(str(tiny_checkpoint), radiograph, tmp_path).stdout

    main(RefreshArguments(folder=str(older)))
    assert "the code is today's already" in capsys.readouterr().out
    assert contents(older) == after


def test_a_chat_template_that_would_change_the_prompts_tokens_stays(older, capsys):
    template = older / "chat_template.jinja"
    template.write_text(template.read_text().replace("[INST] ", "[INST]  "))
    assert "chat_template.jinja" not in refreshed_files(older)
    assert "The chat template stays" in capsys.readouterr().out
    template.write_text(template.read_text().replace("[INST]  ", "[INST] ") + "{# of another time #}")
    assert "chat_template.jinja" in refreshed_files(older)


def test_an_adapter_gets_the_processors_code(older, tiny_checkpoint, tmp_path):
    from peft import LoraConfig

    model, processor = load_checkpoint(tiny_checkpoint)
    adapter = tmp_path / "adapter"
    save_adapter(add_adapter(model, LoraConfig(target_modules=LORA_TARGET_MODULES)), processor, adapter)
    (adapter / "processing_litegpt.py").write_text("raise RuntimeError\n")
    before = contents(adapter)
    assert before["adapter_model.safetensors"] and refreshed_files(adapter).keys() == {"processing_litegpt.py"}
    main(RefreshArguments(folder=str(adapter)))
    assert refreshed_files(adapter) == {}


def test_an_older_ecamp_gets_its_own_code_and_has_no_processor_of_ours(tiny_ecamp, tmp_path):
    older = Path(shutil.copytree(tiny_ecamp, tmp_path / "older"))
    (older / "modeling_ecamp.py").write_text("raise RuntimeError\n")
    (older / "checked_model.py").unlink()
    change(older / "config.json", auto_map={})
    main(RefreshArguments(folder=str(older)))
    after, wanted = contents(older), contents(tiny_ecamp)
    assert after.keys() == wanted.keys()
    assert json.loads(after["config.json"]) == json.loads(wanted["config.json"])
    assert all(after[name] == wanted[name] for name in wanted if name != "config.json")


def test_an_older_cxr_clip_gets_its_own_code_and_pipeline_and_nothing_of_a_litegpt(tiny_cxr_clip, tmp_path, capsys):
    older = Path(shutil.copytree(tiny_cxr_clip, tmp_path / "older"))
    (older / "modeling_cxr_clip.py").write_text("raise RuntimeError\n")
    (older / "zero_shot_pipeline_cxr_clip.py").unlink()
    change(older / "config.json", auto_map={}, custom_pipelines={})
    change(older / "processor_config.json", auto_map={})
    template = b"{# a text tower's own #}"
    (older / "chat_template.jinja").write_bytes(template)
    main(RefreshArguments(folder=str(older)))
    assert "modeling_cxr_clip.py" in capsys.readouterr().out
    after, wanted = contents(older), {**contents(tiny_cxr_clip), "chat_template.jinja": template}
    assert after.keys() == wanted.keys() and "generation_config.json" not in after
    for name in wanted:
        if name in ("config.json", "processor_config.json"):
            assert json.loads(after[name]) == json.loads(wanted[name]), name
        else:
            assert after[name] == wanted[name], name
    code = {name for name in after if name.endswith(".py")}
    assert code == {file.name for file in code_files("cxr_clip")}
    assert {"tower_network.py", "processing_radiograph.py"} <= code
    assert refreshed_files(older) == {}


def test_an_older_classifier_gets_its_own_code_and_pipeline(tiny_classifier, tmp_path):
    older = Path(shutil.copytree(tiny_classifier, tmp_path / "older"))
    (older / "modeling_classifier.py").write_text("raise RuntimeError\n")
    for name in ("tower_network.py", "processing_radiograph.py", "map_boxes.py"):
        (older / name).unlink()
    change(older / "config.json", auto_map={}, custom_pipelines={})
    change(older / "processor_config.json", auto_map={})
    main(RefreshArguments(folder=str(older)))
    after, wanted = contents(older), contents(tiny_classifier)
    assert after.keys() == wanted.keys()
    for name in wanted:
        if name in ("config.json", "processor_config.json"):
            assert json.loads(after[name]) == json.loads(wanted[name]), name
        else:
            assert after[name] == wanted[name], name
    code = {name for name in after if name.endswith(".py")}
    assert code == {file.name for file in code_files("radiograph_classifier")}
    assert refreshed_files(older) == {}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        (
            "config.json",
            '{"model_type": "llava"}',
            "no LiteGPT or CXR-CLIP or ECAMP or radiograph classifier .* another model_type",
        ),
        ("config.json", '{"model_type": "cxr_clip"}', "a processor of another kind, LiteGPTProcessor"),
        ("config.json", "{", "config.json is no JSON"),
        ("processor_config.json", None, "it has no processor_config.json"),
        ("processor_config.json", '{"processor_class": "LlavaProcessor"}', "a processor of another kind"),
    ],
)
def test_what_is_no_checkpoint_is_refused_and_left_as_it_is(older, name, content, reason):
    (older / name).unlink() if content is None else (older / name).write_text(content)
    before = contents(older)
    with pytest.raises(SystemExit, match=reason):
        main(RefreshArguments(folder=str(older)))
    assert contents(older) == before


def test_a_folder_or_a_repository_is_asked_for():
    for arguments in (RefreshArguments(), RefreshArguments(folder="a", repo_id="b/c")):
        with pytest.raises(SystemExit, match="either --folder or --repo_id"):
            main(arguments)


PUSHES = """
import sys
from litegpt.hub import push_to_hub, refresh_checkpoint
push_to_hub.main(push_to_hub.PushArguments(sys.argv[1], "acme/litegpt"))
for _ in range(2):
    refresh_checkpoint.main(refresh_checkpoint.RefreshArguments(repo_id="acme/litegpt"))
try:
    refresh_checkpoint.main(refresh_checkpoint.RefreshArguments(repo_id="acme/nothing"))
except SystemExit as error:
    print("refused:", error)
"""


def test_a_repository_on_the_hub_is_refreshed_in_one_commit_and_its_weights_are_not_moved(
    older, phantom_release, tmp_path
):
    (tmp_path / "hub").mkdir()
    with HubStandIn(tmp_path / "hub") as hub:
        environment = {**os.environ, **hub.environment(tmp_path / "home"), "PYTHONPATH": ROOT}
        command = [sys.executable, "-c", PUSHES, str(older)]
        process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr[-3000:]
        lines = [line for line in process.stdout.splitlines() if line.startswith(("acme", "refused"))]
        assert "modeling_litegpt.py" in lines[0] and lines[1].endswith("the code is today's already")
        assert lines[2].startswith("refused: acme/nothing: ")
        assert len([upload for upload in hub.uploads if upload]) == 1  # the push's weights
        radiograph = next((phantom_release / "test").iterdir())
        stranger = answer("acme/litegpt", radiograph, tmp_path, **hub.environment(tmp_path / "other home"))
        assert stranger.returncode == 0, stranger.stderr[-3000:]
        assert stranger.stdout.startswith(FINDINGS_PREFIX)
