"""ChestX-ray8's tables (arXiv 1705.02315) with figures of ours beside them, and what does not fit together.

    litegpt chestx-ray8-tables --output_dir outputs/chestx_ray8_tables \\
        --runs resnet50_lse=outputs/lse_localize resnet50_average=outputs/average_localize

A run is ROW=FOLDER: the folder of a finished `litegpt localize`, under any name that you give it. Writes `tables.md`
and `tables.json`: AUROC by label, Acc. and AFP at T(IoBB) and T(IoU), mean accuracy given the class with later works'
and with our controls, and as sentences which figures may not stand side by side. What is not measured is a dash.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from litegpt.common.arguments import parse
from litegpt.common.files import write_text
from litegpt.common.programs import Refusal, program
from litegpt.evaluation_scripts.arguments import ChestXray8TablesArguments
from litegpt.evaluation_scripts.reports.chestx_ray8_figures import (
    AUROC,
    CONTRADICTIONS,
    FINDINGS,
    GIVEN_CLASS,
    IOBB_OF_LATER,
    IOU_OF_LATER,
    MEAN_AUROC,
    NUM_BOXES,
    OTHER_LABELS,
    SPLITS,
    TABLES,
)
from litegpt.evaluation_scripts.reports.localization import markdown_table
from litegpt.evaluation_scripts.reports.sections import at, interval_text

PAPER_DATA, PAPER_SPLIT = "ChestX-ray14", "test"  # where the paper's figures can be measured again
MEANS = {"mean of the eight": FINDINGS, "mean of the 14": (*FINDINGS, *OTHER_LABELS)}
SCORES = {"classifier": "", "shuffled": ", another image's"}  # whose probabilities: what follows the run's name
DECIMALS = {"paper": 4, "ours": 3}  # the paper's as it prints them
MAPS = {
    "map": "map",
    "another_image": "another image's map",
    "random_weights": "random weights",
    "centre": "centre prior",
    "prior": "location prior",
}
GIVEN_CLASS_COLUMNS = {
    **{f"IoU {threshold}": ("accuracy_at_iou", threshold) for threshold in IOU_OF_LATER},
    **{f"IoBB {threshold}": ("accuracy_at_iobb", threshold) for threshold in IOBB_OF_LATER},
    "pointing game": ("pointing_game",),
}

Runs = dict[str, dict[str, Any]]  # row: metrics.json
Figure = dict[str, Any]  # {"value": None or a number, "interval": None or [low, high]}


@program
def main(args: ChestXray8TablesArguments) -> None:
    tables = collect(read_runs(args.runs))
    write_text(Path(args.output_dir, "tables.json"), json.dumps(tables, indent=2) + "\n")
    write_text(Path(args.output_dir, "tables.md"), as_markdown(tables))
    print(as_markdown(tables))


def read_runs(runs: list[str]) -> Runs:
    """The metrics of all runs, by their rows.

    Raises:
        Refusal: one is not ROW=FOLDER, two have one row, or a folder has no metrics.json of `litegpt localize`.
    """
    found: Runs = {}
    for run in runs:
        row, _, folder = run.partition("=")
        if not row or not folder:
            raise Refusal(f"--runs {run}: it is not ROW=FOLDER.")
        if row in found:
            raise Refusal(f"--runs {run}: there are two rows {row}.")
        path = Path(folder, "metrics.json")
        if not path.is_file():
            raise Refusal(f"--runs {run}: there is no {path}.")
        try:
            metrics = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:  # cut off, or of another encoding
            raise Refusal(f"--runs {run}: {path} cannot be read as JSON.") from None
        if at(metrics, "given_class") is None:
            raise Refusal(f"--runs {run}: {path} has no given_class, so it is not of litegpt localize.")
        found[row] = metrics
    return found


# --- What tables.json says -------------------------------------------------------------------------------------------


def collect(runs: Runs) -> dict[str, Any]:
    """What tables.json says: each table as {"paper": ..., "ours": ...}, figures from 0 to 1, None where unknown."""
    return {
        "runs": {row: _setting(metrics) for row, metrics in runs.items()},
        "auroc": {
            "paper": {row: {**_by_label(values), **_means(values)} for row, values in AUROC.items()},
            "ours": {
                row + suffix: _our_auroc(metrics, scores)
                for row, metrics in runs.items()
                for scores, suffix in SCORES.items()
                if scores == "classifier" or at(metrics, "classification", "figures", scores)
            },
        },
        **{ratio: _boxes(ratio, runs) for ratio in ("iobb", "iou")},
        "given_class": {
            "paper": {row: _published_given_class(row) for row in GIVEN_CLASS},
            "ours": {
                f"{row}, {name}": _our_given_class(metrics, key)
                for row, metrics in runs.items()
                for key, name in MAPS.items()
            },
        },
        "mean_auroc_by_split": [row._asdict() for row in MEAN_AUROC],
        "splits": list(SPLITS),
        "contradictions": list(CONTRADICTIONS),
    }


def _setting(metrics: dict[str, Any]) -> dict[str, Any]:
    """What a run is of, and whether that is what the paper's boxes are."""
    # A model that names no labels has maps alone, and no localization.
    classes = at(metrics, "localization", "per_class") or at(metrics, "given_class", "per_class") or {}
    boxes = [count for count in (at(scores, "num_boxes") for scores in classes.values()) if count]
    images = at(metrics, "localization", "num_images")
    setting = {
        "model": at(metrics, "model_name_or_path"),
        "data": at(metrics, "data_set", "name"),
        "split": at(metrics, "split"),
        "images": at(metrics, "data_set", "with_boxes") if images is None else images,
        "boxes": sum(boxes) or None,
        "classes": len(boxes) or None,
    }
    same = (setting["data"], setting["split"], setting["boxes"]) == (PAPER_DATA, PAPER_SPLIT, NUM_BOXES)
    return {**setting, "stands_beside_the_paper": same}


def _figure(value: float | None, interval: Sequence[float] | None = None) -> Figure:
    return {"value": value, "interval": None if interval is None else list(interval)}


def _mean(values: Iterable[float | None]) -> float | None:
    """None where one is unknown: a mean over fewer classes is another figure."""
    values = list(values)
    return None if None in values else sum(values) / len(values)


def _by_label(values: dict[str, float]) -> dict[str, Figure]:
    return {label: _figure(values.get(label)) for label in (*FINDINGS, *OTHER_LABELS)}


def _means(values: dict[str, float | None]) -> dict[str, Figure]:
    return {name: _figure(_mean(values.get(label) for label in labels)) for name, labels in MEANS.items()}


def _our_auroc(metrics: dict[str, Any], scores: str) -> dict[str, Figure]:
    figures, intervals = (at(metrics, "classification", kind, scores, "all") for kind in ("figures", "intervals"))
    row = {
        label: _figure(at(figures, "per_label", label), at(intervals, "per_label", label))
        for label in (*FINDINGS, *OTHER_LABELS)
    }
    means = _means(at(figures, "per_label") or {})
    for name, labels in MEANS.items():
        # The run has an interval of its own mean, which is one of these where it is over the same labels.
        if means[name]["value"] is not None and set(at(metrics, "classification", "labels") or ()) == set(labels):
            means[name] = _figure(means[name]["value"], at(intervals, "macro"))
    return {**row, **means}


def _boxes(ratio: str, runs: Runs) -> dict[str, Any]:
    """By threshold, row and class {"accuracy", "false_positives"}; the accuracy also as the mean of the classes."""
    tables = {f"{table.data} (Table {number})": table for number, table in TABLES.items() if table.ratio == ratio}
    by_threshold: dict[str, Any] = {}
    for threshold in next(iter(tables.values())).accuracy:
        paper = {
            row: _with_mean(table.accuracy[threshold], table.false_positives[threshold])
            for row, table in tables.items()
        }
        ours = {
            row: _with_mean(
                _by_class(metrics, f"accuracy_at_{ratio}", threshold),
                _by_class(metrics, f"false_positives_at_{ratio}", threshold),
            )
            for row, metrics in runs.items()
        }
        by_threshold[threshold] = {"paper": paper, "ours": ours}
    return by_threshold


def _by_class(metrics: dict[str, Any], key: str, threshold: str) -> list[float | None]:
    return [at(metrics, "localization", "per_class", label, key, threshold) for label in FINDINGS]


def _with_mean(accuracy: Sequence[float | None], false_positives: Sequence[float | None]) -> dict[str, Any]:
    by_label: dict[str, Any] = {
        label: {"accuracy": found, "false_positives": false}
        for label, found, false in zip(FINDINGS, accuracy, false_positives, strict=True)
    }
    return {**by_label, "mean accuracy": _mean(accuracy)}


def _published_given_class(row: str) -> dict[str, Any]:
    work = GIVEN_CLASS[row]
    values = {
        **{f"IoU {threshold}": value for threshold, value in zip(IOU_OF_LATER, work.iou, strict=False)},
        **{f"IoBB {threshold}": value for threshold, value in zip(IOBB_OF_LATER, work.iobb, strict=False)},
        "pointing game": work.pointing_game,
    }
    return {**{name: _figure(values.get(name)) for name in GIVEN_CLASS_COLUMNS}, "remark": work.remark}


def _our_given_class(metrics: dict[str, Any], key: str) -> dict[str, Any]:
    figures, intervals = (at(metrics, "given_class", kind, key) for kind in ("figures", "intervals"))
    boxes, classes, images, data = (_or_dash(_setting(metrics)[key]) for key in ("boxes", "classes", "images", "data"))
    remark = f"{boxes} boxes, {classes} classes, {images} images of {data}"
    row = {name: _figure(at(figures, *path), at(intervals, *path)) for name, path in GIVEN_CLASS_COLUMNS.items()}
    return {**row, "remark": remark}


# --- What tables.md says ---------------------------------------------------------------------------------------------


def as_markdown(tables: dict[str, Any]) -> str:
    """What tables.md says."""
    lines = ["# ChestX-ray8's tables", "", "A figure that is not there is a dash; in brackets 95 % intervals of ours."]
    if tables["runs"]:
        head = ["row", "checkpoint", "data", "split", "boxed images", "boxes", "classes"]
        keys = ("model", "data", "split", "images", "boxes", "classes")
        rows = [[row, *(_or_dash(setting[key]) for key in keys)] for row, setting in tables["runs"].items()]
        lines += ["", "## Our runs", "", *markdown_table(head, rows)]
        for row, setting in tables["runs"].items():
            if not setting["stands_beside_the_paper"]:
                lines += [
                    "",
                    f"**{row} does not stand beside the paper's boxes**, which are all {NUM_BOXES} of {PAPER_DATA}'s "
                    f"official test split: it shows an order of magnitude, its controls say what it is worth.",
                ]
    lines += ["", "## AUROC", "", *_auroc_table(tables["auroc"])]
    for ratio, name in (("iobb", "T(IoBB)"), ("iou", "T(IoU)")):
        lines += [
            "",
            f"## Acc. / AFP at {name}",
            "",
            "Boxes of the classes that the classifier calls present. Our AFP are an image with a true box.",
            "",
            *_boxes_table(tables[ratio], name),
        ]
    lines += [
        "",
        "## Mean accuracy given the class",
        "",
        "Each true box's class is told, not asked; mean of the classes. A map that follows the image is above another "
        "image's map, random weights, the centre prior and the location prior. In our rows any box of the map may "
        "find a true box, which is easier than with one box a map; IoBB alone says little, as small boxes reach it by "
        "chance.",
        "",
        *_given_class_table(tables["given_class"]),
        "",
        "## Mean AUROC of ChestX-ray14's 14 labels, by the split that it was tested on",
        "",
        *markdown_table(["model", "AUROC", "split"], [list(row.values()) for row in tables["mean_auroc_by_split"]]),
    ]
    for title, key in (
        ("Which figures may not stand side by side", "splits"),
        ("Where the paper contradicts itself", "contradictions"),
    ):
        lines += ["", f"## {title}", "", *(f"- {sentence}" for sentence in tables[key])]
    return "\n".join(lines) + "\n"


def _auroc_table(auroc: dict[str, Any]) -> list[str]:
    """A line a label, as there may be any number of runs."""
    columns = list(_rows(auroc))
    lines = [
        [label, *(_cell(figures[label], DECIMALS[kind]) for _, kind, figures in columns)]
        for label in (*FINDINGS, *OTHER_LABELS, *MEANS)
    ]
    return markdown_table(["", *(row for row, _, _ in columns)], lines)


def _boxes_table(by_threshold: dict[str, Any], name: str) -> list[str]:
    lines = []
    for threshold, rows in by_threshold.items():
        for place, (row, kind, figures) in enumerate(_rows(rows)):
            cells = (
                " / ".join(_decimals(figures[label][key], DECIMALS[kind]) for key in ("accuracy", "false_positives"))
                for label in FINDINGS
            )
            lines.append([threshold if place == 0 else "", row, *cells, _decimals(figures["mean accuracy"], 3)])
    return markdown_table([name, "", *FINDINGS, "mean Acc."], lines)


def _given_class_table(given: dict[str, Any]) -> list[str]:
    lines = []
    for row, kind, figures in _rows(given):
        cells = [_cell(figures[name], 3) for name in GIVEN_CLASS_COLUMNS]
        if kind == "paper":  # but IoBB is printed in two decimals: .81 is not .810
            cells = [
                cell if "IoBB" in name else cell.removesuffix("0")
                for name, cell in zip(GIVEN_CLASS_COLUMNS, cells, strict=True)
            ]
        lines.append([row, *cells, figures["remark"]])
    return markdown_table(["", *GIVEN_CLASS_COLUMNS, "on"], lines)


def _rows(table: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """The paper's rows, then ours, each with its kind; a run may have the name of a row of the paper."""
    for kind in ("paper", "ours"):
        for row, figures in table[kind].items():
            yield row, kind, figures


def _cell(figure: Figure, decimals: int) -> str:
    """A figure, with its interval in brackets."""
    text, interval = _decimals(figure["value"], decimals), figure["interval"]
    return text if interval is None else f"{text} ({interval_text(interval)})"


def _decimals(value: float | None, decimals: int) -> str:
    return "-" if value is None else f"{value:.{decimals}f}"


def _or_dash(value: Any) -> str:
    return "-" if value is None else str(value)


if __name__ == "__main__":
    main(*parse([ChestXray8TablesArguments], None, "chestx_ray8_tables.py", __doc__))
