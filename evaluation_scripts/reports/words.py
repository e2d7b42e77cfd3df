"""`word_metrics.json` and the answers -> what `litegpt evaluate-words` says of them, in Markdown and as a page.

    write_report(metrics, "words/checkpoint", "phantoms")      # "# LiteGPT: answers in words ..."
    html_report(metrics, asked, lines, rows, "words/checkpoint", "phantoms", num_cases=8)

In: the figures, and for the page the questions, the answers and the rows, whose pictures are read for those shown
alone. Out: a text that opens with which figures exceed every control. The page has some radiographs beside it, with
every sentence, its probability and its boxes (`word_cases.py`).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from litegpt.common.templates import template
from litegpt.evaluation_scripts.reports.html import PageSection, inline, word_columns
from litegpt.evaluation_scripts.reports.sections import Section, Table, interval_text, number
from litegpt.evaluation_scripts.reports.word_cases import cases_html, drawn_cases, styles
from litegpt.evaluation_scripts.word_questions import WordQuestion

if TYPE_CHECKING:  # it takes a second to import
    from datasets import Dataset

TITLE = "LiteGPT: answers in words"
TASK_TITLES = {
    "refer": "Where a phrase is",
    "describe": "What is in a box",
    "report": "Reports",
    "grounded_report": "Reports with boxes",
    "question": "Questions",
}
FIGURES = {  # by task what is shown of it, and in which words; those that are judged beside the controls first
    "refer": {
        "balanced": "right: mean of Acc@IoU 0.5 and no-box correctness",
        "mean_iou": "mean IoU of present phrases",
        "accuracy_at_iou.0.3": "Acc@IoU 0.3 of present phrases",
        "accuracy_at_iou.0.5": "Acc@IoU 0.5 of present phrases",
        "auroc": "AUROC of `present`",
        "no_box_correct": "no-box correctness: absent phrases answered None",
        "answered_none": "present phrases answered None (less is better)",
    },
    "describe": {"exact": "exact: the same words"},
    "report": {
        "sentences.f1": "sentences: F1",
        "affirmed.f1": "sentences that affirm something: F1",
        "micro_f1.14": "labels, 14: micro F1",
        "macro_f1.14": "labels, 14: macro F1",
        "micro_f1.5": "labels, 5: micro F1",
        "macro_f1.5": "labels, 5: macro F1",
        "rouge_l": "ROUGE-L",
        "bleu4": "BLEU-4",
        "meteor_without_synonyms": "METEOR without synonyms",
        "cider": "CIDEr (0 to 10)",
        "radgraph.partial": "RadGraph F1, partial",
        "chexbert_micro_f1.14": "CheXbert labels, 14: micro F1",
        "chexbert_macro_f1.14": "CheXbert labels, 14: macro F1",
        "chexbert_micro_f1.5": "CheXbert labels, 5: micro F1",
        "chexbert_macro_f1.5": "CheXbert labels, 5: macro F1",
        "sentences.precision": "sentences: precision",
        "sentences.recall": "sentences: recall",
        "affirmed.precision": "sentences that affirm something: precision",
        "affirmed.recall": "sentences that affirm something: recall",
    },
    "grounded_report": {
        "sentences.f1": "sentences: F1",
        "affirmed.f1": "sentences that affirm something: F1",
        "sentences_with_boxes.f1": "sentences with their boxes: F1",
        "boxes.f1": "boxes of matched sentences: F1",
        "sentences.precision": "sentences: precision",
        "sentences.recall": "sentences: recall",
        "affirmed.precision": "sentences that affirm something: precision",
        "affirmed.recall": "sentences that affirm something: recall",
        "sentences_with_boxes.precision": "sentences with their boxes: precision",
        "sentences_with_boxes.recall": "sentences with their boxes: recall",
        "boxes.precision": "boxes of matched sentences: precision",
        "boxes.recall": "boxes of matched sentences: recall",
    },
    "question": {
        "closed_accuracy": "closed questions: accuracy",
        "open_exact": "open questions: exact",
        "open_recall": "open questions: recall of words",
        "open_f1": "open questions: F1 of words",
    },
}
# Precision, recall and no-box correctness can be had by saying little, or None always: they are read beside others.
NOT_JUDGED = {"no_box_correct", "answered_none"}
SENTENCE_FIGURES = {
    "auroc": "AUROC of all sentences",
    "auroc_affirmed": "AUROC of sentences that affirm something",
    "auroc_denied": "AUROC of sentences that deny something",
    "ece": "calibration error (less is better)",
    "doubtful_of_false": "marked as doubtful, of the false ones",
    "doubtful_of_true": "marked as doubtful, of the true ones (less is better)",
}
SENTENCES = {
    "answered": "Sentences that the checkpoint wrote",
    "borrowed": "Sentences of another radiograph's true report",
}
CONTROLS = {
    "shuffled": "another image's answer",
    "most_frequent": "the most frequent answer",
    "none": "always None",
    "mean_box": "the phrase's mean box, as often as it is there",
    "noise": "asked about noise",
    "black": "asked about a black picture",
    "another_image": "believed of another image",
    "chance": "chance",
}
RULE = (
    "The rule: a figure exceeds its controls where the lower bound of the 95 % interval of its difference to each of "
    "them, on the same resampled radiographs, is above 0; beside it stands the control of the smallest difference. "
    "Controls have not seen the image: the answer to the same question about another image, the most frequent true "
    "answer given to all, answers to pictures of noise and a black one (to the questions about some radiographs). "
    "To exceed them is more than chance, not a good figure."
)


def write_report(metrics: Mapping[str, Any], model: str, data: str) -> str:
    """The report in Markdown.

    Args:
        metrics: `word_metrics.json`.
        model, data: the names of what was evaluated on what.
    """
    return template(__file__, "report.md.jinja").render(
        title=TITLE, introduction="\n\n".join(introduction(metrics, model, data)), sections=word_sections(metrics)
    )


def html_report(
    metrics: Mapping[str, Any],
    asked: Mapping[str, Sequence[WordQuestion]],
    lines: Mapping[tuple[int, str, str | None], Mapping[str, Any]],
    rows: "Dataset",
    model: str,
    data: str,
    num_cases: int,
) -> str:
    """The report as one HTML file, with some radiographs.

    Args:
        asked: by task the questions.
        lines: by question the answer.
        rows: of the contract's schema.
        num_cases: how many radiographs are shown.
    """
    sections = [PageSection(section.name, section.title, section.blocks) for section in word_sections(metrics)]
    if num_cases:
        html = cases_html(drawn_cases(asked, lines, rows, num_cases, metrics["untrained"].values()))
        sections.append(
            PageSection("cases", "Some radiographs, drawn at random, half of them among those with boxes", html=html)
        )
    return template(__file__, "report.html.jinja").render(
        title=TITLE,
        introduction=introduction(metrics, model, data),
        sections=sections,
        inline=inline,
        plain=lambda text: text.replace("`", "").replace("*", ""),
        word_columns=word_columns,
        styles=styles(),
    )


def introduction(metrics: Mapping[str, Any], model: str, data: str) -> list[str]:
    """The first paragraphs: which figures exceed their controls, what else is doubtful, and what was run."""
    data_set, run, bootstrap = metrics["data_set"], metrics["run"], metrics["bootstrap"]
    paragraphs = [verdict(metrics)]
    paragraphs += [_verdict_of_task(task, scores) for task, scores in metrics["tasks"].items()]
    paragraphs += _verdict_of_sentences(metrics["sentence_truth"] or {})
    if metrics["untrained"]:
        tasks = ", ".join(f"`[{task}]`" for task in metrics["untrained"])
        paragraphs.append(f"**The checkpoint was never trained to answer {tasks}: these answers mean nothing.**")
    if run["caution"]:
        paragraphs.append(f"**Caution about this checkpoint**: {run['caution']}.")
    paragraphs.append(RULE)
    words = "; template words, whose truth is known" if metrics["template_words"] else ""
    views = f"; {metrics['two_views']:,} reports from two views" if metrics["two_views"] else ""
    paragraphs.append(
        f"Checkpoint `{model}`; {data_set['name']} (`{data}`), split `{data_set['split']}`, "
        f"{data_set['radiographs']:,} radiographs{words}{views}; greedy answers. Words that no grammar holds are "
        "unverified, however well they are put. Research software, not a medical device. A figure that cannot be "
        "computed is a dash."
    )
    digests = ", ".join(f"`{name}` {digest[:12]}" for name, digest in metrics["weights"].items())
    trained_on = f"Trained on {', '.join(run['trained_on'])}. " if run["trained_on"] else ""
    paragraphs.append(
        f"{trained_on}Made on {run['date']} with litegpt {run['litegpt']}, transformers {run['transformers']}, torch "
        f"{run['torch']}, Python {run['python']}; bootstrap of {bootstrap['resamples']:,} resamples by "
        f"{bootstrap['unit']}, seed {bootstrap['seed']}."
        + (f" Weights by the beginning of their SHA-256: {digests}." if digests else "")
    )
    return paragraphs


def exceeds(figure: Mapping[str, Any]) -> bool | None:
    """Whether a figure exceeds all of its controls beyond chance; None where it has none to be held against."""
    intervals = [control["interval"] for control in figure["controls"].values() if control["interval"] is not None]
    return all(interval[0] > 0 for interval in intervals) if intervals and figure["value"] is not None else None


def nearest(figure: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]] | None:
    """The control that a figure exceeds least, or that exceeds it most."""
    known = {name: control for name, control in figure["controls"].items() if control["more"] is not None}
    return min(known.items(), key=lambda item: item[1]["more"]) if known else None


def judged(task: str, figures: Mapping[str, Any]) -> dict[str, bool]:
    """By figure, of those that are judged, whether it exceeds its controls."""
    names = [
        name
        for name in FIGURES[task]
        if name in figures and name not in NOT_JUDGED and not name.endswith((".precision", ".recall"))
    ]
    told = {name: exceeds(figures[name]) for name in names}
    return {name: told[name] for name in names if told[name] is not None}


def verdict(metrics: Mapping[str, Any]) -> str:
    """In how many figures the answers exceed every control."""
    told = [value for task, scores in metrics["tasks"].items() for value in judged(task, scores["figures"]).values()]
    if not told:
        return "**Whether the answers follow the image cannot be told**: no figure has a control."
    rest = len(told) - sum(told)
    others = f"; {rest} {'does' if rest == 1 else 'do'} not" if rest else ""
    return (
        f"**{sum(told)} of {len(told)} figures exceed every control beyond the interval of the difference{others}.**"
    )


def _verdict_of_task(task: str, scores: Mapping[str, Any]) -> str:
    """Of each judged figure in words whether it exceeds its controls."""
    told, figures = judged(task, scores["figures"]), scores["figures"]
    sentences = [f"**{TASK_TITLES[task]}** (`[{task}]`, {scores['questions']:,} questions)."]
    for answer, words in ((True, "Above every control"), (False, "**Not above every control**")):
        parts = [f"{FIGURES[task][name]} {_against(figures[name])}" for name, value in told.items() if value is answer]
        if parts:
            sentences.append(f"{words}: {'; '.join(parts)}.")
    if not told:
        sentences.append("Nothing can be held against a control.")
    if scores["malformed"]:
        sentences.append(f"{scores['malformed']:,} answers cannot be read and count as wrong.")
    return " ".join(sentences)


def _verdict_of_sentences(truth: Mapping[str, Any]) -> Iterator[str]:
    """Whether stated probabilities tell true sentences from false ones, in words."""
    for name in (name for name in SENTENCES if name in truth):
        sentences = [f"**{SENTENCES[name]}**, {truth[name]['sentences']:,}, true or false?"]
        figures = {figure: truth[name]["figures"][figure] for figure in ("auroc", "auroc_affirmed", "auroc_denied")}
        for answer, words in ((True, "Above the controls"), (False, "**Not above the controls**")):
            parts = [
                f"{SENTENCE_FIGURES[figure]} {_against(value)}"
                for figure, value in figures.items()
                if exceeds(value) is answer
            ]
            if parts:
                sentences.append(f"{words}: {'; '.join(parts)}.")
        yield " ".join(sentences)


def _against(figure: Mapping[str, Any]) -> str:
    """A figure against its nearest control: "0.710 against 0.386 (always None)"."""
    control, difference = nearest(figure)
    return f"{number(figure['value'])} against {number(difference['control'])} ({CONTROLS[control]})"


def _signed(interval: Sequence[float]) -> str:
    return f"{interval[0]:+.3f} to {interval[1]:+.3f}"


def word_sections(metrics: Mapping[str, Any]) -> list[Section]:
    """A section a task, and one of the sentences whose truth is known."""
    sections = [
        Section(task, TASK_TITLES[task], list(_blocks(task, scores))) for task, scores in metrics["tasks"].items()
    ]
    if metrics["sentence_truth"] is not None:
        blocks = list(_sentence_blocks(metrics["sentence_truth"]))
        sections.append(Section("sentence-truth", "Whether sentences are true", blocks))
    return sections


def _blocks(task: str, scores: Mapping[str, Any]) -> Iterator[str | Table]:
    learnt = (
        f"are those of `{scores['prior']}`"
        if scores["prior"]
        else "are those of the evaluated split itself, as there is no other: they know its answers"
    )
    yield (
        f"{scores['questions']:,} questions about {scores['radiographs']:,} radiographs; {scores['malformed']:,} "
        f"answers cannot be read. Most frequent answers and mean boxes {learnt}. Noise and black pictures stand in "
        f"the place of {scores['control_radiographs']:,} radiographs."
    )
    yield figure_table(scores["figures"], FIGURES[task])


def figure_table(figures: Mapping[str, Any], titles: Mapping[str, str]) -> Table:
    """A figure a row: its value and interval, what each control reaches, and the difference to the nearest."""
    shown = {name: figures[name] for name in titles if name in figures}
    controls = [name for name in CONTROLS if any(name in figure["controls"] for figure in shown.values())]
    head = ["figure", "value", "95 % interval", *(CONTROLS[name] for name in controls), "least difference", "95 %"]
    rows = []
    for name, figure in shown.items():
        reached = [number(figure["controls"].get(control, {}).get("control")) for control in controls]
        least = nearest(figure)
        difference = "-" if least is None else f"{least[1]['more']:+.3f}"
        interval = "-" if least is None or least[1]["interval"] is None else _signed(least[1]["interval"])
        value = number(figure["value"])
        rows.append([titles[name], value, interval_text(figure["interval"]), *reached, difference, interval])
    return Table(head, rows)


def _sentence_blocks(truth: Mapping[str, Any]) -> Iterator[str | Table]:
    calibration = truth["calibration"]
    how = {
        "facts": "the labels and boxes of each radiograph",
        "labels": "labels that rules read in the sentence and in the radiograph's own report, which err",
    }[truth["truth"]]
    yield (
        f"How well the probabilities that are stated of sentences tell true from false ones (`[{truth['task']}]`). "
        f"What is true is told by {how}; sentences of which it cannot be said are left out. A sentence below a "
        f"probability of {calibration['threshold']:.3f} is marked as doubtful. A sentence that denies something is "
        "mostly true: look at those that affirm, and at the control that believes the same sentences about a third "
        "radiograph."
    )
    if "answered" not in truth and "borrowed" not in truth:
        yield "There is no sentence of which it is known."
    for name, words in SENTENCES.items():
        if name in truth:
            told = truth[name]
            unknown = told["without_probability"]
            left_out = f"; {unknown:,} without a probability" if unknown else ""
            yield (
                f"**{words}**: {told['sentences']:,} about {told['images']:,} radiographs, {told['true']:,} of them "
                f"true{left_out}."
            )
            yield figure_table(told["figures"], SENTENCE_FIGURES)
