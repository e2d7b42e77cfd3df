import pytest
from PIL import Image

from litegpt.evaluation_scripts.reports.words import (
    CONTROLS,
    FIGURES,
    exceeds,
    figure_table,
    html_report,
    judged,
    nearest,
    verdict,
    write_report,
)
from litegpt.evaluation_scripts.word_questions import WordQuestion


def figure(value, **controls):
    """Controls by name: (control, lower bound of the difference)."""
    return {
        "value": value,
        "interval": None if value is None else [value - 0.1, value + 0.1],
        "controls": {
            name: {
                "control": control,
                "more": None if None in (value, control) else value - control,
                "interval": None if None in (value, control) else [lower, value - control + 0.1],
            }
            for name, (control, lower) in controls.items()
        },
    }


ABOVE = figure(0.8, shuffled=(0.3, 0.4), most_frequent=(0.6, 0.1))
NOT_ABOVE = figure(0.8, shuffled=(0.3, 0.4), most_frequent=(0.75, -0.01))
UNKNOWN = figure(None, shuffled=(0.3, 0.0))


def metrics(**changes):
    return {
        "tasks": {
            "refer": {
                "questions": 1234,
                "radiographs": 300,
                "malformed": 0,
                "prior": "train",
                "control_radiographs": 50,
                "figures": {
                    "balanced": ABOVE,
                    "no_box_correct": figure(0.9, none=(1.0, -0.2)),
                    "accuracy_at_iou.0.5": NOT_ABOVE,
                },
            },
            "question": {
                "questions": 10,
                "radiographs": 5,
                "malformed": 2,
                "prior": None,
                "control_radiographs": 5,
                "figures": {"closed_accuracy": ABOVE, "open_exact": UNKNOWN},
            },
        },
        "sentence_truth": {
            "task": "report",
            "truth": "facts",
            "calibration": {"slope": 1.0, "intercept": 0.0, "threshold": 0.75},
            "answered": {
                "sentences": 90,
                "true": 80,
                "images": 10,
                "without_probability": 3,
                "figures": {
                    "auroc": figure(0.8, another_image=(0.5, 0.2)),
                    "auroc_affirmed": figure(0.6, another_image=(0.5, -0.2)),
                    "auroc_denied": figure(None),
                    "doubtful_of_false": figure(0.6),
                },
            },
        },
        "template_words": True,
        "two_views": 0,
        "untrained": {},
        "data_set": {
            "name": "Phantoms",
            "license_name": None,
            "license_link": None,
            "split": "test",
            "radiographs": 300,
        },
        "weights": {"model.safetensors": "0123456789abcdef"},
        "run": {
            "checkpoint": "words/checkpoint",
            "trained_on": ["Phantoms"],
            "caution": "",
            "date": "2026-01-01",
            "litegpt": "0.1",
            "transformers": "5",
            "torch": "2",
            "python": "3.11",
        },
        "bootstrap": {"resamples": 1000, "seed": 0, "unit": "radiograph", "patients": None},
    } | changes


def test_a_figure_exceeds_only_where_it_is_above_every_control():
    assert exceeds(ABOVE) is True and exceeds(NOT_ABOVE) is False and exceeds(UNKNOWN) is None
    assert exceeds(figure(0.8)) is None
    name, control = nearest(NOT_ABOVE)
    assert name == "most_frequent" and control["control"] == 0.75
    assert nearest(UNKNOWN) is None


def test_what_a_constant_answer_has_by_itself_is_not_judged():
    figures = metrics()["tasks"]["refer"]["figures"]
    assert judged("refer", figures) == {"balanced": True, "accuracy_at_iou.0.5": False}
    assert "no_box_correct" in FIGURES["refer"] and all(
        not name.endswith(("precision", "recall"))
        for task, titles in FIGURES.items()
        if "report" in task
        for name in judged(task, dict.fromkeys(titles, ABOVE))
    )


def test_the_report_opens_with_what_exceeds_its_controls_and_what_does_not():
    text = write_report(metrics(), "words/checkpoint", "phantoms")
    first = text.split("\n\n")[1]
    assert first.startswith("**2 of 3 figures exceed every control") and "1 does not" in first
    assert "Acc@IoU 0.5 of present phrases 0.800 against 0.750 (the most frequent answer)" in text
    assert "**Not above every control**" in text and "2 answers cannot be read and count as wrong" in text
    assert "those of `train`" in text and "they know its answers" in text
    assert "below a probability of 0.750 is marked as doubtful" in text and "3 without a probability" in text
    assert "Above the controls: AUROC of all sentences 0.800 against 0.500 (believed of another image)." in text
    assert "**Not above the controls**: AUROC of sentences that affirm something 0.600 against 0.500" in text
    assert "template words, whose truth is known" in text and "Research software" in text
    assert verdict({"tasks": {}}).startswith("**Whether the answers follow the image cannot be told**")


def test_doubts_about_the_checkpoint_stand_on_top():
    doubtful = metrics(untrained={"refer": "..."}, two_views=7)
    doubtful["run"] = doubtful["run"] | {"caution": "trained on drawings"}
    text = write_report(doubtful, "a", "b")
    assert "never trained to answer `[refer]`: these answers mean nothing" in text
    assert "**Caution about this checkpoint**: trained on drawings." in text and "7 reports from two views" in text
    assert "Whether sentences are true" not in write_report(metrics(sentence_truth=None), "a", "b")


def test_a_table_has_a_column_a_control_and_dashes_for_what_is_unknown():
    table = figure_table({"closed_accuracy": ABOVE, "open_exact": UNKNOWN}, FIGURES["question"])
    assert table.head[3:5] == [CONTROLS["shuffled"], CONTROLS["most_frequent"]]
    closed, open_exact = table.rows
    assert closed[1:] == ["0.800", "0.700 to 0.900", "0.300", "0.600", "+0.200", "+0.100 to +0.300"]
    assert open_exact[1:] == ["-", "-", "0.300", "-", "-", "-"]
    assert all(len(row) == len(table.head) for row in table.rows)


@pytest.mark.parametrize("num_cases", [0, 1])
def test_the_page_stands_alone_and_escapes_what_is_asked_and_answered(num_cases):
    nasty = "<script>alert(1)</script>"
    asked = {"question": [WordQuestion(0, "question", nasty, "yes", True)]}
    reply = {"question": nasty, "text": nasty, "score": 0.5, "verified": False}
    lines = {(0, "question", nasty): {"answer": nasty, "replies": [reply], "malformed": None}}
    rows = [{"image_id": nasty, "image": Image.new("L", (600, 400))}]
    page = html_report(metrics(), asked, lines, rows, "a", "b", num_cases)
    assert (
        page.startswith("<!DOCTYPE html>")
        and "<script" not in page
        and "http" not in page.replace("http://www.w3", "")
    )
    assert ("&lt;script&gt;" in page) == (page.count('<article class="case">') == 1) == bool(num_cases)
