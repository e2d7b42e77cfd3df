"""Published figures that ours stand beside: the tables of the LiteGPT paper (arXiv 2407.12064), AUROC of others.

    TABLES[3].paper["litegpt"]                             # (12.54, 10.5, 8.12)
    paper_figures("vqa")["classification", "micro", "f1"]  # 0.6
    PUBLISHED_AUROC["ChestX-ray14"][0]                     # ("ECAMP", "linear probe on ChestX-ray14", ...)

In: the name of a task. Out: the paper's figures by their paths in metrics.json. The tables are as printed, in percent.
"""

from typing import NamedTuple

PAPER_DATA = "VinDr-CXR"
TEXT_SCORES = {  # key in metrics.json: name
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


class PaperTable(NamedTuple):
    """A table of the paper.

    Attributes:
        title: what it measures of which task.
        stage: the training stage that is evaluated, 1 or 2.
        columns: paths in the metrics of its task, by heading.
        paper: rows of printed numbers, by what was evaluated; percent, but CIDEr as it is.
    """

    title: str
    stage: int
    columns: dict[str, tuple[str, ...]]
    paper: dict[str, tuple[float, ...]]


# The numbers of the paper's code, which counts all true boxes, inclusive pixels.
ACCURACY = {f"Accuracy@{t}": ("localization", "accuracy_at_iou_release", t) for t in ("0.3", "0.4", "0.5")}
TEXT = {heading: ("text", key) for key, heading in TEXT_SCORES.items() if key != "meteor_without_synonyms"}
TABLES = {
    1: PaperTable(
        "Finding against No finding, [vqa]",
        2,
        {
            f"{name}, {score}": ("classification", key, score_key)
            for score, score_key in (("precision", "precision"), ("recall", "recall"), ("F1", "f1"))
            for name, key in (("Finding", "finding"), ("No finding", "no_finding"))
        },
        {
            "minigpt_v2": (73, 83, 59, 90, 66, 86),
            "biomedclip": (88, 82, 54, 97, 67, 89),
            "pubmedclip": (73, 80, 49, 92, 59, 85),
            "litegpt": (84, 83, 59, 95, 70, 89),
        },
    ),
    2: PaperTable(
        "F1 of the diagnoses, [vqa]; the paper does not say which average, ours is the micro average",
        2,
        {"F1 (ours: micro)": ("classification", "micro", "f1")},
        {"minigpt_v2": (53,), "biomedclip": (59,), "pubmedclip": (55,), "litegpt": (60,)},
    ),
    3: PaperTable(
        "Localization, [identify]; ours as the paper's code counts: over all true boxes, inclusive pixels",
        1,
        ACCURACY,
        {
            "minigpt_v2": (5.9, 5.01, 3.38),
            "biomedclip": (10.72, 9.01, 6.75),
            "pubmedclip": (6.23, 4.38, 2.86),
            "litegpt": (12.54, 10.5, 8.12),
        },
    ),
    4: PaperTable(
        "Text, [identify]",
        1,
        TEXT,
        {
            "minigpt_v2": (42.85, 35.37, 42.28, 42.27, 21.84, 20.6, 19.4, 18.17, 61.54, 0.29),
            "biomedclip": (49.51, 38.77, 48.5, 48.46, 32.76, 30.56, 28.62, 26.71, 68.73, 0.46),
            "pubmedclip": (22.3, 14.31, 21.58, 21.6, 14.16, 12.95, 11.95, 10.98, 34, 0.1),
            "litegpt": (50.1, 40.58, 48.75, 48.74, 28.96, 27.02, 25.37, 23.74, 61.92, 0.56),
        },
    ),
    5: PaperTable(
        "Text, [vqa]",
        2,
        TEXT,
        {
            "minigpt_v2": (94.48, 93.35, 94.47, 94.47, 94.22, 92.32, 91.15, 90.05, 93.91, 7.26),
            "biomedclip": (95.18, 94.14, 95.18, 95.18, 94.43, 92.69, 91.61, 90.59, 94.8, 7.57),
            "pubmedclip": (93.31, 91.8, 93.31, 93.31, 88.59, 86.33, 84.82, 83.34, 92.58, 7.06),
            "litegpt": (95.12, 94.08, 95.12, 95.12, 94.45, 92.7, 91.6, 90.56, 94.74, 7.52),
        },
    ),
    6: PaperTable(
        "Localization by identifier, counted as in Table 3",
        1,
        ACCURACY,
        {"litegpt_grounding": (11.98, 10.31, 8.04), "litegpt": (12.54, 10.5, 8.12)},
    ),
}
# LiteGPT's row in each table, by task: what stands beside a report's figures. Other tasks are not in the paper.
PAPER_ROWS = {
    "identify": {3: "litegpt", 4: "litegpt"},
    "vqa": {1: "litegpt", 2: "litegpt", 5: "litegpt"},
    "grounding": {6: "litegpt_grounding"},
}
# By data set: model, setting, labels, mean AUROC. CXR-CLIP (arXiv 2310.13292): Table 2, Swin-Tiny, and the table of
# linear probes and fine-tuning in its supplement. ECAMP (arXiv 2312.13316): Tables 1 and 2, all training data; it does
# not report VinDr-CXR. Its values of single labels are left out: in Table S4 they seem to stand in the order of
# ChestX-ray14's labels under alphabetical headings.
PUBLISHED_AUROC = {
    "VinDr-CXR": (
        ("CXR-CLIP", "zero-shot, trained on MIMIC-CXR and CheXpert", "18 findings and diagnoses", 0.827),
        ("CXR-CLIP", "zero-shot, and on ChestX-ray14", "18 findings and diagnoses", 0.789),
        ("CXR-CLIP", "linear probe on VinDr-CXR", "18 findings and diagnoses", 0.893),
        ("CXR-CLIP", "fine-tuned on VinDr-CXR", "18 findings and diagnoses", 0.916),
    ),
    "ChestX-ray14": (
        ("ECAMP", "linear probe on ChestX-ray14", "14 labels", 0.848),
        ("ECAMP", "fine-tuned on ChestX-ray14", "14 labels", 0.865),
    ),
}


def paper_figures(task: str) -> dict[tuple[str, ...], float]:
    """LiteGPT's figures of a task by their paths in the task's metrics; {} for a task that the paper does not have.

    They are shares in [0, 1], but CIDEr is as printed.
    """
    figures = {}
    for number, row in PAPER_ROWS.get(task, {}).items():
        for path, printed in zip(TABLES[number].columns.values(), TABLES[number].paper[row], strict=True):
            figures[path] = printed if path[-1] == "cider" else printed / 100
    return figures
