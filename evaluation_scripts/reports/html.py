"""`metrics.json` and the answers -> one HTML file: the sections of `sections.py`, plots, and radiographs with boxes.

    html_report(metrics, predictions, rows, "demo/checkpoint", "phantoms")

In: what `evaluate_litegpt.py` computed, and the rows it asked about. Out: the page's text, which `report.html.jinja`
lays out. It needs nothing else: no network, no scripts. It reads on light and dark, and prints.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from datasets import Dataset
from markupsafe import Markup, escape

from litegpt.common.templates import template
from litegpt.evaluation_scripts.figures import RIGHT
from litegpt.evaluation_scripts.questions import label_names
from litegpt.evaluation_scripts.reports.gallery import IOU, AnswerMaps, Group, diagnosis_gallery, gallery
from litegpt.evaluation_scripts.reports.sections import (
    Section,
    Table,
    asked_tasks,
    at,
    headlines,
    introduction,
    plain_name,
    report_sections,
    shown_controls,
    top_figures,
)
from litegpt.processing.tasks import Task

LABELS_WITH_CURVES = 8


class Plot(NamedTuple):
    """`svg` is an element of SVG, `caption` what it shows."""

    svg: str
    caption: str


class PageSection(NamedTuple):
    """A section as the page has it: its blocks, then its plots, then the gallery's groups, then `html`.

    `right_above` is the IoU above which the gallery's boxes are right; None where it has none.
    """

    name: str
    title: str
    blocks: Sequence[str | Table] = ()
    plots: Sequence[Plot] = ()
    groups: Sequence[Group] = ()
    right_above: float | None = None
    html: Markup = Markup()


def html_report(
    metrics: dict[str, Any],
    predictions: list[dict[str, Any]],
    rows: Dataset,
    model: str,
    data: str,
    maps: AnswerMaps | None = None,
) -> str:
    """The report as one HTML file, whatever stands in labels and names.

    Args:
        metrics: `metrics.json`.
        predictions: lines of the predictions file, for each task one a row, in the rows' order.
        rows: of the contract's schema; pictures are read for those shown alone.
        model, data: the names of what was evaluated on what.
        maps: of the findings that are named on radiographs of the gallery; None: there are none.

    Raises:
        ValueError: the metrics are of an older `evaluate_litegpt.py`.
    """
    sections = []
    for section in report_sections(metrics):
        plots = list(_plots(metrics, section))
        sections.append(PageSection(section.name, section.title, section.blocks, plots))
        task = section.task
        if section.topic == "labels":
            task_lines = [line for line in predictions if line["task"] == task.name]
            sections.append(_gallery_section(task, task_lines, rows, maps))
    return template(__file__, "report.html.jinja").render(
        introduction=introduction(metrics, model, data),
        sections=sections,
        inline=inline,
        plain=lambda text: re.sub(r"[`*]", "", text),
        word_columns=word_columns,
        has_maps=any(picture.maps for one in sections for group in one.groups for picture in group.pictures),
    )


def _gallery_section(
    task: Task, predictions: list[dict[str, Any]], rows: Dataset, maps: AnswerMaps | None
) -> PageSection:
    """Some radiographs with the answers to a task, right and wrong ones."""
    groups: Iterator[Group] = iter(())
    if predictions and task.kind.has_boxes:
        groups = gallery(predictions, rows, label_names(rows), maps)
    elif predictions:
        groups = diagnosis_gallery(predictions, rows, label_names(rows))
    return PageSection(
        f"{task.name}-gallery",
        f"{plain_name(task)}: some cases",
        groups=list(groups),
        right_above=IOU if task.kind.has_boxes else None,
    )


def inline(text: str) -> Markup:
    """A paragraph's Markdown, which is `code` and **bold** alone, as HTML."""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", text))


def word_columns(table: Table) -> list[bool]:
    """For each column whether it has anything but numbers, intervals and dashes."""
    numbers = re.compile(r"-|[\d.,]+( to [\d.]+)?")
    return [any(numbers.fullmatch(row[place]) is None for row in table.rows) for place in range(len(table.head))]


# --- Plots -----------------------------------------------------------------------------------------------------------


def _plots(metrics: dict[str, Any], section: Section) -> Iterator[Plot]:
    """The plots that belong to a section of the report."""
    from litegpt.evaluation_scripts.reports import plots  # matplotlib takes a second that other programs need not wait

    if section.topic == "headlines":
        figures = headlines(metrics)
        svg = plots.headline_figures(
            [figure.title for figure in figures],
            [figure.value for figure in figures],
            [figure.interval for figure in figures],
            {control: [figure.controls[control] for figure in figures] for control in shown_controls(metrics)},
        )
        yield Plot(svg, "The headline figures with their 95 % intervals, and what the controls reach.")
    elif section.topic == "boxes":
        yield from _box_plots(metrics[section.task.name])
    elif section.topic == "labels" and not section.task.kind.has_boxes:
        top = top_figures(metrics, section.task)
        labels = metrics[section.task.name]["classification"]["per_class"]
        values = {label: at(top, "auroc", label) for label in labels if at(top, "auroc", label) is not None}
        if values:
            svg = plots.auroc(values, {label: at(top, "intervals", "auroc", label) for label in values})
            yield Plot(svg, "AUROC of each label with its 95 % interval; 0.5 is chance.")
    elif section.topic == "calibration":
        for task in asked_tasks(metrics):
            bins = metrics[task.name]["reliability"]
            if bins is not None:
                what = "Boxes" if task.kind.has_boxes else task.kind.output.capitalize()
                words = f"{what}, {task.identifier}: how often is true what a probability says."
                yield Plot(plots.reliability(bins["before"], bins["after"]), f"{words} Grey: the share of each bin.")


def _box_plots(scores: dict[str, Any]) -> Iterator[Plot]:
    from litegpt.evaluation_scripts.reports import plots

    curves = at(scores, "curves", "precision_recall", RIGHT)
    if curves is not None:
        boxes = {label: values["num_boxes"] for label, values in scores["localization"]["per_class"].items()}
        frequent = sorted((label for label in boxes if label in curves["per_class"]), key=boxes.get, reverse=True)
        label_curves = {
            label: (curves["per_class"][label], at(scores, "detection", "average_precision", label, RIGHT))
            for label in frequent[:LABELS_WITH_CURVES]
        }
        caption = f"Precision and recall of the boxes at IoU {IOU}, by falling score; below: the most frequent labels."
        yield Plot(plots.precision_recall(curves["pooled"], label_curves), caption)
    curve = at(scores, "curves", "froc")
    if curve is not None:
        svg = plots.froc(curve, at(scores, "detection", "froc", RIGHT, "sensitivity") or {})
        words = "the share of true boxes found against false boxes an image, as far as it was measured"
        yield Plot(svg, f"FROC at IoU {IOU}: {words}.")
