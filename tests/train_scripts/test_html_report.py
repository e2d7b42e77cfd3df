import re
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from metrics.box_detection.box_detection import match
from tests.made_up_metrics import made_up_metrics
from train_scripts import html_report as module
from train_scripts.html_report import IOU, SHOWN, SHOWN_PER_LABEL, SIDE, Case, chosen, html_report, iou, row_cases
from train_scripts.report import Table, report_sections

VOID = {"meta", "br"}


class Page(HTMLParser):
    """Checks that tags are closed in order, and notes addresses, cells and text."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.cells: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        assert not any(name.startswith("on") for name, _ in attributes)
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data


@pytest.fixture(scope="module")
def labels(rows) -> dict[str, list[str]]:
    return {
        "finding": rows.features["findings"].feature["label"].names,
        "diagnosis": rows.features["diagnoses"].feature.names,
    }


@pytest.fixture(scope="module")
def predictions(rows, labels) -> list[dict]:
    """Of each radiograph with findings the first is answered as it is, the last one is missed, one is invented."""
    lines = []
    for row in rows.remove_columns("image"):
        findings = [
            {"label": labels["finding"][finding["label"]], "box": finding["box"], "score": 0.5}
            for finding in row["findings"][:-1]
        ]
        findings.append({"label": "Edema", "box": [0.0, 0.0, 0.125, 0.25], "score": 0.875})
        lines.append({"image_id": row["image_id"], "task": "identify", "findings": findings, "malformed": None})
        lines.append({"image_id": row["image_id"], "task": "vqa", "diagnoses": [], "malformed": None})
    return lines


@pytest.fixture(scope="module")
def text(rows, labels, predictions) -> str:
    return html_report(made_up_metrics(), predictions, rows, labels, "some/checkpoint", "some/data", "test")


def test_the_page_is_whole_and_needs_nothing_else(text):
    page = Page(text)
    assert "script" not in page.tags and "link" not in page.tags and "@import" not in text and "url(http" not in text
    assert all(address.startswith(("#", "data:image/jpeg;base64,")) for address in page.addresses)
    places = set(re.findall(r'id="([^"]+)"', text))
    assert all(address[1:] in places for address in page.addresses if address.startswith("#"))
    assert len(text) < 5e6


def test_the_tables_are_those_of_the_markdown_report(text):
    tables = [block for section in report_sections(made_up_metrics()) for block in section.blocks]
    tables = [block for block in tables if isinstance(block, Table)]
    cells = [cell.strip("`") for table in tables for row in (table.head, *table.rows) for cell in row]
    assert Page(text).cells == cells


@pytest.fixture
def without_plots(monkeypatch):
    """They take time."""
    monkeypatch.setattr(module, "_plots", lambda metrics, section: iter(()))


def test_words_of_others_are_not_taken_for_html(rows, labels, predictions, without_plots):
    metrics = made_up_metrics(name="<img src=x onerror=alert(1)>")
    label = '<script>"&'
    metrics["identify"]["classification"]["per_class"][label] = metrics["identify"]["classification"]["finding"]
    lines = [{**line, "findings": [*line["findings"]]} if "findings" in line else line for line in predictions]
    for line in lines[::2]:
        line["findings"].append({"label": label, "box": [0.0, 0.0, 0.5, 0.5], "score": 1.0})
    text = html_report(metrics, lines, rows, labels, "<b>model</b>", "{data}", "a'b`<i>")
    page = Page(text)
    assert not {"script", "img", "i"} & set(page.tags) and "&lt;b&gt;model&lt;/b&gt;" in text and "{data}" in text
    assert label in page.cells and "<b>&lt;script&gt;&quot;&amp;</b>" in text


def test_the_plots_stand_in_their_sections(text):
    captions = [unescape(caption) for caption in re.findall(r"<figcaption>([^<]*)</figcaption>", text)]
    assert [caption.split()[:3] for caption in captions] == [
        ["The", "headline", "figures"],
        ["Precision", "and", "recall"],
        ["FROC", "at", "IoU"],
        ["AUROC", "of", "each"],
        ["Boxes,", "[identify]:", "how"],
        ["Diagnoses,", "[vqa]:", "how"],
    ]


def test_what_has_no_figures_has_no_plot(rows, labels, predictions):
    metrics = made_up_metrics()
    metrics["auroc"] = dict.fromkeys(metrics["auroc"])
    metrics["vqa"]["reliability"] = metrics["identify"]["curves"] = None
    text = html_report(metrics, predictions, rows, labels, "some/checkpoint", "some/data", "test")
    assert re.findall(r"<figcaption>([^<]*)</figcaption>", text)[1:] == [
        "Boxes, [identify]: how often is true what a probability says. Grey: the share of each bin."
    ]


def test_diagnoses_alone_have_no_gallery(rows, labels, predictions, without_plots):
    lines = [line for line in predictions if line["task"] == "vqa"]
    text = html_report(made_up_metrics(tasks=("vqa",)), lines, rows, labels, "some/checkpoint", "some/data", "test")
    assert "<image" not in text and "gallery" not in text.partition("</style>")[2]
    Page(text)


def test_metrics_of_an_older_program_are_refused(rows, labels, predictions):
    metrics = made_up_metrics()
    del metrics["controls"]
    with pytest.raises(ValueError, match="older evaluate_litegpt.py"):
        html_report(metrics, predictions, rows, labels, "some/checkpoint", "some/data", "test")


def test_boxes_are_drawn_where_they_are():
    """On a radiograph that is twice as wide as high, so that x and y are not taken for each other."""
    row = {"image_id": "wide", "image": Image.new("L", (2 * SIDE, SIDE))}
    true = {"label": "ILD", "box": [0.5, 0.5, 1.0, 0.75]}
    answered = {"label": "ILD", "box": [0.25, 0.5, 1.0, 0.75], "score": 0.875}
    (case,) = row_cases(0, [true], [answered])
    figure = module._picture(case, row, [true, {"label": "Edema", "box": [0.0, 0.0, 0.125, 0.25]}], [answered])
    assert f'viewBox="0 0 {SIDE} {SIDE // 2}"' in figure
    assert '<rect class="true" x="240.0" y="120.0" width="240.0" height="60.0"><title>ILD</title>' in figure
    assert '<rect class="answered" x="120.0" y="120.0" width="360.0" height="60.0"><title>ILD</title>' in figure
    assert '<rect class="true other" x="0.0" y="0.0" width="60.0" height="60.0"><title>Edema</title>' in figure
    assert "<b>ILD</b><br>score 0.875, IoU 0.67<br><small>wide</small>" in figure


def test_right_missed_and_invented_boxes_are_shown(text, rows, predictions):
    """By the fixture's making: an invented box in each radiograph, a missed one in each that has findings."""
    counts = dict(re.findall(r"<h3>(\w+) boxes</h3>\n<p>\d+ of (\d+):", text))
    findings = [len(of_row) for of_row in rows["findings"]]
    assert int(counts["Right"]) == sum(findings) - sum(map(bool, findings)) > 0
    assert int(counts["Missed"]) == sum(map(bool, findings)) and int(counts["Invented"]) == len(rows)


def test_where_the_data_tells_no_boxes_none_is_invented(rows, labels, predictions):
    """Diagnoses without findings, as most of ChestX-ray14: the scores leave such radiographs out, too."""
    table = rows.select([0]).remove_columns("image").to_dict()
    table["findings"], table["diagnoses"] = [[]], [[0]]
    unknown = type(rows).from_dict(table, features=rows.remove_columns("image").features)
    assert "".join(module._gallery(predictions[:1], unknown, labels)).count("There are none.") == 3


def test_only_the_pictures_that_are_shown_are_read(rows, labels, predictions):
    read = []

    class Rows:
        def __getitem__(self, key):
            if key not in ("findings", "diagnoses"):
                read.append(key)
            return rows[key]

    parts = module._gallery([line for line in predictions if line["task"] == "identify"], Rows(), labels)
    shown = "".join(parts).count("<image ")
    assert len(read) == shown <= 3 * SHOWN


def random_boxes(rng, count, with_scores):
    for _ in range(count):
        x, y, width, height = rng.choice(np.arange(1, 9) / 16, 4)
        box = {"label": str(rng.choice(["Edema", "ILD"])), "box": [x, y, x + width, y + height]}
        yield {**box, "score": float(rng.random())} if with_scores else box


def test_right_and_invented_boxes_are_those_of_the_metric():
    rng = np.random.default_rng(0)
    truths = [list(random_boxes(rng, rng.integers(4), False)) for _ in range(200)]
    answers = [list(random_boxes(rng, rng.integers(5), True)) for _ in range(200)]
    cases = [case for row in range(200) for case in row_cases(row, truths[row], answers[row])]
    matches = match(answers, truths, IOU)
    expected = sorted(zip(matches.image.tolist(), matches.score.tolist(), matches.is_true.tolist(), strict=True))
    assert expected == sorted((case.row, case.score, case.kind == "right") for case in cases if case.kind != "missed")
    assert sum(case.kind == "missed" for case in cases) == len(matches.true_image) - matches.is_true.sum() > 0
    for case in cases:
        assert case.iou == (iou(case.true_box, case.answered_box) if case.true_box and case.answered_box else 0.0)
        assert (case.iou > IOU) == (case.kind == "right") or case.kind != "right"


def test_the_overlap_of_two_boxes():
    assert iou([0, 0, 0.5, 0.5], [0.25, 0, 0.75, 0.5]) == pytest.approx(1 / 3)
    assert iou([0, 0, 0.5, 0.5], [0.5, 0, 1, 1]) == 0 and iou([0.5, 0.5, 0, 0], [0, 0, 1, 1]) == 0


def case(kind, row, label, score=None) -> Case:
    return Case(kind, row, label, score, 0.0, None, None)


def test_the_highest_scores_are_shown_but_not_one_label_alone():
    often = [case("right", row, "Cardiomegaly", 0.9 - row / 100) for row in range(20)]
    rare = [case("right", 20 + row, label, 0.1) for row, label in enumerate(("ILD", "Edema", "ILD"))]
    shown = chosen(often + rare)
    assert len(shown) == SHOWN and shown == chosen(rare[::-1] + often[::-1])
    assert {one.label for one in shown} == {"Cardiomegaly", "ILD", "Edema"}
    assert [one.row for one in shown[:SHOWN_PER_LABEL]] == [0, 1]
    assert len(chosen(often)) == SHOWN


def test_missed_boxes_are_shown_of_as_many_labels_as_there_are():
    cases = [case("missed", row, label) for row, label in enumerate(["ILD"] * 10 + ["Edema"] * 3 + ["Emphysema"])]
    assert [one.label for one in chosen(cases)] == ["ILD", "Edema", "Emphysema", "ILD", "Edema", "ILD", "Edema", "ILD"]
