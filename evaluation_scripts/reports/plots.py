"""Figures of `metrics.json` -> the plots of a report, as SVG.

    auroc({"Edema": 0.9, "ILD": 0.75}, {"Edema": (0.8, 0.95)})  # "<svg ...>...</svg>"

In: figures in [0, 1], by label where there are several. Out: an element to put inside an HTML page: its background is
transparent, its words are text, and what is neutral (words, axes) has the page's own text colour, so that it reads on
light and dark. The same figures give the same text.
"""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from litegpt.metrics.boxes import FALSE_POSITIVES

NEUTRAL = "#010203"  # stands for the page's text colour until the SVG is written
BLUE, ORANGE, GREEN, PURPLE = "#3987d6", "#e07b39", "#1f9e77", "#a869c9"  # legible on white and on black
RED = "#d6455d"
CONTROL_STYLES = {"shuffled": ("o", ORANGE), "noise": ("s", GREEN), "black": ("D", PURPLE), "prior": ("^", RED)}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "litegpt",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.alpha": 0.15,
    "legend.frameon": False,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color"), NEUTRAL
    ),
}
WIDTH = 5.2  # inches; the page scales the picture to its own width, down to 0.9 of it on a phone
LAYOUT = "tight"  # "constrained" gives now and then another last digit


@matplotlib.rc_context(STYLE)
def headline_figures(
    names: Sequence[str],
    values: Sequence[float | None],
    intervals: Sequence[Sequence[float] | None],
    controls: Mapping[str, Sequence[float | None]],
) -> str:
    """A line for each figure: the value with its interval, and what the controls reach.

    Args:
        names: of the figures.
        values: in [0, 1]; None leaves the point out, as among the controls.
        intervals: (low, high) or None.
        controls: a value for each figure, by the control's name, a key of `CONTROL_STYLES`.
    """
    height = 0.8 + 0.4 * len(names)
    figure, axes = _panel(height)
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - 0.25 / height))  # the legend stands above
    lines = np.arange(len(names))
    for name, reached in controls.items():
        marker, colour = CONTROL_STYLES[name]
        points = _as_floats(reached)
        axes.plot(points, lines, marker, color=colour, markersize=5, fillstyle="none", label=name)
    for line, interval in zip(lines, intervals, strict=True):
        if interval is not None:
            axes.plot(interval, [line, line], color=BLUE, linewidth=3, alpha=0.45, solid_capstyle="butt")
    axes.plot(_as_floats(values), lines, "o", color=BLUE, markersize=6, label="this checkpoint")
    # Above their lines: beside them they would take half of a phone's width.
    for line, name in zip(lines, names, strict=True):
        axes.text(0, line - 0.28, name, va="bottom", fontsize=8.5)
    axes.set(xlim=(-0.02, 1.02), ylim=(len(names) - 0.4, -0.9), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.grid(axis="y", visible=False)
    figure.legend(loc="upper center", ncols=1 + len(controls), handletextpad=0.1, columnspacing=0.8, fontsize=8)
    return _svg(figure)


@matplotlib.rc_context(STYLE)
def precision_recall(pooled: Sequence[Sequence[float]], labels: Mapping[str, tuple[Any, float | None]]) -> str:
    """The curve of all boxes together, and small ones of single labels.

    Args:
        pooled: (points, 2), recall and precision by rising recall.
        labels: {label: (its curve in the same form, its average precision)}, at most eight.
    """
    figure = Figure(figsize=(WIDTH, 5.2), layout=LAYOUT)
    grid = figure.add_gridspec(3, 4, height_ratios=(1.7, 1, 1))
    axes = figure.add_subplot(grid[0, :])
    _curve(axes, pooled)
    axes.set(title="All findings together", xlabel="recall", ylabel="precision")
    panels = [figure.add_subplot(grid[1 + row, column]) for row in range(2) for column in range(4)]
    for axes, (label, (curve, average)) in zip(panels, labels.items(), strict=False):
        _curve(axes, curve)
        axes.set_title(_wrapped(label) + ("" if average is None else f"\nAP {average:.2f}"), fontsize=8)
    for place, axes in enumerate(panels):
        axes.tick_params(labelsize=8, labelleft=place % 4 == 0, labelbottom=place >= 4)
    for axes in panels[len(labels) :]:
        axes.set_axis_off()
    return _svg(figure)


@matplotlib.rc_context(STYLE)
def froc(curve: Sequence[Sequence[float]], sensitivities: Mapping[str, float | None]) -> str:
    """Sensitivity of the boxes against false boxes an image, as far as it was measured.

    Args:
        curve: (points, 2), false positives an image and sensitivity; after its last point there are no more boxes.
        sensitivities: {false positives an image, as text: sensitivity}, the points at which FROC is read; those after
            the curve's last point are left out.
    """
    figure, axes = _panel(2.8)
    points = np.asarray([(0, 0), *curve], float)
    low, high = FALSE_POSITIVES[0] / 2, FALSE_POSITIVES[-1] * 1.4
    # Straight lines between the points, from (0, 0), as the sensitivities are read.
    end = min(points[-1, 0], high)
    if end > low:
        at = np.geomspace(low, end, 400)
        axes.plot(at, np.interp(at, *points.T), color=BLUE, linewidth=1.8)
    if 0 < end < high:
        axes.vlines(max(end, low), 0, 1.08, color=NEUTRAL, linewidth=0.8, linestyle=":")
        words = f"no more boxes\nafter {end:.2g}"
        if end > 1:  # else they would leave the plot
            axes.annotate(words, (end, 0.04), (-5, 0), textcoords="offset points", ha="right", fontsize=8)
        else:
            axes.annotate(words, (max(end, low), 0.04), (5, 0), textcoords="offset points", fontsize=8)
    read = [(float(at), value) for at, value in sensitivities.items() if value is not None and float(at) <= end]
    for at, value in read:
        axes.annotate(f"{value:.2f}", (at, value), (0, 6), textcoords="offset points", ha="center", fontsize=8)
    axes.plot([at for at, _ in read], [value for _, value in read], "o", color=BLUE, markersize=5)
    axes.set_xscale("log")
    axes.set_xticks(FALSE_POSITIVES, ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
    axes.minorticks_off()
    axes.set(xlim=(low, high), ylim=(0, 1.08), xlabel="false boxes an image", ylabel="sensitivity")
    return _svg(figure)


@matplotlib.rc_context(STYLE)
def reliability(before: Sequence[Mapping[str, float | None]], after: Sequence[Mapping[str, float | None]]) -> str:
    """How often is true what a probability says, before and after calibration.

    Args:
        before, after: bins as `metrics.probabilities.reliability` gives them; `count` may be 0.
    """
    figure = Figure(figsize=(WIDTH, 3.4), layout=LAYOUT)
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - 0.25 / 3.4))  # the legend stands above
    for axes, bins, title in zip(
        figure.subplots(1, 2, sharey=True), (before, after), ("before", "after"), strict=True
    ):
        filled = [one for one in bins if one["count"]]
        total = sum(one["count"] for one in filled)
        widths = [one["high"] - one["low"] for one in filled]
        shares = [one["count"] / total for one in filled]
        axes.bar(
            [one["low"] for one in filled],
            shares,
            widths,
            align="edge",
            color=NEUTRAL,
            alpha=0.12,
            label="share of the probabilities",
        )
        axes.plot([0, 1], [0, 1], color=NEUTRAL, linewidth=0.8, linestyle="--", alpha=0.6, label="calibrated")
        axes.plot(
            [one["confidence"] for one in filled],
            [one["frequency"] for one in filled],
            "o-",
            color=BLUE,
            linewidth=1.5,
            markersize=5,
            clip_on=False,
            label="observed",
        )
        axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="probability", title=f"{title} calibration")
    figure.axes[0].set_ylabel("how often true")
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="upper center", ncols=3)
    return _svg(figure)


@matplotlib.rc_context(STYLE)
def auroc(values: Mapping[str, float | None], intervals: Mapping[str, Sequence[float] | None]) -> str:
    """A bar for each label from 0.5, which is chance; with its interval where `intervals` has one."""
    figure, axes = _panel(0.6 + 0.27 * len(values))
    lines = np.arange(len(values))
    heights = _as_floats(list(values.values()))
    axes.barh(lines, heights - 0.5, left=0.5, height=0.6, color=BLUE, alpha=0.75)
    for line, (label, value) in zip(lines, values.items(), strict=True):
        interval = intervals.get(label)
        if interval is not None:
            axes.plot(interval, [line, line], color=NEUTRAL, linewidth=1.5)
        text = "no figure" if value is None else f"{value:.3f}"
        axes.text(1.02, line, text, va="center", fontsize=8)
    axes.axvline(0.5, color=NEUTRAL, linewidth=0.8)
    lowest = np.nanmin(heights, initial=0.5)
    axes.set(xlim=(min(0.4, lowest - 0.05), 1), ylim=(len(values) - 0.5, -0.5), xlabel="AUROC")
    axes.set_yticks(lines, list(values))
    axes.grid(axis="y", visible=False)
    return _svg(figure)


def _panel(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout=LAYOUT)
    return figure, figure.subplots()


def _curve(axes: Axes, points: Sequence[Sequence[float]]) -> None:
    recall, precision = np.asarray(points, float).reshape(-1, 2).T
    axes.plot(recall, precision, color=BLUE, linewidth=1.6)
    axes.fill_between(recall, precision, color=BLUE, alpha=0.12, linewidth=0)
    axes.set(xlim=(0, 1.02), ylim=(0, 1.04), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))


def _as_floats(values: Sequence[float | None]) -> np.ndarray:
    return np.array([np.nan if value is None else value for value in values], float)


def _wrapped(label: str) -> str:
    """A long label in two lines."""
    return label.replace(" ", "\n", 1) if len(label) > 14 else label


def _svg(figure: Figure) -> str:
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = file.getvalue()
    text = text[text.index("<svg") :].replace(NEUTRAL, "currentColor")
    # A page holds several plots: only the names that a plot itself refers to are kept.
    referred = set(re.findall(r'(?:url\(|href=")#([^)"]+)', text))
    return re.sub(r' id="([^"]+)"', lambda match: match[0] if match[1] in referred else "", text)
