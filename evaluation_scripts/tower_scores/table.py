"""The scores of a fine-tuned tower as a short table, to be printed.

In: what metrics.json holds. Out: text; a line a figure, with its 95 % interval and the controls beside it.

    classification of 1,234 test radiographs, chosen by auroc; learnt from 785
                                   tower               shuffled   anything_there
    AUROC                          .791 [.77, .81]     .500       .744
    ...
"""

from collections.abc import Mapping
from typing import Any

from litegpt.evaluation_scripts.tower_scores.detection import RANGE_NAME, THRESHOLDS


def score_table(metrics: Mapping[str, Any]) -> str:
    """The table of a run; warnings stand below it."""
    rows = {"classification": _labels, "segmentation": _masks, "detection": _boxes}[metrics["task"]](metrics)
    numbers = metrics["data_set"]["radiographs"]
    split = "test" if "test" in numbers else "validation"
    lines = [
        f"{metrics['task']} of {numbers[split]:,} {split} radiographs by {metrics['tower']}; learnt from "
        f"{numbers['train']:,}, chosen by {metrics['training']['chosen_by']}"
    ]
    controls = list(dict.fromkeys(name for _, values in rows for name in values if name != "tower"))
    lines.append(f"{'':36}{'tower':24}{''.join(f'{name:>16}' for name in controls)}".rstrip())
    for name, values in rows:
        others = "".join(f"{_number(values[control]) if control in values else '':>16}" for control in controls)
        lines.append(f"{name:36}{values['tower']:24}{others}".rstrip())
    if metrics["left_out"]:
        lines.append(f"without {', '.join(metrics['left_out'])}: why, metrics.json says (left_out)")
    lines += [f"note: {warning}" for warning in metrics["warnings"]]
    return "\n".join(lines)


Row = tuple[str, dict[str, Any]]


def _labels(metrics: Mapping[str, Any]) -> list[Row]:
    figures, intervals = metrics["figures"], metrics["intervals"]
    if "accuracy" in figures:
        found = figures["accuracy"]
        shown = _with_interval(found["tower"], intervals["accuracy"]["tower"])
        rows: list[Row] = [
            ("accuracy", {"tower": shown, "shuffled": found["shuffled"], "constant": found["constant"]}),
            ("mean recall", {"tower": _with_interval(figures["mean_recall"], intervals["mean_recall"])}),
        ]
        return rows + [
            (f"recall, {label}", {"tower": _with_interval(value, intervals["recall"][label])})
            for label, value in figures["recall"].items()
        ]
    rows = []
    for among in ("all", "abnormal"):
        name = "AUROC" if among == "all" else "AUROC among abnormal ones"
        values = {"tower": _with_interval(figures["tower"][among]["macro"], intervals["tower"][among]["macro"])}
        for control in ("shuffled", "anything_there"):
            values[control] = figures[control][among]["macro"]
        rows.append((name, values))
    for label in metrics["labels"]:
        name = f"  {label} ({metrics['counts'][label]['positive']:,})"
        own = figures["tower"]["all"]["per_label"][label], intervals["tower"]["all"]["per_label"][label]
        others = {name: figures[name]["all"]["per_label"][label] for name in ("shuffled", "anything_there")}
        rows.append((name, {"tower": _with_interval(*own), **others}))
    return rows


def _masks(metrics: Mapping[str, Any]) -> list[Row]:
    figures, intervals = metrics["figures"], metrics["intervals"]
    controls = ("predict_nothing", "prior", "shuffled")
    return [
        (
            f"Dice, {among}",
            {"tower": _with_interval(value, intervals["tower"][among])}
            | {control: figures[control][among] for control in controls},
        )
        for among, value in figures["tower"].items()
    ]


def _boxes(metrics: Mapping[str, Any]) -> list[Row]:
    figures, intervals = metrics["figures"], metrics["intervals"]
    rows = []
    names = {
        "any_finding": "AP of any finding, IoU",
        "map": "mAP, IoU",
        "accuracy_given_label": "Accuracy given the label, IoU",
    }
    for what, name in names.items():
        for key in (key for key in (*THRESHOLDS, RANGE_NAME) if key in figures.get(what, {}).get("tower", ())):
            values = {"tower": _with_interval(figures[what]["tower"][key], intervals[what]["tower"].get(key))}
            if key in THRESHOLDS:
                values |= {control: figures[what][control][key] for control in ("shuffled", "prior")}
            rows.append((f"{name} {key}", values))
    own = figures["froc"]["tower"]["mean"], intervals["froc"]["tower"]["mean"]
    others = {control: figures["froc"][control]["mean"] for control in ("shuffled", "prior")}
    return [*rows, ("FROC, mean sensitivity", {"tower": _with_interval(*own), **others})]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _with_interval(value: float | None, interval: list[float] | None) -> str:
    return _number(value) if interval is None else f"{_number(value)} [{interval[0]:.3f}, {interval[1]:.3f}]"
