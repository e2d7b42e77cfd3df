import json

from litegpt.benchmarks.scoring import LABELS, drawn_answers, main
from litegpt.processing.answers import text_to_diagnoses, text_to_findings


def test_the_answers_are_drawn_in_the_numbers_of_vindr_cxr_and_say_what_their_lines_do():
    rows, predictions, controls = drawn_answers(600)
    num_boxes = [len(row["findings"]) for row in rows]
    assert 0.6 < num_boxes.count(0) / 600 < 0.73 and set(num_boxes) == set(range(6))
    assert [line["image_id"] for line in predictions[::2]] == [row["image_id"] for row in rows]
    for line in predictions:
        if line["task"] == "identify":
            stated = [(item.label, list(item.box)) for item in text_to_findings(line["answer"], LABELS["finding"])]
            assert stated == [(item["label"], item["box"]) for item in line["findings"]]
        else:
            stated = [item.label for item in text_to_diagnoses(line["answer"], LABELS["diagnosis"])]
            assert stated == [item["label"] for item in line["diagnoses"]]
            assert line["probabilities"].keys() == set(LABELS["diagnosis"])
    assert len({line["answer"] for line in predictions}) > 100
    assert {name: len(lines) for name, lines in controls.items()} == {"noise": 16, "black": 2}


def test_the_seconds_are_recorded_with_what_was_asked_for(tmp_path, capsys):
    path = tmp_path / "bench.json"
    main(str(path), num_images=40)
    result = json.loads(path.read_text())["scoring/seconds_40"]
    assert 0 < result["value"] < 60 and result["unit"] == "s" and result["against"].startswith("20 s asked for")
    assert "40 radiographs: mAP@0.4 0." in capsys.readouterr().out
