"""`metrics.json` and the answers as one HTML file: the tables of `report.py`, plots, and radiographs with boxes.

The file needs nothing else: no network, no scripts. It reads on light and dark, and prints.
"""

import base64
import io
import re
from collections.abc import Iterator, Sequence
from html import escape
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset
from PIL import Image

from datasets_scripts.instructions import answer
from metrics.box_detection.box_detection import ROUNDING, iou_of_pairs
from train_scripts import plots
from train_scripts.headline import RIGHT
from train_scripts.report import (
    CONTROLS,
    Table,
    at,
    has_boxes,
    headlines,
    introduction,
    report_sections,
    tasks_of,
)

IOU = float(RIGHT)  # above it a box is right
SHOWN, SHOWN_PER_LABEL = 8, 2  # of each kind of case
SIDE = 480  # pixels of a picture's longer side
LABELS_WITH_CURVES = 8

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>LiteGPT: evaluation</title>
<style>
:root {{ color-scheme: light dark; --page: #fff; --text: #1c2126; --soft: #5b6670; --line: #d8dde2; --band: #f4f6f8;
  --link: #1f6fbf; }}
@media (prefers-color-scheme: dark) {{ :root {{ --page: #14181c; --text: #e4e8ec; --soft: #9aa5b0; --line: #333b43;
  --band: #1c2228; --link: #7db8f0; }} }}
body {{ margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 62rem; background: var(--page); color: var(--text);
  font: 16px/1.55 system-ui, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }}
h1 {{ margin: 0 0 .5rem; font-size: 1.9rem; line-height: 1.2; }}
h2 {{ margin: 3rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--line); font-size: 1.35rem; }}
h3 {{ margin: 2rem 0 .5rem; font-size: 1.1rem; }}
p {{ max-width: 46rem; }}
a {{ color: var(--link); }}
code {{ padding: .1em .3em; border-radius: 3px; background: var(--band); font-size: .9em; overflow-wrap: anywhere; }}
nav ul {{ display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: 1rem 0; padding: 0; list-style: none; }}
.table {{ overflow-x: auto; margin: 1rem 0; }}
table {{ border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; }}
th, td {{ padding: .3rem .7rem; text-align: right; white-space: nowrap; }}
th:first-child, td:first-child {{ padding-left: .4rem; text-align: left; white-space: normal; min-width: 9rem; }}
.words {{ text-align: left; }}
th {{ border-bottom: 2px solid var(--line); color: var(--soft); font-weight: 600; vertical-align: bottom; }}
tbody tr:nth-child(even) {{ background: var(--band); }}
figure {{ margin: 1.5rem 0; }}
figcaption {{ margin: .4rem 0; color: var(--soft); font-size: .875rem; line-height: 1.4; }}
figure > svg {{ display: block; width: 100%; max-width: 54rem; height: auto; overflow: visible; }}
.gallery {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 1.25rem 1rem; }}
.gallery figure {{ margin: 0; break-inside: avoid; }}
.gallery svg {{ aspect-ratio: 1; background: #000; border-radius: 4px; }}
.gallery b {{ color: var(--text); }}
small {{ font-size: .7rem; overflow-wrap: anywhere; }}
.true, .answered {{ fill: none; stroke-width: 3px; vector-effect: non-scaling-stroke; }}
.true {{ stroke: #2ee6a6; }}
.answered {{ stroke: #ffd34d; stroke-dasharray: 7 4; }}
.other {{ stroke-width: 1px; opacity: .75; }}
.key {{ display: inline-block; width: 1.6em; height: 0; margin: 0 .35em .2em 0; border-top: 3px solid #1fae80; }}
.key.dashed {{ border-top: 3px dashed #d9a400; }}
@page {{ margin: 15mm; }}
@media print {{
body {{ max-width: none; padding: 0; font-size: 10pt; }}
nav {{ display: none; }}
h2, h3 {{ margin-top: 1.5rem; break-after: avoid; }}
tr, figure {{ break-inside: avoid; }}
.table {{ overflow: visible; }}
table {{ font-size: 8pt; }}
th, td {{ padding: .12rem .4rem; }}
th {{ white-space: normal; }}
tbody tr:nth-child(even), .gallery svg, .key {{ print-color-adjust: exact; }}
.gallery {{ grid-template-columns: repeat(4, 1fr); }}
}}
</style>
</head>
<body>
<h1>LiteGPT: evaluation</h1>
{introduction}
<nav><ul>{contents}</ul></nav>
{sections}
</body>
</html>
"""
KINDS = {  # title, and which are shown
    "right": ("Right boxes", "those of the highest score, at most two of a label where there are others"),
    "missed": ("Missed boxes", "the labels in turn, the one that is missed most often first"),
    "invented": ("Invented boxes", "those of the highest score, at most two of a label where there are others"),
}


class Case(NamedTuple):
    """A box of the gallery; `kind` is a key of `KINDS`.

    Of a missed or invented box `iou` and the other side's box are those of the nearest one of its label, if any
    overlaps it.
    """

    kind: str
    row: int
    label: str
    score: float | None
    iou: float
    true_box: Sequence[float] | None
    answered_box: Sequence[float] | None


def html_report(
    metrics: dict[str, Any],
    predictions: list[dict[str, Any]],
    rows: Dataset,
    labels: dict[str, list[str]],
    model: str,
    data: str,
    split: str,
) -> str:
    """The report as one HTML file, whatever stands in labels and names.

    Args:
        metrics: `metrics.json`.
        predictions: lines of the predictions file, for each task one a row, in the rows' order.
        rows: of the contract's schema; pictures are read for those shown alone.
        labels: of findings and diagnoses, as `label_names` gives them.

    Raises:
        ValueError: the metrics are of an older `evaluate_litegpt.py`.
    """
    parts, contents = [], []
    for section in report_sections(metrics):
        parts.append(f'<section id="{section.name}">\n<h2>{_inline(section.title)}</h2>')
        blocks = [
            _table(block) if isinstance(block, Table) else f"<p>{_inline(block)}</p>" for block in section.blocks
        ]
        parts += [*blocks, *_plots(metrics, section.name), "</section>"]
        contents.append((section.name, section.title))
        task = section.name.partition("-")[0]
        if section.name == f"{task}-labels" and has_boxes(metrics, task):
            of_task = [line for line in predictions if line["task"] == task]
            parts += [f'<section id="{task}-gallery">\n<h2>[{task}]: some boxes</h2>']
            parts += [*_gallery(of_task, rows, labels), "</section>"]
            contents.append((f"{task}-gallery", f"[{task}]: some boxes"))
    return PAGE.format(
        introduction=f"<p>{_inline(introduction(metrics, model, data, split))}</p>",
        contents="".join(f'<li><a href="#{name}">{_inline(title)}</a></li>' for name, title in contents),
        sections="\n".join(parts),
    )


# --- Tables and plots ------------------------------------------------------------------------------------------------


def _inline(text: str) -> str:
    """A paragraph's Markdown, which is `code` and **bold** alone, as HTML."""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
    return re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", text)


def _table(table: Table) -> str:
    """Columns of numbers stand right, of words left."""
    styles = []
    for column in zip(*table.rows, strict=True):
        is_words = any(re.fullmatch(r"-|[\d.,]+( to [\d.]+)?", text) is None for text in column)
        styles.append(' class="words"' if is_words else "")
    head, *body = (
        "".join(f"<{tag}{style}>{_inline(text)}</{tag}>" for text, style in zip(row, styles, strict=True))
        for tag, row in (("th", table.head), *(("td", row) for row in table.rows))
    )
    rows = "\n".join(f"<tr>{row}</tr>" for row in body)
    return f'<div class="table"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>'


def _figure(svg: str, caption: str) -> str:
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{escape(caption)}"', 1)
    return f"<figure>\n{svg}\n<figcaption>{_inline(caption)}</figcaption>\n</figure>"


def _plots(metrics: dict[str, Any], section: str) -> Iterator[str]:
    """The plots that belong to a section of the report."""
    task = section.partition("-")[0]
    if section == "headlines":
        figures = headlines(metrics)
        svg = plots.headline_figures(
            [figure.name for figure in figures],
            [figure.value for figure in figures],
            [figure.interval for figure in figures],
            {control: [figure.controls[control] for figure in figures] for control in CONTROLS},
        )
        yield _figure(svg, "The headline figures with their 95 % intervals, and what the controls reach.")
    elif section == f"{task}-boxes":
        yield from _box_plots(metrics[task])
    elif section == f"{task}-labels" and not has_boxes(metrics, task):
        of_labels = list(metrics[task]["classification"]["per_class"])
        of_labels = [label for label in of_labels if at(metrics, "auroc", label) is not None]
        if of_labels:
            svg = plots.auroc(
                {label: metrics["auroc"][label] for label in of_labels},
                {label: at(metrics, "intervals", "auroc", label) for label in of_labels},
            )
            yield _figure(svg, "AUROC of each label with its 95 % interval; 0.5 is chance.")
    elif section == "calibration":
        for task in tasks_of(metrics):
            bins = metrics[task]["reliability"]
            if bins is not None:
                what = "Boxes" if has_boxes(metrics, task) else "Diagnoses"
                caption = f"{what}, [{task}]: how often is true what a probability says. Grey: the share of each bin."
                yield _figure(plots.reliability(bins["before"], bins["after"]), caption)


def _box_plots(scores: dict[str, Any]) -> Iterator[str]:
    curves = at(scores, "curves", "precision_recall", RIGHT)
    if curves is not None:
        boxes = {label: values["num_boxes"] for label, values in scores["localization"]["per_class"].items()}
        frequent = sorted((label for label in boxes if label in curves["per_class"]), key=boxes.get, reverse=True)
        of_labels = {
            label: (curves["per_class"][label], at(scores, "detection", "average_precision", label, RIGHT))
            for label in frequent[:LABELS_WITH_CURVES]
        }
        caption = f"Precision and recall of the boxes at IoU {IOU}, by falling score; right: the most frequent labels."
        yield _figure(plots.precision_recall(curves["pooled"], of_labels), caption)
    curve = at(scores, "curves", "froc")
    if curve is not None:
        svg = plots.froc(curve, at(scores, "detection", "froc", RIGHT, "sensitivity") or {})
        yield _figure(svg, f"FROC at IoU {IOU}: the share of true boxes found against false boxes an image.")


# --- The gallery -----------------------------------------------------------------------------------------------------


def _gallery(predictions: list[dict[str, Any]], rows: Dataset, labels: dict[str, list[str]]) -> Iterator[str]:
    truths, cases = [], []
    answers = [line["findings"] for line in predictions]
    for row, (findings, diagnoses) in enumerate(zip(rows["findings"], rows["diagnoses"], strict=True)):
        truths.append([{"label": labels["finding"][one["label"]], "box": one["box"]} for one in findings])
        # As in the scores: where the data does not tell the boxes, none is right or invented.
        if answer(findings, diagnoses, predictions[row]["task"], labels["finding"], labels["diagnosis"]) is not None:
            cases += row_cases(row, truths[row], answers[row])
    yield (
        f'<p>A box is right above an IoU of {IOU}. <span class="key"></span>true&ensp;'
        '<span class="key dashed"></span>answered; thin: the other boxes of the radiograph.</p>'
    )
    for kind, (title, which) in KINDS.items():
        of_kind = [case for case in cases if case.kind == kind]
        yield f"<h3>{title}</h3>"
        if not of_kind:
            yield "<p>There are none.</p>"
            continue
        shown = chosen(of_kind)
        yield f"<p>{len(shown)} of {len(of_kind)}: {which}.</p>"
        pictures = [_picture(case, rows[case.row], truths[case.row], answers[case.row]) for case in shown]
        yield '<div class="gallery">\n' + "\n".join(pictures) + "\n</div>"


def row_cases(row: int, truths: list[dict[str, Any]], answers: list[dict[str, Any]]) -> Iterator[Case]:
    """A case for each answered box, right or invented, and for each true box that is missed.

    As in `metrics/box_detection`: by falling score a box takes the best free true box of its label with an IoU above
    `IOU`.
    """
    free = list(range(len(truths)))
    for answered in sorted(answers, key=lambda answered: (-answered["score"], answered["box"])):
        overlaps = [
            iou(answered["box"], truth["box"]) if truth["label"] == answered["label"] else 0.0 for truth in truths
        ]
        best = max(free, key=overlaps.__getitem__, default=None)
        is_right = best is not None and overlaps[best] > IOU + ROUNDING
        if is_right:
            free.remove(best)
        else:
            best = _nearest(overlaps)
        yield Case(
            "right" if is_right else "invented",
            row,
            answered["label"],
            answered["score"],
            0.0 if best is None else overlaps[best],
            None if best is None else truths[best]["box"],
            answered["box"],
        )
    for truth in (truths[index] for index in free):
        overlaps = [
            iou(answered["box"], truth["box"]) if answered["label"] == truth["label"] else 0.0 for answered in answers
        ]
        best = _nearest(overlaps)
        nearest = (0.0, None) if best is None else (overlaps[best], answers[best]["box"])
        yield Case("missed", row, truth["label"], None, nearest[0], truth["box"], nearest[1])


def _nearest(overlaps: Sequence[float]) -> int | None:
    """Index of the largest one; None where none is above 0."""
    best = max(range(len(overlaps)), key=overlaps.__getitem__, default=None)
    return best if best is not None and overlaps[best] > 0 else None


def chosen(cases: Sequence[Case]) -> list[Case]:
    """Up to `SHOWN` cases of one kind, the same for the same cases.

    Those of the highest score, missed ones in turn from each label, the most often missed one first. A label has more
    than `SHOWN_PER_LABEL` only where there are too few others.
    """
    by_label: dict[str, list[Case]] = {}
    for case in sorted(cases, key=_by_score):
        by_label.setdefault(case.label, []).append(case)
    if cases[0].kind == "missed":
        most_missed = sorted(by_label.values(), key=len, reverse=True)
        turns = [case for turn in zip_longest(*most_missed) for case in turn if case is not None]
        return turns[:SHOWN]
    first = [case for of_label in by_label.values() for case in of_label[:SHOWN_PER_LABEL]]
    rest = [case for of_label in by_label.values() for case in of_label[SHOWN_PER_LABEL:]]
    return sorted((sorted(first, key=_by_score) + sorted(rest, key=_by_score))[:SHOWN], key=_by_score)


def _by_score(case: Case) -> tuple[float, int]:
    return -(case.score or 0), case.row


def iou(box: Sequence[float], other: Sequence[float]) -> float:
    """Intersection over union of two xyxy boxes; 0 for boxes without area or inside out."""
    return float(iou_of_pairs(np.array([box], float), np.array([other], float))[0])


def _picture(case: Case, row: dict[str, Any], truths: list[dict[str, Any]], answers: list[dict[str, Any]]) -> str:
    """The whole radiograph with the case's boxes, and the others thin."""
    image = row["image"].convert("L")
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    width, height = image.size
    file = io.BytesIO()
    image.save(file, format="JPEG", quality=80)
    data = base64.b64encode(file.getvalue()).decode()
    shapes = [
        _rectangle(
            item, style, item["box"] in (case.true_box, case.answered_box) and item["label"] == case.label, image
        )
        for style, items in (("true", truths), ("answered", answers))
        for item in items
    ]
    score = "" if case.score is None else f"score {case.score:.3f}, "
    words = f"{score}IoU {case.iou:.2f}"
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(case.label)}, {words}">'
        f'<image width="{width}" height="{height}" href="data:image/jpeg;base64,{data}"/>{"".join(shapes)}</svg>'
        f"<figcaption><b>{escape(case.label)}</b><br>{words}<br><small>{escape(row['image_id'])}</small>"
        "</figcaption></figure>"
    )


def _rectangle(item: dict[str, Any], style: str, is_of_case: bool, image: Image.Image) -> str:
    x1, y1, x2, y2 = (value * side for value, side in zip(item["box"], 2 * image.size, strict=True))
    style = style if is_of_case else f"{style} other"
    return (
        f'<rect class="{style}" x="{x1:.1f}" y="{y1:.1f}" width="{max(0, x2 - x1):.1f}" '
        f'height="{max(0, y2 - y1):.1f}"><title>{escape(item["label"])}</title></rect>'
    )
