"""`litegpt localize` on drawn squares: figures of a model that sees, resuming, and what cannot be read."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from litegpt.datasets_scripts.rows import load_rows
from litegpt.evaluation_scripts import localize
from litegpt.evaluation_scripts.arguments import LocalizationArguments
from litegpt.modeling_litegpt.checkpoints import image_processor
from litegpt.modeling_towers.classifier_checkpoints import load_classifier, save_classifier
from tests.small_classifier import small_classifier, train
from tests.small_finetune import SIDE, entry, png, write_data, write_entries

SIZES = {"train": 160, "validation": 48, "test": 40}


@pytest.fixture(scope="module")
def squares(tmp_path_factory) -> str:
    return write_data(tmp_path_factory.mktemp("data") / "drawn squares", SIZES)


@pytest.fixture(scope="module")
def trained(squares, one_thread, tmp_path_factory) -> Path:
    """A classifier that was trained on labels alone."""
    folder = tmp_path_factory.mktemp("trained")
    options = {"labels": ["Mass", "Nodule"], "max_steps": 150, "eval_steps": 50, "save_steps": 50}
    train(folder, squares, cache_dir=str(folder / "rows"), **options)
    return folder / "checkpoint"


@pytest.fixture
def run(trained, squares, cache_dir, tmp_path, capsys):
    def in_folder(name: str = "out", **options) -> tuple[Path, int]:
        options = {"model_name_or_path": str(trained), "data_dir": squares, "min_positives": 3, **options}
        status = localize.main(LocalizationArguments(output_dir=str(tmp_path / name), cache_dir=cache_dir, **options))
        return tmp_path / name, status

    return in_folder


def metrics(output: Path) -> dict:
    return json.loads((output / "metrics.json").read_text())


def flat(values: dict, path: str = "") -> dict:
    """Numbers by their path."""
    found = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= flat(value, f"{path}/{key}")
        elif isinstance(value, (int, float)):
            found[f"{path}/{key}"] = value
    return found


def lines(output: Path, name: str = "predictions.jsonl") -> list[dict]:
    return [json.loads(line) for line in (output / name).read_text().splitlines()]


def test_a_model_that_learnt_labels_finds_the_squares_and_the_controls_do_not(run, capsys):
    output, status = run()
    found = metrics(output)
    figures = found["given_class"]["figures"]
    assert status == 0 and found["classification"]["figures"]["classifier"]["all"]["macro"] > 0.9
    assert figures["map"]["pointing_game"] > 0.7
    for control in ("another_image", "random_weights", "centre", "prior"):
        assert figures[control]["pointing_game"] < figures["map"]["pointing_game"] - 0.3
        assert figures[f"map_less_{control}"]["pointing_game"] > 0.3
    low, high = found["given_class"]["intervals"]["map"]["pointing_game"]
    assert low <= figures["map"]["pointing_game"] <= high
    assert found["data_set"]["with_boxes"] == 20 and found["localization"]["num_boxes"] == 20
    said = capsys.readouterr().out
    assert "40 radiographs, 20 with boxes" in said and "another image" in said and "random weights" in said
    report = (output / "report.md").read_text()
    assert "CheXNet" in report and "another image's map" in report
    assert found["prior"] == {"split": "train", "folds": None, "radiographs_with_boxes": 80}
    assert "most of its boxes lie in `train`" in report and "location prior, mean of the labels" in report


def test_only_labels_that_are_called_present_have_findings(run, trained):
    output, _ = run()
    present = load_classifier(trained)[0].config.present
    for line in lines(output):
        scores = {item["label"]: item["score"] for item in line["diagnoses"]}
        named = {finding["label"] for finding in line["findings"]}
        assert named == {label for label, score in scores.items() if score >= present[label]}
        for finding in line["findings"]:
            assert 0 < finding["score"] <= scores[finding["label"]]
    assert metrics(output)["present"] == pytest.approx(present)


def test_boxes_of_labels_that_the_radiograph_has_without_a_box_are_counted_apart(run, tmp_path):
    """Half of the squares of one label lose their box, not their label."""
    entries = {split: [entry(number, split) for number in range(count)] for split, count in SIZES.items()}
    bare = [one for one in entries["test"] if one["findings"] and one["findings"][0]["label"] == 0][::2]
    for one in bare:
        one["image_labels"] = [0]
        one["findings"] = [{"label": 1, "box": [0.0, 0.0, 0.2, 0.2], "readers": 1}]
    for split in entries.values():
        for one in split:
            one.setdefault("image_labels", [])
    data = write_entries(tmp_path / "bare", entries, ("patient_id", "image_labels"), diagnoses=["Mass", "No finding"])
    for one in entries["test"]:
        one["diagnoses"] = [0] if one in bare else one["diagnoses"]
    output, _ = run(data_dir=data)
    scores = metrics(output)["localization"]["per_class"]["Mass"]
    ids = {one["image_id"] for one in bare}
    expected = sum(
        finding["label"] == "Mass" for line in lines(output) if line["image_id"] in ids for finding in line["findings"]
    )
    assert expected and scores["ambiguous_false_positives"] == pytest.approx(expected / 20)
    assert scores["false_positives_at_iou"]["0.1"] >= scores["ambiguous_false_positives"]


def test_boxes_are_drawn_as_asked(run):
    output, _ = run(method="positive", box_rule="peak", box_thresholds=[110.0], random_weights=False)
    found = metrics(output)
    assert found["boxes"] == {"thresholds": [110.0], "rule": "peak"} and found["method"] == "positive"
    assert all(len(one["boxes"]) <= 1 for line in lines(output) for one in line["regions"].values())
    figures = found["given_class"]["figures"]["map"]
    assert (
        figures["accuracy_at_iou"] == figures["one_box_accuracy_at_iou"] and found["given_class"]["boxes_a_map"] <= 1
    )
    assert "the highest region above 110 of 255" in (output / "report.md").read_text()


def test_an_interrupted_run_goes_on_and_another_checkpoint_is_refused(run, tmp_path):
    output, _ = run("whole")
    expected = metrics(output)
    again = tmp_path / "half"
    again.mkdir()
    text = (output / "predictions.jsonl").read_text().splitlines(keepends=True)
    (again / "predictions.jsonl").write_text("".join(text[:7]) + text[7][:20])
    (again / "predictions.settings.json").write_bytes((output / "predictions.settings.json").read_bytes())
    output, _ = run("half")
    for key in ("classification", "localization", "given_class"):
        # Batches of another size may differ in the last bits.
        assert flat(metrics(output)[key]) == pytest.approx(flat(expected[key]), abs=1e-4)
    assert len(lines(output)) == 40 and (output / "predictions.jsonl").read_text().startswith("".join(text[:7]))
    model, processor = small_classifier()
    save_classifier(model, processor, tmp_path / "other")
    with pytest.raises(SystemExit, match="another checkpoint, split or data set"):
        run("half", model_name_or_path=str(tmp_path / "other"))


def test_a_radiograph_that_cannot_be_read_is_named_and_the_others_go_on(run, tmp_path, capsys):
    entries = {split: [entry(number, split) for number in range(count)] for split, count in SIZES.items()}
    entries["test"][4]["image"] = {"bytes": b"no picture", "path": None}
    output, status = run(data_dir=write_entries(tmp_path / "broken", entries))
    assert status == 1 and "testimage4: the picture can't be decoded" in capsys.readouterr().out
    assert list(metrics(output)["unread"]) == ["testimage4"] and len(lines(output)) == 40
    assert metrics(output)["localization"]["num_images"] == 19


def test_a_picture_that_is_too_large_to_decode_does_not_end_a_run(run, tmp_path, monkeypatch, capsys):
    entries = {split: [entry(number, split) for number in range(count)] for split, count in SIZES.items()}
    entries["test"][4]["image"] = {"bytes": png(np.zeros((2 * SIDE, 2 * SIDE), np.uint8)), "path": None}
    data = write_entries(tmp_path / "large", entries)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", SIDE**2)  # Pillow refuses more than twice as many
    output, status = run(data_dir=data, random_weights=False)
    assert status == 1 and "testimage4: the picture can't be decoded" in capsys.readouterr().out
    assert list(metrics(output)["unread"]) == ["testimage4"]


def test_a_split_of_which_nothing_can_be_read_is_refused(run, tmp_path):
    unreadable = {"image": {"bytes": b"no picture", "path": None}}
    data = write_entries(tmp_path / "broken", {"test": [entry(number, **unreadable) for number in range(3)]})
    with pytest.raises(SystemExit, match="no radiograph can be read; image0: the picture can't be decoded"):
        run(data_dir=data)


def test_labels_alone_are_ranked_and_get_regions_where_no_radiograph_has_a_box(run, tmp_path):
    entries = {split: [entry(n, split, findings=[]) for n in range(count)] for split, count in SIZES.items()}
    for split in entries.values():
        for number, one in enumerate(split):
            one["diagnoses"] = [0] if number % 4 == 0 else [1]
    data = write_entries(tmp_path / "labels", entries, diagnoses=["Mass", "No finding"])
    output, status = run(data_dir=data)
    found = metrics(output)
    assert status == 0 and "given_class" not in found
    assert found["classification"]["labels"] == ["Mass"]
    assert all("Mass" in line["regions"] for line in lines(output)[::4])


def test_a_litegpts_maps_are_scored_as_a_classifiers(run, tiny_checkpoint, phantom_release, cache_dir):
    output, status = run(
        model_name_or_path=str(tiny_checkpoint),
        data_dir=str(phantom_release),
        split="train",
        method="integrated",
        batch_size=4,
    )
    found = metrics(output)
    assert status == 0 and "classification" not in found and found["method"] == "integrated"
    figures = found["given_class"]["figures"]
    assert {"map", "another_image", "random_weights", "centre", "prior"} < figures.keys()
    rows = load_rows(str(phantom_release), "train", cache_dir)
    boxed = [image_id for image_id, boxes in zip(rows["image_id"][:], rows["findings"][:], strict=True) if boxes]
    assert [line["image_id"] for line in lines(output)] == boxed
    # The same model with its own weights drawn anew has another map.
    blind = {line["image_id"]: line["regions"] for line in lines(output, "random_weights.jsonl")}
    assert any(
        line["regions"][label]["peak"] != regions["peak"]
        for line in lines(output)
        for label, regions in blind[line["image_id"]].items()
    )


def test_what_has_no_maps_of_labels_is_refused(run, tmp_path, squares):
    from litegpt.modeling_towers.image_towers import new_image_tower, save_image_tower
    from tests.small_finetune import VIT

    save_image_tower(new_image_tower(VIT, image_processor(32)), tmp_path / "tower")
    for options, said in (
        ({"model_name_or_path": str(tmp_path / "tower")}, "a checkpoint of vit has no maps of labels"),
        ({"method": "attention"}, "--method attention: .* has cam, positive"),
    ):
        with pytest.raises(SystemExit, match=said):
            run(**options)


def test_another_radiograph_is_never_the_same_one():
    for cycle in localize.cycles_of(9, 5):
        assert sorted(cycle) == list(range(9)) and (cycle != np.arange(9)).all()
    assert localize.cycles_of(1, 5) == []
