"""`metrics.json` as a page that a person reads."""

from typing import Any

from datasets_scripts.instructions import INSTRUCTIONS
from processing.pipeline_litegpt import FINDING_TASKS

AVERAGES = ("micro", "macro", "weighted", "samples")
TEXT_SCORES = {
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "rougeLsum": "ROUGE-Lsum",
    "bleu1": "BLEU-1",
    "bleu2": "BLEU-2",
    "bleu3": "BLEU-3",
    "bleu4": "BLEU-4",
    "meteor": "METEOR",
    "meteor_without_synonyms": "METEOR without synonyms",
    "cider": "CIDEr",
}


def write_report(metrics: dict[str, Any], model: str, data: str, split: str) -> str:
    """The report in Markdown. Every figure stands beside its control: the score of the same answers when shuffled."""
    control = metrics["control"]
    lines = [
        "# LiteGPT: evaluation",
        "",
        f"Checkpoint `{model}`, data `{data}`, split `{split}`, greedy answers. **Control**: the mean score of the "
        "same answers when every image gets those of another one: what a model that is blind to the image reaches.",
        "",
    ]
    for task in (name for name in INSTRUCTIONS if name in metrics):
        scores, of_control = metrics[task], control[task]
        classification, control_classification = scores["classification"], of_control["classification"]
        lines += [
            f"## `[{task}]`",
            "",
            f"{classification['num_images']} images; {scores['num_unknown']} more do not tell the answer and are "
            f"left out. {scores['num_malformed']} answers could not be parsed and count as wrong.",
            "",
            "| | precision | recall | F1 | F1 of the control | images |",
            "|---|---|---|---|---|---|",
        ]
        for key, name in (("finding", "Finding"), ("no_finding", "No finding")):
            lines.append(_classification_row(name, classification[key], control_classification[key]))
        lines += [
            _classification_row(f"{key} average", classification[key], control_classification[key]) for key in AVERAGES
        ]
        if task in FINDING_TASKS:
            lines += _localization(scores["localization"], of_control["localization"])
        lines += ["", "| label | precision | recall | F1 | F1 of the control | images |", "|---|---|---|---|---|---|"]
        for label, values in classification["per_class"].items():
            lines.append(_classification_row(label, values, control_classification["per_class"][label]))
        lines += ["", *_text(scores["text"], of_control["text"]), ""]
    return "\n".join(lines)


def _localization(scores: dict[str, Any], control: dict[str, Any]) -> list[str]:
    definitions = (
        ("accuracy_at_iou", f"over all {scores['num_boxes']} true boxes"),
        (
            "accuracy_at_iou_matched",
            f"over the {scores['num_matched_boxes']} whose label was named (the paper's text)",
        ),
        ("accuracy_at_iou_release", "over all, inclusive pixels of a 100 x 100 grid (the release's code)"),
    )
    thresholds = list(scores["accuracy_at_iou"])
    heads = [f"Acc@{threshold}" for threshold in thresholds] + [f"control @{threshold}" for threshold in thresholds]
    lines = ["", "| boxes | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    for key, name in definitions:
        cells = [_number(source[key][threshold]) for source in (scores, control) for threshold in thresholds]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def _text(scores: dict[str, Any], control: dict[str, Any]) -> list[str]:
    names = [name for name in TEXT_SCORES if scores[name] is not None]
    return [
        "Wording of the answers against the true ones, boxes taken out (CIDEr from 0 to 10, the others from 0 to 1):",
        "",
        "| | " + " | ".join(TEXT_SCORES[name] for name in names) + " |",
        "|---" * (len(names) + 1) + "|",
        "| answers | " + " | ".join(_number(scores[name]) for name in names) + " |",
        "| control | " + " | ".join(_number(control[name]) for name in names) + " |",
    ]


def _classification_row(name: str, scores: dict[str, Any], control: dict[str, Any]) -> str:
    cells = [_number(scores[key]) for key in ("precision", "recall", "f1")] + [_number(control["f1"])]
    return f"| {name} | " + " | ".join(cells) + f" | {scores['support']} |"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
