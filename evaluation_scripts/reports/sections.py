"""`metrics.json` -> what a report says of it: sections of paragraphs and tables, as data and in Markdown.

    report_sections(metrics)[0].blocks[0]  # Table(["figure", ...], [["[identify] F1 of Finding", "0.750", ...], ...])
    write_report(metrics, "outputs/demo/checkpoint", "outputs/demo/phantoms")  # "# LiteGPT: evaluation ..."

In: the metrics that `evaluate_litegpt.py` writes. Out: paragraphs with `code` and **bold**, and tables of text. What
is said of a task depends on the kind of its answer. `html.py` lays out the same sections, with plots and pictures.
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from litegpt.common.templates import template
from litegpt.evaluation_scripts.reports.published_figures import (
    ACCURACY,
    PAPER_DATA,
    PAPER_ROWS,
    PUBLISHED_AUROC,
    TEXT_SCORES,
    paper_figures,
)
from litegpt.processing.tasks import ANSWER_KINDS, DIAGNOSES, FINDINGS, TASKS, AnswerKind, Task

AVERAGES = ("micro", "macro", "weighted", "samples")
CONTROLS = ("shuffled", "noise", "black")
# Kind of the task, name, path (in metrics.json, in its intervals and in each control), the Hub's metric, path of the
# paper's number in the task's own metrics. {task} is the task's name.
F1_OF_FINDING, MICRO_F1 = ("classification", "finding", "f1"), ("classification", "micro", "f1")
HEADLINES = (
    (FINDINGS, "F1 of Finding", ("finding_f1",), "f1", F1_OF_FINDING),
    (DIAGNOSES, "F1 of Finding", ("vqa_finding_f1",), "f1", F1_OF_FINDING),
    (FINDINGS, "F1 of the findings, micro average", ("micro_f1", "{task}"), "f1", MICRO_F1),
    (DIAGNOSES, "F1 of the diagnoses, micro average", ("micro_f1", "{task}"), "f1", MICRO_F1),
    *(
        (FINDINGS, f"Acc@IoU {path[-1]}, all true boxes", ("accuracy_at_iou", path[-1]), "accuracy", path)
        for path in ACCURACY.values()
    ),
    (FINDINGS, "mAP at IoU 0.4", ("map", "0.4"), "mean_average_precision", None),
    (FINDINGS, "mAP at IoU 0.5", ("map", "0.5"), "mean_average_precision", None),
    (FINDINGS, "FROC, mean sensitivity", ("froc", "mean"), "froc", None),
    (FINDINGS, "AUROC of Finding", ("finding_auroc",), "roc_auc", None),
    (DIAGNOSES, "AUROC, mean of the labels", ("auroc", "macro"), "roc_auc", None),
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
    """Cells of text (with `code`); each row is as long as `head`."""

    head: list[str]
    rows: list[list[str]]


class Section(NamedTuple):
    """A section of the report.

    Attributes:
        topic: what it is about, such as "boxes"; unique among the sections of its task.
        title: its heading.
        blocks: paragraphs (with `code` and **bold**) and tables.
        task: whose answers it is about; None for all together.
    """

    topic: str
    title: str
    blocks: list[str | Table]
    task: Task | None = None

    @property
    def name(self) -> str:
        """Unique in the report: "headlines", "identify-boxes"."""
        return self.topic if self.task is None else f"{self.task.name}-{self.topic}"


class Headline(NamedTuple):
    """A headline figure of `metrics.json`; `metric` is the Hub's name of the metric, `paper` LiteGPT's number."""

    task: Task
    name: str
    metric: str
    value: float | None
    interval: tuple[float, float] | None
    controls: dict[str, float | None]
    paper: float | None


def write_report(metrics: dict[str, Any], model: str, data: str) -> str:
    """The report in Markdown.

    Args:
        metrics: `metrics.json`.
        model, data: what was evaluated on what, as the program was told.

    Raises:
        ValueError: the metrics are of an older `evaluate_litegpt.py`.
    """
    return template(__file__, "report.md.jinja").render(
        introduction=introduction(metrics, model, data), sections=report_sections(metrics)
    )


def introduction(metrics: dict[str, Any], model: str, data: str) -> str:
    """The report's first paragraph, with `code`."""
    data_set = metrics["data_set"]
    return (
        f"Checkpoint `{model}`; {data_set['name']} (`{data}`), split `{data_set['split']}`, "
        f"{data_set['radiographs']:,} radiographs; greedy answers. Research software, not a medical device. A figure "
        "that cannot be computed is a dash."
    )


def report_sections(metrics: dict[str, Any]) -> list[Section]:
    """All that the report says, in its order.

    Raises:
        ValueError: the metrics are of an older `evaluate_litegpt.py`.
    """
    check_metrics(metrics)
    sections = [_headlines_section(metrics), _honesty_section(metrics)]
    for task in asked_tasks(metrics):
        sections.append(_classification_section(metrics, task))
        if task.kind.has_boxes:
            sections.append(_boxes_section(metrics, task))
        sections.append(_labels_section(metrics, task))
        if task.kind.has_boxes:
            sections.append(_operating_points_section(metrics, task))
        if task.kind is DIAGNOSES:
            sections.append(_others_section(metrics, task))
        sections.append(_text_section(metrics, task))
    sections.append(_calibration_section(metrics))
    sections += _groups_section(metrics)
    return sections


def check_metrics(metrics: dict[str, Any], path: str | os.PathLike = "metrics.json") -> None:
    """Refuses metrics of an older `evaluate_litegpt.py`.

    Raises:
        ValueError: they are; it names `path`.
    """
    if "controls" not in metrics:
        raise ValueError(f"{path} is of an older evaluate_litegpt.py, without its controls: run it again.")


def asked_tasks(metrics: dict[str, Any]) -> list[Task]:
    """The tasks that `metrics` has scores of, in the order of `TASKS`."""
    return [task for task in TASKS.values() if task.name in metrics]


def headline_task(metrics: dict[str, Any], kind: AnswerKind) -> Task | None:
    """The task that the figures on top of metrics.json are of: with several of a kind, the last one asked."""
    tasks = [TASKS[name] for name in metrics if name in TASKS and TASKS[name].kind is kind]
    return tasks[-1] if tasks else None


def headlines(metrics: dict[str, Any]) -> list[Headline]:
    """The headline figures of the tasks that were asked.

    Raises:
        ValueError: the metrics are of an older `evaluate_litegpt.py`.
    """
    check_metrics(metrics)
    figures = []
    for kind, name, path, metric, paper_path in HEADLINES:
        task = headline_task(metrics, kind)
        if task is None:
            continue
        path = tuple(key.format(task=task.name) for key in path)
        figures.append(
            Headline(
                task,
                f"{task.identifier} {name}",
                metric,
                at(metrics, *path),
                at(metrics["intervals"], *path),
                {control: at(metrics["controls"].get(control), *path) for control in CONTROLS},
                paper_figures(task.name).get(paper_path),
            )
        )
    return figures


def at(scores: Any, *path: str) -> Any:
    """What stands at a path of nested dictionaries; None where it ends early: that figure was not computed."""
    for key in path:
        scores = scores.get(key) if isinstance(scores, dict) else None
    return scores


def number(value: float | None) -> str:
    """A figure in three decimals; a dash for None."""
    return "-" if value is None else f"{value:.3f}"


def interval_text(interval: Sequence[float] | None) -> str:
    """(0.1, 0.2) -> "0.100 to 0.200"; a dash for None."""
    return "-" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


# --- The sections ----------------------------------------------------------------------------------------------------


def _headlines_section(metrics: dict[str, Any]) -> Section:
    name, figures = metrics["data_set"]["name"], headlines(metrics)
    tables = "Tables 1 to 3" + (" and 6" if any(6 in PAPER_ROWS.get(one.task.name, {}) for one in figures) else "")
    comparable = (
        f"**Paper**: LiteGPT (arXiv 2407.12064), {tables}, on {PAPER_DATA}. Its boxes are counted with inclusive "
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
        for figure in figures
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
    for task in asked_tasks(metrics):
        scores = metrics[task.name]
        images, without = (at(scores, "classification", *path) for path in (["num_images"], ["no_finding", "support"]))
        rows.append(
            [
                f"`{task.identifier}`",
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


def _classification_section(metrics: dict[str, Any], task: Task) -> Section:
    scores, paper = metrics[task.name]["classification"], paper_figures(task.name)
    control = at(metrics["controls"], "shuffled", task.name, "classification")
    rows = []
    for key in ("finding", "no_finding", *AVERAGES):
        name = {"finding": "Finding", "no_finding": "No finding"}.get(key, f"labels, {key} average")
        rows.append([name, *_classification_cells(scores[key], at(control, key))])
        if MICRO_F1 in paper:
            rows[-1].append(number(paper.get(("classification", key, "f1"))))
    head = ["", "precision", "recall", "F1", "F1 shuffled", "support"]
    if MICRO_F1 in paper:
        head.append("F1 in the paper")
    return Section(
        "classification",
        f"{task.identifier}: what is named",
        [
            "Finding against No finding asks whether anything is there at all; the averages are over the labels. "
            "Support counts the images, of an average the labels of all images.",
            Table(head, rows),
        ],
        task,
    )


def _boxes_section(metrics: dict[str, Any], task: Task) -> Section:
    scores, detection = metrics[task.name]["localization"], metrics[task.name]["detection"]
    control = at(metrics["controls"], "shuffled", task.name, "localization")
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
    paper = paper_figures(task.name)
    if paper:
        printed = [number(paper.get(("localization", "accuracy_at_iou_release", t))) for t in thresholds]
        accuracies.append([f"the paper's LiteGPT, on {PAPER_DATA}", *printed, *(["-"] * len(thresholds))])
    heads = [f"Acc@{threshold}" for threshold in thresholds] + [f"shuffled @{threshold}" for threshold in thresholds]
    shuffled = at(top_figures(metrics, task), "controls", "shuffled")
    rows, points = [], []
    for name, maps, froc in (
        *((f"IoU {t}", at(detection, "map", t), at(detection, "froc", t)) for t in detection["map"]),
        ("IoU 0.4, shuffled", at(shuffled, "map", "0.4"), at(shuffled, "froc")),
    ):
        sensitivities = at(froc, "sensitivity") or {}
        points = points or list(sensitivities)
        rows.append([name, number(maps), *(number(sensitivities.get(p)) for p in points), number(at(froc, "mean"))])
    return Section(
        "boxes",
        f"{task.identifier}: boxes",
        [
            "**Acc@t**: the share of true boxes for which the answer has a box of the same label with an IoU above t, "
            "whatever its score. The shuffled answers' figures stand beside it.",
            Table(["definition", *heads], accuracies),
            f"**mAP** and **FROC** rank the {detection['num_detections']} answered boxes by their score: mAP is the "
            "mean over the labels of the area under the precision envelope, FROC the sensitivity, over all labels, "
            "at so many false boxes an image, and its mean.",
            Table(["", "mAP", *(f"at {_fraction(point)}" for point in points), "FROC mean"], rows),
        ],
        task,
    )


def _labels_section(metrics: dict[str, Any], task: Task) -> Section:
    """A table with a line for each label; what it has depends on the kind of the task."""
    scores, top = metrics[task.name], top_figures(metrics, task)
    control = at(metrics["controls"], "shuffled", task.name, "classification", "per_class")
    boxes = task.kind.has_boxes
    head = ["label", "precision", "recall", "F1", "F1 shuffled", "images"]
    head += ["true boxes", "AP@0.4", "AP@0.5"] if boxes else ["AUROC", "95 % interval", "average precision"]
    rows = []
    for label, values in scores["classification"]["per_class"].items():
        row = [label, *_classification_cells(values, at(control, label))]
        if boxes:
            row.append(str(at(scores, "localization", "per_class", label, "num_boxes") or 0))
            row += [number(at(scores, "detection", "average_precision", label, t)) for t in ("0.4", "0.5")]
        else:
            row.append(number(at(top, "auroc", label)))
            row.append(interval_text(at(top, "intervals", "auroc", label)))
            row.append(number(at(scores, "probabilities", "average_precision", label)))
        rows.append(row)
    if boxes:
        words = "A label without a true box has no average precision (AP)."
    else:
        words = (
            "AUROC and average precision rank the radiographs by the label's probability, which is its marginal over "
            f"all answers that the model could give. Mean AUROC: {number(at(top, 'auroc', 'macro'))}."
        )
    return Section("labels", f"{task.identifier}: each label", [words, Table(head, rows)], task)


def _others_section(metrics: dict[str, Any], task: Task) -> Section:
    """What others report of the mean AUROC: on this data set, or else on the paper's."""
    name = metrics["data_set"]["name"]
    published = PUBLISHED_AUROC.get(name, PUBLISHED_AUROC[PAPER_DATA])
    rows = [[model, setting, labels, number(value)] for model, setting, labels, value in published]
    labels = len(metrics[task.name]["classification"]["per_class"])
    mean = number(at(top_figures(metrics, task), "auroc", "macro"))
    ours = ["this checkpoint", f"{task.identifier} on {name}", f"{labels} labels", mean]
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
    return Section("others", f"{task.identifier}: AUROC of others", [words, table], task)


def _operating_points_section(metrics: dict[str, Any], task: Task) -> Section:
    topic, title = "operating-points", f"{task.identifier}: operating points"
    points = metrics[task.name]["operating_points"]
    if not points:
        words = "This checkpoint has no thresholds; `evaluation_scripts/calibrate.py` chooses them on validation."
        return Section(topic, title, [words], task)
    keys = ("threshold", "precision", "recall", "false_positives_per_image")
    rows = [
        [label, *(number(at(values, key)) for key in keys), str(_or_dash(at(values, "num_boxes")))]
        for label, values in points.items()
    ]
    return Section(
        topic,
        title,
        [
            "What boxes of at least the checkpoint's own threshold reach here at IoU 0.4. The thresholds were chosen "
            "on validation, the figures are of this split.",
            Table(["label", "threshold", "precision", "recall", "false boxes an image", "true boxes"], rows),
        ],
        task,
    )


def _text_section(metrics: dict[str, Any], task: Task) -> Section:
    scores, paper = metrics[task.name]["text"], paper_figures(task.name)
    control = at(metrics["controls"], "shuffled", task.name, "text")
    words = "Overlap with the true answers, boxes taken out; CIDEr from 0 to 10, the others from 0 to 1."
    if task.kind.has_boxes and ("text", "cider") in paper:
        words += " The paper's are over radiographs with findings alone."
    rows = [
        [name, number(scores[key]), number(at(control, key)), number(paper.get(("text", key)))]
        for key, name in TEXT_SCORES.items()
        if scores[key] is not None
    ]
    head = ["", "answers", "shuffled", f"paper, on {PAPER_DATA}"]
    return Section("text", f"{task.identifier}: wording", [words, Table(head, rows)], task)


def _calibration_section(metrics: dict[str, Any]) -> Section:
    rows = []
    for kind in ANSWER_KINDS:
        temperature, ece = at(metrics, "temperatures", kind.name), at(metrics, "ece", kind.output)
        interval = interval_text(at(metrics["intervals"], "ece", kind.output, "after"))
        name = "boxes" if kind.has_boxes else kind.output
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
    for task in asked_tasks(metrics):
        groups = [
            (by, name, scores)
            for by, column_groups in metrics[task.name]["groups"].items()
            for name, scores in column_groups.items()
        ]
        columns = {heading: [key.format(task=task.name) for key in path] for heading, path in GROUP_FIGURES.items()}
        columns = {
            heading: path
            for heading, path in columns.items()
            if any(at(scores, *path) is not None for _, _, scores in groups)
        }
        rows = [
            [by, name, str(scores["images"]), *(number(at(scores, *path)) for path in columns.values())]
            for by, name, scores in groups
        ]
        left_out = ", ".join(f"{by}: {count}" for by, count in metrics[task.name]["groups_left_out"].items() if count)
        words = (
            f" In no group, as theirs would be too small or the data does not tell: {left_out}." if left_out else ""
        )
        if rows:
            blocks += [f"**{task.identifier}**{words}", Table(["by", "group", "images", *columns], rows)]
    if blocks:
        words = "Differences between small groups may be chance; the intervals above are of all radiographs together."
        yield Section("groups", "By view, sex and age", [words, *blocks])


def top_figures(metrics: dict[str, Any], task: Task) -> dict[str, Any]:
    """The metrics, if the figures on top of them are of this task; {} if they are of another of its kind."""
    return metrics if task is headline_task(metrics, task.kind) else {}


def _classification_cells(scores: dict[str, Any], control: dict[str, Any] | None) -> list[str]:
    cells = [number(scores[key]) for key in ("precision", "recall", "f1")]
    return [*cells, number(at(control, "f1")), str(scores["support"])]


def _fraction(point: str) -> str:
    """0.125 -> 1/8."""
    return point if float(point) >= 1 else f"1/{round(1 / float(point))}"


def _or_dash(value: Any) -> Any:
    return "-" if value is None else value
