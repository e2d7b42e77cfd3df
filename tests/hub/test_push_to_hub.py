"""Pushing and loading by repository id, against `hub_stand_in.py`: a test double of the Hub, not the Hub."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from huggingface_hub import DatasetCard, ModelCard
from trl import ModelConfig

from litegpt.common.files import weights_sha256
from litegpt.datasets_scripts.preparation.prepare import prepare
from litegpt.datasets_scripts.rows import data_set_facts
from litegpt.datasets_scripts.vindr_cxr import read_release
from litegpt.evaluation_scripts import evaluate_litegpt
from litegpt.evaluation_scripts.arguments import EvaluationArguments
from litegpt.hub import push_to_hub
from litegpt.hub.arguments import PushArguments
from litegpt.hub.push_to_hub import contents
from litegpt.modeling_litegpt.adapters import add_adapter, save_adapter
from litegpt.modeling_litegpt.checkpoints import load_checkpoint, save_checkpoint
from litegpt.modeling_litegpt.model_card import add_training
from litegpt.modeling_towers.checkpoints import load_cxr_clip
from litegpt.modeling_towers.classifier_checkpoints import load_classifier
from litegpt.train_scripts import sft
from tests.hub_stand_in import HubStandIn
from tests.made_up_metrics import made_up_metrics
from tests.small_training import train
from tests.stranger import NOTHING_OF_OURS

PUSH = Path(push_to_hub.__file__).resolve()
REPOSITORY = str(PUSH.parents[1])

PUSHES = """
import json, sys

import torch
from datasets import load_dataset
from peft import PeftModel

from litegpt.modeling_litegpt.checkpoints import load_checkpoint, prepare_for_hub
from litegpt.hub.push_to_hub import PushArguments, main

folders = json.loads(sys.argv[1])
refusals = []

def refused(**arguments):
    try:
        main(PushArguments(**arguments))
    except SystemExit as error:
        refusals.append(str(error))

main(PushArguments(folders["checkpoint"], "acme/litegpt", metrics=folders["metrics"], tag="v1"))
main(PushArguments(folders["adapter"], "acme/adapter", base_model="acme/litegpt", tag="v1"))
main(PushArguments(folders["data_set"], "acme/phantoms", tag="v1"))
main(PushArguments(folders["cxr_clip"], "acme/cxr-clip"))
main(PushArguments(folders["classifier"], "acme/classifier"))
refused(folder=folders["checkpoint"], repo_id="acme/litegpt", tag="v1")
refused(folder=folders["data_set"], repo_id="acme/phantoms", private=True)
main(PushArguments(folders["data_set"], "acme/secret", private=True))

# What the libraries offer themselves.
model, processor = load_checkpoint(folders["checkpoint"])
prepare_for_hub(model, processor)
adapted = PeftModel.from_pretrained(model, folders["adapter"])
adapted.push_to_hub("acme/adapter")
model = adapted.unload()
torch.nn.init.zeros_(model.lm_head.weight)
model.push_to_hub("acme/litegpt")
processor.push_to_hub("acme/litegpt")
load_dataset(folders["data_set"], split="test").select(range(3)).push_to_hub("acme/phantoms", split="test")
print(json.dumps(refusals))
"""

STRANGER = (
    NOTHING_OF_OURS
    + """
import json
from datasets import load_dataset
from peft import PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline

radiograph = sys.argv[1]
v1 = {"trust_remote_code": True, "revision": "v1"}
results = {}

model = AutoModelForImageTextToText.from_pretrained("acme/litegpt", **v1)
processor = AutoProcessor.from_pretrained("acme/litegpt", **v1)
inputs = processor(images=radiograph, text=processor.prompt("vqa"), add_special_tokens=False, return_tensors="pt")
results["logits"] = model(**inputs).logits[0, -1].tolist()
adapted = PeftModel.from_pretrained(model, "acme/adapter", revision="v1").eval()
results["adapted logits"] = adapted(**inputs).logits[0, -1].tolist()

now = AutoModelForImageTextToText.from_pretrained("acme/litegpt", trust_remote_code=True)
results["largest logit now"] = now(**inputs).logits.abs().max().item()

findings = pipeline("chest-xray-findings", model="acme/litegpt", **v1)
results["findings"] = findings(radiograph, max_new_tokens=12)
zero_shot = pipeline("zero-shot-image-classification", model="acme/cxr-clip", trust_remote_code=True)
results["zero-shot"] = zero_shot(radiograph, candidate_labels=["edema", "a nodule"], negative_template="no {}")
classifier = pipeline("image-classification", model="acme/classifier", trust_remote_code=True)
results["classification"] = classifier(radiograph, return_boxes=True)

whole = load_dataset("acme/phantoms", revision="v1")
results["rows"] = {split: len(rows) for split, rows in whole.items()}
results["image_ids"] = whole["test"]["image_id"][:]
stream = load_dataset("acme/phantoms", revision="v1", split="test", streaming=True)
results["streamed"] = [[row["image_id"], list(row["image"].size)] for row in stream]
results["labels"] = whole["train"].features["findings"].feature["label"].names
results["rows now"] = {split: len(rows) for split, rows in load_dataset("acme/phantoms").items()}
print(json.dumps(results))
"""
)


def run(hub, home, command, cwd, import_path=REPOSITORY) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": import_path, **hub.environment(home)},
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )


def last_line(process) -> str:
    assert process.returncode == 0, process.stderr[-3000:]
    return process.stdout.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    with HubStandIn(tmp_path_factory.mktemp("hub")) as hub:
        yield hub


@pytest.fixture(scope="module")
def folders(
    tiny_checkpoint, tiny_cxr_clip, tiny_ecamp, tiny_classifier, phantom_release, tmp_path_factory
) -> dict[str, Path]:
    """A checkpoint with its metrics, an adapter with its merged checkpoint, other kinds, and a prepared data set."""
    folder = tmp_path_factory.mktemp("pushed")
    model, processor = load_checkpoint(tiny_checkpoint)
    options = ModelConfig(str(tiny_checkpoint), use_peft=True, lora_r=4, dtype="float32")
    model = add_adapter(model, sft.lora_config(options, processor))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    entry = {
        "program": "sft.py",
        "data_set": data_set_facts(str(phantom_release)),
        "radiographs": 24,
        "tasks": ["vqa"],
    }
    numbers = {"trained": "projector", "batch_size": 4, "learning_rate": 0.01, "seed": 0}
    add_training(model.config, {**entry, **numbers}, steps=4)
    save_adapter(model, processor, folder / "adapter")
    save_checkpoint(*load_checkpoint(folder / "adapter"), folder / "checkpoint")

    prepare(read_release(phantom_release), folder / "data_set")

    metrics = made_up_metrics(tasks=("vqa",))
    metrics["weights"] = weights_sha256(tiny_checkpoint)
    (folder / "metrics.json").write_text(json.dumps(metrics))
    paths = {"adapter": "adapter", "merged": "checkpoint", "data_set": "data_set", "metrics": "metrics.json"}
    whole = {"checkpoint": tiny_checkpoint, "cxr_clip": tiny_cxr_clip, "ecamp": tiny_ecamp}
    whole["classifier"] = tiny_classifier
    return {**whole, **{name: folder / path for name, path in paths.items()}}


@pytest.fixture(scope="module")
def refusals(hub, folders, tmp_path_factory) -> list[str]:
    """What the program refused while everything was pushed."""
    home = tmp_path_factory.mktemp("home")
    (home / "pushes.py").write_text(PUSHES)
    paths = json.dumps({name: str(path) for name, path in folders.items()})
    return json.loads(last_line(run(hub, home, [home / "pushes.py", paths], home)))


@pytest.fixture(scope="module")
def radiograph(phantom_release) -> Path:
    return sorted((phantom_release / "test").iterdir())[0]


@pytest.fixture(scope="module")
def stranger(hub, refusals, radiograph, tmp_path_factory) -> dict:
    """What a process gets that has an empty cache and nothing of this repository."""
    home = tmp_path_factory.mktemp("elsewhere")
    (home / "stranger.py").write_text(STRANGER)
    return json.loads(last_line(run(hub, home / "hf", ["stranger.py", radiograph], home, import_path="")))


def last_logits(checkpoint, radiograph) -> torch.Tensor:
    model, processor = load_checkpoint(checkpoint)
    inputs = processor(
        images=str(radiograph), text=processor.prompt("vqa"), add_special_tokens=False, return_tensors="pt"
    )
    return model.eval()(**inputs).logits[0, -1]


def test_a_checkpoint_and_its_pipeline_load_by_id(stranger, folders, radiograph):
    torch.testing.assert_close(torch.tensor(stranger["logits"]), last_logits(folders["checkpoint"], radiograph))
    assert set(stranger["findings"]) == {"findings", "diagnoses", "answers", "probabilities", "malformed", "warnings"}
    assert stranger["findings"]["answers"]["identify"]


def test_a_cxr_clip_and_its_pipeline_load_by_id_and_its_card_names_the_repository(hub, stranger, folders, radiograph):
    model, processor = load_cxr_clip(folders["cxr_clip"])
    with torch.no_grad():
        vectors = model(**processor(images=str(radiograph), text=["edema", "no edema", "a nodule", "no a nodule"]))
    expected = (vectors.image_embeds @ vectors.text_embeds.T).view(2, 2).softmax(dim=1)[:, 0].tolist()
    scores = {found["label"]: found["score"] for found in stranger["zero-shot"]}
    assert [scores["edema"], scores["a nodule"]] == pytest.approx(expected, abs=1e-5)
    files = hub.files("models", "acme/cxr-clip")
    card = ModelCard(files["README.md"].decode())
    assert 'model="acme/cxr-clip"' in card.text and card.data.pipeline_tag == "zero-shot-image-classification"
    pushed = {name for name in files if name != ".gitattributes"}
    assert pushed == {file.name for file in folders["cxr_clip"].iterdir()}


def test_a_classifier_and_its_pipeline_load_by_id_and_its_card_names_the_repository(
    hub, stranger, folders, radiograph
):
    model, processor = load_classifier(folders["classifier"])
    with torch.no_grad():
        logits = model.eval()(**processor(images=str(radiograph))).logits
    scores = {found["label"]: found["score"] for found in stranger["classification"]}
    assert [scores[label] for label in model.config.labels] == pytest.approx(logits[0].sigmoid().tolist(), abs=1e-5)
    likeliest = stranger["classification"][0]
    assert likeliest["score"] > 0.5 and set(likeliest["boxes"][0]["box"]) == {"xmin", "ymin", "xmax", "ymax"}
    files = hub.files("models", "acme/classifier")
    card = ModelCard(files["README.md"].decode())
    assert 'model="acme/classifier"' in card.text and card.data.pipeline_tag == "image-classification"
    pushed = {name for name in files if name != ".gitattributes"}
    assert pushed == {file.name for file in folders["classifier"].iterdir()}


def test_a_tag_keeps_the_weights_that_a_later_push_replaces(stranger):
    assert stranger["largest logit now"] == 0 and max(map(abs, stranger["logits"])) > 0.1


def test_an_adapter_loaded_by_id_gives_what_the_merged_checkpoint_gives(stranger, folders, radiograph):
    merged = last_logits(folders["merged"], radiograph)
    torch.testing.assert_close(torch.tensor(stranger["adapted logits"]), merged, atol=1e-4, rtol=1e-3)
    assert (merged - torch.tensor(stranger["logits"])).abs().max() > 0.01


def test_a_data_set_loads_and_streams_by_id(stranger, folders):
    assert stranger["rows"]["test"] == 8 and stranger["rows"]["train"] > 8
    assert [image_id for image_id, _ in stranger["streamed"]] == stranger["image_ids"]
    assert all(size == [128, 128] for _, size in stranger["streamed"])
    assert "Cardiomegaly" in stranger["labels"]
    assert stranger["rows now"] == {**stranger["rows"], "test": 3}


def test_the_cards_name_their_repository_and_state_the_figures(hub, refusals):
    card = ModelCard(hub.files("models", "acme/litegpt", "v1")["README.md"].decode())
    assert 'model="acme/litegpt"' in card.text
    assert "| [vqa] AUROC, mean of the labels | 0.750 | 0.688 to 0.812 | 0.250 |" in card.text
    assert card.data.model_name == "acme/litegpt" and len(card.data.eval_results) == 3
    files = hub.files("models", "acme/adapter", "v1")
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "acme/litegpt"
    assert ModelCard(files["README.md"].decode()).data.base_model == "acme/litegpt"
    assert "Phantoms in VinDr-CXR's layout" in files["README.md"].decode()
    assert 'load_dataset("acme/phantoms")' in hub.files("datasets", "acme/phantoms", "v1")["README.md"].decode()


@pytest.mark.parametrize("kind, name", [("models", "litegpt"), ("models", "adapter"), ("datasets", "phantoms")])
def test_the_libraries_own_push_to_hub_keeps_the_card(hub, refusals, kind, name):
    assert hub.repositories[kind, f"acme/{name}"].main != hub.repositories[kind, f"acme/{name}"].tags["v1"]
    parse = DatasetCard if kind == "datasets" else ModelCard
    before, after = (
        parse(hub.files(kind, f"acme/{name}", revision)["README.md"].decode()) for revision in ("v1", "main")
    )
    assert after.text.strip() == before.text.strip()
    of_data = {"dataset_info", "configs"}  # those name the new rows
    old, new = ({k: v for k, v in card.data.to_dict().items() if k not in of_data} for card in (before, after))
    assert new == old


def test_nothing_that_is_pushed_names_a_folder_of_this_computer(hub, refusals, folders):
    local = {str(path.parent) for path in folders.values()} | {"path/to/this", "path/to/the"}
    for (kind, repo_id), repository in hub.repositories.items():
        for path, content in hub.files(kind, repo_id, repository.tags.get("v1", "main")).items():
            assert not any(name.encode() in content for name in local), (repo_id, path)


def test_only_what_belongs_there_is_pushed_and_the_folder_stays_as_it_was(hub, refusals, folders):
    pushed = set(hub.files("datasets", "acme/secret")) - {".gitattributes"}
    tables = {"manifest.csv", "summary.csv", "duplicates.csv", "preparation.json", "README.md"}
    assert pushed == tables | {f"data/{path.name}" for path in (folders["data_set"] / "data").iterdir()}
    assert (folders["data_set"] / ".lock").exists() and "path/to/this/folder" in (
        folders["data_set"] / "README.md"
    ).read_text(encoding="utf-8")


def test_a_tag_in_use_and_a_public_repository_for_private_data_are_refused(hub, refusals):
    assert refusals == [
        "acme/litegpt has a tag v1 already; choose another one.",
        "acme/phantoms exists and is public; make it private or choose another name.",
    ]
    assert hub.repositories["datasets", "acme/secret"].private


def test_the_stand_in_was_asked_nothing_that_it_does_not_know(hub, stranger):
    assert not hub.unknown_requests


def test_a_push_that_is_killed_goes_on_and_sends_nothing_twice(hub, tiny_checkpoint, tmp_path):
    model, processor = load_checkpoint(tiny_checkpoint)
    save_checkpoint(model, processor, tmp_path / "sharded")
    (tmp_path / "sharded" / "model.safetensors").unlink()
    torch.nn.init.normal_(model.lm_head.weight)  # not the weights that were pushed in other tests
    model.save_pretrained(tmp_path / "sharded", max_shard_size="150KB")
    shards = sorted((tmp_path / "sharded").glob("*.safetensors"))
    sizes = {name: path.stat().st_size for path in shards for name in [digest_of(path)]}
    assert len(sizes) >= 3
    command = [PUSH, "--folder", tmp_path / "sharded", "--repo_id", "acme/sharded"]

    hub.stall_upload, start = 1, len(hub.uploads)
    environment = {**os.environ, "PYTHONPATH": REPOSITORY, **hub.environment(tmp_path / "home")}
    process = subprocess.Popen([sys.executable, *map(str, command)], env=environment, stderr=subprocess.DEVNULL)
    try:
        assert hub.stalled.wait(120)
    finally:
        process.kill()
        process.wait()
    hub.go_on.set()
    assert list(hub.files("models", "acme/sharded")) == [".gitattributes"]  # nothing of it is visible
    sent = [oid for oid, size in hub.uploads[start:] if size == sizes[oid]]
    assert len(sent) == 1

    last_line(run(hub, tmp_path / "home", command, tmp_path))
    resumed = dict(hub.uploads[start + 1 :])
    assert sent[0] not in resumed and sum(sizes.values()) == sizes[sent[0]] + sum(
        sizes[oid] for oid in resumed if resumed[oid] == sizes[oid]
    )
    files = hub.files("models", "acme/sharded")
    assert all(files[path.name] == path.read_bytes() for path in shards)

    # A later push of one file takes the shards away: a loader would otherwise find both.
    command[2] = tiny_checkpoint
    last_line(run(hub, tmp_path / "home", command, tmp_path))
    weights = [name for name in hub.files("models", "acme/sharded") if "safetensors" in name]
    assert weights == ["model.safetensors"]


def digest_of(path: Path) -> str:
    return weights_sha256(path.parent)[path.name]


# --- What is refused before anything is sent -------------------------------------------------------------------------


@pytest.fixture
def copy(folders, tmp_path):
    def copy_of(name: str) -> Path:
        return Path(shutil.copytree(folders[name], tmp_path / name))

    return copy_of


def refuses(folder, match, error=ValueError, **options) -> None:
    with pytest.raises(error, match=match):
        contents(PushArguments(str(folder), "acme/x", **options))


def test_a_folder_that_is_none_of_the_three_is_refused(tmp_path):
    refuses(tmp_path, "no checkpoint .* adapter or prepared data set")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    refuses(tmp_path, "model_type is 'llama', not 'litegpt' or 'cxr_clip' or 'ecamp' or 'radiograph_classifier'")


def test_weights_that_are_cut_off_or_missing_are_refused(copy):
    weights = copy("checkpoint") / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    refuses(weights.parent, "model.safetensors is damaged")
    weights.unlink()
    refuses(weights.parent, "has no model.safetensors", FileNotFoundError)
    (weights.parent / "model.safetensors.index.json").write_text(
        '{"weight_map": {"a": "model-00001-of-00002.safetensors"}}'
    )
    weights.write_bytes(whole)
    refuses(weights.parent, "has no model-00001-of-00002.safetensors", FileNotFoundError)


@pytest.mark.parametrize(
    "name, of_it",
    [
        ("checkpoint", ("modeling_litegpt.py", "chat_pipeline_litegpt.py")),
        ("cxr_clip", ("modeling_cxr_clip.py", "zero_shot_pipeline_cxr_clip.py", "processor_config.json")),
        ("ecamp", ("modeling_ecamp.py", "preprocessor_config.json")),
        ("classifier", ("modeling_classifier.py", "image_classification_pipeline.py", "processor_config.json")),
    ],
)
def test_a_checkpoint_without_its_code_or_card_is_refused(copy, name, of_it):
    folder = copy(name)
    for code in of_it:
        (folder / code).rename(folder / "elsewhere.txt")
        refuses(folder, f"has no {code}", FileNotFoundError)
        (folder / "elsewhere.txt").rename(folder / code)
    (folder / "README.md").unlink()
    refuses(folder, "has no README.md", FileNotFoundError)


def test_metrics_of_other_weights_are_refused(folders, tmp_path):
    refuses(folders["merged"], "measured on other weights", metrics=str(folders["metrics"]))
    refuses(folders["adapter"], "metrics are for a checkpoint", metrics=str(folders["metrics"]), base_model="a/b")
    (tmp_path / "old.json").write_text('{"finding_f1": 1.0}')
    refuses(folders["checkpoint"], "run evaluate_litegpt.py again", metrics=str(tmp_path / "old.json"))
    metrics = json.loads(folders["metrics"].read_text())
    del metrics["controls"]
    (tmp_path / "old.json").write_text(json.dumps(metrics))
    refuses(folders["checkpoint"], "old.json is of an older evaluate_litegpt.py", metrics=str(tmp_path / "old.json"))


def test_metrics_of_a_litegpt_do_not_go_into_the_card_of_a_cxr_clip(folders):
    refuses(folders["cxr_clip"], "metrics are for a LiteGPT, and .* a CXR-CLIP", metrics=str(folders["metrics"]))


def test_what_sft_trained_and_evaluate_measured_stands_in_the_cards(tiny_checkpoint, phantom_release, tmp_path):
    cache = str(tmp_path / "cache")
    lora = {"use_peft": True, "lora_r": 4}
    train(tmp_path, tiny_checkpoint, phantom_release, cache, lora, tasks=["vqa"], max_steps=1)
    evaluation = {"split": "test", "tasks": ["vqa"], "cache_dir": cache}
    evaluate_litegpt.main(
        EvaluationArguments(str(tmp_path / "checkpoint"), str(phantom_release), str(tmp_path), **evaluation)
    )
    arguments = PushArguments(str(tmp_path / "checkpoint"), "acme/x", metrics=str(tmp_path / "metrics.json"))
    card = contents(arguments)[1]
    trained = "projector, LoRA on the language model, its new tokens"
    row = f"| `sft.py` | Phantoms in VinDr-CXR's layout | `[vqa]` | {trained} |"
    assert row in card and "Phantoms in VinDr-CXR's layout, split `test`, 8 radiographs" in card
    assert ModelCard(card).data.eval_results[0].dataset_name == "Phantoms in VinDr-CXR's layout"
    of_adapter = contents(PushArguments(str(tmp_path / "adapter"), "acme/y", base_model="acme/x"))[1]
    assert row in of_adapter and str(tmp_path) not in of_adapter


def test_an_adapter_without_a_base_on_the_hub_is_refused(folders):
    refuses(folders["adapter"], "name the repository of its base")
    refuses(folders["checkpoint"], "base_model is for an adapter", base_model="a/b")


def test_an_adapter_inside_a_checkpoint_belongs_to_that_checkpoint(copy, folders):
    folder = copy("checkpoint")
    shutil.copytree(folders["adapter"], folder / "adapter")
    (folder / "optimizer.pt").write_bytes(b"a pickle")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "state.json").write_text("{}")
    files = contents(PushArguments(str(folder), "acme/x"))[2]
    assert json.loads(files["adapter/adapter_config.json"])["base_model_name_or_path"] == "acme/x"
    assert files["adapter/adapter_model.safetensors"] == folder / "adapter" / "adapter_model.safetensors"
    assert not {"optimizer.pt", ".cache/state.json", "README.md"} & set(files)


def test_a_data_set_that_is_not_whole_is_refused(copy):
    folder = copy("data_set")
    (folder / "README.md").rename(folder / "README")
    refuses(folder, "preparation was interrupted", FileNotFoundError)
    (folder / "README").rename(folder / "README.md")
    shard = next((folder / "data").glob("test-*"))
    shard.rename(folder / "gone")
    refuses(folder, "has 0 rows of test, where README.md states 8")
    shard.write_bytes((folder / "gone").read_bytes()[:-10])
    refuses(folder, "test-00000-of-00001.parquet is damaged")


def test_vindr_cxr_is_not_made_public(copy):
    folder = copy("data_set")
    card = (folder / "README.md").read_text(encoding="utf-8")
    licence = "license_name: physionet-credentialed-health-data-license-1.5.0"
    (folder / "README.md").write_text(card.replace("license_name: apache-license-2.0", licence), encoding="utf-8")
    refuses(folder, "forbids sharing it")
    assert contents(PushArguments(str(folder), "acme/x", private=True))[0] == "dataset"
    (folder / "README.md").write_text(card.replace("license_name: apache-license-2.0\n", ""), encoding="utf-8")
    refuses(folder, "under what licence", private=True)


def with_licence_and_column(folder: Path, licence: str, column: str, in_card: bool) -> None:
    """Writes a licence into the card, and a column into the card or into a shard."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "license_name: apache-license-2.0" in card and "  - name: view\n" in card
    card = card.replace("license_name: apache-license-2.0", f"license_name: {licence}")
    if in_card:
        card = card.replace("  - name: view\n", f"  - name: {column}\n    dtype: string\n  - name: view\n", 1)
    else:
        shard = next((folder / "data").glob("test-*"))
        table = pq.read_table(shard)
        pq.write_table(table.append_column(column, pa.nulls(len(table), pa.string())), shard)
    (folder / "README.md").write_text(card, encoding="utf-8")


@pytest.mark.parametrize("column", ["report_findings", "report_distilled", "phrase", "sentences", "qa", "chat"])
@pytest.mark.parametrize("in_card", [True, False])
@pytest.mark.parametrize("private", [True, False])
def test_reports_of_credentialed_data_never_travel(copy, column, in_card, private):
    folder = copy("data_set")
    with_licence_and_column(folder, "physionet-credentialed-health-data-license-1.5.0", column, in_card)
    refuses(folder, "holds reports under physionet-.*, not even to a private repository", private=private)


def test_what_stanford_lends_is_not_made_public_and_its_reports_never_travel(copy, folders, tmp_path):
    folder = copy("data_set")
    licence = "stanford-university-dataset-research-use-agreement"
    with_licence_and_column(folder, licence, "other", in_card=True)
    refuses(folder, "stanford-.*, which forbids sharing it")
    assert contents(PushArguments(str(folder), "acme/x", private=True))[0] == "dataset"
    with_reports = Path(shutil.copytree(folders["data_set"], tmp_path / "with_reports"))
    with_licence_and_column(with_reports, licence, "report_findings", in_card=False)
    refuses(with_reports, "not even to a private repository", private=True)


def test_reports_under_a_free_licence_travel(copy):
    folder = copy("data_set")
    with_licence_and_column(folder, "cc-by-4.0", "report_findings", in_card=True)
    assert contents(PushArguments(str(folder), "acme/x"))[0] == "dataset"


def test_changed_pictures_under_a_licence_without_derivatives_stay_private(copy):
    folder = copy("data_set")
    with_licence_and_column(folder, "cc-by-nc-nd-4.0", "report_findings", in_card=True)
    refuses(folder, "under cc-by-nc-nd-4.0, and its pictures were changed .* only be pushed with --private true")
    assert contents(PushArguments(str(folder), "acme/x", private=True))[0] == "dataset"


def test_the_program_ends_in_one_sentence(tmp_path):
    with pytest.raises(SystemExit, match=r"^\S+ is no checkpoint .*\.$"):
        push_to_hub.main(PushArguments(str(tmp_path), "acme/x"))
