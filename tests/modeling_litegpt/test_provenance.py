import json

import pytest

from litegpt.modeling_litegpt.provenance import (
    PARTLY_SYNTHETIC,
    SYNTHETIC,
    UNKNOWN,
    UNTRAINED,
    provenance,
    recorded_config,
    short_name,
)

PHANTOMS, VINDR = "Phantoms in VinDr-CXR's layout", "VinDr-CXR"


def trained(name: str, *tasks: str) -> dict:
    return {"data_set": {"name": name}, "tasks": list(tasks), "radiographs": 9}


@pytest.mark.parametrize(
    ("config", "trained_on", "caution"),
    [
        ({"base_models": []}, [], UNTRAINED),
        ({"base_models": ["llama", "biomedclip"]}, [], UNTRAINED),
        ({"training_record": [trained(PHANTOMS)], "base_models": []}, [PHANTOMS], UNTRAINED),  # towers alone
        ({}, [], UNKNOWN),
        ({"training_record": [trained(PHANTOMS, "identify"), trained(PHANTOMS, "vqa")]}, [PHANTOMS], SYNTHETIC),
        ({"training_record": [trained(PHANTOMS), trained(VINDR, "identify")]}, [PHANTOMS, VINDR], None),
        ({"training_record": [trained(PHANTOMS, "vqa"), trained(VINDR, "vqa")]}, [PHANTOMS, VINDR], PARTLY_SYNTHETIC),
        ({"base_models": ["litegpt"]}, [VINDR], None),
    ],
)
def test_a_caution_says_what_the_answers_are_worth(config, trained_on, caution):
    line = provenance("acme/litegpt", config).line()
    assert line["trained_on"] == trained_on and line["caution"] == caution and line["not_for_diagnosis"] is True


def test_phantoms_are_recognised_by_the_name_that_their_data_set_gives_itself(phantom_release):
    from litegpt.datasets_scripts.rows import data_set_facts

    record = [{"data_set": data_set_facts(str(phantom_release)), "tasks": ["identify"]}]
    assert provenance("acme/litegpt", {"training_record": record}).caution == SYNTHETIC


def test_a_checkpoints_name_tells_no_path(tmp_path):
    (tmp_path / "demo" / "checkpoint").mkdir(parents=True)
    assert short_name(tmp_path / "demo" / "checkpoint") == "demo/checkpoint" and short_name("/") == ""
    assert short_name("acme/litegpt") == "acme/litegpt"


def test_the_caution_is_said_once_on_the_terminal(capsys):
    provenance("acme/litegpt", {"base_models": []}).warn()
    provenance("acme/litegpt", {"base_models": ["litegpt"]}).warn()
    assert capsys.readouterr().err == f"acme/litegpt: {UNTRAINED}.\n"


def test_an_adapters_training_is_its_own(tiny_checkpoint, tmp_path):
    assert recorded_config(tiny_checkpoint)["base_models"] == []
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    settings = {"peft_type": "LORA", "base_model_name_or_path": str(tiny_checkpoint)}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    assert provenance(adapter, recorded_config(adapter)).caution == UNTRAINED
    (adapter / "training_record.json").write_text(json.dumps([trained(VINDR, "identify")]))
    assert provenance(adapter, recorded_config(adapter)).trained_on == (VINDR,)


def test_the_name_of_a_checkpoint_in_somebodys_home_does_not_name_them(tmp_path, monkeypatch):
    home = tmp_path / "ann"
    (home / "checkpoint").mkdir(parents=True)
    (home / "demo" / "checkpoint").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    assert short_name(home / "checkpoint") == "checkpoint"
    assert short_name(home / "demo" / "checkpoint") == "demo/checkpoint"
