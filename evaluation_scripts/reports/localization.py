"""What `litegpt localize` says of one run, in Markdown: by label, and beside the controls.

    as_markdown(metrics)     # "# Where outputs/classifier sees findings\n..."

In: metrics.json. Out: a text; the published figures follow it (`chestx_ray8_tables.py`).
"""

from typing import Any

from litegpt.evaluation_scripts.reports.sections import at, interval_text

COLUMNS = {  # of the table beside the controls
    "IoU > .1": ("accuracy_at_iou", "0.1"),
    "IoU > .3": ("accuracy_at_iou", "0.3"),
    "IoU > .5": ("accuracy_at_iou", "0.5"),
    "one box, IoU > .3": ("one_box_accuracy_at_iou", "0.3"),
    "IoBB > .25": ("accuracy_at_iobb", "0.25"),
    "IoBB > .5": ("accuracy_at_iobb", "0.5"),
    "pointing game": ("pointing_game",),
}
NAMES = {
    "map": "the map",
    "another_image": "another radiograph's map",
    "random_weights": "random weights",
    "centre": "centre prior",
    "prior": "location prior",
}
RULES = {"regions": "each isolated region", "peak": "the highest region"}
FEW_BOXES = 30  # of a label: its figures have wide intervals


def as_markdown(metrics: dict[str, Any]) -> str:
    """The report of one run."""
    data = metrics["data_set"]
    lines = [
        f"# Where {metrics['model_name_or_path']} sees findings",
        "",
        f"{data['name']}, {metrics['split']}: {data['radiographs']:,} radiographs, {data['with_boxes']:,} of them "
        f"with boxes of its labels. Maps: {metrics['method']}; boxes around {RULES[metrics['boxes']['rule']]} above "
        f"{' and above '.join(f'{value:g}' for value in metrics['boxes']['thresholds'])} of 255.",
    ]
    if metrics["unread"]:
        lines += ["", f"**{len(metrics['unread']):,} radiographs could not be read and are left out.**"]
    if "given_class" in metrics:
        lines += ["", *_told(metrics["given_class"], metrics["bootstrap"]["unit"], metrics.get("prior"))]
    if "classification" in metrics:
        lines += ["", *_by_label(metrics)]
    return "\n".join(lines) + "\n"


def _told(given: dict[str, Any], unit: str, prior: dict[str, Any] | None) -> list[str]:
    """Maps whose label is told, beside the controls."""
    rows = []
    for title, kind, of_kind in (
        ("mean of the labels", "figures", "intervals"),
        ("all boxes together", "pooled", "pooled_intervals"),
    ):
        figures, intervals = given[kind], given[of_kind]
        for who, name in NAMES.items():
            if who in figures:
                cells = [_cell(at(figures, who, *path), at(intervals, who, *path)) for path in COLUMNS.values()]
                rows.append([f"{name}, {title}", *cells])
        for who, name in NAMES.items():
            if f"map_less_{who}" in figures:
                key = f"map_less_{who}"
                cells = [_cell(at(figures, key, *path), at(intervals, key, *path), True) for path in COLUMNS.values()]
                rows.append([f"the map less {name}, {title}", *cells])
    learnt = "other radiographs" if at(prior, "split") is None else f"`{prior['split']}`"
    return [
        "## The label is told",
        "",
        f"Share of true boxes that any box of their label's map finds ({given['boxes_a_map']:.1f} boxes a map), or "
        "its strongest box alone; pointing game: the map is highest within a true box. In brackets 95 % intervals, "
        f"drawn by {unit}. The location prior has one box and one place of each label for all, where most of its "
        f"boxes lie in {learnt}. A map that is not above its controls explains nothing.",
        "",
        *markdown_table(["", *COLUMNS], rows),
        "",
        *markdown_table(
            ["label", "true boxes", *COLUMNS],
            [
                [
                    f"{label}{' (few)' if values['num_boxes'] < FEW_BOXES else ''}",
                    str(values["num_boxes"]),
                    *(_cell(at(values, *path)) for path in COLUMNS.values()),
                ]
                for label, values in given["per_class"].items()
            ],
        ),
    ]


def _by_label(metrics: dict[str, Any]) -> list[str]:
    """AUROC of every label, and the boxes of those that are called present."""
    found, rows = metrics["classification"], []
    areas, intervals = (at(found, kind, "classifier", "all") for kind in ("figures", "intervals"))
    boxes = at(metrics, "localization", "per_class") or {}
    for label, cut_off in metrics["present"].items():
        scores = boxes.get(label)
        rows.append(
            [
                label,
                _cell(at(areas, "per_label", label), at(intervals, "per_label", label)),
                f"{cut_off:.3f}",
                *(
                    _cell(at(scores, *path)) if scores else "-"
                    for path in (
                        ("accuracy_at_iou", "0.3"),
                        ("false_positives_at_iou", "0.3"),
                        ("accuracy_at_iobb", "0.25"),
                        ("false_positives_at_iobb", "0.25"),
                        ("ambiguous_false_positives",),
                    )
                ),
            ]
        )
    mean = _cell(at(areas, "macro"), at(intervals, "macro"))
    shuffled = _cell(at(found, "figures", "shuffled", "all", "macro"))
    anything = _cell(at(found, "figures", "anything_there", "all", "macro"))
    return [
        "## Labels, and boxes of those that are called present",
        "",
        f"AUROC: {mean}, the mean over the labels; {shuffled} with shuffled answers, {anything} for knowing only "
        "which radiographs are abnormal. A label is called present from a score on that was chosen on a validation. "
        "Acc. and false boxes an image (AFP) are of radiographs with a true box; ambiguous: false boxes of a label "
        "that the radiograph has, but without a box. They are among the AFP.",
        "",
        *markdown_table(
            ["label", "AUROC", "present from", "Acc. at IoU .3", "AFP", "Acc. at IoBB .25", "AFP", "ambiguous"], rows
        ),
    ]


def _cell(value: float | None, interval: list[float] | None = None, signed: bool = False) -> str:
    text = "-" if value is None else f"{value:{'+' if signed else ''}.3f}"
    return text if interval is None else f"{text} ({interval_text(interval)})"


def markdown_table(head: list[str], lines: list[list[str]]) -> list[str]:
    """The lines of a table."""
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *lines)]
