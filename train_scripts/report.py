"""`metrics.json` as a page that a person reads: its sections as data, and in Markdown.

`html_report.py` renders the same sections, with plots and pictures.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from datasets_scripts.instructions import INSTRUCTIONS
from train_scripts.published_figures import ACCURACY, PAPER_DATA, PUBLISHED_AUROC, TABLES, TEXT_SCORES

AVERAGES = ("micro", "macro", "weighted", "samples")
CONTROLS = ("shuffled", "noise", "black")
# Name, path (in metrics.json, in its intervals and in each control), the Hub's metric, the paper's number. {boxes} is
# the task that asks for boxes.
HEADLINES = (
    ("[{boxes}] F1 of Finding", ("finding_f1",), "f1", None),
    ("[vqa] F1 of Finding", ("vqa_finding_f1",), "f1", 0.70),
    ("[{boxes}] F1 of the findings, micro average", ("micro_f1", "{boxes}"), "f1", None),
    ("[vqa] F1 of the diagnoses, micro average", ("micro_f1", "vqa"), "f1", 0.60),
    ("[{boxes}] Acc@IoU 0.3, all true boxes", ("accuracy_at_iou", "0.3"), "accuracy", 0.1254),
    ("[{boxes}] Acc@IoU 0.4, all true boxes", ("accuracy_at_iou", "0.4"), "accuracy", 0.105),
    ("[{boxes}] Acc@IoU 0.5, all true boxes", ("accuracy_at_iou", "0.5"), "accuracy", 0.0812),
    ("[{boxes}] mAP at IoU 0.4", ("map", "0.4"), "mean_average_precision", None),
    ("[{boxes}] mAP at IoU 0.5", ("map", "0.5"), "mean_average_precision", None),
    ("[{boxes}] FROC, mean sensitivity", ("froc", "mean"), "froc", None),
    ("[{boxes}] AUROC of Finding", ("finding_auroc",), "roc_auc", None),
    ("[vqa] AUROC, mean of the labels", ("auroc", "macro"), "roc_auc", None),
)
GROUP_FIGURES = {  # heading: path in a group
    "F1 of Finding": ("finding_f1",),
    "F1, micro": ("micro_f1", "{task}"),
    "Acc@0.4": ("accuracy_at_iou", "0.4"),
    "mAP@0.4": ("map", "0.4"),
    "FROC": ("froc", "mean"),
    "AUROC of Finding": ("finding_auroc",),
    "AUROC": ("auroc", "macro"),
}


class Table(NamedTuple):
    head: list[str]
    rows: list[list[str]]


class Section(NamedTuple):
    """`name` is unique in the report; a block is a paragraph (with `code` and **bold**) or a table."""

    name: str
    title: str
    blocks: list[str | Table]


class Headline(NamedTuple):
    """A headline figure of `metrics.json`; `metric` is the Hub's name of the metric, `paper` LiteGPT's number."""

    task: str
    name: str
    metric: str
    value: float | None
    interval: tuple[float, float] | None
    controls: dict[str, float | None]
    paper: float | None


def write_report(metrics: dict[str, Any], model: str, data: str, split: str) -> str:
    """The report in Markdown."""
    lines = ["# LiteGPT: evaluation", "", introduction(metrics, model, data, split), ""]
    for section in report_sections(metrics):
        lines += [f"## {section.title}", ""]
        for block in section.blocks:
            lines += [as_markdown(block) if isinstance(block, Table) else block, ""]
    return "\n".join(lines)


def as_markdown(table: Table) -> str:
    lines = [table.head, ["---"] * len(table.head), *table.rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def introduction(metrics: dict[str, Any], model: str, data: str, split: str) -> str:
    data_set = metrics["data_set"]
    return (
        f"Checkpoint `{model}`; {data_set['name']} (`{data}`), split `{split}`, {data_set['radiographs']:,} "
        "radiographs; greedy answers. Research software, not a medical device. A figure that cannot be computed is "
        "a dash."
    )


def report_sections(metrics: dict[str, Any]) -> list[Section]:
    """All that the report says, in its order.

    Raises:
        ValueError: the metrics are of an older `evaluate_litegpt.py`.
    """
    check_metrics(metrics)
    sections = [_headlines_section(metrics), _honesty_section(metrics)]
    for task in tasks_of(metrics):
        sections.append(_classification_section(metrics, task))
        if has_boxes(metrics, task):
            sections.append(_boxes_section(metrics, task))
        sections.append(_labels_section(metrics, task))
        if has_boxes(metrics, task):
            sections.append(_operating_points_section(metrics, task))
        if task == "vqa":
            sections.append(_others_section(metrics))
        sections.append(_text_section(metrics, task))
    sections.append(_calibration_section(metrics))
    sections += _groups_section(metrics)
    return sections


def check_metrics(metrics: dict[str, Any], path: str | os.PathLike = "metrics.json") -> None:
    """Raises a ValueError that names `path` where the metrics are of an older `evaluate_litegpt.py`."""
    if "controls" not in metrics:
        raise ValueError(f"{path} is of an older evaluate_litegpt.py, without its controls: run it again.")


def tasks_of(metrics: dict[str, Any]) -> list[str]:
    return [task for task in INSTRUCTIONS if task in metrics]


def has_boxes(metrics: dict[str, Any], task: str) -> bool:
    return "localization" in metrics[task]


def headlines(metrics: dict[str, Any]) -> list[Headline]:
    """The headline figures of the tasks that were asked.

    Raises:
        ValueError: the metrics are of an older `evaluate_litegpt.py`.
    """
    check_metrics(metrics)
    # As in metrics.json: with several tasks that have boxes, the figures on top are those of the last.
    tasks = [task for task in metrics if task in INSTRUCTIONS]
    boxes = next((task for task in reversed(tasks) if has_boxes(metrics, task)), None)
    found = []
    for name, path, metric, paper in HEADLINES:
        task = "vqa" if name.startswith("[vqa]") else boxes
        if task not in tasks:
            continue
        path = tuple(key.format(boxes=boxes) for key in path)
        found.append(
            Headline(
                task,
                name.format(boxes=boxes),
                metric,
                at(metrics, *path),
                at(metrics["intervals"], *path),
                {control: at(metrics["controls"].get(control), *path) for control in CONTROLS},
                paper,
            )
        )
    return found


def at(scores: Any, *path: str) -> Any:
    """What stands at a path of nested dictionaries; None where it ends early: that figure was not computed."""
    for key in path:
        scores = scores.get(key) if isinstance(scores, dict) else None
    return scores


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def interval_text(interval: Sequence[float] | None) -> str:
    return "-" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


# --- The sections ----------------------------------------------------------------------------------------------------


def _headlines_section(metrics: dict[str, Any]) -> Section:
    name = metrics["data_set"]["name"]
    comparable = (
        f"**Paper**: LiteGPT (arXiv 2407.12064), Tables 1 to 3, on {PAPER_DATA}. Its boxes are counted with inclusive "
        "pixels and over radiographs with findings alone (`--with_findings_only true`); it does not say which average "
        "its F1 of the labels, 0.600, is: that over findings and diagnoses together would fit its tables by class."
    )
    if name != PAPER_DATA:
        comparable = (
            f"**The paper's numbers are of {PAPER_DATA}, these are of {name}: they stand here for orientation and do "
            f"not compare.** {comparable}"
        )
    rows = [
        [
            figure.name,
            number(figure.value),
            interval_text(figure.interval),
            *(number(figure.controls[control]) for control in CONTROLS),
            number(figure.paper),
        ]
        for figure in headlines(metrics)
    ]
    return Section(
        "headlines",
        "Headline figures",
        [
            Table(["figure", "value", "95 % interval", *CONTROLS, "paper"], rows),
            "**Controls**, what a model reaches that does not look: `shuffled`: the same answers, each given to the "
            "image of another one; `noise`: every image gets the answer to a picture of noise; `black`: to a black "
            "picture. Intervals: bootstrap over the radiographs.",
            comparable,
        ],
    )


def _honesty_section(metrics: dict[str, Any]) -> Section:
    rows = []
    for task in tasks_of(metrics):
        scores = metrics[task]
        images, without = (at(scores, "classification", *path) for path in (["num_images"], ["no_finding", "support"]))
        rows.append(
            [
                f"`[{task}]`",
                str(images),
                str(scores["num_unknown"]),
                str(scores["num_malformed"]),
                str(_or_dash(at(scores, "identical", "distinct"))),
                number(at(scores, "identical", "share")),
                number(without / images),
            ]
        )
    return Section(
        "honesty",
        "Does it look, and can it be read?",
        [
            "An answer that cannot be parsed counts as wrong and is never dropped. Radiographs of which the data set "
            "does not tell the answer are left out. A model that gives the commonest answer to a much larger "
            "share of the images than truly have no finding does not look at them. Share of answers that could not be "
            f"parsed, over all tasks: {number(metrics['malformed'])}.",
            Table(
                [
                    "asked",
                    "images",
                    "left out",
                    "not parsed",
                    "different answers",
                    "commonest answer",
                    "no finding",
                ],
                rows,
            ),
        ],
    )


def _classification_section(metrics: dict[str, Any], task: str) -> Section:
    scores, control = metrics[task]["classification"], at(metrics["controls"], "shuffled", task, "classification")
    columns = list(TABLES[1].columns.values())
    paper = {path[1:]: value / 100 for path, value in zip(columns, TABLES[1].paper["litegpt"], strict=True)}
    paper["micro", "f1"] = TABLES[2].paper["litegpt"][0] / 100
    rows = []
    for key in ("finding", "no_finding", *AVERAGES):
        name = {"finding": "Finding", "no_finding": "No finding"}.get(key, f"labels, {key} average")
        row = [name, *_classification_cells(scores[key], at(control, key))]
        rows.append([*row, number(paper.get((key, "f1")))] if task == "vqa" else row)
    head = ["", "precision", "recall", "F1", "F1 shuffled", "support"]
    return Section(
        f"{task}-classification",
        f"[{task}]: what is named",
        [
            "Finding against No finding asks whether anything is there at all; the averages are over the labels. "
            "Support counts the images, of an average the labels of all images.",
            Table([*head, "F1 in the paper"] if task == "vqa" else head, rows),
        ],
    )


def _boxes_section(metrics: dict[str, Any], task: str) -> Section:
    scores, detection = metrics[task]["localization"], metrics[task]["detection"]
    control = at(metrics["controls"], "shuffled", task, "localization")
    thresholds = list(scores["accuracy_at_iou"])
    definitions = (
        ("accuracy_at_iou", f"over all {scores['num_boxes']} true boxes"),
        (
            "accuracy_at_iou_matched",
            f"over the {scores['num_matched_boxes']} whose label was named (the paper's text)",
        ),
        ("accuracy_at_iou_release", "over all, inclusive pixels of a 100 x 100 grid (the paper's code)"),
    )
    accuracies = [
        [name, *(number(at(source, key, threshold)) for source in (scores, control) for threshold in thresholds)]
        for key, name in definitions
    ]
    paper = TABLES[6].paper["litegpt_grounding" if task == "grounding" else "litegpt"]
    of_paper = {path[-1]: value / 100 for path, value in zip(ACCURACY.values(), paper, strict=True)}
    dashes = ["-"] * len(thresholds)
    accuracies.append(
        [f"the paper's LiteGPT, on {PAPER_DATA}", *(number(of_paper.get(t)) for t in thresholds), *dashes]
    )
    heads = [f"Acc@{threshold}" for threshold in thresholds] + [f"shuffled @{threshold}" for threshold in thresholds]
    rows, points = [], []
    for name, maps, froc in (
        *((f"IoU {t}", at(detection, "map", t), at(detection, "froc", t)) for t in detection["map"]),
        (
            "IoU 0.4, shuffled",
            at(metrics["controls"], "shuffled", "map", "0.4"),
            at(metrics["controls"], "shuffled", "froc"),
        ),
    ):
        sensitivities = at(froc, "sensitivity") or {}
        points = points or list(sensitivities)
        rows.append([name, number(maps), *(number(sensitivities.get(p)) for p in points), number(at(froc, "mean"))])
    return Section(
        f"{task}-boxes",
        f"[{task}]: boxes",
        [
            "**Acc@t**: the share of true boxes for which the answer has a box of the same label with an IoU above t, "
            "whatever its score. The shuffled answers' figures stand beside it.",
            Table(["definition", *heads], accuracies),
            f"**mAP** and **FROC** rank the {detection['num_detections']} answered boxes by their score: mAP is the "
            "mean over the labels of the area under the precision envelope, FROC the sensitivity, over all labels, "
            "at so many false boxes an image, and its mean.",
            Table(["", "mAP", *(f"at {_fraction(point)}" for point in points), "FROC mean"], rows),
        ],
    )


def _labels_section(metrics: dict[str, Any], task: str) -> Section:
    """A table with a line for each label; what it has depends on the task."""
    scores = metrics[task]
    control = at(metrics["controls"], "shuffled", task, "classification", "per_class")
    boxes = has_boxes(metrics, task)
    head = ["label", "precision", "recall", "F1", "F1 shuffled", "images"]
    head += ["true boxes", "AP@0.4", "AP@0.5"] if boxes else ["AUROC", "95 % interval", "average precision"]
    rows = []
    for label, values in scores["classification"]["per_class"].items():
        row = [label, *_classification_cells(values, at(control, label))]
        if boxes:
            row.append(str(at(scores, "localization", "per_class", label, "num_boxes") or 0))
            row += [number(at(scores, "detection", "average_precision", label, t)) for t in ("0.4", "0.5")]
        else:
            row.append(number(at(metrics, "auroc", label)))
            row.append(interval_text(at(metrics, "intervals", "auroc", label)))
            row.append(number(at(scores, "probabilities", "average_precision", label)))
        rows.append(row)
    if boxes:
        words = "A label without a true box has no average precision (AP)."
    else:
        words = (
            "AUROC and average precision rank the radiographs by the label's probability, which is its marginal over "
            f"all answers that the model could give. Mean AUROC: {number(at(metrics, 'auroc', 'macro'))}."
        )
    return Section(f"{task}-labels", f"[{task}]: each label", [words, Table(head, rows)])


def _others_section(metrics: dict[str, Any]) -> Section:
    """What others report of the mean AUROC: on this data set, or else on the paper's."""
    name = metrics["data_set"]["name"]
    published = PUBLISHED_AUROC.get(name, PUBLISHED_AUROC[PAPER_DATA])
    rows = [[model, setting, labels, number(value)] for model, setting, labels, value in published]
    labels = len(metrics["vqa"]["classification"]["per_class"])
    ours = ["this checkpoint", f"[vqa] on {name}", f"{labels} labels", number(at(metrics, "auroc", "macro"))]
    words = (
        "What others report on VinDr-CXR. CXR-CLIP's mean is over the 18 labels, local and global, that ten or more "
        "test images have, without other diseases and other lesions; it gives no values of single labels, and ECAMP "
        "did not evaluate VinDr-CXR."
    )
    if name == "ChestX-ray14":
        words = "What others report; their means leave No finding out."
    elif name != PAPER_DATA:
        words += f" **They do not compare with these of {name}.**"
    table = Table(["model", "setting", "mean over", "AUROC"], [ours, *rows])
    return Section("vqa-others", "[vqa]: AUROC of others", [words, table])


def _operating_points_section(metrics: dict[str, Any], task: str) -> Section:
    points = metrics[task]["operating_points"]
    if not points:
        words = "This checkpoint has no thresholds; `train_scripts/calibrate.py` chooses them on validation."
        return Section(f"{task}-operating-points", f"[{task}]: operating points", [words])
    keys = ("threshold", "precision", "recall", "false_positives_per_image")
    rows = [
        [label, *(number(at(values, key)) for key in keys), str(_or_dash(at(values, "num_boxes")))]
        for label, values in points.items()
    ]
    return Section(
        f"{task}-operating-points",
        f"[{task}]: operating points",
        [
            "What boxes of at least the checkpoint's own threshold reach here at IoU 0.4. The thresholds were chosen "
            "on validation, the figures are of this split.",
            Table(["label", "threshold", "precision", "recall", "false boxes an image", "true boxes"], rows),
        ],
    )


def _text_section(metrics: dict[str, Any], task: str) -> Section:
    scores, control = metrics[task]["text"], at(metrics["controls"], "shuffled", task, "text")
    words = "Overlap with the true answers, boxes taken out; CIDEr from 0 to 10, the others from 0 to 1."
    paper = {}
    if task != "grounding":
        table = TABLES[5 if task == "vqa" else 4]
        paper = {
            path[-1]: value if path[-1] == "cider" else value / 100
            for path, value in zip(table.columns.values(), table.paper["litegpt"], strict=True)
        }
        if task == "identify":
            words += " The paper's are over radiographs with findings alone."
    rows = [
        [name, number(scores[key]), number(at(control, key)), number(paper.get(key))]
        for key, name in TEXT_SCORES.items()
        if scores[key] is not None
    ]
    head = ["", "answers", "shuffled", f"paper, on {PAPER_DATA}"]
    return Section(f"{task}-text", f"[{task}]: wording", [words, Table(head, rows)])


def _calibration_section(metrics: dict[str, Any]) -> Section:
    rows = []
    for name, key, temperature in (
        ("boxes", "findings", at(metrics, "temperatures", "finding")),
        ("diagnoses", "diagnoses", at(metrics, "temperatures", "diagnosis")),
    ):
        ece = at(metrics, "ece", key)
        interval = interval_text(at(metrics["intervals"], "ece", key, "after"))
        rows.append([name, number(temperature), number(at(ece, "before")), number(at(ece, "after")), interval])
    return Section(
        "calibration",
        "Calibration",
        [
            "Of what gets the probability p, the share p should be true: of boxes that they lie on a true box of "
            "their label, of diagnoses that they are present. **ECE** is the mean distance from that. The checkpoint "
            "divides the log-odds of its scores by a temperature that was fitted on validation (1: none was fitted). "
            "The interval is of the ECE after.",
            Table(["", "temperature", "ECE before", "ECE after", "95 % interval"], rows),
        ],
    )


def _groups_section(metrics: dict[str, Any]) -> Iterator[Section]:
    """A section if the data tells view, sex or age."""
    blocks: list[str | Table] = []
    for task in tasks_of(metrics):
        groups = [
            (by, name, scores)
            for by, of_column in metrics[task]["groups"].items()
            for name, scores in of_column.items()
        ]
        columns = {heading: [key.format(task=task) for key in path] for heading, path in GROUP_FIGURES.items()}
        columns = {
            heading: path
            for heading, path in columns.items()
            if any(at(scores, *path) is not None for _, _, scores in groups)
        }
        rows = [
            [by, name, str(scores["images"]), *(number(at(scores, *path)) for path in columns.values())]
            for by, name, scores in groups
        ]
        left_out = ", ".join(f"{by}: {count}" for by, count in metrics[task]["groups_left_out"].items() if count)
        words = (
            f" In no group, as theirs would be too small or the data does not tell: {left_out}." if left_out else ""
        )
        if rows:
            blocks += [f"**[{task}]**{words}", Table(["by", "group", "images", *columns], rows)]
    if blocks:
        words = "Differences between small groups may be chance; the intervals above are of all radiographs together."
        yield Section("groups", "By view, sex and age", [words, *blocks])


def _classification_cells(scores: dict[str, Any], control: dict[str, Any] | None) -> list[str]:
    cells = [number(scores[key]) for key in ("precision", "recall", "f1")]
    return [*cells, number(at(control, "f1")), str(scores["support"])]


def _fraction(point: str) -> str:
    """0.125 -> 1/8."""
    return point if float(point) >= 1 else f"1/{round(1 / float(point))}"


def _or_dash(value: Any) -> Any:
    return "-" if value is None else value
