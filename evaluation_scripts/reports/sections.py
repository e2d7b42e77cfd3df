"""`metrics.json` -> what a report says of it: sections of paragraphs and tables, as data and in Markdown.

    report_sections(metrics)[0].blocks[0]  # Table(["figure", ...], [["Any finding at all: F1 [identify]", "0.750", ...
    verdict(headlines(metrics))  # "**The answers follow the image in 12 of 12 figures.** ..."
    write_report(metrics, "demo/checkpoint", "phantoms")  # "# LiteGPT: evaluation ..."

In: the metrics that `evaluate_litegpt.py` writes. Out: paragraphs with `code` and **bold**, and tables of text. What
is said of a task depends on the kind of its answer. `html.py` lays out the same sections, with plots and pictures.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
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

AVERAGES = ("micro", "macro", "macro_present", "weighted", "samples")
CONTROLS = ("shuffled", "noise", "black")
PRIOR = "prior"  # a control of boxes alone: it says what their figures are worth, not whether answers follow the image
CONTROL_ANSWERS = {
    "shuffled": "another image's answers",
    "noise": "the answers to pictures of noise",
    "black": "the answer to a black picture",
}
BOX_CONTROLS = {"shuffled": "another image's answers", PRIOR: "boxes given without any picture"}
RULE = (
    "The rule of the first line: a figure follows the image where the lower bound of its 95 % interval lies above "
    "what every control reaches, which are answers that have not seen the image. It asks for more than chance, not "
    "for a good figure. Calibration error and answers that cannot be parsed, where lower is better, are no part of "
    "it: they say how answers are put, not whether they follow the image. Nor is the location prior, another model, "
    "which knows where boxes of a training lie and no picture: figures of boxes are held against it by the same rule."
)
COUNTS = ("true_positives", "false_positives", "true_negatives", "false_negatives")
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
# What stands before a figure's name in the reports.
PLAIN_WORDS = {
    "F1 of Finding": "Any finding at all",
    "F1 of the findings, micro average": "Which findings",
    "F1 of the diagnoses, micro average": "Which diagnoses",
    "AUROC of Finding": "Any finding at all, by probability",
    "AUROC, mean of the labels": "Which diagnoses, by probability",
    "FROC, mean sensitivity": "Boxes by falling score",
    **{f"mAP at IoU {t}": "Boxes by falling score" for t in ("0.4", "0.5")},
    **{f"Acc@IoU {path[-1]}, all true boxes": "True boxes found" for path in ACCURACY.values()},
}
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
    """A headline figure of `metrics.json`.

    Attributes:
        name: with the identifier, as model cards have it; `title` is the same in plain words.
        metric: the Hub's name of the metric.
        paper: LiteGPT's number; None on other data than the paper's.
    """

    task: Task
    name: str
    title: str
    metric: str
    value: float | None
    interval: tuple[float, float] | None
    controls: dict[str, float | None]
    paper: float | None

    def beats(self, *controls: str) -> bool | None:
        """Whether the interval lies above what all these controls reach; None where it cannot be told."""
        reached = [self.controls[control] for control in controls]
        if self.interval is None or None in reached:
            return None
        return self.interval[0] > max(reached)


def write_report(metrics: dict[str, Any], model: str, data: str) -> str:
    """The report in Markdown.

    Args:
        metrics: `metrics.json`.
        model, data: the names of what was evaluated on what.

    Raises:
        ValueError: the metrics are of an older `evaluate_litegpt.py`.
    """
    return template(__file__, "report.md.jinja").render(
        introduction="\n\n".join(introduction(metrics, model, data)), sections=report_sections(metrics)
    )


def introduction(metrics: dict[str, Any], model: str, data: str) -> list[str]:
    """The report's first paragraphs, with `code` and **bold**: verdict, what was found, and what was run.

    Raises:
        ValueError: the metrics are of an older `evaluate_litegpt.py`.
    """
    data_set, run, bootstrap = metrics["data_set"], metrics.get("run"), metrics.get("bootstrap")
    paragraphs = [verdict(headlines(metrics)), *(_in_counts(metrics, task) for task in asked_tasks(metrics))]
    if run is not None and run["caution"]:
        paragraphs.append(f"**Caution about this checkpoint**: {run['caution']}.")
    paragraphs.append(RULE)
    paragraphs.append(
        f"Checkpoint `{model}`; {data_set['name']} (`{data}`), split `{data_set['split']}`, "
        f"{data_set['radiographs']:,} radiographs; greedy answers. Research software, not a medical device. A figure "
        "that cannot be computed is a dash."
    )
    if run is not None:
        trained_on = f"Trained on {', '.join(run['trained_on'])}. " if run["trained_on"] else ""
        digests = ", ".join(f"`{name}` {digest[:12]}" for name, digest in metrics["weights"].items())
        weights = f" Weights by the beginning of their SHA-256: {digests}." if digests else ""
        paragraphs.append(
            f"{trained_on}Made on {run['date']} with litegpt {run['litegpt']}, transformers {run['transformers']}, "
            f"torch {run['torch']}, Python {run['python']}; bootstrap of {bootstrap['resamples']:,} resamples, seed "
            f"{bootstrap['seed']}.{weights}"
        )
    return paragraphs


def verdict(figures: Sequence[Headline]) -> str:
    """Whether the answers follow the image, in words; `RULE` says what decides it."""
    told = [figure for figure in figures if figure.beats(*CONTROLS) is not None]
    follow = [figure for figure in told if figure.beats(*CONTROLS)]
    sentences = []
    if not told:
        sentences.append("**Whether the answers follow the image cannot be told**: no figure has all that it takes.")
    else:
        sentences.append(f"**The answers follow the image in {len(follow)} of {len(told)} figures.**")
    for control, words in CONTROL_ANSWERS.items():
        equal = [figure.title for figure in told if figure.beats(control) is False]
        if equal:
            sentences.append(f"**No better than {words} in {len(equal)} of {len(told)}**: {'; '.join(equal)}.")
    beside_prior = [figure for figure in figures if figure.beats(PRIOR) is not None]
    equal = [figure.title for figure in beside_prior if not figure.beats(PRIOR)]
    if equal:
        sentences.append(
            f"**No better than boxes given without any picture in {len(equal)} of {len(beside_prior)} figures of "
            f"boxes**: {'; '.join(equal)}."
        )
    untold = [figure.title for figure in figures if figure not in told]
    if told and untold:
        sentences.append(f"It cannot be told of {'; '.join(untold)}.")
    return " ".join(sentences)


def _in_counts(metrics: dict[str, Any], task: Task) -> str:
    """What the answers to a task say of whole radiographs, in one sentence."""
    counts = at(metrics[task.name], "decisions", "Finding")
    name = f"{task.kind.output.capitalize()} (`{task.identifier}`)"
    kept = ", by boxes from their thresholds on" if task.kind.has_boxes and metrics.get("thresholds") else ""
    if counts is None:
        return f"{name}: this run did not count radiographs with and without a finding."
    tp, fp, tn, fn = (counts[key] for key in COUNTS)
    return (
        f"{name}: of {tp + fn:,} radiographs with a finding {tp:,} are said to have one{kept} (sensitivity "
        f"{number(counts['sensitivity'])}), of {tn + fp:,} without one {tn:,} are said to have none (specificity "
        f"{number(counts['specificity'])})."
    )


def report_sections(metrics: dict[str, Any]) -> list[Section]:
    """All that the report says, in its order.

    Raises:
        ValueError: the metrics are of an older `evaluate_litegpt.py`.
    """
    check_metrics(metrics)
    sections = [_headlines_section(metrics), _honesty_section(metrics)]
    for task in asked_tasks(metrics):
        sections += _decisions_section(metrics, task)
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


def shown_controls(metrics: dict[str, Any]) -> tuple[str, ...]:
    """Those that a report shows: of answers without boxes, and in older metrics, there is no prior."""
    return (*CONTROLS, PRIOR) if PRIOR in metrics["controls"] else CONTROLS


def asked_tasks(metrics: dict[str, Any]) -> list[Task]:
    """The tasks that `metrics` has scores of, in the order of `TASKS`."""
    return [task for task in TASKS.values() if task.name in metrics and task.kind in ANSWER_KINDS]


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
                f"{PLAIN_WORDS[name]}: {name} {task.identifier}",
                metric,
                at(metrics, *path),
                at(metrics["intervals"], *path),
                {control: at(metrics["controls"].get(control), *path) for control in (*CONTROLS, PRIOR)},
                shown_paper_figures(metrics, task).get(paper_path),
            )
        )
    return figures


def shown_paper_figures(metrics: dict[str, Any], task: Task) -> dict[tuple[str, ...], float]:
    """The paper's figures of a task, for a report on the paper's data set; none for one on other data."""
    return paper_figures(task.name) if metrics["data_set"]["name"] == PAPER_DATA else {}


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
    name, figures, controls = metrics["data_set"]["name"], headlines(metrics), shown_controls(metrics)
    is_papers = name == PAPER_DATA
    rows = [
        [
            figure.title,
            number(figure.value),
            interval_text(figure.interval),
            *(number(figure.controls[control]) for control in controls),
            *([number(figure.paper)] if is_papers else []),
        ]
        for figure in figures
    ]
    if is_papers:
        tables = "Tables 1 to 3"
        tables += " and 6" if any(6 in PAPER_ROWS.get(one.task.name, {}) for one in figures) else ""
        paper = (
            f"**Paper**: LiteGPT (arXiv 2407.12064), {tables}, on {PAPER_DATA}. Its boxes are counted with inclusive "
            "pixels and over radiographs with findings alone (`--with_findings_only true`); it does not say which "
            "average its F1 of the labels, 0.600, is: that over findings and diagnoses together would fit its tables "
            "by class."
        )
    else:
        paper = (
            f"The paper's numbers are of {PAPER_DATA}, these are of {name}: they do not compare and are left out here."
        )
    return Section(
        "headlines",
        "Headline figures",
        [
            Table(["figure", "value", "95 % interval", *controls, *(["paper"] if is_papers else [])], rows),
            "**Controls**, what a model reaches that does not look: `shuffled`: the same answers, each given to the "
            "image of another one; `noise`: every image gets the answer to a picture of noise; `black`: to a black "
            f"picture.{_prior_text(metrics)}",
            _intervals_text(metrics.get("bootstrap")),
            "**Figures**, from 0 to 1, higher is better: F1 weighs right, invented and missed labels; Acc@IoU is the "
            "share of true boxes that an answered box of the same label overlaps with an IoU above the number; mAP "
            "and FROC rank the answered boxes by their score; AUROC is the chance that a radiograph with the label "
            "gets the higher probability than one without (0.5: no better than a coin).",
            paper,
        ],
    )


def _prior_text(metrics: dict[str, Any]) -> str:
    """What the prior is, and what it was learnt from; nothing where there is none."""
    source = at(metrics["controls"], PRIOR, "source")
    if source is None:
        return ""
    number_of = f"{source['radiographs_with_boxes']:,} radiographs"
    learnt = (
        f"the boxes of {number_of} of `{source['split']}`"
        if source["split"] is not None
        else f"the boxes of this split's {number_of} that have any, each fifth of the patients from the other four"
    )
    return (
        f" `{PRIOR}`, of boxes alone: every radiograph gets boxes without any picture, where most of their label lie, "
        f"learnt from {learnt}. For mAP and FROC they are up to five of each label, scored by how many they cover at "
        "IoU 0.3; for Acc@IoU the best one of each label, as if the labels were told: false boxes cost nothing there."
    )


def _intervals_text(bootstrap: dict[str, Any] | None) -> str:
    """How the intervals were made, as far as the metrics say."""
    means = (
        " mAP and the mean AUROC are means over the same labels in each resample and in the figure: a label of which "
        "no image was drawn keeps its own figure of the whole split. Where many labels have one or two images, their "
        "intervals are too narrow: so few images do not tell how a label varies."
    )
    if bootstrap is None:
        return "**Intervals**: bootstrap over the radiographs." + means
    if bootstrap["unit"] == "patient":
        return (
            f"**Intervals**: bootstrap over the {bootstrap['patients']:,} patients, each with all radiographs." + means
        )
    return (
        "**Intervals**: bootstrap over the radiographs. The data does not tell the patients: if some have several "
        "radiographs, the intervals are too narrow." + means
    )


def _honesty_section(metrics: dict[str, Any]) -> Section:
    rows = []
    for task in asked_tasks(metrics):
        scores = metrics[task.name]
        images, without = (at(scores, "classification", *path) for path in (["num_images"], ["no_finding", "support"]))
        rows.append(
            [
                plain_name(task),
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
            *_beside_prior(headlines(metrics)),
        ],
    )


def _beside_prior(figures: Sequence[Headline]) -> Iterator[str]:
    """Whether the boxes are better than places alone, where it can be told."""
    told = [figure for figure in figures if figure.beats(PRIOR) is not None]
    equal = [figure for figure in told if not figure.beats(PRIOR)]
    if equal:
        reached = "; ".join(
            f"{figure.title} {number(figure.value)} against {number(figure.controls[PRIOR])}" for figure in equal
        )
        yield (
            f"**In {len(equal)} of {len(told)} figures of boxes the answers are not above the location prior**, which "
            f"never saw a picture (the lower bound of their interval is not): {reached}. These figures do not show "
            "that boxes were found by looking."
        )
    elif told:
        yield f"All {len(told)} figures of boxes are above the location prior, which never saw a picture."


def _decisions_section(metrics: dict[str, Any], task: Task) -> Iterator[Section]:
    """Sensitivity, specificity and predictive values, if the metrics have them."""
    decisions = metrics[task.name].get("decisions")
    if decisions is None:
        return
    measures = ("sensitivity", "specificity", "ppv", "npv")
    present = {
        name: counts
        for name, counts in decisions.items()
        if name != "Finding" and counts["true_positives"] + counts["false_negatives"]
    }
    rows = []
    for name, counts in decisions.items():
        shown = measures if name in present or name == "Finding" else ()  # of a label without an image: dashes
        rows.append([name, *(number(counts[key] if key in shown else None) for key in measures)])
        rows[-1] += [str(counts[key]) for key in COUNTS]
    if present:
        means = [_mean(counts[key] for counts in present.values()) for key in measures]
        labels = len(decisions) - 1
        rows.insert(
            1, [f"mean of the {len(present)} of {labels} labels that an image has", *map(number, means), *(["-"] * 4)]
        )
    if task.kind.has_boxes:
        words = (
            "Whole radiographs: one is said to have a label where the answer has a box of it with at least the "
            "checkpoint's own threshold, wherever the box lies."
            + (" This checkpoint has no thresholds: every box counts." if not metrics.get("thresholds") else "")
        )
    else:
        words = "Whole radiographs: one is said to have a diagnosis where the answer names it."
    words += (
        " **Sensitivity**: of the radiographs with the label, the share that is said to have it; **specificity**: of "
        "those without, the share that is not. **PPV**: of what is said, the share that is right; **NPV**: of what is "
        "not said, the share that is rightly not; both depend on how common the label is in this split. TP, FP, TN, "
        "FN: radiographs rightly and wrongly said to have it, rightly and wrongly not. A label without an image has "
        "dashes, and no part in the mean."
    )
    head = ["", "sensitivity", "specificity", "PPV", "NPV", "TP", "FP", "TN", "FN"]
    yield Section("decisions", f"{plain_name(task)}: right and wrong radiographs", [words, Table(head, rows)], task)


def _mean(values: Iterable[float | None]) -> float | None:
    """Of those that are not None; None where all are."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _classification_section(metrics: dict[str, Any], task: Task) -> Section:
    scores, paper = metrics[task.name]["classification"], shown_paper_figures(metrics, task)
    control = at(metrics["controls"], "shuffled", task.name, "classification")
    rows = []
    for key in ("finding", "no_finding", *AVERAGES):
        if key not in scores:  # metrics of an older program have no average of the labels that are present
            continue
        name = {
            "finding": "Finding",
            "no_finding": "No finding",
            "macro_present": f"labels, macro average of the {at(scores, 'macro_present', 'labels')} that an image has",
        }.get(key, f"labels, {key} average")
        rows.append([name, *_classification_cells(scores[key], at(control, key))])
        if MICRO_F1 in paper:
            rows[-1].append(number(paper.get(("classification", key, "f1"))))
    head = ["", "precision", "recall", "F1", "F1 shuffled", "support"]
    if MICRO_F1 in paper:
        head.append("F1 in the paper")
    return Section(
        "classification",
        f"{plain_name(task)}: what is named",
        [
            "Finding against No finding asks whether anything is there at all; the averages are over the labels. "
            "The macro average counts a label that no image has as 0, as scikit-learn does and the paper's tables are "
            "compared with; below it is the mean over the others. Support counts the images, of an average the labels "
            "of all images.",
            Table(head, rows),
        ],
        task,
    )


def _boxes_section(metrics: dict[str, Any], task: Task) -> Section:
    scores, detection = metrics[task.name]["localization"], metrics[task.name]["detection"]
    controls = [name for name in shown_controls(metrics) if name in ("shuffled", PRIOR)]
    sources = [scores, *(at(metrics["controls"], control, task.name, "localization") for control in controls)]
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
        [name, *(number(at(source, key, threshold)) for source in sources for threshold in thresholds)]
        for key, name in definitions
    ]
    paper = shown_paper_figures(metrics, task)
    if paper:
        printed = [number(paper.get(("localization", "accuracy_at_iou_release", t))) for t in thresholds]
        accuracies.append(
            [f"the paper's LiteGPT, on {PAPER_DATA}", *printed, *(["-"] * len(thresholds) * len(controls))]
        )
    heads = [f"{name}{threshold}" for name in ("Acc@", *(f"{one} @" for one in controls)) for threshold in thresholds]
    of_controls = {name: at(top_figures(metrics, task), "controls", name) for name in controls}
    measured = metrics[task.name].get("froc_measured_to") or {}
    rows, points = [], []
    for name, maps, froc, end in (
        *((f"IoU {t}", at(detection, "map", t), at(detection, "froc", t), measured.get(t)) for t in detection["map"]),
        *((f"IoU 0.4, {name}", at(own, "map", "0.4"), at(own, "froc"), None) for name, own in of_controls.items()),
    ):
        sensitivities = at(froc, "sensitivity") or {}
        points = points or list(sensitivities)
        cells = [_froc_cell(sensitivities.get(point), float(point), end) for point in points]
        rows.append([name, number(maps), *cells, number(at(froc, "mean"))])
    return Section(
        "boxes",
        f"{plain_name(task)}: boxes",
        [
            "**Acc@t**: the share of true boxes for which the answer has a box of the same label with an IoU above t, "
            "whatever its score. Beside it what controls reach: "
            f"{'; '.join(f'`{name}`: {BOX_CONTROLS[name]}' for name in controls)}.",
            Table(["definition", *heads], accuracies),
            f"**mAP** and **FROC** rank the {detection['num_detections']} answered boxes by their score: mAP is the "
            "mean over the labels of the area under the precision envelope, FROC the sensitivity, over all labels, "
            "at so many false boxes an image, and its mean."
            + (
                " In brackets: not measured, as the answers have fewer false boxes than that; the last sensitivity "
                "stands for it, in the mean too."
                if any(cell.startswith("(") for row in rows for cell in row)
                else ""
            ),
            Table(["", "mAP", *(f"at {_fraction(point)}" for point in points), "FROC mean"], rows),
            *_source_items(metrics[task.name].get("box_sources")),
        ],
        task,
    )


SOURCES = {  # by their names in metrics.json; what is not measured is left out
    "answer": "the answers",
    "candidates": "with what they leave out",
    "views": "several views together",
    "detector": "the detector",
    "fused": "answers and detector",
}


def _source_items(scores: dict[str, Any] | None) -> Iterator[str | Table]:
    """What is found beside the answers; nothing where nothing is."""
    if scores is None:
        return
    figures, intervals = scores["figures"], scores["intervals"]
    names = {name: title for name, title in SOURCES.items() if name in figures}
    columns = {
        "mAP@0.4": ("map", "0.4"),
        "mAP@0.5": ("map", "0.5"),
        "FROC mean": ("froc", "mean"),
        "all found": ("sensitivity",),
        "F1@0.5": ("box_f1", "0.5"),
        "ECE": ("ece",),
        **{f"Acc@{t} given the label": ("accuracy_given_label", t) for t in figures["answer"]["accuracy_given_label"]},
        "boxes an image": ("boxes",),
    }

    def cell(name: str, path: tuple[str, ...]) -> str:
        if "_less_" in name and path in (("ece",), ("boxes",)):
            return ""  # more or fewer of them is neither better nor worse
        interval = at(intervals, name, *path)
        return number(at(figures, name, *path)) + (f" ({interval_text(interval)})" if interval else "")

    yield (
        "**Beside the answers.** What they leave out: findings that they do not name, with the model's own "
        "probability of standing there. Several views: the answers to slightly moved views, fused. The detector: "
        "dense heads that name findings without a word. `all found`: the sensitivity of all boxes; F1 from the "
        "checkpoint's operating points on; given the label: of each label that an image has, whether its best-scored "
        "box meets a true one. 95 % intervals in brackets."
    )
    others = {"answer": "the answers", "candidates": "the answers with that", "detector": "the detector"}
    rows = dict(names)
    for one, title in names.items():
        for other, name in {f"{one}_shuffled": "another image's", **others}.items():
            if f"{one}_less_{other}" in figures:
                rows[f"{one}_less_{other}"] = f"{title}, less {name}"
    table = [[title, *(cell(name, path) for path in columns.values())] for name, title in rows.items()]
    yield Table(["", *columns], table)
    yield "Their sensitivity at so many false boxes an image (IoU 0.4):"
    points = list(figures["answer"]["froc"]["sensitivity"])
    yield Table(
        ["", *(f"at {_fraction(point)}" for point in points)],
        [[title, *(cell(name, ("froc", "sensitivity", point)) for point in points)] for name, title in names.items()],
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
    return Section("labels", f"{plain_name(task)}: each label", [words, Table(head, rows)], task)


def _others_section(metrics: dict[str, Any], task: Task) -> Section:
    """What others report of the mean AUROC on this data set, if they do."""
    name = metrics["data_set"]["name"]
    rows = [[model, setting, labels, number(value)] for model, setting, labels, value in PUBLISHED_AUROC.get(name, ())]
    labels = len(metrics[task.name]["classification"]["per_class"])
    mean = number(at(top_figures(metrics, task), "auroc", "macro"))
    ours = ["this checkpoint", f"{task.identifier} on {name}", f"{labels} labels", mean]
    if name == PAPER_DATA:
        words = (
            "What others report on VinDr-CXR. CXR-CLIP's mean is over the 18 labels, local and global, that ten or "
            "more test images have, without other diseases and other lesions; it gives no values of single labels, "
            "and ECAMP did not evaluate VinDr-CXR."
        )
    elif rows:
        words = "What others report; their means leave No finding out."
    else:
        words = (
            f"What others report is of {' and '.join(PUBLISHED_AUROC)}. **They do not compare with these of {name}** "
            "and are left out."
        )
    table = Table(["model", "setting", "mean over", "AUROC"], [ours, *rows])
    return Section("others", f"{plain_name(task)}: AUROC of others", [words, table], task)


def _operating_points_section(metrics: dict[str, Any], task: Task) -> Section:
    topic, title = "operating-points", f"{plain_name(task)}: operating points"
    points = metrics[task.name]["operating_points"]
    if not points:
        words = "This checkpoint has no thresholds; `evaluation_scripts/calibrate.py` chooses them on validation."
        return Section(topic, title, [words], task)
    keys = ("threshold", "precision", "recall", "false_positives_per_image")
    rows = [
        [label, *(number(at(values, key)) for key in keys), str(_or_dash(at(values, "num_boxes")))]
        for label, values in points.items()
    ]
    words = (
        "What boxes of at least the checkpoint's own threshold reach here at IoU 0.4. The thresholds were chosen on "
        "validation, the figures are of this split."
    )
    if any(at(values, "threshold") == 0 for values in points.values()):
        words += (
            " **A threshold of 0**: all boxes of the label are kept; on validation no higher threshold gave a better "
            "F1, most often because nearly all its boxes were right there."
        )
    return Section(
        topic,
        title,
        [
            words,
            Table(["label", "threshold", "precision", "recall", "false boxes an image", "true boxes"], rows),
        ],
        task,
    )


def _text_section(metrics: dict[str, Any], task: Task) -> Section:
    scores, paper = metrics[task.name]["text"], shown_paper_figures(metrics, task)
    control = at(metrics["controls"], "shuffled", task.name, "text")
    is_papers = metrics["data_set"]["name"] == PAPER_DATA
    words = "Overlap with the true answers, boxes taken out; CIDEr from 0 to 10, the others from 0 to 1."
    if task.kind.has_boxes and ("text", "cider") in paper:
        words += " The paper's are over radiographs with findings alone."
    rows = []
    for key, name in TEXT_SCORES.items():
        if scores[key] is not None:
            rows.append([name, number(scores[key]), number(at(control, key))])
            rows[-1] += [number(paper.get(("text", key)))] if is_papers else []
    head = ["", "answers", "shuffled", *([f"paper, on {PAPER_DATA}"] if is_papers else [])]
    return Section("text", f"{plain_name(task)}: wording", [words, Table(head, rows)], task)


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
            blocks += [f"**{plain_name(task)}**{words}", Table(["by", "group", "images", *columns], rows)]
    if blocks:
        words = "Differences between small groups may be chance; the intervals above are of all radiographs together."
        yield Section("groups", "By view, sex and age", [words, *blocks])


def top_figures(metrics: dict[str, Any], task: Task) -> dict[str, Any]:
    """The metrics, if the figures on top of them are of this task; {} if they are of another of its kind."""
    return metrics if task is headline_task(metrics, task.kind) else {}


def plain_name(task: Task) -> str:
    """A task in plain words, then its identifier: "Findings [identify]"."""
    return f"{task.kind.output.capitalize()} {task.identifier}"


def _classification_cells(scores: dict[str, Any], control: dict[str, Any] | None) -> list[str]:
    """Precision, recall, F1, F1 shuffled and support; dashes for a label that no image has."""
    values = [*(scores[key] for key in ("precision", "recall", "f1")), at(control, "f1")]
    return [*(number(value if scores["support"] else None) for value in values), str(scores["support"])]


def _froc_cell(sensitivity: float | None, point: float, measured_to: float | None) -> str:
    """A sensitivity at `point` false boxes an image, in brackets beyond what was measured."""
    text = number(sensitivity)
    return f"({text})" if sensitivity is not None and measured_to is not None and point > measured_to else text


def _fraction(point: str) -> str:
    """0.125 -> 1/8."""
    return point if float(point) >= 1 else f"1/{round(1 / float(point))}"


def _or_dash(value: Any) -> Any:
    return "-" if value is None else value
