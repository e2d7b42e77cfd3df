"""`metrics.json` of a CXR-CLIP checkpoint -> its report, in Markdown and as one HTML page.

    write_report(metrics, "cxr_clip/checkpoint", "vindr-cxr")   # "# CXR-CLIP: evaluation ..."
    html_report(metrics, "cxr_clip/checkpoint", "vindr-cxr")
    verdict(metrics)   # ["**Zero-shot ranks radiographs by their labels better than ... **"]

In: what `evaluate_cxr_clip.py` computed. Out: text; the sections are laid out by LiteGPT's own templates.
"""

import re
from collections.abc import Iterator
from typing import Any

from litegpt.common.templates import template
from litegpt.evaluation_scripts.ranking import AMONG
from litegpt.evaluation_scripts.reports.cxr_clip_figures import TABLES
from litegpt.evaluation_scripts.reports.html import PageSection, Plot, inline, word_columns
from litegpt.evaluation_scripts.reports.published_figures import PAPER_DATA
from litegpt.evaluation_scripts.reports.sections import Section, Table, at, interval_text, number

TITLE = "CXR-CLIP: evaluation"
CONTROLS = {"pixels": "16 x 16 grey pixels", "random": "the same network with random weights"}
# The paper's name of a data set, in its Tables 2 and 3.
PUBLISHED = {
    PAPER_DATA: "VinDr",
    "RSNA Pneumonia": "RSNA",
    "SIIM-ACR Pneumothorax": "SIIM",
    "MIMIC-CXR-JPG": "MIMIC",
    "Open-i": "Open-I",
}
ANYTHING = "knowing only whether a radiograph is abnormal"


def write_report(metrics: dict[str, Any], model: str, data: str) -> str:
    """The report in Markdown.

    Args:
        metrics: `metrics.json`.
        model, data: the names of what was evaluated on what.
    """
    return template(__file__, "report.md.jinja").render(
        title=TITLE, introduction="\n\n".join(introduction(metrics, model, data)), sections=sections(metrics)
    )


def html_report(metrics: dict[str, Any], model: str, data: str) -> str:
    """The same as one HTML file, with a plot of the labels' AUROC."""
    return template(__file__, "report.html.jinja").render(
        title=TITLE,
        introduction=introduction(metrics, model, data),
        sections=[
            PageSection(one.name, one.title, one.blocks, list(_plots(metrics, one))) for one in sections(metrics)
        ],
        inline=inline,
        plain=lambda text: re.sub(r"[`*]", "", text),
        word_columns=word_columns,
    )


def introduction(metrics: dict[str, Any], model: str, data: str) -> list[str]:
    """The report's first paragraphs: verdict, warnings, and what was run."""
    data_set, run, bootstrap = metrics["data_set"], metrics["run"], metrics["bootstrap"]
    trained_on = f" Trained on {', '.join(run['trained_on'])}." if run["trained_on"] else ""
    digests = ", ".join(f"`{name}` {digest[:12]}" for name, digest in metrics["weights"].items())
    unit = f"{bootstrap['patients']:,} patients" if bootstrap["patients"] else "radiographs, as no patients are known"
    return [
        " ".join(verdict(metrics)),
        *(f"**Warning**: {warning}" for warning in metrics["warnings"]),
        f"Checkpoint `{model}`; {data_set['name']} (`{data}`), split `{data_set['split']}`, "
        f"{data_set['radiographs']:,} radiographs, {data_set['abnormal']:,} of them abnormal"
        + (f"; probes learn from `{data_set['train_split']}`. " if data_set["train_split"] else ". ")
        + "Research software, not a medical device. A figure that cannot be computed is a dash.",
        f"Made on {run['date']} with litegpt {run['litegpt']}, transformers {run['transformers']}, torch "
        f"{run['torch']}, Python {run['python']}. Intervals: 95 %, bootstrap over the {unit}, "
        f"{bootstrap['resamples']:,} resamples, seed {bootstrap['seed']}; they say how much the choice of test images "
        f"matters, not the seed of a training.{trained_on}" + (f" Weights by SHA-256: {digests}." if digests else ""),
    ]


# --- The verdict -----------------------------------------------------------------------------------------------------


def verdict(metrics: dict[str, Any]) -> list[str]:
    """Sentences: is what was measured above its controls, and for which labels?"""
    sentences = [*_zero_shot_verdict(metrics), *_classes_verdict(metrics), *_retrieval_verdict(metrics)]
    sentences += _probe_verdict(metrics)
    return sentences or ["**Nothing could be measured.**"]


def _zero_shot_verdict(metrics: dict[str, Any]) -> Iterator[str]:
    scores = metrics["zero_shot"]
    if scores is None:
        return
    wording, value = scores["wordings"][0], at(scores, "figures", scores["wordings"][0], "all", "macro")
    shuffled = at(scores, "intervals", f"{wording}_less_shuffled", "all", "macro")
    anything = at(scores, "intervals", f"{wording}_less_anything_there", "all", "macro")
    yield (
        f"**Zero-shot is {_beside(shuffled)} the shuffled control and {_beside(anything)} what {ANYTHING} gives**: "
        f"mean AUROC {number(value)} over {len(scores['labels'])} labels, against "
        f"{number(at(scores, 'figures', 'shuffled', 'all', 'macro'))} and "
        f"{number(at(scores, 'figures', 'anything_there', 'all', 'macro'))}; among abnormal radiographs alone "
        f"{number(at(scores, 'figures', wording, 'abnormal', 'macro'))}."
    )
    told = [label for label in scores["labels"] if _tells(scores, wording, label)]
    untold = [label for label in scores["labels"] if label not in told]
    yield (
        f"Which finding it is, among abnormal radiographs, it tells better than chance for {_listed(told)}"
        + (f"; that is not shown for {_listed(untold)}." if told and untold else ".")
    )


def _tells(scores: dict[str, Any], name: str, label: str) -> bool:
    """Whether a label's AUROC among abnormal radiographs has its interval above chance."""
    interval = at(scores, "intervals", name, "abnormal", "per_label", label)
    return interval is not None and interval[0] > 0.5


def _classes_verdict(metrics: dict[str, Any]) -> Iterator[str]:
    scores = metrics["classes"]
    if scores is not None:
        yield (
            f"**Of five classes {number(scores['figures']['accuracy'])} are right**, "
            f"{_beside(scores['intervals']['accuracy_less_shuffled'])} the shuffled control "
            f"({number(scores['figures']['shuffled'])})."
        )


def _retrieval_verdict(metrics: dict[str, Any]) -> Iterator[str]:
    scores = metrics["retrieval"]
    if scores is None:
        return
    interval = at(scores, "intervals", "less_shuffled", "image_to_text", "mean_rank")
    better = interval is not None and interval[1] < 0
    yield (
        f"**A radiograph's own report stands at place {scores['figures']['image_to_text']['mean_rank']:.1f} of "
        f"{scores['texts']:,} on average**, {'before' if better else 'not shown to be before'} the shuffled pairs' "
        f"({scores['figures']['shuffled']['image_to_text']['mean_rank']:.1f}; chance "
        f"{scores['chance']['image_to_text']['mean_rank']:.1f})."
    )


def _probe_verdict(metrics: dict[str, Any]) -> Iterator[str]:
    if metrics["probe"] is None:
        return
    whole = metrics["probe"]["parts"]["100"]
    controls = [
        f"{_beside(at(whole, 'intervals', f'features_less_{name}', 'all', 'macro'))} {words} "
        f"({number(at(whole, 'figures', name, 'all', 'macro'))})"
        for name, words in CONTROLS.items()
        if name in whole["figures"]
    ]
    reached, among_abnormal = (number(at(whole, "figures", "features", among, "macro")) for among in AMONG)
    yield (
        f"**A linear probe on all training radiographs reaches {reached}**, among abnormal ones {among_abnormal}: "
        f"{' and '.join(controls)}."
    )


def _beside(interval: list[float] | None) -> str:
    """Where something stands, by the interval of its difference to a control."""
    if interval is None or interval[0] <= 0 <= interval[1]:
        return "not shown to differ from"
    return "above" if interval[0] > 0 else "below"


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "no label"


# --- The sections ----------------------------------------------------------------------------------------------------


def sections(metrics: dict[str, Any]) -> list[Section]:
    """All that the report says after its first paragraphs."""
    found = [*_zero_shot(metrics), *_classes(metrics), *_retrieval(metrics), *_probe(metrics), *_published(metrics)]
    if metrics["left_out"]:
        lines = [[what, reason] for what, reason in metrics["left_out"].items()]
        found.append(Section("left-out", "What is left out", [Table(["label or task", "why"], lines)]))
    return found


def _cells(scores: dict[str, Any], *path: str) -> list[str]:
    """A figure and its interval."""
    return [number(at(scores, "figures", *path)), interval_text(at(scores, "intervals", *path))]


def _both(scores: dict[str, Any], name: str, *path: str) -> list[str]:
    """AUROC among all and among abnormal radiographs, each with its interval."""
    return [*_cells(scores, name, "all", *path), *_cells(scores, name, "abnormal", *path)]


def _zero_shot(metrics: dict[str, Any]) -> Iterator[Section]:
    scores = metrics["zero_shot"]
    if scores is None:
        return
    first, macro = scores["wordings"][0], ["macro"]
    head = ["AUROC, all", "95 % interval", "among abnormal", "95 % interval"]
    wordings = [
        [f"wording `{name}`", *_both(scores, name, *macro), *_cells(scores, name, "accuracy")[:1]]
        + _cells(scores, name, "f1")[:1]
        for name in scores["wordings"]
    ]
    controls = [
        ["shuffled radiographs", *_both(scores, "shuffled", *macro), "-", "-"],
        ["anything there?", *_both(scores, "anything_there", *macro), "-", "-"],
        *(
            [f"`{first}` less {words}", *_both(scores, f"{first}_less_{name}", *macro), "-", "-"]
            for name, words in (("shuffled", "shuffled"), ("anything_there", "anything there?"))
        ),
    ]
    labels = [
        [label, f"{counts['positives']:,}", *_both(scores, first, "per_label", label)]
        + [number(at(scores, "figures", "anything_there", "all", "per_label", label))]
        for label, counts in scores["labels"].items()
    ]
    yield Section(
        "zero-shot",
        "Zero-shot",
        [
            "Each radiograph is compared with a label's positive and negative sentences; the score is the difference "
            "of the cosines. **Read three columns together**: `all` is what papers print. `anything there?` is what a "
            "score would get that knows which radiographs are abnormal, and nothing else: most negatives are normal. "
            "`among abnormal` leaves the normal ones out: .5 says that the score does not tell which finding.",
            Table(["", *head, "accuracy", "F1"], wordings + controls),
            f"The first wording, `{first}`, is the headline. `templates` are sentences that no report uses: the "
            "control of wording. Accuracy and F1 are of the nearer side.",
            Table(["label", "positive", *head, "anything there?"], labels),
        ],
    )


def _classes(metrics: dict[str, Any]) -> Iterator[Section]:
    scores = metrics["classes"]
    if scores is not None:
        yield Section(
            "classes",
            "Five classes",
            [
                f"{scores['images']:,} radiographs with exactly one of CheXpert's five competition labels, the class "
                "of the highest mean cosine over its sentences. The published CheXpert5x200 has 200 of each; on other "
                "shares of the classes the paper's accuracies do not compare.",
                Table(
                    ["accuracy", "95 % interval", "shuffled", "95 % interval", "commonest class"],
                    [[*_cells(scores, "accuracy"), *_cells(scores, "shuffled"), number(scores["commonest"])]],
                ),
            ],
        )


def _retrieval(metrics: dict[str, Any]) -> Iterator[Section]:
    scores = metrics["retrieval"]
    if scores is None:
        return
    keys = ("recall_at_1", "recall_at_5", "recall_at_10", "mean_rank")

    def lines(title: str, found: dict[str, Any], *path: str) -> list[str]:
        cells = []
        for key in keys:
            value, interval = at(found, "figures", *path, key), at(found, "intervals", *path, key)
            form = "{:.1f}" if key == "mean_rank" else "{:.3f}"
            words = "-" if interval is None else " to ".join(form.format(bound) for bound in interval)
            cells += [form.format(value), words]
        return [title, *cells]

    def by_chance(title: str, values: dict[str, float]) -> list[str]:
        return [
            title,
            *(c for key in keys for c in (("{:.1f}" if key == "mean_rank" else "{:.3f}").format(values[key]), "-")),
        ]

    rows = []
    for direction in ("image_to_text", "text_to_image"):
        words = direction.replace("_", " ")
        rows.append(lines(words, scores, direction))
        rows.append(lines(f"{words}, shuffled pairs", scores, "shuffled", direction))
        rows.append(by_chance(f"{words}, chance", scores["chance"][direction]))
    new = scores["new_texts"]
    if new is not None:
        rows.append(lines(f"image to text, the {new['texts']:,} texts that no training study has", new))
        rows.append(by_chance("the same, chance", new["chance"]))
    yield Section(
        "retrieval",
        "Retrieval",
        [
            f"{scores['studies']:,} studies, one radiograph and the longer section of the report each; "
            f"{scores['texts']:,} different texts. Equal scores share the worst rank. Read mean rank and R@10: with a "
            "few hundred texts R@1 and R@5 move by chance.",
            Table(["", *(c for k in ("R@1", "R@5", "R@10", "mean rank") for c in (k, "95 % interval"))], rows),
        ],
    )


def _probe(metrics: dict[str, Any]) -> Iterator[Section]:
    if metrics["probe"] is None:
        return
    rows = []
    for part, scores in metrics["probe"]["parts"].items():
        images = f"{part} % ({', '.join(sorted({f'{n:,}' for n in scores['images']}))} radiographs)"
        for name, words in {"features": "this checkpoint", **CONTROLS}.items():
            if name in scores["figures"]:
                spread = scores["by_seed"][name]["all"]
                several = len(spread) > 1 and None not in spread
                rows.append(
                    [images, words, *_both(scores, name, "macro")]
                    + [f"{min(spread):.3f} to {max(spread):.3f}" if several else "-"]
                )
        for name, words in CONTROLS.items():
            if name in scores["figures"]:
                rows.append([images, f"this less {words}", *_both(scores, f"features_less_{name}", "macro"), "-"])
    whole = metrics["probe"]["parts"]["100"]
    labels = [
        [label, *_both(whole, "features", "per_label", label)]
        + [
            number(at(whole, "figures", name, "all", "per_label", label))
            for name in CONTROLS
            if name in whole["figures"]
        ]
        for label in metrics["probe"]["labels"]
    ]
    head = ["AUROC, all", "95 % interval", "among abnormal", "95 % interval"]
    yield Section(
        "probe",
        "Linear probes on the frozen image tower",
        [
            "A logistic regression for each label (C = 0.01, never tuned) on standardised features. **A better probe "
            "is no proof that reports were used**: contrast between the images of a study alone lifts it too. That "
            "takes zero-shot and retrieval. Parts are nested, and the mean over their draws is shown; the last column "
            "is the lowest and the highest draw.",
            Table(["trained on", "features", *head, "draws"], rows),
            Table(["label, 100 %", *head, *(CONTROLS[name] for name in CONTROLS if name in whole["figures"])], labels),
        ],
    )


def _published(metrics: dict[str, Any]) -> Iterator[Section]:
    """The paper's figures, on the paper's data set alone."""
    name = PUBLISHED.get(metrics["data_set"]["name"])
    if "CheXpert" in metrics["data_set"]["name"] and at(metrics, "classes", "counts") == [200] * 5:
        name = "C5x200"
    if name is None:
        return
    blocks: list[str | Table] = [
        "In percent, as printed in CXR-CLIP (arXiv 2310.13292). They compare with ours on the same radiographs and "
        "labels alone (of VinDr-CXR 18); zero-shot has the wording `paper` there (of RSNA `biovil`), and probes are "
        "trained by gradient descent. The tables contradict themselves in places: `litegpt cxr-clip-tables`."
    ]
    for number_of, table in TABLES.items():
        places = [place for place, column in enumerate(table.columns) if column.startswith(f"{name} ")]
        if places and number_of < 4:
            head = [f"Table {number_of}", *(table.columns[place] for place in places)]
            lines = [
                [table.titles[row], *(str(values[place]) for place in places)] for row, values in table.rows.items()
            ]
            blocks.append(Table(head, lines))
    yield Section("published", "Published figures on this data set", blocks)


def _plots(metrics: dict[str, Any], section: Section) -> Iterator[Plot]:
    from litegpt.evaluation_scripts.reports import plots  # matplotlib takes a second that other programs need not wait

    if section.topic == "zero-shot":
        first = metrics["zero_shot"]["wordings"][0]
        values, intervals = (
            at(metrics, "zero_shot", kind, first, "abnormal", "per_label") for kind in ("figures", "intervals")
        )
        words = "Zero-shot AUROC of each label among abnormal radiographs, with its 95 % interval; 0.5 is chance."
        yield Plot(plots.auroc(values, intervals), words)
