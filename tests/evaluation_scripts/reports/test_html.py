import re
from html import unescape
from html.parser import HTMLParser

import pytest
from jinja2 import UndefinedError

from litegpt.common.templates import template
from litegpt.evaluation_scripts.questions import label_names
from litegpt.evaluation_scripts.reports import html as module
from litegpt.evaluation_scripts.reports.html import html_report
from litegpt.evaluation_scripts.reports.sections import Table, report_sections
from litegpt.processing.tasks import DIAGNOSES, TASKS, Task
from tests.made_up_metrics import made_up_metrics

VOID = {"meta", "br"}


class Page(HTMLParser):
    """Checks that tags are closed in order, and notes addresses, cells and text."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.cells: list[str] = []
        self.tags: list[str] = []
        self.text = ""
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
        self.text += data
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data


@pytest.fixture(scope="module")
def labels(rows) -> dict[str, list[str]]:
    return label_names(rows)


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
        shared = {"image_id": row["image_id"], "malformed": None}
        lines.append({**shared, "task": "identify", "answer": "Local diseases: <p>Edema</p>.", "findings": findings})
        lines.append({**shared, "task": "vqa", "answer": "Global diseases: none.", "diagnoses": []})
    return lines


@pytest.fixture(scope="module")
def text(rows, predictions) -> str:
    return html_report(made_up_metrics(), predictions, rows, "some/checkpoint", "some/data")


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


def test_words_of_others_are_not_taken_for_html(rows, predictions, without_plots):
    metrics = made_up_metrics(name="<img src=x onerror=alert(1)>")
    metrics["data_set"]["split"] = "a'b`<i>"
    label = '<script>"&'
    metrics["identify"]["classification"]["per_class"][label] = metrics["identify"]["classification"]["finding"]
    lines = [{**line, "findings": [*line["findings"]]} if "findings" in line else line for line in predictions]
    for line in lines[::2]:
        line["findings"].append({"label": label, "box": [0.0, 0.0, 0.5, 0.5], "score": 1.0})
    text = html_report(metrics, lines, rows, "<b>model</b>", "{data}")
    page = Page(text)
    assert not {"script", "img", "i"} & set(page.tags) and "&lt;b&gt;model&lt;/b&gt;" in text and "{data}" in text
    assert label in page.cells and "<b>&lt;script&gt;&#34;&amp;</b>" in text


@pytest.mark.parametrize("name", ["a|b", "a & b", "a < b", "<br>", '"quoted"', "it's", "&lt;"])
def test_labels_paths_and_image_names_are_shown_as_they_are(name, rows, predictions, without_plots):
    metrics = made_up_metrics(name=name)
    for task in ("identify", "vqa"):
        scores = metrics[task]["classification"]
        scores["per_class"][name] = scores["finding"]
    lines = [{**line, "image_id": name} for line in predictions]
    renamed = rows.map(lambda row: {"image_id": name})
    page = Page(html_report(metrics, lines, renamed, name, f"data/{name}"))
    assert f"Checkpoint {name}; {name} (data/{name}), split test" in page.text
    assert page.cells.count(name) == 2 and f"IoU 0.00{name}" in page.text
    assert page.tags.count("br") == 2 * page.tags.count("image") > 0


def test_the_plots_captions_are_escaped_in_their_attributes_too(rows, predictions, monkeypatch):
    plot = module.Plot("<svg><title/></svg>", 'a "<b>" & c')
    monkeypatch.setattr(module, "_plots", lambda metrics, section: iter([plot]))
    text = html_report(made_up_metrics(tasks=("vqa",)), predictions, rows, "some/checkpoint", "some/data")
    assert '<svg role="img" aria-label="a &#34;&lt;b&gt;&#34; &amp; c"><title/></svg>' in text
    assert plot.caption in Page(text).text


def test_what_the_page_is_not_given_is_an_error_and_no_gap():
    page = template(module.__file__, "report.html.jinja")
    with pytest.raises(UndefinedError, match="'inline' is undefined"):
        page.render()
    with pytest.raises(UndefinedError, match="'sections' is undefined"):
        page.render(inline=module.inline, introduction="")


def test_a_new_task_has_its_sections_and_plots(rows, predictions, monkeypatch):
    monkeypatch.setitem(TASKS, "triage", Task("triage", DIAGNOSES, "What is it?"))
    drawn = []
    plots = module._plots

    def captions(metrics, section):
        drawn.extend((section.name, plot.caption) for plot in plots(metrics, section))
        return iter(())

    monkeypatch.setattr(module, "_plots", captions)
    metrics = made_up_metrics(tasks=("triage",))
    text = html_report(metrics, predictions, rows, "some/checkpoint", "some/data")
    assert [name for name, _ in drawn] == ["headlines", "triage-labels", "calibration"]
    assert drawn[-1][1].startswith("Diagnoses, [triage]: how often")
    assert Page(text).cells and '<section id="triage-others">' in text and "vqa" not in text


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


def test_what_has_no_figures_has_no_plot(rows, predictions):
    metrics = made_up_metrics()
    metrics["auroc"] = dict.fromkeys(metrics["auroc"])
    metrics["vqa"]["reliability"] = metrics["identify"]["curves"] = None
    text = html_report(metrics, predictions, rows, "some/checkpoint", "some/data")
    assert re.findall(r"<figcaption>([^<]*)</figcaption>", text)[1:] == [
        "Boxes, [identify]: how often is true what a probability says. Grey: the share of each bin."
    ]


def test_diagnoses_have_a_gallery_without_boxes(rows, predictions, without_plots):
    lines = [line for line in predictions if line["task"] == "vqa"]
    text = html_report(made_up_metrics(tasks=("vqa",)), lines, rows, "some/checkpoint", "some/data")
    gallery = text.partition('<section id="vqa-gallery">')[2].partition("</section>")[0]
    assert "<image" in gallery and "<rect" not in gallery and "IoU" not in gallery
    assert "Missed diagnoses" in gallery and "Global diseases: none." in gallery
    Page(text)


def test_the_page_opens_with_the_verdict(text):
    body = text.partition("<body>")[2]
    assert re.search(r"<h1>[^<]*</h1>\n<p class=\"verdict\"><b>The answers follow the image in 12 of 12 figures", body)


def test_on_a_phone_each_number_stands_with_its_heading(text):
    """There the head of a table is not shown: each row is a card, on which a cell has its heading."""
    row = text.partition("<td")[0].rpartition("<tr>")[2] + "<td" + text.partition("<td")[2].partition("</tr>")[0]
    assert re.findall(r'data-head="([^"]*)"', row) == [
        "figure",
        "value",
        "95 % interval",
        "shuffled",
        "noise",
        "black",
        "prior",
    ]


def test_an_answer_is_shown_whole_and_escaped(text):
    assert "<b>Answer</b> Local diseases: &lt;p&gt;Edema&lt;/p&gt;." in text
    assert "<b>True</b> Local diseases of this chest radiograph are &lt;p&gt;" in text


def test_metrics_of_an_older_program_are_refused(rows, predictions):
    metrics = made_up_metrics()
    del metrics["controls"]
    with pytest.raises(ValueError, match="older evaluate_litegpt.py"):
        html_report(metrics, predictions, rows, "some/checkpoint", "some/data")


def test_right_missed_and_invented_boxes_are_shown(text, rows, predictions):
    """By the fixture's making: an invented box in each radiograph, a missed one in each that has findings."""
    counts = dict(re.findall(r"<h3>(\w+) boxes</h3>\n<p>\d+ of (\d+):", text))
    findings = [len(boxes) for boxes in rows["findings"]]
    assert int(counts["Right"]) == sum(findings) - sum(map(bool, findings)) > 0
    assert int(counts["Missed"]) == sum(map(bool, findings)) and int(counts["Invented"]) == len(rows)
