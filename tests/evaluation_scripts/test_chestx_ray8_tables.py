"""ChestX-ray8's published figures held against each other, and finished runs put beside them."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

from litegpt.command import main as litegpt
from litegpt.evaluation_scripts.arguments import ChestXray8TablesArguments
from litegpt.evaluation_scripts.chestx_ray8_tables import collect, main, read_runs
from litegpt.evaluation_scripts.reports.chestx_ray8_figures import (
    AUROC,
    BOXES,
    CONTRADICTIONS,
    FINDINGS,
    GIVEN_CLASS,
    NUM_BOXES,
    NUM_IMAGES,
    OTHER_LABELS,
    SPLITS,
    TABLES,
    entries_that_are_no_whole_numbers,
    fewest_detections,
    ways_to_write,
)

# --- What the paper's tables say of themselves -----------------------------------------------------------------------


def entries(what: str, *numbers: int) -> list[tuple[str, float]]:
    """All ("accuracy", "false_positives") entries of tables with their class."""
    return [
        (label, printed)
        for number in numbers
        for values in getattr(TABLES[number], what).values()
        for label, printed in zip(FINDINGS, values, strict=True)
    ]


def ways(what: str, *numbers: int) -> Counter:
    return Counter(
        " or ".join(sorted(ways_to_write(printed, BOXES[label] if what == "accuracy" else NUM_BOXES)))
        for label, printed in entries(what, *numbers)
    )


def test_one_entry_alone_cannot_be_a_whole_number_of_boxes():
    """Over the class's boxes (Acc.), over 984 (AFP); rounded or cut after the fourth decimal."""
    assert entries_that_are_no_whole_numbers() == [("Table 7", "0.7", "Effusion", "AFP", 1.009, 992.9)]
    assert round(993 / NUM_BOXES, 3) == 1.009 and f"{993 / NUM_BOXES:.5f}" == "1.00915"
    assert len(entries("accuracy", *TABLES)) == len(entries("false_positives", *TABLES)) == 136


def test_no_other_number_of_images_gives_the_false_positives():
    fitting = {
        total: sum(bool(ways_to_write(printed, total)) for _, printed in entries("false_positives", *TABLES))
        for total in range(800, 1100)
    }
    assert fitting[NUM_BOXES] == 135 and fitting[983] == 21 and fitting[NUM_IMAGES] == 14
    assert max(count for total, count in fitting.items() if total != NUM_BOXES) < 60
    assert sum(bool(ways_to_write(printed, 200)) for _, printed in entries("accuracy", *TABLES)) == 15


def test_which_fourth_decimals_are_cut_and_which_rounded():
    assert ways("accuracy", 4, 7) == {"cut or rounded": 57, "cut": 39}
    assert ways("accuracy", 19) == {"cut or rounded": 28, "rounded": 9, "cut": 3}
    assert ways("false_positives", *TABLES) == {"cut or rounded": 67, "rounded": 52, "cut": 16, "": 1}
    cut = [(label, value) for label, value in entries("accuracy", 19) if ways_to_write(value, BOXES[label]) == {"cut"}]
    assert cut == [("Effusion", 0.6339), ("Mass", 0.3058), ("Effusion", 0.2287)]


@pytest.mark.parametrize(
    ("printed", "total", "expected"),
    [
        (0.7277, 180, {"cut"}),  # 131 / 180 = .72777...
        (0.2834, 180, set()),
        (0.2833, 180, {"cut", "rounded"}),
        (0.4353, 85, {"rounded"}),  # 37 / 85 = .43529
        (0, 79, {"cut", "rounded"}),
        (1, 146, {"cut", "rounded"}),
    ],
)
def test_how_a_whole_number_is_written(printed, total, expected):
    assert ways_to_write(printed, total) == expected


@pytest.mark.parametrize("number", TABLES)
def test_rows_fall_and_rise_as_thresholds_do(number):
    """A lost true box makes at least one detected box false, so found and false ones together never fall."""
    for label in FINDINGS:
        counts = list(TABLES[number].counts(label).values())
        for (found, false), (found_above, false_above) in zip(counts, counts[1:], strict=False):
            assert found >= found_above and false <= false_above
            assert found + false <= found_above + false_above


def test_iobb_forgives_what_iou_does_not():
    """IoBB is never below IoU: of the same boxes Table 4 finds as many as Table 7 at thresholds that are no higher."""
    for label in FINDINGS:
        for low, (found, false) in TABLES[4].counts(label).items():
            for high, (found_by_iou, false_by_iou) in TABLES[7].counts(label).items():
                if float(low) <= float(high):
                    assert found >= found_by_iou and false <= false_by_iou


def test_tables_4_and_7_do_not_agree_on_the_nodules_that_were_detected():
    found, false = TABLES[7].counts("Nodule")["0.7"]
    assert (found, false) == (0, 610)  # none is right, so these are all
    assert TABLES[4].counts("Nodule")["0.75"] == (1, 610) and fewest_detections(4)["Nodule"] == 611
    # No other class contradicts: where all detected boxes are false in Table 7, Table 4 needs no more.
    exact = {label: TABLES[7].counts(label)["0.7"] for label in FINDINGS}
    known = {label: false for label, (found, false) in exact.items() if not found}
    assert known == {"Infiltration": 754, "Mass": 711, "Nodule": 610}
    assert [label for label, false in known.items() if fewest_detections(4)[label] > false] == ["Nodule"]
    assert all(false < NUM_IMAGES for false in known.values())  # fewer than a box a heatmap


def test_cardiomegaly_has_more_than_three_right_boxes_a_true_one():
    assert fewest_detections(7)["Cardiomegaly"] == 848 and fewest_detections(4)["Cardiomegaly"] == 811
    assert TABLES[4].counts("Cardiomegaly")["0.1"] == (145, 345)
    assert round((848 - 345) / 145, 1) == 3.5 and round((811 - 345) / 145, 1) == 3.2
    over = set()
    for number, tables in ((4, (4, 7)), (7, (4, 7)), (19, (19,))):
        for label in FINDINGS:
            fewest = max(fewest_detections(table)[label] for table in tables)
            for found, false in TABLES[number].counts(label).values():
                if label != "Nodule" and fewest - false > 3 * found:
                    over.add(label)
    assert over == {"Cardiomegaly"}


def test_means_are_those_of_the_rows():
    means = {number: [round(table.mean_accuracy(t), 3) for t in table.accuracy] for number, table in TABLES.items()}
    assert means[4] == [0.629, 0.486, 0.330, 0.244, 0.209]
    assert means[7] == [0.568, 0.373, 0.221, 0.116, 0.062, 0.028, 0.010]
    assert means[19] == [0.681, 0.546, 0.408, 0.275, 0.208]
    assert sum(TABLES[7].counts(label)["0.1"][0] for label in FINDINGS) == 607
    official = AUROC["ChestX-ray14, official"]
    assert set(official) == {*FINDINGS, *OTHER_LABELS} and round(sum(official.values()) / 14, 3) == 0.745
    assert [len(values) for values in AUROC.values()] == [8, 8, 8, 8, 8, 14]
    assert GIVEN_CLASS["Wang 2017, ChestX-ray8"].iou[2] == TABLES[7].mean_accuracy("0.3")


def test_the_sentences_have_the_arithmetic_of_the_splits():
    text = " ".join(SPLITS)
    assert 86_524 + 25_596 == 78_468 + 11_219 + 22_433 == 112_120
    assert 28_008 + 2_797 == 21_528 + 3_090 + 6_187 == 30_805  # patients
    for said, value in {
        "77.2 and 22.8 %": [86_524 / 1_121.20, 25_596 / 1_121.20],
        "(70.0 / 10.0 / 20.0 %)": [count / 1_121.20 for count in (78_468, 11_219, 22_433)],
        "25,596 / 2,797 = 9.2": [25_596 / 2_797],
        "86,524 / 28,008 = 3.1": [86_524 / 28_008],
        "3.6 images a patient": [78_468 / 21_528],
        "32,717 patients, 3.3 each": [108_948 / 32_717],
        "607 of 984 = .617": [607 / 984],
    }.items():
        assert said in text and all(f"{number:.3f}".lstrip("0") in said or f"{number:.1f}" in said for number in value)
    assert {round(count / patients, 1) for count, patients in ((11_219, 3_090), (22_433, 6_187))} == {3.6}
    assert "606 of the 880 boxed images (69 %)" in text and round(606 / 8.80) == 69
    said = " ".join(CONTRADICTIONS)
    assert f"{' + '.join(map(str, BOXES.values()))} = {NUM_BOXES}" in said
    assert "754, 711 and 610" in said and "711 + 100 - 345 = 466" in said and "844 + 4 = 848" in said
    assert TABLES[4].counts("Atelectasis")["0.1"][0] == 131 and TABLES[4].counts("Cardiomegaly")["0.9"] == (100, 711)


# --- Finished runs beside them ---------------------------------------------------------------------------------------


def given_class(figure: float) -> dict:
    """Of one kind of maps."""
    return {"accuracy_at_iou": {"0.1": figure}, "accuracy_at_iobb": {"0.25": figure}, "pointing_game": figure}


@pytest.fixture
def metrics() -> dict:
    """What a finished `litegpt localize` writes, as far as the tables look at it; without random weights."""
    return {
        "model_name_or_path": "outputs/lse/checkpoint",
        "data_set": {"name": "ChestX-ray14"},
        "split": "test",
        "classification": {
            "labels": list(FINDINGS),
            "figures": {
                "classifier": {"all": {"macro": 0.7, "per_label": dict.fromkeys(FINDINGS, 0.7)}},
                "shuffled": {"all": {"macro": 0.5, "per_label": dict.fromkeys(FINDINGS, 0.5)}},
            },
            "intervals": {"classifier": {"all": {"macro": [0.6, 0.8], "per_label": {"Mass": [0.65, 0.75]}}}},
        },
        "localization": {
            "num_images": 880,
            "num_boxes": 984,
            "per_class": {
                **{label: {"num_boxes": count} for label, count in BOXES.items()},
                "Mass": {
                    "num_boxes": 85,
                    "num_detections": 99,
                    "accuracy_at_iou": {"0.1": 0.25},
                    "false_positives_at_iou": {"0.1": 0.125},
                    "accuracy_at_iobb": {"0.25": None},
                    "false_positives_at_iobb": {"0.25": 1.5},
                },
            },
        },
        "given_class": {
            "figures": {
                name: given_class(figure) for name, figure in (("map", 0.6), ("another_image", 0.4), ("centre", 0.3))
            },
            "intervals": {"map": {"accuracy_at_iou": {"0.1": [0.5, 0.7]}}},
        },
    }


def write_run(folder: Path, metrics: dict) -> Path:
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(metrics))
    return folder


def test_our_figures_stand_beside_the_papers(metrics, tmp_path, capsys):
    run = write_run(tmp_path / "localize", metrics)
    main(ChestXray8TablesArguments([f"lse={run}"], str(tmp_path)))
    tables = json.loads((tmp_path / "tables.json").read_text())
    assert tables["runs"]["lse"]["stands_beside_the_paper"]

    assert tables["auroc"]["paper"]["AlexNet"]["Mass"]["value"] == 0.5644
    ours = tables["auroc"]["ours"]
    assert ours["lse"]["Mass"] == {"value": 0.7, "interval": [0.65, 0.75]}
    assert ours["lse"]["mean of the eight"] == {"value": pytest.approx(0.7), "interval": [0.6, 0.8]}
    assert ours["lse"]["mean of the 14"] == ours["lse"]["Hernia"] == {"value": None, "interval": None}
    assert ours["lse, another image's"]["Mass"]["value"] == 0.5

    at_iou = tables["iou"]["0.1"]
    assert at_iou["paper"]["ChestX-ray8 (Table 7)"]["Mass"] == {"accuracy": 0.4, "false_positives": 0.6666}
    assert at_iou["ours"]["lse"]["Mass"] == {"accuracy": 0.25, "false_positives": 0.125}
    assert at_iou["ours"]["lse"]["mean accuracy"] is None  # the other classes are unknown
    assert list(tables["iobb"]["0.25"]["paper"]) == ["ChestX-ray8 (Table 4)", "ChestX-ray14 (Table 19)"]
    assert tables["iobb"]["0.25"]["ours"]["lse"]["Mass"] == {"accuracy": None, "false_positives": 1.5}

    given = tables["given_class"]["ours"]
    assert given["lse, map"]["IoU 0.1"] == {"value": 0.6, "interval": [0.5, 0.7]}
    assert given["lse, another image's map"]["IoBB 0.25"]["value"] == 0.4
    assert given["lse, centre prior"]["pointing game"]["value"] == 0.3
    assert given["lse, random weights"]["IoU 0.1"] == {"value": None, "interval": None}

    text = (tmp_path / "tables.md").read_text()
    assert text.strip() == capsys.readouterr().out.strip()
    assert "does not stand beside" not in text
    assert "| Mass | 0.5644 | 0.5363 |" in text and "| 0.700 (0.650 to 0.750) | 0.500 |" in text
    assert "| 0.1 | ChestX-ray8 (Table 7) | 0.6888 / 0.8943 |" in text and "| 0.250 / 0.125 |" in text
    assert "| lse, map | 0.600 (0.500 to 0.700) | - |" in text
    assert "| 984 boxes, 8 classes, 880 images of ChestX-ray14 |" in text
    assert "| PCAN, 2022 | 0.78 | 0.57 | 0.36 | 0.21 | 0.10 | - |" in text  # as many decimals as printed
    assert "| 0.10 | 0.685 | 0.550 | 0.376 | 0.54 |" in text
    assert all(sentence in text for sentence in (*SPLITS, *CONTRADICTIONS))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("split",), "test[:100]"),
        (("data_set", "name"), "VinDr-CXR"),
        (("localization", "per_class", "Nodule", "num_boxes"), 27),
    ],
)
def test_runs_over_other_boxes_are_said_not_to_compare(path, value, metrics, tmp_path, capsys):
    part = metrics
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    main(ChestXray8TablesArguments([f"lse={write_run(tmp_path / 'localize', metrics)}"], str(tmp_path)))
    assert "**lse does not stand beside the paper's boxes**" in capsys.readouterr().out


def test_every_table_is_as_wide_as_its_head(metrics, tmp_path, capsys):
    run = write_run(tmp_path / "localize", metrics)
    litegpt(["chestx-ray8-tables", "--runs", f"one={run}", f"AlexNet={run}", "--output_dir", str(tmp_path)])
    text = capsys.readouterr().out
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) == 6 and all(len({line.count("|") for line in table.splitlines()}) == 1 for table in tables)
    assert "| AlexNet, map | 0.600" in text  # a run may have the name of a row of the paper


def test_a_run_with_nothing_but_maps_is_all_dashes_elsewhere():
    given = {"figures": {"map": given_class(0.5)}, "per_class": {"Nodule": {"num_boxes": 4}, "Mass": {"num_boxes": 3}}}
    tables = collect({"bare": {"given_class": given, "data_set": {"name": "VinDr-CXR", "with_boxes": 6}}})
    assert tables["given_class"]["ours"]["bare, map"]["remark"] == "7 boxes, 2 classes, 6 images of VinDr-CXR"
    assert all(figure["value"] is None for figure in tables["auroc"]["ours"]["bare"].values())
    assert tables["iou"]["0.5"]["ours"]["bare"]["Nodule"] == {"accuracy": None, "false_positives": None}
    assert not tables["runs"]["bare"]["stands_beside_the_paper"]
    assert collect({})["auroc"]["ours"] == {}


@pytest.mark.parametrize(
    ("runs", "problem"),
    [
        (["localize"], "--runs localize: it is not ROW=FOLDER."),
        (["=localize"], "--runs =localize: it is not ROW=FOLDER."),
        (["a=localize", "a=localize"], "--runs a=localize: there are two rows a."),
        (["a=nowhere"], "--runs a=nowhere: there is no nowhere/metrics.json."),
        (["a=other"], "other/metrics.json has no given_class, so it is not of litegpt localize."),
        (["a=broken"], "broken/metrics.json cannot be read as JSON."),
    ],
)
def test_runs_that_are_none_are_refused(runs, problem, metrics, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_run(Path("localize"), metrics)
    write_run(Path("other"), {"controls": {}})
    write_run(Path("broken"), {})
    Path("broken/metrics.json").write_text('{"given_class": ')
    with pytest.raises(ValueError, match=re.escape(problem)):
        read_runs(runs)
    with pytest.raises(SystemExit, match=re.escape(problem)):
        main(ChestXray8TablesArguments(runs, "out"))
    assert not Path("out").exists()
