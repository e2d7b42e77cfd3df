"""A model card and `metrics.json` -> the card with the figures: its section "Figures" and its metadata.

    card = Path("outputs/demo/checkpoint/README.md").read_text(encoding="utf-8")
    with_figures(card, metrics, "acme/litegpt")  # the same with "VinDr-CXR, split `test`, 3,000 radiographs ..."

In: the card of a checkpoint, also where a person edited it, and what `evaluate_litegpt.py` measured. Out: the card's
text; `figures.md.jinja` lays out the section.
"""

import re
from typing import Any

from huggingface_hub import EvalResult, ModelCard

from litegpt.common.templates import template
from litegpt.datasets_scripts.preparation.dataset_card import license_name
from litegpt.evaluation_scripts.reports.sections import (
    PRIOR,
    Headline,
    asked_tasks,
    headlines,
    interval_text,
    number,
)
from litegpt.processing.tasks import DIAGNOSES, FINDINGS

HUB_TASKS = {FINDINGS: "object-detection", DIAGNOSES: "image-classification"}  # by the kind of the answer


def with_figures(card: str, metrics: dict[str, Any], model_name: str) -> str:
    """A checkpoint's card whose metadata (`model-index`) and section "Figures" say what `metrics.json` says.

    The rest of the card stays as it is, also where a person edited it.

    Args:
        card: README.md, with its metadata.
        metrics: as `evaluate_litegpt.py` writes it, with `data_set`.
        model_name: what the results are listed under; the repository's id.

    Raises:
        ValueError: the metrics are of an older `evaluate_litegpt.py`.
    """
    data_set, figures = metrics["data_set"], headlines(metrics)
    computed = [figure for figure in figures if figure.value is not None]
    parsed = ModelCard(card)
    parsed.data.model_name = model_name
    parsed.data.eval_results = [
        EvalResult(
            task_type=HUB_TASKS[figure.task.kind],
            dataset_type=license_name(data_set["name"]),
            dataset_name=data_set["name"],
            dataset_split=data_set["split"],
            metric_type=figure.metric,
            metric_name=figure.name,
            metric_value=round(figure.value, 4),
        )
        for figure in computed
    ]
    parsed.data.metrics = sorted({figure.metric for figure in computed})
    section = f"## Figures\n\n{_figures_text(metrics, figures)}\n"
    text, replaced = re.subn(
        r"^## Figures\n.*?(?=^## |\Z)", lambda _: section, parsed.text, count=1, flags=re.M | re.S
    )
    parsed.text = text if replaced else f"{parsed.text.rstrip()}\n\n{section}"
    return str(parsed)


def _figures_text(metrics: dict[str, Any], figures: list[Headline]) -> str:
    return template(__file__, "figures.md.jinja").render(
        data_set=metrics["data_set"],
        rows=[
            [
                figure.name,
                number(figure.value),
                interval_text(figure.interval),
                *(number(figure.controls[control]) for control in ("shuffled", PRIOR)),
            ]
            for figure in figures
        ],
        tasks=[(task, metrics[task.name]) for task in asked_tasks(metrics)],
    )
