import functools
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from litegpt.evaluation_scripts.reports import plots

CURVE = [[0.0, 1.0], [0.5, 0.8], [1.0, 0.4]]
BINS = [{"low": 0.0, "high": 0.5, "confidence": None, "frequency": None, "count": 0}]
BINS += [{"low": 0.5, "high": 1.0, "confidence": 0.75, "frequency": 0.5, "count": 3}]
SENSITIVITIES = {"0.125": 0.1, "1": 0.5, "8": None}
PLOTS = {
    "headline figures": lambda: plots.headline_figures(
        ["mAP of <em>x</em>", "FROC"], [0.5, None], [(0.4, 0.6), None], {"shuffled": [0.1, None], "black": [0.0, 0.0]}
    ),
    "precision-recall": lambda: plots.precision_recall(
        CURVE, {"Pleural effusion": (CURVE, 0.5), "ILD": (CURVE, None)}
    ),
    "precision-recall, nothing answered": lambda: plots.precision_recall([], {}),
    "froc": lambda: plots.froc([[0.1, 0.2], [3.0, 0.6]], SENSITIVITIES),
    "froc, nothing answered": lambda: plots.froc([], {}),
    "reliability": lambda: plots.reliability(BINS, BINS),
    "reliability, nothing answered": lambda: plots.reliability(BINS[:1], BINS[:1]),
    "auroc": lambda: plots.auroc({"Edema": 0.9, "ILD": 0.4, "COPD": None}, {"Edema": (0.8, 0.95), "ILD": None}),
}


@functools.cache
def plot(name: str) -> str:
    return PLOTS[name]()


@pytest.mark.parametrize("name", PLOTS)
def test_a_plot_is_the_same_every_time_and_has_the_pages_colours(name):
    svg = plot(name)
    assert svg == PLOTS[name]()
    assert ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg"  # well-formed, no prologue
    assert plots.NEUTRAL not in svg and "currentColor" in svg
    assert not re.search(r"fill: #(ffffff|000000)|<metadata|<dc:date", svg)


@pytest.mark.parametrize("name", PLOTS)
def test_a_plots_words_are_text(name):
    assert re.search(r"<text[ >]", plot(name)) and "DejaVuSans-" not in plot(name)  # no glyphs as shapes


def test_names_are_escaped():
    assert "mAP of &lt;em&gt;x&lt;/em&gt;" in plot("headline figures")


def test_two_plots_on_a_page_do_not_take_each_others_parts():
    """matplotlib numbers its groups alike in every file; what two plots both name must be the same in both."""
    parts: dict[str, str] = {}
    for name in PLOTS:
        for element in ElementTree.fromstring(plot(name)).iter():
            if "id" in element.attrib:
                text = ElementTree.tostring(element, encoding="unicode").strip()
                assert parts.setdefault(element.attrib["id"], text) == text
    assert parts and not any(re.fullmatch(r"(figure|axes|patch|line2d|text)_\d+", name) for name in parts)


@pytest.fixture
def drawn(monkeypatch) -> list[Figure]:
    """The figures that a test draws."""
    figures = []
    original = plots._svg
    monkeypatch.setattr(plots, "_svg", lambda figure: figures.append(figure) or original(figure))
    return figures


def test_froc_is_read_as_the_metric_reads_it(drawn):
    """The line passes through the sensitivities that `box_detection` states for the same curve."""
    from litegpt.metrics.boxes import froc_curve, froc_sensitivities, match

    rng = np.random.default_rng(0)
    truths = [[{"label": "a", "box": [0.1, 0.1, 0.5, 0.5]}] for _ in range(20)]
    shifts = rng.choice([0.0, 0.4], 60)
    boxes = [{"label": "a", "box": [0.1 + s, 0.1, 0.5 + s, 0.5], "score": rng.random()} for s in shifts]
    matches = match([boxes[3 * i : 3 * i + 3] for i in range(20)], truths, 0.4)
    points = np.transpose(froc_curve(matches, 20)[:2])
    expected = froc_sensitivities(matches, 20, (0.25, 1.0))
    plots.froc(points.tolist(), {"0.25": expected[0], "1": expected[1]})
    line, dots = drawn[0].axes[0].lines
    np.testing.assert_allclose(np.interp([0.25, 1.0], *line.get_data()), expected, atol=0.01)
    np.testing.assert_allclose(dots.get_ydata(), expected)
    assert drawn[0].axes[0].get_xscale() == "log" and list(dots.get_xdata()) == [0.25, 1.0]


def test_froc_starts_at_zero_and_is_drawn_as_far_as_it_was_measured(drawn):
    plots.froc([[1.0, 0.5]], {"0.5": 0.25, "1": 0.5, "2": 0.5})
    line, dots = drawn[0].axes[0].lines
    at, sensitivity = line.get_data()
    np.testing.assert_allclose(sensitivity, np.minimum(at, 1) / 2)
    assert at.max() == 1 and list(dots.get_xdata()) == [0.5, 1.0]
    assert [text.get_text() for text in drawn[0].axes[0].texts][0] == "no more boxes\nafter 1"
    plots.froc([[0.01, 0.5]], {"0.125": 0.5})  # it ends before the plot begins
    assert [len(one.get_xdata()) for one in drawn[1].axes[0].lines] == [0]


def test_reliability_leaves_out_empty_bins(drawn):
    plots.reliability(BINS, BINS)
    observed = next(line for line in drawn[0].axes[0].lines if line.get_label() == "observed")
    assert (list(observed.get_xdata()), list(observed.get_ydata())) == ([0.75], [0.5])


def test_bars_of_auroc_start_at_chance(drawn):
    plots.auroc({"Edema": 0.9, "ILD": 0.4}, {})
    bars = drawn[0].axes[0].patches
    assert [(bar.get_x(), round(bar.get_width(), 6)) for bar in bars] == [(0.5, 0.4), (0.5, -0.1)]
    assert drawn[0].axes[0].get_xlim()[0] < 0.4
